"""Figure 2D: PIB in the loop against in-silico training, and against a broken ADC.

Four data sets of growing complexity on one, two and three memristor units. The
data sets, depths, widths, the shares of broken columns and the rivals are ours.

Six seeds of PIB and of deployed backpropagation; the first three of them of local
cross-entropy, the long run and broken columns; one of the union of two sets (PIB and
deployed backpropagation only). A repair's rates are chosen on validation images with
the first seed, for all seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import xarray as xr

from validation.adaptation.deployment import FACTORS
from validation.adaptation.deployment import work_tuned_once as adapt
from validation.config import RunConfig, load_config
from validation.reproduce.fig2dpicture import picture
from validation.reproduce.fig2dtables import (
    SETS,
    accuracies,
    adaptation,
    figures_of_faults,
    figures_of_long,
    figures_of_sets,
    long_repair,
)
from validation.reproduce.fig2dwords import GAPS, verdict
from validation.reproduce.fig2dwork import work
from validation.reproduce.figure import Drawing, Request
from validation.reproduce.parts import Part

ABOUT = "accuracy against in-silico training on four data sets, and a broken ADC"
STUCK, DEAD = "stuck_column_fraction", "dead_column_fraction"
FAULTS = ((STUCK, 0.1), (STUCK, 0.25), (STUCK, 0.5), (DEAD, 0.5))
QUICK_FAULTS = FAULTS[1:]
QUICK_TESTS = 2_000
PASSES, LONG = 2.0, 12.0
"""Of the training images, by each retrained unit after the fault. LONG: at half of the
columns stuck, what a repair reaches when it has time."""
LONG_FACTORS = (*FACTORS, 4.0)
"""One trial more: readouts choose the largest of three."""
FAULT_LIMIT = 20_000
SEEDS, FEW = 6, 3
"""Of PIB and deployed backpropagation; of everything that no bound needs six of."""
LONG_WAYS = ("pib", "backprop", "backprop-masked")
ORDER = (
    *(f"{name}-{way}" for name in ("mnist", "fashion") for way in ("pib", "deployed")),
    "faults-pib", "faults-backprop", *(f"long-{way}" for way in LONG_WAYS),
    "digits-pib", "digits-deployed",
    *(f"{name}-{way}" for way in ("lce", "converged") for name in ("digits", "mnist", "fashion")),
    "faults-pib-masked", "faults-backprop-masked", "faults-lce", "faults-lce-masked",
    "union-pib", "union-deployed",
)  # fmt: skip
"""What bounds need comes first, or a run cut short would say nothing."""
BOUNDS = {
    **{f"gap_at_equal_passes_{name}": f"<= {gap}" for name, gap in GAPS.items()},
    "pib_stuck_0.5": ">= 0.945",
    "pib_ahead_of_deployed_retrained_stuck_0.5": "> 0",
    "pib_ahead_of_deployed_retrained_stuck_0.5_long": "> 0",
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
    """By (data set, method, seed), and by method for the faults, all seeds of one together."""
    found = []
    for label in ORDER:
        name, way = label.split("-", 1)
        if name == "faults":
            found.append(_of_faults(way, request))
        elif name == "long":
            found += [] if request.quick else [_long(way, request)]
        else:
            found += [_of_set(name, way, seed, request) for seed in seeds_of(name, way, request)]
    return found


def seeds_of(name: str, way: str, request: Request) -> list[int]:
    """A number that was asked for holds for everything."""
    if request.seeds is None and not request.quick:
        many = name not in ("faults", "long") and way in ("pib", "deployed")
        return list(range(1 if name == "union" else SEEDS if many else FEW))
    return list(request.seeds_or(full=SEEDS, quick=1))


def faults(request: Request) -> tuple[tuple[str, float], ...]:
    """(dial, share of columns)."""
    return QUICK_FAULTS if request.quick else FAULTS


def _of_set(name: str, way: str, seed: int, request: Request) -> Part:
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
    return Part(f"{name}-{way}-{seed}", work, common | ways[way])


def _of_faults(method: str, request: Request) -> Part:
    config = configuration("mnist", request)
    if not request.quick:
        table = config.data.model_copy(update={"limit": FAULT_LIMIT})
        config = config.model_copy(update={"data": table})
    arguments = {
        "config": config.model_dump(mode="json"),
        "faults": [{"name": kind, "value": value} for kind, value in faults(request)],
        "passes": [PASSES],
        "method": method,
        "seeds": seeds_of("faults", method, request),
        "folder": request.folder,
        "factors": [1.0] if request.quick else list(FACTORS),
        "tests": QUICK_TESTS if request.quick else None,
    }
    return Part(f"faults-{method}", adapt, arguments)


def _long(method: str, request: Request) -> Part:
    """The repair of half of the columns stuck, with more passes."""
    short = _of_faults(method, request)
    fault = {"name": STUCK, "value": max(f for kind, f in FAULTS if kind == STUCK)}
    arguments = dict(short.arguments) | {
        "faults": [fault], "passes": [LONG], "factors": list(LONG_FACTORS)
    }  # fmt: skip
    return Part(f"long-{method}", adapt, arguments)


def drawn(found: Mapping[str, xr.Dataset], request: Request) -> Drawing:
    """Tables, the picture, figures with the bounds of a full run, the verdict."""
    table = accuracies(found, request.seeds_or(full=SEEDS, quick=1))
    # The faults have fewer seeds: NaN for the rest.
    table = xr.merge([table, adaptation(found, faults(request))], join="outer", compat="equals")
    figures = [*figures_of_sets(table), *figures_of_faults(table)]
    if f"long-{LONG_WAYS[0]}" in found:
        table = xr.merge([table, long_repair(found)], join="outer", compat="equals")
        figures += figures_of_long(table)
    if not request.quick:
        figures = bounded(figures)
    return Drawing(
        data=table,
        picture=picture(table, request.quick),
        figures=figures,
        verdict=verdict(table, tuned=not request.quick),
        extra={
            "units": {name: len(configuration(name, request).unit) for name in SETS},
            "passes_per_unit_after_the_fault": PASSES,
            "passes_of_the_long_repair": LONG,
            "repairs_tuned_with_seed": None if request.quick else 0,
            "seeds_used": by_set_and_way(table, lambda one: one["seed"].values.tolist()),
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
    return by_set_and_way(table, lambda one: float(one.std(ddof=1)) if one.size > 1 else None)


def by_set_and_way(table: xr.Dataset, figure: Callable[[xr.DataArray], Any]) -> dict[str, Any]:
    """`figure` of the accuracies by seed, by data set and method."""
    accuracy = table["accuracy"]
    return {
        str(name): {
            str(way): figure(accuracy.sel(dataset=name, way=way).dropna("seed"))
            for way in accuracy["way"].values
        }
        for name in accuracy["dataset"].values
    }
