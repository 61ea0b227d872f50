"""A rig's twin: what intensities tell of a medium, and what they cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from substrates.optics.twinmodel import RigTwin, twin
from substrates.optics.twinmoving import decorrelation
from substrates.optics.twinnoise import rounded
from substrates.optics.twinrows import lifted, refined, started
from tests.twin.chips import fidelity, fitted_rig, fresh_drives, rig, rig_truth
from twin.backend import Reading
from twin.calibrate import calibrate
from twin.calibration import Calibration
from twin.errors import DataError, Unsupported
from twin.key import Key
from twin.probing import probe
from twin.recording import Recording
from twin.wrap import Recorded

SEEDS = st.integers(0, 2**32)


@given(seed=SEEDS, turn=st.floats(0, 6.28))
@settings(max_examples=30, deadline=None)
def test_the_phase_of_a_row_changes_no_reading(seed: int, turn: float) -> None:
    device = rig(1)
    model, stream = RigTwin(device.capabilities), Key(seed).numpy()
    assert model.held_age_s({}) == 0.0  # nothing is ever written
    made = {p.name: np.zeros(p.shape) for p in model.parameters}
    row = stream.normal(size=(12, 7)) + 1j * stream.normal(size=(12, 7))
    means = []
    for matrix in (row, row * np.exp(1j * turn)):
        state = {"transmission": np.stack([matrix.real, matrix.imag])}
        means.append(model.predict(made, stream_drives(seed), state).mean)
    assert np.allclose(*means)


def stream_drives(seed: int) -> np.ndarray:
    return Key(seed).child("drives").numpy().uniform(size=(20, 6))


@given(seed=SEEDS, channels=st.integers(3, 8))
@settings(max_examples=30, deadline=None)
@example(seed=132765251, channels=4)  # three of four rows begin in a wrong valley
def test_rows_come_back_from_noiseless_intensities(seed: int, channels: int) -> None:
    stream = Key(seed).numpy()
    field = np.exp(1j * np.pi * stream.uniform(size=(400, channels)))
    field = np.concatenate([field, np.ones((400, 1))], 1)
    rows = stream.normal(size=(channels + 1, 4)) + 1j * stream.normal(size=(channels + 1, 4))
    seen = np.abs(field @ rows) ** 2
    found, _ = refined(
        field, seen, np.ones(seen.shape, bool), started(field, seen),
        np.array([1e-6, 1e-6]), field.mean(0), Key(seed),
    )  # fmt: skip
    assert np.abs(np.abs(field @ found) ** 2 - seen).max() < 1e-2 * seen.max()
    start = lifted(field, seen)
    assert start.shape == rows.shape


@given(sigma=st.floats(0.05, 3.0), seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_rounding_hides_small_noise_by_its_law(sigma: float, seed: int) -> None:
    """400,000 pairs; five standard errors of their mean squared difference."""
    stream = Key(seed).numpy()
    mean = stream.uniform(10, 20, 400_000)
    pair = [np.round(mean + sigma * stream.standard_normal(400_000)) for _ in range(2)]
    found = (pair[0] - pair[1]) ** 2 / 2
    error = found.std() / np.sqrt(len(found))
    # 2.5e-4: the harmonics that the law leaves out, at no noise at all.
    assert abs(found.mean() - rounded(np.array([sigma**2]))[0]) < 5 * error + 3e-4


def test_stuck_pixels_are_flagged_and_cost_nothing() -> None:
    device = rig(3, pixels=40, stuck_pixel_fraction=0.3)
    made = fitted_rig(device)
    stuck = made.estimates.flags["stuck pixels"]
    # 30 % of 40 drawn once: five standard errors of a binomial.
    assert abs(len(stuck) - 12) < 5 * np.sqrt(40 * 0.3 * 0.7)
    assert fidelity(twin(made), device, fresh_drives(device)) < 1.2


def test_decorrelation_is_found_in_a_moving_medium() -> None:
    """1,000 frames of 1/60 s, speckle halved over 40 s of field correlation time."""
    made = fitted_rig(rig(4, pixels=60, drift={"tau_s": 40.0}), passes=1000)
    rate, error = (float(d["decorrelation_hz"]) for d in (made.values, made.estimates.errors))
    assert error < 0.005
    assert abs(rate - 1 / 40) < 5 * error
    still = fitted_rig(rig(4, pixels=60), passes=1000)
    rest, error = (float(d["decorrelation_hz"]) for d in (still.values, still.estimates.errors))
    assert 0 <= rest < min(5 * error, 1e-4)


class _Speckle:
    """Frames of 8 drives, 10 rounds of two, 16 s, each pixel lit at its own strength."""

    def __init__(self, key: Key, tau_s: float, uneven: float, pixels: int = 16) -> None:
        stream, round_s = key.numpy(), 1.6 * np.arange(10)
        times = np.sort(np.concatenate([round_s, round_s + 1 / 60]))
        bright = np.exp(uneven * stream.normal(size=pixels))
        fields = np.zeros((20, 8, pixels), complex)
        for n, gap in enumerate(np.diff(times, prepend=-1e9)):
            kept = np.exp(-gap / tau_s)
            new = stream.normal(size=(2, 8, pixels)) * np.sqrt((1 - kept**2) / 2)
            fields[n] = kept * fields[n - 1] + new[0] + 1j * new[1]
        self.value = (np.abs(fields) ** 2 * bright).reshape(160, pixels)
        self.group, self.clock_s = np.tile(np.arange(8), 20), np.repeat(times, 8)


@pytest.mark.parametrize("uneven", [0.0, 1.0])
def test_unevenly_lit_pixels_decorrelate_at_their_own_rate(uneven: float) -> None:
    """25 media at 1/4 Hz; five standard errors of the mean, and 8 % for the law."""
    seen: list[Any] = [_Speckle(Key(60).child(n), 4.0, uneven) for n in range(25)]
    found = [decorrelation(each, each.value) for each in seen]
    rates = np.array([motion.rate for motion in found])
    bound = 5 * rates.std() / np.sqrt(len(rates)) + 0.08 * 0.25
    assert abs(rates.mean() - 0.25) < bound
    inside = [abs(m.rate - 0.25) < 1.96 * m.error for m in found]
    assert np.mean(inside) > 0.95 - 5 * np.sqrt(0.95 * 0.05 / 25)


@pytest.mark.slow
@pytest.mark.parametrize("tau_s", [100.0, 20.0, 2.0])
def test_intervals_of_decorrelation_cover_the_truth(tau_s: float) -> None:
    """60 rigs, 57 expected; five standard deviations of 1.7 below."""
    inside = []
    for seed in range(60):
        made = fitted_rig(rig(3000 + seed, drift={"tau_s": tau_s}), seed=seed)
        low, high = made.interval("decorrelation_hz")
        inside.append(low <= 1 / tau_s <= high)
    assert np.mean(inside) > 0.95 - 5 * np.sqrt(0.95 * 0.05 / 60)


def test_a_medium_that_moves_is_named_and_its_rows_are_not_vouched_for() -> None:
    made = fitted_rig(rig(4, drift={"tau_s": 20.0}))
    told = " ".join(map(str, made.estimates.unidentified))
    assert "times the variance of repeats" in told and "medium moved" in told
    for name in ("transmission", "per_electron", "read_noise"):
        assert np.isnan(made.estimates.errors[name]).all(), name


def test_frames_that_differ_fully_tell_no_rate() -> None:
    seen: Any = _Speckle(Key(61), 0.005, 0.0)
    found = decorrelation(seen, seen.value)
    assert np.isnan(found.error) and "look alike" in found.why


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_phase_flicker_is_not_taken_for_photons(seed: int) -> None:
    made = fitted_rig(rig(seed, phase_flicker_rad=0.2))
    assert "phase flicker" in " ".join(map(str, made.estimates.unidentified))
    assert np.isnan(made.estimates.errors["per_electron"])
    steady = fitted_rig(rig(seed))
    assert steady.estimates.unidentified == ()


# ---- black level ----------------------------------------------------------------


def _without_dark(seed: int, shots: int | None = None, **options: Any) -> Recording:
    """600 frames of random drives, and 60 of them again if in shots."""
    device = Recorded(rig(seed, **options))
    drive = fresh_drives(rig(seed, **options), 600, seed)
    device.forward(drive, key=Key(seed))
    if shots:
        device.forward(drive[:60], key=Key(seed).child("again"), shots=shots)
    return device.recording


@pytest.mark.parametrize("shots", [None, 4])
def test_a_black_level_needs_no_dark_frames(shots: int | None) -> None:
    truth = rig_truth(rig(1), 1)
    recording = _without_dark(1, shots)
    made = calibrate(RigTwin(recording.capabilities), recording, key=Key(0))
    assert not any("black_level" in d.weights for d in made.estimates.unidentified)
    for name in ("black_level", "per_electron", "read_noise"):
        value, error = made.values[name], made.estimates.errors[name]
        assert abs(value - truth[name]) < 5 * error, name
    assert made.estimates.errors["black_level"] < 1e-4
    low, high = made.interval("transmission")
    assert np.mean((low <= truth["transmission"]) & (truth["transmission"] <= high)) > 0.85
    assert fidelity(twin(made), rig(1), fresh_drives(rig(1))) < 1.1


def test_a_black_level_below_the_lowest_code_is_found_from_the_light() -> None:
    made, truth = fitted_rig(rig(5, sensor={})), rig_truth(rig(5, sensor={}), 5)
    error = made.estimates.errors["black_level"]
    assert error < 1e-4
    assert abs(made.values["black_level"] - truth["black_level"]) < 5 * error


def test_a_black_level_that_rows_can_follow_is_named() -> None:
    """Of one phase and nothing beside it, any constant is the row's own."""
    recording = _without_dark(1, 4, inputs=1)
    made = calibrate(RigTwin(recording.capabilities), recording, key=Key(0))
    assert any("black_level" in d.weights for d in made.estimates.unidentified)
    for name in ("black_level", "transmission", "per_electron", "read_noise"):
        assert np.isnan(made.estimates.errors[name]).all(), name


# ---- broken pixels and readings ---------------------------------------------------


def _hurt(recording: Recording, change: Callable[[torch.Tensor, Any], None]) -> Recording:
    """The recording with its codes changed."""
    stream, calls = Key(5).numpy(), []
    for call in recording.calls:
        answer = call.answer
        if isinstance(answer, Reading):
            codes = answer.codes.clone()
            change(codes, stream)
            call = replace(call, answer=replace(answer, codes=codes))
        calls.append(call)
    return replace(recording, calls=tuple(calls))


def _calibrated(seed: int, change: Callable[[torch.Tensor, Any], None]) -> Calibration:
    recording = probe(rig(seed), passes=1000, key=Key(seed), twin_kind="optics")
    return calibrate(RigTwin(recording.capabilities), _hurt(recording, change), key=Key(seed))


@pytest.mark.parametrize("level", [0, 500])
def test_a_stuck_pixel_that_flickers_by_a_code_is_stuck(level: int) -> None:
    def flicker(codes: torch.Tensor, stream: Any) -> None:
        for pixel in (2, 7):
            up = torch.from_numpy(stream.random(codes.shape[:-1]) < 0.3)
            codes[..., pixel] = level + up.to(codes.dtype)

    made = _calibrated(1, flicker)
    assert made.estimates.flags["stuck pixels"] == (2, 7)
    step = made.step[0]
    # 850 readings: five standard errors of a share of 0.3.
    assert made.values["pixel_level"][2] == pytest.approx((level + 0.3) * step, abs=0.08 * step)
    assert made.values["pixel_flicker"][2] == pytest.approx(0.46 * step, rel=0.1)
    live = made.values["pixel_stuck"] == 0
    truth, (low, high) = rig_truth(rig(1), 1), made.interval("transmission")
    inside = (low <= truth["transmission"]) & (truth["transmission"] <= high)
    assert inside[:, live].mean() > 0.85
    assert np.isnan(low[:, ~live]).all()


def test_flipped_bits_are_left_out_and_told() -> None:
    """One reading of 1,000 has its highest bit flipped: half of the full scale."""

    def flip(codes: torch.Tensor, stream: Any) -> None:
        hit = torch.from_numpy(stream.random(codes.shape) < 1e-3)
        codes[hit] = (codes[hit].long() ^ 2048).to(codes.dtype)

    made, truth = _calibrated(1, flip), rig_truth(rig(1), 1)
    assert len(made.estimates.flags["pixels with readings left out"]) > 3
    for name in ("read_noise", "per_electron", "black_level"):
        error = made.estimates.errors[name]
        assert abs(made.values[name] - truth[name]) < 5 * error, name
    low, high = made.interval("transmission")
    assert np.mean((low <= truth["transmission"]) & (truth["transmission"] <= high)) > 0.85


def test_an_amplitude_modulator_is_refused() -> None:
    with pytest.raises(Unsupported, match="phases in 'rad'"):
        RigTwin(rig(6, modulator={"kind": "dmd"}).capabilities)


def test_more_passes_never_make_a_worse_twin_beside_stuck_pixels() -> None:
    device = rig(7, pixels=30, stuck_pixel_fraction=0.3)
    truth = rig_truth(device, 7)["transmission"]
    errors = []
    for passes in (400, 1600):
        made = fitted_rig(device, passes=passes)
        live = made.values["pixel_stuck"] == 0
        errors.append(np.abs(made.values["transmission"] - truth)[:, live].mean())
    assert errors[1] < 0.75 * errors[0]


def test_too_few_passes_are_refused_and_so_is_a_write() -> None:
    device = rig(8, inputs=100)
    recording = probe(device, passes=320, key=Key(1), twin_kind="optics")
    with pytest.raises(DataError, match="passes with light"):
        calibrate(RigTwin(device.capabilities), recording, key=Key(1))
    made = fitted_rig(rig(8))
    with pytest.raises(Unsupported, match="nothing to program"):
        twin(made).program(fresh_drives(rig(8), 1), key=Key(1))
