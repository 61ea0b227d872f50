"""Greedy training: one unit after another, each by its own local loss.

How one unit learns is in `pib.local`; here are the order of the units, what is
recorded and what a checkpoint holds. Every random choice is a function of
(key, unit, step), so a resumed run repeats the uninterrupted one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pib.batches import Batches, Recipe
from pib.history import History, ridge_probe
from pib.local import LocalTraining, Outcome, repeat_write, steps_of, under
from pib.network import Network
from pib.objective import Verdict
from pib.plan import Plan, TrainingData
from pib.sampling import draw
from pib.unit import Unit, require_one_ledger
from twin.errors import CheckpointError, ConfigError
from twin.key import Key

__all__ = ["Plan", "Trainer", "TrainingData"]


class Trainer:
    """Trains a network unit by unit; can stop after any step and go on.

    plans: one per unit. key: of the whole training. After :meth:`run`,
    `measured` holds every unit's features of the training images.
    unit_index: whose turn it is. last: the verdict of the latest step.
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
        self.unit_index = 0
        self.last: Verdict | None = None
        self._local: LocalTraining | None = None
        self._batches = _sources(self.plans, data, key.child("batches"))
        pairs = zip(self.plans, self._batches, strict=True)
        self._steps = [steps_of(plan, batches) for plan, batches in pairs]
        for unit, plan in zip(network.units, self.plans, strict=True):
            _agree(unit, plan)

    @property
    def finished(self) -> bool:
        return self.unit_index == len(self.network.units)

    @property
    def step(self) -> int:
        """Whole steps done by the unit whose turn it is."""
        return 0 if self._local is None else self._local.step

    def steps_of(self, index: int) -> int:
        """How many steps unit `index` is trained for."""
        return self._steps[index]

    def run(self, after_step: Callable[[Trainer], None] | None = None) -> list[Tensor]:
        """Train to the end; after_step may raise to stop between two steps."""
        while not self.finished:
            self.advance()
            if after_step is not None:
                after_step(self)
        return self.measured

    def advance(self) -> None:
        """One training step of the unit whose turn it is.

        After an error the parameters are as before the step; calling again writes
        them anew and makes the step with the same keys, on the device as it is then:
        if its converters were ranged in the failed step, they stay so.
        """
        if self._local is None:
            local = self._new_local()
            local.begin()
            self._local = local
        local = self._local
        if local.step < local.steps:
            noting = local.due(self.RECORDS_PER_UNIT)
            local.whole_step(noting, lambda outcome: self._note(local, outcome))
        if local.step == local.steps:
            self._end(local)
        self.network.catch_up()

    def write_again(self, index: int) -> None:
        """Repeat the last write to unit `index`, for a device that has lost it."""
        if index < self.unit_index:
            unit, key = self.network.units[index], self._key_of(index)
            repeat_write(unit, key, self.steps_of(index))
        elif index == self.unit_index and self._local is not None:
            self._local.write_again()

    def _key_of(self, index: int) -> Key:
        return self.key.child("unit", index)

    def _new_local(self) -> LocalTraining:
        index, plan = self.unit_index, self.plans[self.unit_index]
        key, before = self._key_of(index), tuple(self.measured)
        batches = self._batches[index]
        return LocalTraining(self.network, index, plan, self.data, before, batches, key=key)

    def _end(self, local: LocalTraining) -> None:
        """Freeze the unit: measure its features of all training images."""
        features = local.measured()
        self.network.calibrate_link(self.unit_index, features)
        self.measured.append(features)
        self._local = None
        self.unit_index += 1

    # -- what is recorded ---------------------------------------------------

    def _note(self, local: LocalTraining, outcome: Outcome) -> None:
        """Record what is due of the present step."""
        self.last = outcome.verdict
        iteration, index = local.step + 1, self.unit_index
        if local.due(self.PROBES_PER_UNIT):
            accuracy = self._probe(local.here.child("probe"))
            if accuracy is not None:
                row = {"iteration": float(iteration), "accuracy": accuracy}
                self.history.probes[index].append(row)
        # Rows are written last: nothing after them can fail and leave half a step.
        if outcome.noted is not None:
            row = {"iteration": float(iteration), **_figures(outcome.noted)}
            self.history.steps[index].append(row | {"saturated": outcome.record.saturated})
            weight = local.unit.parameters["weight"]
            self.history.weight_row(index, iteration, weight, local.start)

    def _probe(self, key: Key) -> float | None:
        """Accuracy of a ridge classifier on freshly measured features.

        Without labels there is none, but the passes are made all the same: devices
        age by them, and learning must not depend on whether labels exist.
        """
        data = self.data
        rows = draw(len(data.images), 1000, self.key.child("probe"))
        tried = draw(len(data.probe_images), 1000, self.key.child("tried"))
        images = torch.cat([data.images[rows], data.probe_images[tried]])
        features = self.network.features(images, key=key, until=self.unit_index + 1, phase="probe")
        if not data.labelled:
            return None
        fit, test = features[-1][: len(rows)], features[-1][len(rows) :]
        return ridge_probe(fit, data.labels[rows], test, data.probe_labels[tried])

    # -- stop and go on -----------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Everything a resumed run needs, as tensors and as text.

        Raises ConfigError if the units do not share one ledger: of several, the
        costs of all but the first would be lost.
        """
        require_one_ledger(self.network.units)
        arrays = {f"network.{n}": t for n, t in self.network.state().items()}
        arrays |= {f"measured.{i}": t for i, t in enumerate(self.measured)}
        text = {
            "unit_index": str(self.unit_index),
            "step": str(self.step),
            "measured": str(len(self.measured)),
            "begun": str(int(self._local is not None)),
            "history": self.history.dump(),
            "ledger": json.dumps(self.network.units[0].fence.ledger.rows()),
        }
        if self._local is not None:
            more, words = self._local.state()
            arrays, text = arrays | more, text | words
        return arrays, text

    def load(self, arrays: Mapping[str, Tensor], text: Mapping[str, str]) -> None:
        """Go on from what :meth:`state` gave (devices are restored apart)."""
        try:
            self.network.load(under(arrays, "network."))
            self.measured = [arrays[f"measured.{i}"] for i in range(int(text["measured"]))]
            self.unit_index = int(text["unit_index"])
            self.history.load(text["history"])
            self.network.units[0].fence.ledger.load(json.loads(text["ledger"]))
            self._local = None
            if text["begun"] == "1":
                local = self._new_local()
                local.load(arrays, text)
                self._local = local
        except KeyError as error:
            raise CheckpointError(f"the checkpoint lacks {error}; it is of another run.") from None


def _sources(plans: Sequence[Plan], data: TrainingData, key: Key) -> list[Batches]:
    """Every plan's batches; equal recipes share what they found in the images."""
    made: dict[tuple[Recipe, int], Batches] = {}
    for plan in plans:
        if (plan.batches, plan.batch) not in made:
            made[plan.batches, plan.batch] = plan.batches.of(data, plan.batch, key)
    return [made[plan.batches, plan.batch] for plan in plans]


def _agree(unit: Unit, plan: Plan) -> None:
    """Tell a unit how sparingly to write; ConfigError where nothing is written."""
    sparing = getattr(unit, "sparing", None)
    if sparing is not None:
        sparing(plan.writes)
    elif not plan.writes.whole:
        raise ConfigError(
            f"{unit.name}: {plan.writes} is for units whose weights are written to a device; "
            "this one's live in the computer. Leave it out."
        )


def _figures(verdict: Verdict) -> dict[str, float]:
    """Loss and bits; NaN where a value was not computed."""
    found = {
        "loss": verdict.loss,
        "i_yz": verdict.information_yz,
        "i_xz": verdict.information_xz,
        "kernel_mean": verdict.kernel_mean,
    }
    return {name: math.nan if value is None else value for name, value in found.items()}
