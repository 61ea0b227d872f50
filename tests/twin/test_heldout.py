"""The held-out score: what is kept back, what it is compared with, how sure it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from substrates.memristor.twinmodel import CrossbarTwin
from substrates.optics.twinmodel import RigTwin
from substrates.optics.twinmodel import twin as rig_twin
from tests.twin.chips import chip, fidelity, fitted_chip, fitted_rig, fresh_drives, rig
from twin.calibrate import calibrate
from twin.errors import DataError
from twin.heldout import HeldOut, clipped
from twin.keptback import FEWEST_REPEATED, kept_back
from twin.key import Key
from twin.observations import numbered, observations
from twin.probing import FEWEST, probe
from twin.wrap import Recorded
from validation.calibrating import report

SEEDS = st.integers(0, 2**32)


class Spied(CrossbarTwin):
    """Keeps what it was fitted to; its weights come out `factor` times too large."""

    seen: Any = None
    factor = 1.0

    def estimate(self, seen: Any, *, key: Key) -> Any:
        self.seen = seen
        found = super().estimate(seen, key=key)
        weights = self.factor * found.values["held_weights"]
        return replace(found, values={**found.values, "held_weights": weights})


class Wrong(Spied):
    factor = 0.9


def sent(device: Any, count: int, seed: int = 0) -> torch.Tensor:
    return fresh_drives(device, count, seed)


def written(device: Any) -> Recorded:
    told = Recorded(device)
    told.program(_setting(device, 4), key=Key(1))
    return told


def _setting(device: Any, seed: int) -> torch.Tensor:
    port = device.capabilities.settings[0]
    values: torch.Tensor = port.on_grid(torch.rand(port.shape, generator=Key(seed).torch()) * 2 - 1)
    return values


# ---- what is kept back ------------------------------------------------------------


@given(seed=SEEDS, passes=st.integers(FEWEST, 700), optical=st.booleans())
@settings(max_examples=20, deadline=None)
def test_every_probe_leaves_twenty_passes_and_five_repeated_drives_to_judge_by(
    seed: int, passes: int, optical: bool
) -> None:
    device = rig(1) if optical else chip(1)
    told = probe(device, passes=passes, key=Key(seed), twin_kind="optics" if optical else "memristor")  # fmt: skip # noqa: E501
    seen = observations(told)
    kept = seen.rows(kept_back(seen, 0.15, Key(seed)) & (seen.write == seen.write[-1]))
    assert len(kept) >= 20
    _, shots = np.unique(kept.burst, return_counts=True)
    assert (shots > 1).sum() >= FEWEST_REPEATED
    # Nor is one with all entries equal among them: a wrong twin may get it right.
    assert (np.ptp(kept.drive, axis=1) > 0).all()


@given(seed=SEEDS, rest=st.sampled_from([0.0, 1e-3, 10.0]))
@settings(max_examples=8, deadline=None)
def test_a_drive_that_is_held_out_is_fitted_in_no_rest_and_no_write(seed: int, rest: float) -> None:
    device = chip(1)
    told, drives = written(device), sent(device, 60)
    for number in range(5):
        told.forward(drives, key=Key(number), shots=2)
        told.wait(rest)
        if number == 2:
            told.program(_setting(device, 5), key=Key(7))
    spy = Spied(device.capabilities)
    made = calibrate(spy, told.recording, key=Key(seed))
    whole = observations(told.recording)
    both = numbered(np.concatenate([whole.drive, spy.seen.drive]))
    fitted = set(both[len(whole) :].tolist())
    absent = [n for n in both[: len(whole)].tolist() if n not in fitted]
    assert len(set(absent)) >= FEWEST_REPEATED
    # Of the two rounds in the last write, two shots each.
    assert made.held_out.passes == 4 * len(set(absent))
    assert len(absent) == 10 * len(set(absent))


def test_only_readings_with_dials_as_at_the_end_are_fitted() -> None:
    device = chip(1)
    told = written(device)
    for number, value in enumerate((0.02, 0.2, 0.02)):
        told.adjust("read_noise", value, key=Key(7))
        told.forward(sent(device, 300, seed=number), key=Key(2).child(number))
    told.forward(sent(device, 60, seed=9), key=Key(3), shots=4)
    spy = Spied(device.capabilities)
    made = calibrate(spy, told.recording, key=Key(3))
    assert made.recorded["passes with other dials or ranges"] == "300"
    assert len(spy.seen) < 840
    assert abs(made.values["read_noise"] - 0.02) < 0.01


def test_columns_that_stuck_before_the_device_was_ranged_are_stuck_behind_it() -> None:
    device = chip(1)
    codes = torch.full((8,), -2049.0)
    codes[3] = 300.0
    device.adjust("stuck_column_code", codes, key=Key(1))
    told = written(device)
    told.forward(sent(device, 100), key=Key(2))
    told.set_range(sent(device, 60, seed=2), key=Key(8))
    told.forward(sent(device, 400, seed=3), key=Key(4))
    told.forward(sent(device, 40, seed=4), key=Key(5), shots=4)
    made = calibrate(CrossbarTwin(device.capabilities), told.recording, key=Key(3))
    assert list(made.estimates.flags["stuck columns"]) == [3]


# ---- what it is compared with ----------------------------------------------------------


@pytest.mark.parametrize("passes", [300, 400, 600])
def test_a_twin_that_is_a_tenth_off_is_seen_in_the_shortest_probes_too(passes: int) -> None:
    """Off by 10 % of the signal, three times the noise: no draw of held-out drives hides it."""
    for seed in range(12):
        device = chip(seed)
        told = probe(device, passes=passes, key=Key(seed), twin_kind="memristor")
        wrong = calibrate(Wrong(device.capabilities), told, key=Key(seed)).held_out
        assert wrong.fidelity is not None and wrong.fidelity > 1.5, seed
        assert wrong.misfit is not None and wrong.rms_noise is not None
        assert wrong.misfit > wrong.rms_noise


def test_the_error_of_the_score_is_how_far_it_scatters() -> None:
    """Over which drives are held out; of 40 draws the scatter is known to 11 %."""
    told = probe(chip(2), passes=900, key=Key(1), twin_kind="memristor")
    model = CrossbarTwin(told.capabilities)
    scores = [calibrate(model, told, key=Key(seed)).held_out for seed in range(40)]
    spread = float(np.std([s.fidelity for s in scores if s.fidelity is not None]))
    told_error = float(np.mean([s.fidelity_error for s in scores if s.fidelity_error is not None]))
    assert 0.45 < spread / told_error < 1.55


@pytest.mark.parametrize(
    ("drift", "least"),
    [({"tau_s": 0.5}, 1.2), ({"jump_times_s": (8.0,), "jump_fraction": 0.5}, 5.0)],
)
def test_a_medium_that_moves_during_the_probe_does_not_pass_for_noise(
    drift: dict[str, Any], least: float
) -> None:
    for seed in range(3):
        made = fitted_rig(rig(300 + seed, drift=drift), seed=seed).held_out
        assert made.repeats == "shots"
        assert made.fidelity is not None and made.fidelity > least


def test_repeats_of_other_calls_are_said_to_be_so() -> None:
    device = chip(1)
    told = written(device)
    for number in range(4):
        told.forward(sent(device, 100), key=Key(number))
    made = calibrate(CrossbarTwin(device.capabilities), told.recording, key=Key(3))
    assert made.held_out.repeats == "calls"
    assert "between calls counts as noise" in report(made)


@pytest.mark.parametrize("full_scale_over_mean", [1.5, 3.0])
def test_saturated_frames_make_a_right_twin_look_no_worse(full_scale_over_mean: float) -> None:
    """At 1.5 times the mean light 22 % of an exponential law saturate."""
    for seed in range(3):
        device = rig(100 + seed, full_scale_over_mean=full_scale_over_mean)
        made = fitted_rig(device, seed=seed)
        real = fidelity(rig_twin(made), device, fresh_drives(device))
        assert made.held_out.fidelity is not None and made.held_out.fidelity_error is not None
        assert abs(made.held_out.fidelity - real) < 5 * made.held_out.fidelity_error + 0.03
        assert made.held_out.standardised < 1.2


@given(
    mean=st.floats(-3, 4), sigma=st.floats(1e-3, 3), low=st.floats(-1, 0), width=st.floats(0.1, 3)
)
@settings(max_examples=60, deadline=None)
def test_a_clipped_normal_law_has_the_moments_that_an_integral_gives(
    mean: float, sigma: float, low: float, width: float
) -> None:
    z = np.linspace(-10, 10, 200_001)
    density = np.exp(-(z**2) / 2)
    density /= density.sum()
    values = np.clip(mean + sigma * z, low, low + width)
    expected = float((density * values).sum())
    spread = float((density * (values - expected) ** 2).sum())
    found, variance = clipped(*(np.array([v]) for v in (mean, sigma**2, low, low + width)))
    assert found[0] == pytest.approx(expected, abs=1e-6 * (sigma + width))
    assert variance[0] == pytest.approx(spread, abs=1e-5 * sigma**2)


def test_a_reading_without_noise_has_none_after_clipping() -> None:
    mean, variance = clipped(
        np.array([-2.0, 0.25, 2.0]), np.zeros(3), np.full(3, -1.0), np.full(3, 1.0)
    )
    assert mean.tolist() == [-1.0, 0.25, 1.0] and not variance.any()


# ---- what it says -----------------------------------------------------------------------


def test_a_score_tells_no_repeats_from_equal_ones() -> None:
    made = fitted_chip(chip(3))
    none = replace(made.held_out, drives=0, repeats="none", rms_noise=None, fidelity=None)
    equal = replace(made.held_out, rms_noise=0.0, fidelity=None, fidelity_error=None)
    assert "no drive was repeated" in report(replace(made, held_out=none))
    assert "equal to the last code" in report(replace(made, held_out=equal))
    assert "+-" in report(made)


def test_without_repeats_there_is_no_fidelity() -> None:
    device = chip(1)
    told = written(device)
    told.forward(sent(device, 400), key=Key(2))
    made = calibrate(CrossbarTwin(device.capabilities), told.recording, key=Key(3)).held_out
    assert made.fidelity is None and made.rms_noise is None and made.repeats == "none"


def test_a_calibration_without_a_held_out_score_cannot_be_made() -> None:
    made, nothing = fitted_chip(chip(3)), None
    with pytest.raises(DataError, match="held-out"):
        replace(made, held_out=nothing)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="20 passes"):
        replace(made.held_out, passes=3)
    assert isinstance(made.held_out, HeldOut)


# ---- the right model -----------------------------------------------------------------------


def test_a_model_made_for_other_ports_is_refused() -> None:
    device = chip(1)
    twice = 2 * device.capabilities.readings[0].full_scale
    other = chip(1, adc_full_scale_a=twice)
    told = probe(device, passes=FEWEST, key=Key(5), twin_kind="memristor")
    with pytest.raises(DataError, match="expects the ports"):
        calibrate(CrossbarTwin(other.capabilities), told, key=Key(5))
    with pytest.raises(DataError, match="expects the ports"):
        calibrate(RigTwin(rig(1).capabilities), told, key=Key(5))
