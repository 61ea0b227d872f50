"""Noise that depends on (key, sample number, shot) and on nothing else.

Numbers are drawn in aligned blocks of samples, so that the size of the chunks
a data set is sent in changes nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from twin.key import SAMPLE_BLOCK, Key


def standard_normal(
    key: Key,
    first_sample: int,
    batch: int,
    shape: tuple[int, ...],
    shots: int | None = None,
    device: torch.device | str = "cpu",
    out: Tensor | None = None,
) -> Tensor:
    """Independent N(0, 1), (batch, *shape) or (shots, batch, *shape), float32.

    Sample n of shot s is the same for any first_sample and batch that cover n.
    out: a contiguous buffer of the result's shape to fill, without shots.
    """
    if shots is not None:
        each = (key.child("shot", s) for s in range(shots))
        return torch.stack(
            [standard_normal(k, first_sample, batch, shape, None, device) for k in each]
        )
    if out is None:
        out = torch.empty((batch, *shape), device=device)
    rows = out.view(batch, math.prod(shape))
    generator = torch.Generator(device=rows.device)
    for block in key.blocks(first_sample, batch):
        generator.manual_seed(block.entropy())
        _fill(rows[block.start : block.stop], generator, block.offset)
    return out


def _fill(rows: Tensor, generator: torch.Generator, offset: int) -> None:
    """Rows from `offset` on of a block of SAMPLE_BLOCK rows of N(0, 1)."""
    count, width = rows.shape
    if rows.device.type != "cpu":
        # A GPU generator's stream depends on the size: draw the whole block.
        drawn = torch.randn((SAMPLE_BLOCK, width), generator=generator, device=rows.device)
        rows.copy_(drawn[offset : offset + count])
    elif offset == 0 and count * width % 16 == 0:
        rows.normal_(generator=generator)
    else:
        # On the CPU torch fills in groups of 16, so a prefix of whole groups is
        # the prefix of the whole block; a single sample need not cost a block.
        needed = (offset + count) * width
        drawn = torch.randn(-(-needed // 16) * 16, generator=generator)
        rows.copy_(drawn[offset * width : needed].view(count, width))


def poisson(key: Key, first_sample: int, mean: Tensor, shots: int | None = None) -> Tensor:
    """Poisson counts with the given mean, (batch, *shape), in electrons.

    Returns float32 of the same shape, or (shots, batch, *shape). Chunks that
    start at a multiple of SAMPLE_BLOCK get identical numbers; others the law.
    """
    if shots is not None:
        each = (key.child("shot", s) for s in range(shots))
        return torch.stack([poisson(k, first_sample, mean) for k in each])
    out = torch.empty_like(mean)
    for block in key.blocks(first_sample, len(mean)):
        # How many random words a count eats depends on its mean, so a chunk
        # that enters a block in the middle has a stream of its own.
        stream = block.key.child("from", block.offset) if block.offset else block.key
        rows = slice(block.start, block.stop)
        out[rows] = torch.poisson(mean[rows], generator=stream.torch(mean.device))
    return out
