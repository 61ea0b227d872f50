"""What figure 2D says in words, from the numbers and the bounds."""

from __future__ import annotations

import numpy as np
import xarray as xr

from validation.reproduce.fig2dtables import (
    NAMES,
    REPAIRS,
    SETS,
    WAYS,
    ahead,
    best_rival,
    faults_in,
    gap,
    known,
    sets_with,
)
from validation.summary import mean_and_error

GAPS = {"mnist": 0.005, "fashion": 0.014}
"""The largest gap at equal image passes that counts as near, where there is one."""
SEPARATED = 2.0
"""Standard errors of a paired difference, below which nobody is called ahead."""


def told(values: xr.DataArray, unit: str = " %") -> str:
    """Mean ± s.d. over seeds, in percent or points."""
    values = known(values)
    spread = f" ± {100 * float(values.std(ddof=1)):.2f}" if values.size > 1 else " (one seed)"
    return f"{100 * float(values.mean()):.2f}{spread}{unit}"


def standing(lead: xr.DataArray) -> str:
    """Of a paired lead by seed: "ahead of", "behind" or "not separated from"."""
    mean, error = mean_and_error(known(lead).values.tolist())
    if error is None or abs(mean) <= SEPARATED * error:
        return "not separated from"
    return "ahead of" if mean > 0 else "behind"


def verdict(table: xr.Dataset, tuned: bool) -> str:
    """What matched the paper and what did not, from the numbers.

    tuned: whether the rates of repairs were chosen on validation images.
    """
    seeds = table["mended"].dropna("seed", how="all").sizes["seed"]
    chosen = ", rates chosen on validation images with the first and kept" if tuned else ""
    broken = f"Broken columns: {seeds} seed{'s' * (seeds > 1)}{chosen}."
    parts = [_equal(table), _long(table), _local(table), _of_faults(table["mended"]), broken]
    if "mended_long" in table:
        parts.append(_patient(table["mended_long"]))
    return " ".join(parts)


def _patient(long: xr.DataArray) -> str:
    """Of the repair with more passes."""
    one = long.dropna("seed", how="all")
    means = one.mean("seed")
    best = str(means["repair"].values[int(np.nanargmax(means.values))])
    return (
        f"With six times the passes and half of the columns stuck, PIB reaches "
        f"{told(one.sel(repair='pib'))}, {standing(ahead(one))} the retrained readout "
        f"({told(ahead(one), ' points')}); best of these: {REPAIRS[best]}."
    )


def _equal(table: xr.Dataset) -> str:
    """At equal image passes, against the bounds."""
    each = []
    for name in SETS:
        found = gap(table, name, "gap_at_equal_passes")
        word = f"{NAMES[name]} {told(found, '')}"
        if name in GAPS:
            kept = "within" if float(found.mean()) <= GAPS[name] else "NOT within"
            word += f", {kept} the {100 * GAPS[name]:g} asked for"
        each.append(word)
    return (
        "The better deployed in-silico rival minus PIB at equal image passes, points "
        f"(mean ± s.d.): {'; '.join(each)}."
    )


def _long(table: xr.Dataset) -> str:
    each = [
        f"{NAMES[n]} {told(gap(table, n, 'gap_at_convergence'), '')} "
        f"({WAYS[best_rival(table, n, 'gap_at_convergence')]})"
        for n in sets_with(table, "converged")
    ]
    return (
        "The best of all in-silico rivals, those trained at least twice as long (which is no "
        f"proof of convergence) and those in the computer too, minus PIB: {'; '.join(each)}."
    )


def _local(table: xr.Dataset) -> str:
    sets: dict[str, list[str]] = {}
    for name in sets_with(table, "lce"):
        one = table["accuracy"].sel(dataset=name)
        lead = one.sel(way="lce", drop=True) - one.sel(way="pib", drop=True)
        sets.setdefault(standing(lead), []).append(NAMES[name])
    each = [f"{word} PIB on {', '.join(names)}" for word, names in sets.items()]
    return f"Local cross-entropy on the same schedule is {'; '.join(each)}."


def _of_faults(mended: xr.DataArray) -> str:
    told_of = []
    for kind in mended["kind"].values:
        largest = max(fraction for k, fraction in faults_in(mended) if k == kind)
        one = mended.sel(kind=kind, fraction=largest).dropna("seed", how="all")
        lead, means = ahead(one), one.mean("seed")
        best = str(means["repair"].values[int(np.argmax(means.values))])
        told_of.append(
            f"With {100 * largest:.0f} % of the columns {kind}, PIB retrained blind "
            f"reaches {told(one.sel(repair='pib'))} from {told(one.sel(repair='pib_before'))}, "
            f"{standing(lead)} deployed weights with a retrained readout "
            f"({told(lead, ' points')}); best of all: {REPAIRS[best]}, "
            f"{told(one.sel(repair=best))}"
        )
    wins = [
        f"{kind} {100 * fraction:.0f} %"
        for kind, fraction in faults_in(mended)
        if standing(ahead(mended.sel(kind=kind, fraction=fraction))) != "ahead of"
    ]
    lost = f" PIB is not ahead of the retrained readout at: {', '.join(wins)}." if wins else ""
    return f"{'. '.join(told_of)}.{lost}"
