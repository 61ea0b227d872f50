"""How batches are drawn from the training images, and what their targets are.

A recipe (frozen, comparable) makes a source of batches from the training data. Class
balance needs labels; the others see images only, so no label can reach a weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from pib.groups import clusters, neighbours
from pib.sampling import balanced_epoch, steps_per_epoch
from twin.errors import ConfigError
from twin.key import Key

if TYPE_CHECKING:
    from pib.plan import TrainingData


class Batches(Protocol):
    """A source of batches. steps: in an epoch. classes: how many targets there are."""

    steps: int
    classes: int

    def rows(self, key: Key, weights: Tensor | None) -> Tensor:
        """Indices of one epoch's batches, (steps, batch); weights: (n,) or None."""
        ...

    def targets(self, rows: Tensor) -> Tensor:
        """What the objective is told of a batch (batch,): integers."""
        ...


class Recipe(Protocol):
    """Makes a source of batches; a pure function of its arguments. views: that
    differ only by what augmentation does to them, 1 if images are drawn once."""

    @property
    def views(self) -> int: ...

    def of(self, data: TrainingData, batch: int, key: Key) -> Batches: ...


@dataclass(frozen=True)
class Classes:
    """Equal shares of every label, the label being the target: supervised."""

    views: int = 1

    def of(self, data: TrainingData, batch: int, key: Key) -> Batches:  # noqa: ARG002
        if not len(data.labels):
            raise ConfigError(
                "training: batches balanced by class need labels, but the images have none. "
                "Give labels, or train without them ([unsupervised] in a configuration)."
            )
        return _ByClass(data.labels, batch)


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Equal shares of every pseudo-label: the clusters that k-means finds in the images."""

    count: int = 100
    views: int = 1

    def of(self, data: TrainingData, batch: int, key: Key) -> Batches:
        return _ByClass(clusters(data.images, self.count, key.child("clusters")), batch)


@dataclass(frozen=True, kw_only=True)
class Instances:
    """`instances` images in `views` versions each; the target is which image it was.

    nearest: 0 shows the image itself in every version, which augmentation must make
    differ; otherwise all but the first are drawn among its so many nearest neighbours.
    """

    instances: int = 32
    views: int = 8
    nearest: int = 0

    def __post_init__(self) -> None:
        if self.instances < 2 or self.views < 1 or self.nearest < 0:
            raise ConfigError(
                f"batches: expected instances >= 2, views >= 1, nearest >= 0: {self}."
            )

    def of(self, data: TrainingData, batch: int, key: Key) -> Batches:  # noqa: ARG002
        if len(data.images) < self.instances:
            raise ConfigError(
                f"batches: {self.instances} different images in a batch, but there are only "
                f"{len(data.images)}. Lower instances."
            )
        near = neighbours(data.images, data.shape, self.nearest) if self.nearest else None
        return _ByInstance(len(data.images), self, near)


class _ByClass:
    def __init__(self, labels: Tensor, batch: int) -> None:
        self._labels, self._batch = labels, batch
        self.steps = steps_per_epoch(labels, batch)
        self.classes = int(labels.max()) + 1

    def rows(self, key: Key, weights: Tensor | None) -> Tensor:
        return balanced_epoch(self._labels, self._batch, key, weights)

    def targets(self, rows: Tensor) -> Tensor:
        return self._labels[rows]


class _ByInstance:
    """Versions of an image stand beside each other, so that targets are sorted."""

    def __init__(self, images: int, recipe: Instances, near: Tensor | None) -> None:
        self._images, self._recipe, self._near = images, recipe, near
        self.steps = images // recipe.instances
        self.classes = recipe.instances

    def rows(self, key: Key, weights: Tensor | None) -> Tensor:
        n, views, generator = self._recipe.instances, self._recipe.views, key.torch()
        total = self.steps * n
        if weights is None:
            order = torch.randperm(self._images, generator=generator)[:total]
        else:
            order = torch.multinomial(weights, total, replacement=True, generator=generator)
        rows = order[:, None].repeat(1, views)
        if self._near is not None and views > 1:
            width = self._near.shape[1]
            which = torch.randint(width, (total, views - 1), generator=generator)
            rows[:, 1:] = self._near[order].gather(1, which)
        return rows.view(self.steps, n * views)

    def targets(self, rows: Tensor) -> Tensor:
        return torch.arange(len(rows)) // self._recipe.views
