"""What a person sees, and what the command leaves in its folder."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr
from rich.console import Console

from tests.validation.studies.helpers import ROOT, Inline, Seen, cheap, toml
from twin.errors import ConfigError, UnknownName
from validation.studies.collect import collect, comparable
from validation.studies.engine import run
from validation.studies.estimate import Estimate
from validation.studies.main import main
from validation.studies.points import Point
from validation.studies.progress import JsonLines, Shown, Tally, duration, picture, watcher
from validation.studies.store import Result
from validation.studies.study import load_study

POINT = Point(base="synthetic", method="synthetic", seed=0, settings=(("bits", 4),))


def result(accuracy: float | None = None, seconds: float = 2.0) -> Result:
    if accuracy is None:
        return Result(POINT, "failed", {}, {"kind": "OSError", "message": "no"})
    figures = {"accuracy": accuracy, "joules_training": 3.0}
    return Result(POINT, "done", figures, None, {"wall_seconds": seconds})


def test_a_tally_counts_and_remembers_the_best() -> None:
    tally = Tally(total=5)
    assert tally.per_minute is None and tally.seconds_left is None
    for seen, kept in ((result(0.5), True), (result(0.9), False), (result(0.7), False),
                       (result(), False)):  # fmt: skip
        tally.seen(seen, kept)
    assert (tally.done, tally.failed, tally.left, tally.kept, tally.computed) == (3, 1, 1, 1, 3)
    assert tally.best is not None and tally.best.figures["accuracy"] == 0.9
    assert tally.per_minute is not None and tally.per_minute > 0


def test_the_live_table_says_all_of_it() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    tally = Tally(total=4)
    with Shown(tally, console) as shown:
        for each in (result(0.5), result(0.9), result()):
            shown.seen(each, kept=False)
    console.print(picture(tally))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for word in ("done", "failed", "left", "points/min", "time left", "best accuracy", "0.9"):
        assert word in text
    assert "failed: synthetic, bits=4, seed 0: OSError: no" in text


def test_json_lines_are_one_object_per_point() -> None:
    stream = io.StringIO()
    lines = JsonLines(Tally(total=2), stream)
    for each in (result(float("nan")), result()):
        lines.seen(each, kept=False)
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(f["status"], f["left"]) for f in found] == [("done", 1), ("failed", 0)]
    assert found[0]["point"]["settings"] == [["bits", 4]] and found[1]["error"]["kind"] == "OSError"


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UnknownName, match="'quiet'"):
        watcher("quite", Tally(1))


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "0 s"), (59, "59 s"), (60, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min"),
     (86400 * 3 + 4 * 3600, "3 d 4 h")],
)  # fmt: skip
def test_durations_are_told_as_people_do(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_an_estimate_follows_what_points_took() -> None:
    left = [POINT] * 30
    assert "not known" in Estimate().told(left, 2)
    estimate = Estimate([result(0.5, 2.0), result(0.5, 4.0), result(0.5, 90.0), result()])
    assert estimate.knows(left)
    assert estimate.told(left, 2) == (
        "about 1 min on 2 workers; the devices burn about 90 J in training"
    )
    assert "nothing is left" in estimate.told([], 2)


def written(folder: Path) -> Path:
    file = folder / "study.toml"
    head = {"base": "synthetic", "methods": ["synthetic"], "seeds": 3, "about": "a try\0"}
    file.write_text(toml(head, {"bits": [2, 8], "shared": [False, True], "fail": [False, True]}))
    return file


def test_the_command_leaves_dataset_table_summary_and_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = written(tmp_path), tmp_path / "out"
    summary = main(file, out, command="pib-twin study")
    figures = {f.name: f.value for f in summary.figures}
    assert figures["points done"] == figures["points failed"] == 12
    assert any(n.startswith("best mean accuracy: trained_by=synthetic, bits=8") for n in figures)
    assert {p.name for p in out.iterdir()} >= {"dataset.nc", "table.csv", "summary.json"}
    assert (out / "study.toml").read_bytes() == file.read_bytes()
    data = xr.load_dataset(out / "dataset.nc", engine="h5netcdf")
    fresh = collect(out, load_study(file))
    xr.testing.assert_equal(comparable(data), comparable(fresh))
    assert data["accuracy"].dims == ("trained_by", "bits", "shared", "fail", "seed")
    assert data["latency_s"].attrs["units"] == "s" and data.attrs["base"] == "synthetic"
    assert "24 points, 0 of them" in capsys.readouterr().out


def test_a_recorded_figure_alone_is_in_the_dataset(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    head = {"base": "synthetic", "methods": ["synthetic"], "record": ["latency_s"]}
    file.write_text(toml(head, {"bits": [2, 8]}))
    study = load_study(file)
    run(study.points(), tmp_path, Inline(), Seen())
    data = collect(tmp_path, study)
    assert "latency_s" in data and "accuracy" not in data
    assert comparable(data).attrs["volatile"] == "host wall_seconds"


def test_a_faulty_file_computes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(toml({"base": "synthetic", "methods": ["synthetic"]}, {"bitz": [2, 8]}))
    with pytest.raises(ConfigError, match=r"study\.toml\.axes\.bitz"):
        main(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_synthetic_study_needs_no_torch() -> None:
    code = (
        "import sys; import validation.studies.main, validation.studies.worker; "
        "from validation.studies.study import parse_study; "
        "parse_study('base = \"synthetic\"\\nmethods = [\"synthetic\"]', 'x'); "
        "sys.exit('torch' in sys.modules or 'xarray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_points_are_told_in_one_line() -> None:
    assert [p.told() for p in cheap(bits=[2])] == ["synthetic, bits=2, seed 0"]
