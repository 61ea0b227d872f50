"""The ledger adds up, by unit and phase, and survives being saved."""

from __future__ import annotations

import json
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from twin.ledger import Cost, Ledger

amounts = st.integers(0, 10**6)
# Whole numbers: sums of floats would depend on their order.
costs = st.builds(
    Cost,
    passes=amounts,
    calls=amounts,
    writes=amounts,
    cells=amounts,
    ranging_passes=amounts,
    device_seconds=amounts.map(float),
    joules=amounts.map(float),
    digital_operations=amounts,
)
entries = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["train", "capture"]), costs))


def filled(rows: list[tuple[str, str, Cost]]) -> Ledger:
    ledger = Ledger()
    for unit, phase, cost in rows:
        ledger.add(unit, phase, cost)
    return ledger


@given(rows=entries)
def test_totals_are_the_sums_of_what_was_added(rows: list[tuple[str, str, Cost]]) -> None:
    total = asdict(filled(rows).total())
    assert total == {n: sum(asdict(cost)[n] for _, _, cost in rows) for n in total}


@given(rows=entries)
def test_units_and_phases_partition_the_total(rows: list[tuple[str, str, Cost]]) -> None:
    ledger = filled(rows)
    by_unit, by_phase = Cost(), Cost()
    for unit in "abc":
        by_unit.add(ledger.total(unit))
    for phase in ("train", "capture"):
        by_phase.add(ledger.total(phase=phase))
    assert by_unit == by_phase == ledger.total()


@given(rows=entries)
def test_a_saved_ledger_comes_back_equal(rows: list[tuple[str, str, Cost]]) -> None:
    ledger, again = filled(rows), Ledger()
    again.load(json.loads(json.dumps(ledger.rows())))
    assert again.rows() == ledger.rows()


@given(rows=entries)
def test_the_order_of_entries_changes_no_total(rows: list[tuple[str, str, Cost]]) -> None:
    assert filled(rows).total("a") == filled(rows[::-1]).total("a")


def test_adding_leaves_the_cost_that_was_added_alone() -> None:
    ledger, once = Ledger(), Cost(passes=3)
    ledger.add("a", "train", once)
    ledger.add("a", "train", Cost(passes=4))
    assert once == Cost(passes=3)
    assert ledger.total("a", "train").passes == 7


def test_a_unit_that_did_nothing_cost_nothing() -> None:
    assert filled([("a", "train", Cost(passes=1))]).total("b") == Cost()
