"""Backpropagation in the computer, then written onto the devices."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pib.augment import Augment
from pib.network import Network
from pib.readout import Readout
from pib.sampling import draw
from pib.unit import DigitalLayerUnit
from validation.baselines.backprop import (
    BackpropPlan,
    DigitalNet,
    Inputs,
    measured_on_chip,
    train_backprop,
)
from validation.baselines.chain import ChainRule, ThroughTwin
from validation.baselines.joint import JointTraining
from validation.baselines.method import Learnt, Task, Twins
from validation.baselines.twinnet import count_digital, deploy, measure, twin_network, twin_task
from validation.baselines.twins import has_twin, twins_for
from validation.config import CompareTable, RunConfig


@dataclass(frozen=True)
class Backprop:
    """Backpropagation in the computer, then deployed.

    Under a ceiling of passes, through a wrong twin, or behind a second medium: through
    twins of all units with their noise; their mistakes become the network's.
    Elsewhere: of the same digital net; behind a scattering unit it learns on frames
    measured once. own_head: with the net's own head, else with a readout retrained on
    measured features.
    """

    own_head: bool
    family: str = "backprop"
    needs_twin: bool = True

    def refusal(self, config: RunConfig) -> str | None:
        if not _through_twins(config):
            return None
        if config.compare == CompareTable():
            # A study of devices names no twin, so that none is looked into unasked.
            return (
                "backpropagation cannot pass the physics of a second broken-isomorphism unit, so "
                "there is no layer to deploy behind it. Leave the method out, use pib or lce, or "
                "set compare.passes_per_image to train through twins"
            )
        if all(map(has_twin, config.unit)):
            return None
        return (
            "backpropagation in a computer needs a model of every device, and there is none of a "
            "fixed physics other than optics. Use pib, lce or dfa"
        )

    def train(self, task: Task) -> Learnt:
        if task.start is not None:
            return self._again(task, task.start)
        return self._on_twins(task) if _through_twins(task.config) else _digital(task)

    def _again(self, task: Task, start: Learnt) -> Learnt:
        """What was written once stays; ranging and the readout are done anew."""
        deploy(task, task.network)
        return Learnt([] if self.own_head else measure(task), start.head)

    def _on_twins(self, task: Task) -> Learnt:
        twins = task.twins or twins_for(task.config, task.network, task.key)
        network = twin_network(task, twins)
        try:
            learnt = JointTraining(twin_task(task, network, twins), ChainRule(ThroughTwin())).run()
            deploy(task, network)
            count_digital(task, network)
        finally:
            network.close()
        measured = [] if self.own_head else measure(task)
        return Learnt(measured, learnt.head, notes={**learnt.notes, **noted(twins, network)})


def _through_twins(config: RunConfig) -> bool:
    """Whether the net is trained through models of the devices."""
    compare = config.compare
    known = (compare.twin, compare.twin_error) == ("known", 0.0)
    plain = all(unit.kind == "isomorphic" for unit in config.unit[1:])
    return compare.passes_per_image is not None or not known or not plain


def noted(twins: Twins, network: Network) -> dict[str, float]:
    """What fits of the twins had to say, by unit: "twin_correlation_unit_1"."""
    found: dict[str, float] = {}
    for index in range(len(network.units)):
        notes = getattr(twins(index), "notes", {})
        found |= {f"{name}_unit_{index + 1}": value for name, value in notes.items()}
    return found


# ---- without twins -------------------------------------------------------------


def _digital(task: Task) -> Learnt:
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


OWN_HEAD, RETRAINED = Backprop(own_head=True), Backprop(own_head=False)
