"""Simultaneous perturbation: two measured losses per step, whatever the number of parameters.

Spall, IEEE Trans. Autom. Control 37, 332 (1992); gains as in Spall, IEEE Trans. Aerosp.
Electron. Syst. 34, 817 (1998). The variance of an estimate grows with the number of
parameters, so that networks of 1e5 learn little: a floor for gradient-free training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pib.unit import Unit
from twin.errors import Unsupported
from twin.key import Key
from twin.ledger import Cost
from validation.baselines.joint import JointTraining, Passed
from validation.baselines.method import Learnt, Task
from validation.config import RunConfig

GAIN_DECAY, SIZE_DECAY = 0.602, 0.101
"""Exponents of Spall (1998): the smallest for which theory holds."""

STABILITY = 0.1
"""Steps by which the gains are delayed, as a share of all (Spall 1998: 10 % or less)."""

SIZE = 0.01
"""First perturbation of every parameter (assumed: a fifth of a He weight at 800 inputs,
a few write steps of an 8-bit chip)."""

Parameters = Mapping[str, Tensor]


def signs(parameters: Parameters, key: Key) -> dict[str, Tensor]:
    """+1 or -1 for every entry, independently and evenly."""
    return {
        name: torch.randint(0, 2, p.shape, generator=key.child(name).torch()).to(p.dtype) * 2 - 1
        for name, p in parameters.items()
    }


def estimate(
    loss: Callable[[int], float], parameters: Parameters, size: float, key: Key
) -> dict[str, Tensor]:
    """[L(theta + c D) - L(theta - c D)] / 2c D: the gradient on average, up to c^2.

    loss: measured with the parameters as they are then, moved in place and back;
    its argument is 0, then 1. size: c. key: of the signs D.
    """
    turned = signs(parameters, key)
    before = {name: p.clone() for name, p in parameters.items()}
    losses = []
    try:
        for side in (0, 1):
            for name, p in parameters.items():
                p.copy_(before[name] + (size if side == 0 else -size) * turned[name])
            losses.append(loss(side))
    finally:
        for name, p in parameters.items():
            p.copy_(before[name])
    slope = (losses[0] - losses[1]) / (2 * size)
    return {name: slope * sign for name, sign in turned.items()}


@dataclass(frozen=True)
class Gains:
    """a_k = a / (A + k + 1)^0.602, starting at `rate`; c_k = c / (k + 1)^0.101."""

    rate: float
    steps: int
    size: float = SIZE

    def at(self, step: int) -> tuple[float, float]:
        """(a_k, c_k) of step k."""
        delay = STABILITY * self.steps
        gain = self.rate * ((delay + 1) / (delay + step + 1)) ** GAIN_DECAY
        return gain, self.size / (step + 1) ** SIZE_DECAY


class Nobody:
    """No credit is given: nothing is sent backwards."""

    passes_per_sample = 0

    def begin(self, task: Task, key: Key) -> None:
        """Nothing."""

    def at_features(self, *_: object) -> list[Tensor]:
        raise Unsupported("SPSA sends no credit backwards; it compares two losses of a batch.")


class SPSATraining(JointTraining):
    """All units and a head, by differences of two losses measured on the same batch."""

    FORWARDS = 2

    def __init__(self, task: Task) -> None:
        super().__init__(task, Nobody())

    def _step(self, step: int, steps: int) -> None:
        here = self.task.key.child("step", step)
        rows, passed = self._rows(step), list[Passed]()

        def loss(side: int) -> float:
            for index, unit in enumerate(self.network.units):
                _write(unit, here.child("perturb", side, index))
            passed.append(self.forward(rows, here, again=side == 1))
            logits = self.logits(passed[-1])
            return float(torch.nn.functional.cross_entropy(logits, self.labels[rows]))

        gain, size = Gains(self.hyper.rate, steps).at(step)
        tensors = self._tensors()
        for name, slope in estimate(loss, tensors, size, here.child("signs")).items():
            tensors[name].sub_(gain * slope)
        self._write(step, steps, passed[0], here)
        self._count_digital(len(rows))

    def _count_digital(self, batch: int) -> None:
        """Two forward products of everything in the computer; the signs are additions."""
        fixed = [u for u in self.network.units if u.fixed_physics]
        layers = sum(p.numel() for u in fixed for p in u.parameters.values())
        head = sum(p.numel() for p in self.head.values())
        fence = self.network.units[0].fence
        fence.ledger.add(fence.name, "train", Cost(digital_operations=2 * batch * (layers + head)))


def _write(unit: Unit, key: Key) -> None:
    if not unit.fixed_physics:
        unit.deploy(key)


@dataclass(frozen=True)
class SimultaneousPerturbation:
    """SPSA of digital layers, settings and head together."""

    family: str = "spsa"
    own_head: bool = False
    needs_twin: bool = False

    def refusal(self, config: RunConfig) -> str | None:  # noqa: ARG002
        return None

    def train(self, task: Task) -> Learnt:
        return SPSATraining(task).run()


METHOD = SimultaneousPerturbation()
