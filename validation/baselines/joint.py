"""All units and a softmax head trained together, the physics in the forward pass.

Batch -> units in turn, measured -> logits -> error -> credit: what the error wants
of every unit's feature -> each unit's own outer product -> Adam. Methods differ in
the credit alone (physics-aware training, feedback alignment, parameter shift).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pib.readout import Readout
from pib.rule import rectified, warmed_cosine
from pib.sampling import draw
from pib.unit import DigitalLayerUnit, Record, Unit
from twin.key import Key
from twin.ledger import Cost
from validation.baselines.method import Learnt, Task

CHUNK = 2048
MOMENTUM = 0.1
"""Of running means and spreads, a step's share."""


@dataclass(frozen=True)
class Passed:
    """One batch that went through all units, by unit.

    records: as measured. kept: dropout's factors on the readings, None without.
    pre_activations, features: (n, width).
    """

    records: Sequence[Record]
    kept: Sequence[Tensor | None]
    pre_activations: Sequence[Tensor]
    features: Sequence[Tensor]


class Credit(Protocol):
    """Who says what an error at the logits wants of the features.

    passes_per_sample: physical passes of one training sample beside the forward
    ones, all units together.
    """

    passes_per_sample: int

    def begin(self, task: Task, key: Key) -> None:
        """Once, before the first step."""

    def at_features(self, passed: Passed, error: Tensor, head: Tensor, key: Key) -> list[Tensor]:
        """d loss / d feature (n, width) of every unit, or what stands for it.

        error: d loss / d logits (n, classes). head: (sum of widths, classes).
        """


def direct(passed: Passed, error: Tensor, head: Tensor) -> list[Tensor]:
    """What the head alone tells every unit's feature."""
    widths = [z.shape[1] for z in passed.features]
    return list((error @ head.T).split(widths, 1))


class JointTraining:
    """A network and its head in training together.

    The first unit's physics, where it is fixed, is measured once and stored: no
    trainable part comes before it. Standardisation and links follow the batches,
    so they cost no passes. FORWARDS: how often a step sends its batch through.
    """

    FORWARDS = 1

    def __init__(self, task: Task, credit: Credit) -> None:
        self.task, self.credit, self.network = task, credit, task.network
        self.hyper = task.config.compare
        self.images, self.labels = task.data.train
        self._batch = min(self.hyper.batch, len(self.labels))
        self._stored: Tensor | None = None
        width = sum(unit.width for unit in self.network.units)
        generator = task.key.child("head").torch()
        self.head = {
            "weight": torch.randn(width, task.data.classes, generator=generator) * width**-0.5,
            "bias": torch.zeros(task.data.classes),
        }
        if task.start is not None and task.start.head is not None:
            own = task.start.head
            self.head = {"weight": own.weight.clone(), "bias": own.bias.clone()}
        tensors = [*self.network.parameters().values(), *self.head.values()]
        self._optimiser = torch.optim.Adam(tensors, lr=self.hyper.rate, fused=True)
        self._seen = False

    def run(self) -> Learnt:
        """Train until the budget is spent; without one, the units' epochs together."""
        self._require_start()
        self._begin()
        steps, measuring = self._plan()
        for step in range(steps):
            self._step(step, steps)
            self.network.catch_up()
        measured = self._measured() if measuring else []
        return Learnt(measured, self._as_readout(), notes={"training_steps": float(steps)})

    # -- before -------------------------------------------------------------

    def _require_start(self) -> None:
        """ConfigError if the ceiling does not even cover what comes before a step."""
        stored = self.network.units[0].fixed_physics
        start = len(self.labels) if stored else 0
        start += sum(self._ranging(index) for index in range(len(self.network.units)))
        start += self._batch * len(self.network.units[1 if stored else 0 : -1])
        self.task.allowance.steps(1, reserve=start, wished=1)

    def _ranging(self, index: int) -> int:
        """Passes of calibrating a written unit on a batch once; 0 for fixed physics."""
        if self.network.units[index].fixed_physics:
            return 0
        return self._batch * calibrations(self.task, index)

    def _begin(self) -> None:
        task, first = self.task, self.network.units[0]
        if isinstance(first, DigitalLayerUnit):
            key = task.key.child("store")
            self._stored = torch.cat([
                first.capture(
                    self.images[start : start + CHUNK], key=key, first_sample=start,
                    phase="capture",
                ).values
                for start in range(0, len(self.images), CHUNK)
            ])  # fmt: skip
            standardise(first, self._stored, share=1.0)
        some = draw(len(self.images), self._batch, task.key.child("some"))
        before = None
        for index, unit in enumerate(self.network.units):
            if not unit.fixed_physics:
                unit.deploy(task.key.child("deploy", index))
                drive = self.network.drive(index, self.images[some], before)
                unit.calibrate(drive, key=task.key.child("range", index))
            if index + 1 < len(self.network.units):
                before = self._passed_one(index, some, before, task.key.child("first", index))
                self.network.calibrate_link(index, before)
        self.credit.begin(task, task.lasting_key.child("credit"))

    def _passed_one(self, index: int, rows: Tensor, before: Tensor | None, key: Key) -> Tensor:
        """A feature before any training, to set the link behind it."""
        unit = self.network.units[index]
        record = self._record(index, rows, before, key)
        if isinstance(unit, DigitalLayerUnit) and index > 0:
            standardise(unit, record.values, share=1.0)
        return rectified(unit.pre_activation(record))

    def _plan(self) -> tuple[int, bool]:
        """Steps, and whether the training images are measured for a readout at the end."""
        count, units = len(self.labels), self.network.units
        measured = [u for i, u in enumerate(units) if i > 0 or self._stored is None]
        per_sample = self.FORWARDS * len(measured) + self.credit.passes_per_sample
        ranging = sum(self._ranging(index) for index in range(len(units)))
        per_step = self._batch * per_sample + ranging / self.task.config.training.range_every
        wished = sum(u.epochs for u in self.task.config.unit) * (count // self._batch)
        # Every written unit is ranged once more at the end.
        reserve, allowance = len(measured) * count, self.task.allowance
        if per_step == 0:
            # One unit of fixed physics: all that it needs is stored. As many steps as if
            # every batch were measured, so that depth is not compared with early stopping.
            left = allowance.left
            return wished if left is None else max(1, left // self._batch), True
        if allowance.left is not None:
            left = allowance.left - ranging
            if left < 3 * reserve or left < reserve + per_step:
                # Too little for both: train, and answer with the own head.
                return allowance.steps(per_step, reserve=ranging, wished=wished), False
        return allowance.steps(per_step, reserve=reserve + ranging, wished=wished), True

    # -- a step -------------------------------------------------------------

    def _step(self, step: int, steps: int) -> None:
        here = self.task.key.child("step", step)
        rows = self._rows(step)
        passed = self.forward(rows, here)
        error = softmax_error(self.logits(passed), self.labels[rows])
        wanted = self.credit.at_features(passed, error, self.head["weight"], here.child("credit"))
        self.apply(passed, wanted, error, warmed_cosine(
            step, steps, self.hyper.rate, self.task.config.training.warm_up
        ))  # fmt: skip
        self._write(step, steps, passed, here)
        self._count_digital(len(rows))

    def forward(self, rows: Tensor, key: Key, *, again: bool = False) -> Passed:
        """A batch of training images through all units, with dropout on readings.

        again: what went through before, so that means, spreads and links, and what is
        dropped (but no noise of a device), stay.
        """
        reads = key.child("again") if again else key
        records: list[Record] = []
        kept: list[Tensor | None] = []
        pre: list[Tensor] = []
        features: list[Tensor] = []
        for index, unit in enumerate(self.network.units):
            record = self._record(index, rows, features[-1] if features else None, reads)
            factor = None
            if isinstance(unit, DigitalLayerUnit):
                if index > 0 and not again:
                    standardise(unit, record.values, share=MOMENTUM if self._seen else 1.0)
                record, factor = self._dropped(unit, record, key.child("dropout", index))
            records.append(record)
            kept.append(factor)
            pre.append(unit.pre_activation(record))
            features.append(rectified(pre[-1]))
            if index + 1 < len(self.network.units) and not again:
                self._follow_link(index, features[-1])
        self._seen = True
        return Passed(records, kept, pre, features)

    def logits(self, passed: Passed) -> Tensor:
        """The head's answer, (n, classes)."""
        features = torch.cat(list(passed.features), 1)
        return torch.addmm(self.head["bias"], features, self.head["weight"])

    def apply(self, passed: Passed, wanted: Sequence[Tensor], error: Tensor, rate: float) -> None:
        """One Adam step of all units and the head."""
        gradients = self.gradients(passed, wanted, error)
        for name, tensor in self._tensors().items():
            tensor.grad = gradients[name]
        self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.step()

    def gradients(
        self, passed: Passed, wanted: Sequence[Tensor], error: Tensor
    ) -> dict[str, Tensor]:
        """Of every parameter, by "unit.name", and of "head.weight" and "head.bias"."""
        found = {
            "head.weight": torch.cat(list(passed.features), 1).T @ error,
            "head.bias": error.sum(0),
        }
        for unit, record, pre, at_feature in zip(
            self.network.units, passed.records, passed.pre_activations, wanted, strict=True
        ):
            own = unit.gradients(record, pre, at_feature)
            found |= {f"{unit.name}.{name}": gradient for name, gradient in own.items()}
        return found

    def _tensors(self) -> Mapping[str, Tensor]:
        return self.network.parameters() | {f"head.{n}": t for n, t in self.head.items()}

    def _record(self, index: int, rows: Tensor, before: Tensor | None, key: Key) -> Record:
        images = self.images[rows]
        if index == 0 and self._stored is not None:
            return Record(drive=images, values=self._stored[rows])
        drive = self.network.drive(index, images, before)
        return self.network.units[index].capture(drive, key=key.child("read", index))

    def _dropped(self, unit: Unit, record: Record, key: Key) -> tuple[Record, Tensor | None]:
        """Dropped pixels show their mean, the rest is stretched."""
        probability = self.hyper.dropout
        if not probability:
            return record, None
        keep = 1 - probability
        factor = (torch.rand(record.values.shape, generator=key.torch()) < keep) / keep
        mean = unit.constants()["mean"]
        values = mean + (record.values - mean) * factor
        return Record(drive=record.drive, values=values, saturated=record.saturated), factor

    def _follow_link(self, index: int, features: Tensor) -> None:
        old = self.network.scales[index]
        self.network.calibrate_link(index, features)
        self.network.scales[index] = (1 - MOMENTUM) * old + MOMENTUM * self.network.scales[index]

    def _write(self, step: int, steps: int, passed: Passed, here: Key) -> None:
        last = step + 1 == steps
        due = last or (step + 1) % self.task.config.training.range_every == 0
        for index, unit in enumerate(self.network.units):
            if unit.fixed_physics:
                continue
            unit.deploy(here.child("write", index), whole=False)
            if due:
                unit.calibrate(passed.records[index].drive, key=here.child("range", index))

    def _rows(self, step: int) -> Tensor:
        per_epoch = len(self.labels) // self._batch
        epoch, which = divmod(step, per_epoch)
        order = torch.randperm(
            len(self.labels), generator=self.task.key.child("epoch", epoch).torch()
        )
        return order[which * self._batch : (which + 1) * self._batch]

    def _count_digital(self, batch: int) -> None:
        work = sum(2 * p.numel() * batch for p in self._tensors().values())
        fence = self.network.units[0].fence
        fence.ledger.add(fence.name, "train", Cost(digital_operations=work))

    # -- after --------------------------------------------------------------

    def _measured(self) -> list[Tensor]:
        """Features of all training images, measured with the trained units."""
        parts = []
        key = self.task.key.child("measure")
        for start in range(0, len(self.images), CHUNK):
            rows = torch.arange(start, min(start + CHUNK, len(self.images)))
            found: list[Tensor] = []
            for index, unit in enumerate(self.network.units):
                if index == 0 and self._stored is not None:
                    record = Record(drive=self.images[rows], values=self._stored[rows])
                else:
                    drive = self.network.drive(
                        index, self.images[rows], found[-1] if found else None
                    )
                    record = unit.capture(
                        drive, key=key.child(index), first_sample=start, phase="capture"
                    )
                found.append(rectified(unit.pre_activation(record)))
            parts.append(found)
        return [torch.cat(column) for column in zip(*parts, strict=True)]

    def _as_readout(self) -> Readout:
        weight, bias = (self.head[n].detach().clone() for n in ("weight", "bias"))
        width = len(weight)
        return Readout(mean=torch.zeros(width), scale=torch.ones(width), weight=weight, bias=bias)


def calibrations(task: Task, index: int) -> int:
    """Passes per sample of calibrating a unit: its ranging, its mask of dead columns.

    Of devices that range in one pass; one that tries several exposures takes more.
    """
    unit, table = task.network.units[index], task.config.unit[index]
    if unit.fixed_physics:
        return 1
    return int(unit.fence.capabilities.rangeable) + int(table.mask_constant)


def softmax_error(logits: Tensor, labels: Tensor) -> Tensor:
    """d mean cross-entropy / d logits, (n, classes)."""
    error = logits.softmax(1)
    error[torch.arange(len(labels)), labels] -= 1.0
    return error / len(labels)


def standardise(unit: DigitalLayerUnit, values: Tensor, *, share: float) -> None:
    """Move a unit's mean and spread of readings towards those of `values`, by `share`."""
    spread = values.std(0)
    # The floor of the unit's own calibration.
    floor = float(unit.standardise_floor * spread.mean()) + 1e-12
    found = {"mean": values.mean(0), "scale": spread.clamp_min(floor)}
    unit.load_constants({n: t.lerp(found[n], share) for n, t in unit.constants().items()})
