"""The engine: what is kept is kept, failures stop nobody, halves make a whole."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.validation.studies.helpers import Inline, Seen, cheap, spelt, started, toml
from twin.errors import ConfigError, DeviceUnavailable
from validation.studies import engine
from validation.studies.collect import collect, comparable, table
from validation.studies.engine import run
from validation.studies.points import Point
from validation.studies.store import Store
from validation.studies.study import Study, load_study, parse_study
from validation.studies.workers import Pool

SYNTHETIC = {"base": "synthetic", "methods": ["synthetic"], "seeds": 2}


def study_of(**axes: list[Any]) -> Study:
    return parse_study(toml(SYNTHETIC, axes), "study.toml")


def gathered(folder: Path | str, study: Study) -> xr.Dataset:
    return comparable(collect(folder, study))


# ---- in one process ------------------------------------------------------------


def test_a_second_run_computes_nothing_and_shows_everything(tmp_path: Path) -> None:
    points = cheap(2, bits=[2, 4], kind=["plain", "fancy"])
    run(points, tmp_path, Inline(), first := Seen())
    run(points, tmp_path, Inline(), second := Seen())
    assert len(first.computed()) == 8 and second.computed() == []
    assert {r.point: r.figures for r, _ in second} == {r.point: r.figures for r, _ in first}


def test_a_new_value_on_an_axis_computes_the_new_points_only(tmp_path: Path) -> None:
    run(cheap(2, bits=[2, 4]), tmp_path, Inline())
    run(cheap(2, bits=[2, 3, 4]), tmp_path, Inline(), seen := Seen())
    assert [dict(r.point.settings)["bits"] for r in seen.computed()] == [3, 3]


def test_a_failing_point_stops_no_other_and_is_told_with_its_parameters(tmp_path: Path) -> None:
    study = study_of(bits=[2, 4], fail=[False, True])
    run(study.points(), tmp_path, Inline(), seen := Seen())
    failed = [r for r in seen.computed() if r.status == "failed"]
    assert len(failed) == 4 and len(seen) == 8
    assert "fail=True" in failed[0].point.told() and "as asked" in failed[0].reason
    data = collect(tmp_path, study).sel(fail=True)
    assert (data["status"] == "failed").all() and data["accuracy"].isnull().all()
    assert all("ObjectiveError" in str(reason) for reason in data["reason"].values.flat)


def test_failed_points_are_computed_again_only_if_asked(tmp_path: Path) -> None:
    points = cheap(bits=[2, 4], fail=[False, True])
    run(points, tmp_path, Inline())
    run(points, tmp_path, Inline(), left := Seen())
    run(points, tmp_path, Inline(), retried := Seen(), retry_failed=True)
    assert left.computed() == []
    assert [r.status for r in retried.computed()] == ["failed", "failed"]


def test_a_torn_file_is_computed_again(tmp_path: Path) -> None:
    points = cheap(bits=[2, 4, 6])
    run(points, tmp_path, Inline())
    path = Store(tmp_path).path(points[1].key())
    path.write_bytes(path.read_bytes()[:20])
    run(points, tmp_path, Inline(), seen := Seen())
    assert [r.point for r in seen.computed()] == [points[1]]


def test_points_that_another_process_claims_come_last_and_are_not_waited_for(
    tmp_path: Path,
) -> None:
    points = cheap(bits=[2, 4, 6])
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / points[0].key()).write_text("another-machine 17")
    run(points, tmp_path, Inline(), seen := Seen())
    assert [r.point for r in seen.computed()] == [*points[1:], points[0]]
    assert list((tmp_path / "claims").iterdir()) == []


def test_the_same_point_given_twice_is_computed_once(tmp_path: Path) -> None:
    run(cheap(bits=[2, 4]) * 2, tmp_path, Inline(), seen := Seen())
    assert len(seen.computed()) == 2


def test_an_interrupted_run_keeps_what_is_done_and_claims_nothing(tmp_path: Path) -> None:
    points = cheap(bits=[2, 4, 6])

    class Impatient(Seen):
        def seen(self, result: Any, kept: bool) -> None:
            super().seen(result, kept)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(points, tmp_path, Inline(), Impatient())
    assert list((tmp_path / "claims").iterdir()) == []
    run(points, tmp_path, Inline(), seen := Seen())
    assert len(seen.computed()) == 2


@settings(max_examples=10)
@given(st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7)))
def test_two_parts_of_a_study_merged_equal_the_whole(one: set[int], other: set[int]) -> None:
    study = study_of(bits=[2, 4], fail=[False, True])
    points = list(study.points())
    other |= set(range(8)) - one
    with tempfile.TemporaryDirectory() as here:
        folders = [Path(here) / name for name in ("one", "other", "whole")]
        for folder, part in zip(folders, (one, other, range(8)), strict=True):
            run([points[index] for index in part], folder, Inline())
        taken = Store(folders[0]).absorb(Store(folders[1]))
        assert taken == 8 - len(one)
        xr.testing.assert_identical(gathered(folders[0], study), gathered(folders[2], study))


def test_merging_prefers_what_is_done(tmp_path: Path) -> None:
    (point,) = cheap(bits=[2])
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    failed = engine._failed(point, "OSError", "disk full")
    one.write(point.key(), failed)
    run([point], tmp_path / "other", Inline())
    assert other.absorb(one) == 0
    assert one.absorb(other) == 1
    kept = one.read(point.key())
    assert kept is not None and kept.status == "done"


class Bounded(Inline):
    """Keeps count of results that nobody has taken yet."""

    def __init__(self) -> None:
        self.alive = self.most = 0

    def submit(self, *given: Any, **named: Any) -> Any:
        future = super().submit(*given, **named)
        self.alive += 1
        self.most = max(self.most, self.alive)
        return future


def test_only_a_few_points_are_handed_over_at_a_time(tmp_path: Path) -> None:
    executor = Bounded()

    class Taking(Seen):
        def seen(self, result: Any, kept: bool) -> None:
            executor.alive -= 1

    run(cheap(20, bits=[2, 4]), tmp_path, executor, Taking())
    assert executor.most <= engine.AHEAD * 2


# ---- processes --------------------------------------------------------------------


def test_a_pool_gives_what_one_process_gives(tmp_path: Path) -> None:
    study = study_of(bits=[2, 4], kind=["plain", "fancy"], fail=[False, True])
    run(study.points(), tmp_path / "one", Inline())
    with Pool(2) as pool:
        run(study.points(), tmp_path / "pool", pool)
    one, many = (gathered(tmp_path / name, study) for name in ("one", "pool"))
    xr.testing.assert_identical(one, many)


def test_a_point_that_kills_its_process_fails_alone(tmp_path: Path) -> None:
    points = cheap(3, bits=[2, 4], die=[False, True])[:7]
    with Pool(2) as pool:
        run(points, tmp_path, pool, seen := Seen())
    by_point = {r.point: r for r in seen.computed()}
    assert len(by_point) == 7
    for point, result in by_point.items():
        died = dict(point.settings)["die"]
        assert (result.status == "failed") == died, result
        if died:
            assert "WorkerDied" in result.reason


def test_workers_killed_from_outside_cost_no_point(tmp_path: Path) -> None:
    choose = random.Random(5)
    points = cheap(20, bits=[2, 4], sleep_s=[0.02])

    class Killer(Seen):
        def seen(self, result: Any, kept: bool) -> None:
            super().seen(result, kept)
            if len(self) in (5, 20):
                victim = choose.choice(multiprocessing.active_children())
                os.kill(victim.pid or 0, signal.SIGKILL)

    with Pool(2) as pool:
        run(points, tmp_path, pool, seen := Killer())
    assert {r.point for r in seen.computed()} == set(points)
    assert all(r.status == "done" for r, _ in seen)


def test_a_broken_executor_of_somebody_else_is_said_to_be_broken(tmp_path: Path) -> None:
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=context) as executor,
        pytest.raises(DeviceUnavailable, match="Start the study again"),
    ):
        run(cheap(die=[True]), tmp_path, executor)


def test_a_pool_needs_a_process() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Pool(0)


def slow_study(folder: Path, seeds: int) -> Path:
    file = folder / "study.toml"
    axes = {"bits": [2, 4, 6, 8], "sleep_s": [0.02, 0.021], "fail": [False, True]}
    file.write_text(toml(SYNTHETIC | {"seeds": seeds}, axes))
    return file


def grows(folder: Path, beyond: int, within_s: float = 30.0) -> None:
    """Wait until there are more results than that."""
    until = time.monotonic() + within_s
    while len(list((folder / "points").glob("*.json"))) <= beyond:
        assert time.monotonic() < until
        time.sleep(0.01)


def descendants_end(group: int, within_s: float = 10.0) -> bool:
    """Whether no process of the group is left after a while."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        listed = subprocess.run(
            ["ps", "-o", "stat=", "--sid", str(group)], capture_output=True, text=True, check=False
        )
        if all(line.startswith("Z") for line in listed.stdout.split()):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments_and_a_torn_file_change_nothing(
    tmp_path: Path, kills: int
) -> None:
    draw = random.Random(kills)
    file = slow_study(tmp_path, seeds=4 if kills < 5 else 20)
    study, script = load_study(file), tmp_path / "run.py"
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    sound: list[int] = []
    for number in range(kills):
        process = started(file, killed, script, mode="quiet")
        if number:  # the first one may come before the first point
            grows(killed, max(sound))
        time.sleep(draw.uniform(0, 0.4))
        if number % 2:
            os.kill(process.pid, signal.SIGKILL)  # the parent alone: its workers must notice
            process.communicate(timeout=30)
            assert descendants_end(process.pid)
        else:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=30)
        sound.append(sum(1 for _ in Store(killed).results()))
        torn = sorted((killed / "points").glob("*.json"))
        if torn and number == kills // 2:
            victim = draw.choice(torn)
            victim.write_bytes(victim.read_bytes()[:20])
    with Pool(2) as pool:
        run(study.points(), killed, pool, seen := Seen())
        run(study.points(), whole, pool)
    # Killed runs left something, also for one another; only the torn one is lost.
    assert sound[-1] > 0 and sorted(sound[1:]) == sound[1:]
    assert len(seen.computed()) <= study.size - sound[-1] + 1
    xr.testing.assert_identical(gathered(killed, study), gathered(whole, study))
    assert {p.name for p in (killed / "points").glob("*.json")} == {
        p.name for p in (whole / "points").iterdir()
    }


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(tmp_path: Path) -> None:
    file = slow_study(tmp_path, seeds=20)
    process = started(file, tmp_path / "out", tmp_path / "run.py")
    grows(tmp_path / "out", 4)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert "points are kept" in out and "goes on from there" in out
    assert err.count("Traceback") == 1 and "KeyboardInterrupt" in err
    assert descendants_end(process.pid)
    assert 5 <= len(list(Store(tmp_path / "out").results())) < 640


def test_ctrl_c_while_the_processes_start_says_nothing_of_theirs(tmp_path: Path) -> None:
    """Held back in them from the beginning: they begin with a second of imports."""
    code = (
        "import os, signal, time\n"
        "from validation.studies.workers import Pool\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    pool = Pool(2)\n"
        "    future = pool.submit(len, 'ab')\n"
        "    for _ in range(40):\n"
        "        try:\n"
        "            os.killpg(0, signal.SIGINT)\n"
        "            time.sleep(0.02)\n"
        "        except KeyboardInterrupt:\n"
        "            pass\n"
        "    assert future.result(30) == 2\n"
        "    pool.stop()\n"
    )
    (tmp_path / "begin.py").write_text(code)
    root = Path(engine.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "begin.py")], env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True, text=True, timeout=60, start_new_session=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == ""


def test_the_table_has_one_row_per_point(tmp_path: Path) -> None:
    points: list[Point] = cheap(2, bits=[2, 4], fail=[False, True])
    run(points[:6], tmp_path, Inline())
    rows = table(tmp_path, points)
    assert len(rows) == 8 and list(rows["status"]).count("missing") == 2
    assert set(rows.columns) >= {"trained_by", "seed", "bits", "fail", "accuracy", "reason"}


def test_values_are_spelt_as_toml() -> None:
    assert spelt({"from": 1.0, "log": True}) == '{ "from": 1.0, "log": true }'.replace(":", " =")


class BreaksOnSubmit:
    """Breaks on every third submit, with the results before it still to be taken."""

    count = 2

    def __init__(self) -> None:
        self.submitted = self.renewed = 0

    def submit(self, *given: Any) -> Any:
        self.submitted += 1
        if self.submitted % 3 == 0:
            raise BrokenExecutor
        return Inline().submit(*given)

    def renew(self) -> None:
        self.renewed += 1

    def stop(self) -> None:
        """Nothing to stop."""


def test_an_executor_that_breaks_between_points_loses_none(tmp_path: Path) -> None:
    points, workers = cheap(3, bits=[2, 4, 6]), BreaksOnSubmit()
    run(points, tmp_path, workers, seen := Seen())
    assert {r.point for r in seen.computed()} == set(points) and workers.renewed > 1


def held_back(seconds: float) -> tuple[int, bool]:
    """In a worker, after a while: who it is, and whether Ctrl-C waits there."""
    time.sleep(seconds)
    return os.getpid(), signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_every_process_of_a_pool_begins_with_ctrl_c_held_back() -> None:
    # Processes start one by one, as calls find nobody idle.
    with Pool(3) as pool:
        found = dict(future.result() for future in [pool.submit(held_back, 1.0) for _ in "123456"])
    assert len(found) == 3 and all(found.values())
