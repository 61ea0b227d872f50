"""Speckle of the same images at training and at test time, beside the error budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pib.unit import Unit
from substrates.optics.budget import Budget, budget
from substrates.optics.conditions import conditions_of
from substrates.optics.presets import PRESETS, configured
from twin.fence import Fence
from twin.key import Key
from validation.certify.certificate import jackknifed
from validation.config import UnitTable
from validation.experiment import open_device

PERFECT = PRESETS["ideal"]
"""Options that take the noise, the rounding and the clipping from a rig."""


@dataclass(frozen=True)
class Compared:
    """A speckle correlation as the budget predicts it and as the frames show it.

    standard_error: of `measured`, jackknifed over the camera's pixels.
    """

    predicted: float
    measured: float
    standard_error: float


@dataclass(frozen=True)
class Seen:
    """What one unit's camera saw of the images that were shown twice.

    Pearson over pixels, averaged over images, of two frames of one drive:
    later: the frame at test time, with the clean pattern at training time;
    fresh: the frame of the training capture, with that same clean pattern;
    pair: the two noisy frames, which a rig without a twin can measure; the
    budget of such a pair is the product of the other two.
    The clean pattern is the frame of a perfect rig (no noise, fine codes, no
    clipping) behind the same medium at the device time of the training frame:
    what the budget's correlation is defined by. age_s: device seconds between
    the two frames. budget_holds: every factor is in its range of validity.
    """

    age_s: float
    later: Compared
    fresh: Compared
    pair: Compared
    budget_holds: bool


@dataclass(frozen=True)
class Shown:
    """Neighbouring training images as a unit saw them in its training capture.

    drive: (n, inputs) in [0, 1]; frames, clean: (n, pixels), as taken and as a
    perfect rig takes them; taken_s: device time of the first. options: of the rig.
    """

    unit: Unit
    options: Mapping[str, Any]
    drive: Tensor
    frames: Tensor
    clean: Tensor
    taken_s: float

    def again(self, now_s: float, key: Key) -> Seen:
        """Show them once more, at device time now_s; costs passes and time."""
        frames = self.unit.capture(self.drive, key=key, phase="shown again").values
        age_s = now_s - self.taken_s
        aged, new = (predicted(self.options, self.drive.shape[1], t) for t in (age_s, 0.0))
        return Seen(
            age_s=age_s,
            later=_compared(aged.correlation, frames, self.clean),
            fresh=_compared(new.correlation, self.frames, self.clean),
            pair=_compared(aged.correlation * new.correlation, frames, self.frames),
            budget_holds=aged.holds,
        )


def predicted(options: Mapping[str, Any], inputs: int, after_s: float) -> Budget:
    """The error budget of a rig for frames that are after_s device seconds apart."""
    config = configured({"inputs": inputs, **options})
    return budget(conditions_of(config, after_s=after_s))


def clean_frames(table: UnitTable, index: int, drive: Tensor, at_s: float, key: Key) -> Tensor:
    """Frames of the perfect rig with the medium of unit `index`, from device time at_s.

    key: of the run, which fixes the medium and its drift.
    """
    perfect = table.model_copy(update={"options": table.options | dict(PERFECT)})
    device = open_device(perfect, index, drive.shape[1], key)
    fence = Fence(device, name=f"perfect unit {index + 1}")
    try:
        fence.wait(at_s)
        return fence.forward(drive, key=key.child("clean", index)).values
    finally:
        fence.close()


def pearson(first: Tensor, second: Tensor) -> float:
    """Correlation over the last axis, averaged over the rows."""
    a, b = (x - x.mean(1, keepdim=True) for x in (first.double(), second.double()))
    return float(((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean())


def _compared(law: float, first: Tensor, second: Tensor) -> Compared:
    # All rows share a medium, so they are not independent; pixels are.
    value, error = jackknifed(
        lambda pixels: pearson(first[:, pixels], second[:, pixels]), first.shape[1]
    )
    return Compared(law, value, error)
