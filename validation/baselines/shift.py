"""Parameter shift: the derivative of a device with respect to each phase of its drive is
measured on the device itself, exact for light of modulus 1 through a linear medium.

A reading is a + b cos(phi) + c sin(phi) in every single phase (see
`substrates.optics.parametershift`; Schuld et al. 2019, arXiv 1811.11184). A drive spans
only [0, pi], so that the two shifts of the textbook do not fit in; three fixed points do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pib.network import Network
from pib.unit import Unit
from substrates.optics.presets import configured
from twin.errors import Unsupported
from twin.key import Key
from validation.baselines.chain import ChainRule
from validation.baselines.joint import JointTraining
from validation.baselines.method import Learnt, Task
from validation.config import RunConfig, UnitTable

POINTS = (0.0, 0.5, 1.0)
"""Drives at which each phase is tried: 0, pi / 2 and pi."""

ROWS = 8192
"""Patterns sent at once, at most (or those of one sample)."""


class ThroughShift:
    """The backward step through a device by measurements of it.

    Each input that carries a feature is set to the three points of POINTS in turn, all
    others staying: 3 passes per input and sample. Unbiased under any noise of mean
    zero; exact up to the camera's steps; wrong where it clips.
    """

    passes_per_input = len(POINTS)

    def begin(self, task: Task) -> None:
        self._network: Network = task.network
        for unit in task.network.units[1:]:
            port = unit.fence.drive_port
            if not unit.fixed_physics or port.unit != "rad":
                raise Unsupported(
                    f"{unit.name}: parameter shift needs fixed physics driven by phases, got a "
                    f"drive in {port.unit!r}. Use another method, or a phase modulator."
                )

    def at_drive(
        self, index: int, unit: Unit, drive: Tensor, at_reading: Tensor, key: Key
    ) -> Tensor:
        """d loss / d drive (n, inputs); zero for inputs that carry the image."""
        before = self._network.units[index - 1].width * self._network.copies[index]
        found = torch.zeros_like(drive)
        per_chunk = max(1, ROWS // (before * len(POINTS)))
        for start in range(0, len(drive), per_chunk):
            rows = slice(start, start + per_chunk)
            found[rows, :before] = shifted(
                unit, drive[rows], at_reading[rows], before, key, first=start
            )
        return found


def shifted(
    unit: Unit, drive: Tensor, weights: Tensor, inputs: int, key: Key, *, first: int = 0
) -> Tensor:
    """d (weights . reading) / d drive of the first `inputs` inputs, (n, inputs), measured.

    drive: (n, all inputs) in [0, 1], which stands for [0, pi]. weights: (n, reading).
    first: samples of earlier calls under the same key, which had other noise.
    """
    n, every = drive.shape
    points = unit.fence.drive_port.on_grid(torch.tensor(POINTS))
    patterns = drive[:, None, None].repeat(1, len(points), inputs, 1)
    which = torch.arange(inputs)
    patterns[:, :, which, which] = points[None, :, None]
    record = unit.capture(
        patterns.view(-1, every), key=key.child("shift"),
        first_sample=first * len(points) * inputs,
    )  # fmt: skip
    values = record.values.view(n, len(points) * inputs, -1)
    scores = (values @ weights[:, :, None]).view(n, len(points), inputs)
    return _slope(scores, points, drive[:, :inputs])


def _slope(scores: Tensor, points: Tensor, at: Tensor) -> Tensor:
    """The slope at drives `at` (n, inputs) of sinusoids known at three points.

    scores: (n, 3, inputs). The middle point need not be pi / 2 sharp, where the
    modulator has no such level.
    """
    low, middle, high = scores.unbind(1)
    constant, cosine = (low + high) / 2, (low - high) / 2
    phase = math.pi * float(points[1])
    sine = (middle - constant - cosine * math.cos(phase)) / math.sin(phase)
    phases = math.pi * at
    return math.pi * (sine * phases.cos() - cosine * phases.sin())


@dataclass(frozen=True)
class ParameterShift:
    """Backpropagation whose steps through devices are measured."""

    family: str = "parameter-shift"
    own_head: bool = False
    needs_twin: bool = False

    def refusal(self, config: RunConfig) -> str | None:
        for index, table in enumerate(config.unit[1:], 1):
            reason = _no_phases(table)
            if reason is not None:
                return (
                    f"parameter shift measures derivatives by phases, but unit.{index} {reason}. "
                    "Leave the method out, or use pat or dfa"
                )
        return None

    def train(self, task: Task) -> Learnt:
        return JointTraining(task, ChainRule(ThroughShift())).run()


def _no_phases(table: UnitTable) -> str | None:
    """Why a unit's drive is not a phase proportional to it; None if it is."""
    if table.kind == "isomorphic":
        return "is isomorphic: its drive is no phase"
    name = table.backend.split("+")[-1]
    if name != "optics":
        return f"is a {name!r}, of which no phases are known"
    wrappers = ("code_weight", "fault_rate")
    own = {n: v for n, v in table.options.items() if n not in wrappers}
    modulator = configured({"inputs": 1, **own}).modulator
    if modulator.kind != "phase":
        return f"has a modulator of kind {modulator.kind!r}"
    # Behind these the phase is not pi x drive, or depends on the neighbours or the past.
    bent = ("turn_grey", "curve_rad", "believed_turn_grey", "table", "settling_s", "crosstalk")
    given = [option for option in bent if getattr(modulator, option)]
    return f"has a modulator with {', '.join(given)}" if given else None


METHOD = ParameterShift()
