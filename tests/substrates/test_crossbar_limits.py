"""How far a crossbar's time may go, and that what leads beyond is refused before it happens."""

import math
import re

import pytest
import torch

from substrates.memristor.crossbar import Crossbar, make
from substrates.memristor.presets import IDEAL
from tests.substrates.crossbars import alike, codes, drive, turn, weights, written
from twin.errors import DialError
from twin.key import Key

SMALL = {"inputs": 6, "outputs": 4}
PRESETS = ("neurram-like", "pcm", "cmo-hfox")


def refused(chip: Crossbar, call, words: str) -> None:
    before = chip.snapshot()
    with pytest.raises(DialError, match=words) as caught:
        call()
    assert chip.capabilities.device_id in str(caught.value)
    assert alike(before, chip.snapshot())
    assert chip.snapshot().values["state_version"] == before.values["state_version"]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("mode", ["outcome", "verify"])
def test_passes_beyond_the_data_of_a_technology_are_refused_whole_and_a_write_helps(preset, mode):
    chip = written(preset=preset, **SMALL, read_time_s=10.0, thermal_floor=0.0, write_mode=mode)
    turn(chip, **({"rtn_scale": 0.0} if chip.technology.rtn else {}))
    law, x = chip.technology.relaxation, drive(chip, 40)
    chip.wait(chip.remaining_s() - 10.0)
    words = rf"up to {re.escape(f'{law.last_s:g}')} s.*Wait less, write again"
    refused(chip, lambda: chip.forward(x, key=Key(1)), words)
    refused(chip, lambda: chip.forward(x[:1], key=Key(1), shots=40), words)
    refused(chip, lambda: chip.set_range(x, key=Key(1)), words)
    refused(chip, lambda: chip.wait(20.0), words)
    chip.program(weights(chip), key=Key(3))
    codes(chip, x[:1])
    chip.wait(0.05 * law.last_s)


def test_a_write_that_outlasts_the_law_still_writes():
    # It takes longer than the law holds, for cells that no pulse hits.
    chip = written(preset="neurram-like", **SMALL, write_mode="verify", write_pulse_s=5e4)
    for _ in range(3):
        cost = chip.program(weights(chip), key=Key(4))
        assert torch.isfinite(cost.achieved["weights"]).all()
    if chip.parts.cells.history is not None and chip.remaining_s() == 0:
        refused(chip, lambda: codes(chip, drive(chip)), "holds up to")


def test_a_hot_chip_reaches_the_end_of_its_law_sooner():
    chip = turn(written(preset="cmo-hfox", **SMALL), temperature_k=380.0)
    left_s = chip.remaining_s()
    assert left_s < 1e6
    refused(chip, lambda: chip.wait(left_s * 1.01), "holds up to")
    chip.wait(left_s * 0.99)


@pytest.mark.parametrize("what", ["wait", "pass", "write", "dial"])
def test_device_time_beyond_what_traps_are_known_for_is_refused(what):
    slow = {"pass": {"read_time_s": 1e3}, "write": {"write_pulse_s": 1e16}}.get(what, {})
    chip = make(key=Key(1), **IDEAL, **SMALL, rtn_active_fraction=0.5, **slow)
    horizon_s = chip.parts.cells.limits(chip._dials).horizon_s
    if what == "dial":
        turn(chip, rtn_active_fraction=0.0)
        chip.wait(2 * horizon_s)
        refused(chip, lambda: turn(chip, rtn_active_fraction=0.5), "telegraph noise")
        return
    if what == "pass":
        chip.wait(horizon_s * (1 - 1e-9))
    shots = int(1e-9 * horizon_s / 1e3) + 2
    calls = {
        "wait": lambda: chip.wait(1.01 * horizon_s),
        "pass": lambda: chip.forward(torch.ones(1, 6), key=Key(1), shots=shots),
        "write": lambda: chip.program(weights(chip), key=Key(1)),
    }
    refused(chip, calls[what], r"telegraph noise.*up to .* s.*Wait less")


@pytest.mark.parametrize(
    "bad",
    ["long", None, 1j, [1.0, 2.0], 10**400, {}],
    ids=["text", "none", "complex", "list", "huge", "table"],
)
def test_a_wait_or_a_dial_that_is_no_number_is_a_dial_error(bad):
    chip = written(**IDEAL, **SMALL)
    refused(chip, lambda: chip.wait(bad), "wait")
    refused(chip, lambda: chip.adjust("read_noise", bad, key=Key(1)), "read_noise")
    refused(chip, lambda: chip.adjust("dead_row", bad, key=Key(1)), "dead_row")


def test_ages_that_no_number_can_hold_are_refused():
    chip = written(**IDEAL, **SMALL, activation_ev=3.0, temperature_k=450.0)
    refused(chip, lambda: chip.wait(1e300), "wait less")
    chip.wait(1e280)
    codes(chip, drive(chip))
    cool = written(**IDEAL, **SMALL, activation_ev=0.0)
    cool.wait(1.7e308)
    refused(cool, lambda: cool.wait(1.7e308), "Wait less|wait less")


def test_traps_of_a_slow_read_are_slow():
    chip = written(**IDEAL, **SMALL, read_time_s=100.0, rtn_active_fraction=1.0)
    codes(chip, drive(chip), shots=3)
    (traps,) = chip.parts.cells.traps(chip._dials)
    assert float(traps.relaxation_s.min()) > 10.0


def test_read_noise_goes_by_the_clock_and_not_by_the_temperature():
    hot, cool = (written(preset="cmo-hfox", **SMALL) for _ in range(2))
    turn(hot, temperature_k=340.0)
    for chip in (hot, cool):
        turn(chip, rtn_scale=0.0)
        chip.wait(3600.0)
    g = torch.full(hot.parts.encoding.shape, 23.4e-6)
    found = [c.parts.cells.read_variance(g, c._moment(), c._dials) for c in (hot, cool)]
    assert torch.equal(*found)
    assert hot._moment().aged_s > 50 * hot._moment().age_s


def test_the_share_of_cells_at_nothing_is_told():
    chip = make(key=Key(1), **IDEAL, inputs=40, outputs=40, g_min_siemens=0.0)
    assert chip.clipped_fraction() == 1.0  # as made
    turn(chip, programming_error=0.05)
    chip.program(weights(chip).abs().clamp(min=0.4), key=Key(2))
    # Half of the cells have the target 0, and half of those would fall below.
    assert abs(chip.clipped_fraction() - 0.25) < 5 * 0.25 / math.sqrt(1600)
    assert written(**IDEAL, **SMALL).clipped_fraction() == 0
