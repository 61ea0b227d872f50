"""Extreme learning machine: a ridge classifier on physics that nothing has trained.

Huang, Zhu and Siew, Neurocomputing 70, 489 (2006). One pass per image and one linear
solve: the floor under every trained method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pib.readout import Readout
from pib.unit import Unit
from twin.key import Key
from twin.ledger import Cost
from validation.baselines import untrained
from validation.baselines.joint import CHUNK, calibrations
from validation.baselines.method import Learnt, Task
from validation.config import RunConfig

LAMBDAS = tuple(10.0**power for power in range(-7, 2))
"""Ridge penalties tried, in units of the mean eigenvalue of the covariance."""

HELD_OUT = 0.2
"""Share of the training images by which the penalty is chosen."""


def fit_ridge(
    features: Tensor, targets: Tensor, penalties: Sequence[float]
) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) of each penalty: (Z'Z + lambda I)^-1 Z'Y about the means, float64.

    features: (n, width); targets: (n, outputs). penalties: in units of the mean
    eigenvalue of Z'Z. One spectrum serves them all.
    """
    z, y = features.double(), targets.double()
    mean, level = z.mean(0), y.mean(0)
    z = z - mean
    values, vectors = torch.linalg.eigh(z.T @ z)
    along = vectors.T @ (z.T @ (y - level))
    unit = values.clamp_min(0).mean().clamp_min(1e-300)
    found = []
    for penalty in penalties:
        weight = vectors @ (along / (values.clamp_min(0) + penalty * unit)[:, None])
        found.append((weight, level - mean @ weight))
    return found


def ridge_classifier(
    features: Tensor, labels: Tensor, classes: int, key: Key
) -> tuple[Readout, float]:
    """A ridge classifier on one-hot targets and its penalty.

    The penalty that is right most often on a held-out part of these very images (of
    equals the largest), then fitted to all of them.
    """
    readable = _scaled(features)
    z = readable.standardised(features)
    targets = torch.nn.functional.one_hot(labels, classes)
    order = torch.randperm(len(z), generator=key.child("held out").torch())
    held, kept = order.split([cut := max(1, int(HELD_OUT * len(z))), len(z) - cut])
    right = [
        int(((z[held].double() @ w + b).argmax(1) == labels[held]).sum())
        for w, b in fit_ridge(z[kept], targets[kept], LAMBDAS)
    ]
    best = max(range(len(LAMBDAS)), key=lambda i: (right[i], i))
    ((weight, bias),) = fit_ridge(z, targets, [LAMBDAS[best]])
    return readable.readout(weight.float(), bias.float()), LAMBDAS[best]


@dataclass(frozen=True)
class _Scale:
    mean: Tensor
    scale: Tensor

    def standardised(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale

    def readout(self, weight: Tensor, bias: Tensor) -> Readout:
        return Readout(mean=self.mean, scale=self.scale, weight=weight, bias=bias)


def _scaled(features: Tensor) -> _Scale:
    """Mean and spread of each feature; the floor is that of a trained readout."""
    spread = features.std(0)
    floor = float(0.1 * spread.square().mean().sqrt()) + 1e-12
    return _Scale(features.mean(0), spread.clamp_min(floor))


@dataclass(frozen=True)
class OnReadings:
    """A judge by the raw readings of one unit."""

    unit: Unit
    readout: Readout

    def __call__(self, images: Tensor, *, key: Key, phase: str) -> Tensor:
        values = readings(self.unit, images, key, phase)
        return self.readout.logits(values).argmax(1)


def readings(unit: Unit, images: Tensor, key: Key, phase: str) -> Tensor:
    """Raw readings (n, reading) of the first unit."""
    return torch.cat([
        unit.capture(
            images[start : start + CHUNK], key=key, first_sample=start, phase=phase
        ).values
        for start in range(0, len(images), CHUNK)
    ])  # fmt: skip


@dataclass(frozen=True)
class ExtremeLearning:
    """Ridge on the raw readings of unit 1, or on the features of untrained written units.

    Raw readings are no features, so that a judge answers then, by unit 1 alone.
    """

    family: str = "elm"
    own_head: bool = True
    needs_twin: bool = False

    def refusal(self, config: RunConfig) -> str | None:  # noqa: ARG002
        return None

    def train(self, task: Task) -> Learnt:
        if task.network.units[0].fixed_physics:
            return self._on_readings(task)
        return self._on_features(task)

    def _on_readings(self, task: Task) -> Learnt:
        unit, (images, labels) = task.network.units[0], task.data.train
        task.allowance.steps(len(images), wished=1)
        values = readings(unit, images, task.key.child("readings"), "capture")
        readout, penalty = _counted(task, values, labels)
        return Learnt([], judge=OnReadings(unit, readout), notes={"ridge": penalty})

    def _on_features(self, task: Task) -> Learnt:
        task.allowance.steps(_passes(task), wished=1)
        measured = untrained.METHOD.train(task).measured
        readout, penalty = _counted(task, torch.cat(measured, 1), task.data.train[1])
        return Learnt(measured, readout, notes={"ridge": penalty})


def _passes(task: Task) -> int:
    """What an untrained network costs: rangings, links, one pass per unit and image."""
    count, units = len(task.data.train[0]), range(len(task.network.units))
    some = min(500, count)
    return count * len(units) + sum(some * (calibrations(task, i) + i + 1) for i in units)


def _counted(task: Task, features: Tensor, labels: Tensor) -> tuple[Readout, float]:
    fitted = ridge_classifier(features, labels, task.data.classes, task.key.child("ridge"))
    n, d = features.shape
    fence = task.network.units[0].fence
    # Twice a covariance and a spectrum (about 9 d^3, Golub and Van Loan).
    fence.ledger.add(fence.name, "readout", Cost(digital_operations=2 * (n * d * d + 9 * d**3)))
    return fitted


METHOD = ExtremeLearning()
