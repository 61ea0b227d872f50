"""Direct feedback alignment: the error at the logits, through one fixed random matrix.

Nokland, NeurIPS 2016, arXiv 1609.01596; one shared matrix sliced per layer as in Launay
et al., NeurIPS 2020, arXiv 2006.12878. Only the derivative of the digital part is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from twin.key import Key
from validation.baselines.chain import ChainRule, ThroughTwin
from validation.baselines.joint import JointTraining, Passed, direct, softmax_error
from validation.baselines.method import Learnt, Task, Twins
from validation.config import RunConfig


class Feedback:
    """Credit B e for every unit but the last, which gets the head's true gradient.

    B is Gaussian with variance 1 / widest unit: the columns of one shared
    matrix, each unit its first `width` rows.
    """

    passes_per_sample = 0

    def begin(self, task: Task, key: Key) -> None:
        widest = max(unit.width for unit in task.network.units)
        shape = (widest, task.data.classes)
        self._shared = torch.randn(shape, generator=key.torch()) * widest**-0.5

    def at_features(
        self,
        passed: Passed,
        error: Tensor,
        head: Tensor,
        key: Key,  # noqa: ARG002
    ) -> list[Tensor]:
        *_, last = direct(passed, error, head)
        return [error @ self._shared[: z.shape[1]].T for z in passed.features[:-1]] + [last]


def alignment(training: JointTraining, twins: Twins, rows: Tensor, key: Key) -> list[float]:
    """Angle, degrees, of each unit but the last between its credit and the chain rule's.

    training: begun or run, with `Feedback`. twins: of every unit but the first, for the
    truth. rows: training images of the batch, which goes through the physics once
    more and is counted. Below 90 degrees a step along the credit lowers the loss to
    first order (Nokland 2016). Compared are the batch's errors at the
    pre-activations, where both have met the same relu.
    """
    passed = training.forward(rows, key.child("forward"), again=True)
    head = training.head["weight"]
    error = softmax_error(training.logits(passed), training.labels[rows])
    truth = ChainRule(ThroughTwin())
    truth.begin(replace(training.task, twins=twins), key.child("truth"))
    pairs = zip(
        training.credit.at_features(passed, error, head, key.child("credit")),
        truth.at_features(passed, error, head, key.child("chain")),
        passed.pre_activations,
        strict=True,
    )
    angles = [angle(ours * (pre > 0), exact * (pre > 0)) for ours, exact, pre in pairs]
    return angles[:-1]


def angle(one: Tensor, other: Tensor) -> float:
    """Between two tensors as vectors, degrees; 90 if one of them is nothing."""
    size = float(one.norm() * other.norm())
    cosine = float((one * other).sum()) / size if size > 0 else 0.0
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine))))


@dataclass(frozen=True)
class FeedbackAlignment:
    """Direct feedback alignment of all units and the head together."""

    family: str = "dfa"
    own_head: bool = False
    needs_twin: bool = False

    def refusal(self, config: RunConfig) -> str | None:  # noqa: ARG002
        return None

    def train(self, task: Task) -> Learnt:
        return JointTraining(task, Feedback()).run()


METHOD = FeedbackAlignment()
