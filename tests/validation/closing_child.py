"""Trains on devices that end the run from within, and tells how often each was closed.

Run as a process of its own: argv[1] is a folder, argv[2] the cases as JSON, each
(what, where): what is "SIGINT", "SIGTERM" or "error", where a phase of a device's life.
The answer is JSON: for each case the exit code and the closes of every device made.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from substrates.ideal import make as make_ideal
from twin import registry
from validation.cli import app

CONFIG = """
[data]
name = "digits"
limit = 60

[network]
skip = false
hard_examples = false
shared_clock = false

[[unit]]
backend = "ending"
outputs = 6
epochs = 1

[[unit]]
backend = "ending"
outputs = 5
epochs = 1
"""


class Case:
    """What happens where, and the devices made meanwhile."""

    def __init__(self, what: str, where: str) -> None:
        self.what, self.where = what, where
        self.closes: list[int] = []
        self.passed: dict[str, int] = {}

    def at(self, phase: str) -> None:
        """A device is in this phase for the n-th time."""
        number = self.passed[phase] = self.passed.get(phase, 0) + 1
        if self.where == f"{phase} {number}":
            if self.what == "error":
                raise RuntimeError("the rig is on fire")
            os.kill(os.getpid(), getattr(signal, self.what))


class Ending:
    """An ideal device that lives a case."""

    def __init__(self, case: Case, inner: Any) -> None:
        self._case, self._inner = case, inner
        self._number = len(case.closes)
        case.closes.append(0)
        self.capabilities = inner.capabilities

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._inner, name)

        def lived(*args: Any, **options: Any) -> Any:
            self._case.at(name)
            return act(*args, **options)

        return lived

    def close(self) -> None:
        self._case.closes[self._number] += 1
        self._case.at("close")
        self._inner.close()


class Point:
    """Stands for an installed entry point."""

    def __init__(self, case: Case) -> None:
        self._case = case

    def load(self) -> Any:
        def make(**options: Any) -> Ending:
            self._case.at("make")
            return Ending(self._case, make_ideal(noise_v=0.01, **options))

        return make


def lived(what: str, where: str, folder: Path) -> dict[str, Any]:
    """One run of the command."""
    case = Case(what, where)
    registry._installed = lambda: {"ending": Point(case)}  # type: ignore[dict-item,return-value]
    config = folder / "network.toml"
    config.write_text(CONFIG)
    out = folder / f"{what} {where}"
    words = ["train", str(config), "--no-references", "--quiet", "--out", str(out)]
    result = CliRunner().invoke(app, words)
    return {"code": result.exit_code, "closes": case.closes, "passed": case.passed}


if __name__ == "__main__":
    # A process that a shell put in the background starts with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    told = [lived(what, where, Path(sys.argv[1])) for what, where in json.loads(sys.argv[2])]
    sys.stdout.write(json.dumps(told))
