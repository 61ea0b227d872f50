"""Probes of measured features: trained with labels, recorded, never fed back.

A linear probe (softmax regression on standardised features) and a k-NN probe (k = 5,
cosine) tell what unlabelled learning has found. As a callback of the trainer they
measure features of every unit so far, and put restorable devices back as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pib.network import Network
from pib.readout import ReadoutRecipe, train_readout
from pib.sampling import draw
from pib.train import Trainer
from twin.key import Key

NEIGHBOURS = 5
CHUNK = 1024
RECIPE = ReadoutRecipe(epochs=10, min_steps=0)


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Images (n, pixels) and labels (n,) to train probes on, and others to try them on."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @property
    def classes(self) -> int:
        return int(max(self.labels.max(), self.test_labels.max())) + 1

    def fewer(self, train: int, test: int, key: Key) -> Labelled:
        """At most so many of each, drawn at random."""
        some = draw(len(self.images), train, key.child("train"))
        tried = draw(len(self.test_images), test, key.child("test"))
        return Labelled(
            images=self.images[some],
            labels=self.labels[some],
            test_images=self.test_images[tried],
            test_labels=self.test_labels[tried],
        )


@dataclass(frozen=True)
class Found:
    """Accuracies in [0, 1] of the two probes."""

    linear: float
    knn: float


def linear_probe(
    features: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, *, key: Key
) -> float:
    """Test accuracy of softmax regression on standardised features, 10 epochs."""
    classes = int(max(labels.max(), test_labels.max())) + 1
    readout = train_readout(features, labels, classes, key=key, recipe=RECIPE)
    return readout.accuracy(test, test_labels)


def knn_probe(
    features: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, k: int = NEIGHBOURS
) -> float:
    """Test accuracy of the vote of the k nearest training features by angle.

    features (n, d), test (m, d). Ties go to the smaller class.
    """
    classes = int(max(labels.max(), test_labels.max())) + 1
    known, right = _unit_length(features).T, 0
    for rows in torch.arange(len(test)).split(CHUNK):
        near = (_unit_length(test[rows]) @ known).topk(min(k, len(features)), dim=1).indices
        votes = torch.nn.functional.one_hot(labels[near], classes).sum(1)
        right += int((votes.argmax(1) == test_labels[rows]).sum())
    return right / len(test)


def both(features: Tensor, data: Labelled, test: Tensor, *, key: Key) -> Found:
    """Both probes on features that belong to the images of `data`."""
    return Found(
        linear=linear_probe(features, data.labels, test, data.test_labels, key=key),
        knn=knn_probe(features, data.labels, test, data.test_labels),
    )


def probed(network: Network, data: Labelled, *, key: Key, until: int | None = None) -> list[Found]:
    """Both probes on freshly measured features of each unit up to `until` (excluded)."""
    with undisturbed(network):
        train, test = (
            network.features(x, key=key.child(name), until=until, phase="probe")
            for name, x in (("train", data.images), ("test", data.test_images))
        )
    pairs = zip(train, test, strict=True)
    return [both(a, data, b, key=key.child("fit", i)) for i, (a, b) in enumerate(pairs)]


@contextmanager
def undisturbed(network: Network) -> Iterator[None]:
    """Look at a network as if nobody had: devices and ledger are put back as they were.

    Passes age devices. One that cannot be restored is left as it is, and the passes
    are then counted.
    """
    fences = [u.fence for u in network.units]
    back = [(f, f.snapshot()) for f in fences if f.capabilities.restorable]
    counts = [(f.ledger, f.ledger.rows()) for f in fences]
    try:
        yield
    finally:
        for fence, snapshot in back:
            fence.restore(snapshot)
        if len(back) == len(fences):
            for ledger, rows in counts:
                ledger.load(list(rows))


@dataclass
class Probes:
    """A callback for `Trainer.run`: probes the unit in training now and then.

    at: the steps (whole ones done, from 1) of each unit after which it looks. rows: what
    was found: unit (from 0), iteration, linear, knn. key: of the probing alone; the
    trainer's own randomness is not touched.
    """

    data: Labelled
    at: frozenset[int]
    key: Key
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, trainer: Trainer) -> None:
        """Look, if it is time. Called after each step."""
        unit, step = trainer.unit_index, trainer.step
        if step == 0:  # the unit before has just been finished
            unit, step = unit - 1, trainer.steps_of(unit - 1)
        if step in self.at:
            found = probed(
                trainer.network, self.data, key=self.key.child(unit, step), until=unit + 1
            )[-1]
            self.note(unit, step, found)

    def note(self, unit: int, iteration: int, found: Found) -> None:
        self.rows.append(
            {"unit": unit, "iteration": iteration, "linear": found.linear, "knn": found.knn}
        )


def spread_over(steps: int, times: int) -> frozenset[int]:
    """About `times` steps, dense at the start, where most is learnt; the last among them."""
    return frozenset(max(1, round(steps * (i / times) ** 2)) for i in range(1, times + 1))


def _unit_length(points: Tensor) -> Tensor:
    return points / points.norm(dim=1, keepdim=True).clamp_min(1e-12)
