"""From a run folder to report.html: one file, no scripts, nothing fetched.

Reads summary.json and history.nc; draws with validation.figures, lays out
with templates/report.html (autoescape on, so a class name is never markup).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from markupsafe import Markup
from matplotlib.figure import Figure

from twin.errors import DataError
from twin.files import write_atomic
from validation import costtable, devicepage, diagram, figures, maps
from validation import summary as summaries
from validation.maps import Method
from validation.page import rendered

FILE = "report.html"
HISTORY = "history.nc"
HEADLINE = {
    "accuracy": "this network, measured",
    "accuracy_backprop_digital": "backpropagation, digital net",
    "accuracy_backprop_deployed": "backpropagation, deployed on the chip",
    "accuracy_untrained": "untrained",
}

UNIT: Mapping[str, Any] = dict.fromkeys(
    ("name", "backend", "kind", "inputs", "outputs", "drive", "reading_width", "device_id"), ""
)
"""A unit of the network as the page shows it, where the run says nothing."""


def write_report(folder: Path | str, method: Method = "pca") -> Path:
    """Write folder/report.html from what the run left there; returns its path.

    method: how features are drawn in two dimensions; "umap" needs the extra.
    What the run did not record is said to be missing, not left out silently.
    Raises DataError where summary.json or history.nc is damaged.
    """
    folder = Path(folder)
    context = _context(summaries.read(folder), _history(folder / HISTORY), method)
    page = rendered(FILE, context)
    path = folder / FILE
    write_atomic(path, page.encode())
    return path


def _history(path: Path) -> xr.Dataset:
    if not path.is_file():
        return xr.Dataset()
    try:
        with xr.open_dataset(path, engine="h5netcdf") as opened:
            return opened.load()
    except Exception as error:
        # Wide on purpose: the HDF5 stack raises OSError, KeyError, RuntimeError...
        raise DataError(
            f"{path}: damaged history ({type(error).__name__}: {error}). Run the command again."
        ) from None


def _context(summary: summaries.Summary, history: xr.Dataset, method: Method) -> dict[str, Any]:
    extra = summary.extra
    units = [{**UNIT, **unit} for unit in extra.get("network", [])]
    rows = _references(summary)
    try:
        drawn = _drawn(extra, units, history, rows, method)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise DataError(
            f"{HISTORY} and summary.json do not fit each other ({type(error).__name__}: {error}). "
            "Run the command again."
        ) from error
    return {
        "command": extra.get("command", summary.command),
        "preset": extra.get("preset", ""),
        "seed": extra.get("seed"),
        "dataset": {"name": "", "source": "", **dict(extra.get("dataset", {}))},
        "sizes": _sizes(dict(extra.get("dataset", {}))),
        "headline": _headline(summary),
        "holds": summary.holds,
        "failed": summary.failed,
        "figure_rows": [(figure.holds, summaries.cells(figure)) for figure in summary.figures],
        "references": rows if len(rows) > 1 else [],
        "references_off": bool(extra.get("references_off")),
        "ablation": [{"standard_error": None, **row} for row in extra.get("ablation") or []],
        "units": units,
        "ledger": costtable.ledger(extra.get("ledger", [])),
        "versions": summary.versions,
        "method": method,
        "provenance": {str(k): str(v) for k, v in history.attrs.items()},
        **drawn,
    }


def _drawn(
    extra: Mapping[str, Any],
    units: Sequence[Mapping[str, Any]],
    history: xr.Dataset,
    rows: Sequence[Mapping[str, Any]],
    method: Method,
) -> dict[str, Any]:
    """All figures as markup; None or an empty list for what was not recorded."""
    names = [str(unit["name"]) for unit in units]
    trained = "i_yz" in history
    shape = dict(extra.get("dataset", {})).get("image_shape", [])
    image = " x ".join(map(str, shape)) or "data"
    return {
        "diagram": _drawing("network", diagram.network(units, extra["readout"], image))
        if units and "readout" in extra
        else None,
        "comparison": _drawing("comparison", figures.comparison(rows)) if len(rows) > 1 else None,
        "planes": _per_unit(names, "Information plane", figures.information_plane, history)
        if trained
        else [],
        "no_i_xz": [n for i, n in enumerate(names) if trained and _all_nan(history, "i_xz", i)],
        "kernel": _drawing("kernel", figures.kernel(history, names)) if trained else None,
        "probes": _drawing("probes", figures.probes(history, names))
        if "probe_accuracy" in history
        else None,
        "readout_curves": _drawing("readouts", figures.readouts(history))
        if "readout_test_accuracy" in history
        else None,
        "health": [_health(history, i, name) for i, name in enumerate(names)] if trained else [],
        "weights": _per_unit(names, "Weights", figures.weights, history)
        if "weight_quantiles" in history
        else [],
        "devices": devicepage.sections(history, units),
        "devices_missing": devicepage.missing(history, units),
        **_feature_maps(history, names, extra, method),
        **_confusion(history),
    }


def _per_unit(names: Sequence[str], what: str, draw: Any, history: xr.Dataset) -> list[Markup]:
    return [
        _drawing(f"{what} {i}", draw(history, i, name), f"{what} of {name}")
        for i, name in enumerate(names)
    ]


def _drawing(name: str, figure: Figure, description: str | None = None) -> Markup:
    # Safe by construction: matplotlib escapes the text it is given.
    return Markup(figures.svg(figure, name, description or f"Figure: {name}"))


def _feature_maps(
    history: xr.Dataset, names: Sequence[str], extra: Mapping[str, Any], method: Method
) -> dict[str, Any]:
    """Pairs (before, after) of every unit, and one legend."""
    if "map_label" not in history:
        return {"maps": [], "map_legend": None, "map_samples": 0}
    labels = history["map_label"].values
    known = np.unique(labels[np.isfinite(labels)]) if labels.dtype.kind == "f" else labels
    highest = int(np.max(known, initial=0))
    classes = list(dict(extra.get("dataset", {})).get("classes", []))
    if not classes and "confusion" in history:
        classes = [str(name) for name in history["true_class"].values]
    classes = [*classes, *(str(i) for i in range(len(classes), highest + 1))]
    pairs = []
    for i, name in enumerate(names, start=1):
        if f"features_before_{i}" not in history:
            continue
        pair = []
        for when in ("before", "after"):
            z = history[f"features_{when}_{i}"].transpose("map_sample", ...).values
            title = f"{name}, {when} training"
            figure = maps.feature_map(z, labels, classes, title, method)
            pair.append(_drawing(f"map {i} {when}", figure, f"Features of {title}"))
        pairs.append(pair)
    legend = _drawing("legend", maps.legend(classes), "Classes: " + ", ".join(classes))
    return {"maps": pairs, "map_legend": legend, "map_samples": len(labels)}


def _confusion(history: xr.Dataset) -> dict[str, Any]:
    if "confusion" not in history:
        return {"confusion": None, "mistakes": [], "many_classes": False}
    table = history["confusion"].transpose("true_class", "predicted_class")
    counts = np.nan_to_num(table.values)
    classes = [str(name) for name in table["true_class"].values]
    wrong = counts * (1 - np.eye(len(classes)))
    worst = np.argsort(-wrong, axis=None, kind="stable")[:3]
    mistakes = [
        {"true": classes[i], "predicted": classes[j], "count": int(wrong[i, j])}
        for i, j in zip(*np.unravel_index(worst, wrong.shape), strict=True)
        if wrong[i, j] > 0
    ]
    return {
        "confusion": _drawing("confusion", figures.confusion(counts, classes)),
        "mistakes": mistakes,
        "many_classes": len(classes) > 12,
    }


def _sizes(dataset: Mapping[str, Any]) -> str:
    """ "1,294 training, 143 validation and 360 test samples", as far as known."""
    words = {"train": "training", "validation": "validation", "test": "test"}
    known = [
        f"{dataset[k]:,} {text}" for k, text in words.items() if isinstance(dataset.get(k), int)
    ]
    return f"{', '.join(known[:-1])} and {known[-1]} samples" if len(known) > 1 else ""


def _all_nan(history: xr.Dataset, name: str, unit: int) -> bool:
    return not np.isfinite(history[name].isel(unit=unit).values).any()


def _health(history: xr.Dataset, unit: int, name: str) -> dict[str, Any]:
    """Last loss and kernel value; the worst saturation and clipping on the way."""
    row = history.isel(unit=unit)
    low, high = figures.KERNEL_RANGE
    (k,) = figures.present(row["kernel_mean"].values)
    (t,) = figures.present(row["iteration"].values)
    (information,) = figures.present(row["i_yz"].values)
    return {
        "name": name,
        "iterations": int(t[-1]) if len(t) else 0,
        "i_yz": float(information[-1]) if len(information) else None,
        "kernel": float(k[-1]) if len(k) else None,
        "flagged": float(np.mean((k < low) | (k > high))) if len(k) else 0.0,
        "saturated": _peak(row, "saturated"),
        "clipped": _peak(row, "clipped"),
    }


def _peak(row: xr.Dataset, name: str) -> float | None:
    (values,) = figures.present(row[name].values) if name in row else (np.empty(0),)
    return float(values.max()) if len(values) else None


def _headline(summary: summaries.Summary) -> list[dict[str, Any]]:
    found = {figure.name: figure for figure in summary.figures}
    shown = [(found[name], text) for name, text in HEADLINE.items() if name in found]
    return [{"figure": figure, "text": text} for figure, text in shown if figure.value is not None]


def _references(summary: summaries.Summary) -> list[dict[str, Any]]:
    """This run first, then every reference with an accuracy, best first."""
    own = next((f for f in summary.figures if f.name == "accuracy" and f.value is not None), None)
    rows = []
    for name, found in dict(summary.extra.get("references") or {}).items():
        entry = found if isinstance(found, Mapping) else {"accuracy": found}
        accuracy = entry.get("accuracy", entry.get("value"))
        if isinstance(accuracy, int | float):
            rows.append(_reference(str(name), float(accuracy), entry))
    rows.sort(key=lambda row: -row["accuracy"])
    if own is None or own.value is None:
        return rows
    mine = {"standard_error": own.standard_error, "n": own.n}
    rows.insert(0, _reference("PIB, measured (this run)", own.value, mine))
    for row in rows[1:]:
        row["gap"] = own.value - row["accuracy"]
    return rows


def _reference(name: str, accuracy: float, entry: Mapping[str, Any]) -> dict[str, Any]:
    known = ("accuracy", "value", "standard_error", "n", "name", "description")
    rest = {k: v for k, v in entry.items() if k not in known and not isinstance(v, list | dict)}
    return {
        "name": str(entry.get("description", name.replace("_", " "))),
        "accuracy": accuracy,
        "standard_error": entry.get("standard_error"),
        "n": entry.get("n"),
        "gap": None,
        "notes": ", ".join(f"{k.replace('_', ' ')} {costtable.amount(v)}" for k, v in rest.items()),
    }
