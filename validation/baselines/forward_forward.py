"""The forward-forward algorithm on physical units.

Hinton, "The forward-forward algorithm: some preliminary investigations",
https://arxiv.org/abs/2212.13345.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from validation.baselines.contrast import ContrastiveTraining
from validation.baselines.method import Learnt, Task
from validation.config import RunConfig

SHARPNESS = 10.0
"""Logits per mean square of activity. The sum that the paper writes is a sharpness of the
width: 500 saturates the sigmoid at once and ends at 8 % on MNIST where 10 ends at 4 (20,000
images, 6 epochs, measured by us on validation images); 1, of public code, ends at 8, too."""


@dataclass(frozen=True)
class SquareGoodness:
    """g = sharpness * mean of h^2 with h = max(y, 0); sigmoid(g - sharpness * threshold) is
    the probability of a positive, the loss the mean cross-entropy over both kinds."""

    threshold: float
    sharpness: float = SHARPNESS

    def value(self, y: Tensor) -> Tensor:
        return self.sharpness * y.clamp_min(0.0).square().mean(1)

    def slope(self, y: Tensor) -> Tensor:
        return 2 * self.sharpness / y.shape[1] * y.clamp_min(0.0)

    def loss(self, positive: Tensor, negative: Tensor) -> tuple[float, Tensor, Tensor]:
        n, middle = 2 * len(positive), self.sharpness * self.threshold
        above, below = positive - middle, middle - negative
        softplus = torch.nn.functional.softplus
        loss = float((softplus(-above).sum() + softplus(-below).sum()) / n)
        return loss, -(-above).sigmoid() / n, (-below).sigmoid() / n

    def passed_on(self, y: Tensor, scale: float) -> Tensor:  # noqa: ARG002
        """Only the direction of h, so that the next unit does not see the goodness."""
        even = length_normalised(y)
        return even / (1 + even)


def length_normalised(y: Tensor) -> Tensor:
    """h = max(y, 0) with a mean square of one per sample, (n, width)."""
    h = y.clamp_min(0.0)
    return h / h.square().mean(1, keepdim=True).sqrt().clamp_min(1e-8)


@dataclass(frozen=True)
class ForwardForward:
    """Every unit has much activity for a right label and little for a wrong one.

    threshold: of the mean square of h, one in public code. inner_steps: on the stored
    readings of a batch. beside: digital layers see the drive, too. An answer is the
    label of the largest goodness, summed over all units but the first if there are several.
    """

    threshold: float = 1.0
    inner_steps: int = 20
    beside: bool = True
    family: str = "forward-forward"
    own_head: bool = True
    needs_twin: bool = False

    def refusal(self, config: RunConfig) -> str | None:  # noqa: ARG002
        return None

    def train(self, task: Task) -> Learnt:
        units = task.network.units
        goodness = [SquareGoodness(self.threshold)] * len(units)
        counted = range(1, len(units)) if len(units) > 1 else range(1)
        return ContrastiveTraining(
            task, goodness, inner_steps=self.inner_steps, beside=self.beside, counted=counted
        ).run()


METHOD = ForwardForward()
