"""How a unit is to be trained, and on what."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pib.augment import Augment
from pib.batches import Classes, Instances, Recipe
from pib.capture import Recapture
from pib.objective import Objective
from pib.writes import WHOLE, Writes
from twin.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one unit is trained.

    steps: instead of epochs. batches: how they are drawn and what their targets
    are. hard_offset: batches are drawn with weight 1 - p(correct) + hard_offset by
    a readout on the units before it, which needs labels; None draws evenly. recapture: what is
    stored of the physics before the layer that learns: "batch" stores nothing
    and measures the augmented batch; "never" measures the training images
    once, without augmentation; "epoch" anew every epoch, or every recapture_every
    epochs. record_dropout: on
    the readings a digital layer learns from. range_every: steps between
    rangings of the converters.
    """

    objective: Objective
    epochs: int = 10
    steps: int | None = None
    rate: float = 5e-3
    batch: int = 250
    warm_up: int = 50
    augment: Augment = field(default_factory=Augment)
    hard_offset: float | None = None
    recapture: Recapture = "batch"
    recapture_every: int = 1
    record_dropout: float = 0.0
    range_every: int = 50
    batches: Recipe = field(default_factory=Classes)
    writes: Writes = WHOLE

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2 or not self.rate > 0 or self.range_every < 1:
            raise ConfigError(f"plan: epochs, batch, rate or range_every out of range: {self}.")
        if self.recapture_every < 1:
            raise ConfigError(
                f"plan: recapture_every must be at least 1 epoch, got {self.recapture_every}."
            )
        if not 0 <= self.record_dropout < 1:
            raise ConfigError(f"plan: record_dropout must be in [0, 1), got {self.record_dropout}.")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"plan: steps must be at least 1, got {self.steps}.")
        if self.batches.views > 1 and self.recapture != "batch":
            raise ConfigError(
                f"plan: recapture = {self.recapture!r} stores the images as they are, so that "
                "versions of an image would be alike. Use 'batch', or one view."
            )
        if self.hard_offset is not None and not isinstance(self.batches, Classes):
            raise ConfigError(
                f"plan: hard_offset = {self.hard_offset} weighs examples by their labels, but "
                f"{self.batches} is to do without. Leave hard_offset out, or use Classes()."
            )
        if _views_alike(self.batches) and self.augment.is_off:
            raise ConfigError(
                f"plan: without augmentation the views of {self.batches} would differ by read "
                "noise only. Give an augmentation, or draw views from nearest > 0 neighbours."
            )

    @property
    def program_every(self) -> int:
        """Steps between writes to the chip."""
        return self.writes.every


def _views_alike(batches: Recipe) -> bool:
    """Whether only augmentation can make the views of an image differ."""
    return isinstance(batches, Instances) and batches.views > 1 and batches.nearest == 0


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Images (n, pixels) in [0, 1]; shape of one image; integer labels, if any.

    labels: (n,), or empty where there are none. probe_*: images on which a quick
    classifier is tried now and then, with their labels or none.
    """

    images: Tensor
    shape: tuple[int, ...]
    probe_images: Tensor
    labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    probe_labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    @property
    def labelled(self) -> bool:
        """Whether the training and the probe images have labels."""
        return len(self.labels) > 0 and len(self.probe_labels) > 0
