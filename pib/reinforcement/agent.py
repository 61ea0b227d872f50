"""An agent: units in a row, each with its own values and its own local loss.

state -> drive -> unit 1 -> numbers -> drive -> unit 2 -> ... The last unit's
head decides. No gradient crosses a unit's physics, nor goes from one unit to
another: all they share are the numbers they pass on and the target y.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from pib.local import under
from pib.network import Network
from pib.objective import Verdict
from pib.reinforcement.bottleneck import Bottleneck, Relevance
from pib.reinforcement.encoding import PhaseEncoding, StateScale, on_port, relative
from pib.reinforcement.learner import Lesson, LocalLearner
from pib.reinforcement.replay import Batch
from pib.rule import rectified
from pib.unit import DigitalLayerUnit, Record, feature, require_one_ledger
from twin.errors import ConfigError
from twin.key import Key
from twin.ledger import Cost, Ledger


class Player(Protocol):
    """What training needs of an agent, whatever it is made of.

    frame_size: of what it remembers of a state. look: scaled states (n,
    state_size) to frames (n, frame_size). values: frames to Q (n, actions).
    """

    frame_size: int

    def look(self, states: Tensor, *, key: Key, phase: str) -> Tensor: ...

    def values(self, frames: Tensor, *, key: Key, phase: str) -> Tensor: ...

    def learn(self, batch: Batch, *, rate: float, key: Key) -> Sequence[Lesson]: ...

    def state(self) -> dict[str, Tensor]: ...

    def load(self, arrays: Mapping[str, Tensor]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of the local losses, all ours.

    information_weight: lambda, of PIB beside the temporal difference; 0 leaves
    it out. follow: share by which slow copies move per update.
    """

    information_weight: float = 0.05
    bottleneck: Bottleneck = field(default_factory=Bottleneck)
    follow: float = 0.01


class Agent:
    """Units with fixed physics in a row, that learn one by one from one batch.

    units: with one ledger for all. scale: of the environment's states. key: fixes
    encoding and first heads.
    """

    def __init__(
        self,
        units: Sequence[DigitalLayerUnit],
        scale: StateScale,
        actions: int,
        *,
        key: Key,
        recipe: Recipe | None = None,
    ) -> None:
        if not units:
            raise ConfigError("an agent needs at least one unit.")
        self.learners = [
            LocalLearner(unit, actions, key=key.child("head", index))
            for index, unit in enumerate(units)
        ]
        _require_fit(units)
        require_one_ledger(units)
        self.network = Network(list(units), skip=False)
        self.scale, self.actions = scale, actions
        self.recipe = recipe or Recipe()
        pixels = units[0].fence.drive_port.shape[0]
        self._encode = PhaseEncoding(len(scale.centre), pixels, key=key.child("encoding"))
        (self.frame_size,) = units[0].fence.reading_port.shape

    @property
    def ledger(self) -> Ledger:
        """The one that all units share."""
        return self.network.units[0].fence.ledger

    def calibrate(self, states: Tensor, *, key: Key) -> None:
        """Standardise every unit's reading on scaled states (n, state_size)."""
        drive = self._encode(states)
        for learner in self.learners:
            unit, here = learner.unit, key.child(learner.unit.name)
            drive = on_port(drive, unit.fence.drive_port)
            unit.calibrate(drive, key=here, phase="calibrate")
            record = unit.capture(drive, key=here.child("features"), phase="calibrate")
            drive = relative(feature(unit, record))

    def look(self, states: Tensor, *, key: Key, phase: str = "act") -> Tensor:
        """Frames (n, pixels) of the first unit, measured for scaled states."""
        unit = self.learners[0].unit
        drive = on_port(self._encode(states), unit.fence.drive_port)
        return unit.capture(drive, key=key.child(unit.name), phase=phase).values

    def values(self, frames: Tensor, *, key: Key, phase: str = "act") -> Tensor:
        """Q (n, actions) of the last unit; later units are measured."""
        record, features = _remembered(frames), frames
        for index, learner in enumerate(self.learners):
            if index > 0:
                record = self._captured(index, features, key, phase)
            features = feature(learner.unit, record)
            self._count_passes(learner, len(frames), phase)
        return self.learners[-1].values(features)

    def learn(self, batch: Batch, *, rate: float, key: Key) -> list[Lesson]:
        """One update of every unit by its own loss, from one batch.

        All units see the same target y: n-step return plus the slow copies'
        value of what the present last unit would do there (double DQN).
        """
        seen, now, wanted = self._measured(batch, key)
        weight = self.recipe.information_weight
        information = self._information(batch, now) if weight else None
        lessons = [
            learner.learn(*own, batch.actions, wanted, information, weight, rate)
            for learner, own in zip(self.learners, seen, strict=True)
        ]
        for learner in self.learners:
            learner.weights.follow(self.recipe.follow)
            self._count_digital(learner, len(batch.actions))
        return lessons

    def _measured(
        self, batch: Batch, key: Key
    ) -> tuple[list[tuple[Record, Tensor]], dict[str, Tensor], Tensor]:
        """Each unit's record and pre-activation of the states, the last values there, y.

        Rows of one pass: the states and the ends by the present units, the
        ends (and, where Y needs them, the states) by the slow copies.
        """
        n = len(batch.actions)
        frames = [batch.frames, batch.next_frames, batch.next_frames]
        record = _remembered(torch.cat(frames + [batch.frames] * self._slow_now))
        seen: list[tuple[Record, Tensor]] = []
        present, slow = record.values, record.values[:0]
        for index, learner in enumerate(self.learners):
            if index > 0:
                record = self._captured(index, torch.cat([present, slow]), key, "learn")
            pre_activation = learner.unit.pre_activation(_rows(record, slice(0, 2 * n)))
            seen.append((_rows(record, slice(0, n)), pre_activation[:n]))
            present = rectified(pre_activation)
            slow = learner.target_features(_rows(record, slice(2 * n, None)))
        last = self.learners[-1]
        values, slow_values = last.values(present), last.target_values(slow)
        best = values[n:].argmax(1, keepdim=True)
        future = slow_values[:n].gather(1, best).squeeze(1)
        wanted = (batch.returns + batch.discounts * future).clamp_(batch.least, batch.most)
        return seen, {"present": values[:n], "slow": slow_values[n:]}, wanted

    def _information(self, batch: Batch, now: Mapping[str, Tensor]) -> Callable[[Tensor], Verdict]:
        """The PIB part of a loss, with the kernels of Y and X of a batch."""
        bottleneck = self.recipe.bottleneck
        if bottleneck.relevance is Relevance.ADV:
            relevant = bottleneck.by_action(now["present"])
        elif bottleneck.relevance is Relevance.TQ:
            relevant = bottleneck.gram(now["slow"])
        else:
            later = self.learners[0].unit.standardised(_remembered(batch.next_frames))
            relevant = bottleneck.gram(later)
        inputs = bottleneck.gram(batch.states)
        return lambda features: bottleneck.verdict(features, relevant, inputs)

    def _captured(self, index: int, before: Tensor, key: Key, phase: str) -> Record:
        """Unit `index` measured anew, driven by features of the one before it."""
        unit = self.learners[index].unit
        drive = on_port(relative(before), unit.fence.drive_port)
        return unit.capture(drive, key=key.child(unit.name), phase=phase)

    @property
    def _slow_now(self) -> bool:
        """Whether Y needs the slow copies' values of the present states."""
        tq = self.recipe.bottleneck.relevance is Relevance.TQ
        return tq and self.recipe.information_weight != 0

    def _count_digital(self, learner: LocalLearner, n: int) -> None:
        """An update: layer and head on the states, on the ends, on the ends by the slow
        copies (with TQ on the states too), and the gradient; kernels and their spectra."""
        self._count_passes(learner, (5 if self._slow_now else 4) * n, "learn")
        if self.recipe.information_weight:
            spectrum = 0 if self.recipe.bottleneck.alpha == 2 else 3 * n**3
            cost = Cost(digital_operations=2 * n * n * learner.unit.width + spectrum)
            self.ledger.add(learner.unit.name, "learn", cost)

    def _count_passes(self, learner: LocalLearner, samples: int, phase: str) -> None:
        """Samples through a layer and its head; at most, for not every head is asked."""
        weights = sum(p.numel() for p in learner.weights.parameters.values())
        self.ledger.add(learner.unit.name, phase, Cost(digital_operations=samples * weights))

    # -- stop and go on -----------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Everything learnt and calibrated; the encoding follows from the key."""
        arrays = {"scale.centre": self.scale.centre, "scale.width": self.scale.width}
        for learner in self.learners:
            arrays |= {f"{learner.unit.name}.{n}": t for n, t in learner.state().items()}
        return arrays

    def load(self, arrays: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave."""
        for learner in self.learners:
            learner.load(under(arrays, f"{learner.unit.name}."))
        self.scale = StateScale(arrays["scale.centre"].clone(), arrays["scale.width"].clone())

    def close(self) -> None:
        """Leave every device safe."""
        self.network.close()


def _remembered(frames: Tensor) -> Record:
    """Frames as a record; the drive behind them is not needed by a digital layer."""
    return Record(drive=frames.new_empty((len(frames), 0)), values=frames)


def _rows(record: Record, rows: slice) -> Record:
    return Record(drive=record.drive[rows], values=record.values[rows])


def _require_fit(units: Sequence[DigitalLayerUnit]) -> None:
    """Each unit's features must fill the next one's drive."""
    for before, unit in pairwise(units):
        if unit.fence.drive_port.shape != (before.width,):
            raise ConfigError(
                f"{unit.name}: takes a drive of shape {unit.fence.drive_port.shape}, but "
                f"{before.name} has {before.width} features. Give it inputs = {before.width}."
            )
