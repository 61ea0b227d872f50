"""One unit in training, alone with its local loss.

One step: images -> drive -> backend -> reading -> feature -> gradient at the
feature -> outer product -> new weights -> backend. Every random choice is a
function of (key of the unit, step).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pib.batches import Batches
from pib.capture import Captures, with_dropout
from pib.network import Network
from pib.objective import Moment, Verdict
from pib.plan import Plan, TrainingData
from pib.readout import hard_example_weights, train_readout
from pib.rule import rectified, warmed_cosine
from pib.sampling import draw
from pib.unit import Record, Unit
from twin.errors import ObjectiveError
from twin.key import Key
from twin.ledger import Cost


@dataclass(frozen=True)
class Outcome:
    """What one step saw. noted: measured before the update, where asked for."""

    record: Record
    verdict: Verdict
    noted: Verdict | None


class LocalTraining:
    """Unit `index` of a network while it learns.

    before: features (n, width) of the training images by every earlier unit.
    batches: what it is shown, and the targets; no other label enters, unless
    examples are weighed (`hard_offset`). key: of this unit. step: whole steps done.
    start: the first weights. A fresh one is not on the device yet: :meth:`begin`, or :meth:`load`.
    """

    def __init__(
        self,
        network: Network,
        index: int,
        plan: Plan,
        data: TrainingData,
        before: Sequence[Tensor],
        batches: Batches,
        *,
        key: Key,
    ) -> None:
        self.unit: Unit = network.units[index]
        self.step = 0
        self.start = self.unit.parameters["weight"].clone()
        self._network, self._index, self._plan, self._data = network, index, plan, data
        self._before, self._batches, self._key = before, batches, key
        self.steps = steps_of(plan, batches)
        self._captures = Captures(network, index, data.images, before[-1] if before else None)
        self._weights: Tensor | None = None
        self._rows: tuple[int, Tensor] | None = None
        self._device_ahead = False
        plan.objective.begin(self.unit.width, batches.classes, key.child("objective"))
        parameters = list(self.unit.parameters.values())
        self._optimiser = torch.optim.Adam(parameters, lr=plan.rate, fused=True)

    @property
    def here(self) -> Key:
        """The key of the present step."""
        return self._key.child("step", self.step)

    def begin(self) -> None:
        """Weigh the examples, write the first weights, range the device."""
        plan, key = self._plan, self._key
        if plan.hard_offset is not None and self._before:
            labels = self._data.labels
            features = torch.cat(list(self._before), 1)
            readout = train_readout(features, labels, self._data.classes, key=key.child("hard"))
            self._weights = hard_example_weights(readout, features, labels, plan.hard_offset)
        some = draw(len(self._data.images), 500, key.child("calibrate"))
        self.unit.deploy(_write_key(key, 0))
        drive = self._captures.drive(some)
        self.unit.calibrate(drive, key=key.child("range", "start"), phase="capture")

    def due(self, times: int) -> bool:
        """True on about `times` evenly spread steps, the first and last among them; 0: never."""
        done, now = self.step * times // self.steps, (self.step + 1) * times // self.steps
        return times > 0 and (self.step == 0 or now > done)

    def measured(self) -> Tensor:
        """The features of all training images, (n, width)."""
        return self._captures.features(self._key.child("measured"))

    # -- a step or none -----------------------------------------------------

    def whole_step(self, noting: bool, then: Callable[[Outcome], None]) -> None:
        """One step, then `then`; after an error in either all that is learnt is as before.

        noting: measure the objective too. What fails has left new weights on
        the device: the next step begins by writing the old ones. A ranging of the
        converters in the failed step stays, as do the time and wear it cost the device.
        """
        if self._device_ahead:
            self.write_again()
        undo = self._undo()
        try:
            then(self._train(noting))
        except BaseException:
            undo()
            self._device_ahead = True
            raise
        self.step += 1

    def write_again(self) -> None:
        """Repeat the last write, for a device that has lost it."""
        repeat_write(self.unit, self._key, self._plan.writes.last_write(self.step, self.steps))
        self._device_ahead = False

    def _undo(self) -> Callable[[], None]:
        """What takes parameters, moments and constants back to the present."""
        unit, optimiser, objective = self.unit, self._optimiser, self._plan.objective
        parameters = {n: p.clone() for n, p in unit.parameters.items()}
        moments = {
            n: {k: v.clone() for k, v in optimiser.state[p].items()}
            for n, p in unit.parameters.items()
        }
        constants = unit.constants()
        learnt = {n: t.clone() for n, t in objective.state().items()}

        def undo() -> None:
            for name, parameter in unit.parameters.items():
                parameter.copy_(parameters[name])
                optimiser.state[parameter] = moments[name]
            unit.load_constants(constants)
            objective.load(learnt)

        return undo

    def _train(self, noting: bool) -> Outcome:
        unit, plan, here = self.unit, self._plan, self.here
        rows = self._batch_rows()
        record, images = self._batch_record(rows, here)
        pre_activation = unit.pre_activation(record)
        targets, z = self._batches.targets(rows), rectified(pre_activation)
        noted = plan.objective.measure(z, targets, images) if noting else None
        rate = warmed_cosine(self.step, self.steps, plan.rate, plan.warm_up)
        moment = Moment(rate=rate, progress=self.step / self.steps)
        inputs = images if getattr(plan.objective, "beta", 0.0) > 0 else None
        verdict = plan.objective.verdict(z, targets, inputs, moment)
        gradients = unit.gradients(record, pre_activation, verdict.gradient)
        self._update(gradients, rate)
        if plan.writes.due(self.step, self.steps):
            unit.deploy(here.child("write"), whole=False)
        last = self.step + 1 == self.steps
        if not unit.fixed_physics and (last or (self.step + 1) % plan.range_every == 0):
            unit.calibrate(record.drive, key=here.child("range"))
        self._count_digital(len(rows))
        return Outcome(record, verdict, noted)

    def _batch_rows(self) -> Tensor:
        epoch, which = divmod(self.step, self._batches.steps)
        if self._rows is None or self._rows[0] != epoch:
            rows = self._batches.rows(self._key.child("epoch", epoch), self._weights)
            self._rows = (epoch, rows)
        return self._rows[1][which]

    def _batch_record(self, rows: Tensor, here: Key) -> tuple[Record, Tensor]:
        """The record of a batch and the images the network saw."""
        unit, plan = self.unit, self._plan
        images = self._data.images[rows]
        if plan.recapture == "batch":
            images = plan.augment(images, self._data.shape, here.child("augment"))
            chain = self._network.chain(
                images, key=here.child("chain"), until=self._index, phase="train"
            )
            features = [feature for _, feature in chain]
            drive = self._network.drive(self._index, images, features[-1] if features else None)
            record = unit.capture(drive, key=here.child("read"))
        else:
            epoch = self.step // self._batches.steps // plan.recapture_every
            self._captures.refresh(plan.recapture, epoch, self._key)
            record = self._captures.record(rows, here.child("read"))
        if plan.record_dropout and unit.fixed_physics:
            mean = unit.constants()["mean"]
            record = with_dropout(record, mean, plan.record_dropout, here.child("dropout"))
        return record, images

    def _update(self, gradients: Mapping[str, Tensor], rate: float) -> None:
        for name, gradient in gradients.items():
            # aminmax passes NaN on and costs a tenth of isfinite(...).all().
            if not all(math.isfinite(float(end)) for end in gradient.aminmax()):
                raise ObjectiveError(
                    f"{self.unit.name}: the gradient of {name} is not finite at step {self.step}; "
                    "the parameters are unchanged. Lower the rate or widen the kernel."
                )
        for name, parameter in self.unit.parameters.items():
            parameter.grad = gradients[name]
        self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.step()

    def _count_digital(self, batch: int) -> None:
        inputs, outputs = self.unit.parameters["weight"].shape
        layer = batch * inputs * outputs * (2 if self.unit.fixed_physics else 1)
        loss = 2 * batch * batch * outputs + 3 * batch**3
        cost = Cost(digital_operations=layer + loss)
        self.unit.fence.ledger.add(self.unit.name, "train", cost)

    # -- stop and go on -----------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """What goes on here, beside the unit's own parameters and constants."""
        store = {
            "readings": self._captures.readings,
            "before": self._captures.before if self._captures.epoch > 0 else None,
            "weights": self._weights,
            "start": self.start,
        }
        arrays = {f"unit.{n}": t for n, t in store.items() if t is not None}
        for name, parameter in self.unit.parameters.items():
            moments = self._optimiser.state[parameter]
            arrays |= {f"adam.{name}.{n}": v.clone() for n, v in moments.items()}
        arrays |= {f"objective.{n}": t.clone() for n, t in self._plan.objective.state().items()}
        return arrays, {
            "step": str(self.step),
            "captured_epoch": str(self._captures.epoch),
            "device_ahead": str(int(self._device_ahead)),
        }

    def load(self, arrays: Mapping[str, Tensor], text: Mapping[str, str]) -> None:
        """Go on from what :meth:`state` gave; KeyError if something is missing."""
        store = under(arrays, "unit.")
        self.step = int(text["step"])
        self._weights, self.start = store.get("weights"), store["start"]
        self._captures.epoch = int(text["captured_epoch"])
        # Checkpoints of earlier versions lack it.
        self._device_ahead = text.get("device_ahead", "0") == "1"
        self._captures.readings = store.get("readings")
        self._captures.before = store.get("before", self._captures.before)
        self._plan.objective.load(under(arrays, "objective."))
        for name, parameter in self.unit.parameters.items():
            self._optimiser.state[parameter] = under(arrays, f"adam.{name}.")


def steps_of(plan: Plan, batches: Batches) -> int:
    """How many steps a unit is trained for."""
    return plan.steps if plan.steps is not None else plan.epochs * batches.steps


def repeat_write(unit: Unit, key: Key, steps: int) -> None:
    """Repeat the write that was a unit's last, after `steps` steps; key: of the unit."""
    unit.deploy_again(_write_key(key, steps), phase="resume")


def _write_key(key: Key, steps: int) -> Key:
    return key.child("step", steps - 1, "write") if steps else key.child("deploy", "start")


def under(arrays: Mapping[str, Tensor], head: str) -> dict[str, Tensor]:
    """Clones of the tensors whose names begin with `head`, without it."""
    return {n[len(head) :]: t.clone() for n, t in arrays.items() if n.startswith(head)}
