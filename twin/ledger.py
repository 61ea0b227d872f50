"""What a run cost: passes, writes, device seconds, joules, digital work.

Counted per unit and per phase ("train", "capture", "readout", "evaluate"), so
that methods can be compared at equal physical cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields


@dataclass
class Cost:
    """Sums over a run.

    passes: samples x shots that went through the physics. writes: calls to
    program. cells: elements written. device_seconds: at work; waited_seconds:
    device time let pass on purpose. digital_operations: an estimate of the
    multiply-adds of training steps, and of an agent's acting, beside the device
    (layer and loss; the spectra of a step count 3 n^3 together, of a supervised or
    unsupervised one whatever the objective, of an agent's unless alpha is 2).
    """

    passes: int = 0
    calls: int = 0
    writes: int = 0
    cells: int = 0
    ranging_passes: int = 0
    device_seconds: float = 0.0
    waited_seconds: float = 0.0
    joules: float = 0.0
    digital_operations: int = 0

    def add(self, other: Cost) -> None:
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))


class Ledger:
    """Costs by (unit, phase). Only the fence and the trainer write to it."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Cost] = {}

    def add(self, unit: str, phase: str, cost: Cost) -> None:
        """Add `cost` to what `unit` spent in `phase`."""
        self._rows.setdefault((unit, phase), Cost()).add(cost)

    def total(self, unit: str | None = None, phase: str | None = None) -> Cost:
        """The sum over all rows, or over those of one unit and/or phase."""
        total = Cost()
        for (row_unit, row_phase), cost in self._rows.items():
            if unit in (None, row_unit) and phase in (None, row_phase):
                total.add(cost)
        return total

    def rows(self) -> list[dict[str, float | int | str]]:
        """One plain dictionary per (unit, phase), in order of first use."""
        return [{"unit": u, "phase": p, **asdict(c)} for (u, p), c in self._rows.items()]

    def load(self, rows: list[Mapping[str, float | int | str]]) -> None:
        """Replace the contents by what :meth:`rows` once gave."""
        self._rows = {}
        for row in rows:
            cost = Cost(**{f.name: row[f.name] for f in fields(Cost)})  # type: ignore[arg-type]
            self._rows[str(row["unit"]), str(row["phase"])] = cost
