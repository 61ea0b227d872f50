"""fig4b at tiny size: direction, not luck (fixed keys)."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from twin.files import digest
from validation.reproduce import fig4b
from validation.reproduce.fig4bfigures import Pairs, bars, paired, verdict
from validation.reproduce.figure import Request
from validation.rl.arms import ARMS, played

pytest.importorskip("gymnasium")
QUICK, FULL = Request(quick=True), Request()


def a_run(arm: str, seed: int, scores: list[float], greedy: float) -> xr.Dataset:
    """A made-up run."""
    n = len(scores)
    columns = {"score": scores, "step": np.cumsum(scores)}
    columns |= {name: np.zeros(n) for name in ("frozen", "temporal", "i_yz", "i_xz")}
    means = np.full(n, np.nan)
    means[19:] = [np.mean(scores[i - 19 : i + 1]) for i in range(19, n)]
    data = xr.Dataset(
        {name: ("episode", values) for name, values in (columns | {"running_mean": means}).items()}
        | {"greedy": ("fresh", np.full(20, greedy))},
        coords={"episode": np.arange(1, n + 1)},
    )
    return data.assign_attrs(
        arm=arm, seed=seed, information_weight=0.05, steps=int(sum(scores)), updates=1, solved=1,
        wall_seconds=50.0, cpu_seconds=40.0,
    )  # fmt: skip


def a_figure(request: Request, pib: float = 500.0, slow: int = 30) -> dict[str, xr.Dataset]:
    scores = [20.0] * slow + [500.0] * 120
    return {
        part.name: a_run(part.arguments["arm"], part.arguments["seed"], scores, pib)
        for part in fig4b.parts(request)
    }


@pytest.mark.parametrize("request_", [QUICK, FULL, Request(seeds=2)])
def test_parts_are_plain_named_apart_and_paired(request_: Request) -> None:
    parts = fig4b.parts(request_)
    assert len({part.name for part in parts}) == len(parts)
    for part in parts:
        assert json.loads(json.dumps(dict(part.arguments))) == dict(part.arguments)
        assert digest(part.name.encode())
    dim = [p.arguments for p in parts if p.name.startswith("dim")]
    for seed in {p["seed"] for p in dim}:
        one, two = (p for p in dim if p["seed"] == seed)
        assert {**one, "arm": ""} == {**two, "arm": ""}


def test_a_full_figure_has_three_seeds_of_each_arm_and_five_pairs_or_more() -> None:
    names = [part.name for part in fig4b.parts(FULL)]
    assert [sum(n.startswith(f"{arm}-") for n in names) for arm in ARMS] == [3, 3, 3]
    assert sum(n.startswith("dim-pib") for n in names) >= 5


def test_bars_hold_for_a_good_agent_and_fail_for_a_poor_one() -> None:
    drawn = fig4b.drawn(a_figure(FULL), FULL)
    bounded = [figure for figure in drawn.figures if figure.bound]
    assert len(bounded) == 4 and all(figure.holds for figure in bounded)
    poor = fig4b.drawn(a_figure(FULL, pib=300.0, slow=900), FULL)
    failed = {figure.name for figure in poor.figures if figure.holds is False}
    assert len(failed) == 2  # greedy and 195 within 12,000 steps
    assert poor.verdict.startswith("Not as in the paper")


def test_a_seed_that_never_gets_there_fails_the_bar_of_the_worst_seed() -> None:
    found = a_figure(FULL)
    found["pib-1"] = a_run("pib", 1, [20.0] * 200, 500.0)
    drawn = fig4b.drawn(found, FULL)
    missed = {figure.name: figure for figure in drawn.figures if figure.holds is False}
    assert [figure.value for figure in missed.values()] == [math.inf]


def test_no_advantage_is_claimed_unless_the_interval_excludes_zero() -> None:
    def of(gaps: list[float]) -> Pairs:
        dim = {
            "pib": [a_run("pib", i, [20.0] * 30, 200.0 + g) for i, g in enumerate(gaps)],
            "td": [a_run("td", i, [20.0] * 30, 200.0) for i in range(len(gaps))],
        }
        return paired(dim)

    bright = {"pib": [a_run("pib", 0, [20.0] * 30, 500.0)]}
    mixed, clear = of([80.0, -90.0, 30.0, 60.0, -20.0]), of([80.0, 90.0, 70.0, 60.0, 75.0])
    assert not mixed.excludes_zero and clear.low > 0
    assert "no advantage" in verdict(bright, mixed, quick=False)
    assert "raises" in verdict(bright, clear, quick=False)
    assert "too few" in verdict(bright, of([80.0, 90.0]), quick=False)
    assert "raises" not in verdict(bright, replace(clear, seeds=(0, 1)), quick=False)
    # By hand: mean 75, s.d. 11.18, t(4) = 2.776.
    assert clear.difference == 75 and clear.low == pytest.approx(
        75 - 2.776 * 11.18 / 5**0.5, abs=0.1
    )


def test_the_data_behind_the_picture_can_be_written(tmp_path: Path) -> None:
    drawn = fig4b.drawn(a_figure(QUICK), QUICK)
    drawn.data.to_netcdf(tmp_path / "d.nc", engine="h5netcdf")
    assert drawn.data.sizes["run"] == len(fig4b.parts(QUICK))
    drawn.picture.savefig(tmp_path / "p.png")
    assert all(figure.bound is None for figure in drawn.figures)
    assert len({figure.name for figure in drawn.figures}) == len(drawn.figures)


def test_an_optical_agent_with_pib_learns_to_balance() -> None:
    """1,300 steps, 20 fresh episodes, fixed keys: random play scores about 22
    and never 60 on average (s.d. of a random episode about 12, five standard
    errors 13)."""
    trained = played("pib", 0, steps=1_300)
    assert float(trained["greedy"].mean()) > 60
    assert bars({"pib": [trained]}, Pairs(seeds=(0,), pib=(1.0,), td=(1.0,), difference=0.0,
                                          low=math.nan, high=math.nan), bounded=False)  # fmt: skip
