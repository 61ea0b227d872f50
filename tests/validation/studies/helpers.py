"""Study files, an executor without processes, and a run that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from validation.studies.points import Point, expand
from validation.studies.store import Result

ROOT = Path(__file__).parents[3]
RUN = """
import signal

# A job in the background is started with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys
from pathlib import Path
from validation.studies.main import main
if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), **{extra})
"""


class Inline(Executor):
    """Does everything at once, in this process."""

    def submit(self, act: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(act(*given, **named))
        except Exception as error:
            future.set_exception(error)
        return future


class Seen(list[tuple[Result, bool]]):
    """A watcher that remembers."""

    def seen(self, result: Result, kept: bool) -> None:
        self.append((result, kept))

    def computed(self) -> list[Result]:
        return [result for result, kept in self if not kept]


def cheap(seeds: int = 1, **axes: list[Any]) -> list[Point]:
    """Synthetic points over these axes."""
    return list(expand("synthetic", axes, methods=("synthetic",), seeds=range(seeds)))


def toml(table: Mapping[str, Any], axes: Mapping[str, Any]) -> str:
    """A study file; TOML's values are spelt like JSON's but for odd floats and tables."""
    lines = [f"{json.dumps(name)} = {spelt(value)}" for name, value in table.items()]
    lines += ["[axes]", *(f"{json.dumps(name)} = {spelt(v)}" for name, v in axes.items())]
    return "\n".join(lines) + "\n"


def spelt(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(k)} = {spelt(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(spelt, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value).replace("\x7f", "\\u007f")


def started(file: Path, out: Path, script: Path, **extra: Any) -> subprocess.Popen[str]:
    """The study as a command of its own, leader of a group of processes."""
    script.write_text(RUN.format(extra=repr(extra)))
    return subprocess.Popen(
        [sys.executable, str(script), str(file), str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
