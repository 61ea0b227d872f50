"""The fault dials that can be laid over a device from outside (see ``twin.broken``)."""

from __future__ import annotations

import math

import numpy as np

from twin.backend import Capabilities, Dial, Port

COLUMNS = ("column_gain", "dead_column", "stuck_column_code")
"""Faults of columns, in the order in which they act."""
GAIN_HIGH = 1024.0
"""Largest column gain; no more than a fault map may hold."""


def lacking(own: Capabilities, code_weight: int) -> list[Dial]:
    """The dials that can be emulated on a device which declares `own`, and lacks them.

    code_weight: as of ``twin.broken.Broken``.
    """
    known = {dial.name for dial in own.dials}
    drive, reading = own.drives[0], own.readings[0]
    dials = []
    if drive.low <= 0 <= drive.high:
        dials.append(_dial("dead_row", drive.shape, 0, 1, 0, 1, "1: rows without drive"))
    if reading.low <= 0 <= reading.high and not known & set(COLUMNS):
        dials += _of_columns(reading, code_weight)
    if len(own.settings) == 1 and (own.settings[0].low, own.settings[0].high) == (-1, 1):
        about = "where in its window each cell of the pairs is stuck; -1: healthy; next write"
        dials.append(_dial("stuck_cell_level", (2, *own.settings[0].shape), -1, 1, -1, 1, about))
    return [dial for dial in dials if dial.name not in known]


def _of_columns(port: Port, weight: int) -> list[Dial]:
    # Maps travel as float32, so the ends must be such numbers.
    low, high = (float(np.float32(end / weight)) for end in (port.code_low, port.code_high))
    healthy = float(np.float32(math.floor(low) - max(1.0, abs(low) * 2.0**-20)))
    shape, about = (
        port.shape,
        f"code of one converter each column is stuck at; {healthy:g}: healthy",
    )
    gain = "factor on the code of mis-ranged converters, clipped to the port"
    return [
        _dial("column_gain", shape, 0, GAIN_HIGH, 1, 0.5, gain),
        _dial("dead_column", shape, 0, 1, 0, 1, "1: columns without signal; code 0"),
        _dial("stuck_column_code", shape, healthy, high, healthy, high, about, port.is_coded),
    ]


def _dial(
    name: str,
    shape: tuple[int, ...],
    low: float,
    high: float,
    healthy: float,
    severe: float,
    about: str,
    coded: bool = False,
) -> Dial:
    # Floats all: a map filled with a whole number would be one of integers.
    low, high, healthy, severe = (float(end) for end in (low, high, healthy, severe))
    return Dial(
        name=name, unit="code" if coded else "1", low=low, high=high, ideal=healthy,
        default=healthy, severe=severe, shape=shape, about=f"{about}; emulated",
    )  # fmt: skip
