"""What figure 2D says in numbers: gaps on four data sets, and who mends a broken ADC.

Not every way has every seed: what was not computed is NaN, and differences are
of the seeds that both have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from validation.adaptation.methods import TITLES
from validation.summary import Figure, mean_and_error

SETS = ("digits", "mnist", "fashion", "union")
NAMES = {
    "digits": "digits",
    "mnist": "MNIST",
    "fashion": "Fashion-MNIST",
    "union": "MNIST + Fashion-MNIST",
}
WAYS = {
    "pib": "PIB in the loop",
    "deployed": "in-silico, deployed, own head",
    "deployed_retrained": "in-silico, deployed, readout retrained",
    "converged": "in-silico, trained long, deployed, own head",
    "converged_retrained": "in-silico, trained long, deployed, readout retrained",
    "digital": "in-silico, in the computer",
    "converged_digital": "in-silico, trained long, in the computer",
    "lce": "local cross-entropy in the loop",
}
REPAIRS = {
    "pib_before": "PIB, right after the fault",
    "pib": "PIB retrained in the loop, blind",
    "pib_readout": "PIB's units as they are, readout retrained, blind",
    "deployed": "in-silico weights deployed, own head",
    "deployed_retrained": "in-silico weights, readout retrained, blind",
    "deployed_masked": "in-silico weights, masked, readout retrained",
    "pib_masked": "PIB retrained in the loop, masked",
    "lce": "local cross-entropy in the loop, blind",
    "lce_masked": "local cross-entropy in the loop, masked",
}
SHORT = {"stuck_column_fraction": "stuck", "dead_column_fraction": "dead"}


SOURCES = {
    "pib": ("pib", "chip"),
    "lce": ("lce", "chip"),
    "deployed": ("deployed", "head"),
    "deployed_retrained": ("deployed", "chip"),
    "digital": ("deployed", "digital"),
    "converged": ("converged", "head"),
    "converged_retrained": ("converged", "chip"),
    "converged_digital": ("converged", "digital"),
}
"""Of a way: the part it comes from, and the name of its accuracy there."""
RIVALS = {
    "gap_at_equal_passes": ("deployed", "deployed_retrained"),
    "gap_at_convergence": ("deployed", "deployed_retrained", "digital", "converged",
                           "converged_retrained", "converged_digital"),
}  # fmt: skip
"""At equal image passes: on the same chip. At convergence: all, in the computer too."""


def accuracies(found: Mapping[str, xr.Dataset], seeds: Sequence[int]) -> xr.Dataset:
    """accuracy (dataset, way, seed): test accuracies in [0, 1], NaN where not
    computed; seeds_used (dataset, way): how many were."""
    table = np.full((len(SETS), len(WAYS), len(seeds)), np.nan)
    for i, name in enumerate(SETS):
        for k, seed in enumerate(seeds):
            for j, way in enumerate(WAYS):
                part, column = SOURCES[way]
                if f"{name}-{part}-{seed}" in found:
                    table[i, j, k] = float(found[f"{name}-{part}-{seed}"][column])
    used = np.isfinite(table).sum(-1)
    return xr.Dataset(
        {
            "accuracy": (("dataset", "way", "seed"), table, {"units": "1"}),
            "seeds_used": (("dataset", "way"), used, {"units": "1"}),
        },
        coords={"dataset": list(SETS), "way": list(WAYS), "seed": list(seeds)},
    )


def adaptation(
    found: Mapping[str, xr.Dataset],
    faults: Sequence[tuple[str, float]],
) -> xr.Dataset:
    """mended (kind, fraction, repair, seed): test accuracies after a fault; and healthy ones.

    faults: (kind, fraction) in the order of the parts; the rest of the grid is NaN.
    """
    part = {method: found[f"faults-{method}"].isel(passes=-1) for method in TITLES}
    row = {
        "pib_before": part["pib"]["after"],
        "pib": part["pib"]["units"],
        "pib_readout": part["pib"]["readout"],
        "deployed": part["backprop"]["after_head"],
        "deployed_retrained": part["backprop"]["readout"],
        "deployed_masked": part["backprop-masked"]["readout"],
        "pib_masked": part["pib-masked"]["units"],
        "lce": part["lce"]["units"],
        "lce_masked": part["lce-masked"]["units"],
    }
    seeds = part["pib"]["seed"].values.tolist()
    kinds = list(dict.fromkeys(kind for kind, _ in faults))
    fractions = sorted({fraction for _, fraction in faults})
    table = np.full((len(kinds), len(fractions), len(REPAIRS), len(seeds)), np.nan)
    for index, (kind, fraction) in enumerate(faults):
        for r, name in enumerate(REPAIRS):
            values = row[name].isel(fault=index).transpose("seed").values
            table[kinds.index(kind), fractions.index(fraction), r] = values
    healthy = np.stack([part[m]["before"].values for m in ("pib", "backprop")])
    return xr.Dataset(
        {
            "mended": (("kind", "fraction", "repair", "seed"), table, {"units": "1"}),
            "healthy": (("healthy_method", "seed"), healthy, {"units": "1"}),
        },
        coords={
            "kind": [SHORT[kind] for kind in kinds],
            "fraction": ("fraction", fractions, {"units": "1"}),
            "repair": list(REPAIRS),
            "healthy_method": ["pib", "backprop"],
            "seed": seeds,
        },
    )


def long_repair(found: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """mended_long (repair, seed): half of the columns stuck, with more passes; NaN
    for repairs that were not given them."""
    row = {
        "pib": ("pib", "units"),
        "pib_readout": ("pib", "readout"),
        "deployed_retrained": ("backprop", "readout"),
        "deployed_masked": ("backprop-masked", "readout"),
    }
    seeds = found["long-pib"]["seed"].values.tolist()
    table = np.full((len(REPAIRS), len(seeds)), np.nan)
    for index, name in enumerate(REPAIRS):
        if name in row:
            method, way = row[name]
            table[index] = found[f"long-{method}"][way].isel(fault=0, passes=-1).values
    return xr.Dataset(
        {"mended_long": (("repair", "seed"), table, {"units": "1"})},
        coords={"repair": list(REPAIRS), "seed": seeds},
    )


def gap(table: xr.Dataset, name: str, until: str) -> xr.DataArray:
    """By seed that both have: the best rival minus PIB. until: a key of RIVALS."""
    one = table["accuracy"].sel(dataset=name, drop=True)
    best = one.sel(way=best_rival(table, name, until), drop=True)
    return known(best - one.sel(way="pib", drop=True))


def best_rival(table: xr.Dataset, name: str, until: str) -> str:
    """The best by its mean over the seeds that all rivals and PIB have."""
    ways = [*RIVALS[until]]
    one = table["accuracy"].sel(dataset=name, way=[*ways, "pib"]).dropna("seed")
    return ways[int(one.sel(way=ways).mean("seed").values.argmax())]


def known(values: xr.DataArray) -> xr.DataArray:
    """Without the seeds that were not computed."""
    return values.dropna("seed")


def figures_of_sets(table: xr.Dataset) -> list[Figure]:
    """Accuracies and gaps, means over seeds."""
    rows = [
        _mean(f"{way}_{name}", table["accuracy"].sel(dataset=name, way=way))
        for name in SETS
        for way in WAYS
        if name in sets_with(table, way)
    ]
    return rows + [
        _mean(f"{until}_{name}", gap(table, name, until))
        for name in SETS
        for until, ways in RIVALS.items()
        if all(name in sets_with(table, way) for way in ways)
    ]


def sets_with(table: xr.Dataset, way: str) -> list[str]:
    """The data sets that were trained this way, with any seed."""
    used = table["seeds_used"].sel(way=way)
    return [name for name in SETS if int(used.sel(dataset=name)) > 0]


def figures_of_faults(table: xr.Dataset) -> list[Figure]:
    """Every repair of every fault, and PIB's lead over the fair blind rival."""
    mended, rows = table["mended"], []
    for kind, fraction in faults_in(mended):
        one = mended.sel(kind=kind, fraction=fraction)
        rows += [_mean(f"{r}_{kind}_{fraction:g}", one.sel(repair=r)) for r in REPAIRS]
        rows.append(_mean(f"pib_ahead_of_deployed_retrained_{kind}_{fraction:g}", ahead(one)))
    return rows


def figures_of_long(table: xr.Dataset) -> list[Figure]:
    """Repairs with more passes, and PIB's lead over the fair blind rival."""
    one = table["mended_long"].dropna("repair", how="all")
    rows = [_mean(f"{r}_stuck_0.5_long", one.sel(repair=r)) for r in one["repair"].values]
    return [*rows, _mean("pib_ahead_of_deployed_retrained_stuck_0.5_long", ahead(one))]


def faults_in(mended: xr.DataArray) -> list[tuple[str, float]]:
    """(kind, fraction) of the grid that were computed."""
    return [
        (str(kind), float(fraction))
        for kind in mended["kind"].values
        for fraction in mended["fraction"].values
        if bool(mended.sel(kind=kind, fraction=fraction).notnull().any())
    ]


def ahead(one: xr.DataArray) -> xr.DataArray:
    """PIB, blind, minus in-silico weights with a retrained readout, blind."""
    ours, theirs = (one.sel(repair=r, drop=True) for r in ("pib", "deployed_retrained"))
    return known(ours - theirs)


def _mean(name: str, values: xr.DataArray) -> Figure:
    values = known(values)
    numbers = values.values.tolist()
    mean, error = mean_and_error(numbers)
    return Figure(
        name, mean, n=len(numbers), standard_error=error, seeds=values["seed"].values.tolist()
    )
