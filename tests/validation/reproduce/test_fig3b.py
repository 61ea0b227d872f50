"""Figure 3B at tiny size: up with I(Y;Z), down with I(X;Z), better readouts."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from validation.config import load_config
from validation.reproduce import fig3b
from validation.reproduce.fig3bwork import READOUT_EPOCHS, work
from validation.reproduce.figure import Request

ITERATIONS = [1, 5, 10, 20]


def tiny() -> dict[str, Any]:
    """The preset's objective with more weight on I(X;Z), on digits behind 96 pixels."""
    config = load_config("optics-plane").model_dump(mode="json")
    config["data"] = {"name": "digits", "limit": 600}
    config["training"]["warm_up"] = 5
    config["objective"]["beta"] = 0.5
    for unit in config["unit"]:
        unit.update(epochs=8, outputs=48, batch=100, options={"pixels": 96})
    return config


@cache
def done() -> xr.Dataset:
    return work(tiny(), 0, None, 40, ITERATIONS)


def test_information_about_labels_rises_and_about_inputs_falls() -> None:
    """Seed 0, 600 digits, 48 iterations of 100 images."""
    path = fig3b.path_of(done().isel(unit=0))
    assert path.rise > 0.1
    assert path.fall > 0.1


def test_readouts_after_more_iterations_are_better() -> None:
    data = done().isel(unit=0)
    final = data["readout_accuracy"].values[:, -1]
    assert data["snapshot_iteration"].values.tolist() == [*ITERATIONS, 48]
    assert final[-1] > final[0]
    assert data.sizes["readout_epoch"] == READOUT_EPOCHS


def test_the_drawing_tells_and_shows_both_units() -> None:
    drawing = fig3b.drawn({"seed-0": done()}, Request(quick=True))
    assert "I(Y;Z) of unit 1" in drawing.verdict and "rank correlation" in drawing.verdict
    assert len(drawing.picture.axes) >= 6
    assert drawing.data["i_xz"].attrs["units"] == "bit"
    assert all(figure.holds is None for figure in drawing.figures)


# ---- the figures, on courses that are known -----------------------------------------


def course(y: np.ndarray, x: np.ndarray, final: list[float]) -> xr.Dataset:
    n, m = len(y), len(final)
    return xr.Dataset(
        {
            "iteration": (("seed", "unit", "record"), np.arange(1.0, n + 1)[None, None]),
            "i_yz": (("seed", "unit", "record"), y[None, None]),
            "i_xz": (("seed", "unit", "record"), x[None, None]),
            "readout_accuracy": (
                ("seed", "unit", "snapshot", "readout_epoch"),
                np.array(final)[None, None, :, None],
            ),
            "snapshot_iteration": (
                ("seed", "unit", "snapshot"), np.arange(1.0, m + 1)[None, None]
            ),
        },
        coords={"seed": [0], "unit": ["unit 1"]},
    )  # fmt: skip


def test_rise_fall_and_peak_are_those_of_a_known_course() -> None:
    t = np.linspace(0, 1, 201)
    y, x = 2 + np.minimum(1, 2 * t), 3 + 0.5 * np.sin(np.pi * np.minimum(1, 1.5 * t))
    path = fig3b.path_of(course(y, x, [0.1, 0.2]).isel(seed=0, unit=0))
    assert path.rise == pytest.approx(1.0, abs=0.03)
    assert path.climb == pytest.approx(0.5, abs=0.03)
    assert path.fall == pytest.approx(0.5, abs=0.03)
    assert path.half_risen < path.peak < path.half_fallen


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_noise_alone_neither_climbs_nor_falls(seed: int) -> None:
    """200 records of 0.02 bit about a constant: a maximum would be some 0.03 bit above it.

    Mean of 20 courses; one standard error is 0.02 sqrt(2 / 3 / 2 / 20) = 0.0026 bit.
    """
    noise = np.random.default_rng(seed)
    paths = [
        fig3b.path_of(course(noise.normal(3, 0.02, 200), noise.normal(4, 0.02, 200), [0.1])
                      .isel(seed=0, unit=0))
        for _ in range(20)
    ]  # fmt: skip
    for name in ("climb", "fall"):
        assert abs(np.mean([getattr(p, name) for p in paths])) < 5 * 0.0026
    # The climb's standard error as estimated from neighbouring records.
    assert np.mean([p.climb_error for p in paths]) == pytest.approx(0.02 / 3**0.5, rel=0.1)


def test_the_bounds_are_those_of_the_worst_seed() -> None:
    t = np.linspace(0, 1, 100)
    good = course(2 + t, 3 - t, [0.7, 0.8, 0.9])
    bad = course(2 + t, 3 - 0.1 * t, [0.7, 0.8, 0.9]).assign_coords(seed=[1])
    both = xr.concat([good, bad], "seed")
    figures = {figure.name: figure for figure in fig3b.measured(both, bounded=True)}
    assert float(figures["i_xz_fall_unit_1"].value or 0) > 0.3
    assert [n for n, f in figures.items() if f.holds is False] == ["i_xz_fall_worst_unit_1"]
    told = fig3b.verdict(both, fig3b.configuration(Request()), list(figures.values()))
    assert "worst of 2 seeds" in told and "NOT what the paper shows" in told


def test_a_flat_course_is_told_plainly() -> None:
    flat = course(np.full(50, 3.2), np.full(50, 4.0), [0.9, 0.8, 0.7])
    config = fig3b.configuration(Request())
    figures = fig3b.measured(flat, bounded=True)
    told = fig3b.verdict(flat, config, figures)
    assert "NOT what the paper shows" in told and "does not grow" in told
    assert "No phase is seen" in told and "falls from the start" not in told
    assert sum(figure.holds is False for figure in figures) == 3


def test_a_course_as_in_the_paper_keeps_every_bound() -> None:
    t = np.linspace(0, 1, 100)
    good = course(2 + t, 3 - t, [0.7, 0.8, 0.85, 0.9])
    figures = fig3b.measured(good, bounded=True)
    assert all(figure.holds is not False for figure in figures)
    told = fig3b.verdict(good, fig3b.configuration(Request()), figures)
    assert "as in the paper" in told and "falls from the start" in told


def test_parts_are_one_per_seed() -> None:
    parts = fig3b.parts(Request())
    assert [part.name for part in parts] == ["seed-0", "seed-1", "seed-2"]
    assert len({part.seal() for part in parts}) == 3
