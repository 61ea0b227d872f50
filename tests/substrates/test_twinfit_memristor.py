"""What the fit of a crossbar's twin takes for noise, for drift, for broken, and what it says
it does not know."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from substrates.memristor.crossbar import Crossbar
from substrates.memristor.twincells import cells_held, cells_written, noise_power
from substrates.memristor.twinmodel import CrossbarTwin, twin
from substrates.memristor.twinnoise import Squares, repeats, variance_law
from substrates.memristor.twinregress import regression
from substrates.memristor.twinrows import main_rows, stretches
from tests.twin.chips import chip, chip_truth, fidelity, fitted_chip, fresh_drives
from twin.calibrate import calibrate
from twin.errors import DataError
from twin.key import Key
from twin.observations import Observations, observations
from twin.probing import probe
from twin.recording import Recording
from twin.solving import linear
from twin.twinmodel import Estimates
from twin.wrap import Recorded

SEEDS = st.integers(0, 2**32)


def probed(device: Crossbar, passes: int = 1500, seed: int = 5) -> Observations:
    return observations(probe(device, passes=passes, key=Key(seed), twin_kind="memristor"))


def estimated(device: Crossbar, seen: Observations) -> Estimates:
    return CrossbarTwin(device.capabilities).estimate(seen, key=Key(1))


def told(found: Estimates) -> str:
    return " ".join(map(str, found.unidentified))


def drawn(port: Any, seed: int, count: int | None = None) -> torch.Tensor:
    shape = port.shape if count is None else (count, *port.shape)
    values = torch.rand(shape, generator=Key(seed).torch())
    return port.on_grid(port.low + (port.high - port.low) * values)


# ---- columns that follow nothing -----------------------------------------------------


@given(seed=SEEDS, share=st.floats(0.01, 0.5))
@settings(max_examples=5, deadline=None)
def test_a_stuck_column_that_flickers_by_a_code_is_flagged_and_spoils_no_estimate(
    seed: int, share: float
) -> None:
    device = chip(seed % 11)
    seen = probed(device)
    flicker = (Key(seed).numpy().random(len(seen)) < share) * seen.step[3]
    value = seen.value.copy()
    value[:, 3] = 5 * seen.step[3] + flicker
    found, sound = estimated(device, replace(seen, value=value)), estimated(device, seen)
    assert found.flags["stuck columns"] == (3,)
    last = value[seen.write == seen.write[-1], 3]
    assert found.values["column_level"][3] == pytest.approx(last.mean())
    assert found.values["column_noise"][3] == pytest.approx(last.std())
    for name in ("write_error", "read_noise", "additive_noise"):
        # One column of eight less: a third of a standard error, as a rule.
        assert abs(found.values[name] - sound.values[name]) < 2 * sound.errors[name], name


def test_a_column_that_was_written_to_zero_is_not_taken_for_stuck() -> None:
    """Nothing of it depends on the drive; but that is what was asked."""
    exact = chip(1, programming_error=0.0, relaxation_spread=0.0)
    device = Recorded(exact)
    for number in range(3):
        setting = drawn(device.capabilities.settings[0], number)
        setting[:, 2] = 0.0
        device.program(setting, key=Key(number))
        device.forward(drawn(device.capabilities.drives[0], 9 + number, 300), key=Key(number))
    found = estimated(exact, observations(device.recording))
    assert found.flags["stuck columns"] == () and np.isnan(found.errors["column_gain"][2])


def test_a_column_whose_cells_ignore_what_is_written_is_flagged() -> None:
    """Its held state is right, and its misses count for no write error."""
    device = chip(1)
    found = estimated(device, _with_settings_of_one_column_hidden(probed(device), 4))
    assert found.flags["columns that follow no setting"] == (4,)
    truth = chip_truth(device)
    off = found.values["write_error"] - truth["write_error"]
    assert abs(off) < 4 * found.errors["write_error"]


def _with_settings_of_one_column_hidden(seen: Observations, column: int) -> Observations:
    others = [s.reshape(12, 8).copy() for s in seen.settings]
    for number, setting in enumerate(others):
        setting[:, column] = Key(number).numpy().uniform(-1, 1, 12)
    return replace(seen, settings=tuple(s.reshape(-1) for s in others))


# ---- noise -----------------------------------------------------------------------------


def test_a_law_that_the_model_does_not_know_is_no_noise_and_is_told() -> None:
    """Cubic cells: residuals have twice the variance of repeats."""
    device = chip(100, cubic_per_v2=3.0)
    made = fitted_chip(device, passes=3000, seed=0)
    value, error = (float(d["read_noise"]) for d in (made.values, made.estimates.errors))
    assert abs(value - 0.02) < 5 * error and error < 0.001
    assert "a law that the model does not know" in told(made.estimates)
    assert made.held_out.standardised > 1.2


def test_without_repeats_the_noise_is_that_of_residuals_and_the_fit_says_so() -> None:
    device = chip(1)
    seen = probed(device)
    alone = replace(seen, group=np.arange(len(seen)))
    assert "too few repeated drives" in told(estimated(device, alone))
    assert estimated(device, seen).unidentified == ()


def test_a_reference_column_shared_by_all_columns_is_told() -> None:
    assert 'encoding "offset"' in told(fitted_chip(chip(100, encoding="offset"), seed=0).estimates)


@given(seed=SEEDS, coded=st.booleans(), additive=st.floats(0.1, 0.25), relative=st.floats(0, 0.15))
@settings(max_examples=15, deadline=None)
def test_repeats_below_half_a_code_tell_the_noise_with_rounding(
    seed: int, coded: bool, additive: float, relative: float
) -> None:
    """Of 400 drives by 8 columns, 6 shots each, in codes: a quarter of one is mostly unseen."""
    stream = Key(seed).numpy()
    power = stream.uniform(0, 1, (400, 8))
    law = additive**2 + relative**2 * power
    place = stream.uniform(0, 1, (400, 1, 8))
    value = place + np.sqrt(law)[:, None] * stream.standard_normal((400, 6, 8))
    value = np.round(value) if coded else value
    again = repeats(np.repeat(np.arange(400), 6), value.reshape(2400, 8), np.ones((2400, 8)))
    parts = [part.ravel() for part in (power, again.variance, again.freedom)]
    found = variance_law(Squares(parts[0], parts[1], parts[2], float(coded)))
    predicted = found.values[0] ** 2 + found.values[1] ** 2 * power
    # 16,000 degrees of freedom: a standard error is 1.1 % without codes, and with them below
    # 1 % since rounding itself is known.
    assert predicted.mean() == pytest.approx((law + coded / 12).mean(), rel=0.055)


@given(seed=SEEDS, fault=st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_the_noise_of_a_reading_is_that_of_both_cells_of_each_pair(seed: int, fault: int) -> None:
    stream = Key(seed).numpy()
    setting, drive = stream.uniform(-1, 1, (5, 3)), stream.uniform(0, 1, (4, 5))
    level, kinds = stream.uniform(0, 1, (5, 3)), np.full((5, 3), float(fault))
    weights = cells_written(setting, kinds, level)
    plus, minus = cells_held(weights, kinds, level)
    assert np.allclose(plus - minus, weights)
    if fault in (1, 2):
        assert np.allclose((plus, minus)[fault - 1], level)
    kept, gain = stream.uniform(0.5, 1, (4, 1)), stream.uniform(0.5, 2, 3)
    got = noise_power(drive, (plus, minus), gain, floor=0.1, unit=2.0, kept=kept)
    for n in range(4):
        cells = (0.1 + kept[n] * plus) ** 2 + (0.1 + kept[n] * minus) ** 2
        assert np.allclose(got[n], (drive[n] ** 2) @ cells * (gain / 2.0) ** 2)
    whole = noise_power(drive, (plus, minus), gain, floor=0.1, unit=2.0, kept=np.ones((4, 1)))
    assert np.allclose(whole, noise_power(drive, (plus, minus), gain, floor=0.1, unit=2.0))


def test_stuck_cells_bias_neither_read_noise_nor_write_error() -> None:
    """A tenth of all cells: one pair of a hundred has two. Ten chips of 96 pairs."""
    off = []
    for seed in range(10):
        made = fitted_chip(chip(100 + seed, stuck_cell_fraction=0.1), seed=seed)
        off.append(
            [
                (made.values[name] - 0.02) / made.estimates.errors[name]
                for name in ("read_noise", "write_error")
            ]
        )
    # Five standard errors of a mean of ten, and for cells stuck where they were asked to be.
    assert (np.abs(np.mean(off, 0)) < 5 / np.sqrt(10) + 0.5).all()
    assert (np.abs(off) < 5).all()


def test_offsets_of_a_chip_that_is_quieter_than_a_code_are_within_their_errors() -> None:
    """Zero drives round alike, however many. 160 offsets, 71 % inside if each counted."""
    inside: list[bool] = []
    for seed in range(20):
        device = chip(
            1000 + seed, adc_bits=8, adc_noise_lsb=0.0, adc_offset_lsb=0.5, read_noise=0.005
        )
        made, truth = fitted_chip(device, seed=seed), chip_truth(device)["column_offset"]
        low, high = made.interval("column_offset")
        inside += ((low <= truth) & (truth <= high)).tolist()
    assert np.mean(inside) > 0.95 - 5 * np.sqrt(0.95 * 0.05 / 160)


# ---- writing again ----------------------------------------------------------------------


def test_a_pair_of_two_stuck_cells_holds_the_same_after_each_write() -> None:
    model = CrossbarTwin(chip(1).capabilities)
    values = dict(fitted_chip(chip(1)).values)
    values["cell_fault"], values["cell_level"] = np.full((12, 8), 3.0), np.full((12, 8), 0.25)
    for seed in (1, 2):
        state = model.written(values, np.full((12, 8), 0.5 * seed), key=Key(seed))
        assert np.allclose(state["weights"], 0.25 * values["column_gain"])


def test_what_resistive_lines_do_to_every_write_alike_is_told() -> None:
    """The held state is right all the same."""
    made = fitted_chip(chip(100, inputs=32, outputs=16, word_ohm=100.0, bit_ohm=100.0), 2500, 0)
    assert "rewritten twin will be off" in told(made.estimates)
    assert made.held_out.fidelity is not None and made.held_out.fidelity < 1.2


def test_honest_chips_are_not_said_to_miss_their_settings_alike() -> None:
    for seed in range(20):
        assert fitted_chip(chip(seed), seed=seed).estimates.unidentified == ()


# ---- drift --------------------------------------------------------------------------------


@pytest.mark.parametrize("rest_s", [0.0, 1000.0])
def test_a_write_that_rested_before_it_was_read_drifts_once(rest_s: float) -> None:
    device, recording = rested(rest_s)
    made = calibrate(CrossbarTwin(device.capabilities), recording, key=Key(0))
    assert made.held_out.fidelity is not None and made.held_out.fidelity < 1.2
    simulated = twin(made)
    assert fidelity(simulated, device, fresh_drives(device, 200)) < 1.2
    assert made.values["held_age_s"] == pytest.approx(rest_s, abs=1.0)
    # The chip goes on from there, and so does its twin.
    for one in (device, simulated):
        one.wait(10 * rest_s)
    assert fidelity(simulated, device, fresh_drives(device, 200)) < 1.3


def test_gains_are_those_of_fresh_writes_however_old_they_were_read() -> None:
    young, old = (
        estimated(device, observations(recording)) for device, recording in map(rested, (0.0, 1e3))
    )
    shift = (old.values["column_gain"] - young.values["column_gain"]) / young.errors["column_gain"]
    # PCM has lost 14 % of its weights in 1,000 s: 10 standard errors of a gain.
    assert np.abs(shift).mean() < 3


def rested(rest_s: float) -> tuple[Crossbar, Recording]:
    """A PCM chip whose last write rested before all of its reads."""
    device = chip(500, technology="pcm-joshi", programming_error=0.0, read_noise=0.0,
                  relaxation_mean=0.0, relaxation_spread=0.0)  # fmt: skip
    recorded = Recorded(device)
    setting, drive = (getattr(recorded.capabilities, n)[0] for n in ("settings", "drives"))
    recorded.program(drawn(setting, 1), key=Key(1))
    for number, wait_s in enumerate((0.0, 10.0, 100.0, 1000.0)):
        recorded.wait(wait_s)
        recorded.forward(drawn(drive, 10 + number, 150), key=Key(number))
    recorded.program(drawn(setting, 2), key=Key(2))
    recorded.wait(rest_s)
    recorded.forward(drawn(drive, 3, 500), key=Key(3))
    recorded.forward(drawn(drive, 4, 30), key=Key(4), shots=16)
    return device, recorded.recording


def test_drift_of_chips_that_lose_nothing_is_zero_within_its_errors() -> None:
    """Cells spread, each its way. 40 chips: the mean square of deviations has an error of 0.22."""
    off = []
    for seed in range(40):
        made = fitted_chip(
            chip(3000 + seed, relaxation_mean=0.0, relaxation_spread=0.01), seed=seed
        )
        off.append(made.values["drift_exponent"] / made.estimates.errors["drift_exponent"])
    assert np.mean(np.square(off)) < 1 + 5 * 0.22 and abs(np.mean(off)) < 5 / np.sqrt(40)


def test_flipped_bits_after_a_rest_are_no_drift() -> None:
    device = chip(2)
    seen = probed(device)
    flipped = (Key(1).numpy().random(seen.value.shape) < 0.01) & (seen.rest[:, None] > 0)
    flipped &= (seen.write == seen.write[0])[:, None]
    assert flipped.any()
    sound, found = (
        estimated(device, s) for s in (seen, replace(seen, value=seen.value + 0.5 * flipped))
    )
    for name in ("drift_exponent", "drift_spread"):
        assert abs(found.values[name] - sound.values[name]) < 2 * sound.errors[name], name


# ---- stretches --------------------------------------------------------------------------


def test_the_youngest_stretch_that_is_large_enough_is_the_main_one() -> None:
    seen = _table(counts=(40, 40, 40), ages_s=(0.1, 10.0, 100.0))
    assert main_rows(seen, stretches(seen)).nonzero()[0].max() == 39
    seen = _table(counts=(5, 40, 60), ages_s=(0.1, 10.0, 100.0))
    main = main_rows(seen, stretches(seen))
    assert main.sum() == 40 and not main[:5].any() and main[5:45].all()


def test_waits_that_make_cells_no_older_split_nothing() -> None:
    seen = _table(counts=(40, 40, 40), ages_s=(0.1, 0.2, 100.0))
    assert stretches(seen).tolist() == [0] * 80 + [1] * 40
    assert main_rows(seen, stretches(seen)).sum() == 80


def _table(counts: tuple[int, ...], ages_s: tuple[float, ...]) -> Observations:
    """Rows of one write; only their ages matter."""
    seen = probed(chip(1), 300)
    seen = seen.rows(np.arange(sum(counts)))
    return replace(
        seen,
        write=np.ones(len(seen), np.int64),
        rest=np.repeat(np.arange(len(counts)), counts),
        age_s=np.repeat(np.array(ages_s), counts),
    )


# ---- readings that are left out ----------------------------------------------------------


def test_readings_that_no_noise_explains_are_flagged_by_write_and_column() -> None:
    device = chip(3)
    seen = probed(device)
    value = seen.value.copy()
    rows = np.flatnonzero(seen.write == 2)[:3]
    value[rows, 5] += 0.5
    found = estimated(device, replace(seen, value=value))
    assert found.flags["readings left out of write 2, by column"] == (5, 5, 5)
    assert not any("write 1" in name for name in found.flags)


def test_a_column_that_clips_in_one_setting_leaves_out_no_accidents() -> None:
    """What lies beyond the range was foreseen: of chip 1053, 4 % of the readings of write 2."""
    seen = probed(chip(1053), seed=53)
    assert seen.at_end[seen.write == 2].mean() > 0.02
    found = estimated(chip(1053), seen)
    assert not any("left out" in name for name in found.flags)


def test_a_write_that_happened_unseen_is_refused() -> None:
    """Half of the rows of write 2 are of write 3: no outliers, but two states."""
    device = chip(3)
    seen = probed(device)
    write = np.where(seen.write == 3, 2, seen.write)
    mixed = replace(seen, write=write, settings=seen.settings[:2] + seen.settings[3:])
    mixed = replace(mixed, write=np.where(write > 3, write - 1, write))
    with pytest.raises(DataError, match="changed, was written unseen"):
        estimated(device, mixed)


def test_drives_that_each_determine_the_fit_are_refused_in_words() -> None:
    device = Recorded(chip(1, inputs=64))
    device.program(drawn(device.capabilities.settings[0], 1), key=Key(1))
    device.forward(drawn(device.capabilities.drives[0], 2, 50), key=Key(2))
    with pytest.raises(DataError, match="tell the noise by"):
        estimated(chip(1, inputs=64), observations(device.recording))


# ---- regression ---------------------------------------------------------------------------


@given(seed=SEEDS, open_term=st.booleans())
@settings(max_examples=20, deadline=None)
def test_the_fast_regression_is_the_general_one(seed: int, open_term: bool) -> None:
    stream = Key(seed).numpy()
    design, response = stream.normal(size=(60, 5)), stream.normal(size=(60, 3))
    if open_term:
        design[:, 1] = design[:, 0]
    variance = stream.uniform(0.5, 2, (60, 3))
    weight = (stream.random((60, 3)) < 0.9) / variance
    names = list("abcde")
    slow = linear(design, response, weight, names, noise=variance)
    fast = regression(design, response, weight, names, known=True)
    for name in ("coefficients", "errors", "with_last"):
        assert np.allclose(getattr(fast, name), getattr(slow, name), equal_nan=True), name
    assert bool(fast.unidentified) == bool(slow.unidentified) == open_term
    assert np.allclose(fast.leverage.sum(0), slow.leverage.sum(0))
