"""A robustness study of made-up accuracies, written into a store as the engine would."""

from __future__ import annotations

from collections.abc import Iterable

from validation.config import load_config
from validation.studies.nonidealities import Inventory
from validation.studies.points import Point
from validation.studies.robustnessplan import (
    LOOP,
    TEST,
    Plan,
    Study,
    pairs,
    points,
    reference,
)
from validation.studies.severity import NonIdeality
from validation.studies.store import Result, Store

NOISE = NonIdeality(
    name="read_noise", paths=("dial.read_noise",), unit="1", zero=0, severe=0.1, delivered=0.02,
    about="sigma <of> a read",
)  # fmt: skip
FAULT = NonIdeality(
    name="stuck_column_fraction", paths=("dial.stuck_column_fraction",), unit="1", zero=0,
    severe=0.5, delivered=0,
)  # fmt: skip
BITS = NonIdeality(
    name="adc_bits", paths=("unit.options.adc_bits",), unit="bit", zero=16, severe=4, delivered=8,
    scale="bits", kind="option",
)  # fmt: skip
EVENT = NonIdeality(
    name="technology x", paths=("unit.0.options.technology",), unit="1", zero=0, severe=1,
    delivered=0, scale="event", kind="option", word="x",
)  # fmt: skip
SWEPT = (NOISE, FAULT, BITS, EVENT)
COST = {"dial.read_noise": 1.0, "dial.stuck_column_fraction": 0.6}
"""Accuracy lost per unit of the value; the bits cost 2 ** -b, the event 0.01."""


class Memory(Store):
    """A store that keeps results in memory: no fsync in tests of numbers."""

    def __init__(self) -> None:
        self._kept: dict[str, Result] = {}

    def read(self, key: str) -> Result | None:
        return self._kept.get(key)

    def write(self, key: str, result: Result) -> None:
        self._kept[key] = result


def study(**changes: object) -> Study:
    """A plan over SWEPT with three seeds."""
    plan = Plan(network="memristor-digits").model_copy(update=changes)
    return Study(plan, load_config("memristor-digits"), Inventory(SWEPT), images=360)


def accuracy(point: Point) -> float:
    """0.95 less what the settings cost; half of it in the loop."""
    lost = 0.0
    for path, value in point.settings:
        if path.endswith("bits"):
            lost += 2.0 ** -float(value)
        elif isinstance(value, str):
            lost += 0.01
        else:
            lost += COST[path] * float(value)
    if point.when == LOOP:
        lost *= 0.5
    return 0.95 - lost - 0.001 * point.seed - 0.02 * (point.method == "backprop")


def fill(asked: Iterable[Point], store: Store) -> None:
    """Results for all points that are asked."""
    for point in asked:
        figures = {"accuracy": accuracy(point)}
        if point.when == TEST:
            figures["accuracy_readout_redone"] = min(0.95, accuracy(point) + 0.01)
        store.write(point.key(), Result(point, "done", figures))


def filled(made: Study) -> Store:
    """A store with every result that the study can ask for."""
    store, plan = Memory(), made.plan
    fill((reference(plan, m, s) for m in plan.methods for s in plan.seeds), store)
    for when in (TEST, LOOP):
        fill(points(plan, made.cases, when), store)
        paired = pairs([one for one in SWEPT if not one.is_event])
        fill(points(plan, paired, when, (plan.pair_severity,)), store)
    return store
