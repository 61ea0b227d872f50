"""What training costs in writes: accuracy against cells written, joules and device time.

The paper trains in the loop and writes after every update; the ways to write less, and
all numbers here, are ours. A way is chosen by accuracy on validation images; what is
said of it is accuracy on test images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from validation.config import load_config
from validation.reproduce import writeswork as work
from validation.reproduce.figure import Drawing, Request
from validation.reproduce.parts import Part
from validation.reproduce.writespicture import REWRITTEN, picture
from validation.summary import Figure

ABOUT = "cheap writes: accuracy against cells written, for seldom, thresholded and sign updates"

SEEDS, QUICK_SEEDS = 3, 1
LIMIT = 10_000
EVERY = (1, 2, 5, 10, 25)
THRESHOLDS = (0.02, 0.05, 0.1, 0.2)
SIGNS = (0.02, 0.05, 0.1)
BOTH = ((5, 0.05), (10, 0.1))
SAVED = 0.1
"""Share of the cells that plain training writes at which accuracy is compared."""
PLAIN = "every 1"
"""Plain training: after every step, cells that have a new target."""


def policies() -> dict[str, dict[str, Any]]:
    """Ways to write, by name; changes of each unit.

    A chip that is told the same target again leaves the cell alone: in all of them,
    for it spares the idle half of every differential pair whatever the way. The
    reference that rewrites all cells is the last.
    """
    found: dict[str, dict[str, Any]] = {f"every {k}": {"program_every": k} for k in EVERY}
    found |= {f"threshold {t:g}": {"write_threshold": t} for t in THRESHOLDS}
    found |= {f"sign {s:g}": {"write_step": s} for s in SIGNS}
    found |= {
        f"every {k}, threshold {t:g}": {"program_every": k, "write_threshold": t} for k, t in BOTH
    }
    sparing = {name: {**how, "options": {"write_unchanged": False}} for name, how in found.items()}
    return sparing | {REWRITTEN: {"program_every": 1, "options": {"write_unchanged": True}}}


def file_of(policy: str) -> str:
    """A way to write, as its parts are called."""
    return policy.replace(", ", "-").replace(" ", "-")


def parts(request: Request) -> list[Part]:
    """A training for each way to write and each seed."""
    return [
        Part(
            f"{file_of(name)}-{seed}",
            work.trained,
            {"config": _config(request, changes), "seed": seed, "folder": request.folder},
        )
        for name, changes in policies().items()
        for seed in request.seeds_or(SEEDS, QUICK_SEEDS)
    ]


def _config(request: Request, changes: Mapping[str, Any]) -> dict[str, Any]:
    name = "memristor-digits" if request.quick else "memristor-mnist"
    config = load_config(name).model_dump(mode="json")
    if request.quick:
        for unit in config["unit"]:
            unit["epochs"] = 20
    else:
        config["data"]["limit"] = LIMIT
    for unit in config["unit"]:
        unit |= {**changes, "options": {**unit["options"], **changes.get("options", {})}}
    return config


def drawn(found: Mapping[str, xr.Dataset], request: Request) -> Drawing:
    """The trade, and how much accuracy is kept at a tenth of the writes."""
    data = _together(found, list(request.seeds_or(SEEDS, QUICK_SEEDS)))
    figures = _figures(data)
    return Drawing(
        data=data,
        picture=picture(data, quick=request.quick),
        figures=figures,
        verdict=_verdict(data),
        extra={
            "counted": "training alone: writes and passes; a cell is one conductance",
            "cells": f"as a share of '{PLAIN}', which like every way but '{REWRITTEN}' leaves "
            "cells alone whose target is what it was",
            "chosen": "by accuracy on validation images; accuracies are of test images",
        },
    )


def _together(found: Mapping[str, xr.Dataset], seeds: list[int]) -> xr.Dataset:
    names = list(policies())
    files = [file_of(name) for name in names]
    units = {"accuracy": "1", "validation_accuracy": "1", **work.COSTS}
    table = {
        name: (
            ("policy", "seed"),
            np.array([[float(found[f"{f}-{s}"][name]) for s in seeds] for f in files]),
            {"units": unit},
        )
        for name, unit in units.items()
    }
    first = found[f"{files[0]}-{seeds[0]}"].attrs
    images = {name: int(first[name]) for name in ("test_images", "validation_images")}
    return xr.Dataset(table, {"policy": names, "seed": seeds}, attrs=images)


def _figures(data: xr.Dataset) -> list[Figure]:
    mean, seeds = data.mean("seed"), data["seed"].values.tolist()
    n, plain = int(data.attrs["test_images"]), mean.sel(policy=PLAIN)
    made = []
    for policy in data["policy"].values:
        one = mean.sel(policy=policy)
        made += [
            Figure(f"accuracy, {policy}", float(one["accuracy"]), n=n, seeds=seeds),
            Figure(f"validation accuracy, {policy}", float(one["validation_accuracy"]),
                   n=int(data.attrs["validation_images"]), seeds=seeds),
            Figure(f"cells written, {policy}", float(one["cells"] / plain["cells"]), seeds=seeds),
        ]  # fmt: skip
    kept = best_within(data, SAVED)
    lost = float(plain["accuracy"] - mean["accuracy"].sel(policy=kept))
    return [*made, Figure(f"accuracy lost at {SAVED:.0%} of the cells written ({kept})", lost,
                          n=n, seeds=seeds)]  # fmt: skip


def best_within(data: xr.Dataset, share: float) -> str:
    """The way most accurate on validation images that writes at most this share of the
    cells of plain training; the one that writes least if none does."""
    mean = data.mean("seed")
    cells = mean["cells"] / mean["cells"].sel(policy=PLAIN)
    allowed = mean["validation_accuracy"].where(cells <= share)
    if not bool(np.isfinite(allowed.values).any()):
        return str(cells["policy"].values[int(cells.values.argmin())])
    return str(allowed["policy"].values[int(np.nanargmax(allowed.values))])


def _verdict(data: xr.Dataset) -> str:
    mean = data.mean("seed")
    plain, kept = mean.sel(policy=PLAIN), best_within(data, SAVED)
    one, all_cells = mean.sel(policy=kept), mean.sel(policy=REWRITTEN)
    ways = mean.drop_sel(policy=REWRITTEN)
    worst = str(ways["policy"].values[int(ways["validation_accuracy"].values.argmin())])
    return (
        f"Writing after every step the cells that have a new target reaches "
        f"{100 * float(plain['accuracy']):.1f} %; rewriting all cells, "
        f"{float(all_cells['cells'] / plain['cells']):.2g} times as many, "
        f"{100 * float(all_cells['accuracy']):.1f} %. '{kept}', chosen on validation images, "
        f"writes {100 * float(one['cells'] / plain['cells']):.1f} % of the former's cells, "
        f"takes {100 * float(one['joules'] / plain['joules']):.0f} % of its energy, and "
        f"{_told(plain, one)}. "
        f"The way tried that is worst on them, '{worst}', {_told(plain, ways.sel(policy=worst))}. "
        "The paper shows no such trade."
    )


def _told(plain: xr.Dataset, way: xr.Dataset) -> str:
    lost = 100 * float(plain["accuracy"] - way["accuracy"])
    return f"costs {lost:.1f} points" if lost > 0 else f"gains {-lost:.1f} points"
