"""What a comparison asks: the same for everybody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from twin.errors import UnknownName
from validation.baselines import registry
from validation.studies.compare.catalogue import COMPARISONS, comparison
from validation.studies.compare.chosen import trials
from validation.studies.compare.paired import paired
from validation.studies.compare.plan import LIKE, TRIALS
from validation.studies.compare.tables import TITLES
from validation.studies.settings import run_config

NAMES = sorted(COMPARISONS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("quick", [False, True])
def test_every_method_has_the_same_number_of_trials_in_every_regime(name: str, quick: bool) -> None:
    asked = comparison(name, quick)
    for arm, method, level in asked.asked():
        if LIKE.get(method, method) != "elm":
            assert len(asked.trials_of(arm, method, level)) == min(asked.trials, arm.trials)
    assert any(arm.trials >= asked.trials for arm in asked.arms)
    assert all(len(trials) == 4 for trials in TRIALS.values())


@pytest.mark.parametrize("name", NAMES)
def test_every_regime_is_one_that_its_network_and_method_know(name: str) -> None:
    asked = comparison(name)
    for arm, method, level in asked.asked():
        point = asked.trials_of(arm, method, level)[0]
        kept = [pair for pair in point.settings if not pair[0].startswith("test.")]
        config = run_config(replace(point, settings=tuple(kept)))
        assert config.compare.passes_per_image is not None
        assert registry.method(method).refusal(config) is None
        assert level is None or level in arm.levels
        assert method in TITLES


@pytest.mark.parametrize("name", NAMES)
def test_the_chosen_trial_runs_with_every_seed_and_nothing_else_changes(name: str) -> None:
    asked = comparison(name)
    arm, method, level = next(asked.asked())
    chosen = asked.trials_of(arm, method, level)[-1]
    finals = asked.finals(chosen)
    assert [point.seed for point in finals] == list(asked.seeds)
    assert {point.settings for point in finals} == {chosen.settings}
    assert chosen in finals


@pytest.mark.parametrize("name", NAMES)
def test_a_full_comparison_has_six_seeds_or_more_and_a_quick_one_says_that_it_is(
    name: str,
) -> None:
    assert len(comparison(name).seeds) >= 6
    quick = comparison(name, quick=True)
    assert quick.quick and len(quick.seeds) == 1 and quick.trials == 1
    assert all(len(arm.levels) <= 2 for arm in quick.arms)


def test_a_misspelt_comparison_is_told_the_nearest() -> None:
    with pytest.raises(UnknownName, match="'passes'"):
        comparison("pases")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=12).filter(
        lambda rows: np.ptp([a - b for a, b in rows]) > 1e-6
    )
)
def test_the_paired_interval_is_that_of_students_test(rows: list[tuple[float, float]]) -> None:
    ours, theirs = np.array(rows).T
    one, reference = paired(ours, theirs), ttest_rel(ours, theirs)
    interval = reference.confidence_interval(0.95)
    assert one.low == pytest.approx(interval.low, abs=1e-9)
    assert one.high == pytest.approx(interval.high, abs=1e-9)
    assert (one.word == "tie") == (interval.low <= 0 <= interval.high)


def test_seeds_that_lack_a_rival_are_no_pairs() -> None:
    one = paired(np.array([0.8, 0.9, np.nan]), np.array([0.7, np.nan, 0.5]))
    assert one.pairs == 1 and one.mean == pytest.approx(0.1) and one.word == "?"


@pytest.mark.parametrize("name", sorted(registry.WHERE))
def test_every_named_method_is_there_and_says_what_it_needs(name: str) -> None:
    method = registry.method(name)
    assert method.family and isinstance(method.own_head, bool)
    assert isinstance(method.needs_twin, bool)


def test_an_arm_is_asked_for_by_name() -> None:
    one = comparison("fault", arms=["stuck cells"])
    assert [arm.name for arm in one.arms] == ["stuck cells"]
    assert set(trials(one)) < set(trials(comparison("fault")))
    with pytest.raises(UnknownName, match="Did you mean 'stuck cells'"):
        comparison("fault", arms=["stuck cell"])
