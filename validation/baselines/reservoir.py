"""An echo-state reservoir whose nonlinearity is a device, for sequences.

h(t) = (1 - a) h(t-1) + a f(W_in u(t) + W h(t-1)): Jaeger, GMD report 148 (2001); leaky
units as in Jaeger et al., Neural Networks 20, 335 (2007). f is what the device makes of
a drive; only a ridge readout learns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twin.errors import ConfigError
from twin.fence import Fence
from twin.key import Key
from validation.baselines.reservoirtasks import HIGHEST, delayed, read_out

RANGING = 200
"""Random drives by which mean and spread of every reading are found."""


@dataclass(frozen=True, kw_only=True)
class ReservoirRecipe:
    """leak: a. radius: spectral radius of W. input_gain: of W_in, uniform in +- this,
    for an input in [0, 1] less its middle. drive_gain: of the sum, about the middle of the drive's
    range, where it is clipped. washout: first steps that nothing is fitted to. train:
    share of the steps that the readout learns from. taps: delays of the linear memory.
    """

    leak: float = 1.0
    radius: float = 0.9
    input_gain: float = 0.5
    drive_gain: float = 0.1
    washout: int = 50
    train: float = 0.7
    taps: int = 50

    def __post_init__(self) -> None:
        if not (0 < self.leak <= 1 and 0 < self.train < 1 and self.washout >= 0):
            raise ConfigError(f"reservoir: leak, train or washout out of range: {self}.")


@dataclass(frozen=True)
class SequenceResult:
    """nrmse: of the reservoir; linear: of a ridge readout on delayed inputs alone;
    shuffled: of the reservoir for targets in random order, 1 if nothing leaks.
    penalty: of the reservoir's ridge. clipped: share of drives at an end of the range.
    passes: through the device, all of them.
    """

    nrmse: float
    linear: float
    shuffled: float
    penalty: float
    clipped: float
    passes: int


class Reservoir:
    """The states of a device in a loop with a fixed random matrix.

    As many nodes as the device has inputs, and no more readings than it has. key:
    of the matrices.
    """

    def __init__(self, fence: Fence, recipe: ReservoirRecipe, key: Key) -> None:
        (self.nodes,), (reading,) = fence.drive_port.shape, fence.reading_port.shape
        if reading < self.nodes:
            raise ConfigError(
                f"{fence.name}: a reservoir of {self.nodes} nodes needs as many readings, got "
                f"{reading}. Give the device more of them, or fewer inputs."
            )
        self._fence, self._recipe = fence, recipe
        n = self.nodes
        w = torch.randn((n, n), generator=key.child("loop").torch(), dtype=torch.float64)
        self._loop = (w * (recipe.radius / float(torch.linalg.eigvals(w).abs().max()))).float()
        self._inward = 2 * torch.rand(n, generator=key.child("in").torch()) - 1
        self._mean, self._scale = torch.zeros(n), torch.ones(n)
        self.clipped = 0.0

    def range(self, key: Key) -> None:
        """Mean and spread of each reading about the middle of the drive; RANGING passes."""
        sums = torch.randn((RANGING, self.nodes), generator=key.child("drives").torch())
        values = self._pass(self._drive(sums), key.child("range"), 0)
        self._mean = values.mean(0)
        spread = values.std(0)
        self._scale = spread.clamp_min(float(0.1 * spread.mean()) + 1e-12)

    def states(self, inputs: Tensor, key: Key) -> Tensor:
        """h(t) after each input, (steps, nodes); one pass each. inputs: (steps,) in [0, 1]."""
        recipe, state, found = self._recipe, torch.zeros(self.nodes), []
        ends = 0
        for t, u in enumerate(inputs.float()):
            sums = recipe.input_gain * (u - 0.5) * self._inward + self._loop @ state
            drive = self._drive(sums[None])
            ends += int(((drive <= 0) | (drive >= 1)).sum())
            answer = (self._pass(drive, key, t)[0] - self._mean) / self._scale
            state = (1 - recipe.leak) * state + recipe.leak * answer
            found.append(state)
        self.clipped = ends / (len(inputs) * self.nodes)
        return torch.stack(found)

    def _drive(self, sums: Tensor) -> Tensor:
        """Sums (n, nodes) about the middle of the drive port's range, clipped."""
        port = self._fence.drive_port
        middle, half = (port.low + port.high) / 2, (port.high - port.low) / 2
        return port.on_grid(middle + half * 2 * self._recipe.drive_gain * sums)

    def _pass(self, drive: Tensor, key: Key, first: int) -> Tensor:
        got = self._fence.forward(drive, key=key, first_sample=first, phase="reservoir")
        return got.values[:, : self.nodes]


def run_reservoir(
    fence: Fence,
    inputs: Tensor,
    targets: Tensor,
    *,
    key: Key,
    recipe: ReservoirRecipe | None = None,
    highest: float = HIGHEST,
) -> SequenceResult:
    """How well a reservoir on one device predicts targets (steps,) from inputs (steps,).

    highest: the largest input, which becomes 1. Everything random comes from `key`.
    """
    recipe = recipe or ReservoirRecipe()
    before = fence.ledger.total(fence.name).passes
    reservoir = Reservoir(fence, recipe, key.child("reservoir"))
    reservoir.range(key.child("range"))
    states = reservoir.states(inputs / highest, key.child("run"))
    passes = fence.ledger.total(fence.name).passes - before
    seen = torch.cat([states.double(), inputs.double()[:, None]], 1)
    train, washout = int(recipe.train * len(inputs)), recipe.washout
    error, penalty = read_out(seen, targets, washout=washout, train=train)
    memory = delayed(inputs.double(), recipe.taps)
    linear, _ = read_out(memory, targets, washout=washout, train=train)
    order = torch.randperm(len(targets), generator=key.child("shuffle").torch())
    shuffled, _ = read_out(seen, targets[order], washout=washout, train=train)
    return SequenceResult(error, linear, shuffled, penalty, reservoir.clipped, passes)
