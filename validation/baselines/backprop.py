"""The digital rival: the same topology trained by backpropagation in a computer.

Its weights can then be deployed on the same chip, with its own head or with a
readout retrained on measured features. Only here is autograd used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pib.augment import Augment
from pib.network import Network
from pib.rule import warmed_cosine
from pib.sampling import draw
from pib.unit import Unit, feature
from twin.key import Key


@dataclass(frozen=True, kw_only=True)
class BackpropPlan:
    """epochs: image passes, equal to what PIB's units had together."""

    epochs: int
    rate: float = 3e-3
    batch: int = 250
    warm_up: int = 50
    augment: Augment = Augment()  # noqa: RUF009 - frozen
    input_dropout: float = 0.0


@dataclass(frozen=True)
class DigitalNet:
    """relu layers in a row, skip connections, a head on all features.

    layers: (weight, bias) of each unit; a later layer sees [feature before it,
    skip input] if skip, else the feature. head: (weight, bias).
    """

    layers: list[tuple[Tensor, Tensor]]
    head: tuple[Tensor, Tensor]
    skip: bool

    def features(self, first: Tensor, beside: Tensor) -> list[Tensor]:
        """Features of each layer; first: input of layer 1, beside: the skip."""
        found: list[Tensor] = []
        for weight, bias in self.layers:
            if not found:
                drive = first
            else:
                drive = torch.cat([found[-1], beside], 1) if self.skip else found[-1]
            found.append(torch.relu(torch.addmm(bias, drive, weight)))
        return found

    def logits(self, first: Tensor, beside: Tensor) -> Tensor:
        weight, bias = self.head
        return torch.addmm(bias, torch.cat(self.features(first, beside), 1), weight)

    def head_accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Accuracy of the net's own head on features measured elsewhere."""
        weight, bias = self.head
        guess = torch.addmm(bias, features, weight).argmax(1)
        return float((guess == labels).double().mean())

    def accuracy(self, first: Tensor, beside: Tensor, labels: Tensor) -> float:
        with torch.no_grad():
            guess = self.logits(first, beside).argmax(1)
        return float((guess == labels).double().mean())


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the digital net sees: `first` feeds layer 1, `beside` the later ones.

    For a memristor network both are the images; behind an optical unit they
    are its standardised frames. image_shape: (rows, columns) where both are the
    images, which may then be augmented; None for frames.
    """

    first: Tensor
    beside: Tensor
    labels: Tensor
    image_shape: tuple[int, ...] | None = None


def train_backprop(
    inputs: Inputs, widths: Sequence[int], classes: int, plan: BackpropPlan, skip: bool, key: Key
) -> DigitalNet:
    """Cross-entropy, Adam, warm-up and cosine; He start.

    Augmentation applies where layer 1 sees the images themselves; dropout
    with stretching applies to what it sees otherwise.
    """
    net = _start(inputs, widths, classes, skip, key)
    tensors = [t for pair in [*net.layers, net.head] for t in pair]
    for tensor in tensors:
        tensor.requires_grad_(True)
    optimiser = torch.optim.Adam(tensors, lr=plan.rate, fused=True)
    same = inputs.first is inputs.beside
    batch = min(plan.batch, len(inputs.labels))
    per_epoch = len(inputs.labels) // batch
    for epoch in range(plan.epochs):
        order = torch.randperm(len(inputs.labels), generator=key.child("epoch", epoch).torch())
        for i in range(per_epoch):
            rows = order[i * batch : (i + 1) * batch]
            here = key.child("step", epoch, i)
            first = inputs.first[rows]
            if inputs.image_shape is not None:
                first = plan.augment(first, inputs.image_shape, here.child("augment"))
            if plan.input_dropout:
                first = _dropped(first, plan.input_dropout, here.child("dropout"))
            beside = first if same else inputs.beside[rows]
            with torch.enable_grad():
                loss = torch.nn.functional.cross_entropy(
                    net.logits(first, beside), inputs.labels[rows]
                )
            grads = torch.autograd.grad(loss, tensors)
            for tensor, grad in zip(tensors, grads, strict=True):
                tensor.grad = grad
            optimiser.param_groups[0]["lr"] = warmed_cosine(
                epoch * per_epoch + i, plan.epochs * per_epoch, plan.rate, plan.warm_up
            )
            optimiser.step()
    for tensor in tensors:
        tensor.requires_grad_(False)
        tensor.grad = None
    return net


def _start(inputs: Inputs, widths: Sequence[int], classes: int, skip: bool, key: Key) -> DigitalNet:
    layers, before = [], inputs.first.shape[1]
    for i, width in enumerate(widths):
        generator = key.child("start", i).torch()
        weight = torch.randn(before, width, generator=generator) * (2.0 / before) ** 0.5
        layers.append((weight, torch.zeros(width)))
        before = width + (inputs.beside.shape[1] if skip else 0)
    total = sum(widths)
    head = torch.randn(total, classes, generator=key.child("head").torch()) * total**-0.5
    return DigitalNet(layers, (head, torch.zeros(classes)), skip)


def _dropped(values: Tensor, probability: float, key: Key) -> Tensor:
    keep = 1 - probability
    return values * (torch.rand(values.shape, generator=key.torch()) < keep) / keep


def measured_on_chip(
    net: DigitalNet, network: Network, images: Tensor, *, key: Key
) -> list[Tensor]:
    """Write a digital net onto the units; all units' features of `images`.

    Devices are written and ranged once. Fixed physics keeps its digital layer,
    which reads the measured frames.
    """
    measured: list[Tensor] = []
    some = draw(len(images), 500, key.child("some"))
    for index, (unit, (weight, bias)) in enumerate(zip(network.units, net.layers, strict=True)):
        weight = weight.clone()
        before = measured[-1] if measured else None
        if before is not None and not unit.fixed_physics:
            # The drive carries feature / scale, so these rows carry the scale.
            weight[: before.shape[1]] *= network.scales[index - 1]
        unit.parameters["weight"].copy_(weight)
        unit.parameters["bias"].copy_(bias)
        unit.deploy(key.child("write", index))
        drive = network.drive(index, images[some], None if before is None else before[some])
        unit.calibrate(drive, key=key.child("range", index))
        measured.append(_features_of(unit, network, index, images, before, key))
        network.calibrate_link(index, measured[-1])
    return measured


def _features_of(
    unit: Unit, network: Network, index: int, images: Tensor, before: Tensor | None, key: Key
) -> Tensor:
    parts = []
    for start in range(0, len(images), 2048):
        rows = slice(start, start + 2048)
        drive = network.drive(index, images[rows], None if before is None else before[rows])
        record = unit.capture(
            drive, key=key.child("measure", index), first_sample=start, phase="capture"
        )
        parts.append(feature(unit, record))
    return torch.cat(parts)
