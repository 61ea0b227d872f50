"""Backpropagation in the computer: through twins where asked, deployed within its budget."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.validation.baselines.tiny import CHIP, IDEAL, RIG, config, counted, in_ledger, task
from twin.errors import ConfigError, Unsupported
from twin.key import Key
from validation.baselines.insilico import OWN_HEAD, RETRAINED, _digital
from validation.baselines.method import Learnt, Task, require
from validation.baselines.twinnet import FEWEST
from validation.baselines.twins import twins_for
from validation.config import CompareTable, RunConfig

BRIGHT = RIG.replace("pixels = 12", 'pixels = 40, preset = "ideal"')
RIGS = (BRIGHT.format(n=8), BRIGHT.format(n=8))


def looking(given: Task) -> Task:
    return replace(given, twins=twins_for(given.config, given.network, given.key))


def accuracy(given: Task, learnt: Learnt) -> float:
    images, labels = given.data.test
    assert learnt.head is not None
    seen = torch.cat(given.network.features(images, key=Key(8)), 1)
    return learnt.head.accuracy(seen, labels)


def longer(table: RunConfig, epochs: int = 20) -> RunConfig:
    units = tuple(unit.model_copy(update={"epochs": epochs}) for unit in table.unit)
    return table.model_copy(update={"unit": units})


def test_only_deployment_touches_the_devices() -> None:
    """60 training images: as many for standardising each unit, and for a readout again."""
    for method, rounds in ((OWN_HEAD, 1), (RETRAINED, 2)):
        one = looking(task(config(*RIGS, passes_per_image=9), ceiling=540))
        learnt = method.train(one)
        assert counted(one) == in_ledger(one) == 60 * 2 * rounds
        assert [len(z) for z in learnt.measured] == ([] if method.own_head else [60, 60])
        assert one.network.units[0].fence.ledger.total().digital_operations > 0


def test_what_a_perfect_twin_learns_holds_on_the_devices_and_a_wrong_ones_does_not() -> None:
    """60 test images of three classes: five standard errors are below 0.33."""
    found = {}
    for name, changed in {
        "exact": {}, "wrong": {"twin_error": 10.0}, "unknown": {"twin": '"unknown"'}
    }.items():  # fmt: skip
        table = longer(config(*RIGS, skip=False, passes_per_image=9, **changed))
        one = looking(task(table))
        found[name] = accuracy(one, OWN_HEAD.train(one))
    assert found["exact"] > 0.7
    assert found["wrong"] < found["exact"] - 0.2
    assert found["unknown"] < found["exact"] - 0.2


@pytest.mark.parametrize("unit", [IDEAL, CHIP])
def test_written_devices_are_trained_through_their_matrices(unit: str) -> None:
    units = unit.format(n=10), unit.format(n=8)
    one = looking(task(longer(config(*units, passes_per_image=50))))
    assert accuracy(one, OWN_HEAD.train(one)) > 0.8
    assert counted(one) == in_ledger(one)


def test_it_is_a_function_of_its_key() -> None:
    found = []
    for seed in (3, 3, 4):
        one = looking(task(config(RIG.format(n=6), RIG.format(n=6), passes_per_image=9), seed=seed))
        learnt = RETRAINED.train(one)
        assert learnt.head is not None
        found.append((learnt.head.weight, learnt.measured[1]))
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    assert not torch.equal(found[0][0], found[2][0])


@settings(max_examples=8, deadline=None)
@given(
    n=st.integers(20, 70),
    ceiling=st.integers(8, 400),
    units=st.sampled_from([RIGS, (RIG.format(n=5), CHIP.format(n=4)), (CHIP.format(n=4),) * 2]),
)
def test_no_ceiling_is_crossed(n: int, ceiling: int, units: tuple[str, ...]) -> None:
    one = looking(task(config(*units, passes_per_image=1), n=n, ceiling=ceiling))
    if ceiling < FEWEST * 2:
        with pytest.raises(ConfigError, match="or more"):
            RETRAINED.train(one)
        assert counted(one) == 0
        return
    with suppress(ConfigError):  # of chips, that need more than one round
        learnt = RETRAINED.train(one)
        assert learnt.head is not None and len(learnt.measured) in (0, 2)
    assert counted(one) == in_ledger(one) <= ceiling


def test_fitted_twins_of_all_units_are_probed_and_told_about() -> None:
    table = config(*RIGS, skip=False, passes_per_image=99, twin='"fitted"', twin_probes=100)
    one = looking(task(table))
    learnt = OWN_HEAD.train(one)
    ledger = one.network.units[0].fence.ledger
    assert ledger.total(phase="twin").passes == 2 * 300
    assert {f"twin_correlation_unit_{i}" for i in (1, 2)} < set(learnt.notes)


def test_without_a_comparison_nothing_has_changed() -> None:
    units = IDEAL.format(n=6), IDEAL.format(n=5)
    table = config(*units)
    table = table.model_copy(update={"compare": CompareTable()})
    one, other = task(table), task(table)
    found, expected = RETRAINED.train(one), _digital(other)
    assert all(map(torch.equal, found.measured, expected.measured))
    assert in_ledger(one) == in_ledger(other)


def test_studies_of_devices_still_refuse_a_second_medium_and_nobody_models_anything() -> None:
    plain = config(*RIGS).model_copy(update={"compare": CompareTable()})
    with pytest.raises(Unsupported, match="second broken-isomorphism unit"):
        require(OWN_HEAD, plain, "base")
    require(OWN_HEAD, config(*RIGS, passes_per_image=2), "base")
    other = RIGS[1].replace('"optics"', '"someone-elses"')
    with pytest.raises(Unsupported, match="model of every device"):
        require(OWN_HEAD, config(RIGS[0], other, passes_per_image=2), "base")
