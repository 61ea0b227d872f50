"""Is a device still what it was? A fixed probe batch now and then, and an alarm.

The score of a probe is the RMS of its residual to a reference mean, in units of the
reading's full scale; a standardised score is that less its usual level, over its own
repeatability. A two-sided CUSUM finds a change; an EWMA says how large it is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twin.backend import Values
from twin.errors import ConfigError, ReadingError, Unsupported
from twin.fence import Fence
from twin.key import Key

State = Literal["in-sync", "drifting", "lost"]
REFERENCE_PROBES = 1000
"""Probes behind a reference for the stated false-alarm rate (see `Limits`): the errors
of level and repeatability then cost less than a factor two of it in 60 of 60 references."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When to speak of drift. Scores are standardised: 1 is the score's repeatability.

    slack, alarm: of the CUSUM S = max(0, S +- score - slack), which alarms above
    `alarm` and starts anew. With Gaussian, independent scores the defaults alarm once
    in 3,840 probes without any change, and miss a step of 2 within 10 probes in 0.40 %
    (`probes_between_alarms`, `missed`). ewma_weight: of the newest score. quiet: probes
    without an alarm until a drifting device is in sync again. lost_ratio: lost from
    where the EWMA of score / usual level is so high, 1 being the device's own scatter.
    """

    slack: float = 0.65
    alarm: float = 5.6
    ewma_weight: float = 0.2
    quiet: int = 20
    lost_ratio: float = 2.0

    def __post_init__(self) -> None:
        fine = self.slack > 0 and self.alarm > 0 and 0 < self.ewma_weight <= 1
        if not (fine and self.quiet >= 1 and self.lost_ratio > 1):
            raise ConfigError(
                "drift watch: expected slack > 0, alarm > 0, 0 < ewma_weight <= 1, quiet >= 1 and "
                f"lost_ratio > 1, got {self}."
            )

    def probes_between_alarms(self, step: float = 0.0, scale: float = 1.0) -> float:
        """Mean number of probes to an alarm of N(step, scale^2) scores (Markov chain).

        Source: Brook and Evans, Biometrika 59 (1972) 539; the two sides by 1/L = 1/L+ + 1/L-.
        """
        rates = []
        for signed in (step, -step):
            stay = self._chain(signed, scale)
            rates.append(1 / np.linalg.solve(np.eye(len(stay)) - stay, np.ones(len(stay)))[0])
        return float(1 / sum(rates))

    def missed(self, step: float, probes: int = 10, scale: float = 1.0) -> float:
        """Probability of no alarm on the side of a step within so many probes."""
        stay = self._chain(abs(step), scale)
        return float(np.linalg.matrix_power(stay, probes).sum(1)[0])

    def _chain(self, step: float, scale: float, states: int = 200) -> NDArray[np.float64]:
        """Transitions of one CUSUM between `states` levels below the alarm; 0 is a level."""
        from scipy.special import ndtr

        width = 2 * self.alarm / (2 * states - 1)
        level = np.arange(states) * width
        edge = (level[None, :] + width / 2 - level[:, None] + self.slack - step) / scale
        below: NDArray[np.float64] = ndtr(edge)
        return np.diff(below, axis=1, prepend=0.0)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the probes gave when all was well.

    mean: (batch, *reading), of `probes` probes. level, repeatability: mean and standard
    deviation of the score of a further probe, of `scored` probes. Full-scale units.
    """

    mean: Tensor
    probes: int
    level: float
    repeatability: float
    scored: int

    @classmethod
    def of(cls, readings: Tensor) -> Reference:
        """From (probes, batch, *reading); Unsupported if they are all the same, ReadingError
        if a number is not finite."""
        mean, scores = _scored(readings, 3)
        spread = float(scores.std())
        if not spread > 0:
            raise Unsupported(
                "drift watch: all reference probes have the same score, so it has no "
                "repeatability to compare with. Turn the device's noise on, or probe more outputs."
            )
        n = len(readings)
        return cls(mean=mean, probes=n, level=float(scores.mean()), repeatability=spread, scored=n)

    @property
    def is_enough(self) -> bool:
        """Whether the stated false-alarm rate holds."""
        return self.scored >= REFERENCE_PROBES

    def score(self, reading: Tensor) -> float:
        """RMS residual of one probe (batch, *reading).

        Over sqrt(1 + 1/probes): so much the noise left in the mean adds.
        """
        if reading.shape != self.mean.shape:
            raise ConfigError(
                f"drift watch: a probe has shape {tuple(reading.shape)}, the reference "
                f"{tuple(self.mean.shape)}. Send the probes that the reference was measured on."
            )
        residual = (reading.double() - self.mean).square().mean()
        return math.sqrt(float(residual) / (1 + 1 / self.probes))

    def refitted(self, recent: Tensor) -> Reference:
        """The mean from `recent` (probes >= 8, batch, *reading), with this fit as prior.

        The score's level and repeatability are pooled with the old ones, unless the
        level moved by more than four standard errors: then the noise itself has changed,
        the level is the recent one alone, and the repeatability follows in proportion.
        """
        mean, scores = _scored(recent, 8)
        n, level = len(recent), float(scores.mean())
        moved = abs(level - self.level) > 4 * self.repeatability / math.sqrt(n)
        if moved:
            spread = self.repeatability * level / self.level
            return replace(self, mean=mean, probes=n, level=level, repeatability=spread, scored=n)
        scored = self.scored + n
        pooled = (self.level * self.scored + level * n) / scored
        return replace(self, mean=mean, probes=n, level=pooled, scored=scored)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one probe said. probe: its number, from 1. score: RMS residual, full-scale
    units. standardised: in units of the score's own repeatability. level: EWMA of score /
    usual level. alarm: whether the CUSUM alarmed at this probe."""

    probe: int
    state: State
    score: float
    standardised: float
    level: float
    alarm: bool


class Alarm:
    """The chart alone: a stream of scores in, states out."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.probes = self.alarms = 0
        self.restart()

    def restart(self) -> None:
        """Begin in sync; the counts go on."""
        self.state: State = "in-sync"
        self.level, self._up, self._down, self._since = 1.0, 0.0, 0.0, 0

    def note(self, standardised: float, ratio: float = 1.0) -> bool:
        """Take in one score, and the same over its usual level; whether it alarmed.

        ReadingError for what is not finite: sums would hold it for good, and never alarm.
        """
        if not (math.isfinite(standardised) and math.isfinite(ratio)):
            raise ReadingError(
                f"drift watch: expected a finite score, got {standardised} repeatabilities, ratio "
                f"{ratio}. Look for a reading that is not a number: nothing was noted of it."
            )
        limits = self.limits
        self.probes += 1
        self._up = max(0.0, self._up + standardised - limits.slack)
        self._down = max(0.0, self._down - standardised - limits.slack)
        self.level += limits.ewma_weight * (ratio - self.level)
        alarm = max(self._up, self._down) > limits.alarm
        if alarm:
            self.alarms += 1
            self._up = self._down = 0.0
        self._since = 0 if alarm else self._since + 1
        if self.level >= limits.lost_ratio:
            self.state = "lost"
        elif alarm or self.state == "lost":
            self.state, self._since = "drifting", 0
        elif self._since >= limits.quiet:
            self.state = "in-sync"
        return alarm


class Watch:
    """Sends `probes` through a fence every `every` steps and judges the answers.

    probes: (batch, *drive port), always the same. reference: from :meth:`measured`, with
    the same setting and ranges. keep: how many recent readings `resync` may use.
    Passes are counted under "watch". Scores must be independent: noise that is slower
    than the probes (1/f, RTN) alarms more often than stated.
    """

    def __init__(
        self,
        fence: Fence,
        probes: Values,
        reference: Reference,
        *,
        key: Key,
        every: int = 100,
        limits: Limits | None = None,
        keep: int = 64,
    ) -> None:
        if every < 1 or keep < 8:
            raise ConfigError(f"drift watch: every >= 1 and keep >= 8, got {every} and {keep}.")
        self.reference, self.every = reference, every
        self._fence, self._probes, self._key = fence, probes, key
        self._alarm = Alarm(limits)
        self._recent: deque[Tensor] = deque(maxlen=keep)

    @staticmethod
    def measured(
        fence: Fence, probes: Values, *, key: Key, repeats: int = REFERENCE_PROBES
    ) -> Reference:
        """A reference from `repeats` calls with the probes, batch x repeats passes."""
        if fence.capabilities.deterministic:
            raise Unsupported(
                f"{fence.name}: it repeats itself exactly, so a score has no repeatability. "
                "Compare single readings instead."
            )
        calls = (
            fence.forward(probes, key=key.child("reference", i), phase="watch").values
            for i in range(repeats)
        )
        return Reference.of(torch.stack(list(calls)))

    @property
    def state(self) -> State:
        return self._alarm.state

    @property
    def alarms(self) -> int:
        """How often the CUSUM alarmed."""
        return self._alarm.alarms

    def step(self, number: int) -> Verdict | None:
        """Probe if training step `number` is a multiple of `every`."""
        return self.probe() if number % self.every == 0 else None

    def probe(self) -> Verdict:
        """Send the probes once and judge."""
        key = self._key.child("probe", self._alarm.probes)
        return self.note(self._fence.forward(self._probes, key=key, phase="watch").values)

    def note(self, reading: Tensor) -> Verdict:
        """Judge a reading (batch, *reading) of the probes, wherever it came from.

        ReadingError for one with a number that is not finite."""
        score, reference, alarm = self.reference.score(reading), self.reference, self._alarm
        standardised = (score - reference.level) / reference.repeatability
        alarmed = alarm.note(standardised, score / reference.level)
        self._recent.append(reading.detach().clone())
        return Verdict(
            probe=alarm.probes, state=alarm.state, score=score, standardised=standardised,
            level=alarm.level, alarm=alarmed,
        )  # fmt: skip

    def resync(self, recent: Sequence[Tensor] | Tensor | None = None) -> Reference:
        """Take `recent` probes (by default the last `keep`) as the new normal; in sync again.

        Give only readings from after the change. Returns the new reference.
        """
        found = list(self._recent) if recent is None else list(recent)
        if not found:
            raise ConfigError("drift watch: no recent probes to re-sync from. Probe >= 8 times.")
        self.reference = self.reference.refitted(torch.stack(found))
        self._recent.clear()
        self._alarm.restart()
        return self.reference


def _scored(readings: Tensor, fewest: int) -> tuple[Tensor, Tensor]:
    """Mean of probes and each one's score, corrected for being part of that mean.

    A residual to a mean that holds the probe itself is too small by sqrt(1 - 1/n).
    """
    n = len(readings)
    if n < fewest or readings.ndim < 2:
        raise ConfigError(
            f"drift watch: expected (probes >= {fewest}, batch, *reading), got "
            f"{tuple(readings.shape)}. Probe more often."
        )
    mean = readings.detach().mean(0, dtype=torch.float64)
    if not bool(mean.isfinite().all()):
        raise ReadingError(
            "drift watch: expected finite readings to refer to, got some that are not. Leave out "
            "probes with readings that are not a number."
        )
    # One at a time: a float64 copy of all camera frames may not fit.
    scores = torch.stack([(r.double() - mean).square().mean() for r in readings.detach()])
    return mean, (scores * (n / (n - 1))).sqrt()
