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
from validation.reproduce.fig2dtables import SETS, accuracies, best_rival, gap
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


def test_a_full_figure_has_six_seeds_of_what_its_bounds_need() -> None:
    parts = fig2d.parts(Request())
    names = [part.name for part in parts]
    assert len(set(names)) == len(names) == 3 * (2 * 6 + 2 * 3) + 2 + 6 + 3
    for way, count in {"pib": 6, "deployed": 6, "lce": 3, "converged": 3}.items():
        assert {f"fashion-{way}-{seed}" for seed in range(count)} <= set(names)
        assert f"fashion-{way}-{count}" not in names and f"union-{way}-1" not in names
    # In the order of the bounds: a run that is cut short has these.
    assert {name.split("-")[0] for name in names[:24]} == {"mnist", "fashion"}
    assert names[24:26] == ["faults-pib", "faults-backprop"]
    assert {name.split("-")[0] for name in names[26:29]} == {"long"}
    assert len(fig2d.parts(Request(seeds=2))) == 2 * (3 * 4 + 2) + 6 + 3
    depths = [len(load_config(f"fig2d-{name}").unit) for name in SETS]
    assert depths == [1, 2, 3, 3]


def test_faults_are_tuned_in_a_full_figure_for_everybody_alike() -> None:
    faults = [p.arguments for p in fig2d.parts(Request()) if p.name.startswith("faults")]
    assert {tuple(a["factors"]) for a in faults} == {(0.5, 1.0, 2.0)}
    assert {a["config"]["data"]["limit"] for a in faults} == {20_000}
    assert {len(a["faults"]) for a in faults} == {4}
    assert {tuple(a["seeds"]) for a in faults} == {(0, 1, 2)} and len(faults) == 6


# ---- tables and sentences -----------------------------------------------------------------


def found(
    pib: float = 0.98, rival: float = 0.983, mended: float = 0.97, scatter: float = 1e-3
) -> dict[str, xr.Dataset]:
    """Made-up parts of two seeds, quick faults; scatter: of PIB's repair over seeds."""
    parts: dict[str, xr.Dataset] = {}
    for seed in (0, 1):
        for name in SETS:
            for way in ("pib", "lce", "deployed", "converged"):
                chip = pib if way in ("pib", "lce") else rival
                row = {"chip": chip + 1e-3 * seed, "head": rival - 0.01, "digital": rival}
                parts[f"{name}-{way}-{seed}"] = xr.Dataset(row, attrs={"seconds": 1.0})
    for method in TITLES:
        shape = (2, 3, 1)
        units = np.full(shape, mended if method == "pib" else 0.96)
        units += scatter * np.array([1, -1])[:, None, None]
        parts[f"faults-{method}"] = xr.Dataset(
            {
                "before": ("seed", [0.98] * 2),
                "after": (("seed", "fault"), np.full(shape[:2], 0.3)),
                "after_head": (("seed", "fault"), np.full(shape[:2], 0.2)),
                "units": (("seed", "fault", "passes"), units),
                "readout": (("seed", "fault", "passes"), np.full(shape, 0.965)),
            },
            coords={"passes": [2.0], "seed": [0, 1]}, attrs={"seconds": 1.0},
        )  # fmt: skip
        parts[f"long-{method}"] = parts[f"faults-{method}"].isel(fault=[0])
    return parts


def test_the_gap_is_to_the_better_deployed_rival() -> None:
    table = accuracies(found(), [0, 1])
    assert float(gap(table, "mnist", "gap_at_equal_passes").mean()) == pytest.approx(0.003)


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
    assert ", ahead of deployed weights" in ahead and "is not ahead of" not in ahead
    unclear = fig2d.drawn(found(scatter=5e-3), request).verdict
    assert "not separated from deployed weights" in unclear and "ahead of deployed" not in unclear
    behind = fig2d.drawn(found(mended=0.94), request).verdict
    assert "behind deployed weights" in behind
    assert "best of all: PIB's units as they are, readout retrained" in behind
    assert "not ahead of the retrained readout at: stuck 25 %, stuck 50 %, dead 50 %" in behind


def test_near_is_said_only_within_the_bounds() -> None:
    request = Request(quick=True, seeds=2)
    near, between, far = (
        fig2d.drawn(found(rival=rival), request).verdict for rival in (0.983, 0.99, 0.999)
    )
    assert "NOT within" not in near and near.count("within") == 2
    assert between.count("NOT within") == 1 and far.count("NOT within") == 2
    assert "no proof of convergence" in near


def test_the_gap_at_convergence_is_to_the_best_of_all_rivals() -> None:
    parts = found()
    for seed in (0, 1):
        parts[f"mnist-converged-{seed}"]["digital"] = 0.995 + 0 * seed
    table = accuracies(parts, [0, 1])
    assert best_rival(table, "mnist", "gap_at_convergence") == "converged_digital"
    assert float(gap(table, "mnist", "gap_at_convergence").mean()) == pytest.approx(0.0145)
    # A long run that is worse than a short one is no rival.
    for seed in (0, 1):
        parts[f"mnist-converged-{seed}"] = xr.Dataset({"chip": 0.5, "head": 0.5, "digital": 0.5})
    table = accuracies(parts, [0, 1])
    assert best_rival(table, "mnist", "gap_at_convergence") == "deployed_retrained"


def test_seeds_that_were_not_computed_are_left_out_and_counted() -> None:
    parts = found()
    del parts["mnist-converged-1"], parts["mnist-lce-1"]
    drawing = fig2d.drawn(parts, Request(quick=True, seeds=2))
    figures = {figure.name: figure for figure in drawing.figures}
    assert figures["pib_mnist"].n == 2 and figures["lce_mnist"].n == 1
    assert figures["gap_at_equal_passes_mnist"].seeds == (0, 1)
    parts["mnist-converged-0"]["digital"] = 0.995
    figures = {f.name: f for f in fig2d.drawn(parts, Request(quick=True, seeds=2)).figures}
    assert figures["gap_at_convergence_mnist"].seeds == (0,)
    assert any("(1 long, local)" in ax.get_title() for ax in drawing.picture.axes)


def test_the_picture_has_a_panel_for_every_set_and_kind() -> None:
    drawing = fig2d.drawn(found(), Request(quick=True, seeds=2))
    assert len(drawing.picture.axes) == len(SETS) + 2 * 2
