"""The search: propose, compute, tell; then seeds for whoever may still be the best.

The record is the folder of points and nothing else: what is there is never
computed again, whoever proposed it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from twin.key import Key
from validation.studies import engine
from validation.studies.designfile import DesignStudy
from validation.studies.points import Point
from validation.studies.proposals import Asked, Drawn, Grid, Proposer
from validation.studies.race import hopeless, next_round
from validation.studies.store import Result, Store
from validation.studies.trials import Design, Trials
from validation.studies.workers import Workers

DEVICE_SECONDS = "device_seconds_training"


@dataclass
class Budget:
    """What may still be spent. points, minutes: of this call; device_hours: of the folder."""

    points: int | None = None
    minutes: float | None = None
    device_hours: float | None = None
    clock: Callable[[], float] = time.monotonic
    device_seconds: float = 0.0
    submitted: int = 0
    begun: float = field(init=False)

    def __post_init__(self) -> None:
        self.begun = self.clock()

    @property
    def left(self) -> bool:
        """Whether one more point may begin."""
        return self.ended is None

    @property
    def ended(self) -> str | None:
        """Which budget is used up; None while all last."""
        if self.points is not None and self.submitted >= self.points:
            return f"points ({self.points})"
        if self.minutes is not None and self.clock() - self.begun >= 60 * self.minutes:
            return f"minutes ({self.minutes:g})"
        if self.device_hours is not None and self.device_seconds >= 3600 * self.device_hours:
            return f"device hours ({self.device_hours:g})"
        return None


class Search:
    """One call of the command on one folder.

    watch: told of every result. planned: told how many more points are to come.
    computed: points that had no result before.
    """

    def __init__(
        self,
        study: DesignStudy,
        folder: Path | str,
        workers: Workers,
        budget: Budget | None = None,
        watch: engine.Watch | None = None,
        planned: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.study, self.store, self.budget = study, Store(folder), budget or Budget()
        self.trials = Trials(study.objectives, study.study.axes)
        self.computed = 0
        self._workers, self._watch = workers, watch or engine.Blind()
        self._planned, self._first = planned, study.study.seeds[0]

    def run(self) -> Trials:
        """Go on until all is settled or a budget is used up."""
        self._recall()
        self._planned(self._to_explore)
        self._explore(self._proposer())
        self._race()
        return self.trials

    @property
    def settled(self) -> bool:
        """Whether nothing is left to compute."""
        return not self._to_explore and not self._rows()

    @property
    def saved(self) -> int:
        """Seeds that hopeless designs were not given."""
        trials, seeds = self.trials, len(self.study.study.seeds)
        if not trials.designs:
            return 0
        counts = trials.counts()
        lost = hopeless(trials.means(), counts, trials.scatter(), self._confidence)
        return int((seeds - counts)[lost].sum())

    # ---- the folder -----------------------------------------------------------

    def _recall(self) -> None:
        """Take in what the folder holds of this study, in the order of its names."""
        for result in self.store.results():
            if self._ours(result):
                self.trials.add(result)
                self._count(result)

    def _ours(self, result: Result) -> bool:
        """Whether the result is of a design and seed of this study, by today's code."""
        design, axes = self.trials.design(result), self.study.study.axes
        if len(design) != len(axes) or any(v not in axes[p] for p, v in design):
            return False
        seed = result.point.seed
        # Not by fields: the folder of the base, say, may have moved.
        key = self.study.point(design, seed).key()
        return seed in self.study.study.seeds and self.store.path(key).is_file()

    def _count(self, result: Result) -> None:
        self.budget.device_seconds += result.figures.get(DEVICE_SECONDS, 0.0)

    def seen(self, result: Result, kept: bool) -> None:
        """As the engine's watcher."""
        self._watch.seen(result, kept)
        if not kept:
            self.computed += 1
            self._count(result)
        self.trials.add(result)

    def _compute(self, points: Sequence[Point]) -> None:
        engine.run(self._affordable(points), self.store.folder, self._workers, self)

    def _affordable(self, points: Sequence[Point]) -> Iterator[Point]:
        """Points until a budget ends; the engine takes them one by one."""
        for point in points:
            if self.store.read(point.key()) is None:
                if not self.budget.left:
                    return
                self.budget.submitted += 1
            yield point

    # ---- the first seed of each design --------------------------------------------

    @property
    def _to_explore(self) -> int:
        known = [d for d in self.trials.known if d in self.trials.failed or self._tried(d)]
        return max(0, self.study.wanted - len(known))

    def _tried(self, design: Design) -> bool:
        return self._first in self.trials.values.get(design, {})

    def _proposer(self) -> Proposer:
        search, axes = self.study.search, self.study.study.axes
        key = Key(search.seed).child("proposals")
        if search.sampler == "grid":
            return Grid(axes, key)
        told = {d: self._values(d) for d in self.trials.designs if self._tried(d)}
        if search.sampler == "random":
            return Drawn(axes, key.child(len(told)))
        goals = [objective.goal for objective in self.study.objectives]
        return Asked(search.sampler, axes, goals, search.seed, search.population, told)

    def _explore(self, proposer: Proposer) -> None:
        batch = math.inf if self.study.search.sampler == "grid" else self.study.search.batch
        while self._to_explore and self.budget.left:
            known = {d for d in self.trials.known if d in self.trials.failed or self._tried(d)}
            designs = proposer.ask(int(min(batch, self._to_explore)), known)
            if not designs:
                return
            self._compute([self.study.point(design, self._first) for design in designs])
            for design in designs:
                if self._tried(design):
                    proposer.tell(design, self._values(design))
                elif design in self.trials.failed:
                    proposer.tell(design, None)

    def _values(self, design: Design) -> list[float]:
        return self.trials.values[design][self._first]

    # ---- further seeds --------------------------------------------------------------

    @property
    def _confidence(self) -> float:
        return self.study.search.confidence

    def _rows(self) -> list[int]:
        trials = self.trials
        if not trials.designs:
            return []
        return next_round(
            trials.means(), trials.counts(), trials.scatter(), len(self.study.study.seeds),
            self._confidence, trials.allowed(self._confidence),
        )  # fmt: skip

    def _race(self) -> None:
        while self.budget.left and (rows := self._rows()):
            designs = [self.trials.designs[row] for row in rows]
            points = [self.study.point(design, self._next_seed(design)) for design in designs]
            self._planned(len(points))
            before = {design: self.trials.seeds(design) for design in designs}
            self._compute(points)
            stuck = all(
                self.trials.seeds(d) == before[d] and d not in self.trials.failed for d in designs
            )
            if stuck:
                return

    def _next_seed(self, design: Design) -> int:
        done = self.trials.seeds(design)
        return next(seed for seed in self.study.study.seeds if seed not in done)
