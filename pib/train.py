"""Greedy training: one unit after another, each by its own local loss.

One step: images -> drive -> backend -> reading -> feature -> gradient at the
feature -> outer product -> new weights -> backend. Every random choice is a
function of (key, unit, step), so a resumed run repeats the uninterrupted one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from pib.augment import Augment
from pib.history import History, ridge_probe
from pib.network import Network
from pib.objective import Objective, Verdict
from pib.readout import hard_example_weights, train_readout
from pib.rule import rectified, warmed_cosine
from pib.sampling import balanced_epoch, steps_per_epoch
from pib.unit import Record, Unit
from twin.errors import CheckpointError, ConfigError, ObjectiveError
from twin.key import Key
from twin.ledger import Cost

Recapture = Literal["never", "epoch", "batch"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one unit is trained.

    hard_offset: batches are drawn with weight 1 - p(correct) + hard_offset by
    a readout on the units before it; None draws evenly. recapture: what is
    stored of the physics before the layer that learns: "never" captures the
    training images once, without augmentation; "epoch" anew every epoch;
    "batch" stores nothing. record_dropout: dropout on stored readings of a
    digital layer. range_every: steps between rangings of the converters.
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


@dataclass
class _UnitState:
    """What the unit in training has besides its parameters."""

    weights: Tensor | None = None
    stored: Tensor | None = None
    probe_stored: Tensor | None = None
    start: Tensor | None = None
    stored_epoch: int = -1


class Trainer:
    """Trains a network unit by unit; can stop after any step and go on.

    plans: one per unit. key: of the whole training. After :meth:`run`,
    `measured` holds every unit's features of the training images.
    """

    RECORDS_PER_UNIT = 60
    PROBES_PER_UNIT = 8

    def __init__(
        self, network: Network, plans: Sequence[Plan], data: TrainingData, *, key: Key
    ) -> None:
        if len(plans) != len(network.units):
            raise ConfigError(f"{len(network.units)} units need as many plans, got {len(plans)}.")
        self.network, self.plans, self.data, self.key = network, list(plans), data, key
        self.history = History(len(plans))
        self.measured: list[Tensor] = []
        self.unit_index, self.step = 0, 0
        self.last: Verdict | None = None
        self._unit = _UnitState()
        self._optimiser: torch.optim.Adam | None = None
        self._rows: tuple[tuple[int, int], Tensor] | None = None
        self._per_epoch = [steps_per_epoch(data.labels, plan.batch) for plan in self.plans]

    @property
    def finished(self) -> bool:
        return self.unit_index == len(self.network.units)

    def steps_of(self, index: int) -> int:
        """How many steps unit `index` is trained for."""
        return self.plans[index].epochs * self._per_epoch[index]

    def run(self, after_step: Callable[[Trainer], None] | None = None) -> list[Tensor]:
        """Train to the end; after_step may raise to stop between two steps."""
        while not self.finished:
            self.advance()
            if after_step is not None:
                after_step(self)
        return self.measured

    def advance(self) -> None:
        """One training step of the unit whose turn it is."""
        if self._optimiser is None:
            self._begin()
        self._train_step()
        self.step += 1
        if self.step == self.steps_of(self.unit_index):
            self._end()

    # -- one unit ---------------------------------------------------------

    @property
    def _now(self) -> tuple[Unit, Plan, Key]:
        unit = self.network.units[self.unit_index]
        return unit, self.plans[self.unit_index], self.key.child("unit", self.unit_index)

    def _begin(self) -> None:
        unit, plan, key = self._now
        self._unit = _UnitState(start=unit.parameters["weight"].clone())
        if plan.hard_offset is not None and self.measured:
            self._unit.weights = self._hard_weights(plan.hard_offset, key.child("hard"))
        before = self.measured[-1] if self.measured else None
        some = torch.randperm(len(self.data.labels), generator=key.child("calibrate").torch())[:500]
        drive = self._clean_drive(some, before)
        unit.deploy(key.child("deploy", "start"))
        unit.calibrate(drive, key=key.child("range", "start"), phase="capture")
        plan.objective.begin(unit.width, self.data.classes, key.child("objective"))
        self._optimiser = _adam(unit, plan)

    def _clean_drive(self, rows: Tensor, before: Tensor | None) -> Tensor:
        images = self.data.images[rows]
        return self.network.drive(self.unit_index, images, None if before is None else before[rows])

    def _hard_weights(self, offset: float, key: Key) -> Tensor:
        features = torch.cat(self.measured, 1)
        readout = train_readout(features, self.data.labels, self.data.classes, key=key)
        return hard_example_weights(readout, features, self.data.labels, offset)

    def _train_step(self) -> None:
        unit, plan, key = self._now
        assert self._optimiser is not None
        here = key.child("step", self.step)
        rows = self._batch_rows(plan, key)
        record, images = self._batch_record(rows, here)
        pre_activation = unit.pre_activation(record)
        total = self.steps_of(self.unit_index)
        recording = self._due(self.RECORDS_PER_UNIT, total)
        wants_input = recording or getattr(plan.objective, "beta", 0.0) > 0
        rate = warmed_cosine(self.step, total, plan.rate, plan.warm_up)
        verdict = plan.objective.verdict(
            rectified(pre_activation), self.data.labels[rows], images if wants_input else None, rate
        )
        gradients = unit.gradients(record, pre_activation, verdict.gradient)
        self._update(unit, gradients, rate)
        unit.deploy(here.child("write"))
        if (self.step + 1) % plan.range_every == 0 or self.step + 1 == total:
            unit_drive = record.drive
            if not unit.fixed_physics:
                unit.calibrate(unit_drive, key=here.child("range"))
        self._count_digital(unit, len(rows))
        self.last = verdict
        if recording:
            self._write_record(verdict, record)
        if self._due(self.PROBES_PER_UNIT, total):
            self._probe(here.child("probe"))

    def _due(self, times: int, total: int) -> bool:
        """True on about `times` evenly spread steps, the last among them."""
        done, now = self.step * times // total, (self.step + 1) * times // total
        return self.step == 0 or now > done

    def _batch_rows(self, plan: Plan, key: Key) -> Tensor:
        epoch, which = divmod(self.step, self._per_epoch[self.unit_index])
        if self._rows is None or self._rows[0] != (self.unit_index, epoch):
            rows = balanced_epoch(
                self.data.labels, plan.batch, key.child("epoch", epoch), self._unit.weights
            )
            self._rows = ((self.unit_index, epoch), rows)
        return self._rows[1][which]

    def _batch_record(self, rows: Tensor, here: Key) -> tuple[Record, Tensor]:
        """The record of a batch and the images the network saw."""
        unit, plan, key = self._now
        if plan.recapture == "batch":
            images = plan.augment(self.data.images[rows], self.data.shape, here.child("augment"))
            before = None
            for _, feature in self.network.chain(
                images, key=here.child("chain"), until=self.unit_index, phase="train"
            ):
                before = feature
            drive = self.network.drive(self.unit_index, images, before)
            return self._dropped(unit.capture(drive, key=here.child("read")), here), images
        before = self.measured[-1] if self.measured else None
        images = self.data.images[rows]
        drive = self._clean_drive(rows, before)
        if not unit.fixed_physics:
            return unit.capture(drive, key=here.child("read")), images
        epoch = self.step // self._per_epoch[self.unit_index]
        self._store(epoch if plan.recapture == "epoch" else 0, before, key)
        assert self._unit.stored is not None
        return self._dropped(Record(drive=drive, values=self._unit.stored[rows]), here), images

    def _store(self, epoch: int, before: Tensor | None, key: Key) -> None:
        """Capture the whole training set once per stored epoch."""
        if self._unit.stored_epoch == epoch:
            return
        unit = self.network.units[self.unit_index]
        capture_key = key.child("store", epoch)
        parts = []
        for start in range(0, len(self.data.labels), 2048):
            rows = torch.arange(start, min(start + 2048, len(self.data.labels)))
            drive = self._clean_drive(rows, before)
            record = unit.capture(drive, key=capture_key, first_sample=start, phase="capture")
            parts.append(record.values)
        self._unit.stored, self._unit.stored_epoch = torch.cat(parts), epoch

    def _dropped(self, record: Record, here: Key) -> Record:
        """Dropout on the readings a digital layer learns from."""
        unit, plan, _ = self._now
        if plan.record_dropout == 0 or not unit.fixed_physics:
            return record
        keep = 1 - plan.record_dropout
        generator = here.child("dropout").torch()
        kept = torch.rand(record.values.shape, generator=generator) < keep
        # Dropped pixels show their mean; the rest is stretched to keep the
        # expected pre-activation.
        mean = unit.constants()["mean"]
        values = mean + (record.values - mean) * kept / keep
        return Record(drive=record.drive, values=values, saturated=record.saturated)

    def _update(self, unit: Unit, gradients: Mapping[str, Tensor], rate: float) -> None:
        for name, gradient in gradients.items():
            # aminmax passes NaN on and costs a tenth of isfinite(...).all().
            if not all(math.isfinite(float(end)) for end in gradient.aminmax()):
                raise ObjectiveError(
                    f"{unit.name}: the gradient of {name} is not finite at step {self.step}; "
                    "the parameters are unchanged. Lower the rate or widen the kernel."
                )
        assert self._optimiser is not None
        for name, parameter in unit.parameters.items():
            parameter.grad = gradients[name]
        self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.step()

    def _count_digital(self, unit: Unit, batch: int) -> None:
        inputs, outputs = unit.parameters["weight"].shape
        layer = batch * inputs * outputs * (2 if unit.fixed_physics else 1)
        loss = 2 * batch * batch * outputs + 3 * batch**3
        cost = Cost(digital_operations=layer + loss)
        unit.fence.ledger.add(unit.name, "train", cost)

    def _end(self) -> None:
        """Freeze the unit: measure its features of all training images."""
        unit, _, key = self._now
        self.measured.append(self._all_features(unit, key))
        self.network.calibrate_link(self.unit_index, self.measured[-1])
        self._optimiser, self._unit = None, _UnitState()
        self.unit_index, self.step = self.unit_index + 1, 0

    def _all_features(self, unit: Unit, key: Key) -> Tensor:
        before = self.measured[-1] if self.measured else None
        parts = []
        for start in range(0, len(self.data.labels), 2048):
            rows = torch.arange(start, min(start + 2048, len(self.data.labels)))
            if unit.fixed_physics and self._unit.stored is not None:
                record = Record(drive=torch.empty(0), values=self._unit.stored[rows])
            else:
                record = unit.capture(
                    self._clean_drive(rows, before),
                    key=key.child("measured"),
                    first_sample=start,
                    phase="capture",
                )
            parts.append(rectified(unit.pre_activation(record)))
        return torch.cat(parts)

    # -- what is recorded ---------------------------------------------------

    def _write_record(self, verdict: Verdict, record: Record) -> None:
        unit = self.network.units[self.unit_index]
        row = {
            "iteration": float(self.step + 1),
            "loss": verdict.loss,
            "i_yz": _number(verdict.information_yz),
            "i_xz": _number(verdict.information_xz),
            "kernel_mean": _number(verdict.kernel_mean),
            "saturated": record.saturated,
        }
        self.history.steps[self.unit_index].append(row)
        assert self._unit.start is not None
        self.history.weight_row(
            self.unit_index, self.step + 1, unit.parameters["weight"], self._unit.start
        )

    def _probe(self, key: Key) -> None:
        """Accuracy of a ridge classifier on freshly measured features."""
        count = min(1000, len(self.data.labels))
        order = torch.randperm(len(self.data.labels), generator=self.key.child("probe").torch())
        rows = order[:count]
        images = torch.cat([self.data.images[rows], self.data.probe_images[:1000]])
        features = self.network.features(images, key=key, until=self.unit_index + 1, phase="probe")[
            -1
        ]
        accuracy = ridge_probe(
            features[:count],
            self.data.labels[rows],
            features[count:],
            self.data.probe_labels[:1000],
        )
        self.history.probes[self.unit_index].append(
            {"iteration": float(self.step + 1), "accuracy": accuracy}
        )

    # -- stop and go on -----------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Everything a resumed run needs, as tensors and as text."""
        arrays = {f"network.{n}": t for n, t in self.network.state().items()}
        arrays |= {f"measured.{i}": t for i, t in enumerate(self.measured)}
        for name in ("weights", "stored", "start"):
            if (value := getattr(self._unit, name)) is not None:
                arrays[f"unit.{name}"] = value
        if self._optimiser is not None:
            unit, plan, _ = self._now
            for name, parameter in unit.parameters.items():
                moments = self._optimiser.state[parameter]
                arrays |= {f"adam.{name}.{n}": v for n, v in moments.items()}
            arrays |= {f"objective.{n}": t for n, t in plan.objective.state().items()}
        text = {
            "unit_index": str(self.unit_index),
            "step": str(self.step),
            "measured": str(len(self.measured)),
            "begun": str(int(self._optimiser is not None)),
            "stored_epoch": str(self._unit.stored_epoch),
            "history": self.history.dump(),
            "ledger": json.dumps(self.network.units[0].fence.ledger.rows()),
        }
        return arrays, text

    def load(self, arrays: Mapping[str, Tensor], text: Mapping[str, str]) -> None:
        """Go on from what :meth:`state` gave (devices are restored apart)."""
        try:
            self.network.load(_under(arrays, "network."))
            self.measured = [arrays[f"measured.{i}"] for i in range(int(text["measured"]))]
            self.unit_index, self.step = int(text["unit_index"]), int(text["step"])
            self.history.load(text["history"])
            self.network.units[0].fence.ledger.load(json.loads(text["ledger"]))
            self._unit = _UnitState(stored_epoch=int(text["stored_epoch"]))
            for name, value in _under(arrays, "unit.").items():
                setattr(self._unit, name, value)
            if text["begun"] == "1":
                self._load_optimiser(arrays)
        except KeyError as error:
            raise CheckpointError(f"the checkpoint lacks {error}; it is of another run.") from None

    def _load_optimiser(self, arrays: Mapping[str, Tensor]) -> None:
        unit, plan, key = self._now
        plan.objective.begin(unit.width, self.data.classes, key.child("objective"))
        plan.objective.load(_under(arrays, "objective."))
        self._optimiser = _adam(unit, plan)
        for name, parameter in unit.parameters.items():
            self._optimiser.state[parameter] = _under(arrays, f"adam.{name}.")


def _adam(unit: Unit, plan: Plan) -> torch.optim.Adam:
    return torch.optim.Adam(list(unit.parameters.values()), lr=plan.rate, fused=True)


def _under(arrays: Mapping[str, Tensor], head: str) -> dict[str, Tensor]:
    return {n[len(head) :]: t.clone() for n, t in arrays.items() if n.startswith(head)}


def _number(value: float | None) -> float:
    return math.nan if value is None else value
