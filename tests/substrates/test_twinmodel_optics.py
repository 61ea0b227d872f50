"""A rig's twin: what intensities tell of a medium, and what they cannot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from substrates.optics.twinestimate import rounded
from substrates.optics.twinmodel import RigTwin, twin
from substrates.optics.twinrows import lifted, refined, started
from tests.twin.chips import fidelity, fitted_rig, fresh_drives, rig, rig_truth
from twin.calibrate import calibrate
from twin.errors import DataError, Unsupported
from twin.key import Key
from twin.probing import probe

SEEDS = st.integers(0, 2**32)


@given(seed=SEEDS, turn=st.floats(0, 6.28))
@settings(max_examples=30, deadline=None)
def test_the_phase_of_a_row_changes_no_reading(seed: int, turn: float) -> None:
    device = rig(1)
    model, stream = RigTwin(device.capabilities), Key(seed).numpy()
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
    assert error < 0.02
    assert abs(rate - 1 / 40) < 5 * error
    still = fitted_rig(rig(4, pixels=60), passes=1000)
    assert still.interval("decorrelation_hz")[0] <= 0 <= rate
    assert float(still.values["decorrelation_hz"]) < 0.004


def test_a_black_level_cut_off_at_the_lowest_code_is_named() -> None:
    made = fitted_rig(rig(5, sensor={}))
    assert any("black_level" in d.weights for d in made.estimates.unidentified)
    assert np.isnan(made.estimates.errors["black_level"])


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
    recording = probe(device, passes=250, key=Key(1), twin_kind="optics")
    with pytest.raises(DataError, match="passes with light"):
        calibrate(RigTwin(device.capabilities), recording, key=Key(1))
    made = fitted_rig(rig(8))
    with pytest.raises(Unsupported, match="nothing to program"):
        twin(made).program(fresh_drives(rig(8), 1), key=Key(1))
