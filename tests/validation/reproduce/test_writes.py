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

QUICK = Request(quick=True)


def trained(policy: str) -> xr.Dataset:
    config = writes._config(QUICK, writes.policies()[policy])
    config["data"]["limit"] = 300
    for unit in config["unit"]:
        unit |= {"outputs": 32, "epochs": 8}
    return work.trained(config, 0, None)


def test_writing_less_is_counted_as_less() -> None:
    """Digits: every fifth write is a fifth of the cells; a threshold and a sign skip cells."""
    plain, seldom = trained("every 1"), trained("every 5")
    sparing, pulses = trained("threshold 0.1"), trained("sign 0.05")
    assert float(seldom["writes"]) < 0.4 * float(plain["writes"])
    assert float(seldom["cells"] / plain["cells"]) == pytest.approx(
        float(seldom["writes"] / plain["writes"])
    )
    for less in (sparing, pulses):
        assert float(less["writes"]) == float(plain["writes"])
        assert float(less["cells"]) < 0.7 * float(plain["cells"])
        assert float(less["joules"]) < float(plain["joules"])
        assert float(less["device_seconds"]) < float(plain["device_seconds"])


def made_up(best: str) -> dict[str, xr.Dataset]:
    """Ways to write of which only `best` is both cheap and good."""
    found = {}
    for name in writes.policies():
        cheap = name == best
        for seed in range(2):
            table: dict[str, Any] = {"accuracy": 0.95 if cheap else 0.96}
            cost = 1.0 if cheap else 100.0
            table |= dict.fromkeys(work.COSTS, cost)
            file = f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            found[file] = xr.Dataset(table, attrs={"test_images": 100, "seed": seed})
    return found


@pytest.mark.parametrize("best", ["every 25", "threshold 0.1", "every 5, threshold 0.05"])
def test_the_way_that_is_cheap_and_good_is_named(best: str) -> None:
    found = made_up(best)
    drawing = writes.drawn(found, Request(seeds=2))
    assert f"'{best}'" in drawing.verdict and "costs 1.0 points" in drawing.verdict
    assert any(best in f.name and f.value == pytest.approx(0.01) for f in drawing.figures)
    drawing.picture.savefig(io.BytesIO(), format="png")


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
