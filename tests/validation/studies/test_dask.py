"""The same study on a real dask scheduler with two workers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr

from tests.validation.studies.helpers import ROOT, Seen, toml
from twin.errors import ConfigError, DeviceUnavailable, UnknownName
from validation.studies.collect import collect, comparable
from validation.studies.engine import run
from validation.studies.main import main
from validation.studies.study import parse_study
from validation.studies.workers import Dask, Pool

# What distributed and tornado deprecate among themselves is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")
NODE = "from distributed.cli.dask_{} import main; main()"


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a scheduler that runs beside the test, with two workers of one thread."""
    pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    commands = [
        [NODE.format("scheduler"), *common, "--host", "127.0.0.1", "--port", "0"],
        [NODE.format("worker"), *common, "--nworkers", "2", "--nthreads", "1",
         "--local-directory", str(folder)],
    ]  # fmt: skip
    running = [
        subprocess.Popen(
            [sys.executable, "-c", *command], env=env, cwd=folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for command in commands
    ]  # fmt: skip
    try:
        from distributed import Client

        with Client(scheduler_file=str(file), timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            yield str(client.scheduler.address)
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(timeout=20)


def test_64_points_on_dask_equal_the_pools(scheduler: str, tmp_path: Path) -> None:
    head = {"base": "synthetic", "methods": ["synthetic"], "seeds": 4}
    axes = {"bits": [2, 4, 6, 8], "kind": ["plain", "fancy"], "fail": [False, True]}
    study = parse_study(toml(head, axes), "study.toml")
    assert study.size == 64
    with Dask(scheduler) as cluster:
        assert cluster.count == 2
        run(study.points(), tmp_path / "dask", cluster, seen := Seen())
    with Pool(2) as pool:
        run(study.points(), tmp_path / "pool", pool)
    one, other = (comparable(collect(tmp_path / name, study)) for name in ("dask", "pool"))
    xr.testing.assert_identical(one, other)
    assert len(seen.computed()) == 64


@pytest.mark.slow
def test_points_that_kill_their_dask_workers_fail_and_say_why(
    scheduler: str, tmp_path: Path
) -> None:
    # Killers only: dask may lose what an innocent point found on a worker that then dies,
    # and never tell the client (seen once, as a wait without end).
    head = {"base": "synthetic", "methods": ["synthetic"], "seeds": 1}
    study = parse_study(toml(head, {"die": [False, True]}), "study.toml")
    killers = [point for point in study.points() if dict(point.settings)["die"]]
    with Dask(scheduler) as cluster:
        run(killers, tmp_path, cluster, seen := Seen())
    assert [r.status for r in seen.computed()] == ["failed"]
    assert "workers died" in seen.computed()[0].reason


@pytest.mark.slow
def test_the_command_runs_the_same_file_on_dask(scheduler: str, tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(toml({"base": "synthetic", "methods": ["synthetic"]}, {"bits": [2, 4]}))
    summary = main(file, tmp_path / "out", executor="dask", scheduler=scheduler, mode="quiet")
    assert {f.name: f.value for f in summary.figures}["points done"] == 2


def test_a_missing_or_wrong_scheduler_is_said(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(toml({"base": "synthetic", "methods": ["synthetic"]}, {"bits": [2, 4]}))
    with pytest.raises(ConfigError, match="--scheduler ADDRESS"):
        main(file, tmp_path / "out", executor="dask")
    with pytest.raises(ConfigError, match="goes with --executor dask"):
        main(file, tmp_path / "out", scheduler="tcp://127.0.0.1:1")
    with pytest.raises(UnknownName, match="'dask'"):
        main(file, tmp_path / "out", executor="dusk")
    with pytest.raises(DeviceUnavailable, match="no dask scheduler"):
        Dask("tcp://127.0.0.1:9", timeout_s=1)
