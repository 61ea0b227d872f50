"""The study of light on handfuls of digits: clocks, clean patterns, what it leaves."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import xarray as xr

from twin.key import Key
from validation import datasets, summary
from validation.experiment import build_network, tensors
from validation.studies import light, lightpoint
from validation.studies.lightpair import PERFECT, clean_frames, pearson, predicted
from validation.studies.lightpicture import picture
from validation.studies.lightpoint import Point, Task, configuration, work

TINY = Task(
    medium="static", electrons=100.0, dataset="digits", limit=1_000, tests=120, shown=48,
    pixels=96, epochs=2,
)  # fmt: skip


@cache
def done(medium: str) -> Point:
    return work(replace(TINY, medium=medium))


@pytest.mark.parametrize("medium", ["static", "slow", "tissue-like"])
def test_the_frames_are_as_alike_as_the_budget_says(medium: str) -> None:
    """96 pixels, 48 images: within five standard errors, jackknifed over pixels.

    "fresh" compares with the clean pattern at the very time of the frame: in
    tissue one frame off costs 0.016, more than the bound.
    """
    for seen in done(medium).units:
        assert seen.budget_holds
        for compared in (seen.later, seen.fresh, seen.pair):
            gap = abs(compared.measured - compared.predicted)
            assert gap < 5 * compared.standard_error + 1e-4
        assert seen.fresh.standard_error < 2e-3


def test_a_clean_pattern_of_another_time_would_be_noticed() -> None:
    """The comparison can fail: 96 pixels a second late in tissue."""
    config = configuration(replace(TINY, medium="tissue-like"))
    drive = torch.rand((48, 64), generator=Key(1).torch())
    now, late = (clean_frames(config.unit[0], 0, drive, t, Key(0)) for t in (20.0, 21.0))
    again = clean_frames(config.unit[0], 0, drive, 20.0, Key(0))
    assert torch.equal(now, again)
    assert pearson(now, late) == pytest.approx(math.exp(-1.0), abs=5 / math.sqrt(96))


def test_the_age_of_the_frames_is_the_time_that_passed_on_the_shared_clock() -> None:
    """A unit's first capture comes first, so its frames are the oldest."""
    point = done("slow")
    first, second = (seen.age_s for seen in point.units)
    assert first > second > 0
    total = {}
    for row in point.ledger:
        spent = float(row["device_seconds"]) + float(row["waited_seconds"])
        total[row["unit"]] = total.get(row["unit"], 0.0) + spent
    assert total["unit 1"] == pytest.approx(total["unit 2"])
    assert first < total["unit 1"]
    assert sum(r["passes"] for r in point.ledger if r["phase"] == "shown again") == 2 * TINY.shown


def test_the_first_captured_frame_is_where_the_ledger_puts_it() -> None:
    """The device's own clock beside the one added up from the ledger."""
    config, key = configuration(replace(TINY, medium="slow")), Key(0)
    data = tensors(datasets.load("digits", limit=TINY.limit, validation=100))
    network = build_network(config, 64, key=key)
    _, stores = lightpoint.trained(network, data, config, key.child("train"))
    unit = network.units[0]
    now_s = lightpoint.clock_s(unit)
    reading = unit.fence.forward(data.train[0][:1], key=key)
    network.close()
    assert reading.clock_s == pytest.approx(now_s + stores[0].frame_s)
    # 500 images were looked at first, to learn each pixel's mean.
    assert stores[0].begin_s == pytest.approx(500 / 60)


def test_a_still_medium_keeps_its_accuracy_and_tissue_loses_all() -> None:
    """120 test images of ten classes: chance is 0.1 +- 0.03."""
    assert done("static").accuracy > 0.6
    assert done("static").linear > 0.6
    assert done("tissue-like").accuracy < 0.1 + 5 * math.sqrt(0.1 * 0.9 / 120)


def test_a_perfect_rig_predicts_a_perfect_correlation() -> None:
    assert predicted(PERFECT, 64, 0.0).correlation > 1 - 1e-6


def test_the_study_leaves_a_picture_figures_and_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(light, "MEDIA", ("slow", "static"))
    monkeypatch.setattr(light, "ELECTRONS", (10.0, 100.0))
    monkeypatch.setattr(light, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(light, "work", dim_beyond_the_budget)
    light.main(tmp_path, 1, True, None, 1, "pib-twin light", like=TINY)
    kept = summary.read(tmp_path)
    assert kept.extra["pictures"] == ["light.png"]
    assert (tmp_path / "light.png").stat().st_size > 10_000
    names = {f.name: f for f in kept.figures}
    assert names["accuracy_static_100"].value == done("static").accuracy
    assert names["gap_unit1_slow_100"].holds
    assert names["gap_unit1_slow_10"].bound is None
    with xr.open_dataset(tmp_path / "light.nc", engine="h5netcdf") as data:
        assert dict(data.sizes) == {"medium": 2, "electrons": 2, "seed": 1, "unit": 2}
        assert not any(array.isnull().any() for array in data.data_vars.values())
        static = data.sel(medium="static", electrons=100.0, seed=0)
        assert float(static.accuracy) == done("static").accuracy


def test_each_medium_has_a_marker_and_each_photon_level_a_colour() -> None:
    points = {
        replace(TINY, medium=medium, electrons=electrons): done("static")
        for medium in ("static", "slow", "tissue-like")
        for electrons in (10.0, 100.0, 1000.0)
    }
    left = picture(light.spots(points), 0.1).axes[0]
    looks = {(line.get_marker(), line.get_color()) for line in left.get_lines()[1:]}
    assert len({look for look in looks if look[0] in "o^s"}) == 9


def dim_beyond_the_budget(task: Task) -> Point:
    """A point made before; below 100 electrons as if the budget did not hold."""
    point = done(task.medium)
    units = tuple(replace(seen, budget_holds=task.electrons >= 100) for seen in point.units)
    return replace(point, units=units)


class Here:
    """A pool that works in this process."""

    def __init__(self, jobs: int, mp_context: object) -> None:
        pass

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    map = staticmethod(map)
