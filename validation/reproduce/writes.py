"""What training costs in writes: accuracy against cells written, joules and device time.

The paper trains in the loop and writes after every update; the ways to write less, and
all numbers here, are ours.
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
from validation.reproduce.writespicture import picture
from validation.summary import Figure

ABOUT = "cheap writes: accuracy against cells written, for seldom, thresholded and sign updates"

SEEDS, QUICK_SEEDS = 3, 1
LIMIT = 10_000
EVERY = (1, 2, 5, 10, 25)
THRESHOLDS = (0.02, 0.05, 0.1, 0.2)
SIGNS = (0.02, 0.05, 0.1)
BOTH = ((5, 0.05), (10, 0.1))
SAVED = 0.1
"""Share of the cells written by plain training at which accuracy is compared."""


def policies() -> dict[str, dict[str, Any]]:
    """Ways to write, by name; changes of each unit. A chip that is told the same target
    again leaves the cell alone, but where all of it is written (`every`)."""
    found: dict[str, dict[str, Any]] = {f"every {k}": {"program_every": k} for k in EVERY}
    sparing = {"options": {"write_unchanged": False}}
    found |= {f"threshold {t:g}": {"write_threshold": t, **sparing} for t in THRESHOLDS}
    found |= {f"sign {s:g}": {"write_step": s, **sparing} for s in SIGNS}
    return found | {
        f"every {k}, threshold {t:g}": {"program_every": k, "write_threshold": t, **sparing}
        for k, t in BOTH
    }


def parts(request: Request) -> list[Part]:
    """A training for each way to write and each seed."""
    return [
        Part(
            f"{name.replace(', ', '-').replace(' ', '-')}-{seed}",
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
        extra={"counted": "training alone: writes and passes; a cell is one conductance"},
    )


def _together(found: Mapping[str, xr.Dataset], seeds: list[int]) -> xr.Dataset:
    names = list(policies())
    files = [name.replace(", ", "-").replace(" ", "-") for name in names]
    units = {"accuracy": "1", **work.COSTS}
    table = {
        name: (
            ("policy", "seed"),
            np.array([[float(found[f"{f}-{s}"][name]) for s in seeds] for f in files]),
            {"units": unit},
        )
        for name, unit in units.items()
    }
    tests = found[f"{files[0]}-{seeds[0]}"].attrs["test_images"]
    return xr.Dataset(table, {"policy": names, "seed": seeds}, attrs={"test_images": int(tests)})


def _figures(data: xr.Dataset) -> list[Figure]:
    mean, seeds = data.mean("seed"), data["seed"].values.tolist()
    n, plain = int(data.attrs["test_images"]), mean.sel(policy="every 1")
    made = []
    for policy in data["policy"].values:
        one = mean.sel(policy=policy)
        about = {"n": n, "seeds": seeds}
        made.append(Figure(f"accuracy, {policy}", float(one["accuracy"]), **about))
        made.append(
            Figure(f"cells written, {policy}", float(one["cells"] / plain["cells"]), seeds=seeds)
        )
    kept = best_within(data, SAVED)
    lost = float(plain["accuracy"] - mean["accuracy"].sel(policy=kept))
    return [*made, Figure(f"accuracy lost at {SAVED:.0%} of the cells written ({kept})", lost,
                          n=n, seeds=seeds)]  # fmt: skip


def best_within(data: xr.Dataset, share: float) -> str:
    """The most accurate way that writes at most this share of what plain training writes;
    the one that writes least if none does."""
    mean = data.mean("seed")
    cells = mean["cells"] / mean["cells"].sel(policy="every 1")
    allowed = mean["accuracy"].where(cells <= share)
    if not bool(np.isfinite(allowed.values).any()):
        return str(cells["policy"].values[int(cells.values.argmin())])
    return str(allowed["policy"].values[int(np.nanargmax(allowed.values))])


def _verdict(data: xr.Dataset) -> str:
    mean = data.mean("seed")
    plain, kept = mean.sel(policy="every 1"), best_within(data, SAVED)
    one = mean.sel(policy=kept)
    lost = 100 * float(plain["accuracy"] - one["accuracy"])
    told = f"costs {lost:.1f} points" if lost > 0 else f"gains {-lost:.1f} points"
    worst = str(mean["policy"].values[int(mean["accuracy"].values.argmin())])
    drop = 100 * float(plain["accuracy"] - mean["accuracy"].sel(policy=worst))
    return (
        f"Writing every cell after every step reaches {100 * float(plain['accuracy']):.1f} %. "
        f"'{kept}' writes {100 * float(one['cells'] / plain['cells']):.1f} % of those cells, "
        f"takes {100 * float(one['joules'] / plain['joules']):.0f} % of the energy, and {told}. "
        f"The worst way tried, '{worst}', loses {drop:.1f} points. The paper shows no such trade."
    )
