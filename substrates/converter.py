"""Digital-to-analogue and analogue-to-digital converters, shared by substrates.

Codes are whole numbers held in float32 (exact up to 2**24), so that partial
codes of several converters can be added before they become int32.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

RANGE_QUANTILE = 0.9995
RANGE_MARGIN = 1.1
"""Ranging puts full scale at this multiple of that quantile of |signal|."""


def on_grid(values: Tensor, bits: int) -> Tensor:
    """`values` in [0, 1] rounded to the 2**bits levels of a DAC, ends included."""
    top = 2**bits - 1
    return (values * top).round_().div_(top)


def half_span(bits: int) -> int:
    """Codes of a signed converter run from -half_span to half_span - 1."""
    return int(2 ** (bits - 1))


def signed_codes_(lsb: Tensor, bits: int) -> int:
    """Quantise in place; returns how many codes are at an end of the range.

    lsb: the signal in units of one code, any shape; on return whole numbers
    from -2**(bits-1) to 2**(bits-1) - 1. Rounds half to even, as torch does;
    a comparator would round up, a bias below 1e-3 of a level on real signals.
    """
    half = half_span(bits)
    low, high = torch.aminmax(lsb.round_())
    if low.item() > -half and high.item() < half - 1:
        return 0
    lsb.clamp_(-half, half - 1)
    # |code + 1/2| is half - 1/2 at both ends and less elsewhere; summing floats
    # is several times faster on a CPU than counting a comparison.
    at_end = (lsb + 0.5).abs_().sub_(half - 1.5).clamp_(min=0).sum(dtype=torch.float64)
    return int(at_end.item())


def signed_range(signals: Iterable[Tensor], count: int) -> Tensor:
    """Full scale per column: RANGE_MARGIN x the RANGE_QUANTILE of |signal|.

    signals: chunks (samples, columns); count: samples of all chunks together.
    Only the few largest values of each chunk are kept, so memory does not grow
    with the number of samples. Interpolates linearly, like torch.quantile.
    """
    position = RANGE_QUANTILE * (count - 1)
    below = int(position)
    keep = count - below
    tops = [s.abs().T.topk(min(keep, len(s)), dim=1).values for s in signals]
    largest = torch.cat(tops, dim=1).topk(keep, dim=1).values
    lower, upper = largest[:, -1], largest[:, max(keep - 2, 0)]
    return (lower + (upper - lower) * (position - below)) * RANGE_MARGIN
