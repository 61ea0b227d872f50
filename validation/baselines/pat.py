"""Physics-aware training: measured forward pass, a twin's backward pass."""

from __future__ import annotations

from dataclasses import dataclass

from validation.baselines.chain import ChainRule, ThroughTwin
from validation.baselines.joint import JointTraining
from validation.baselines.method import Learnt, Task
from validation.config import RunConfig


@dataclass(frozen=True)
class PhysicsAware:
    """Wright et al., Nature 601, 549 (2022), https://doi.org/10.1038/s41586-021-04223-6."""

    family: str = "pat"
    own_head: bool = False
    needs_twin: bool = True

    def refusal(self, config: RunConfig) -> str | None:  # noqa: ARG002
        return None

    def train(self, task: Task) -> Learnt:
        return JointTraining(task, ChainRule(ThroughTwin())).run()


METHOD = PhysicsAware()
