"""Greedy methods: one unit after another by a local loss, the physics in the loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from pib.local import LocalTraining, Outcome
from pib.objective import Objective
from pib.plan import Plan
from pib.sampling import steps_per_epoch
from pib.train import Trainer
from validation.baselines.budget import Budget
from validation.baselines.joint import calibrations
from validation.baselines.lce import LocalCrossEntropy
from validation.baselines.method import Learnt, Task
from validation.config import RunConfig
from validation.experiment import build_plans, build_trainer

CALIBRATION = 500
"""Images by which the trainer ranges a device before its unit learns."""


@dataclass(frozen=True)
class Greedy:
    """One unit after another by a local loss, the physics in the loop.

    objective: makes a unit's loss, None for PIB's. rate: learning rate, None
    for each unit's own.
    """

    family: str
    objective: Callable[[], Objective] | None = None
    rate: Callable[[RunConfig], float] | None = None
    own_head: bool = False
    needs_twin: bool = False

    def refusal(self, config: RunConfig) -> str | None:  # noqa: ARG002
        return None

    def train(self, task: Task) -> Learnt:
        rate = None if self.rate is None else self.rate(task.config)
        plans = build_plans(task.config, self.objective, rate)
        kind = Trainer
        if task.budget is not None and task.budget.ceiling is not None:
            plans, kind = within(task, plans, task.budget), Unwatched
        trainer = build_trainer(
            task.network, task.data, plans, key=task.key.child("train"), kind=kind
        )
        # Records cost a spectrum and probes cost passes; a point shows neither.
        trainer.RECORDS_PER_UNIT = trainer.PROBES_PER_UNIT = 0
        if task.upstream is not None:
            task.upstream.go_on(trainer)
        while not trainer.finished:
            unit = trainer.unit_index
            trainer.advance()
            if task.upstream is not None and trainer.unit_index > unit:
                task.upstream.unit_ended(trainer)
        return Learnt(trainer.measured)


def within(task: Task, plans: list[Plan], budget: Budget) -> list[Plan]:
    """The plans with the comparison's rate, batch and dropout, as long as passes allow.

    Fixed physics is captured once per image, and again, evenly over the epochs, as
    often as the ceiling allows: fresh noise. A written unit takes as many steps as
    its equal share of what is left gives. Raises ConfigError if nothing is left for
    a step.
    """
    hyper, units = task.config.compare, task.network.units
    batch = min(hyper.batch, len(task.data.train[1]))
    plans = [
        replace(plan, rate=hyper.rate, batch=batch, recapture="never",
                record_dropout=hyper.dropout if unit.fixed_physics else 0.0)
        for unit, plan in zip(units, plans, strict=True)
    ]  # fmt: skip
    if all(unit.fixed_physics for unit in units):
        return _captured_again(task, plans, budget)
    return _written(task, plans, budget)


def _captured_again(task: Task, plans: list[Plan], budget: Budget) -> list[Plan]:
    """As many captures of each unit as passes allow, spread evenly; epochs are moved to
    a multiple of the captures."""
    labels = task.data.train[1]
    count = len(labels)
    reserve = min(CALIBRATION, count) * len(plans)
    left = budget.steps(count, reserve=reserve, wished=0)
    if left < len(plans):
        budget.steps(count * len(plans), reserve=reserve, wished=0)
    per_epoch, found = steps_per_epoch(labels, plans[0].batch), []
    for plan, captures in zip(plans, rounds(left, len(plans)), strict=True):
        epochs = plan.epochs if plan.steps is None else math.ceil(plan.steps / per_epoch)
        every = max(1, round(epochs / captures))
        found.append(replace(
            plan, steps=None, epochs=epochs if captures == 1 else captures * every,
            recapture="never" if captures == 1 else "epoch", recapture_every=every,
        ))  # fmt: skip
    return found


def rounds(left: int, units: int) -> list[int]:
    """How often each of some units is captured within `left` captures of all images.

    The first capture of a unit is one pass per image; every further one measures all
    units before it anew. Shared as equally as can be.
    """
    found, left = [1] * units, left - units
    while affordable := [i for i in range(units) if i < left]:
        least = min(affordable, key=lambda i: found[i])
        found[least] += 1
        left -= least + 1
    return found


def _written(task: Task, plans: list[Plan], budget: Budget) -> list[Plan]:
    """Equal shares of the passes for all written units; fixed ones are captured once."""
    labels, units = task.data.train[1], task.network.units
    count, some = len(labels), min(CALIBRATION, len(labels))
    classes = len(labels.unique())
    batch = max(1, plans[0].batch // classes) * classes
    needed = [count + some * calibrations(task, i) for i in range(len(units))]
    ranging = [batch * calibrations(task, i) for i in range(len(units))]
    written = [i for i, unit in enumerate(units) if not unit.fixed_physics]
    # The converters are ranged once more after the last step.
    reserve = sum(needed) + sum(ranging[i] for i in written)
    share = budget.steps(len(written), reserve=reserve, wished=0)
    per_epoch, found = steps_per_epoch(labels, batch), list(plans)
    for i in written:
        per_step = batch + ranging[i] / plans[i].range_every
        steps = int(share / per_step)
        if steps < 1:
            budget.steps(per_step * len(written), reserve=reserve, wished=0)
        found[i] = replace(plans[i], steps=steps, epochs=max(1, round(steps / per_epoch)))
    return found


class Unwatched(Trainer):
    """A trainer that records nothing and, above all, tries nothing by passes."""

    def _note(self, local: LocalTraining, outcome: Outcome) -> None:  # noqa: ARG002
        self.last = outcome.verdict


PIB = Greedy("pib")
LCE = Greedy("lce", LocalCrossEntropy, lambda config: config.references.local_cross_entropy_rate)
