"""Figure 2D at tiny size, and its sentences on tables that are known."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import xarray as xr

from validation.adaptation.methods import TITLES
from validation.config import load_config
from validation.reproduce import fig2d
from validation.reproduce.fig2dtables import SETS, accuracies, gap
from validation.reproduce.fig2dwork import work
from validation.reproduce.figure import Request


def tiny() -> dict[str, Any]:
    config = load_config("fig2d-digits").model_dump(mode="json")
    config["data"] = {"name": "digits", "limit": 600}
    config["training"].update(batch=100, warm_up=5)
    for unit in config["unit"]:
        unit.update(epochs=6, outputs=64)
    return config


@cache
def done(method: str) -> xr.Dataset:
    epochs = 30 if method == "backprop" else None
    return work(tiny(), method, 0, None, epochs=epochs, tests=200)


@pytest.mark.parametrize("method", ["pib", "lce", "backprop"])
def test_every_method_learns_on_the_chip(method: str) -> None:
    """200 test images: one standard error at 0.9 is 0.02."""
    found = done(method)
    assert float(found["chip"]) > 0.9 - 5 * 0.02
    assert found.attrs["test_images"] == 200


def test_training_in_the_loop_writes_and_in_silico_training_writes_once() -> None:
    assert float(done("backprop")["writes"]) == 1
    assert float(done("pib")["writes"]) > 30
    assert float(done("pib")["passes"]) == float(done("lce")["passes"])
    assert float(done("pib")["passes"]) > float(done("backprop")["passes"])


def test_the_in_silico_net_is_told_with_both_heads() -> None:
    found = done("backprop")
    assert {"chip", "head", "digital"} <= set(found.data_vars)
    assert float(found["digital"]) > 0.8


# ---- parts ---------------------------------------------------------------------------


def test_a_full_figure_has_six_seeds_of_everything() -> None:
    parts = fig2d.parts(Request())
    assert len(parts) == 6 * (4 * 4 + 6)
    assert len({part.name for part in parts}) == len(parts)
    depths = [len(load_config(f"fig2d-{name}").unit) for name in SETS]
    assert depths == [1, 2, 3, 3]


def test_faults_are_tuned_in_a_full_figure_for_everybody_alike() -> None:
    faults = [p.arguments for p in fig2d.parts(Request(seeds=1)) if p.name.startswith("faults")]
    assert {tuple(a["factors"]) for a in faults} == {(0.5, 1.0, 2.0)}
    assert {a["config"]["data"]["limit"] for a in faults} == {20_000}
    assert {len(a["faults"]) for a in faults} == {6}


# ---- tables and sentences -----------------------------------------------------------------


def found(pib: float = 0.98, rival: float = 0.983, mended: float = 0.97) -> dict[str, xr.Dataset]:
    """Made-up parts of two seeds, quick fractions."""
    parts: dict[str, xr.Dataset] = {}
    for seed in (0, 1):
        for name in SETS:
            for way in ("pib", "lce", "deployed", "converged"):
                chip = pib if way in ("pib", "lce") else rival
                row = {"chip": chip + 1e-3 * seed, "head": rival - 0.01, "digital": rival}
                parts[f"{name}-{way}-{seed}"] = xr.Dataset(row, attrs={"seconds": 1.0})
        for method in TITLES:
            shape = (4, 1)
            units = np.full(shape, mended if method == "pib" else 0.96)
            parts[f"faults-{method}-{seed}"] = xr.Dataset(
                {
                    "before": 0.98,
                    "after": ("fault", [0.3] * 4),
                    "after_head": ("fault", [0.2] * 4),
                    "units": (("fault", "passes"), units),
                    "readout": (("fault", "passes"), np.full(shape, 0.965)),
                },
                coords={"passes": [2.0]}, attrs={"seconds": 1.0},
            )  # fmt: skip
    return parts


def test_the_gap_is_to_the_better_deployed_rival() -> None:
    table = accuracies(found(), [0, 1])
    assert float(gap(table, "mnist", "deployed").mean()) == pytest.approx(0.003)


def test_a_full_figure_has_bounds_that_can_fail() -> None:
    parts = {**found()}
    request = Request(quick=True, seeds=2)
    drawing = fig2d.drawn(parts, request)
    assert all(figure.holds is None for figure in drawing.figures)
    bounded = {f.name: f for f in fig2d.bounded(list(drawing.figures))}
    assert {name for name, f in bounded.items() if f.bound} == set(fig2d.BOUNDS)
    assert all(bounded[name].holds for name in fig2d.BOUNDS)
    worse = fig2d.drawn(found(pib=0.96, mended=0.94), request)
    failed = {f.name for f in fig2d.bounded(list(worse.figures)) if f.holds is False}
    assert failed == set(fig2d.BOUNDS)


def test_the_sentences_name_the_winner_whoever_it_is() -> None:
    request = Request(quick=True, seeds=2)
    ahead = fig2d.drawn(found(), request).verdict
    assert "ahead of deployed weights" in ahead and "not ahead of" not in ahead
    behind = fig2d.drawn(found(mended=0.94), request).verdict
    assert "not ahead of deployed weights" in behind
    assert "best of all: PIB's units as they are, readout retrained" in behind
    assert "not behind at: stuck 25 %" in behind


def test_the_picture_has_a_panel_for_every_set_and_kind() -> None:
    drawing = fig2d.drawn(found(), Request(quick=True, seeds=2))
    assert len(drawing.picture.axes) == len(SETS) + 2 * 2
