"""Writing the chip sparingly: how much of an update reaches which cells, and when.

The digital copy of the weights changes every step; the chip follows it seldom, only
where it lags far behind, or by one fixed pulse per cell. In between the forward pass
is that of the stale chip, so what is learnt from stays what was measured. A device
that can only be written whole is told the whole setting, unchanged cells included:
whether those are programmed again is its own matter, and its ledger says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twin.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Writes:
    """How the chip follows the digital copy. The default writes all of it each step.

    every: steps between writes; the last step of a unit always writes. threshold: a
    cell is rewritten only when its target is further than this from what was last
    sent to it, in units of the setting (1 is half the signed window). step: a cell that
    is rewritten moves by exactly this much towards its target, by the sign of the
    difference alone; None moves it all the way. All ours.
    """

    every: int = 1
    threshold: float = 0.0
    step: float | None = None

    def __post_init__(self) -> None:
        fine = self.every >= 1 and 0 <= self.threshold < 2
        if not fine or (self.step is not None and not 0 < self.step <= 1):
            raise ConfigError(
                f"writes: expected every >= 1, threshold in [0, 2) and step in (0, 1]: {self}."
            )

    @property
    def whole(self) -> bool:
        """Whether every write follows from the present weights alone."""
        return self.every == 1 and not self.partial

    @property
    def partial(self) -> bool:
        """Whether some cells stay as they are, or short of their target."""
        return self.threshold > 0 or self.step is not None

    def due(self, step: int, steps: int) -> bool:
        """Whether step `step` (from 0) of `steps` ends with a write."""
        return (step + 1) % self.every == 0 or step + 1 == steps

    def last_write(self, done: int, steps: int) -> int:
        """After how many steps the chip was last written, `done` steps being done;
        0 for the write before the first step."""
        return done if done == steps else done - done % self.every

    def towards(self, target: Tensor, written: Tensor) -> Tensor:
        """The setting to write next, from the one wanted and the one on the chip."""
        gap = target - written
        # By a step only where that brings the cell closer.
        beyond = max(self.threshold, 0.0 if self.step is None else self.step / 2)
        moved = target if self.step is None else written + self.step * gap.sign()
        return torch.where(gap.abs() > beyond, moved, written).clamp_(-1.0, 1.0)


WHOLE = Writes()
