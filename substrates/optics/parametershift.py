"""The parameter-shift identity of an interferometer with one phase per input.

|sum_n T_n exp(i phi_n)|^2 is a + b cos(phi_n + c) in every single phase: two
shifted measurements give its derivative exactly, without knowing the medium.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from twin.errors import ConfigError


def shift_derivative(
    intensity: Callable[[Tensor], Tensor], phases_rad: Tensor, shift_rad: float = math.pi / 2
) -> Tensor:
    """d intensity / d phase for every phase, (inputs, pixels), from 2 inputs patterns.

    intensity: from phases (batch, inputs) to (batch, pixels). phases_rad:
    (inputs,). (I(phi + s) - I(phi - s)) / (2 sin s) for any shift s that is not
    a multiple of pi; pi / 2 gives the least noise. Exact, not a finite
    difference, where light of modulus 1 goes through a linear medium; wrong
    behind a detector that clips. A measurement rule: no gradient is taken.
    Source: the shift rule of quantum circuits, Schuld et al. 2019, arXiv 1811.11184.
    """
    if not abs(math.sin(shift_rad)) > 1e-6:
        raise ConfigError(
            f"shift_rad must not be a multiple of pi, got {shift_rad:g} rad: both patterns would "
            "be equally bright. Use pi / 2."
        )
    moves = torch.eye(len(phases_rad), dtype=phases_rad.dtype, device=phases_rad.device)
    patterns = torch.cat([phases_rad + shift_rad * moves, phases_rad - shift_rad * moves])
    ahead, behind = intensity(patterns).chunk(2)
    return (ahead - behind) / (2 * math.sin(shift_rad))
