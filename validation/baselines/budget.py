"""A ceiling on physical passes that a method cannot cross unseen.

Everything that goes through a device before the test counts: training, ranging,
captures for a readout, probes of a twin.
"""

from __future__ import annotations

from twin.errors import ConfigError, PibTwinError
from twin.ledger import Cost, Ledger


class BudgetSpent(PibTwinError, RuntimeError):
    """A method took more physical passes than it was given."""


class CappedLedger(Ledger):
    """A ledger that refuses to be overdrawn. ceiling: passes, None for no limit."""

    def __init__(self, ceiling: int | None = None) -> None:
        super().__init__()
        self.ceiling = ceiling
        self._counted = 0

    def add(self, unit: str, phase: str, cost: Cost) -> None:
        """Count, then BudgetSpent if the ceiling is crossed."""
        super().add(unit, phase, cost)
        self._counted += cost.passes + cost.ranging_passes
        if self.ceiling is not None and self._counted > self.ceiling:
            raise BudgetSpent(
                f"{unit}, {phase}: {self._counted} physical passes, but the ceiling is "
                f"{self.ceiling}. Plan fewer steps, or raise compare.passes_per_image."
            )


class Budget:
    """What a method may still spend on the devices that write into `ledger`."""

    def __init__(self, ledger: Ledger, ceiling: int | None = None) -> None:
        self._ledger, self.ceiling = ledger, ceiling

    @property
    def spent(self) -> int:
        """Physical passes so far, ranging included."""
        cost = self._ledger.total()
        return cost.passes + cost.ranging_passes

    @property
    def left(self) -> int | None:
        """Physical passes that are left, None for any number."""
        return None if self.ceiling is None else self.ceiling - self.spent

    def steps(self, per_step: float, *, reserve: int = 0, wished: int) -> int:
        """How many steps of `per_step` passes leave `reserve` passes at the end.

        Without a ceiling: `wished`. With one, what it allows, also more than
        that. Raises ConfigError if it allows none.
        """
        if self.left is None:
            return wished
        allowed = int((self.left - reserve) / per_step)
        if allowed < 1:
            raise ConfigError(
                f"a ceiling of {self.ceiling} passes, {self.spent} of them spent and {reserve} "
                f"needed at the end, leaves no training step of {per_step:g} passes. Raise "
                "compare.passes_per_image, or use fewer training images or smaller batches."
            )
        return allowed
