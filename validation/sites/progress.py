"""Both sites' progress in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from validation.console import console
from validation.sites.order import ROLES, Role


class Both:
    """A bar per site, and a line for whatever happens to one."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._shown = Progress(
            TextColumn("{task.description:<10}"), BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(),
            TextColumn("{task.fields[numbers]}"), console=console, disable=quiet,
        )  # fmt: skip
        self._tasks: dict[Role, TaskID] = {}
        self._quiet, self._said = quiet, 0

    def __enter__(self) -> Both:
        self._shown.start()
        for role in ROLES:
            self._tasks[role] = self._shown.add_task(role, total=None, numbers="starting")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._shown.stop()

    def __call__(self, heard: Mapping[Role, Mapping[str, Any]], news: str) -> None:
        for line in [news] if news else []:
            self._say(line)
        said = heard["downstream"].get("said", [])
        for line in said[self._said :]:
            self._say(f"downstream: {line}")
        self._said = max(self._said, len(said))
        for role, told in heard.items():
            if told:
                self._shown.update(
                    self._tasks[role], completed=told.get("step", 0), total=told.get("steps"),
                    numbers=numbers(role, told),
                )  # fmt: skip

    def _say(self, line: str) -> None:
        if not self._quiet:
            self._shown.console.print(line, style="dim", markup=False)


def numbers(role: Role, told: Mapping[str, Any]) -> str:
    """State, bits and publications of a site, as text."""
    parts = [] if told["state"] == "training" else [told["state"]]
    if told.get("i_yz") is not None:
        parts.append(f"I(Y;Z) {told['i_yz']:.2f} bit")
    version = told.get("version", 0)
    if role == "upstream" and version:
        parts.append(f"{version} published")
    elif version:
        parts.append(f"learns from number {version} (upstream step {told['seen_step']})")
    elif "step" in told and role == "downstream":
        parts.append("nothing published yet")
    return "  ".join(parts)
