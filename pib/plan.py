"""How a unit is to be trained, and on what."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from pib.augment import Augment
from pib.capture import Recapture
from pib.objective import Objective
from twin.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one unit is trained.

    hard_offset: batches are drawn with weight 1 - p(correct) + hard_offset by
    a readout on the units before it; None draws evenly. recapture: what is
    stored of the physics before the layer that learns: "batch" stores nothing
    and measures the augmented batch; "never" measures the training images
    once, without augmentation; "epoch" anew every epoch. record_dropout: on
    the readings a digital layer learns from. range_every: steps between
    rangings of the converters.
    """

    objective: Objective
    epochs: int = 10
    rate: float = 5e-3
    batch: int = 250
    warm_up: int = 50
    augment: Augment = field(default_factory=Augment)
    hard_offset: float | None = None
    recapture: Recapture = "batch"
    record_dropout: float = 0.0
    range_every: int = 50

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2 or not self.rate > 0 or self.range_every < 1:
            raise ConfigError(f"plan: epochs, batch, rate or range_every out of range: {self}.")
        if not 0 <= self.record_dropout < 1:
            raise ConfigError(f"plan: record_dropout must be in [0, 1), got {self.record_dropout}.")


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Images (n, pixels) in [0, 1] with integer labels; shape of one image.

    probe_*: images on which a quick classifier is tried now and then.
    """

    images: Tensor
    labels: Tensor
    shape: tuple[int, ...]
    probe_images: Tensor
    probe_labels: Tensor

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1
