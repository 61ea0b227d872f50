"""What contrastive methods share: labels shown in the image, local losses on pairs, the judge.

An image with its own label is a positive, with a wrong one a negative. Every unit
learns alone to tell them apart, by a goodness of what it computed. All devices are
in the loop of every batch: a pair costs two passes per unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pib.network import Network
from pib.rule import warmed_cosine
from pib.unit import DigitalLayerUnit, Record, Unit, he_layer
from twin.errors import ConfigError
from twin.key import Key
from twin.ledger import Cost
from validation.baselines.joint import MOMENTUM, standardise
from validation.baselines.method import Learnt, Task

CHUNK = 2048


def embedded(images: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Images (n, pixels) whose first `classes` pixels are black but for the label's, 1.0.

    1.0 is the brightest that an image in [0, 1] can be. What was in those pixels is lost.
    """
    if images.shape[1] <= classes:
        raise ConfigError(
            f"an image of {images.shape[1]} pixels has no room for one of {classes} labels "
            "beside itself; contrastive methods need more pixels than classes."
        )
    shown = images.clone()
    shown[:, :classes] = 0.0
    shown[torch.arange(len(labels)), labels] = 1.0
    return shown


def wrong_labels(labels: Tensor, classes: int, key: Key) -> Tensor:
    """For each label one of the others, all equally likely."""
    away = torch.randint(1, classes, labels.shape, generator=key.torch())
    return (labels + away) % classes


class Goodness(Protocol):
    """How a unit that computed y (n, width) is judged, and what it passes on."""

    def value(self, y: Tensor) -> Tensor:
        """One number per sample, (n,)."""

    def slope(self, y: Tensor) -> Tensor:
        """d value / d y, (n, width)."""

    def loss(self, positive: Tensor, negative: Tensor) -> tuple[float, Tensor, Tensor]:
        """Loss of the values of pairs (n,), and its derivatives by both."""

    def passed_on(self, y: Tensor, scale: float) -> Tensor:
        """For the next unit's drive, within [0, 1]. scale: r.m.s. value of recent y."""


class Layer(Protocol):
    """Computes y of a unit; its gradient is the outer product of `seen` and d loss / d y."""

    parameters: dict[str, Tensor]

    def seen(self, unit: Unit, record: Record) -> Tensor: ...

    def y(self, unit: Unit, record: Record) -> Tensor: ...


class BesideDrive:
    """A digital layer on [standardised reading ; drive] of a unit with fixed physics.

    beside: False leaves the drive out. The unit's own layer has another shape and rests.
    """

    def __init__(self, unit: DigitalLayerUnit, key: Key, *, beside: bool = True) -> None:
        (reading,), (drive,) = unit.fence.reading_port.shape, unit.fence.drive_port.shape
        self.parameters = he_layer(reading + drive * beside, unit.width, key)
        self._beside = beside

    def seen(self, unit: Unit, record: Record) -> Tensor:
        assert isinstance(unit, DigitalLayerUnit)
        reading = unit.standardised(record)
        return torch.cat([reading, record.drive], 1) if self._beside else reading

    def y(self, unit: Unit, record: Record) -> Tensor:
        return self.of(self.seen(unit, record))

    def of(self, seen: Tensor) -> Tensor:
        return torch.addmm(self.parameters["bias"], seen, self.parameters["weight"])


class Written:
    """The product that a programmable unit measures, plus its bias."""

    def __init__(self, unit: Unit) -> None:
        self.parameters = unit.parameters

    def seen(self, unit: Unit, record: Record) -> Tensor:  # noqa: ARG002
        return record.drive

    def y(self, unit: Unit, record: Record) -> Tensor:
        return unit.pre_activation(record)


@dataclass
class Part:
    """The digital side of one unit. scale: r.m.s. value of y of recent batches, 0 before any."""

    layer: Layer
    goodness: Goodness
    scale: float = 0.0

    def follow(self, y: Tensor) -> None:
        now = float(y.square().mean().sqrt()) + 1e-12
        self.scale = now if self.scale == 0 else (1 - MOMENTUM) * self.scale + MOMENTUM * now


def pair_gradient(goodness: Goodness, seen: Tensor, y: Tensor) -> tuple[float, dict[str, Tensor]]:
    """Loss of a batch and its gradient by weight and bias.

    seen (2n, inputs), y (2n, width): n positives, then their n negatives. y need not be
    seen @ weight + bias to the bit: a device computes it.
    """
    value, slope = goodness.value(y), goodness.slope(y)
    positive, negative = value.tensor_split(2)
    loss, by_positive, by_negative = goodness.loss(positive, negative)
    at_y = slope * torch.cat([by_positive, by_negative])[:, None]
    return loss, {"weight": seen.T @ at_y, "bias": at_y.sum(0)}


@dataclass(frozen=True)
class ByGoodness:
    """Shows every label with the image and answers the one of most goodness.

    counted: the units whose goodness is added. Costs `classes` passes per image and unit.
    """

    network: Network
    parts: Sequence[Part]
    classes: int
    counted: Sequence[int]

    def __call__(self, images: Tensor, *, key: Key, phase: str) -> Tensor:
        return self.scores(images, key=key, phase=phase).argmax(1)

    def scores(self, images: Tensor, *, key: Key, phase: str) -> Tensor:
        """The sum of goodness for every label, (n, classes)."""
        found = torch.zeros(len(images), self.classes)
        for start in range(0, len(images), CHUNK):
            some = images[start : start + CHUNK]
            for label in range(self.classes):
                here = key.child("label", label)
                found[start : start + CHUNK, label] = self._sum(some, label, here, start, phase)
        return found

    def _sum(self, images: Tensor, label: int, key: Key, start: int, phase: str) -> Tensor:
        total, before = torch.zeros(len(images)), None
        shown = embedded(images, torch.full((len(images),), label), self.classes)
        for index, (unit, part) in enumerate(zip(self.network.units, self.parts, strict=True)):
            drive = self.network.drive(index, shown, before)
            record = unit.capture(drive, key=key.child(unit.name), first_sample=start, phase=phase)
            y = part.layer.y(unit, record)
            if index in self.counted:
                total += part.goodness.value(y)
            before = part.goodness.passed_on(y, part.scale)
        return total


class ContrastiveTraining:
    """All units of a network learn on every batch, each by its own local loss.

    inner_steps: Adam steps of a digital layer on the stored readings of one batch. A
    written unit takes one: what it would compute after it is not known until it is
    written and measured again. Readings are fresh in every epoch.
    """

    def __init__(
        self, task: Task, goodness: Sequence[Goodness], *, inner_steps: int,
        beside: bool, counted: Sequence[int],
    ) -> None:  # fmt: skip
        self.task, self.network, self.hyper = task, task.network, task.config.compare
        self.images, self.labels = task.data.train
        self._batch, self._inner = min(self.hyper.batch, len(self.labels)), inner_steps
        self._counted = counted
        self.parts = [
            Part(layer_of(unit, task.key.child("layer", index), beside), good)
            for index, (unit, good) in enumerate(zip(self.network.units, goodness, strict=True))
        ]
        if task.start is not None and isinstance(task.start.judge, ByGoodness):
            self.parts = list(task.start.judge.parts)
        self._optimisers = [
            torch.optim.Adam(list(part.layer.parameters.values()), lr=self.hyper.rate, fused=True)
            for part in self.parts
        ]
        # What is passed on lies in [0, 1] already.
        self.network.scales = [1.0] * len(self.network.units)

    def run(self) -> Learnt:
        """Train until the budget is spent; without one, the units' epochs together."""
        steps = self._plan()
        losses = [self._step(step, steps) for step in range(steps)]
        end = losses[-max(1, steps // 10) :]
        notes = {"training_steps": float(steps)}
        for index in range(len(self.parts)):
            notes[f"loss_unit_{index + 1}"] = sum(one[index] for one in end) / len(end)
        judge = ByGoodness(self.network, self.parts, self.task.data.classes, self._counted)
        return Learnt([], judge=judge, notes=notes)

    def _plan(self) -> int:
        ranging = sum(
            # Finding the columns that never change is a pass of its own.
            2 * self._batch * (unit.fence.capabilities.rangeable + table.mask_constant)
            for unit, table in zip(self.network.units, self.task.config.unit, strict=True)
            if not unit.fixed_physics
        )
        per_step = (
            2 * self._batch * len(self.parts) + ranging / self.task.config.training.range_every
        )
        wished = sum(u.epochs for u in self.task.config.unit) * (len(self.labels) // self._batch)
        # Written units are ranged at the start and at the end, too.
        return self.task.allowance.steps(per_step, reserve=2 * ranging, wished=wished)

    def _step(self, step: int, steps: int) -> list[float]:
        here = self.task.key.child("step", step)
        rate = warmed_cosine(step, steps, self.hyper.rate, self.task.config.training.warm_up)
        shown, before, losses = self._pairs(step, here), None, []
        for index, (unit, part) in enumerate(zip(self.network.units, self.parts, strict=True)):
            drive = self.network.drive(index, shown, before)
            if step == 0:
                self._write(index, drive, here.child("first"), ranging=True)
            record = unit.capture(drive, key=here.child("read", index))
            if isinstance(unit, DigitalLayerUnit):
                # Nothing before the first unit changes: a plain mean over the batches.
                follow = MOMENTUM if index > 0 else 0.0
                standardise(unit, record.values, share=max(1 / (step + 1), follow))
            self._optimisers[index].param_groups[0]["lr"] = rate
            loss, y = self._learn(index, record, here.child("dropout", index))
            losses.append(loss)
            part.follow(y)
            before = part.goodness.passed_on(y, part.scale)
            due = step + 1 == steps or (step + 1) % self.task.config.training.range_every == 0
            self._write(index, drive, here.child("write"), ranging=due)
        return losses

    def _pairs(self, step: int, here: Key) -> Tensor:
        """Positives, then their negatives, (2 batch, pixels)."""
        epoch, which = divmod(step, len(self.labels) // self._batch)
        shuffled = torch.randperm(
            len(self.labels), generator=self.task.key.child("epoch", epoch).torch()
        )
        rows = shuffled[which * self._batch : (which + 1) * self._batch]
        images, labels, classes = self.images[rows], self.labels[rows], self.task.data.classes
        wrong = wrong_labels(labels, classes, here.child("wrong"))
        return torch.cat([embedded(images, labels, classes), embedded(images, wrong, classes)])

    def _learn(self, index: int, record: Record, key: Key) -> tuple[float, Tensor]:
        """Adam steps of one unit on one batch; the loss before them and y to pass on."""
        unit, part = self.network.units[index], self.parts[index]
        seen = part.layer.seen(unit, record)
        if isinstance(part.layer, BesideDrive):
            return self._learn_inside(index, seen, part.layer, record.values.shape[1], key)
        y = part.layer.y(unit, record)
        loss, gradients = pair_gradient(part.goodness, seen, y)
        self._update(index, gradients, len(seen))
        return loss, y

    def _learn_inside(
        self, index: int, seen: Tensor, layer: BesideDrive, reading: int, key: Key
    ) -> tuple[float, Tensor]:
        goodness, losses = self.parts[index].goodness, []
        for inner in range(self._inner):
            some = self._dropped(seen, reading, key.child(inner))
            loss, gradients = pair_gradient(goodness, some, layer.of(some))
            self._update(index, gradients, len(seen))
            losses.append(loss)
        return losses[0], layer.of(seen)

    def _dropped(self, seen: Tensor, reading: int, key: Key) -> Tensor:
        """Dropped pixels show their mean, zero once standardised; the rest is stretched.

        A negative loses what its positive does, so that the label makes the difference.
        """
        if not self.hyper.dropout:
            return seen
        keep = 1 - self.hyper.dropout
        kept = (torch.rand(len(seen) // 2, reading, generator=key.torch()) < keep) / keep
        return torch.cat([seen[:, :reading] * kept.repeat(2, 1), seen[:, reading:]], 1)

    def _update(self, index: int, gradients: dict[str, Tensor], samples: int) -> None:
        parameters = self.parts[index].layer.parameters
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
        self._optimisers[index].step()
        fence = self.network.units[index].fence
        work = 2 * samples * parameters["weight"].numel()
        fence.ledger.add(fence.name, "train", Cost(digital_operations=work))

    def _write(self, index: int, drive: Tensor, here: Key, *, ranging: bool) -> None:
        unit = self.network.units[index]
        if unit.fixed_physics:
            return
        unit.deploy(here.child(index), whole=False)
        if ranging:
            unit.calibrate(drive, key=here.child("range", index))


def layer_of(unit: Unit, key: Key, beside: bool) -> Layer:
    """What computes y of a unit."""
    if isinstance(unit, DigitalLayerUnit):
        return BesideDrive(unit, key, beside=beside)
    return Written(unit)
