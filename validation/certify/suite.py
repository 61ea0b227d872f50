"""All certificates of one backend, in the order in which the frames are taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from twin.errors import ConfigError
from twin.fence import Fence
from twin.key import Key
from validation.certify import memory, speckle, stability, transmission
from validation.certify.certificate import Certificate
from validation.certify.rig import Pairs, Rig, as_image
from validation.physics.law import Skipped

MOST_CLIPPED = 0.02
MOST_STUCK = 0.05

Outcome = Certificate | Skipped


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How many frames to take.

    random, smooth, shifted, watched: drives of each kind; all but the shifted
    ones are shown twice. matrix: whether to measure the transmission matrix.
    watch_s: seconds of device time over which frame 0 is looked at again.
    """

    random: int = 256
    smooth: int = 16
    shifted: int = 64
    watched: int = 8
    matrix: bool = True
    watch_s: float = 60.0

    @classmethod
    def quick(cls, watch_s: float = 60.0) -> Scale:
        """Fewer random drives: errors are twice as large."""
        return cls(random=64, shifted=32, watch_s=watch_s)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found. The rest is for the pictures and summary.json.

    frame: one frame as an image. relative: all intensities over the mean of
    their frame. drift: (seconds, correlation with frame 0). memory:
    correlation for shifts of 1, 2, ... macropixels.
    """

    outcomes: list[Outcome]
    frame: Tensor
    relative: Tensor
    patterns: int
    drift: list[tuple[float, float]]
    memory: list[float]
    spectrum: transmission.Spectrum | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Whether every certificate that could be made holds."""
        return all(o.passes for o in self.outcomes if isinstance(o, Certificate))


def certified(
    fence: Fence, key: Key, scale: Scale | None = None, *, patterns: int = 1, dark: float = 0.0
) -> Report:
    """Statistics of an optical backend against those of an i.i.d. scattering medium.

    patterns: independent speckle patterns that add up (2: unpolarised).
    dark: what a dark pixel reads, in units of the reading port's full scale.
    Works from decoded intensities, through the contract only. ConfigError where
    nothing answers the drive.
    """
    _require_optical(fence, patterns)
    scale = scale or Scale()
    everything = Rig(fence, key, dark)
    random = everything.random(scale.random, "random")
    whole, measured = everything.pairs_taken(random, "random")
    live = _live(torch.cat(whole))
    rig = everything.only(live)
    watch = stability.Watch.started(rig, scale.watched)
    pairs: Pairs = (whole[0][:, live], whole[1][:, live])
    ranged = speckle.independent_outputs(pairs, rig.inputs, rig.reach_rad is not None)
    outputs = _outputs(ranged.value, pairs[0].shape[1])
    moved = memory.correlations(everything, scale.shifted)
    matrix, spectrum = _matrix(rig, scale, key)
    flat = rig.pairs(rig.smooth(scale.smooth), "smooth")
    watch.look()
    watch.wait(scale.watch_s)
    memory_found = memory.certificate(moved, scale.shifted, rig.pixels, outputs)
    return Report(
        outcomes=[
            *_camera(measured.saturated, live, len(random)),
            speckle.contrast(pairs, outputs, patterns, "speckle contrast, random drives"),
            speckle.contrast(flat, outputs, patterns, "speckle contrast, smooth drives"),
            speckle.tail(pairs, outputs, patterns, key.child("dither")),
            *matrix,
            ranged,
            *stability.power(pairs),
            watch.certificate(),
            memory_found,
        ],
        frame=as_image(whole[0][0]),
        relative=torch.cat([f / f.mean(1, keepdim=True) for f in (*pairs, *flat)]),
        patterns=patterns,
        drift=watch.curve(),
        memory=moved,
        spectrum=spectrum,
        facts={
            "live_pixels": int(live.sum()),
            "memory_range_macropixels": memory.reach(moved, memory_found.high or 0.0),
            "unscattered_fraction": memory.unscattered(memory_found),
            "frames": fence.ledger.total(fence.name).passes,
        },
    )


def _matrix(rig: Rig, scale: Scale, key: Key) -> tuple[list[Outcome], transmission.Spectrum | None]:
    """Certificates of the transmission matrix, and its singular values."""
    name = "singular values against Marchenko-Pastur"
    missing = transmission.unavailable(rig) if scale.matrix else Skipped(name, "not asked for")
    if missing is not None:
        return [missing], None
    matrix = transmission.measured(rig, key.child("reference"))
    found = transmission.spectrum(matrix, key.child("rows"))
    return [*transmission.singular_values(found, key.child("nulls"))], found


def _camera(clipped: float, live: Tensor, drives: int) -> list[Outcome]:
    """Whether the frames are good enough to judge a medium by."""
    pixels = len(live)
    dead = 1 - live.sum().item() / pixels
    law = "few enough to leave the other statistics alone"
    return [
        Certificate(
            name=name,
            value=value,
            standard_error=(value * (1 - value) / n) ** 0.5,
            low=None,
            high=most,
            law=law,
            n=n,
        )
        for name, value, most, n in (
            ("saturated fraction", clipped, MOST_CLIPPED, 2 * drives * pixels),
            ("pixels that never change", dead, MOST_STUCK, pixels),
        )
    ]


def _live(frames: Tensor) -> Tensor:
    """Pixels (pixels,) bool that were not the same in all frames."""
    return (frames != frames[0]).any(0)


def _outputs(value: float, pixels: int) -> float:
    """The effective number as other statistics may use it: from 2 to all pixels."""
    return min(max(value, 2.0), float(pixels)) if value == value else 2.0


def _require_optical(fence: Fence, patterns: int) -> None:
    capabilities = fence.capabilities
    if len(capabilities.drives) != 1 or capabilities.programmable:
        raise ConfigError(
            f"{fence.name}: an optical backend has one drive port and nothing to program, got "
            f"{len(capabilities.drives)} drive and {len(capabilities.settings)} setting ports."
        )
    if patterns < 1:
        raise ConfigError(f"patterns that add up: expected 1 or more, got {patterns}.")
