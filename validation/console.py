"""What a person sees while a command works: progress, time left, bits, probes."""

from __future__ import annotations

import math
import sys
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from pib.train import Trainer

# In a log or a pipe there is no width to keep to: do not squeeze the tables.
console = Console() if sys.stdout.isatty() else Console(width=120)


class LiveWatcher:
    """A progress bar over all steps of all units, with the latest numbers."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<7}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            disable=quiet,
        )
        self._tasks: dict[int, TaskID] = {}
        self._quiet = quiet

    def __enter__(self) -> LiveWatcher:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def step(self, trainer: Trainer) -> None:
        """Move the bar of the unit in training; finish those before it."""
        now = trainer.unit_index
        for index in range(min(now + 1, len(trainer.plans))):
            task = self._task(trainer, index)
            total = trainer.steps_of(index)
            done = total if index < now else trainer.step
            if not self._progress.tasks[task].finished or index == now:
                self._progress.update(task, completed=done, numbers=numbers(trainer, index))

    def say(self, what: str) -> None:
        """One line about what begins."""
        if not self._quiet:
            self._progress.console.print(f"[dim]{what}[/dim]")

    def _task(self, trainer: Trainer, index: int) -> TaskID:
        if index not in self._tasks:
            name = trainer.network.units[index].name
            self._tasks[index] = self._progress.add_task(
                name, total=trainer.steps_of(index), numbers=""
            )
        return self._tasks[index]


def numbers(trainer: Trainer, index: int) -> str:
    """I(Y;Z), I(X;Z) and the last probe of a unit, as text."""
    history = trainer.history
    parts = []
    if history.steps[index]:
        row = history.steps[index][-1]
        parts += [_bits("I(Y;Z)", row["i_yz"]), _bits("I(X;Z)", row["i_xz"])]
    if history.probes[index]:
        parts.append(f"probe {history.probes[index][-1]['accuracy']:.1%}")
    return "  ".join(part for part in parts if part)


def _bits(name: str, value: float) -> str:
    return "" if math.isnan(value) else f"{name} {value:.2f} bit"
