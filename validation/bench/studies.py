"""`pib-twin bench studies`: what the engine of studies costs beside the points.

Cheap synthetic points through the spawned pool, every result written durably.
"""

from __future__ import annotations

import itertools
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from validation.studies.engine import run
from validation.studies.points import Point, expand
from validation.studies.store import Result
from validation.studies.synthetic import synthetic
from validation.studies.workers import Pool
from validation.summary import Figure

WORKERS = 2
POINTS = 1000
WORK_S = 0.05
"""Of a point in the comparison of one worker with two."""


def figures(seconds: float) -> tuple[list[Figure], dict[str, Any]]:
    """Overhead, start, memory and scaling; below 3 `seconds` with fewer points."""
    full = seconds >= 3
    rows = _many(POINTS if full else POINTS // 5)
    rows += _scaling(pairs=9 if full else 2, points=40 if full else 12)
    facts = {
        "workers": WORKERS,
        "points": "synthetic, each result fsynced and renamed",
        "scaling": "median over pairs of runs with one worker and with two, in turn",
    }
    return rows, facts


class _Watch:
    """When results came, and how much memory this process had taken by then."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.bytes: list[int] = []

    def seen(self, result: Result, kept: bool) -> None:  # noqa: ARG002
        self.times.append(time.perf_counter())
        self.bytes.append(_most_bytes())


def _many(count: int) -> list[Figure]:
    """One study of cheap points from the start of the pool to the last file."""
    points = _points(range(count))
    watch, begun = _Watch(), time.perf_counter()
    with _folder() as folder, Pool(WORKERS) as pool:
        run(points, folder, pool, watch)
        again = _Watch()
        resumed = time.perf_counter()
        run(points, folder, pool, again)
        kept = again.times[-1] - resumed
    steady = (watch.times[-1] - watch.times[0]) / (count - 1)
    growth = (watch.bytes[-1] - watch.bytes[count // 5]) / 2**20
    return [
        Figure("overhead_per_point_seconds", steady, "s", "< 0.015", n=count),
        Figure("first_result_seconds", watch.times[0] - begun, "s", "< 1", n=1),
        Figure(f"study_of_{count}_points_seconds", watch.times[-1] - begun, "s", "< 60", n=1),
        Figure("memory_growth_over_the_last_four_fifths", growth, "MiB", "<= 8", n=1),
        Figure("kept_point_seconds", kept / count, "s", n=count),
    ]


def _scaling(pairs: int, points: int) -> list[Figure]:
    """Speed of two workers over one, points of WORK_S without waiting.

    And of the same work in the same processes without the engine: what two
    processors of this machine are worth, at this moment.
    """
    rounds, seeds = _rounds(), itertools.count()
    ratios, bare = [], []
    with Pool(1) as one, Pool(WORKERS) as two:
        for pool in (one, two):
            _timed(pool, _points([next(seeds) for _ in range(4)]))
        for _ in range(pairs):
            given = [next(seeds) for _ in range(points)]
            alone = _timed(one, _points(given, rounds))
            ratios.append(alone / _timed(two, _points(given, rounds)))
            bare.append(_bare(one, points, rounds) / _bare(two, points, rounds))
    name = "speed_of_two_workers_over_one"
    return [
        Figure(name, statistics.median(ratios), "x", ">= 1.7", n=pairs),
        Figure(f"{name}_without_the_engine", statistics.median(bare), "x", n=pairs),
    ]


def _bare(pool: Pool, points: int, rounds: int) -> float:
    begun = time.perf_counter()
    for future in [pool.submit(synthetic, {"rounds": rounds}, n) for n in range(points)]:
        future.result()
    return time.perf_counter() - begun


def _rounds() -> int:
    """Blocks to digest in about WORK_S on this machine."""
    tried = 20_000
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        synthetic({"rounds": tried}, 0)
        took.append(time.perf_counter() - begun)
    return round(tried * WORK_S / min(took))


def _timed(pool: Pool, points: Sequence[Point]) -> float:
    with _folder() as folder:
        begun = time.perf_counter()
        run(points, folder, pool)
        return time.perf_counter() - begun


def _points(seeds: Sequence[int], rounds: int = 0) -> list[Point]:
    return list(
        expand("synthetic", {"rounds": [rounds]}, methods=("synthetic",), seeds=seeds),
    )


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _most_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
