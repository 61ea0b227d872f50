"""The trade between writes and accuracy at small size, and what is said of it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import xarray as xr

from validation.reproduce import writes
from validation.reproduce import writeswork as work
from validation.reproduce.figure import Request
from validation.reproduce.writespicture import REWRITTEN

QUICK = Request(quick=True)


def trained(policy: str) -> xr.Dataset:
    config = writes._config(QUICK, writes.policies()[policy])
    config["data"]["limit"] = 300
    for unit in config["unit"]:
        unit |= {"outputs": 32, "epochs": 8}
    return work.trained(config, 0, None)


def test_writing_less_is_counted_as_less() -> None:
    """Digits: every fifth write is a fifth of the cells; a threshold and a sign skip cells."""
    plain, seldom, full = trained("every 1"), trained("every 5"), trained(REWRITTEN)
    sparing, pulses = trained("threshold 0.1"), trained("sign 0.05")
    assert float(seldom["writes"]) < 0.4 * float(plain["writes"])
    # More weights change their sign in five steps than in one, and then both cells move.
    share = float(seldom["writes"] / plain["writes"])
    assert share < float(seldom["cells"] / plain["cells"]) < 1.4 * share
    # One cell of a differential pair is idle: it is spared by all ways but the reference.
    assert float(full["writes"]) == float(plain["writes"])
    assert 1.6 < float(full["cells"] / plain["cells"]) <= 2
    assert 0.3 < float(plain["validation_accuracy"]) <= 1
    assert int(plain.attrs["validation_images"]) != int(plain.attrs["test_images"])
    for less in (sparing, pulses):
        assert float(less["writes"]) == float(plain["writes"])
        assert float(less["cells"]) < 0.7 * float(plain["cells"])
        assert float(less["joules"]) < float(plain["joules"])
        assert float(less["device_seconds"]) < float(plain["device_seconds"])


def test_every_way_but_the_reference_spares_unchanged_cells() -> None:
    """Else thresholds and signs would be told a saving that is the chip's."""
    spares = {
        name: not how["options"]["write_unchanged"] for name, how in writes.policies().items()
    }
    assert [name for name, sparing in spares.items() if not sparing] == [REWRITTEN]


def made_up(best: str) -> dict[str, xr.Dataset]:
    """Ways to write of which only `best` is both cheap and good."""
    found = {}
    for name in writes.policies():
        cheap = name == best
        for seed in range(2):
            accuracy = 0.95 if cheap else 0.96
            table: dict[str, Any] = {"accuracy": accuracy, "validation_accuracy": accuracy}
            cost = 1.0 if cheap else 100.0
            table |= dict.fromkeys(work.COSTS, cost)
            about = {"test_images": 100, "validation_images": 50, "seed": seed}
            found[f"{writes.file_of(name)}-{seed}"] = xr.Dataset(table, attrs=about)
    return found


@pytest.mark.parametrize("best", ["every 25", "threshold 0.1", "every 5, threshold 0.05"])
def test_the_way_that_is_cheap_and_good_is_named(best: str) -> None:
    found = made_up(best)
    drawing = writes.drawn(found, Request(seeds=2))
    assert f"'{best}'" in drawing.verdict and "costs 1.0 points" in drawing.verdict
    assert any(best in f.name and f.value == pytest.approx(0.01) for f in drawing.figures)
    drawing.picture.savefig(io.BytesIO(), format="png")


def test_the_way_is_chosen_on_validation_images_and_told_on_test_images() -> None:
    """Of two cheap ways, the one that only the test images prefer is not taken."""
    found = made_up("every 25")
    for seed in range(2):
        lucky, told = found[f"threshold-0.1-{seed}"], found[f"every-25-{seed}"]
        lucky["accuracy"], lucky["validation_accuracy"] = 0.99, 0.90
        lucky["cells"], told["validation_accuracy"] = told["cells"], 0.97
    drawing = writes.drawn(found, Request(seeds=2))
    assert "'every 25', chosen on validation" in drawing.verdict
    assert "costs 1.0 points" in drawing.verdict
    assert "'threshold 0.1', gains 3.0 points" in drawing.verdict


def test_without_a_cheap_way_the_cheapest_is_named() -> None:
    found = made_up("none of them")
    data = writes._together(found, [0, 1])
    assert writes.best_within(data, 0.1) in writes.policies()


def test_every_part_is_a_file_of_its_own() -> None:
    for request in (QUICK, Request()):
        parts = writes.parts(request)
        assert len({p.name for p in parts}) == len({p.seal() for p in parts}) == len(parts)
        assert len(parts) == len(writes.policies()) * (1 if request.quick else 3)
        assert all("," not in p.name and " " not in p.name for p in parts)
    assert np.all([len(name) < 40 for name in writes.policies()])
