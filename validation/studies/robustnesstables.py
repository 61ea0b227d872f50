"""The tables of a robustness report, as plain rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from twin.key import Key
from validation.studies.collect import TRAINED_BY
from validation.studies.losses import Threshold, interaction, threshold
from validation.studies.robustnessdata import curve_of, severe_loss
from validation.studies.robustnessplan import LOOP, TEST, Study
from validation.studies.severity import NonIdeality, amount


def row(study: Study, found: xr.Dataset, one: NonIdeality) -> dict[str, Any]:
    """One non-ideality as the main table shows it, for the first method."""
    first = study.plan.methods[0]
    lost = severe_loss(found, one.name, first)
    assert lost is not None
    here = found.sel({"case": one.name, TRAINED_BY: first})
    perfect = float(here["accuracy"].sel(severity=0.0, when=TEST).mean("seed"))
    delivered = float(here["delivered"].mean("seed"))
    return {
        "one": one,
        "name": one.name,
        "title": one.title,
        "range": _range(one),
        "severe": one.told(1),
        "loss": lost,
        # With a rest before the test, the network as delivered is no point of it.
        "gain": 0.0 if one.delivered_severity in (None, 0) else perfect - delivered,
        "loop": severe_loss(found, one.name, first, LOOP),
        "redone": _redone(found, one.name, first),
        "thresholds": _thresholds(study, found, one.name, first, TEST),
    }


def _range(one: NonIdeality) -> str:
    """Perfect, delivered and severe value, the unit once."""
    if one.word is not None:
        return f"none, none, {one.word}"
    values = (one.zero, one.delivered, one.severe)
    told = ["?" if value is None else amount(value, "1") for value in values[:2]]
    return ", ".join([*told, amount(one.severe, one.unit)])


def _redone(found: xr.Dataset, case: str, method: str) -> float | None:
    """Loss at severity 1 after the readout was trained anew, where that was done."""
    here = found.sel({"case": case, TRAINED_BY: method, "when": TEST})
    values = (
        here["accuracy"].sel(severity=0.0) - here["accuracy_readout_redone"].sel(severity=1.0)
    ).values
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def _thresholds(
    study: Study, found: xr.Dataset, case: str, method: str, when: str
) -> list[dict[str, str]]:
    """For each loss asked for, the severity and the value at which it is reached."""
    one = next((one for one in study.found.swept if one.name == case), None)
    curve = curve_of(found, case, method, when)
    cells = []
    for points in study.plan.accuracy_points:
        if curve is None or curve.severities[-1] != 1 or (one is not None and one.is_event):
            cells.append({"severity": "", "value": ""})
            continue
        at = threshold(curve, points / 100, Key(0).child("robustness", case, method, when))
        cells.append({"severity": _interval(at), "value": _value(one, at)})
    return cells


def _interval(at: Threshold) -> str:
    if math.isinf(at.severity):
        return "not reached" if math.isinf(at.low) else f"not reached (from {at.low:.2f})"
    high = "none" if math.isinf(at.high) else f"{at.high:.2f}"
    return f"{at.severity:.2f} ({at.low:.2f} to {high})"


def _value(one: NonIdeality | None, at: Threshold) -> str:
    if one is None or math.isinf(at.severity):
        return ""
    return one.told(at.severity)


def details(study: Study, found: xr.Dataset, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Every curve there is: what it loses, and at which severity."""
    titles = {one.name: one.title for one in study.found.swept}
    for name in names:
        for method in study.plan.methods:
            for when in (TEST, LOOP):
                lost = severe_loss(found, name, method, when)
                if lost is not None:
                    yield {
                        "title": titles.get(name, name),
                        "method": method,
                        "when": when,
                        "loss": lost,
                        "thresholds": _thresholds(study, found, name, method, when),
                    }


def pairs(study: Study, found: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Interactions of the pairs, after training and, where computed, in the loop."""
    severity = study.plan.pair_severity
    titles = {one.name: one.title for one in study.found.swept}
    if severity not in found["severity"].values:
        return
    for pair in map(str, found["pair"].values):
        a, b = pair.split(" + ")
        for method in study.plan.methods:
            for when in (TEST, LOOP):
                here = found.sel({TRAINED_BY: method})
                single = here["accuracy"].sel(when=when, severity=severity)
                base = here["delivered"].values
                both = here["pair_accuracy"].sel(pair=pair, when=when).values
                one, two = (single.sel(case=name).values for name in (a, b))
                excess = interaction(base, one, two, both, study.images)
                if excess is not None:
                    yield {
                        "title": f"{titles[a]} + {titles[b]}",
                        "method": method,
                        "when": when,
                        "first": float(np.nanmean(base - one)),
                        "second": float(np.nanmean(base - two)),
                        "both": float(np.nanmean(base - both)),
                        "excess": excess,
                    }
