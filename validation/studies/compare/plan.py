"""What a comparison asks: arms, levels, methods, and what is tuned for each of them.

An arm is one question with its own levels (stuck columns blind, masked, ...). Every
method has the same number of trials at every level of every arm, judged on
validation images with the first seed; its best trial is then run with all seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from validation.studies.points import COMPARISON, Point, Settings, Value

Trial = Mapping[str, Value]

TRIALS: Mapping[str, Sequence[Trial]] = {
    "pib": (
        {"compare.rate": 3e-3, "compare.dropout": 0.2},
        {"compare.rate": 1e-2, "compare.dropout": 0.2},
        {"compare.rate": 3e-3, "compare.dropout": 0.0},
        {"compare.rate": 1e-2, "compare.dropout": 0.4},
    ),
    "pat": (
        {"compare.rate": 3e-3, "compare.batch": 250},
        {"compare.rate": 3e-3, "compare.batch": 50},
        {"compare.rate": 1e-3, "compare.batch": 50},
        {"compare.rate": 6e-3, "compare.batch": 250},
    ),
    "backprop": (
        {"compare.rate": 3e-3, "compare.dropout": 0.2},
        {"compare.rate": 1e-3, "compare.dropout": 0.2},
        {"compare.rate": 3e-3, "compare.dropout": 0.4},
        {"compare.rate": 1e-3, "compare.dropout": 0.0},
    ),
    "phyll": (
        {"compare.rate": 1e-3, "compare.batch": 250},
        {"compare.rate": 3e-2, "compare.batch": 250},
        {"compare.rate": 3e-3, "compare.batch": 100},
        {"compare.rate": 1e-2, "compare.batch": 250},
    ),
    "elm": ({},) * 4,
}
"""Four for everybody. A closed-form readout has nothing to try: its ridge is chosen
among its own values on part of the training images."""

LIKE: Mapping[str, str] = {
    "lce": "pib", "dfa": "pat", "spsa": "pat", "parameter-shift": "pat",
    "backprop-retrained": "backprop", "forward-forward": "phyll", "readout": "elm",
}  # fmt: skip
"""Methods that try what another one tries."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One question of a comparison.

    base: the network. path: the setting that varies over `levels`; "" if nothing
    does. settings: the same at every level. constant: methods on which the path
    has no influence: run once, shown at every level. methods: those asked, all of
    the comparison if empty. trials: at most so many for each of its methods.
    """

    name: str
    base: str
    path: str = ""
    levels: tuple[Value, ...] = (0,)
    label: str = ""
    settings: Mapping[str, Value] = field(default_factory=dict)
    constant: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    log: bool = False
    trials: int = len(TRIALS["pib"])


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Arms and methods under equal cost. figure: what is compared. also: figures that
    stand beside it, where they were measured. same_runs: methods that have no runs of
    their own, by (method that ran, its figure that is theirs): what would be trained
    twice alike. claim: what the
    paper says, in our words, "" if nothing."""

    name: str
    about: str
    methods: tuple[str, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = tuple(range(6))
    limit: int | None = 10_000
    trials: int = 4
    figure: str = "accuracy"
    also: tuple[str, ...] = ()
    same_runs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    claim: str = ""
    quick: bool = False

    def asked(self) -> Iterator[tuple[Arm, str, Value | None]]:
        """Every (arm, method, level); level None where the method does not depend on it."""
        for arm in self.arms:
            for method in arm.methods or self.methods:
                if method in arm.constant or not arm.path:
                    yield arm, method, None
                else:
                    yield from ((arm, method, level) for level in arm.levels)

    def trials_of(self, arm: Arm, method: str, level: Value | None) -> list[Point]:
        """The points that tune a method in one regime; equal ones once."""
        tried = TRIALS[LIKE.get(method, method)][: min(self.trials, arm.trials)]
        points = [self._point(arm, method, level, trial, self.seeds[0]) for trial in tried]
        return list(dict.fromkeys(points))

    def finals(self, chosen: Point) -> list[Point]:
        """The chosen trial with every seed."""
        return [replace(chosen, seed=seed) for seed in self.seeds]

    def _point(self, arm: Arm, method: str, level: Value | None, trial: Trial, seed: int) -> Point:
        settings = dict(arm.settings) | dict(trial)
        if arm.path:
            # Where it makes no difference any level will do, but a ceiling there must be.
            settings[arm.path] = arm.levels[-1] if level is None else level
        plain: Settings = tuple(settings.items())
        return Point(
            base=arm.base, method=method, seed=seed, settings=plain, quick=self.quick,
            limit=self.limit if "data.limit" not in settings else None, kind=COMPARISON,
        )  # fmt: skip
