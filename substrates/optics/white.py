"""White complex noise, from which matrices are drawn: Gaussian, or cheap signs."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from substrates.optics.medium import White
from twin.key import Key

SLAB = 2**18
"""Signs made at once: they stay in the processor's cache."""


def white_noise(key: Key, out: Tensor | None = None) -> White:
    """Complex Gaussian noise; each call continues the stream of `key`.

    out: complex64, filled and returned by the first call if its shape fits:
    fresh memory of tens of megabytes costs as much as the signs to fill it.
    """
    generator = key.torch()
    spare = [] if out is None else [out]

    def white(shape: tuple[int, ...], rms: float) -> Tensor:
        parts = _buffer(spare, shape)
        parts.normal_(std=rms / math.sqrt(2), generator=generator)
        return torch.view_as_complex(parts)

    return white


def sign_noise(key: Key, out: Tensor | None = None) -> White:
    """rms (+-1 +- i) / sqrt(2), independent: a fifth of the cost of Gaussian noise.

    Mean, variance and correlations are those of Gaussian noise; the fourth
    cumulant of a quadrature of variance 1 is -2. For small additions to
    something Gaussian. out: as in white_noise.
    """
    generator = key.numpy()
    spare = [] if out is None else [out]

    def white(shape: tuple[int, ...], rms: float) -> Tensor:
        size = rms / math.sqrt(2)
        parts = _buffer(spare, shape)
        for slab in parts.view(-1).split(SLAB):
            drawn = np.frombuffer(generator.bytes(-(-len(slab) // 8)), np.uint8)
            signs = torch.from_numpy(np.unpackbits(drawn, count=len(slab)))
            slab.copy_(signs).mul_(2 * size).sub_(size)
        return torch.view_as_complex(parts)

    return white


def _buffer(spare: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Real memory (*shape, 2): the spare one, once, if it fits."""
    if spare and spare[0].shape == shape and spare[0].is_contiguous():
        held = spare.pop()
        # Not a view: a view of another dtype keeps the one it came from alive, and
        # memory that is used again and again would drag a growing chain along.
        start, strides = 2 * held.storage_offset(), (*(2 * s for s in held.stride()), 1)
        return torch.empty(0).set_(held.untyped_storage(), start, (*shape, 2), strides)
    return torch.empty((*shape, 2))
