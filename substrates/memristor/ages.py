"""When cells are looked at, and how long ago each was last pulsed.

Law time is device time counted at the temperature a relaxation was measured at:
a hot cell lives faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from substrates.memristor.seconds import Seconds


class Moment(NamedTuple):
    """When cells are looked at. aged_s, age_s: seconds since the last write, in law
    time and by the clock. reads: since then. clock_s: device time."""

    aged_s: float
    age_s: float
    reads: int
    clock_s: float

    def same(self, other: Moment, any_clock: bool) -> bool:
        """Whether cells are alike then; any_clock: whatever the device time."""
        return self[:3] == other[:3] and (any_clock or self.clock_s == other.clock_s)


class Elapsed(NamedTuple):
    """From one write to the end of the next: law time, seconds by the clock, reads."""

    law_s: float
    real_s: float
    reads: int


class Limits(NamedTuple):
    """How far a chip's time may go. oldest_s: law time from the last pulse of the
    oldest cell to the last write. horizon_s: device time its traps are known to."""

    oldest_s: float
    horizon_s: float


@dataclass(frozen=True)
class History:
    """What cells had gone through when the last write ended, since they were pulsed.

    law_s, real_s: law time and seconds, float64; reads, number: of reads, and of the
    write that pulsed the cell, int64; 0, 0, 0 and the last write where that one did.
    All of the shape of the cells, on the CPU.
    """

    law_s: Tensor
    real_s: Tensor
    reads: Tensor
    number: Tensor

    @cached_property
    def oldest_s(self) -> float:
        return float(self.law_s.max())

    def arrays(self) -> dict[str, Tensor]:
        """As named tensors, for a snapshot."""
        return {f"pulsed {f.name}": getattr(self, f.name) for f in fields(self)}

    @staticmethod
    def of(arrays: Mapping[str, Tensor]) -> History | None:
        """Back from what `arrays` gave; None if it is not there."""
        found = {n: arrays[n].cpu() for n in ARRAYS if n in arrays}
        return History(*(found[n] for n in ARRAYS)) if found else None


ARRAYS = tuple(f"pulsed {f.name}" for f in fields(History))


def after_write(
    before: History | None, pulsed: Tensor | None, elapsed: Elapsed, last: int
) -> History | None:
    """The history after one more write; None where all cells were pulsed in it.

    pulsed: bool, None for all. last: number of the write before.
    """
    if pulsed is None or bool(pulsed.all()):
        return None
    if before is None:
        none = torch.zeros(pulsed.shape, dtype=torch.float64)
        before = History(none, none, none.long(), none.long() + last)
    return History(
        law_s=(before.law_s + elapsed.law_s).masked_fill_(pulsed, 0.0),
        real_s=(before.real_s + elapsed.real_s).masked_fill_(pulsed, 0.0),
        reads=(before.reads + elapsed.reads).masked_fill_(pulsed, 0),
        number=before.number.masked_fill(pulsed, last + 1),
    )


def law_age(history: History | None, now: Moment) -> Seconds:
    """Law time since each cell was last pulsed."""
    return now.aged_s if history is None else history.law_s + now.aged_s


def real_age(history: History | None, now: Moment) -> Seconds:
    """Seconds since each cell was last pulsed."""
    return now.age_s if history is None else history.real_s + now.age_s


def reads_since(history: History | None, now: Moment) -> int | Tensor:
    """Reads since each cell was last pulsed."""
    return now.reads if history is None else history.reads + now.reads
