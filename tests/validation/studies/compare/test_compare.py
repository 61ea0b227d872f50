"""A whole comparison at tiny size: equal cost, the same again, and after a kill."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.validation.studies.compare.tiny import comparison
from validation.studies.collect import TRAINED_BY
from validation.studies.compare import catalogue, chosen, tables
from validation.studies.compare import main as comparing
from validation.studies.compare.data import dataset
from validation.studies.compare.work import work
from validation.studies.points import VOLATILE
from validation.studies.store import Result, Store


def ran(out: Path, folder: Path) -> xr.Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "comparison", lambda *_: comparison(folder))
        comparing.main("tiny", out, False, None, 1, None, "pib-twin compare tiny", "quiet")
    found = xr.load_dataset(out / comparing.DATASET, engine="h5netcdf")
    return found.drop_vars(VOLATILE, errors="ignore")


@dataclass(frozen=True)
class Done:
    """A whole comparison. folder: of its network. out: of its results."""

    folder: Path
    out: Path
    found: xr.Dataset


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("compared")
    return Done(folder, folder / "out", ran(folder / "out", folder))


def test_a_comparison_that_lost_some_results_comes_out_the_same(done: Done) -> None:
    points = sorted((done.out / "points").glob("*.json"))
    lost = points[::4]
    assert lost
    for path in lost:
        path.unlink()
    xr.testing.assert_identical(done.found, ran(done.out, done.folder))
    assert sorted((done.out / "points").glob("*.json")) == points


def test_a_comparison_leaves_a_dataset_a_picture_and_a_page(done: Done) -> None:
    assert done.found.sizes == {"arm": 1, "level": 2, TRAINED_BY: 3, "seed": 2}
    assert np.isfinite(done.found["accuracy"]).all()
    assert (done.out / comparing.PICTURE).stat().st_size > 10_000
    page = (done.out / comparing.TABLE).read_text()
    assert "PIB minus" in page and "Quick" in page


def test_nobody_spends_more_than_the_ceiling_and_references_spend_less(tmp_path: Path) -> None:
    asked = comparison(tmp_path)
    arm = asked.arms[0]
    for method, level in (("pib", 8.0), ("dfa", 12.0), ("elm", None)):
        point = asked.trials_of(arm, method, level)[0]
        figures = work(point)
        assert figures["passes"] <= (level or 1.0) * 200
        if method == "dfa":
            assert figures["passes"] > 0.8 * 12 * 200


def test_the_same_point_gives_the_same_figures(tmp_path: Path) -> None:
    asked = comparison(tmp_path)
    point = asked.trials_of(asked.arms[0], "pib", 8.0)[0]
    figures = [{n: v for n, v in work(point).items() if n not in VOLATILE} for _ in range(2)]
    assert figures[0] == figures[1]


def test_the_best_trial_on_validation_is_the_one_that_goes_on(done: Done) -> None:
    store, asked = Store(done.out), comparison(done.folder)
    for cell in chosen.cells(asked, store):
        results = {p: store.read(p.key()) for p in cell.trials}
        scores = {p: r.figures["accuracy_validation"] for p, r in results.items() if r}
        assert cell.best is not None and scores[cell.best] == max(scores.values())


def test_a_fault_in_mid_run_costs_no_more_than_the_passes_given_to_adapt(tmp_path: Path) -> None:
    asked = comparison(tmp_path)
    point = asked.trials_of(asked.arms[0], "dfa", 8.0)[0]
    settings = (
        *point.settings,
        ("compare.adapt_passes", 3.0),
        ("compare.speckle_correlation", 0.5),
    )
    figures = work(type(point)(**{**point.__dict__, "settings": settings}))
    assert 0 < figures["passes_adapting"] <= 3.0 * 200
    # Readouts are fitted to the images that were measured again: chance is 0.1.
    assert figures["accuracy_all_units"] > 0.2


def test_strange_images_are_judged_by_a_score_that_they_did_not_choose(tmp_path: Path) -> None:
    asked = comparison(tmp_path)
    point = asked.trials_of(asked.arms[0], "pib", 8.0)[0]
    more = (("compare.strange", True), ("compare.held_out_class", 3))
    figures = work(replace(point, settings=(*point.settings, *more)))
    for name in ("turned", "inverted", "held_out_class"):
        assert 0 <= figures[f"auroc_{name}"] <= 1 and 0 <= figures[f"fpr95_{name}"] <= 1
        assert f"auroc_dark_pixels_{name}" in figures


def test_the_catalogue_and_the_command_line_name_the_same_comparisons() -> None:
    names = {"passes", "noise", "data", "ood", "fault", "mismatch", "drift", "depth"}
    assert set(catalogue.COMPARISONS) == names


def test_a_method_that_ran_with_another_one_shows_its_own_figure(tmp_path: Path) -> None:
    asked = comparison(
        tmp_path, methods=("pib", "elm"), same_runs={"backprop": ("elm", "accuracy_validation")},
        seeds=(0,), trials=1,
    )  # fmt: skip
    out = tmp_path / "out"
    store = Store(out)
    points = chosen.trials(asked)
    assert {point.method for point in points} == {"pib", "elm"}
    for point in points:
        store.write(point.key(), Result(point, "done", figures=work(point)))
    found = dataset(asked, store)
    theirs, own = (found.sel({TRAINED_BY: name}) for name in ("elm", "backprop"))
    np.testing.assert_array_equal(own["accuracy"], theirs["accuracy_validation"])
    assert np.isnan(own["passes"].values).all()
    assert "in silico, own head" in tables.page(asked, found, [], "command")
