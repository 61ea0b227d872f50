"""The training methods that a study can name, behind one small interface.

A method gets an untrained network whose devices stand as the point says (dials
turned, nothing written) and leaves it trained; further methods join METHODS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pib.augment import Augment
from pib.network import Network
from pib.objective import Objective
from pib.readout import Readout
from pib.sampling import draw
from pib.train import Trainer
from pib.unit import DigitalLayerUnit
from twin.errors import Unsupported
from twin.key import Key
from validation.baselines.backprop import (
    BackpropPlan,
    DigitalNet,
    Inputs,
    measured_on_chip,
    train_backprop,
)
from validation.baselines.lce import LocalCrossEntropy
from validation.config import RunConfig
from validation.experiment import Tensors, build_plans, build_trainer


class Upstream(Protocol):
    """Units that other points have trained, or will ask for."""

    def go_on(self, trainer: Trainer) -> None:
        """Put the trainer behind the last unit that is known, if any."""

    def unit_ended(self, trainer: Trainer) -> None:
        """Keep the unit that has just been trained."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to train. key: of the run. upstream: None if nothing is shared."""

    config: RunConfig
    network: Network
    data: Tensors
    key: Key
    upstream: Upstream | None = None


@dataclass(frozen=True)
class Learnt:
    """What a method leaves besides the network.

    measured: features (n, width) of the training images, one tensor per unit.
    head: its own classifier on the features of all units, where it has one.
    """

    measured: list[Tensor]
    head: Readout | None = None


class Method(Protocol):
    """One way to train a network.

    family: methods of one family train alike and share what they trained.
    own_head: the accuracy is that of the method's own classifier, not of a
    readout on measured features.
    """

    @property
    def family(self) -> str: ...

    @property
    def own_head(self) -> bool: ...

    def refusal(self, config: RunConfig) -> str | None:
        """Why this network cannot be trained this way; None if it can."""

    def train(self, task: Task) -> Learnt: ...


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

    def refusal(self, config: RunConfig) -> str | None:  # noqa: ARG002
        return None

    def train(self, task: Task) -> Learnt:
        rate = None if self.rate is None else self.rate(task.config)
        plans = build_plans(task.config, self.objective, rate)
        trainer = build_trainer(task.network, task.data, plans, key=task.key.child("train"))
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


@dataclass(frozen=True)
class Backprop:
    """Backpropagation of the same digital net in the computer, then deployed.

    Behind a scattering unit the net learns on frames measured once. own_head:
    with the net's own head, else with a readout retrained on measured features.
    """

    own_head: bool
    family: str = "backprop"

    def refusal(self, config: RunConfig) -> str | None:
        if all(unit.kind == "isomorphic" for unit in config.unit[1:]):
            return None
        return (
            "backpropagation cannot pass the physics of a second broken-isomorphism unit, so "
            "there is no layer to deploy behind it. Leave the method out, or use pib or lce"
        )

    def train(self, task: Task) -> Learnt:
        config, key = task.config, task.key
        plan = BackpropPlan(
            epochs=sum(unit.epochs for unit in config.unit),
            rate=config.references.backprop_rate,
            batch=config.training.batch,
            warm_up=config.training.warm_up,
            augment=Augment(**config.augment.model_dump()),
            input_dropout=config.unit[0].record_dropout,
        )
        widths = [unit.outputs for unit in config.unit]
        net = train_backprop(
            _inputs(task), widths, task.data.classes, plan, config.network.skip,
            key.child("backprop"),
        )  # fmt: skip
        images = task.data.train[0]
        measured = measured_on_chip(net, task.network, images, key=key.child("deploy"))
        return Learnt(measured, _head(net))


@dataclass(frozen=True)
class Untrained:
    """The network as drawn, written and ranged: only a readout learns."""

    family: str = "readout"
    own_head: bool = False

    def refusal(self, config: RunConfig) -> str | None:  # noqa: ARG002
        return None

    def train(self, task: Task) -> Learnt:
        network, key, images = task.network, task.key, task.data.train[0]
        some, before = images[draw(len(images), 500, key.child("some"))], None
        for index, unit in enumerate(network.units):
            unit.deploy(key.child("untrained", index))
            unit.calibrate(network.drive(index, some, before), key=key.child("range", index))
            before = network.features(some, key=key.child("link", index), until=index + 1)[-1]
            network.calibrate_link(index, before)
        return Learnt(network.features(images, key=key.child("measure"), phase="capture"))


def _inputs(task: Task) -> Inputs:
    """What the digital net learns on: the images, or frames of this very device."""
    images, labels = task.data.train
    unit = task.network.units[0]
    if not isinstance(unit, DigitalLayerUnit):
        shape = task.data.shape
        return Inputs(first=images, beside=images, labels=labels, image_shape=shape)
    some = draw(len(images), 500, task.key.child("some"))
    unit.calibrate(images[some], key=task.key.child("calibrate"))
    record = unit.capture(images, key=task.key.child("frames", "train"), phase="capture")
    return Inputs(first=unit.standardised(record), beside=images, labels=labels)


def _head(net: DigitalNet) -> Readout:
    """The net's own head as a readout on the features of all units."""
    weight, bias = (t.detach().clone() for t in net.head)
    width = len(weight)
    return Readout(mean=torch.zeros(width), scale=torch.ones(width), weight=weight, bias=bias)


METHODS: Mapping[str, Method] = {
    "pib": Greedy("pib"),
    "lce": Greedy(
        "lce", LocalCrossEntropy, lambda config: config.references.local_cross_entropy_rate
    ),
    "backprop": Backprop(own_head=True),
    "backprop-retrained": Backprop(own_head=False),
    "readout": Untrained(),
}


def require(method: Method, config: RunConfig, base: str) -> None:
    """Unsupported if the method cannot train the network of `config`."""
    reason = method.refusal(config)
    if reason is not None:
        raise Unsupported(f"{base}: {reason}.")
