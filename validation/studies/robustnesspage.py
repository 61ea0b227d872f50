"""From a robustness dataset to one HTML page: no scripts, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from markupsafe import Markup
from matplotlib.figure import Figure

from validation import figures, summary
from validation.page import rendered
from validation.studies import robustnessfigures as drawn
from validation.studies import robustnesstables as tables
from validation.studies.collect import TRAINED_BY
from validation.studies.losses import CONFIDENCE, REPLICATES, Loss
from validation.studies.robustnessdata import ranked, severe_loss
from validation.studies.robustnessplan import LOOP, TEST, TOGETHER, Study
from validation.studies.severity import NonIdeality, amount

FILE = "robustness.html"
MINUS = "\N{MINUS SIGN}"
CLOSER = 85.0
"""Curves that stay above so many per cent are drawn on a larger scale."""
MOST_FAILURES = 20
"""Failed points that the page names."""


def page(
    study: Study,
    found: xr.Dataset,
    missing: Sequence[tuple[str, str]],
    plan_text: str,
    command: str,
    network_text: str = "",
) -> str:
    """The report as HTML.

    found: see robustnessdata.dataset. missing: (point, reason) of what gave no
    result. plan_text: the TOML that reproduces the page; network_text: the
    run configuration beside it, if it is no preset.
    """
    context = {
        "plan": study.plan,
        "images": study.images,
        "command": command,
        "plan_text": plan_text,
        "network_text": network_text,
        "failures": [*missing][:MOST_FAILURES],
        "failed": len(missing),
        "left_out": study.found.left_out,
        "refused": study.refused,
        "titles": drawn.TITLES,
        "whens": drawn.WHENS,
        "signed": signed,
        "confidence": f"{100 * CONFIDENCE:.0f}",
        "replicates": f"{REPLICATES:,}",
        "versions": summary.versions(),
        **_content(study, found),
    }
    return rendered(FILE, context)


def _content(study: Study, found: xr.Dataset) -> dict[str, Any]:
    first = study.plan.methods[0]
    by_name = {one.name: one for one in study.found.swept}
    order = [n for n in ranked(found, first) if severe_loss(found, n, first) is not None]
    rows = [tables.row(study, found, by_name[name]) for name in order]
    pairs = list(tables.pairs(study, found))
    return {
        "rows": rows,
        "unknown": [n for n in by_name if n not in order],
        "cards": _cards(study, found, rows),
        "sentences": list(_sentences(rows)),
        "details": list(tables.details(study, found, [*order, TOGETHER])),
        "legend": _svg("legend", drawn.legend(study.plan.methods), "Legend"),
        "legend2": _svg("legend again", drawn.legend(study.plan.methods), "Legend"),
        "tornado": _tornado(found, rows),
        "curves": [_curve(study, found, by_name[name]) for name in order],
        "together": _together(study, found, order),
        "pairs": pairs,
        "interactions": _interactions(pairs, first),
    }


def _svg(name: str, figure: Figure, about: str) -> Markup:
    # Safe by construction: matplotlib escapes the text it is given.
    return Markup(figures.svg(figure, name, about))


# ---- figures ----------------------------------------------------------------------


def _tornado(found: xr.Dataset, rows: Sequence[dict[str, Any]]) -> Markup | None:
    if not rows:
        return None
    bars = [
        drawn.Bar(r["title"], "" if r["one"].word else r["severe"], r["loss"], max(r["gain"], 0.0))
        for r in rows
    ]
    figure = drawn.tornado(bars, found, [r["name"] for r in rows])
    return _svg("tornado", figure, "Accuracy lost at severity 1, by non-ideality")


def _interactions(pairs: Sequence[dict[str, Any]], method: str) -> Markup | None:
    """Those of the first method; the table has all."""
    rows = [row for row in pairs if row["method"] == method]
    if not rows:
        return None
    shown = [
        {**row, "title": row["title"] + (", in the loop" if row["when"] == LOOP else "")}
        for row in rows
    ]
    return _svg("interactions", drawn.interactions(shown), "Interactions of pairs")


def _curve(study: Study, found: xr.Dataset, one: NonIdeality) -> Markup:
    ticks = ["no", "", "yes"]
    if not one.is_event:
        ticks = [amount(one.value(severity), "1") for severity in (0.0, 0.5, 1.0)]
    title = one.title if one.unit == "1" else f"{one.title} / {one.unit}"
    accuracy = 100 * found["accuracy"].sel(case=[o.name for o in study.found.swept])
    # Two scales: what loses little would be a flat line on that of the worst.
    lowest = float(accuracy.min())
    if float(accuracy.sel(case=one.name).min()) >= CLOSER:
        lowest = max(lowest, CLOSER)
    figure = drawn.curve(found, one.name, title, ticks, (max(0.0, lowest - 3), 101))
    return _svg(f"curve {one.name}", figure, f"Accuracy over {one.title}")


def _together(study: Study, found: xr.Dataset, names: Sequence[str]) -> Markup:
    """All together, beside what the single losses of the first method sum up to."""
    here = found["accuracy"].sel({TRAINED_BY: study.plan.methods[0], "when": TEST}).mean("seed")
    single = [one.name for one in study.found.swept if one.name in names and not one.is_event]
    severities = found["severity"].values
    losses = np.zeros(len(severities))
    for name in single:
        losses += (here.sel(case=name, severity=0.0) - here.sel(case=name)).fillna(0).values
    start = float(here.sel(case=TOGETHER, severity=0.0))
    summed: dict[str, Any] = {"severity": severities, "accuracy": np.clip(start - losses, 0, 1)}
    return _svg("together", drawn.all_together(found, summed), "Accuracy with all together")


# ---- words ------------------------------------------------------------------------


def _cards(study: Study, found: xr.Dataset, rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    first = study.plan.methods[0]
    title = drawn.TITLES.get(first, first)
    delivered = found["delivered"].sel({TRAINED_BY: first})
    cards = [{"number": _percent(float(delivered.mean())), "text": f"{title}, as delivered"}]
    whole = found["accuracy"].sel({"case": TOGETHER, TRAINED_BY: first, "when": TEST}).mean("seed")
    for severity, text in ((0.0, "everything perfect"), (1.0, "everything severe")):
        value = float(whole.sel(severity=severity))
        if math.isfinite(value):
            cards.append({"number": _percent(value), "text": f"{title}, {text} after training"})
    if rows:
        worst = rows[0]
        text = f"points lost to {worst['title']} ({worst['severe']}), the worst of {len(rows)}"
        cards.append({"number": f"{100 * worst['loss'].value:.1f}", "text": text})
    return cards


def _sentences(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What the numbers say, without adjectives."""
    if not rows:
        return
    names = [f"{r['title']} ({_points(r['loss'])} points at {r['severe']})" for r in rows[:3]]
    yield (
        "Most is lost to " + ", ".join(names[:-1]) + f" and {names[-1]}."
        if len(names) > 1
        else f"Most is lost to {names[0]}."
    )
    for row in rows[:3]:
        if row["loop"] is not None:
            saved = row["loss"].value - row["loop"].value
            error = math.hypot(row["loss"].error, row["loop"].error)
            yield (
                f"{row['title'].capitalize()}: with training in the loop "
                f"{_points(row['loop'])} points are lost, "
                f"{_points(Loss(abs(saved), error))} {'fewer' if saved >= 0 else 'more'}."
            )
    small = sum(r["loss"].value + 2 * r["loss"].error < 0.05 for r in rows)
    yield (
        f"{small} of {len(rows)} non-idealities cost less than 5 points each when severe, "
        "two standard errors included."
    )


def _points(lost: Loss) -> str:
    return f"{signed(lost.value)} ± {100 * lost.error:.1f}"


def signed(fraction: float) -> str:
    """Points with one digit; what rounds to nothing has no sign."""
    return f"{100 * fraction:.1f}".replace("-0.0", "0.0").replace("-", MINUS)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
