"""No method takes a pass that is not counted, or one beyond its ceiling, and none is left lying."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.validation.baselines.tiny import (
    CHIP,
    IDEAL,
    NOISY,
    RIG,
    any_twins,
    config,
    counted,
    in_ledger,
    task,
)
from twin.errors import ConfigError
from twin.ledger import Cost
from validation.baselines.budget import Budget, BudgetSpent, CappedLedger
from validation.baselines.dfa import METHOD as DFA
from validation.baselines.greedy import LCE, PIB, rounds
from validation.baselines.method import Method
from validation.baselines.pat import METHOD as PAT
from validation.baselines.shift import METHOD as SHIFT
from validation.baselines.spsa import METHOD as SPSA

METHODS: dict[str, Method] = {"pib": PIB, "lce": LCE, "pat": PAT, "dfa": DFA, "spsa": SPSA}
NETWORKS: dict[str, tuple[str, ...]] = {
    "ideal": (IDEAL,),
    "ideals": (IDEAL, NOISY, IDEAL),
    "chips": (CHIP, CHIP),
    "rigs": (RIG, RIG),
    "three rigs": (RIG, RIG, RIG),
    "rig and ideal": (RIG, IDEAL),
    "ideal and rig": (IDEAL, RIG),
}


def step_cost(network: str, batch: int, forwards: int) -> int:
    """An upper bound of one step of all units with two rangings and masks of each."""
    return batch * len(NETWORKS[network]) * (forwards + 4)


@settings(max_examples=12, deadline=None)
@given(
    method=st.sampled_from(sorted(METHODS)),
    network=st.sampled_from(sorted(NETWORKS)),
    n=st.integers(20, 60),
    batch=st.integers(6, 20),
    per_image=st.floats(0.5, 12),
    range_every=st.integers(1, 7),
)
@example("pib", "three rigs", 40, 10, 8.0, 4)
@example("lce", "three rigs", 20, 10, 11.9, 4)
@example("pib", "chips", 40, 10, 12.0, 3)
@example("spsa", "chips", 40, 10, 12.0, 1)
def test_the_ceiling_is_never_crossed_and_nearly_reached(
    method: str, network: str, n: int, batch: int, per_image: float, range_every: int
) -> None:
    """Passes are counted once more below the fence. A half run is none: ConfigError."""
    units = [text.format(n=6 - i) for i, text in enumerate(NETWORKS[network])]
    ceiling = int(per_image * n)
    made = task(
        config(*units, batch=batch, range_every=range_every), n=n, ceiling=ceiling, twins=any_twins
    )
    one_step = step_cost(network, batch, 2 if method == "spsa" else 1)
    try:
        METHODS[method].train(made)
    except ConfigError:
        # What must be measured once: ranging, storing, the captures at the end.
        assert ceiling < 4 * n * len(units) + one_step
        assert counted(made) == in_ledger(made) <= ceiling
        return
    assert counted(made) == in_ledger(made) <= ceiling
    captures = n if method in ("pib", "lce") and network in ("rigs", "three rigs") else 0
    assert counted(made) > ceiling - one_step - captures


def test_shifted_phases_are_counted() -> None:
    """3 passes for each of 4 inputs, and the forward one, of 15 samples in a step."""
    made = task(config(RIG.format(n=4), RIG.format(n=4)), ceiling=60 + 5 * 15 * 13 + 60)
    learnt = SHIFT.train(made)
    assert learnt.notes["training_steps"] == 5 and len(learnt.measured) == 2
    assert counted(made) == in_ledger(made) == 60 + 5 * 15 * 13 + 60


@given(left=st.integers(1, 200), units=st.integers(1, 5))
def test_captures_are_shared_so_that_nothing_is_left(left: int, units: int) -> None:
    """The first of unit i costs a pass per image, each further one i + 1."""
    if left < units:
        return
    found = rounds(left, units)
    assert sum(1 + (r - 1) * (i + 1) for i, r in enumerate(found)) == left
    assert sorted(found, reverse=True) == found or (units > 1 and max(found) - min(found) <= units)


def test_an_overdrawn_ledger_says_so() -> None:
    ledger = CappedLedger(10)
    ledger.add("unit 1", "train", Cost(passes=7, ranging_passes=3))
    with pytest.raises(BudgetSpent, match="11 physical passes, but the ceiling is 10"):
        ledger.add("unit 1", "train", Cost(passes=1))


@pytest.mark.parametrize(
    ("ask", "steps"),
    [
        (lambda b: b.steps(10, wished=3), 9),
        (lambda b: b.steps(10, reserve=15, wished=300), 7),
        (lambda b: b.steps(2.5, wished=1), 36),
    ],
)
def test_steps_leave_what_is_reserved(ask: Callable[[Budget], int], steps: int) -> None:
    ledger = CappedLedger(100)
    ledger.add("unit 1", "capture", Cost(passes=10))
    assert ask(Budget(ledger, 100)) == steps
    assert Budget(ledger).steps(10, wished=3) == 3
    with pytest.raises(ConfigError, match="leaves no training step"):
        Budget(ledger, 100).steps(10, reserve=81, wished=1)
