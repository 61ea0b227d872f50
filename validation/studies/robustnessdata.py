"""From a folder of results to one dataset of accuracies over cases and severities."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from validation.studies.collect import TRAINED_BY
from validation.studies.losses import Curve, Loss, loss
from validation.studies.points import Point
from validation.studies.robustnessplan import LOOP, TEST, TOGETHER, Case, Plan, reference
from validation.studies.store import Result, Store

DIMS = ("case", "severity", TRAINED_BY, "when", "seed")
NOT_ASKED, DELIVERED, MISSING = "not asked", "as delivered", "missing"
REDONE = "accuracy_readout_redone"


def dataset(
    plan: Plan, cases: Sequence[Case], paired: Sequence[Case], store: Store, images: int
) -> xr.Dataset:
    """All accuracies of a study, NaN where none was asked for or none came.

    accuracy (case, severity, method, when, seed): a fraction of the test images.
    Where a case at severity 0 is the network as delivered, that is filled in.
    accuracy_readout_redone: the same after the readout was retrained in the
    field. delivered (method, seed): the network as it is. pair_accuracy (pair,
    method, when, seed): two at once at plan.pair_severity. status: "done",
    "failed", "missing", "as delivered" or "not asked". images: in the test set.
    """
    severities = [0.0, *plan.severities]
    coords: dict[str, list[Any]] = {
        "case": [case.name for case in cases], "severity": severities,
        TRAINED_BY: list(plan.methods), "when": [TEST, LOOP], "seed": list(plan.seeds),
        "pair": [case.name for case in paired],
    }  # fmt: skip
    delivered = _delivered(plan, store)
    sizes = [len(coords[name]) for name in DIMS]
    accuracy, redone = np.full(sizes, np.nan), np.full(sizes, np.nan)
    status = np.full(sizes, NOT_ASKED, object)
    for place, values in _places(coords, DIMS):
        case = cases[place[0]]
        _, severity, method, when, seed = values
        if when not in case.whens:
            continue
        if severity == 0 and case.delivered_severity == 0:
            accuracy[place], status[place] = delivered[place[2], place[4]], DELIVERED
            continue
        found = store.read(case.point(plan, severity, method, when, seed).key())
        if found is not None or severity in (0, *case.severities(plan, when)):
            accuracy[place], status[place] = _accuracy(found), _status(found)
            redone[place] = _accuracy(found, REDONE)
    both = np.full([len(coords[n]) for n in ("pair", *DIMS[2:])], np.nan)
    for place, values in _places(coords, ("pair", *DIMS[2:])):
        both[place] = _accuracy(
            store.read(paired[place[0]].point(plan, plan.pair_severity, *values[1:]).key())
        )
    unit = {"units": "1", "long_name": "share of the test images classified rightly"}
    return xr.Dataset(
        {
            "accuracy": (DIMS, accuracy, unit),
            REDONE: (DIMS, redone, unit),
            "status": (DIMS, status),
            "delivered": ((TRAINED_BY, "seed"), delivered, unit),
            "delivered_severity": ("case", [_number(c.delivered_severity) for c in cases]),
            "pair_accuracy": (("pair", *DIMS[2:]), both, unit),
        },
        coords,
        {"plan": plan.model_dump_json(), "test_images": images},
    )


def failures(points: Iterable[Point], store: Store) -> list[tuple[str, str]]:
    """(point, reason) of everything that was asked for and is not there."""
    found = []
    for point in points:
        result = store.read(point.key())
        if result is None or result.status != "done":
            found.append((f"{point.told()}, {point.when}", _reason(result)))
    return found


# ---- questions to the dataset ------------------------------------------------------


def ranked(found: xr.Dataset, method: str) -> list[str]:
    """Names of the single cases, the most costly first; those unknown last."""
    losses = {
        name: value.value if (value := severe_loss(found, name, method)) else -np.inf
        for name in found["case"].values
        if name != TOGETHER
    }
    return sorted(losses, key=lambda name: -losses[name])


def severe_loss(found: xr.Dataset, case: str, method: str, when: str = TEST) -> Loss | None:
    """Accuracy lost at severity 1; None if it was not computed."""
    curve = curve_of(found, case, method, when)
    return None if curve is None or curve.severities[-1] != 1 else loss(curve)


def curve_of(found: xr.Dataset, case: str, method: str, when: str) -> Curve | None:
    """Accuracy over severity, the network as delivered included where it is on the curve."""
    here = found.sel({"case": case, TRAINED_BY: method})
    severities = list(found["severity"].values)
    accuracy = here["accuracy"].sel(when=when).transpose("severity", "seed").values
    at = float(here["delivered_severity"])
    if np.isfinite(at) and at not in severities and np.isfinite(accuracy).any():
        severities = [*severities, at]
        accuracy = np.concatenate([accuracy, here["delivered"].values[None]])
    return Curve.of(severities, accuracy, int(found.attrs["test_images"]))


# ---- filling it --------------------------------------------------------------------


def _places(coords: dict[str, list[Any]], dims: Sequence[str]) -> Iterable[tuple[Any, Any]]:
    ranges = [range(len(coords[name])) for name in dims]
    values = [coords[name] for name in dims]
    yield from zip(itertools.product(*ranges), itertools.product(*values), strict=True)


def _delivered(plan: Plan, store: Store) -> np.ndarray:
    found = [
        [_accuracy(store.read(reference(plan, method, seed).key())) for seed in plan.seeds]
        for method in plan.methods
    ]
    return np.array(found, np.float64)


def _accuracy(result: Result | None, name: str = "accuracy") -> float:
    return np.nan if result is None else result.figures.get(name, np.nan)


def _status(result: Result | None) -> str:
    return MISSING if result is None else result.status


def _reason(result: Result | None) -> str:
    return "no result" if result is None else result.reason


def _number(value: float | None) -> float:
    return np.nan if value is None else value
