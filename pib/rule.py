"""The local learning rule: an outer product of what is known at the unit.

A unit's feature is z = relu(x W + b). What the rule needs is the drive x (as
the converter sent it), the sign of the measured pre-activation, and the loss
gradient at the measured feature. The physics itself is never differentiated.
"""

from __future__ import annotations

import math

from torch import Tensor


def rectified(pre_activation: Tensor) -> Tensor:
    """The activation of every unit: max(a, 0)."""
    return pre_activation.clamp_min(0.0)


def outer_product(inputs: Tensor, pre_activation: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """Gradients of weight (n_in, n_out) and bias (n_out,) for a batch.

    inputs: (n, n_in); pre_activation, gradient: (n, n_out), measured
    pre-activation and d loss / d feature.
    """
    delta = gradient * (pre_activation > 0)
    return {"weight": inputs.T @ delta, "bias": delta.sum(0)}


def warmed_cosine(step: int, steps: int, rate: float, warm_up: int) -> float:
    """Learning rate: linear rise over `warm_up` steps, then a cosine to zero."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))
    return rate * min(1.0, (step + 1) / max(1, warm_up)) * cosine
