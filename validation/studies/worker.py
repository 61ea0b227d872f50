"""What a worker process does with a point: compute, or say why not.

Importing this module imports no torch; it comes with the first point that
needs it.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
import time
from functools import lru_cache
from importlib import metadata
from multiprocessing.connection import Connection

from validation.studies.points import COMPARISON, SYNTHETIC, VOLATILE, Point
from validation.studies.store import Result

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def prepare(lifeline: Connection) -> None:
    """Begin a worker of the pool: one thread for numbers, and no life without a parent.

    lifeline: nothing ever comes through it; it closes when the parent ends,
    also by kill -9, or gives the pool up.
    """
    # Ctrl-C reaches the whole foreground group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(dict.fromkeys(THREADS, "1"))
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    lifeline.poll(None)
    os._exit(0)


def computed(point: Point) -> Result:
    """The result of a point. A failure is a result too; only a dead process is not."""
    begun = time.perf_counter()
    try:
        found = _figures(point)
    except Exception as error:
        failure = {"kind": type(error).__name__, "message": str(error)}
        return Result(point, "failed", {}, failure, _volatile(begun), versions(point))
    figures = {n: float(v) for n, v in found.items() if n not in VOLATILE}
    return Result(point, "done", figures, None, _volatile(begun), versions(point))


def _figures(point: Point) -> dict[str, float]:
    if point.method == SYNTHETIC:
        from validation.studies.synthetic import synthetic

        return synthetic(dict(point.settings), point.seed)
    import torch

    torch.set_num_threads(1)
    if point.kind == COMPARISON:
        from validation.studies.compare.work import work as compared

        return compared(point)
    from validation.studies.work import work

    return work(point)


def _volatile(begun: float) -> dict[str, object]:
    return {"wall_seconds": time.perf_counter() - begun, "host": platform.node()}


def versions(point: Point) -> dict[str, str]:
    """The packages behind the figures of a point."""
    packages = ("pib-twin",) if point.method == SYNTHETIC else ("pib-twin", "numpy", "torch")
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


@lru_cache(maxsize=8)
def _version(package: str) -> str:
    module = sys.modules.get(package)
    if module is not None:
        # torch says "+cpu" here and not in its metadata.
        return str(module.__version__)
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "run from source"
