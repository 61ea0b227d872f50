"""Figure 2D: PIB in the loop against in-silico training, and against a broken ADC.

Four data sets of growing complexity on one, two and three memristor units. The
data sets, depths, widths, the shares of broken columns and the rivals are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from validation.adaptation.deployment import FACTORS
from validation.adaptation.deployment import work as adapt
from validation.config import RunConfig, load_config
from validation.reproduce.fig2dpicture import picture
from validation.reproduce.fig2dtables import (
    BLIND,
    SETS,
    accuracies,
    adaptation,
    figures_of_faults,
    figures_of_sets,
    verdict,
)
from validation.reproduce.fig2dwork import work
from validation.reproduce.figure import Drawing, Request
from validation.reproduce.parts import Part

ABOUT = "accuracy against in-silico training on four data sets, and a broken ADC"
KINDS = ("stuck_column_fraction", "dead_column_fraction")
FRACTIONS = (0.1, 0.25, 0.5)
QUICK_FRACTIONS = (0.25, 0.5)
QUICK_TESTS = 2_000
PASSES = 2.0
FAULT_LIMIT = 20_000
BOUNDS = {
    "gap_at_equal_passes_mnist": "<= 0.005",
    "gap_at_equal_passes_fashion": "<= 0.014",
    "pib_stuck_0.5": ">= 0.945",
    "pib_ahead_of_deployed_retrained_stuck_0.5": "> 0",
}


def configuration(name: str, request: Request) -> RunConfig:
    """Of one data set; quick: fewer images and epochs."""
    config = load_config(f"fig2d-{name}")
    if not request.quick:
        return config
    quick = config.quick
    units = tuple(u.model_copy(update={"epochs": quick.epochs}) for u in config.unit)
    long = config.references.model_copy(update={"converged_epochs": 2 * quick.epochs * len(units)})
    table = config.data.model_copy(update={"limit": quick.limit})
    return config.model_copy(update={"unit": units, "references": long, "data": table})


def parts(request: Request) -> list[Part]:
    """By (data set, method, seed), and by (method, seed) for the faults."""
    seeds = request.seeds_or(full=6, quick=1)
    return [
        *(part for name in SETS for seed in seeds for part in _of_set(name, seed, request)),
        *(_of_faults(method, seed, request) for method in BLIND for seed in seeds),
    ]


def fractions(request: Request) -> tuple[float, ...]:
    """Shares of broken columns."""
    return QUICK_FRACTIONS if request.quick else FRACTIONS


def _of_set(name: str, seed: int, request: Request) -> list[Part]:
    config = configuration(name, request)
    common = {
        "config": config.model_dump(mode="json"), "seed": seed, "folder": request.folder,
        "tests": QUICK_TESTS if request.quick else None,
    }  # fmt: skip
    ways: dict[str, dict[str, Any]] = {
        "pib": {"method": "pib"},
        "lce": {"method": "lce"},
        "deployed": {"method": "backprop"},
        "converged": {"method": "backprop", "epochs": config.references.converged_epochs},
    }
    return [Part(f"{name}-{way}-{seed}", work, common | more) for way, more in ways.items()]


def _of_faults(method: str, seed: int, request: Request) -> Part:
    config = configuration("mnist", request)
    if not request.quick:
        table = config.data.model_copy(update={"limit": FAULT_LIMIT})
        config = config.model_copy(update={"data": table})
    arguments = {
        "config": config.model_dump(mode="json"),
        "faults": [
            {"name": kind, "value": value} for kind in KINDS for value in fractions(request)
        ],
        "passes": [PASSES],
        "method": method,
        "seed": seed,
        "folder": request.folder,
        "factors": [1.0] if request.quick else list(FACTORS),
        "tests": QUICK_TESTS if request.quick else None,
    }
    return Part(f"faults-{method}-{seed}", adapt, arguments)


def drawn(found: Mapping[str, xr.Dataset], request: Request) -> Drawing:
    """Tables, the picture, figures with the bounds of a full run, the verdict."""
    seeds = request.seeds_or(full=6, quick=1)
    table = accuracies(found, seeds)
    table = table.merge(adaptation(found, seeds, KINDS, fractions(request)))
    figures = [*figures_of_sets(table), *figures_of_faults(table)]
    if not request.quick:
        figures = bounded(figures)
    return Drawing(
        data=table,
        picture=picture(table, request.quick),
        figures=figures,
        verdict=verdict(table),
        extra={
            "units": {name: len(configuration(name, request).unit) for name in SETS},
            "passes_per_unit_after_the_fault": PASSES,
            "seconds": {name: round(float(d.attrs["seconds"]), 1) for name, d in found.items()},
            "standard_deviations": spreads(table),
        },
    )


def bounded(figures: list[Any]) -> list[Any]:
    """The figures with the bounds of a full run."""
    from validation.summary import Summary

    summary = Summary("", figures, {})
    summary.expect(BOUNDS)
    return summary.figures


def spreads(table: xr.Dataset) -> dict[str, dict[str, float | None]]:
    """Standard deviations over seeds of every accuracy, by data set and method."""
    spread = table["accuracy"].std("seed", ddof=1) if table.sizes["seed"] > 1 else None
    return {
        str(name): {
            str(way): None if spread is None else _or_none(spread.sel(dataset=name, way=way))
            for way in table["way"].values
        }
        for name in table["dataset"].values
    }


def _or_none(value: xr.DataArray) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None
