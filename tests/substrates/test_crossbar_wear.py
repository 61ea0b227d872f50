"""Crossbars of a technology of one's own: wear, disturb, and files that make no sense."""

import math

import pytest
import torch

from substrates.memristor.crossbar import Crossbar, make
from tests.substrates.crossbars import codes, drive, weights, written
from twin.errors import ConfigError
from twin.key import Key

WINDOW = 18e-6

OWN = """
name = "own"
about = "a technology of a test"
source = "made up"
g_min_siemens = 2e-6
g_max_siemens = 20e-6
low_siemens = 0.0
high_siemens = 20e-6
pulse_s = 2e-6
pulse_joules = 3e-12
write_source = "made up"
[[programming]]
name = "only"
after_s = 0.0
source = "made up"
[programming.sigma]
low_siemens = 0.0
high_siemens = 20e-6
coefficients = [0.0]
"""
ENDURANCE = """
[endurance]
median_cycles = 5.0
weibull_shape = 2.0
fails_to = "high"
source = "made up"
"""
DISTURB = """
[disturb]
relative_per_decade = 0.1
first_reads = 1.0
source = "made up"
"""


def own_chip(folder, table: str, **options: object) -> Crossbar:
    path = folder / "own.toml"
    path.write_text(OWN + table, encoding="utf-8")
    options = {"dac_bits": 16, "adc_bits": 12, "inputs": 40, "outputs": 40, **options}
    return make(key=Key(1), technology=str(path), **options)


def test_cells_wear_out_with_the_number_of_writes_by_the_law_of_their_table(tmp_path):
    chip, before = own_chip(tmp_path, ENDURANCE), None
    w = weights(chip) * 0.9
    targets = chip.parts.encoding.targets(w)
    for write in range(1, 13):
        chip.program(w, key=Key(write))
        worn = (chip.conductances() - targets).abs() > 1e-9
        share = 1 - 2 ** -((write / 5.0) ** 2)
        assert abs(worn.double().mean() - share) < 5 * math.sqrt(share * (1 - share) / 3200)
        assert torch.allclose(chip.conductances()[worn], torch.tensor(20e-6))
        assert before is None or (worn | ~before).all()
        before = worn


def test_a_worn_cell_takes_every_pulse_of_a_verified_write_and_is_given_up(tmp_path):
    options = {"write_mode": "verify", "verify_max_pulses": 60, "pulse_error": 0.05}
    chip = own_chip(tmp_path, ENDURANCE, **options)
    w = weights(chip) * 0.9
    targets = chip.parts.encoding.targets(w)
    for write in range(1, 9):
        worn = (chip.conductances() - 20e-6).abs() < 1e-12
        cost = chip.program(w, key=Key(write))
        assert chip.given_up == int(worn.sum())
        assert cost.device_seconds >= 60 * chip.given_up * 2e-6 * (1 - 1e-9)
    assert chip.given_up > 1000
    healthy = (chip.conductances() - 20e-6).abs() > 1e-12
    off = (chip.conductances() - targets)[healthy].abs().max()
    assert off <= 0.02 * WINDOW * (1 + 1e-4)


def test_wear_is_part_of_a_snapshot_and_waits_and_reads_wear_nothing(tmp_path):
    chip = own_chip(tmp_path, ENDURANCE)
    chip.program(weights(chip), key=Key(1))
    saved, fresh = chip.snapshot(), chip.conductances()
    for write in range(6):
        chip.program(weights(chip), key=Key(write))
    assert not torch.equal(chip.conductances(), fresh)
    chip.restore(saved)
    chip.wait(1e6)
    codes(chip, drive(chip, 50), shots=10)
    assert torch.equal(chip.conductances(), fresh)


def test_reads_disturb_by_the_decade_and_a_write_makes_up_for_it(tmp_path):
    chip = own_chip(tmp_path, DISTURB)
    chip.program(weights(chip), key=Key(1))
    fresh, x = chip.conductances(), drive(chip, 1)
    assert chip.capabilities.read_disturb
    done = 0
    for reads in (1, 2, 3, 10, 100, 5000):
        codes(chip, x, shots=reads - done)
        done = reads
        wanted = fresh * (1 - 0.1 * math.log10(reads))
        # Reads are counted on a grid of a thousandth in their logarithm.
        assert torch.allclose(chip.conductances(), wanted, rtol=2e-4)
    chip.wait(1e6)
    assert torch.allclose(chip.conductances(), fresh * (1 - 0.1 * math.log10(5000)), rtol=2e-4)
    chip.program(weights(chip), key=Key(2))
    assert torch.equal(chip.conductances(), fresh)


def test_a_range_search_counts_as_reads(tmp_path):
    chip = own_chip(tmp_path, DISTURB)
    chip.program(weights(chip), key=Key(1))
    chip.set_range(drive(chip, 30), key=Key(1))
    assert chip.snapshot().values["reads_since_write"] == 30


def test_a_technology_of_ones_own_sets_window_and_pulses_and_turns_plain_laws_off(tmp_path):
    chip = own_chip(tmp_path, "")
    cost = chip.program(weights(chip), key=Key(1))
    assert cost.joules == pytest.approx(3200 * 10 * 3e-12)
    assert cost.device_seconds == pytest.approx(3200 * 10 * 2e-6)
    assert torch.allclose(cost.achieved["weights"], weights(chip), atol=3e-6)
    assert chip.technology is not None and chip.technology.name == "own"
    x, first = drive(chip), codes(chip, drive(chip))
    assert torch.equal(codes(chip, x, seed=8), first)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('name = "own"', 'nam = "own"'), "nam"),
        (("coefficients = [0.0]", "coefficients = [nan]"), "finite"),
        (("g_max_siemens = 20e-6", "g_max_siemens = 30e-6"), "narrow it"),
        (("pulse_s = 2e-6", "pulse_s = 0.0"), "greater than 0"),
        (("[[programming]]", "[[programming"), "not valid TOML"),
    ],
)
def test_a_technology_that_makes_no_sense_is_refused_with_its_file(tmp_path, change, words):
    path = tmp_path / "own.toml"
    path.write_text(OWN.replace(*change), encoding="utf-8")
    with pytest.raises(ConfigError, match=words) as caught:
        make(key=Key(1), technology=str(path))
    assert "own.toml" in str(caught.value)


def test_a_technology_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone.toml.*cannot be read"):
        written(technology=str(tmp_path / "gone.toml"))
