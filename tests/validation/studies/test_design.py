"""Design search: the front, early stopping, resume, samplers, sensitivity, the page."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.errors import ConfigError, PibTwinError, UnknownName
from twin.key import Key
from validation.studies import pareto, race, sensitivity
from validation.studies.contrasts import contrast
from validation.studies.design import finished, found_file, main, quicker, searched, shipped
from validation.studies.designfile import ContrastTable, DesignStudy, load_design, parse_design
from validation.studies.findings import findings
from validation.studies.points import Point
from validation.studies.proposals import Asked, Drawn, Grid, everything, size
from validation.studies.search import Budget, Search
from validation.studies.store import Result, Store
from validation.studies.trials import Objective, Trials

SEEDS = st.integers(0, 2**32 - 1)

TEXT = """
about = "a made-up chip"
base = "synthetic"
methods = ["synthetic"]
seeds = 3
[axes]
bits = [2, 4, 6, 8]
size = [16, 64, 256]
noise = [0.1, 0.3]
[objectives]
accuracy = "max"
joules_per_image = "min"
area_m2 = "min"
[search]
sampler = "grid"
[[contrast]]
about = "eight bits instead of two"
figure = "accuracy"
better = { bits = 8 }
than = { bits = 2 }
"""


@pytest.fixture(autouse=True, scope="module")
def _quick_disk() -> Iterator[None]:
    """Power cuts are the store's tests' affair; small forests see large effects too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensitivity, "TREES", 25)
        patch.setattr("os.fsync", lambda handle: None)
        yield


def study(changes: Callable[[str], str] = lambda text: text) -> DesignStudy:
    return parse_design(changes(TEXT), "test.toml")


def sampled(name: str, points: int = 14, batch: int = 4) -> DesignStudy:
    line = f'sampler = "{name}"\npoints = {points}\nbatch = {batch}\npopulation = 4'
    return study(lambda text: text.replace('sampler = "grid"', line))


Law = Callable[[dict[str, Any], int], dict[str, float]]


def plain_law(at: dict[str, Any], seed: int) -> dict[str, float]:
    """Known by heart: no scatter, bits and size cost, noise only harms."""
    lost = 2.0 ** -at["bits"] + 1 / at["size"] + at["noise"]
    return {
        "accuracy": 1 / (1 + lost),
        "joules_per_image": at["size"] * 2.0 ** at["bits"],
        "area_m2": float(at["size"]),
    }


def noisy_law(at: dict[str, Any], seed: int) -> dict[str, float]:
    key = Key(seed).child(*(f"{name} {value}" for name, value in sorted(at.items())))
    error = float(key.numpy().normal(scale=0.01))
    return plain_law(at, seed) | {"accuracy": plain_law(at, seed)["accuracy"] + error}


@dataclass
class Here(Executor):
    """Workers in this process that answer by a law, and remember what was asked."""

    law: Law = plain_law
    count: int = 1
    asked: list[Point] = field(default_factory=list)

    def submit(self, act: Any, *given: Any, **named: Any) -> Future[Any]:
        (point,) = given
        self.asked.append(point)
        future: Future[Any] = Future()
        try:
            figures = self.law(dict(point.settings), point.seed)
            future.set_result(Result(point, "done", figures))
        except PibTwinError as error:
            failure = {"kind": type(error).__name__, "message": str(error)}
            future.set_result(Result(point, "failed", {}, failure))
        return future

    def renew(self) -> None:
        raise AssertionError

    def stop(self) -> None:
        """Nothing runs."""


def search(
    the: DesignStudy, folder: Path, law: Law = plain_law, budget: Budget | None = None
) -> tuple[Search, Here]:
    workers = Here(law)
    found = Search(the, folder, workers, budget)
    found.run()
    return found, workers


def known_front(the: DesignStudy) -> set[Any]:
    """By comparing all pairs, without the code under test."""
    laws = {d: plain_law(dict(d), 0) for d in everything(the.study.axes)}

    def beats(one: dict[str, float], other: dict[str, float]) -> bool:
        pairs = [(o.sign * one[o.name], o.sign * other[o.name]) for o in the.objectives]
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    return {d for d, mine in laws.items() if not any(beats(o, mine) for o in laws.values())}


# ---- the front ----------------------------------------------------------------


@given(SEEDS, st.integers(1, 30), st.integers(1, 4), st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_the_front_is_what_no_other_design_beats(
    seed: int, count: int, width: int, steps: int
) -> None:
    values = Key(seed).numpy().integers(0, steps, (count, width)).astype(float)
    slowly = [
        not any((other <= row).all() and (other < row).any() for other in values) for row in values
    ]
    assert pareto.front(values).tolist() == slowly


def test_a_searched_grid_finds_the_known_front(tmp_path: Path) -> None:
    the = study()
    found, _ = search(the, tmp_path)
    result = findings(the, found.trials)
    assert {result.designs[row] for row in result.on_front} == known_front(the)


def test_designs_that_miss_a_bound_are_not_on_the_front(tmp_path: Path) -> None:
    bound = '{ goal = "max", bound = ">= 0.8" }'
    the = study(lambda text: text.replace('accuracy = "max"', f"accuracy = {bound}"))
    found, _ = search(the, tmp_path)
    result = findings(the, found.trials)
    assert result.on_front and all(result.means[row, 0] >= 0.8 for row in result.on_front)
    assert result.means[:, 0].min() < 0.8


def test_an_axis_may_be_an_objective(tmp_path: Path) -> None:
    the = study(lambda text: text.replace('area_m2 = "min"', 'size = "min"'))
    found, _ = search(the, tmp_path)
    result = findings(the, found.trials)
    same = {result.designs[row] for row in result.on_front}
    assert same == known_front(study())


def test_designs_chosen_on_validation_are_reported_on_the_test_images(tmp_path: Path) -> None:
    """The law's accuracy stands for the test; what is chosen by prefers few bits."""

    def law(at: dict[str, Any], seed: int) -> dict[str, float]:
        return noisy_law(at, seed) | {"accuracy_validation": 1 / at["bits"]}

    the = study(lambda text: text.replace('accuracy = "max"', 'accuracy_validation = "max"'))
    found, _ = search(the, tmp_path, law)
    result = findings(the, found.trials)
    assert result.best is not None and dict(result.designs[result.best])["bits"] == 2
    assert result.tested is not None
    row, design = result.best, result.designs[result.best]
    own = [noisy_law(dict(design), s)["accuracy"] for s in found.trials.seeds(design)]
    assert result.tested[row] == pytest.approx(np.mean(own))
    figures = {f.name: f.value for f in finished(the, found, tmp_path, "x", "quiet").figures}
    assert figures["test accuracy of that design"] == pytest.approx(np.mean(own))
    page = (tmp_path / "report.html").read_text()
    assert "chose nothing" in page and f"{100 * np.mean(own):.1f} %" in page


# ---- early stopping -------------------------------------------------------------


def test_early_stopping_never_drops_a_front_design_where_nothing_scatters(tmp_path: Path) -> None:
    the = study()
    found, workers = search(the, tmp_path)
    seeds = {d: set(found.trials.seeds(d)) for d in found.trials.designs}
    assert all(seeds[d] == {0, 1, 2} for d in known_front(the))
    assert len(workers.asked) < 3 * size(the.study.axes)
    assert found.saved == 3 * size(the.study.axes) - len(workers.asked)


@given(SEEDS, st.integers(1, 20), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_exact_values_are_hopeless_when_dominated_and_only_then(
    seed: int, count: int, width: int
) -> None:
    values = Key(seed).numpy().integers(0, 5, (count, width)).astype(float)
    exact = pareto.Scatter(np.zeros((4, width)), np.zeros(width), 2)
    counts = np.ones(count, np.int64)
    lost = race.hopeless(values, counts, exact, 0.95)
    assert lost.tolist() == (~pareto.front(values)).tolist()


@given(SEEDS, st.floats(0.6, 0.99))
@settings(max_examples=60, deadline=None)
def test_more_scatter_never_stops_more_designs(seed: int, confidence: float) -> None:
    rng = Key(seed).numpy()
    means = rng.normal(size=(12, 2))
    counts = rng.integers(1, 4, 12)

    def lost(sigma: float) -> Any:
        scatter = pareto.Scatter(np.zeros((6, 2)), np.array([sigma**2, 0.0]), 6)
        return race.hopeless(means, counts, scatter, confidence)

    assert not (lost(1.0) & ~lost(0.3)).any()
    assert not (lost(0.3) & ~lost(0.0)).any()


def test_an_equal_of_the_best_is_stopped_as_rarely_as_the_rule_says() -> None:
    """1,000 races of two designs that are equally good and dear, 2 seeds each, with the
    scatter of 8 more: 5 % within 5 standard errors."""
    races, stopped = 1000, 0
    for number in range(races):
        rng = Key(17).child(number).numpy()
        groups = list(rng.normal(size=(10, 2, 1)))
        means = np.array([[group.mean(), 1.0] for group in groups[:2]])
        one = pareto.Scatter.of(groups)
        scatter = pareto.Scatter(one.residuals, np.array([one.variance[0], 0.0]), one.freedom)
        stopped += bool(race.hopeless(means, np.array([2, 2]), scatter, 0.95)[0])
    assert abs(stopped / races - 0.05) < 5 * math.sqrt(0.05 * 0.95 / races)


# ---- intervals ------------------------------------------------------------------


def test_intervals_over_seeds_cover_the_truth_as_often_as_they_say() -> None:
    """100 studies of 12 designs with 3 seeds; designs of a study share their pool of
    deviations, so that the standard error is taken over studies."""
    studies, designs, seeds = 100, 12, 3
    inside = np.empty(studies)
    for number in range(studies):
        rng = Key(7).child("cover", number).numpy()
        truth = rng.normal(size=(designs, 1))
        groups = [row + 0.3 * rng.normal(size=(seeds, 1)) for row in truth]
        means = np.array([group.mean(axis=0) for group in groups])
        sure = pareto.certainty(
            means, np.full(designs, seeds), pareto.Scatter.of(groups),
            np.zeros(designs, bool), Key(number),
        )  # fmt: skip
        inside[number] = ((sure.low <= truth) & (truth <= sure.high)).mean()
    error = inside.std(ddof=1) / math.sqrt(studies)
    # 24 deviations with finite tails: a point or two short of 95 % is their nature.
    assert 0.92 - 5 * error <= inside.mean() <= 0.95 + 5 * error


def test_pooled_scatter_is_the_variance_of_the_seeds() -> None:
    """2,000 designs of 2 seeds: variance within 5 standard errors (sigma^2 sqrt(2 / 2000))."""
    groups = list(Key(3).numpy().normal(scale=0.5, size=(2000, 2, 1)))
    scatter = pareto.Scatter.of(groups)
    assert abs(scatter.variance[0] - 0.25) < 5 * 0.25 * math.sqrt(2 / 2000)
    # Each deviation alone has the seeds' variance too.
    assert abs((scatter.residuals**2).mean() - 0.25) < 5 * 0.25 * math.sqrt(2 / 2000)


def test_without_a_second_seed_no_interval_is_claimed(tmp_path: Path) -> None:
    the = study(lambda text: text.replace("seeds = 3", "seeds = 1"))
    found, _ = search(the, tmp_path)
    result = findings(the, found.trials)
    assert np.isnan(result.low).all() and np.isnan(result.share).all()


# ---- proposals ------------------------------------------------------------------

AXES = st.dictionaries(
    st.sampled_from("abcd"), st.integers(2, 4).map(lambda n: tuple(range(n))), min_size=1
)


@given(AXES, SEEDS)
@settings(max_examples=40, deadline=None)
def test_the_grid_gives_every_design_exactly_once(axes: Any, seed: int) -> None:
    grid, taken = Grid(axes, Key(seed)), set[Any]()
    while batch := grid.ask(3, taken):
        assert not taken & set(batch)
        taken |= set(batch)
    assert taken == set(everything(axes)) and len(taken) == size(axes)


@pytest.mark.parametrize("kind", ["random", "nsga2", "tpe"])
@given(axes=AXES, seed=st.integers(0, 999))
@settings(max_examples=2, deadline=None)
def test_samplers_never_propose_a_known_design_and_end_with_the_space(
    kind: str, axes: Any, seed: int
) -> None:
    proposer: Any = Drawn(axes, Key(seed))
    if kind != "random":
        proposer = Asked(kind, axes, ["max"], seed, 4, {})
    taken = set[Any]()
    while batch := proposer.ask(5, taken):
        assert len(batch) == len(set(batch)) and not taken & set(batch)
        for place, design in enumerate(batch):
            proposer.tell(design, [float(sum(v for _, v in design))] if place else None)
        taken |= set(batch)
    assert taken == set(everything(axes))


def test_nsga2_finds_more_of_the_front_than_chance(tmp_path: Path) -> None:
    """24 of 216 designs, told 5 times over: the front found by chance is a ninth."""
    the = study(
        lambda text: (
            text.replace("[2, 4, 6, 8]", "[2, 3, 4, 5, 6, 7, 8, 9, 10]")
            .replace("[16, 64, 256]", "[16, 32, 64, 128]")
            .replace("[0.1, 0.3]", "[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]")
            .replace("seeds = 3", "seeds = 1")
            .replace(
                'sampler = "grid"', 'sampler = "nsga2"\npoints = 72\nbatch = 4\npopulation = 8'
            )
        )
    )
    best = known_front(the)
    found, _ = search(the, tmp_path)
    share = len(best & set(found.trials.designs)) / len(best)
    assert share > 2 * 72 / size(the.study.axes)


# ---- resume and budgets -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["grid", "random", "nsga2", "tpe"])
@given(stops=st.lists(st.integers(1, 9), max_size=3))
@settings(max_examples=4, deadline=None)
def test_resume_never_repeats_a_point(
    kind: str, stops: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    the = study() if kind == "grid" else sampled(kind)
    folder, asked = tmp_path_factory.mktemp("resume"), list[Point]()
    for stop in [*stops, None, None]:
        found, workers = search(the, folder, budget=Budget(points=stop))
        assert stop is None or len(workers.asked) <= stop
        asked += workers.asked
    assert len({point.key() for point in asked}) == len(asked)
    assert found.settled and not workers.asked
    assert len(found.trials.designs) == the.wanted


def test_points_from_elsewhere_count(tmp_path: Path) -> None:
    search(sampled("random", 6), tmp_path)
    found, _ = search(sampled("nsga2", 14), tmp_path)
    kept = {found.trials.design(result) for result in Store(tmp_path).results()}
    assert len(kept) == len(found.trials.designs) == 14


def test_a_grid_stopped_and_resumed_finds_what_an_uninterrupted_one_finds(tmp_path: Path) -> None:
    the = study()
    whole, _ = search(the, tmp_path / "whole", noisy_law)
    for stop in (5, 9, 3, None):
        parts, _ = search(the, tmp_path / "parts", noisy_law, Budget(points=stop))
    one, other = findings(the, whole.trials), findings(the, parts.trials)
    assert one.designs == other.designs
    assert [one.designs[r] for r in one.on_front] == [other.designs[r] for r in other.on_front]
    stores = [Store(tmp_path / name) for name in ("whole", "parts")]
    figures = [{r.point.key(): r.figures for r in store.results()} for store in stores]
    assert figures[0] == figures[1]


def test_each_budget_stops_the_search(tmp_path: Path) -> None:
    def long(at: dict[str, Any], seed: int) -> dict[str, float]:
        return plain_law(at, seed) | {"device_seconds_training": 600.0}

    found, workers = search(study(), tmp_path / "a", long, Budget(device_hours=1.0))
    # The engine may hold two more in flight than it has seen.
    assert 6 <= len(workers.asked) <= 8 and "device hours" in str(found.budget.ended)
    ticks: Iterator[float] = iter(float(n) for n in range(10**6))
    clock = Budget(minutes=0.5, clock=lambda: next(ticks))
    found, workers = search(study(), tmp_path / "b", plain_law, clock)
    assert 0 < len(workers.asked) <= 31 and "minutes" in str(found.budget.ended)
    found, workers = search(study(), tmp_path / "c", plain_law, Budget(points=0))
    assert not workers.asked and not found.settled


def test_a_failing_design_stops_no_other_and_is_not_tried_again(tmp_path: Path) -> None:
    def fails(at: dict[str, Any], seed: int) -> dict[str, float]:
        if at["bits"] == 4:
            raise ConfigError("4 bits are not to be had")
        return plain_law(at, seed)

    for the in (study(), sampled("nsga2"), sampled("tpe")):
        folder = tmp_path / the.search.sampler
        found, _ = search(the, folder, fails)
        assert found.settled
        assert all(dict(d)["bits"] != 4 for d in found.trials.designs)
        assert all("4 bits" in reason for reason in found.trials.failed.values())
        again, workers = search(the, folder, fails)
        assert again.settled and not workers.asked
    assert len(findings(study(), search(study(), tmp_path / "grid", fails)[0].trials).designs) == 18


def test_results_of_another_study_in_the_same_folder_are_left_alone(tmp_path: Path) -> None:
    search(study(), tmp_path)
    fixed = study(lambda text: text.replace("[search]", '[fixed]\nkind = "fancy"\n[search]'))
    found, workers = search(fixed, tmp_path)
    assert len(workers.asked) == found.computed > 0
    assert all(dict(point.settings)["kind"] == "fancy" for point in workers.asked)


# ---- sensitivity and contrasts ------------------------------------------------------


def grid_codes(*sizes: int) -> Any:
    return np.array(list(np.ndindex(*sizes)))


def test_shares_of_an_additive_law_are_its_variances() -> None:
    codes = grid_codes(4, 3, 2)
    values = 2.0 * codes[:, 0] + 1.0 * codes[:, 1] + 10.0
    found = sensitivity.by_variance(values, codes, np.zeros((0, len(values))))
    shares = {e.axes: e.value for e in found.effects}
    parts = [4 * np.var(range(4)), np.var(range(3)), 0.0]
    assert [shares[i,] for i in range(3)] == pytest.approx([p / sum(parts) for p in parts])
    assert max(shares[a, b] for a in range(3) for b in range(a + 1, 3)) < 1e-12


def test_a_pure_interaction_is_a_pair_and_no_main_effect() -> None:
    codes = grid_codes(2, 2, 3)
    values = 5.0 + (codes[:, 0] ^ codes[:, 1])
    found = sensitivity.by_variance(values, codes, np.zeros((0, len(values))))
    shares = {e.axes: e.value for e in found.effects}
    assert shares[0, 1] == pytest.approx(1.0)
    assert max(value for axes, value in shares.items() if axes != (0, 1)) < 1e-12


def test_scatter_is_not_taken_for_an_effect() -> None:
    """200 grids: one axis of variance 8/3, scatter of variance 1. Taken as it comes, the
    scatter leaves 0.75 to the axis and gives 0.034 to one without effect."""
    codes = grid_codes(4, 3, 2)
    taken, freed = [], []
    for number in range(200):
        rng = Key(11).child(number).numpy()
        values = 20 + 2.0 * codes[:, 1] + rng.normal(size=24)
        errors = rng.normal(size=(20, 24))
        for into, pool in ((taken, 0 * errors), (freed, errors)):
            effects = sensitivity.by_variance(values, codes, pool).effects
            into.append([effects[0].value, effects[1].value])
    # Five standard errors of 200 shares that scatter by 0.03 and 0.1.
    assert np.mean(taken, axis=0) == pytest.approx([0.034, 0.75], abs=0.035)
    assert np.mean(freed, axis=0)[0] < 0.025 and np.mean(freed, axis=0)[1] > 0.93


def test_a_forest_ranks_the_parameter_that_matters_first_and_tells_its_own_error() -> None:
    rng = Key(5).numpy()
    codes = rng.integers(0, 6, (60, 3))
    values = 3.0 + codes[:, 1] + 0.2 * codes[:, 2] + 0.05 * rng.normal(size=60)
    found = sensitivity.by_forest(values, codes, Key(5))
    assert found is not None and found.score is not None and found.score > 0.8
    assert max(found.effects, key=lambda effect: effect.value).axes == (1,)
    nothing = found.effects[0]
    assert nothing.low < 0.05 and found.effects[1].low > nothing.high
    assert sensitivity.by_forest(values[:10], codes[:10], Key(5)) is None


def test_a_contrast_compares_pairs_that_agree_in_all_else(tmp_path: Path) -> None:
    the = study()
    found, _ = search(the, tmp_path)
    result = contrast(found.trials, the.contrasts[0])
    by = plain_law
    expected = [
        by({"bits": 8, "size": s, "noise": n}, 0)["accuracy"]
        - by({"bits": 2, "size": s, "noise": n}, 0)["accuracy"]
        for s in (16, 64, 256)
        for n in (0.1, 0.3)
    ]
    assert sorted(result.differences) == pytest.approx(sorted(expected))
    assert result.low < result.mean < result.high and result.settled


def test_a_contrast_of_nothing_covers_zero_as_often_as_it_says(tmp_path: Path) -> None:
    """200 sets of 6 pairs without a difference: 95 % within 5 standard errors."""
    table = ContrastTable(about="", figure="accuracy", better={"a": 1}, than={"a": 0})
    inside = 0
    for number in range(200):
        rng = Key(13).child(number).numpy()
        trials = Trials([Objective("accuracy", "max")], {"a": (0, 1), "b": tuple(range(6))})
        for a, b in np.ndindex(2, 6):
            point = Point("synthetic", "synthetic", 0, (("a", a), ("b", b)))
            trials.add(Result(point, "done", {"accuracy": float(b + rng.normal())}))
        inside += not contrast(trials, table).settled
    assert abs(inside / 200 - 0.95) < 5 * math.sqrt(0.05 * 0.95 / 200)


# ---- files and pages ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('accuracy = "max"', 'acuracy = "max"', "accuracy"),
        ('accuracy = "max"', 'accuracy = "up"', "objectives.accuracy"),
        ('accuracy = "max"', 'accuracy = { goal = "max", bound = "about 1" }', "bound"),
        ('sampler = "grid"', 'sampler = "gird"', "sampler"),
        ('sampler = "grid"', 'sampler = "nsga2"', "search.points"),
        ('sampler = "grid"', "speed = 1", "speed"),
        ("better = { bits = 8 }", "better = { bits = 3 }", "not on its axis"),
        ("better = { bits = 8 }", "better = { size = 16 }", "same axes"),
        ("[search]", "[fixed]\nbits = 3\n[search]", "axis too"),
        ("[search]", "[budget]\nhours = 3\n[search]", "hours"),
        ("bits = [2, 4, 6, 8]", "bitts = [2, 4, 6, 8]", "bitts"),
        ("[axes]", "[axis]", "axis"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_the_name_of_the_key(
    old: str, new: str, named: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)):
        study(lambda text: text.replace(old, new))


def test_texts_survive_the_way_back_to_toml() -> None:
    about = 'quote " backslash \\\\ newline \\n umlaut ä'
    the = study(
        lambda text: text.replace('"a made-up chip"', '"' + about.replace('"', '\\"') + '"')
    )
    assert the.study.about == 'quote " backslash \\ newline \n umlaut ä'


def test_the_shipped_study_is_sound_and_large_enough() -> None:
    assert shipped()
    for name in shipped():
        the = load_design(found_file(name))
        assert the.wanted >= 60 and len(the.objectives) >= 3 and the.contrasts
        assert quicker(the).wanted <= 6
    with pytest.raises(UnknownName, match=shipped()[0]):
        found_file("design-memristor-optic")


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for n, v in attrs if n in ("src", "href", "xlink:href")]


@pytest.mark.parametrize("kind", ["grid", "tpe"])
def test_the_page_is_whole_offline_and_tells_what_was_found(kind: str, tmp_path: Path) -> None:
    the = study() if kind == "grid" else sampled(kind, 22)
    found = searched(the, tmp_path, Here(noisy_law), mode="quiet")
    summary = finished(the, found, tmp_path, "pib-twin design x.toml", "quiet")
    page = (tmp_path / "report.html").read_text()
    tags = _Tags()
    tags.feed(page)
    assert "script" not in tags.tags and tags.tags.count("svg") >= 4
    assert all(link.startswith(("#", "data:")) for link in tags.links)
    assert "eight bits instead of two" in page and "sampler = &#34;" in page
    front = {f.name: f.value for f in summary.figures}["designs on the front"]
    assert front and f"<b>{front:.0f}</b>" in page
    assert (tmp_path / "designs.csv").is_file() and (tmp_path / "dataset.nc").is_file()


def test_a_page_of_nothing_yet_says_so(tmp_path: Path) -> None:
    the = study()
    found = searched(the, tmp_path, Here(), points=0, mode="quiet")
    finished(the, found, tmp_path, "x", "quiet")
    page = (tmp_path / "report.html").read_text()
    assert "Not finished" in page and "none is done yet" in page


def test_the_command_runs_real_processes_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    file = tmp_path / "chip.toml"
    file.write_text(TEXT)
    first = main(file, tmp_path / "out", 1, budget_points=5, mode="quiet")
    assert first.extra["ended"] == "points (5)"
    second = main(file, tmp_path / "out", 1, quick=False, mode="quiet")
    figures = {f.name: f.value for f in second.figures}
    assert figures["designs tried"] == 24 and second.extra["ended"] is None
    assert figures["trainings computed now"] == figures["trainings"] - 5


@pytest.mark.slow
def test_a_quick_look_at_the_shipped_study(tmp_path: Path) -> None:
    summary = main("design-memristor-optics", tmp_path, 1, quick=True, mode="quiet")
    figures = {f.name: f.value for f in summary.figures}
    assert figures["designs tried"] == 6 and figures["designs failed"] == 0
    assert (figures["test accuracy of that design"] or 0) > 0.6
