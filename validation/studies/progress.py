"""What a person or a log sees while a study runs."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from twin.errors import UnknownName, nearest
from validation.console import console as usual
from validation.studies.store import Result

MODES = ("live", "quiet", "json-lines")
RECENT = 50
"""Points over which the speed is averaged."""
FAILURES = 20
"""Failures that are told one by one; the summary has all of them."""
EACH_S = 0.25
"""Between two drawings."""


@dataclass
class Tally:
    """What has been seen so far. figure: what "best" means.

    kept: results that were there already, not counted in the speed.
    """

    total: int
    figure: str = "accuracy"
    done: int = 0
    failed: int = 0
    kept: int = 0
    best: Result | None = None
    last_failed: Result | None = None
    started: float = field(default_factory=time.monotonic)
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    def seen(self, result: Result, kept: bool) -> None:
        """Count a result."""
        if result.status == "done":
            self.done += 1
            value = result.figures.get(self.figure)
            if value is not None and (self.best is None or value > self.best.figures[self.figure]):
                self.best = result
        else:
            self.failed += 1
            self.last_failed = result
        if kept:
            self.kept += 1
        else:
            self._ends.append(time.monotonic())

    @property
    def left(self) -> int:
        return self.total - self.done - self.failed

    @property
    def computed(self) -> int:
        return self.done + self.failed - self.kept

    @property
    def per_minute(self) -> float | None:
        """Points per minute lately; None before the first."""
        if not self._ends:
            return None
        whole = self.computed <= RECENT
        since = self.started if whole else self._ends[0]
        count = len(self._ends) if whole else len(self._ends) - 1
        return 60 * count / max(self._ends[-1] - since, 1e-6)

    @property
    def seconds_left(self) -> float | None:
        """None while it is unknown."""
        speed = self.per_minute
        return None if not speed else 60 * self.left / speed


class Shown:
    """A table that is redrawn in place, and a line for each failure."""

    def __init__(self, tally: Tally, console: Console | None = None) -> None:
        self.tally, self._console = tally, console or usual
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._drawn_at = 0.0

    def __enter__(self) -> Shown:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def seen(self, result: Result, kept: bool) -> None:
        self.tally.seen(result, kept)
        if result.status == "failed" and not kept and self.tally.failed <= FAILURES:
            self._live.console.print(f"failed: {result.point.told()}: {result.reason}",
                                     style="red", markup=False, highlight=False)  # fmt: skip
        now = time.monotonic()
        if now - self._drawn_at > EACH_S:
            self._drawn_at = now
            self._live.update(picture(self.tally), refresh=True)


class JsonLines:
    """One JSON object per result on a stream, for logs."""

    def __init__(self, tally: Tally, stream: TextIO | None = None) -> None:
        self.tally, self._stream = tally, stream or sys.stdout

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *of_an_error: object) -> None:
        """Nothing to put back."""

    def seen(self, result: Result, kept: bool) -> None:
        self.tally.seen(result, kept)
        content: dict[str, Any] = {
            "key": result.point.key(),
            "point": result.point.plain(),
            "status": result.status,
            "kept": kept,
            "figures": {n: v if v - v == 0 else repr(v) for n, v in result.figures.items()},
            "error": result.error,
            "done": self.tally.done,
            "failed": self.tally.failed,
            "left": self.tally.left,
        }
        self._stream.write(json.dumps(content, allow_nan=False) + "\n")
        self._stream.flush()


class Quiet:
    """Counts and shows nothing."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *of_an_error: object) -> None:
        """Nothing to put back."""

    def seen(self, result: Result, kept: bool) -> None:
        self.tally.seen(result, kept)


def watcher(mode: str, tally: Tally) -> Shown | JsonLines | Quiet:
    """The one for the mode: "live", "quiet" or "json-lines"."""
    if mode not in MODES:
        raise UnknownName(f"no way to show progress is called {mode!r}. {nearest(mode, MODES)}")
    if mode == "json-lines":
        return JsonLines(tally)
    return Quiet(tally) if mode == "quiet" else Shown(tally)


def picture(tally: Tally) -> Group:
    """The state of a study as a bar and a table of one row."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    row = {
        "done": f"[green]{tally.done}[/green]",
        "failed": f"[red]{tally.failed}[/red]" if tally.failed else "0",
        "left": str(tally.left),
        "points/min": "" if tally.per_minute is None else f"{tally.per_minute:.3g}",
        "time left": "" if tally.seconds_left is None else duration(tally.seconds_left),
        f"best {tally.figure}": best(tally),
    }
    for name in row:
        table.add_column(name, no_wrap=not name.startswith("best"), overflow="fold")
    table.add_row(*row.values())
    bar = ProgressBar(total=max(tally.total, 1), completed=tally.total - tally.left, width=60)
    return Group(bar, table)


def best(tally: Tally) -> str:
    """The best result so far with its point, "" before the first."""
    if tally.best is None:
        return ""
    return f"{tally.best.figures[tally.figure]:.4g} ({tally.best.point.told()})"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 8 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    whole = round(seconds)
    for size, name, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"),
                                     (60, "min", 1, "s")):  # fmt: skip
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {name}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"
