"""The part of a report that shows the devices: figures and a table for each unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr
from markupsafe import Markup

from validation import devices, figures


def sections(history: xr.Dataset, units: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each unit with a record of its device: name, facts as (name, text), figures."""
    return [_section(unit, data) for _, unit, data in devices.recorded(history, units)]


def missing(history: xr.Dataset, units: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of units that could have a record and have none, as in old runs."""
    there = {number for number, *_ in devices.recorded(history, units)}
    return [
        str(unit["name"])
        for number, unit in enumerate(units, start=1)
        if unit["backend"] in devices.KINDS and number not in there
    ]


def _section(unit: Mapping[str, Any], data: xr.Dataset) -> dict[str, Any]:
    name = str(unit["name"])
    facts = data["facts"].transpose("fact", "text").values.tolist() if "facts" in data else []
    return {
        "name": name,
        "device_id": str(unit["device_id"]),
        "facts": [(str(what), str(text)) for what, text in facts],
        "figures": [
            _figure(drawing) for drawing in devices.KINDS[unit["backend"]].drawings(data, name)
        ],
    }


def _figure(drawing: figures.Drawing) -> dict[str, Any]:
    svg = figures.svg(drawing.figure, drawing.name, f"Figure: {drawing.name}")
    # Safe by construction: matplotlib escapes the text it is given.
    return {"drawing": Markup(svg), "caption": drawing.caption}
