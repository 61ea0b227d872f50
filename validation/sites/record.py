"""What a site writes down of its training, step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

COLUMNS = ("time_s", "loss", "version", "seen_step", "door_s")
NOTED = ("step", "loss", "i_yz")
PUBLISHED = ("version", "step", "time_s", "bytes")


@dataclass
class Record:
    """Rows of numbers.

    steps: one per step: time_s (seconds since 1970), loss in bit, version of
    the publication in use (0: none yet) and seen_step, the upstream step it is
    of, and door_s, seconds spent at the door. noted: now and then, step, loss
    and I(Y;Z) in bit by a fixed yardstick. published: version, step, time_s
    (when it first went out, also if its step was repeated since) and bytes of
    each publication.
    """

    steps: list[list[float]] = field(default_factory=list)
    noted: list[list[float]] = field(default_factory=list)
    published: list[list[float]] = field(default_factory=list)

    def schedule(self) -> dict[int, int]:
        """Which publication was consumed at which step: step to version."""
        found, before = {}, 0.0
        for step, row in enumerate(self.steps):
            if row[2] != before:
                found[step] = int(row[2])
            before = row[2]
        return found

    def arrays(self) -> dict[str, Tensor]:
        """As float64 tensors, rows by columns."""
        tables = {"steps": (self.steps, COLUMNS), "noted": (self.noted, NOTED)}
        tables["published"] = (self.published, PUBLISHED)
        return {
            name: torch.tensor(rows, dtype=torch.float64).reshape(-1, len(columns))
            for name, (rows, columns) in tables.items()
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor]) -> Record:
        return cls(**{name: arrays[name].tolist() for name in ("steps", "noted", "published")})


def number(value: float | None) -> float:
    """NaN where a value was not computed."""
    return math.nan if value is None else value
