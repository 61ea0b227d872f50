"""Losses, thresholds, interactions, the plan's file and the page, on made-up numbers."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from tests.validation.studies.fakestudy import (
    BITS,
    EVENT,
    FAULT,
    NOISE,
    SWEPT,
    Memory,
    filled,
    study,
)
from twin.errors import ConfigError
from twin.key import Key
from validation.studies import robustnesspage
from validation.studies.losses import (
    REPLICATES,
    Curve,
    crossings,
    falling,
    interaction,
    loss,
    threshold,
)
from validation.studies.robustness import _second, planned, worst
from validation.studies.robustnessdata import dataset, ranked, severe_loss
from validation.studies.robustnessplan import (
    LOOP,
    TEST,
    is_plan,
    load_plan,
    narrowed,
    pairs,
    points,
    singles,
    together,
    written,
)

GRID = np.array([0.0, 0.125, 0.25, 0.5, 1.0])


# ---- losses -----------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_the_falling_curve_is_the_isotonic_regression(values: list[float]) -> None:
    ours = falling(np.array([values]))[0]
    theirs = isotonic_regression(values, increasing=False).x
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_the_crossing_of_a_straight_line_is_where_it_must_be() -> None:
    curve = 0.9 - 0.2 * GRID[None]
    assert crossings(GRID, curve, 0.05)[0] == pytest.approx(0.25)
    assert crossings(GRID, curve, 0.03)[0] == pytest.approx(0.15)
    assert math.isinf(crossings(GRID, curve, 0.21)[0])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), drop=st.floats(0, 0.8))
def test_a_threshold_lies_in_its_own_range_and_grows_with_the_loss(seed: int, drop: float) -> None:
    noise = Key(seed).numpy().normal(0, 0.01, (5, 3))
    curve = Curve(GRID, np.clip(0.95 - drop * GRID[:, None] + noise, 0, 1), 400)
    small, large = (threshold(curve, lost, Key(seed)) for lost in (0.01, 0.05))
    assert small.severity <= large.severity
    assert 0 <= small.low <= small.high


def test_the_interval_of_a_threshold_spans_what_was_not_computed() -> None:
    """From 0.95 to chance between two severities: nobody knows where in between."""
    curve = Curve(np.array([0.0, 0.5, 1.0]), np.array([[0.95], [0.1], [0.1]]), 10_000)
    at = threshold(curve, 0.01, Key(0))
    assert at.severity < 0.01
    assert (at.low, at.high) == (0.0, 0.5)
    flat = threshold(Curve(GRID, np.full((5, 1), 0.95), 10_000), 0.1, Key(0))
    assert all(map(math.isinf, (flat.severity, flat.low, flat.high)))


def test_the_interval_of_a_threshold_covers_the_truth_as_often_as_it_says() -> None:
    """300 studies of 5 seeds, 1,000 test images drawn anew for each severity and seed:
    coverage at least 95 % less five standard errors (6.3 points). It may be above: the
    binomial error is also in the seeds here."""
    truth, hits = 0.4, 0
    for study_number in range(300):
        rng = Key(7).child("coverage", study_number).numpy()
        right = rng.binomial(1000, 0.95 - 0.25 * GRID[:, None], (5, 5)) / 1000
        at = threshold(Curve(GRID, right, 1000), 0.1, Key(study_number))
        hits += at.low <= truth <= at.high
    assert hits / 300 >= 0.95 - 5 * math.sqrt(0.95 * 0.05 / 300)
    assert REPLICATES >= 500


def test_a_loss_joins_the_spread_of_seeds_and_the_test_set() -> None:
    accuracy = np.array([[0.9, 0.92, 0.94], [0.8, 0.82, 0.84]])
    lost = loss(Curve(np.array([0.0, 1.0]), accuracy, 100))
    assert lost.value == pytest.approx(0.1)
    # The seeds differ by the same in both: only the test set is left.
    assert lost.error == pytest.approx(math.sqrt((0.92 * 0.08 + 0.82 * 0.18) / 100))


def test_a_seed_that_failed_is_left_out_and_not_taken_for_zero() -> None:
    accuracy = np.array([[0.9, 0.9], [0.8, np.nan]])
    curve = Curve.of([0, 1], accuracy, 100)
    assert curve is not None and curve.accuracy.shape == (2, 1)
    assert Curve.of([0, 1], np.full((2, 2), np.nan), 100) is None


def test_losses_that_add_up_do_not_interact() -> None:
    base, one, two = np.full(3, 0.9), np.full(3, 0.8), np.full(3, 0.7)
    for both, excess in ((0.6, 0.0), (0.5, 0.1), (0.7, -0.1)):
        found = interaction(base, one, two, np.full(3, both), 100)
        assert found is not None and found.value == pytest.approx(excess)
    assert interaction(base, one, two, np.full(3, np.nan), 100) is None


# ---- plan -------------------------------------------------------------------------


def test_the_written_plan_is_the_plan(tmp_path: Path) -> None:
    made = study(loop_worst=2, accuracy_points=(1.0, 2.5))
    path = tmp_path / "robustness.toml"
    path.write_text(written(made.plan, SWEPT, "pib-twin robustness x\n--quick"))
    again = load_plan(path)
    assert is_plan(path)
    assert again.model_copy(update={"non_idealities": {}}) == made.plan
    assert narrowed(again, made.found).swept == SWEPT


def test_a_plan_may_name_fewer_non_idealities_and_other_ends(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(
        'network = "memristor-digits"\n[non_idealities.read_noise]\nzero = 0.0\nsevere = 0.4\n'
    )
    (only,) = narrowed(load_plan(path), study().found).swept
    assert (only.name, only.severe) == ("read_noise", 0.4)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("severities = [0.5]", "severities"),
        ("severities = [1.0, 0.5]", "severities"),
        ("accuracy_points = [-1.0]", "accuracy_points"),
        ("severites = [1.0]", "severities"),
        ("loop_severities = [0.5]", "loop_severities"),
        ("loop_severities = [0.3, 1.0]", "loop_severities"),
        ("pair_severity = 2.0", "pair_severity"),
        ("pair_severity = 0.3", "pair_severity"),
        ("[non_idealities.read_noise]\nzero = 0.0", "severe"),
    ],
)
def test_a_wrong_plan_is_refused_with_its_key(tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(f'network = "memristor-digits"\n{line}\n')
    with pytest.raises(ConfigError, match=named):
        load_plan(path)


def test_quick_asks_for_less_and_the_command_line_comes_last() -> None:
    full, quick = (planned("memristor-digits", None, q, None) for q in (False, True))
    assert set(quick.severities) < set(full.severities)
    assert len(quick.seeds) < len(full.seeds)
    assert planned("memristor-digits", 5, True, [3.0]).seeds == (0, 1, 2, 3, 4)
    assert planned("memristor-digits", None, True, [3.0]).accuracy_points == (3.0,)


# ---- points and data --------------------------------------------------------------


def test_no_two_places_of_a_study_ask_for_the_same_point() -> None:
    made = study()
    asked = [p for when in (TEST, LOOP) for p in points(made.plan, made.cases, when)]
    assert len(set(asked)) == len(asked)


def test_perfect_and_delivered_are_computed_once_where_they_are_the_same() -> None:
    plan = study().plan
    noise, fault, _, event = singles(SWEPT)
    assert noise.severities(plan, TEST) == (0.0, *plan.severities)
    assert fault.severities(plan, TEST) == plan.severities
    assert event.severities(plan, TEST) == (1.0,)


def test_in_the_loop_every_second_severity_is_trained_at_unless_others_are_named() -> None:
    plan = planned("memristor-digits", None, False, None)
    assert plan.in_loop == (0.0625, 0.25, 1.0)
    (noise, *_), asked = singles(SWEPT), plan.model_copy(update={"loop_severities": (0.5, 1.0)})
    assert noise.severities(plan, LOOP) == (0.0, *plan.in_loop)
    assert noise.severities(asked, LOOP) == (0.0, 0.5, 1.0)


def test_all_together_turns_everything_with_degrees_and_no_event() -> None:
    case = together(SWEPT)
    assert case.members == (NOISE, FAULT, BITS)
    paths = dict(case.settings(1.0, TEST))
    assert paths == {
        "dial.read_noise": 0.1, "dial.stuck_column_fraction": 0.5, "unit.options.adc_bits": 4,
    }  # fmt: skip
    assert EVENT.paths[0] not in paths


def test_the_dataset_finds_what_was_put_in() -> None:
    made = study()
    store = filled(made)
    found = dataset(made.plan, made.cases, [], store, made.images)
    assert ranked(found, "pib") == ["stuck_column_fraction", "read_noise", "adc_bits", EVENT.name]
    lost = severe_loss(found, "stuck_column_fraction", "pib")
    assert lost is not None and lost.value == pytest.approx(0.3)
    looped = severe_loss(found, "stuck_column_fraction", "pib", LOOP)
    assert looped is not None and looped.value == pytest.approx(0.15)
    assert set(np.unique(found["status"].values.astype(str))) == {
        "done", "as delivered", "not asked",
    }  # fmt: skip


def test_the_worst_are_ranked_after_training_and_events_have_no_pairs() -> None:
    made = study(loop_worst=1, pairs_of_worst=2)
    found = dataset(made.plan, made.cases, [], filled(made), made.images)
    assert worst(made, found, 2) == [FAULT, NOISE]
    asked = _second(made, found)
    looped = {path for p in asked if p.when == LOOP for path, _ in p.settings}
    assert looped == {path for one in (NOISE, FAULT, BITS) for path in one.paths}  # all together
    single = [p for p in asked if p.when == LOOP and len(p.settings) == 1]
    assert {p.settings[0][0] for p in single} == set(FAULT.paths)


# ---- page -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> str:
    made = study()
    store = filled(made)
    found = dataset(made.plan, made.cases, pairs([NOISE, FAULT, BITS]), store, made.images)
    text = written(made.plan, SWEPT, "pib-twin robustness memristor-digits")
    missing = [("pib, seed 1", "DialError: <b>too far</b>")]
    return robustnesspage.page(made, found, missing, text, "pib-twin robustness", "a = 1")


def test_the_page_opens_without_a_network_or_scripts(page: str) -> None:
    assert "<script" not in page and "http-equiv" not in page
    links = re.findall(r"""(?:src|href)=["']([^"'#]+)""", page)
    assert [link for link in links if not link.startswith("data:")] == []
    assert "@import" not in page and "url(http" not in page


def test_the_page_names_the_worst_the_failures_and_the_way_back(page: str) -> None:
    assert "stuck column fraction (30.0 ±" in page
    assert "&lt;b&gt;too far" in page and "<b>too far" not in page
    assert "[non_idealities.&#34;stuck_column_fraction&#34;]" in page
    assert page.count("<svg") >= 8


def test_ids_inside_the_figures_are_unique_on_the_page(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_a_page_without_any_result_says_so_and_does_not_fail() -> None:
    made = study()
    found = dataset(made.plan, made.cases, [], Memory(), made.images)
    text = robustnesspage.page(made, found, [("all", "none")], "", "")
    assert "gave no result" in text
