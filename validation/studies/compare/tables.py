"""A comparison in words and tables: means over seeds, paired differences, costs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from validation.studies.collect import TRAINED_BY
from validation.studies.compare.paired import CONFIDENCE, Paired, differences
from validation.studies.compare.plan import Arm, Comparison
from validation.summary import Figure

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
FIGURES = {
    "accuracy": "test accuracy",
    "accuracy_redone": "test accuracy of a readout redone on 1,000 captures",
}
DARK = "dark_pixels"
COSTS = {
    "passes": ("passes", 1.0, "{:,.0f}"),
    "writes": ("writes", 1.0, "{:,.0f}"),
    "device_seconds_training": ("device s", 1.0, "{:,.1f}"),
    "joules_training": ("J", 1.0, "{:.2g}"),
    "digital_operations": ("digital G", 1e-9, "{:,.1f}"),
    "wall_seconds": ("wall s", 1.0, "{:,.1f}"),
}


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
        *(f"*{TITLES[method]}* was measured in the runs of *{TITLES[ran]}*, tuned with it.\n"
          for method, (ran, _) in asked.same_runs.items()),
    ]  # fmt: skip
    for arm in asked.arms:
        fewer = f" ({arm.trials} trials)" if arm.trials < asked.trials else ""
        lines += [f"### {arm.name}{fewer}", ""]
        if arm.path:
            for figure in (asked.figure, *asked.also):
                lines += _by_level(asked, found, arm, figure)
        else:
            lines += _by_figure(asked, found, arm)
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


def _methods(found: xr.Dataset, arm: str, *names: str) -> list[str]:
    """Those that have any of these figures ("passes" unless named) in this arm."""
    one, names = found.sel(arm=arm), names or ("passes",)
    return [
        str(m) for m in found[TRAINED_BY].values
        if any(np.isfinite(one[n].sel({TRAINED_BY: m}).values).any() for n in names if n in one)
    ]  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _by_level(asked: Comparison, found: xr.Dataset, arm: Arm, figure: str) -> list[str]:
    """One figure at every level, then PIB minus each rival; nothing if nobody has it."""
    if figure not in found or not np.isfinite(found[figure].sel(arm=arm.name).values).any():
        return []
    levels = [f"{value:g}" for value in arm.levels]
    rows = []
    for method in _methods(found, arm.name, "passes", figure):
        one = found[figure].sel({"arm": arm.name, TRAINED_BY: method})
        cells = [_spread(one.isel(level=level).values) for level in range(len(levels))]
        rows.append([TITLES.get(method, method), *cells])
    title = [] if figure == asked.figure else [f"{named(figure)}, %:", ""]
    apart: dict[str, list[str]] = {}
    for name, level, rival, difference in differences(asked, found, figure):
        if name == arm.name:
            apart.setdefault(rival, ["-"] * len(levels))[level] = _interval(difference)
    return [*title, *_table([arm.label or "level", *levels], rows), "", *_apart(apart, levels)]


def _by_figure(asked: Comparison, found: xr.Dataset, arm: Arm) -> list[str]:
    """All figures of an arm without levels side by side, then PIB minus each rival."""
    figures = [f for f in (asked.figure, *asked.also) if f in found]
    rows = []
    for method in _methods(found, arm.name, "passes", *figures):
        one = found.sel({"arm": arm.name, TRAINED_BY: method}).isel(level=0)
        cells = [_spread(one[figure].values) for figure in figures]
        rows.append([TITLES.get(method, method), *cells])
    heads = [named(figure) for figure in figures]
    rows += _without_network(found, arm, figures)
    apart: dict[str, list[str]] = {}
    for column, figure in enumerate(figures):
        for name, _, rival, difference in differences(asked, found, figure):
            if name == arm.name:
                apart.setdefault(rival, ["-"] * len(figures))[column] = _interval(difference)
    return [*_table(["method, %", *heads], rows), "", *_apart(apart, heads)]


def _without_network(found: xr.Dataset, arm: Arm, figures: Sequence[str]) -> list[list[str]]:
    """What counting dark pixels reaches, where strange images are asked for."""
    cells = []
    for figure in figures:
        kind, _, name = figure.partition("_")
        plain = f"{kind}_{DARK}_{name}"
        if plain not in found:
            cells.append("-")
            continue
        one = found[plain].sel(arm=arm.name).isel(level=0).mean(TRAINED_BY)
        cells.append(_spread(one.values))
    return [["counting dark pixels", *cells]] if any(cell != "-" for cell in cells) else []


def _apart(rows: dict[str, list[str]], heads: Sequence[str]) -> list[str]:
    if not rows:
        return []
    told = [[TITLES.get(rival, rival), *cells] for rival, cells in rows.items()]
    return [*_table([f"PIB minus, points ({CONFIDENCE:.0%})", *heads], told), ""]


def named(figure: str) -> str:
    """A figure as a person says it."""
    kind, _, rest = figure.partition("_")
    if kind in ("auroc", "fpr95"):
        return f"{kind.upper()} {rest.replace('_', ' ')}"
    return FIGURES.get(figure, figure)


def _spread(values: np.ndarray) -> str:
    values = values[np.isfinite(values)]
    if not len(values):
        return "-"
    spread = f" ± {100 * values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.1f}{spread}"


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
