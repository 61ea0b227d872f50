"""Figure 2C at tiny size: weights move, classes separate, the watcher changes nothing."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from twin.key import Key
from validation import datasets
from validation.config import load_config
from validation.experiment import build_network, build_plans, build_trainer, tensors
from validation.reproduce import fig2c
from validation.reproduce.fig2cwork import BINS, edges, setting, work
from validation.reproduce.figure import Request
from validation.summary import within

MOMENTS = [0.0, 0.25, 1.0]


def tiny() -> Any:
    config = load_config("memristor-digits")
    units = tuple(
        u.model_copy(update={"epochs": 3, "outputs": 32, "rate": 2e-2}) for u in config.unit
    )
    data = config.data.model_copy(update={"limit": 500})
    batch = config.training.model_copy(update={"batch": 100, "warm_up": 2})
    return config.model_copy(update={"unit": units, "data": data, "training": batch})


@cache
def done() -> xr.Dataset:
    return work(tiny().model_dump(mode="json"), 0, None, "pca", 6, MOMENTS)


def test_weights_move_away_and_classes_separate_in_every_layer() -> None:
    """Seed 0, 500 images, 15 iterations a unit; the probe sees 360 test images."""
    drawing = fig2c.drawn({"seed-0": done()}, Request(quick=True))
    found = {figure.name: figure for figure in drawing.figures}
    for unit in (1, 2):
        assert found[f"weight_change_unit_{unit}"].value > 0.1
        assert found[f"weight_change_rank_correlation_unit_{unit}"].value > 0.8
        assert found[f"silhouette_gain_unit_{unit}"].value > 0
        assert within(found[f"probe_gain_unit_{unit}"].value, "> -0.08")
    assert "unit 2" in drawing.verdict and "%" in drawing.verdict
    assert len(drawing.picture.axes) >= 2 * (1 + len(MOMENTS))


def test_what_is_shown_has_units_and_sums_to_one() -> None:
    data = done()
    assert data["weight_share"].shape == (2, 6, BINS)
    np.testing.assert_allclose(data["weight_share"].sum("bin"), 1.0, rtol=1e-12)
    assert data["full_scale"].attrs["units"] == "S" and float(data["full_scale"][0]) < 1e-3
    assert data["map_point"].shape == (2, 3, 360, 2)
    assert data["map_iteration"].values[0].tolist() == [1, 4, 15]
    assert all("units" in data[name].attrs for name in data.data_vars)


def test_watching_changes_no_weight() -> None:
    """Passes age a device, but weights follow from readings of steps alone.

    Within a level of the converters: a looked-at device has relaxed a little more.
    """
    config = tiny()
    data = tensors(datasets.load("digits", limit=500))
    network = build_network(config, 64, key=Key(0))
    trainer = build_trainer(network, data, build_plans(config), key=Key(0).child("train"))
    trainer.RECORDS_PER_UNIT = trainer.PROBES_PER_UNIT = 0
    trainer.run()
    for index, unit in enumerate(network.units):
        counts, _ = np.histogram(setting(unit), edges())
        share, seen = counts / counts.sum(), done()["weight_share"].values[index, -1]
        assert abs(share - seen).sum() < 0.05


def test_a_network_that_learns_nothing_is_told_so() -> None:
    data = done().copy(deep=True)
    data["silhouette"].values[:, -1] = data["silhouette"].values[:, 0] - 0.1
    drawing = fig2c.drawn({"seed-0": data}, Request(quick=True))
    assert drawing.verdict.startswith("Unlike in the paper")
    assert [f.name for f in drawing.figures if f.holds is False] == [
        "silhouette_gain_unit_1", "silhouette_gain_unit_2"
    ]  # fmt: skip


@pytest.mark.parametrize("quick", [True, False])
def test_parts_are_one_per_seed_and_in_plain_types(quick: bool) -> None:
    parts = fig2c.parts(Request(quick=quick, seeds=2))
    assert [part.name for part in parts] == ["seed-0", "seed-1"]
    assert parts[0].arguments["method"] == ("pca" if quick else "umap")
    assert len({part.seal() for part in parts}) == 2


def test_the_setting_is_what_the_device_was_asked_to_hold() -> None:
    network = build_network(tiny(), 64, key=Key(0))
    unit = network.units[0]
    unit.deploy(Key(1))
    asked = torch.as_tensor(setting(unit))
    assert float(asked.abs().max()) <= 1 and float(asked.std()) == pytest.approx(0.25, rel=0.05)
