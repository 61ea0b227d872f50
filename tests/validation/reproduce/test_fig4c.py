"""fig4c at tiny size: directions that hold for every schedule, and the words told of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.validation import sitecases as cases
from validation.reproduce import fig4c
from validation.reproduce.fig4cwork import at_two_sites, in_sequence
from validation.reproduce.figure import Request
from validation.sites import durable, joint
from validation.sites.mailbox import Scheduled
from validation.studies import codeversion

REQUEST = Request(quick=True, seeds=2)


def in_a_run(accuracy: float, *, killed: bool = False) -> xr.Dataset:
    """What a part at two sites brings home, made up."""
    steps = np.arange(40.0)
    data = xr.Dataset(attrs={"events": "[]", "said_downstream": "[]"})
    if killed:
        data.attrs["events"] = '[{"site": "downstream", "event": "killed", "time_s": 20.5}]'
    for role in ("upstream", "downstream"):
        data[f"{role}_time"] = (f"{role}_step", steps)
        data[f"{role}_loss"] = (f"{role}_step", -2 - steps / 40)
        data[f"{role}_door"] = (f"{role}_step", steps / 1000)
        data.attrs[f"traffic_{role}"] = (
            '{"published": 3, "bytes_out": 300, "looks": 40, "read": 3, "bytes_in": 300, '
            '"refused": 0, "seconds": 0.1}'
        )
    if killed:  # a step of the other one falls into the gap
        data["upstream_time"] = data["upstream_time"] + 0.7
    data["published_time"] = ("publication", [1.0, 10.0, 39.0])
    data["version"] = ("downstream_step", np.repeat([0.0, 1.0, 2.0, 3.0], 10))
    data["staleness_steps"] = ("downstream_step", np.where(steps < 10, np.nan, steps % 10))
    data["staleness_publications"] = ("downstream_step", np.where(steps < 10, np.nan, 0.0))
    data["accuracy"] = ((), accuracy)
    data["accuracy_alone"] = ("unit", [accuracy, accuracy])
    return data


def found(free: float, killed: float, sequential: float = 0.97) -> dict[str, xr.Dataset]:
    made = {}
    for seed in (0, 1):
        made[f"sequential-{seed}"] = in_a_run(sequential)
        made[f"free-{seed}"] = in_a_run(free)
        made[f"downstream-{seed}"] = in_a_run(killed, killed=True)
    return made


def value(drawing: Any, name: str) -> Any:
    return next(figure for figure in drawing.figures if figure.name == name)


def test_there_is_a_part_per_seed_and_arm() -> None:
    names = [part.name for part in fig4c.parts(REQUEST)]
    assert sorted(names) == sorted(found(0, 0))
    full = [part.name for part in fig4c.parts(Request())]
    assert len(full) == 12
    assert "upstream-2" in full


def test_a_joint_network_as_good_as_the_sequential_one_holds_the_bounds() -> None:
    drawing = fig4c.drawn(found(0.972, 0.970), REQUEST)
    assert all(figure.holds is not False for figure in drawing.figures)
    assert "within one point" in drawing.verdict
    assert "All bounds hold" in drawing.verdict
    assert drawing.data["accuracy"].sel(arm="free").values.tolist() == [0.972, 0.972]


@pytest.mark.parametrize(
    ("free", "killed", "missed"),
    [
        (0.93, 0.93, "joint_minus_sequential"),
        (0.97, 0.93, "downstream_killed_minus_sequential"),
    ],
)
def test_the_verdict_says_what_did_not_match(free: float, killed: float, missed: str) -> None:
    drawing = fig4c.drawn(found(free, killed), REQUEST)
    assert value(drawing, missed).holds is False
    assert re.search(f"Bounds missed: .*{missed}", drawing.verdict)


def test_killed_runs_are_held_to_sequential_training_whatever_the_free_ones_reach() -> None:
    worse = fig4c.drawn(found(free=0.93, killed=0.93), REQUEST)
    assert value(worse, "downstream_killed_minus_sequential").holds is False
    assert value(worse, "downstream_killed_minus_undisturbed").holds is None
    better = fig4c.drawn(found(free=0.99, killed=0.95), REQUEST)
    assert value(better, "downstream_killed_minus_sequential").holds is True


def test_the_worst_seed_is_told() -> None:
    made = found(0.97, 0.97)
    made["free-1"] = in_a_run(0.96)
    drawing = fig4c.drawn(made, REQUEST)
    worst = value(drawing, "joint_minus_sequential_worst")
    assert worst.value == pytest.approx(-0.01)
    assert worst.seeds == (1,)
    assert "worst seed -1.00" in drawing.verdict


def test_only_what_overlaps_in_every_seed_happened_at_the_same_time() -> None:
    assert "at the same time" in fig4c.drawn(found(0.97, 0.97), REQUEST).verdict
    made = found(0.97, 0.97)
    made["free-1"]["downstream_time"] = made["free-1"]["downstream_time"] + 30
    verdict = fig4c.drawn(made, REQUEST).verdict
    assert "at the same time" not in verdict
    assert "only 22 %" in verdict


def test_a_loss_that_rose_in_any_seed_is_told() -> None:
    made = found(0.97, 0.97)
    made["free-1"]["downstream_loss"] = -made["free-1"]["downstream_loss"]
    assert "did not fall" in fig4c.drawn(made, REQUEST).verdict


def test_a_survivor_that_stands_still_misses_its_bound() -> None:
    name, made = "downstream_killed_steps_of_the_other", found(0.97, 0.97)
    assert value(fig4c.drawn(made, REQUEST), name).value == 1
    made["downstream-1"]["upstream_time"] = made["downstream-1"]["upstream_time"] - 0.7
    assert value(fig4c.drawn(made, REQUEST), name).holds is False


def test_in_a_full_run_features_are_held_to_three_intervals_of_publication() -> None:
    made = found(0.97, 0.97)
    for seed in (0, 1, 2):
        for arm, like in (("sequential", 0), ("free", 0), ("downstream", 0)):
            made[f"{arm}-{seed}"] = made[f"{arm}-{like}"].copy(deep=True)
        made[f"upstream-{seed}"] = made["downstream-0"].copy(deep=True)
    age = value(fig4c.drawn(made, Request()), "staleness_steps_max")
    assert (age.value, age.bound, age.holds) == (9.0, "<= 21", True)  # 40 steps, 6 publications
    made["upstream-2"]["staleness_steps"] = made["upstream-2"]["staleness_steps"] + 13
    assert value(fig4c.drawn(made, Request()), "staleness_steps_max").holds is False


def test_the_code_version_of_a_part_covers_the_processes_of_the_sites() -> None:
    reached = codeversion._reachable([at_two_sites.__module__])
    own = {f"validation.sites.{n}" for n in ("process", "site", "mailbox", "durable", "record")}
    assert own <= reached


def test_the_picture_shows_a_killed_site_as_a_gap() -> None:
    drawing = fig4c.drawn(found(0.97, 0.97), REQUEST)
    free, _, killed, _ = drawing.picture.axes
    gaps = [sum(np.isnan(line.get_ydata()).sum() for line in a.lines) for a in (free, killed)]
    assert gaps == [0, 1]


@pytest.mark.slow
def test_a_site_that_takes_what_is_published_beats_one_that_does_not(tmp_path: Path) -> None:
    """Fixed schedules in one process: no clock decides, so the same numbers every time."""
    text = cases.config(epochs=(8, 8), limit=400).model_dump_json()
    loaded, accuracy = cases.data(400), {}
    up = cases.finish(cases.site(cases.order(tmp_path, "upstream", config=text), loaded))
    durable.save(up)
    # Upstream's five publications as they would come side by side, and none at all.
    for name, schedule in {"listens": {4: 1, 16: 2, 32: 3, 48: 5}, "deaf": {}}.items():
        made = cases.order(tmp_path, "downstream", config=text)
        door = Scheduled(made.post, schedule)
        durable.save(cases.finish(cases.site(made, loaded, door)))
        accuracy[name] = joint.joint({"upstream": up.order, "downstream": made}, loaded).accuracy
    # Nothing random is left: 75.0 against 69.7 % on 360 test images when this was written.
    assert accuracy["listens"] > accuracy["deaf"] + 0.01


@pytest.mark.slow
def test_two_sites_reach_what_one_after_the_other_reaches() -> None:
    text = cases.config(epochs=(12, 12), limit=600).model_dump_json()
    alone = in_sequence(text, 3, None)
    # The parts start processes themselves, as they do in a worker of the pool.
    together = at_two_sites(text, 3, None, None, 0.5, 6)
    for role in ("upstream", "downstream"):
        for run in (alone, together):
            loss = run[f"{role}_loss"].to_numpy()
            assert loss[-10:].mean() < loss[:10].mean()
    # 360 test images: five standard errors of a difference at 95 % are 8 points.
    assert float(together["accuracy"]) >= float(alone["accuracy"]) - 0.08
    assert float(together["accuracy"]) > 0.6
