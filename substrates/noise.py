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
) -> Tensor:
    """Independent N(0, 1), (batch, *shape) or (shots, batch, *shape), float32.

    Sample n of shot s is the same for any first_sample and batch that cover n.
    """
    if shots is not None:
        each = (key.child("shot", s) for s in range(shots))
        return torch.stack(
            [standard_normal(k, first_sample, batch, shape, None, device) for k in each]
        )
    out = torch.empty((batch, *shape), device=device)
    width = math.prod(shape)
    for block in key.blocks(first_sample, batch):
        rows = block.offset + block.stop - block.start
        drawn = _normals(block.key, rows, width, device)
        out[block.start : block.stop] = drawn[block.offset : rows].view(-1, *shape)
    return out


def _normals(key: Key, rows: int, width: int, device: torch.device | str) -> Tensor:
    """The first `rows` rows of a block of SAMPLE_BLOCK rows of N(0, 1)."""
    if torch.device(device).type != "cpu":
        # A GPU generator's stream depends on the size: draw the whole block.
        return torch.randn((SAMPLE_BLOCK, width), generator=key.torch(device), device=device)
    # On the CPU torch fills in groups of 16, so a prefix of whole groups is
    # the prefix of the whole block; a single sample need not cost a block.
    count = -(-rows * width // 16) * 16
    drawn = torch.randn(count, generator=key.torch())
    return drawn[: rows * width].view(rows, width)


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
