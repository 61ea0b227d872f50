"""Physical local learning (PhyLL): a contrastive method with a cosine goodness.

Momeni et al., Science 382, 1297 (2023), https://doi.org/10.1126/science.adi8474; the
equations, inner steps and theta below are those of its public code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twin.key import Key
from validation.baselines.contrast import ContrastiveTraining
from validation.baselines.method import Learnt, Task
from validation.config import RunConfig, UnitTable

THETA, THETA_OPTICS = 4.0, 5.0


@dataclass(frozen=True)
class CosineGoodness:
    """g = cos(abs(y), xi); loss = mean log(1 + exp(-theta (g+ - g-))).

    xi: (width,) fixed unit vector.
    """

    xi: Tensor
    theta: float

    def value(self, y: Tensor) -> Tensor:
        """(n,), within [-1, 1]; zero where all of y is."""
        return self._direction(y) @ self.xi

    def slope(self, y: Tensor) -> Tensor:
        across = self.xi - self.value(y)[:, None] * self._direction(y)
        return y.sign() * across / _length(y)

    def loss(self, positive: Tensor, negative: Tensor) -> tuple[float, Tensor, Tensor]:
        margin = self.theta * (positive - negative)
        by_margin = -(-margin).sigmoid() * self.theta / len(margin)
        loss = float(torch.nn.functional.softplus(-margin).mean())
        return loss, by_margin, -by_margin

    def passed_on(self, y: Tensor, scale: float) -> Tensor:
        """Into (0, 1), signs and sizes kept apart: one half is zero."""
        return 0.5 + 0.5 * (y / (2 * scale)).tanh()

    def _direction(self, y: Tensor) -> Tensor:
        return y.abs() / _length(y)


def _length(y: Tensor) -> Tensor:
    return y.norm(dim=1, keepdim=True).clamp_min(1e-12)


def cosine_goodness(width: int, theta: float, key: Key) -> CosineGoodness:
    """With a xi that is equally likely to point anywhere."""
    xi = torch.randn(width, generator=key.torch())
    return CosineGoodness(xi / xi.norm(), theta)


@dataclass(frozen=True)
class PhysicalLocalLearning:
    """Every unit tells images with their label from images with a wrong one.

    inner_steps: on the stored readings of a batch; published: 10 to 25. theta: None
    for the published 4, in optics 5. beside: digital layers see the drive, too.
    An answer is the label of the largest sum of goodness over all units.
    """

    inner_steps: int = 20
    theta: float | None = None
    beside: bool = True
    family: str = "phyll"
    own_head: bool = True
    needs_twin: bool = False

    def refusal(self, config: RunConfig) -> str | None:  # noqa: ARG002
        return None

    def train(self, task: Task) -> Learnt:
        units = task.network.units
        goodness = [
            cosine_goodness(unit.width, self._theta(table), task.lasting_key.child("xi", index))
            for index, (unit, table) in enumerate(zip(units, task.config.unit, strict=True))
        ]
        return ContrastiveTraining(
            task, goodness, inner_steps=self.inner_steps, beside=self.beside,
            counted=range(len(units)),
        ).run()  # fmt: skip

    def _theta(self, table: UnitTable) -> float:
        if self.theta is not None:
            return self.theta
        return THETA_OPTICS if table.backend == "optics" else THETA


METHOD = PhysicalLocalLearning()
