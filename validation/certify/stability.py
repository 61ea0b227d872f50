"""Does the rig stay what it is: its power, and its speckle against frame 0."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from twin.errors import DialError, Unsupported
from validation.certify.certificate import SIGMAS, Certificate, around, jackknifed
from validation.certify.rig import Pairs, Rig

STEADY = 0.02
"""Relative change of the power that is allowed."""

ALIKE = 0.9
"""Correlation with frame 0 below which a medium has moved."""

WAITS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Times at which frame 0 is looked at again, as parts of the whole watch."""


def power(pairs: Pairs) -> list[Certificate]:
    """Mean intensity: later half of the frames over the earlier, and frame to frame.

    The r.m.s. is of pairs of the same drive: fluctuations of the source, and
    what flicker of the modulator does to a frame as a whole.
    """
    means = (pairs[0].mean(1) + pairs[1].mean(1)) / 2
    half = len(means) // 2
    early, late = means[:half], means[half:]
    ratio = (late.mean() / early.mean()).item()
    # A frame's mean differs from drive to drive; halves hold other drives.
    error = math.sqrt(sum((x.var() / len(x) / x.mean() ** 2).item() for x in (early, late)))
    return [
        around(
            "mean intensity, later over earlier half", (ratio, error), 1.0, STEADY, "1", len(means)
        ),
        _fluctuation(pairs, means),
    ]


def _fluctuation(pairs: Pairs, means: Tensor) -> Certificate:
    """R.m.s. of the source from frame to frame, without the noise of single pixels."""
    gaps = pairs[0] - pairs[1]
    jumps = (gaps.mean(1) / means).square() / 2
    # What independent noise of the pixels leaves in their mean.
    noise = gaps.var(1) / gaps.shape[1] / means.square() / 2
    excess, count = jumps - noise, len(means)
    rms = math.sqrt(max(0.0, excess.mean().item()))
    error = excess.std().item() / math.sqrt(count)
    return Certificate(
        name="mean intensity, r.m.s. from frame to frame",
        value=rms,
        standard_error=min(math.sqrt(error), error / (2 * rms)) if rms > 0 else math.sqrt(error),
        low=None,
        high=math.sqrt(STEADY**2 + SIGMAS * error),
        law="steady source",
        n=count,
    )


@dataclass
class Watch:
    """Frames of the same few drives, taken again and again.

    times_s: device time of each look. looks: pairs (drives, pixels).
    """

    rig: Rig
    patterns: Tensor
    times_s: list[float]
    looks: list[Pairs]

    @classmethod
    def started(cls, rig: Rig, drives: int) -> Watch:
        """Take frame 0."""
        watch = cls(rig, rig.random(drives, "watch"), [], [])
        watch.look()
        return watch

    def look(self) -> None:
        """Take the frames again."""
        pairs, measured = self.rig.pairs_taken(self.patterns, f"watch {len(self.looks)}")
        self.looks.append(pairs)
        self.times_s.append(measured.clock_s)

    def wait(self, seconds: float) -> None:
        """Look again at parts of `seconds` from now; at once where a device cannot wait."""
        begun, waited = self.times_s[-1], 0.0
        for part in WAITS:
            try:
                self.rig.fence.wait(max(0.0, part * seconds - waited), phase="certify")
            except (Unsupported, DialError):
                break
            waited = max(waited, part * seconds)
            self.look()
            waited = max(waited, self.times_s[-1] - begun)

    def correlation(self, look: int) -> tuple[float, float]:
        """Pearson's, of a look's speckle with that of frame 0, and its standard error."""
        frames = [_centred(f) for pair in (self.looks[0], self.looks[look]) for f in pair]
        return jackknifed(
            lambda kept: _correlation(*(f[:, kept] for f in frames)), frames[0].shape[1]
        )

    def curve(self) -> list[tuple[float, float]]:
        """(seconds since frame 0, correlation with it), looks after the first."""
        return [
            (time - self.times_s[0], self.correlation(look)[0])
            for look, time in enumerate(self.times_s)
            if look
        ]

    def certificate(self) -> Certificate:
        """Correlation of the last look with frame 0."""
        value, error = self.correlation(len(self.looks) - 1)
        seconds = self.times_s[-1] - self.times_s[0]
        return Certificate(
            name="correlation with frame 0 at the end",
            value=value,
            standard_error=error,
            low=min(ALIKE, 1 - SIGMAS * error),
            high=None,
            law=f"1 for a medium at rest, after {seconds:.4g} s",
            n=self.looks[0][0].numel(),
        )


def _centred(frames: Tensor) -> Tensor:
    return frames - frames.mean(1, keepdim=True)


def _correlation(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> float:
    """Of the pair (a, b) with (c, d); what differs within a pair is noise."""
    powers = (a * b).sum() * (c * d).sum()
    if powers <= 0:
        return math.nan
    common = ((a + b) * (c + d)).sum() / 4
    return (common / powers.sqrt()).item()
