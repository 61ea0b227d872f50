"""Free space and multislice media beside LightPipes, in one run, one thread.

Per field: our batched Fresnel step over LightPipes' `Forvard`, and columns of
a transmission matrix over the same loop of `Forvard` and `MultPhase`.
"""

from __future__ import annotations

from functools import partial

import torch

from substrates.optics import lightpipes
from substrates.optics.propagation import Grid, propagated
from substrates.optics.screens import MultisliceTable, phase_screens
from substrates.optics.slices import Ends, Slices, columns
from twin.key import Key
from validation.bench.clock import paired
from validation.summary import Figure

BATCH = 8
CHANNELS, PIXELS = 784, 4096
COLUMNS = 16
"""Columns timed of the matrix: the work of each is the same."""

PITCH_M, WAVELENGTH_M, DISTANCE_M = 8e-6, 532e-9, 15e-3
TARGET = ">= 4"


def figures(seconds: float) -> list[Figure]:
    """How many times faster than LightPipes; `seconds` is spent on each.

    The bounded rows are against its default, complex128; ours is complex64.
    """
    rows = []
    for points in (256, 512):
        rows.append(_step(points, seconds, torch.complex128, TARGET))
        rows.append(_step(points, seconds, torch.complex64, None))
    rows.append(_matrix(seconds))
    return rows


def _step(points: int, seconds: float, theirs: torch.dtype, bound: str | None) -> Figure:
    grid = Grid(points=points, pitch_m=PITCH_M, wavelength_m=WAVELENGTH_M)
    parts = torch.randn((2, BATCH, points, points), generator=Key(1).torch())
    fields = torch.complex(parts[0], parts[1])
    one = lightpipes.begin(fields[0].to(theirs), grid)
    timed = paired(
        partial(propagated, fields, grid, DISTANCE_M, out=torch.empty_like(fields)),
        partial(lightpipes.forvard, one, DISTANCE_M),
        seconds,
    )
    name = f"propagation_{points}_faster_per_field"
    if theirs == torch.complex64:
        name += "_than_complex64"
    return Figure(name, timed.ratio * BATCH, "x", bound, n=timed.runs)


def _matrix(seconds: float) -> Figure:
    """784 columns, 8 slices, 256 x 256, camera of 4096: COLUMNS of them in turn."""
    table = MultisliceTable()
    key = Key(2)
    slices, ends = Slices(table, key), Ends(table, CHANNELS, PIXELS)
    theirs = lightpipes.LightPipesMedium(table, CHANNELS, PIXELS, phase_screens(table, key))
    some = torch.eye(CHANNELS, dtype=torch.complex64)[:COLUMNS].contiguous()
    timed = paired(
        partial(columns, slices, ends, range(COLUMNS)),
        partial(theirs.transmit, some, 0.0, 0.0),
        seconds,
    )
    name = "matrix_784_columns_8_slices_256_faster"
    return Figure(name, timed.ratio, "x", TARGET, n=timed.runs)
