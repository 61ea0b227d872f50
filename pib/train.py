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

import torch
from torch import Tensor

from pib.augment import Augment
from pib.capture import Captures, Recapture, with_dropout
from pib.history import History, ridge_probe
from pib.network import Network
from pib.objective import Moment, Objective, Verdict
from pib.readout import hard_example_weights, train_readout
from pib.rule import rectified, warmed_cosine
from pib.sampling import balanced_epoch, steps_per_epoch
from pib.unit import Record, Unit
from twin.errors import CheckpointError, ConfigError, ObjectiveError
from twin.key import Key
from twin.ledger import Cost


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
        self._captures: Captures | None = None
        self._weights: Tensor | None = None
        self._start: Tensor | None = None
        self._optimiser: torch.optim.Adam | None = None
        self._rows: tuple[tuple[int, int], Tensor] | None = None
        self._per_epoch = [steps_per_epoch(data.labels, plan.batch) for plan in self.plans]
        self._device_ahead = False

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
        """One training step of the unit whose turn it is.

        After an error the parameters are as before the step; calling again
        writes them anew and repeats the step.
        """
        if self._optimiser is None:
            self._begin()
        if self.step < self.steps_of(self.unit_index):
            self._whole_step()
        if self.step == self.steps_of(self.unit_index):
            self._end()

    def _whole_step(self) -> None:
        """One step or, on an error, none."""
        if self._device_ahead:
            self.write_again(self.unit_index)
        undo = self._undo()
        try:
            self._train_step()
        except BaseException:
            undo()
            self._device_ahead = True
            raise
        self.step += 1

    def _undo(self) -> Callable[[], None]:
        """What takes parameters, moments and constants back to the present."""
        unit, plan, _ = self._now
        optimiser = self._optimiser
        assert optimiser is not None
        parameters = {n: p.clone() for n, p in unit.parameters.items()}
        moments = {
            n: {k: v.clone() for k, v in optimiser.state[p].items()}
            for n, p in unit.parameters.items()
        }
        constants = unit.constants()
        objective = {n: t.clone() for n, t in plan.objective.state().items()}

        def undo() -> None:
            for name, parameter in unit.parameters.items():
                parameter.copy_(parameters[name])
                optimiser.state[parameter] = moments[name]
            unit.load_constants(constants)
            plan.objective.load(objective)

        return undo

    def write_again(self, index: int) -> None:
        """Repeat the last write to unit `index`, for a device that has lost it."""
        begun = self._optimiser is not None
        if index > self.unit_index or (index == self.unit_index and not begun):
            return  # it was never written
        steps = self.step if index == self.unit_index else self.steps_of(index)
        key = self.key.child("unit", index)
        write = ("step", steps - 1, "write") if steps else ("deploy", "start")
        self.network.units[index].deploy(key.child(*write), phase="resume")
        self._device_ahead = False

    # -- one unit ---------------------------------------------------------

    @property
    def _now(self) -> tuple[Unit, Plan, Key]:
        unit = self.network.units[self.unit_index]
        return unit, self.plans[self.unit_index], self.key.child("unit", self.unit_index)

    def _new_captures(self) -> Captures:
        before = self.measured[-1] if self.measured else None
        return Captures(self.network, self.unit_index, self.data.images, before)

    def _begin(self) -> None:
        unit, plan, key = self._now
        self._captures = self._new_captures()
        self._start = unit.parameters["weight"].clone()
        self._weights = None
        if plan.hard_offset is not None and self.measured:
            self._weights = self._hard_weights(plan.hard_offset, key.child("hard"))
        some = torch.randperm(len(self.data.labels), generator=key.child("calibrate").torch())
        unit.deploy(key.child("deploy", "start"))
        drive = self._captures.drive(some[:500])
        unit.calibrate(drive, key=key.child("range", "start"), phase="capture")
        plan.objective.begin(unit.width, self.data.classes, key.child("objective"))
        self._optimiser = _adam(unit, plan)

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
        labels, z = self.data.labels[rows], rectified(pre_activation)
        noted = None
        if self._due(self.RECORDS_PER_UNIT, total):
            noted = plan.objective.measure(z, labels, images)
        rate = warmed_cosine(self.step, total, plan.rate, plan.warm_up)
        moment = Moment(rate=rate, progress=self.step / total)
        inputs = images if getattr(plan.objective, "beta", 0.0) > 0 else None
        verdict = plan.objective.verdict(z, labels, inputs, moment)
        gradients = unit.gradients(record, pre_activation, verdict.gradient)
        self._update(unit, gradients, rate)
        unit.deploy(here.child("write"))
        last = self.step + 1 == total
        if not unit.fixed_physics and (last or (self.step + 1) % plan.range_every == 0):
            unit.calibrate(record.drive, key=here.child("range"))
        self._count_digital(unit, len(rows))
        self.last = verdict
        # Rows are written last: nothing after them can fail and leave half a step.
        if self._due(self.PROBES_PER_UNIT, total):
            self._probe(here.child("probe"))
        if noted is not None:
            self._write_record(noted, record)

    def _due(self, times: int, total: int) -> bool:
        """True on about `times` evenly spread steps, the last among them."""
        done, now = self.step * times // total, (self.step + 1) * times // total
        return self.step == 0 or now > done

    def _batch_rows(self, plan: Plan, key: Key) -> Tensor:
        epoch, which = divmod(self.step, self._per_epoch[self.unit_index])
        if self._rows is None or self._rows[0] != (self.unit_index, epoch):
            rows = balanced_epoch(
                self.data.labels, plan.batch, key.child("epoch", epoch), self._weights
            )
            self._rows = ((self.unit_index, epoch), rows)
        return self._rows[1][which]

    def _batch_record(self, rows: Tensor, here: Key) -> tuple[Record, Tensor]:
        """The record of a batch and the images the network saw."""
        unit, plan, key = self._now
        if plan.recapture == "batch":
            images = plan.augment(self.data.images[rows], self.data.shape, here.child("augment"))
            chain = self.network.chain(
                images, key=here.child("chain"), until=self.unit_index, phase="train"
            )
            features = [feature for _, feature in chain]
            drive = self.network.drive(self.unit_index, images, features[-1] if features else None)
            record = unit.capture(drive, key=here.child("read"))
        else:
            assert self._captures is not None
            epoch = self.step // self._per_epoch[self.unit_index]
            self._captures.refresh(plan.recapture, epoch, key)
            images = self.data.images[rows]
            record = self._captures.record(rows, here.child("read"))
        if plan.record_dropout and unit.fixed_physics:
            mean = unit.constants()["mean"]
            record = with_dropout(record, mean, plan.record_dropout, here.child("dropout"))
        return record, images

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
        _, _, key = self._now
        assert self._captures is not None
        self.measured.append(self._captures.features(key.child("measured")))
        self.network.calibrate_link(self.unit_index, self.measured[-1])
        self._optimiser = self._captures = self._weights = self._start = None
        self.unit_index, self.step = self.unit_index + 1, 0

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
        assert self._start is not None
        weight = unit.parameters["weight"]
        self.history.weight_row(self.unit_index, self.step + 1, weight, self._start)

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
        text = {
            "unit_index": str(self.unit_index),
            "step": str(self.step),
            "measured": str(len(self.measured)),
            "begun": str(int(self._optimiser is not None)),
            "history": self.history.dump(),
            "ledger": json.dumps(self.network.units[0].fence.ledger.rows()),
        }
        if self._optimiser is not None:
            unit, plan, _ = self._now
            assert self._captures is not None
            text["captured_epoch"] = str(self._captures.epoch)
            store = {
                "readings": self._captures.readings,
                "before": self._captures.before if self._captures.epoch > 0 else None,
                "weights": self._weights,
                "start": self._start,
            }
            arrays |= {f"unit.{n}": t for n, t in store.items() if t is not None}
            for name, parameter in unit.parameters.items():
                moments = self._optimiser.state[parameter]
                arrays |= {f"adam.{name}.{n}": v for n, v in moments.items()}
            arrays |= {f"objective.{n}": t for n, t in plan.objective.state().items()}
        return arrays, text

    def load(self, arrays: Mapping[str, Tensor], text: Mapping[str, str]) -> None:
        """Go on from what :meth:`state` gave (devices are restored apart)."""
        try:
            self.network.load(_under(arrays, "network."))
            self.measured = [arrays[f"measured.{i}"] for i in range(int(text["measured"]))]
            self.unit_index, self.step = int(text["unit_index"]), int(text["step"])
            self.history.load(text["history"])
            self.network.units[0].fence.ledger.load(json.loads(text["ledger"]))
            self._optimiser = self._captures = self._weights = self._start = self._rows = None
            self._device_ahead = False
            if text["begun"] == "1":
                self._load_unit(arrays, text)
        except KeyError as error:
            raise CheckpointError(f"the checkpoint lacks {error}; it is of another run.") from None

    def _load_unit(self, arrays: Mapping[str, Tensor], text: Mapping[str, str]) -> None:
        unit, plan, key = self._now
        store = _under(arrays, "unit.")
        self._weights, self._start = store.get("weights"), store["start"]
        self._captures = self._new_captures()
        self._captures.epoch = int(text["captured_epoch"])
        self._captures.readings = store.get("readings")
        self._captures.before = store.get("before", self._captures.before)
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
