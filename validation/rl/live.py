"""The learning curve of a run, live in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType

from rich.live import Live
from rich.text import Text

from pib.reinforcement.training import Training
from validation.console import console
from validation.rl.outcome import WINDOW, running_mean

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH, HEIGHT = 64, 8
SHOWN_PER_SECOND = 4


class LiveCurve:
    """Shows the running mean of the score while a run goes on."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._live = Live(
            console=console, refresh_per_second=SHOWN_PER_SECOND, transient=False, auto_refresh=True
        )
        self._quiet = quiet

    def __enter__(self) -> LiveCurve:
        if not self._quiet:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._quiet:
            self._live.stop()
            if not console.is_terminal:
                console.print()  # rich leaves the last line open there

    def show(self, training: Training) -> None:
        """The curve as it stands after an episode."""
        if not self._quiet:
            self._live.update(Text(picture(training)))


def picture(training: Training) -> str:
    """A line of numbers, and under it the curve over all steps so far."""
    scores = [row["score"] for row in training.episodes]
    steps = [row["step"] for row in training.episodes]
    state = (
        "frozen" if training.frozen else f"epsilon {training.schedule.epsilon(training.step):.2f}"
    )
    mean = _mean(scores[-WINDOW:])
    head = (
        f"step {training.step:,} of {training.schedule.steps:,}   episode {len(scores)}   "
        f"score {scores[-1]:.0f}   mean of {WINDOW}: {mean:.0f}   {state}"
    ) if scores else "first episode"  # fmt: skip
    means = [_mean(scores[: i + 1]) if math.isnan(m) else float(m)
             for i, m in enumerate(running_mean(scores))]  # fmt: skip
    return "\n".join([head, *curve(steps, means)])


def curve(steps: Sequence[float], values: Sequence[float]) -> list[str]:
    """A filled curve of `values` over `steps`, as HEIGHT lines and an axis."""
    if not values:
        return []
    low, high = min(0.0, *values), max(0.0, *values)
    span = (high - low) or 1.0
    columns = _resampled(steps, values)
    lines = []
    for row in range(HEIGHT - 1, -1, -1):
        filled = [((v - low) / span * HEIGHT - row) * 8 for v in columns]
        cells = "".join(BLOCKS[max(0, min(8, round(part)))] for part in filled)
        label = {HEIGHT - 1: f"{high:.0f}", 0: f"{low:.0f}"}.get(row, "")
        lines.append(f"{label:>6} │{cells}")
    end = f"{steps[-1]:,.0f} steps"
    return [*lines, " " * 7 + "└" + "─" * WIDTH, " " * 8 + "0" + f"{end:>{WIDTH - 1}}"]


def _resampled(steps: Sequence[float], values: Sequence[float]) -> list[float]:
    """The value in force at WIDTH evenly spread steps."""
    columns, index = [], 0
    for column in range(WIDTH):
        at = (column + 1) / WIDTH * steps[-1]
        while index < len(steps) - 1 and steps[index] < at:
            index += 1
        columns.append(values[index])
    return columns


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
