"""The column converters of one chip: how each differs from the ideal one.

Every array has one converter per column and slice, used again for each phase
of the drive. Gain, offset and bow are drawn once when the chip is made and
scaled by dials; the law of quantisation is in :mod:`substrates.converter`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from substrates.converter import half_span
from twin.key import Key

BOW = 1.5 * math.sqrt(3.0)
"""max |u - u^3| on [-1, 1] is 1 / BOW, so BOW (u - u^3) peaks at one."""


@dataclass(frozen=True)
class Errors:
    """What the converters add, at the present dials. None: nothing of the kind.

    factor: 1 + relative gain error, (converters, outputs). offset, inl: codes,
    same shape; inl is the peak of the bow inl x BOW (u - u^3), u = code / half.
    noise: variance of a conversion, codes^2.
    """

    factor: Tensor | None
    offset: Tensor | None
    inl: Tensor | None
    noise: float

    def bend_(self, lsb: Tensor, bits: int) -> None:
        """Add the bow to signals (..., converters, outputs) in codes, in place.

        Beyond full scale the bow stays at its end value, zero.
        """
        if self.inl is not None:
            u = (lsb / half_span(bits)).clamp_(-1, 1)
            lsb.add_((u - u**3).mul_(self.inl * BOW))


class Converters:
    """The normals behind the errors of (converters, outputs) converters."""

    def __init__(self, key: Key, converters: int, outputs: int) -> None:
        self._key = key
        self._shape = (converters, outputs)

    def errors(self, dials: Mapping[str, float], device: torch.device) -> Errors:
        """The errors at these dials, on `device`."""

        def drawn(name: str) -> Tensor | None:
            if dials[name] == 0:
                return None
            generator = self._key.child(name).torch()
            return (torch.randn(self._shape, generator=generator) * dials[name]).to(device)

        gain = drawn("adc_gain_spread")
        return Errors(
            # A converter of no or negative gain would be a fault, not a spread.
            factor=None if gain is None else (1 + gain).clamp_(min=0.05),
            offset=drawn("adc_offset_lsb"),
            inl=drawn("adc_inl_lsb"),
            noise=dials["adc_noise_lsb"] ** 2,
        )
