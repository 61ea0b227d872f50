"""From points to results in a folder, through any executor. No scheduler of our own.

A point whose result is there and sound is skipped. A point that fails is kept
with its reason and stops no other. Killed at any moment, a run loses only the
points in flight; the next one goes on at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from pathlib import Path
from typing import Protocol

from validation.studies.points import Point
from validation.studies.store import Result, Store
from validation.studies.worker import computed, versions
from validation.studies.workers import Borrowed, Workers

AHEAD = 2
"""Points handed over per worker, so that none waits for the disk."""

DEATHS = 3
"""So often may a process die with a point alone before the point counts as failed."""


class Watch(Protocol):
    """Who looks on. kept: the result was there already."""

    def seen(self, result: Result, kept: bool) -> None: ...


class Blind:
    """A watcher that shows nothing."""

    def seen(self, result: Result, kept: bool) -> None:
        """Look away."""


def run(
    points: Iterable[Point],
    folder: Path | str,
    executor: Workers | Executor,
    watch: Watch | None = None,
    *,
    retry_failed: bool = False,
) -> None:
    """Compute all points that have no result in `folder`.

    watch: told of every result, old and new. retry_failed: failed points are
    computed again. After Ctrl-C finished points are kept and the rest is
    cancelled; the executor is left to its owner.
    """
    workers = Borrowed(executor) if isinstance(executor, Executor) else executor
    _Run(Store(folder), workers, Blind() if watch is None else watch, retry_failed).through(points)


class _Run:
    """What is in flight, and what is left."""

    def __init__(self, store: Store, workers: Workers, watch: Watch, retry: bool) -> None:
        self.store, self.workers, self.watch, self.retry = store, workers, watch, retry
        self.flying: dict[Future[Result], tuple[str, Point]] = {}
        self.suspects: deque[tuple[str, Point]] = deque()
        self.deaths: dict[str, int] = {}

    def through(self, points: Iterable[Point]) -> None:
        left = self._left(points)
        try:
            while self._fill(left):
                done = wait(self.flying, return_when=FIRST_COMPLETED).done
                # In the order they were handed over, which a set does not keep.
                for future in [each for each in self.flying if each in done]:
                    # Others of the same break are dealt with together.
                    if future in self.flying:
                        self._land(future)
        finally:
            for future, (key, _) in self.flying.items():
                future.cancel()
                self.store.release(key)

    def _left(self, points: Iterable[Point]) -> Iterator[tuple[str, Point]]:
        """What to compute; what other processes seem to be at comes last."""
        later: list[tuple[str, Point]] = []
        for key, point in _once(points):
            if self._wanted(key):
                if self.store.claimed_elsewhere(key):
                    later.append((key, point))
                else:
                    yield key, point
        yield from ((key, point) for key, point in later if self._wanted(key))

    def _wanted(self, key: str) -> bool:
        """Whether there is no result; one that is there is shown."""
        result = self.store.read(key)
        if result is None or (self.retry and result.status == "failed"):
            return True
        self.watch.seen(result, kept=True)
        return False

    def _fill(self, left: Iterator[tuple[str, Point]]) -> bool:
        """Hand over as many points as fit; False when nothing is left."""
        while len(self.flying) < self._room():
            following = self.suspects.popleft() if self.suspects else next(left, None)
            if following is None:
                break
            self._submit(*following)
        return bool(self.flying)

    def _room(self) -> int:
        """Suspects fly alone: if a process dies again, it is known with whom."""
        suspected = any(key in self.deaths for key, _ in self.flying.values())
        return 1 if self.suspects or suspected else AHEAD * self.workers.count

    def _submit(self, key: str, point: Point) -> None:
        self.store.claim(key)
        try:
            self.flying[self.workers.submit(computed, point)] = key, point
        except BrokenExecutor:
            # Broken before this point began: it is innocent.
            self.suspects.append((key, point))
            self._renew(list(self.flying.values()))

    def _land(self, future: Future[Result]) -> None:
        key, point = self.flying.pop(future)
        error = future.exception()
        if error is None:
            self._keep(key, future.result())
        elif isinstance(error, BrokenExecutor):
            self._renew([(key, point), *self.flying.values()])
        else:
            # E.g. dask gave up on a point after its workers died with it.
            self._keep(key, _failed(point, type(error).__name__, str(error)))

    def _renew(self, involved: list[tuple[str, Point]]) -> None:
        """A process died: begin with new ones, and try those involved one by one."""
        self.flying.clear()
        self.workers.renew()
        for key, point in involved:
            self.deaths[key] = self.deaths.get(key, 0) + (len(involved) == 1)
            if self.deaths[key] >= DEATHS:
                message = (
                    f"the process that computed it died {DEATHS} times (out of memory, or killed)"
                )
                self._keep(key, _failed(point, "WorkerDied", message))
            else:
                self.suspects.append((key, point))

    def _keep(self, key: str, result: Result) -> None:
        self.store.write(key, result)
        self.watch.seen(result, kept=False)


def _once(points: Iterable[Point]) -> Iterator[tuple[str, Point]]:
    """Points with their keys; a second one of the same key is left out."""
    seen: set[str] = set()
    for point in points:
        key = point.key()
        if key not in seen:
            seen.add(key)
            yield key, point


def _failed(point: Point, kind: str, message: str) -> Result:
    return Result(point, "failed", {}, {"kind": kind, "message": message}, {}, versions(point))
