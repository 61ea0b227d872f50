"""What a robustness study asks: which network, what is swept how far, which points.

A plan is a TOML file, so that a report can be made again from the file beside it.
"""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from twin.config import build, parse_toml, read_text
from twin.errors import UnknownName, nearest
from validation.config import RunConfig
from validation.studies.nonidealities import Inventory
from validation.studies.points import Point, Settings
from validation.studies.severity import NonIdeality, at

TOGETHER = "all together"
METHODS = ("pib", "backprop", "backprop-retrained")
TEST, LOOP = "test", "training"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Ends(_Table):
    """The values at severity 0 and 1, in the unit of the non-ideality."""

    zero: float
    severe: float


Severity = Annotated[float, Field(gt=0, le=1)]


class Plan(_Table):
    """A robustness study.

    network: a preset, or a run configuration. methods: see points.METHODS; the
    first one ranks. seeds: of devices and training. severities: above 0, up
    to 1. loop_severities: of these, the ones to train at; None: every second,
    counted from 1. loop_worst: in the loop, sweep only so many of the worst (None: all).
    limit: training images. quick: epochs as of the network's --quick.
    accuracy_points: losses whose severity is asked for, percentage points.
    pairs_of_worst: interactions of all pairs of so many of the worst, at
    pair_severity. non_idealities: only these, with these ends (all if empty).
    """

    network: str
    methods: Annotated[tuple[str, ...], Field(min_length=1)] = METHODS
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 1, 2)
    severities: Annotated[tuple[Severity, ...], Field(min_length=1)] = (
        0.0625, 0.125, 0.25, 0.5, 1.0,
    )  # fmt: skip
    loop_severities: tuple[Severity, ...] | None = None
    loop_worst: Annotated[int, Field(ge=0)] | None = None
    limit: Annotated[int, Field(ge=20)] | None = None
    quick: bool = False
    accuracy_points: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=100)], ...], Field(min_length=1)
    ] = (1.0, 5.0)
    pairs_of_worst: Annotated[int, Field(ge=0, le=8)] = 3
    pair_severity: Severity = 0.5
    non_idealities: dict[str, Ends] = Field(default_factory=dict)

    @field_validator("severities")
    @classmethod
    def _rising(cls, severities: tuple[float, ...]) -> tuple[float, ...]:
        if list(severities) != sorted(set(severities)) or severities[-1] != 1:
            raise ValueError("severities rise to 1, each once")
        return severities

    @property
    def in_loop(self) -> tuple[float, ...]:
        """The severities above 0 that networks are trained at."""
        return self.severities[::-2][::-1] if self.loop_severities is None else self.loop_severities

    @model_validator(mode="after")
    def _on_the_grid(self) -> Plan:
        if not set(self.in_loop) <= set(self.severities) or 1 not in self.in_loop:
            raise ValueError("loop_severities: 1 and others of the severities")
        if self.pair_severity not in self.severities:
            raise ValueError(
                f"pair_severity ({self.pair_severity:g}) must be one of the severities: pairs are "
                "compared with their members alone"
            )
        return self


QUICK: Mapping[str, object] = {
    "seeds": (0, 1),
    "severities": (0.5, 1.0),
    "loop_severities": (0.5, 1.0),
    "loop_worst": 3,
    "quick": True,
}
"""What --quick changes: fewer seeds and severities, the network's own quick training;
in the loop only the worst."""


def load_plan(path: Path) -> Plan:
    """The plan in a TOML file; ConfigError that names the key.

    A network that is a file is looked for beside the plan.
    """
    table = parse_toml(read_text(path), str(path))
    plan = build(Plan, table, str(path))
    if plan.network.endswith(".toml"):
        plan = plan.model_copy(update={"network": str(path.parent / plan.network)})
    return plan


def is_plan(path: Path) -> bool:
    """Whether a TOML file is a plan (and no run configuration)."""
    try:
        return "network" in (table := tomllib.loads(path.read_text())) and isinstance(
            table["network"], str
        )
    except (OSError, ValueError):
        return False


def narrowed(plan: Plan, found: Inventory) -> Inventory:
    """The non-idealities that the plan names, with its ends; all if it names none."""
    if not plan.non_idealities:
        return found
    chosen = found.named(plan.non_idealities)
    ends = plan.non_idealities
    swept = (replace(o, zero=ends[o.name].zero, severe=ends[o.name].severe) for o in chosen.swept)
    return Inventory(tuple(swept), chosen.left_out)


def written(plan: Plan, swept: Sequence[NonIdeality], command: str) -> str:
    """The plan as TOML, every non-ideality with its ends stated."""
    network = "network.toml" if plan.network.endswith(".toml") else plan.network
    head = plan.model_dump(exclude={"non_idealities", "network"}, exclude_none=True)
    lines = [f"# {line}" for line in command.splitlines()]
    lines += [f"network = {_toml(network)}"]
    lines += [f"{name} = {_toml(value)}" for name, value in head.items()]
    for one in swept:
        lines += ["", f"[non_idealities.{_toml(one.name)}]"]
        lines += [f"# {one.about}" + ("" if one.unit == "1" else f"; in {one.unit}")]
        lines += [f"zero = {_toml(float(one.zero))}", f"severe = {_toml(float(one.severe))}"]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # A JSON string, number or truth value is one of TOML, too.
    return json.dumps(value, ensure_ascii=False)


# ---- cases and their points ---------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One or several non-idealities that are turned to one severity together."""

    name: str
    members: tuple[NonIdeality, ...]

    @staticmethod
    def of(*members: NonIdeality) -> Case:
        return Case(" + ".join(one.name for one in members), members)

    @property
    def delivered_severity(self) -> float | None:
        """Where the network as delivered stands on this case's curve, if it does."""
        known = {one.delivered_severity for one in self.members}
        return known.pop() if len(known) == 1 else None

    @property
    def whens(self) -> tuple[str, ...]:
        """When it can come: in the loop, or after training only."""
        return tuple(w for w in (TEST, LOOP) if any(w in one.whens for one in self.members))

    def severities(self, plan: Plan, when: str) -> tuple[float, ...]:
        """The severities to compute; without 0 where that is the network as delivered."""
        high = plan.severities if when == TEST else plan.in_loop
        high = (1.0,) if all(one.is_event for one in self.members) else high
        return high if self.delivered_severity == 0 else (0.0, *high)

    def settings(self, severity: float, when: str) -> Settings:
        return at({one: severity for one in self.members if when in one.whens}, when)

    def point(self, plan: Plan, severity: float, method: str, when: str, seed: int) -> Point:
        """What is computed for one place in the dataset."""
        return replace(
            reference(plan, method, seed), settings=self.settings(severity, when), when=when
        )


@dataclass(frozen=True)
class Study:
    """A plan with what it is about. refused: (method, reason) of those left out."""

    plan: Plan
    config: RunConfig
    found: Inventory
    images: int
    data: str | None = None
    refused: tuple[tuple[str, str], ...] = ()

    @property
    def cases(self) -> list[Case]:
        """Each non-ideality alone, and then all together."""
        return [*singles(self.found.swept), together(self.found.swept)]

    def placed(self, asked: Iterable[Point]) -> list[Point]:
        """The points with the folder where the data lie."""
        return [replace(point, data=self.data) for point in asked]


def singles(swept: Iterable[NonIdeality]) -> list[Case]:
    """One case for each non-ideality."""
    return [Case.of(one) for one in swept]


def together(swept: Iterable[NonIdeality]) -> Case:
    """All that has degrees; what happens or not does not happen."""
    return Case(TOGETHER, tuple(one for one in swept if not one.is_event))


def pairs(worst: Sequence[NonIdeality]) -> list[Case]:
    """All pairs of the worst, and each of them alone comes with its own case."""
    return [Case.of(*two) for two in itertools.combinations(worst, 2)]


def reference(plan: Plan, method: str, seed: int) -> Point:
    """The network as delivered."""
    return Point(plan.network, method, seed, quick=plan.quick, limit=plan.limit)


def points(
    plan: Plan, cases: Iterable[Case], when: str, severities: Sequence[float] | None = None
) -> Iterator[Point]:
    """All points of some cases; severities: other than the cases' own."""
    for case in cases:
        if when not in case.whens:
            continue
        for severity in case.severities(plan, when) if severities is None else severities:
            for method, seed in itertools.product(plan.methods, plan.seeds):
                yield case.point(plan, severity, method, when, seed)


def require_methods(plan: Plan, known: Iterable[str]) -> None:
    """UnknownName for a method that does not exist."""
    for name in plan.methods:
        if name not in known:
            raise UnknownName(f"no training method {name!r}. {nearest(name, known)}")
