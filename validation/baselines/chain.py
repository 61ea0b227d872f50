"""Credit by the chain rule: exact through everything digital, and through each device
by whatever stands for its derivative (a twin, or measurements of the device itself).

Physics-aware training: Wright et al., Nature 601, 549 (2022): measured forward,
the twin's vector-Jacobian product at the measured drive backward.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from pib.unit import Unit
from twin.key import Key
from twin.ledger import Cost
from validation.baselines.backward import at_feature_before, at_reading, setting_of
from validation.baselines.joint import Passed, direct
from validation.baselines.method import Task, UnitTwin


class Through(Protocol):
    """The backward step through one device.

    passes_per_input: physical passes per sample and input of a device.
    """

    passes_per_input: int

    def begin(self, task: Task) -> None:
        """Once, before the first step."""

    def at_drive(
        self, index: int, unit: Unit, drive: Tensor, at_reading: Tensor, key: Key
    ) -> Tensor:
        """d loss / d drive (n, inputs) of unit `index`, from d loss / d reading."""


class ChainRule:
    """Credit from the head backwards through every device but the first."""

    def __init__(self, through: Through) -> None:
        self._through = through
        self.passes_per_sample = 0

    def begin(self, task: Task, key: Key) -> None:  # noqa: ARG002
        self._network = task.network
        inputs = [
            unit.width * task.network.copies[index + 1]
            for index, unit in enumerate(task.network.units[:-1])
        ]
        self.passes_per_sample = self._through.passes_per_input * sum(inputs)
        self._through.begin(task)

    def at_features(self, passed: Passed, error: Tensor, head: Tensor, key: Key) -> list[Tensor]:
        wanted = direct(passed, error, head)
        for index in range(len(wanted) - 1, 0, -1):
            unit, kept = self._network.units[index], passed.kept[index]
            at = at_reading(unit, passed.pre_activations[index], wanted[index])
            at = at if kept is None else at * kept
            drive = passed.records[index].drive
            at_drive = self._through.at_drive(index, unit, drive, at, key.child(index))
            before = passed.features[index - 1]
            wanted[index - 1] = wanted[index - 1] + at_feature_before(
                self._network, index, before, at_drive
            )
        return wanted


class ThroughTwin:
    """By the derivative of a twin at the measured drive and the commanded setting."""

    passes_per_input = 0

    def __init__(self) -> None:
        self._twins: dict[int, UnitTwin] = {}

    def begin(self, task: Task) -> None:
        assert task.twins is not None
        self._twins = {i: task.twins(i) for i in range(1, len(task.network.units))}

    def at_drive(
        self,
        index: int,
        unit: Unit,
        drive: Tensor,
        at_reading: Tensor,
        key: Key,  # noqa: ARG002
    ) -> Tensor:
        with torch.enable_grad():
            leaf = drive.detach().clone().requires_grad_(True)
            predicted = self._twins[index].predict(leaf, setting_of(unit))
        (found,) = torch.autograd.grad(predicted, leaf, at_reading)
        # A prediction and its transpose, as `twinnet.count_digital` counts a pass; the twins of
        # in-silico training are counted there, on the ledger of the real devices.
        each = 2 * drive.shape[1] * at_reading.shape[1] * (4 if unit.fixed_physics else 1)
        unit.fence.ledger.add(unit.fence.name, "train", Cost(digital_operations=each * len(drive)))
        return found
