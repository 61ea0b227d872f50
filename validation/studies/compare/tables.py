"""A comparison in words and tables: means over seeds, paired differences, costs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.stats import t as student

from validation.studies.collect import TRAINED_BY
from validation.studies.compare.plan import Comparison
from validation.summary import Figure

CONFIDENCE = 0.95
FIRST = "pib"
"""Whom all others are compared with."""

TITLES = {
    "pib": "PIB",
    "lce": "local cross-entropy",
    "pat": "physics-aware training",
    "dfa": "feedback alignment",
    "phyll": "PhyLL",
    "forward-forward": "forward-forward",
    "backprop": "in silico, own head",
    "backprop-retrained": "in silico, readout redone",
    "elm": "ridge on untrained physics",
    "readout": "readout on untrained units",
    "spsa": "SPSA",
    "parameter-shift": "parameter shift",
}
COSTS = {
    "passes": ("passes", 1.0, "{:,.0f}"),
    "writes": ("writes", 1.0, "{:,.0f}"),
    "device_seconds_training": ("device s", 1.0, "{:,.1f}"),
    "joules_training": ("J", 1.0, "{:.2g}"),
    "digital_operations": ("digital G", 1e-9, "{:,.1f}"),
    "wall_seconds": ("wall s", 1.0, "{:,.1f}"),
}


@dataclass(frozen=True)
class Paired:
    """PIB minus a rival, seed by seed. low, high: Student's interval; NaN for one seed."""

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def word(self) -> str:
        """Who is ahead, if the interval says so."""
        if not math.isfinite(self.low):
            return "?"
        return "ahead" if self.low > 0 else "behind" if self.high < 0 else "tie"


def paired(values: np.ndarray, others: np.ndarray) -> Paired:
    """Of two rows by seed; seeds that lack one are left out."""
    both = np.isfinite(values) & np.isfinite(others)
    differences = values[both] - others[both]
    count = len(differences)
    mean = float(differences.mean()) if count else math.nan
    if count < 2:
        return Paired(mean, math.nan, math.nan, count)
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    reach = error * float(student.ppf((1 + CONFIDENCE) / 2, count - 1))
    return Paired(mean, mean - reach, mean + reach, count)


def differences(asked: Comparison, found: xr.Dataset) -> Iterator[tuple[str, int, str, Paired]]:
    """(arm, level, rival, difference) wherever both have results."""
    if asked.figure not in found:
        return
    table = found[asked.figure]
    for arm in asked.arms:
        for level in range(len(arm.levels)):
            here = table.sel(arm=arm.name).isel(level=level)
            if FIRST not in here[TRAINED_BY].values:
                continue
            own = here.sel({TRAINED_BY: FIRST}).values
            for rival in here[TRAINED_BY].values:
                one = paired(own, here.sel({TRAINED_BY: rival}).values)
                if rival != FIRST and one.pairs:
                    yield arm.name, level, str(rival), one


def verdict(asked: Comparison, found: xr.Dataset) -> str:
    """One line: how often PIB is ahead, behind, or neither, by rival."""
    counts: dict[str, dict[str, int]] = {}
    for _, _, rival, one in differences(asked, found):
        counts.setdefault(rival, {"ahead": 0, "tie": 0, "behind": 0, "?": 0})[one.word] += 1
    if not counts:
        return "Nothing to compare yet."
    if all(row["?"] == sum(row.values()) for row in counts.values()):
        return "One seed: no interval, so nobody is ahead."
    told = "; ".join(
        f"{TITLES.get(rival, rival)}: ahead {row['ahead']}, tie {row['tie']}, "
        f"behind {row['behind']}"
        for rival, row in counts.items()
    )
    claim = f"Claimed: {asked.claim}. " if asked.claim else ""
    return f"{claim}Measured, PIB against each rival over all levels: {told}."


def page(
    asked: Comparison, found: xr.Dataset, missing: Sequence[tuple[str, str]], command: str
) -> str:
    """Markdown: the verdict, accuracies, differences, costs, what was chosen."""
    lines = [f"## {asked.name}: {asked.about}", "", verdict(asked, found), ""]
    if asked.quick:
        lines += ["**Quick: one seed and one trial; says that it runs, not who is better.**", ""]
    seeds = ", ".join(map(str, asked.seeds))
    lines += [
        f"`{command}`; seeds {seeds}; {asked.trials} trial{'s' * (asked.trials > 1)} for each "
        f"method in each regime, "
        f"judged on validation images; mean and standard deviation over seeds, %.", "",
    ]  # fmt: skip
    for arm in asked.arms:
        fewer = f" ({arm.trials} trials)" if arm.trials < asked.trials else ""
        lines += [f"### {arm.name}{fewer}", "", *_accuracies(asked, found, arm.name), ""]
        lines += [*_differences(asked, found, arm.name), ""]
        lines += [*_costs(found, arm.name), ""]
    if missing:
        lines += ["Without result:", "", *(f"- {where}: {why}" for where, why in missing), ""]
    return "\n".join(lines)


def figures(asked: Comparison, found: xr.Dataset) -> Iterator[Figure]:
    """Means over seeds of every cell, with their standard error over seeds."""
    if asked.figure not in found:
        return
    for arm in asked.arms:
        for level, value in enumerate(arm.levels):
            for method in found[TRAINED_BY].values:
                row = found[asked.figure].sel({"arm": arm.name, TRAINED_BY: method})
                values = row.isel(level=level).values
                values = values[np.isfinite(values)]
                if len(values):
                    error = (
                        float(values.std(ddof=1) / len(values) ** 0.5)
                        if (len(values) > 1)
                        else None
                    )
                    yield Figure(
                        f"{arm.name}, {value}: {method}", float(values.mean()), n=len(values),
                        standard_error=error, seeds=list(asked.seeds),
                    )  # fmt: skip


# ---- tables -----------------------------------------------------------------------


def _methods(found: xr.Dataset, arm: str) -> list[str]:
    one = found.sel(arm=arm)
    return [
        str(m) for m in found[TRAINED_BY].values
        if any(np.isfinite(one[n].sel({TRAINED_BY: m}).values).any() for n in ("passes",)
               if n in one)
    ]  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _levels(asked: Comparison, name: str) -> tuple[str, list[str]]:
    arm = next(arm for arm in asked.arms if arm.name == name)
    return arm.label or "method", [f"{value:g}" if arm.path else "" for value in arm.levels]


def _accuracies(asked: Comparison, found: xr.Dataset, arm: str) -> list[str]:
    label, levels = _levels(asked, arm)
    rows = []
    for method in _methods(found, arm):
        cells = []
        for level in range(len(levels)):
            values = found[asked.figure].sel({"arm": arm, TRAINED_BY: method}).isel(level=level)
            cells.append(_spread(values.values))
        rows.append([TITLES.get(method, method), *cells])
    return _table([label, *levels], rows)


def _spread(values: np.ndarray) -> str:
    values = values[np.isfinite(values)]
    if not len(values):
        return "-"
    spread = f" ± {100 * values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.1f}{spread}"


def _differences(asked: Comparison, found: xr.Dataset, arm: str) -> list[str]:
    _, levels = _levels(asked, arm)
    rows: dict[str, list[str]] = {}
    for name, level, rival, one in differences(asked, found):
        if name == arm:
            rows.setdefault(rival, ["-"] * len(levels))[level] = _interval(one)
    if not rows:
        return []
    told = [[TITLES.get(rival, rival), *cells] for rival, cells in rows.items()]
    return _table([f"PIB minus, points ({CONFIDENCE:.0%})", *levels], told)


def _interval(one: Paired) -> str:
    if not math.isfinite(one.low):
        return f"{100 * one.mean:+.1f}"
    return f"{100 * one.mean:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"


def _costs(found: xr.Dataset, arm: str) -> list[str]:
    """Of the last level, means over seeds; and the trial that was chosen there."""
    rows = []
    for method in _methods(found, arm):
        one = found.sel({"arm": arm, TRAINED_BY: method})
        level = int(np.flatnonzero(np.isfinite(one["passes"].values).any(1))[-1])
        cells = []
        for name, (_, factor, shape) in COSTS.items():
            value = one[name].isel(level=level).mean("seed").item() if name in one else math.nan
            cells.append(shape.format(value * factor) if math.isfinite(value) else "-")
        trial = json.loads(str(one["trial"].isel(level=level).item()) or "{}")
        cells.append(", ".join(f"{k} {v:g}" for k, v in trial.items()) or "-")
        rows.append([TITLES.get(method, method), *cells])
    return _table(["at the last level", *(c[0] for c in COSTS.values()), "chosen"], rows)
