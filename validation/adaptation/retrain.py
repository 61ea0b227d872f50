"""Retraining of a network that was trained before, from some unit on, warm.

The trainer of `pib.train` is put behind the units that stay: their features
are measured anew, and the others start from the weights they have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pib.network import Network
from pib.objective import Objective
from pib.plan import Plan
from pib.readout import Readout
from pib.sampling import draw
from pib.train import Trainer
from twin.errors import ConfigError
from twin.key import Key
from validation.config import RunConfig
from validation.experiment import (
    Tensors,
    build_plans,
    build_trainer,
    fit_readout,
    seen_by_readout,
)

RANGING_IMAGES = 500


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a unit is retrained. All choices are ours.

    passes: over the training images, of each unit that is retrained; below one
    that share of the images is shown once, and a readout learns on them only.
    objective, rate: None for PIB's and each unit's own. factor: on the rate.
    batch: at most; fewer images are shown in at least MIN_STEPS batches.
    """

    passes: float
    objective: Callable[[], Objective] | None = None
    rate: float | None = None
    factor: float = 1.0

    MIN_STEPS = 20

    def __post_init__(self) -> None:
        if not self.passes > 0:
            raise ConfigError(f"passes: must be > 0, got {self.passes}.")
        if self.passes > 1 and self.passes != round(self.passes):
            raise ConfigError(f"passes: above one a whole number, got {self.passes}.")

    def plans(self, config: RunConfig, images: int, classes: int) -> list[Plan]:
        """One per unit, for so many images."""
        return [
            self._plan(plan, images, classes)
            for plan in build_plans(config, self.objective, self.rate)
        ]

    def _plan(self, plan: Plan, images: int, classes: int) -> Plan:
        epochs = max(1, round(self.passes))
        # Two of a class at least, or the loss sees no pairs.
        share = max(2, min(plan.batch, images * epochs // self.MIN_STEPS) // classes)
        batch = share * classes
        steps = epochs * max(1, images // batch)
        return replace(
            plan,
            epochs=epochs,
            rate=plan.rate * self.factor,
            batch=batch,
            warm_up=max(1, min(plan.warm_up, steps // 5)),
        )


def some_of(data: Tensors, passes: float, key: Key) -> Tensors:
    """The training images that `passes` allow: all, or a share of every class."""
    if passes >= 1:
        return data
    images, labels = data.train
    picked = []
    for label in torch.unique(labels):
        rows = (labels == label).nonzero()[:, 0]
        count = max(4, round(passes * len(rows)))
        picked.append(rows[draw(len(rows), count, key.child("class", int(label)))])
    rows = torch.cat(picked).sort().values
    return replace(data, train=(images[rows], labels[rows]))


def judged_on(data: Tensors, tests: int | None) -> Tensors:
    """The same data with so many test images, drawn once for all; None: all."""
    images, labels = data.test
    if tests is None or tests >= len(labels):
        return data
    rows = draw(len(labels), tests, Key(0).child("tests"))
    return replace(data, test=(images[rows], labels[rows]))


def retrained(
    config: RunConfig, network: Network, data: Tensors, recipe: Recipe, *, first: int, key: Key
) -> list[Tensor]:
    """Retrain unit `first` and those after it; measured features of data.train by unit.

    data: what the passes allow (see :func:`some_of`). No gradient passes a
    unit; those before `first` are measured, not changed.
    """
    images, labels = data.train
    plans = recipe.plans(config, len(images), len(torch.unique(labels)))
    trainer = warm_trainer(network, data, plans, first=first, key=key)
    trainer.RECORDS_PER_UNIT = trainer.PROBES_PER_UNIT = 0
    return trainer.run()


def warm_trainer(
    network: Network, data: Tensors, plans: list[Plan], *, first: int, key: Key
) -> Trainer:
    """A trainer behind the units before `first`, which count as trained."""
    if not 0 <= first < len(network.units):
        raise ConfigError(f"unit: expected 0 to {len(network.units) - 1}, got {first}.")
    trainer = build_trainer(network, data, plans, key=key)
    if first:
        trainer.measured = network.features(
            data.train[0], key=key.child("before"), until=first, phase="capture"
        )
        trainer.unit_index = first
    return trainer


def tended(network: Network, images: Tensor, key: Key) -> None:
    """Range every unit anew on some images; units that mask find dead columns."""
    some, before = images[draw(len(images), RANGING_IMAGES, key.child("some"))], None
    for index, unit in enumerate(network.units):
        here = key.child("tend", index)
        unit.calibrate(network.drive(index, some, before), key=here, phase="capture")
        before = network.features(some, key=here, until=index + 1, phase="capture")[-1]


def classifier(
    config: RunConfig, measured: list[Tensor], data: Tensors, key: Key, factor: float = 1.0
) -> Readout:
    """The configured readout on measured features of data.train; factor: on its rate."""
    table = config.readout.model_copy(update={"rate": config.readout.rate * factor})
    config = config.model_copy(update={"readout": table})
    seen = seen_by_readout(config, measured)
    return fit_readout(config, seen, data.train[1], data.classes, key=key)


def judged(
    config: RunConfig, network: Network, readout: Readout, part: tuple[Tensor, Tensor], key: Key
) -> float:
    """Accuracy in [0, 1] on freshly measured features of (images, labels)."""
    features = network.features(part[0], key=key, phase="evaluate")
    return readout.accuracy(seen_by_readout(config, features), part[1])
