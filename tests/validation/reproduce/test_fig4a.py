"""Unsupervised learning at small size: it helps, the control does not, labels do not matter."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from pib.readout import train_readout
from twin.key import Key
from validation.config import load_config
from validation.reproduce import fig4a
from validation.reproduce import fig4awork as work
from validation.reproduce.figure import Request

SEEDS = 2


def small(target: str = "instances", steps: int = 60) -> dict[str, Any]:
    """Two units of 48 and 32 on 400 digits."""
    config = load_config("memristor-unsupervised").model_dump(mode="json")
    config["data"] = {"name": "digits", "limit": 400}
    config["augment"] |= {"shift_px": 1, "zoom": 0.05, "shear": 0.05}
    config["unsupervised"] |= {"target": target, "instances": 20, "views": 6}
    config["training"]["warm_up"] = 5
    for unit, outputs in zip(config["unit"], (48, 32), strict=True):
        unit |= {"outputs": outputs, "steps": steps, "rate": 0.01}
    return config


@pytest.mark.slow
def test_views_teach_and_spreading_does_not() -> None:
    """The control's loss falls too, and its chain ends below the one that learnt."""
    run = work.learnt(small(), 0, None, 3, 200)
    control = work.learnt(small("spread"), 0, None, 0, 0)
    before = work.untrained(small(), 0, None)
    gain = run["linear"] - before["linear"]
    assert float(gain.sel(unit="unit 2")) > 0.02
    assert float((run["linear"] - control["linear"]).sel(unit="unit 2")) > 0.05
    assert bool((control["loss_end"] < control["loss_start"]).all())
    iterations = run["curve_iteration"].values
    assert iterations[:, 0].tolist() == [1, 1] and np.nanmax(iterations) == 60
    assert "curve_iteration" not in control


def test_permuted_and_absent_labels_leave_the_weights_as_they_were() -> None:
    found = work.blindness(small(), 1, None, 3)
    assert int(found["permuted"]) == int(found["absent"]) == 1


def test_a_training_that_looks_at_labels_would_be_caught() -> None:
    config = small() | {"unsupervised": None}
    with pytest.raises(Exception, match="need labels"):
        work.blindness(config, 1, None, 2)
    found = (
        work._weights(*_supervised(config, flip=False)),
        work._weights(*_supervised(config, flip=True)),
    )
    name = "parameter.unit 1.weight"
    assert not bool((found[0][name] == found[1][name]).all())


def _supervised(config: dict[str, Any], flip: bool) -> tuple[Any, ...]:
    config = {**config, "unit": [{**u, "steps": 2} for u in config["unit"]]}
    run, key, data = work._opened(config, 0, None)
    labels = data.train[1]
    return run, data, labels.flip(0) if flip else labels, key


def test_pixels_and_components_are_probed_alike() -> None:
    found = work.without_physics("digits", 400, None, [8, 64])
    pixels, few, all_ = found["linear"].values
    assert found["what"].values.tolist() == ["pixels", "8 components", "64 components"]
    assert few < all_ and abs(all_ - pixels) < 0.1
    # All components are a rotation of the pixels: angles about the mean, not the origin.
    assert abs(found["knn"].values[2] - found["knn"].values[0]) < 0.05


@pytest.mark.parametrize("ratio", [1.0, 20.0])
def test_the_rival_divides_all_components_by_one_number(ratio: float) -> None:
    """However far the leading component is above the others."""
    features = torch.randn(300, 40, generator=Key(0).torch())
    features[:, 0] *= ratio
    labels = torch.arange(300) % 3
    readout = train_readout(features, labels, 3, key=Key(1), recipe=work.one_scale(features))
    assert torch.allclose(readout.scale, features.std(0).max().expand(40), rtol=1e-5)


def test_the_control_is_trained_as_long_as_the_run() -> None:
    for quick in (False, True):
        configs = fig4a._configs(Request(quick=quick))
        main, control = ([u["steps"] for u in configs[n]["unit"]] for n in ("main", "control"))
        assert main == control


def made_up(control: float = 0.7, one: float = 0.965) -> dict[str, xr.Dataset]:
    """As the parts of a full run would be, with the accuracies of a good one."""
    ends = {
        "main": (one, 0.958),
        "harsh": (0.955, 0.945),
        "control": (0.88, control),
        "untrained": (0.915, 0.85),
        "fashion": (0.845, 0.84),
    }
    units, found = ["unit 1", "unit 2"], {}
    for seed in range(SEEDS):
        for run, (first, second) in ends.items():
            values = np.array([first, second]) + 0.001 * seed
            table: dict[str, Any] = {"linear": ("unit", values), "knn": ("unit", values)}
            if run == "main":
                rise = values[:, None] - 0.02 / np.arange(1, 4)
                table |= {f"curve_{n}": (("unit", "look"), rise) for n in ("linear", "knn")}
                table["curve_iteration"] = (("unit", "look"), np.array([[1, 50, 400]] * 2))
            found[f"{run}-{seed}"] = xr.Dataset(
                table, {"unit": units}, attrs={"seed": seed, "seconds": 60.0}
            )
        found[f"blind-{seed}"] = xr.Dataset({"permuted": 1, "absent": 1})
    for name, level in (("mnist", 0.92), ("fashion-mnist", 0.84)):
        found[f"pixels-{name}"] = xr.Dataset(
            {n: ("what", [level, level - 0.01]) for n in ("linear", "knn")},
            {"what": ["pixels", "128 components"]},
        )
    found["target-two-views"] = xr.Dataset(
        {n: ("unit", [0.9, 0.87]) for n in ("linear", "knn")}, {"unit": units}
    )
    return found


def test_a_good_run_holds_every_bar_and_says_so() -> None:
    drawing = fig4a.drawn(made_up(), Request(seeds=SEEDS))
    assert all(f.holds is not False for f in drawing.figures)
    assert "every bar holds" in drawing.verdict
    worst = next(f for f in drawing.figures if f.name == "unit 1 linear probe")
    assert worst.value == pytest.approx(0.965)  # the smaller of two seeds
    drawing.picture.savefig(io.BytesIO(), format="png")


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"control": 0.96, "one": 0.965}, None),
        ({"one": 0.95}, "unit 1 linear probe"),
    ],
)
def test_one_bad_seed_is_a_missed_bar(changes: dict[str, float], missed: str | None) -> None:
    drawing = fig4a.drawn(made_up(**changes), Request(seeds=SEEDS))
    failed = [f.name for f in drawing.figures if f.holds is False]
    if missed is None:
        # A control that reaches the bar of either unit proves the bars worthless.
        assert failed == ["control misses the bars of both units"]
    else:
        assert missed in failed and missed in drawing.verdict


def test_every_part_has_a_name_of_its_own_and_plain_arguments() -> None:
    for quick in (False, True):
        parts = fig4a.parts(Request(quick=quick))
        assert len({part.name for part in parts}) == len(parts)
        assert len({part.seal() for part in parts}) == len(parts)
    assert len(fig4a.parts(Request(quick=True))) < 10
