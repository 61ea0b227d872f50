"""What figure 2D says in numbers: gaps on four data sets, and who mends a broken ADC."""

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
    "lce": "local cross-entropy in the loop",
}
BLIND = ("pib", "backprop", "pib-masked", "lce", "lce-masked", "backprop-masked")
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


def accuracies(found: Mapping[str, xr.Dataset], seeds: Sequence[int]) -> xr.Dataset:
    """accuracy (dataset, way, seed): test accuracies in [0, 1]; passes, joules by method."""
    table = np.full((len(SETS), len(WAYS), len(seeds)), np.nan)
    for i, name in enumerate(SETS):
        for k, seed in enumerate(seeds):
            part = {way: found[f"{name}-{way}-{seed}"] for way in
                    ("pib", "lce", "deployed", "converged")}  # fmt: skip
            row = {
                "pib": part["pib"]["chip"],
                "lce": part["lce"]["chip"],
                "deployed": part["deployed"]["head"],
                "deployed_retrained": part["deployed"]["chip"],
                "converged": part["converged"]["head"],
                "converged_retrained": part["converged"]["chip"],
                "digital": part["deployed"]["digital"],
            }
            table[i, :, k] = [float(row[way]) for way in WAYS]
    return xr.Dataset(
        {"accuracy": (("dataset", "way", "seed"), table, {"units": "1"})},
        coords={"dataset": list(SETS), "way": list(WAYS), "seed": list(seeds)},
    )


def adaptation(
    found: Mapping[str, xr.Dataset],
    seeds: Sequence[int],
    kinds: Sequence[str],
    fractions: Sequence[float],
) -> xr.Dataset:
    """mended (kind, fraction, repair, seed): test accuracies after a fault; and healthy ones."""
    shape = (len(kinds), len(fractions), len(REPAIRS), len(seeds))
    table, healthy = np.full(shape, np.nan), np.full((2, len(seeds)), np.nan)
    for k, seed in enumerate(seeds):
        part = {method: found[f"faults-{method}-{seed}"].isel(passes=-1) for method in TITLES}
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
        for r, name in enumerate(REPAIRS):
            table[:, :, r, k] = row[name].values.reshape(len(kinds), len(fractions))
        healthy[:, k] = [float(part[m]["before"]) for m in ("pib", "backprop")]
    return xr.Dataset(
        {
            "mended": (("kind", "fraction", "repair", "seed"), table, {"units": "1"}),
            "healthy": (("healthy_method", "seed"), healthy, {"units": "1"}),
        },
        coords={
            "kind": [SHORT[kind] for kind in kinds],
            "fraction": ("fraction", list(fractions), {"units": "1"}),
            "repair": list(REPAIRS),
            "healthy_method": ["pib", "backprop"],
            "seed": list(seeds),
        },
    )


def gap(table: xr.Dataset, name: str, until: str) -> xr.DataArray:
    """By seed: the better deployed rival (own head or retrained readout, by its
    mean) minus PIB. until: "deployed" (equal image passes) or "converged"."""
    one = table["accuracy"].sel(dataset=name)
    rivals = [one.sel(way=until), one.sel(way=f"{until}_retrained")]
    best = max(rivals, key=lambda rival: float(rival.mean()))
    return best.reset_coords(drop=True) - one.sel(way="pib").reset_coords(drop=True)


def figures_of_sets(table: xr.Dataset) -> list[Figure]:
    """Accuracies and gaps, means over seeds."""
    rows = [
        _mean(f"{way}_{name}", table["accuracy"].sel(dataset=name, way=way))
        for name in SETS
        for way in WAYS
    ]
    names = {"deployed": "gap_at_equal_passes", "converged": "gap_at_convergence"}
    return rows + [
        _mean(f"{names[until]}_{name}", gap(table, name, until)) for name in SETS for until in names
    ]


def figures_of_faults(table: xr.Dataset) -> list[Figure]:
    """Every repair of every fault, and PIB's lead over the fair blind rival."""
    mended, rows = table["mended"], []
    for kind in mended["kind"].values:
        for fraction in mended["fraction"].values:
            one = mended.sel(kind=kind, fraction=fraction)
            rows += [_mean(f"{r}_{kind}_{fraction:g}", one.sel(repair=r)) for r in REPAIRS]
            rows.append(_mean(f"pib_ahead_of_deployed_retrained_{kind}_{fraction:g}", ahead(one)))
    return rows


def ahead(one: xr.DataArray) -> xr.DataArray:
    """PIB, blind, minus in-silico weights with a retrained readout, blind."""
    ours, theirs = (one.sel(repair=r).reset_coords(drop=True) for r in
                    ("pib", "deployed_retrained"))  # fmt: skip
    return ours - theirs


def _mean(name: str, values: xr.DataArray) -> Figure:
    numbers = [float(v) for v in values.values]
    mean, error = mean_and_error(numbers)
    return Figure(
        name, mean, n=len(numbers), standard_error=error, seeds=values["seed"].values.tolist()
    )


def told(values: xr.DataArray, unit: str = " %") -> str:
    """Mean ± s.d. over seeds, in percent or points."""
    spread = f" ± {100 * float(values.std(ddof=1)):.2f}" if values.size > 1 else ""
    return f"{100 * float(values.mean()):.2f}{spread}{unit}"


def verdict(table: xr.Dataset) -> str:
    """What matched the paper and what did not, from the numbers."""
    gaps = {name: gap(table, name, "deployed") for name in SETS}
    largest = max(gaps, key=lambda name: float(gaps[name].mean()))
    behind = "; ".join(f"{NAMES[n]} {told(g, '')}" for n, g in gaps.items())
    long = "; ".join(f"{NAMES[n]} {told(gap(table, n, 'converged'), '')}" for n in SETS)
    local = [
        NAMES[n] for n in SETS
        if float((table["accuracy"].sel(dataset=n, way="lce")
                  - table["accuracy"].sel(dataset=n, way="pib")).mean()) > 0
    ]  # fmt: skip
    return (
        "PIB is near in-silico training on the same chip: the better deployed rival minus PIB, "
        f"points (mean ± s.d.), at equal image passes {behind} (largest on {NAMES[largest]}); "
        f"with in-silico training run longer {long}. Local cross-entropy on the same schedule "
        f"is ahead of PIB on {', '.join(local) if local else 'none of the sets'}. "
        f"{_of_faults(table['mended'])}"
    )


def _of_faults(mended: xr.DataArray) -> str:
    told_of = []
    for kind in mended["kind"].values:
        one = mended.sel(kind=kind).isel(fraction=-1)
        lead = ahead(one)
        means = one.mean("seed")
        best = str(means["repair"].values[int(means.values.argmax())])
        word = "ahead of" if float(lead.mean()) > 0 else "not ahead of"
        told_of.append(
            f"With {100 * float(one['fraction']):.0f} % of the columns {kind}, PIB retrained blind "
            f"reaches {told(one.sel(repair='pib'))} from {told(one.sel(repair='pib_before'))}, "
            f"{word} deployed weights with a retrained readout ({told(lead, ' points')}); best of "
            f"all: {REPAIRS[best]}, {told(one.sel(repair=best))}"
        )
    wins = [
        f"{kind} {100 * fraction:.0f} %"
        for kind in mended["kind"].values
        for fraction in mended["fraction"].values
        if float(ahead(mended.sel(kind=kind, fraction=fraction)).mean()) <= 0
    ]
    lost = f" The retrained readout is not behind at: {', '.join(wins)}." if wins else ""
    return f"{'. '.join(told_of)}.{lost}"
