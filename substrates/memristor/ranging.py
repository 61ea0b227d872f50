"""Ranging: the full scale of each column from what it carries on a stated drive."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from substrates.converter import signed_range
from substrates.memristor.columns import Columns, chunks
from substrates.memristor.faults import StuckColumns
from substrates.memristor.fold import Parts
from twin.key import Key

FINEST_RANGE = 1 / 256
"""Smallest full scale / nominal, the span of a published 8-bit integrating
converter (128 uA to 0.5 uA). A column without current gets it."""


def largest(parts: Parts, columns: Columns, x: Tensor, key: Key) -> tuple[Tensor, float]:
    """Largest codes of each column on drives x, (outputs,), and the array's joules.

    One pass with read noise, all conversions of a column together, as an auto-ranging
    converter sees them (not clipped).
    """
    joules, conversions = 0.0, parts.layout.banks * parts.config.outputs

    def signals() -> Iterator[Tensor]:
        nonlocal joules
        for rows in chunks(len(x), 0, conversions):
            levels = columns.driven(parts.layout.phased(x[rows], parts.scratch))
            joules += columns.joules(levels)
            yield next(columns.currents(levels, key, rows.start, None)).flatten(0, 1)

    return signed_range(signals(), len(x) * parts.layout.banks), joules


def without_broken(ratio: Tensor, stuck: StuckColumns | None) -> Tensor:
    """Full scale / nominal; a broken converter tells nothing and gets the others' median."""
    ratio = ratio.clamp(min=FINEST_RANGE)
    if stuck is None or bool(stuck.mask.all()):
        return ratio
    return torch.where(stuck.mask, ratio[~stuck.mask].median(), ratio)
