"""One small interface for every training method.

A method gets an untrained network whose devices stand as drawn (dials turned,
nothing written) and leaves it trained. It reaches the physics through the
network's fences only. A twin to look into is handed to those who declare it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from pib.network import Network
from pib.readout import Readout
from pib.train import Trainer
from twin.errors import Unsupported
from twin.key import Key
from validation.baselines.budget import Budget
from validation.config import RunConfig
from validation.experiment import Tensors


class Upstream(Protocol):
    """Units that other points have trained, or will ask for."""

    def go_on(self, trainer: Trainer) -> None:
        """Put the trainer behind the last unit that is known, if any."""

    def unit_ended(self, trainer: Trainer) -> None:
        """Keep the unit that has just been trained."""


class UnitTwin(Protocol):
    """A differentiable model of one device."""

    def predict(self, drive: Tensor, setting: Tensor | None = None) -> Tensor:
        """The reading (n, reading) of a drive (n, inputs) without noise, as the fence
        decodes it. setting: what is written, for a device that can be programmed."""


Twins = Callable[[int], UnitTwin]
"""The twin of unit `index`. A fitted one is probed through the device's fence when it
is first asked for, so its passes count."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to train. key: of the run. upstream: None if nothing is shared.

    budget: physical passes before the test, all devices together. twins: None
    unless the method's `needs_twin` is true. start: what the same method left on this
    very network before, to go on from; None: begin afresh. lasting: the key it had then.
    """

    config: RunConfig
    network: Network
    data: Tensors
    key: Key
    upstream: Upstream | None = None
    budget: Budget | None = None
    twins: Twins | None = None
    start: Learnt | None = None
    lasting: Key | None = None

    @property
    def lasting_key(self) -> Key:
        """Of what is drawn once for a method and stays when it goes on later."""
        return self.key if self.lasting is None else self.lasting

    @property
    def allowance(self) -> Budget:
        """The budget, or one without a ceiling."""
        return self.budget or Budget(self.network.units[0].fence.ledger)


class Judge(Protocol):
    """A classifier that needs the physics for an answer, as contrastive ones do."""

    def __call__(self, images: Tensor, *, key: Key, phase: str) -> Tensor:
        """Predicted labels (n,) of images (n, pixels)."""


@dataclass(frozen=True)
class Learnt:
    """What a method leaves besides the network.

    measured: features (n, width) of the training images, one tensor per unit, for
    a readout; empty where no passes were left for them or there are none.
    head: its own classifier on the features of all units. judge: its own
    classifier, where features alone do not give an answer. notes: figures of
    the training worth keeping, by name.
    """

    measured: list[Tensor]
    head: Readout | None = None
    judge: Judge | None = None
    notes: Mapping[str, float] = field(default_factory=dict)


class Method(Protocol):
    """One way to train a network.

    family: methods of one family train alike and share what they trained.
    own_head: the accuracy is that of the method's own classifier, not of a
    readout on measured features. needs_twin: it looks into a twin.
    """

    @property
    def family(self) -> str: ...

    @property
    def own_head(self) -> bool: ...

    @property
    def needs_twin(self) -> bool: ...

    def refusal(self, config: RunConfig) -> str | None:
        """Why this network cannot be trained this way; None if it can."""

    def train(self, task: Task) -> Learnt: ...


def require(method: Method, config: RunConfig, base: str) -> None:
    """Unsupported if the method cannot train the network of `config`."""
    reason = method.refusal(config)
    if reason is not None:
        raise Unsupported(f"{base}: {reason}.")
