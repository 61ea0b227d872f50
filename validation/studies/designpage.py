"""The page of a design study: one file, no scripts, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from twin.files import write_atomic
from validation.figures import Drawing, svg
from validation.page import rendered
from validation.studies import designpicture as pictures
from validation.studies.contrasts import Contrast
from validation.studies.findings import POINT, Findings
from validation.studies.points import Value
from validation.studies.trials import Objective, titled
from validation.summary import Summary, digits

FILE = "report.html"
SHOWN = 200
"""Designs in the table of all; the rest is in designs.csv."""


def write_page(folder: Path, found: Findings, summary: Summary) -> Path:
    """Write folder/report.html; returns its path."""
    page = rendered("design.html", _context(found, summary))
    path = folder / FILE
    write_atomic(path, page.encode())
    return path


def _context(found: Findings, summary: Summary) -> dict[str, Any]:
    study = found.study.study
    return {
        "about": study.about or f"Designs of {Path(study.base).stem}",
        "base": Path(study.base).stem,
        "facts": summary.extra,
        "objectives": [_goal(objective) for objective in found.objectives],
        "axes": [(titled(path), ", ".join(map(_plain, values)), path)
                 for path, values in study.axes.items()],
        "fixed": [(path, _plain(value)) for path, value in study.fixed],
        "headline": _headline(found),
        "contrasts": [_contrast(item) for item in found.contrasts if item.differences],
        "cheapest": [_cheapest(found, item) for item in found.cheapest],
        "point": f"{100 * POINT:g}",
        "columns": [*map(titled, study.axes), *(_heading(found, c) for c in _own(found)),
                    *(["accuracy on test / %"] if found.tested is not None else [])],
        "on_validation": found.tested is not None,
        "front": [_row(found, row) for row in found.on_front],
        "others": list(_others(found)),
        "hidden": max(0, len(found.designs) - len(found.on_front) - SHOWN),
        "failed": [(", ".join(f"{titled(p)} {_plain(v)}" for p, v in design), reason)
                   for design, reason in list(found.trials.failed.items())[:SHOWN]],
        "noise": [(o.title, _number(o, found.noise[o.name])) for o in found.objectives
                  if math.isfinite(found.noise.get(o.name, math.nan))
                  and found.noise[o.name] > 0],
        "drawings": [_drawn(drawing) for drawing in pictures.drawings(found)]
        if found.designs else [],
        "effects": [_drawn(d) for d in _effects(found)],
        "sensitivities": [_sensitivity(found, o) for o in found.objectives
                          if o.name in found.sensitivities],
        "toml": found.study.text,
        "command": summary.command,
        "versions": summary.versions,
    }  # fmt: skip


def _drawn(drawing: Drawing) -> dict[str, Any]:
    # Safe by construction: matplotlib escapes the text it is given.
    picture = Markup(svg(drawing.figure, f"design {drawing.name}", drawing.caption))
    return {"drawing": picture, "caption": drawing.caption}


def _effects(found: Findings) -> Iterator[Drawing]:
    for objective in found.objectives:
        if objective.name in found.levels:
            figure = pictures.effects(found, objective)
            caption = "mean over all designs with this value, bars 95 % over seeds."
            title = objective.title[:1].upper() + objective.title[1:]
            yield Drawing(f"effects {objective.name}", figure, f"{title}: {caption}")


def _sensitivity(found: Findings, objective: Objective) -> dict[str, Any]:
    sensitivity = found.sensitivities[objective.name]
    figure = pictures.sensitivities(found, objective, sensitivity)
    what = f"the logarithm of {objective.title}" if sensitivity.logarithm else objective.title
    if sensitivity.kind == "variance":
        caption = f"Shares of the variance of {what} over the grid; a pair counts beyond its parts."
    else:
        caption = (
            f"What a random forest loses of its R² for {what} when one parameter is shuffled in "
            f"held-out designs. Its R² there: {sensitivity.score:.2f} ± {sensitivity.error:.2f}."
        )
    return _drawn(Drawing(f"sensitivity {objective.name}", figure, caption))


# ---- numbers as text ----------------------------------------------------------


def _goal(objective: Objective) -> str:
    goal = "largest" if objective.goal == "max" else "smallest"
    return f"{goal} {objective.title}" + (f" ({objective.bound})" if objective.bound else "")


def _plain(value: Value) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{value}"


def _number(objective: Objective, value: float) -> str:
    divide, unit = pictures.shown(objective, value)
    if unit == "%":
        return f"{value / divide:.1f} %"
    if objective.unit == "1":
        return digits(value)
    return f"{value / divide:.3g} {unit}"


def _heading(found: Findings, column: int) -> str:
    title, unit = found.objectives[column].title, _column_unit(found, column)[1]
    return f"{title} / {unit}" if unit else title


def _own(found: Findings) -> list[int]:
    """Objectives with a column of their own: an axis has one already."""
    return [c for c, o in enumerate(found.objectives) if o.name not in found.study.study.axes]


def _column_unit(found: Findings, column: int) -> tuple[float, str]:
    """One unit for a whole column: the one of its median."""
    values = np.abs(found.means[:, column])
    return pictures.shown(found.objectives[column], float(np.median(values)) if len(values) else 1)


def _cell(found: Findings, row: int, column: int) -> str:
    divide, unit = _column_unit(found, column)
    value = found.means[row, column] / divide
    text = _short(value, unit)
    low, high = found.low[row, column] / divide, found.high[row, column] / divide
    if math.isfinite(low) and high - low > 1e-3 * abs(value):
        text += f" ({_short(low, unit)}\N{EN DASH}{_short(high, unit)})"
    return text


def _short(value: float, unit: str) -> str:
    if unit == "%":
        return f"{value:.1f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _row(found: Findings, row: int) -> dict[str, Any]:
    settings = dict(found.designs[row])
    share = found.share[row]
    return {
        "cells": [_plain(settings[path]) for path in found.study.study.axes]
        + [_cell(found, row, column) for column in _own(found)]
        + ([] if found.tested is None else [f"{100 * found.tested[row]:.1f}"]),
        "seeds": int(found.counts[row]),
        "share": f"{100 * share:.0f} %" if math.isfinite(share) else "",
        "lost": bool(found.lost[row]),
    }


def _others(found: Findings) -> Iterator[dict[str, Any]]:
    rows = np.flatnonzero(~found.front)
    order = np.argsort(found.objectives[0].sign * found.means[rows, 0])
    for row in rows[order][:SHOWN]:
        yield _row(found, int(row))


def _headline(found: Findings) -> list[dict[str, str]]:
    items = [{"big": f"{len(found.on_front)}", "text": f"designs on the front, of "
              f"{len(found.designs)} tried"}]  # fmt: skip
    if found.best is not None:
        column = next(i for i, o in enumerate(found.objectives) if o.is_accuracy)
        value = found.means[found.best, column]
        seeds = int(found.counts[found.best])
        plural = "s" if seeds > 1 else ""
        text = f"best accuracy, mean of {seeds} seed{plural}"
        if found.tested is not None:
            value = found.tested[found.best]
            text = f"test accuracy of the design best on validation, mean of {seeds} seed{plural}"
        items.append({"big": f"{100 * value:.1f} %", "text": text})
    items += [
        {
            "big": f"{item.times:.3g}\N{MULTIPLICATION SIGN}",
            "text": f"less {item.objective.title} for at most {100 * POINT:g} point of it",
        }
        for item in found.cheapest
        if math.isfinite(item.times) and item.times > 1
    ]
    return items


def _cheapest(found: Findings, item: Any) -> dict[str, Any]:
    return {"what": item.objective.title, "times": f"{item.times:.3g}", **_row(found, item.row)}


def _contrast(item: Contrast) -> dict[str, Any]:
    factor, unit = (100.0, " points") if item.figure.startswith("accuracy") else (1.0, "")
    unit = unit or ("" if item.unit == "1" else f" {item.unit}")

    def signed(value: float) -> str:
        shown = f"{factor * value:+.2f}" if factor == 100 else f"{factor * value:+.3g}"
        return shown.replace("-", "\N{MINUS SIGN}")

    interval = (
        f"95 % interval {signed(item.low)} to {signed(item.high)}{unit}"
        if math.isfinite(item.low) else "one pair only, no interval"
    )  # fmt: skip
    return {
        "about": item.about,
        "figure": titled(item.figure),
        "mean": f"{signed(item.mean)}{unit}",
        "interval": interval,
        "pairs": len(item.differences),
        "range": f"{signed(min(item.differences))} to {signed(max(item.differences))}",
        "settled": item.settled,
    }
