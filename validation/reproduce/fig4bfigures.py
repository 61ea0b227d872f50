"""The numbers of fig4b: bars per arm, paired differences, a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import stats

from validation.rl.arms import ARMS
from validation.rl.outcome import running_mean, steps_until
from validation.summary import Figure, mean_and_error

Runs = Mapping[str, Sequence[xr.Dataset]]
FAIR, GOOD = 195.0, 475.0
BOUNDS = {
    "greedy": ">= 475",
    "fair": "<= 12000",
    "solved": ">= 0.666",
    "wall": "<= 180",
}


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Greedy scores with and without PIB, by seed, and what their difference says.

    difference, low, high: mean of (pib - td) and its 95 % interval (Student's
    t over seeds; NaN with fewer than two).
    """

    seeds: tuple[int, ...]
    pib: tuple[float, ...]
    td: tuple[float, ...]
    difference: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def paired(dim: Runs) -> Pairs:
    """The paired differences of greedy evaluation in dim light."""
    pib, td = ([float(run["greedy"].mean()) for run in dim[arm]] for arm in ("pib", "td"))
    gaps = np.subtract(pib, td)
    low = high = math.nan
    if len(gaps) > 1:
        error = gaps.std(ddof=1) / math.sqrt(len(gaps))
        reach = float(stats.t.ppf(0.975, len(gaps) - 1) * error)
        low, high = float(gaps.mean()) - reach, float(gaps.mean()) + reach
    return Pairs(
        seeds=tuple(int(run.attrs["seed"]) for run in dim["pib"]), pib=tuple(pib), td=tuple(td),
        difference=float(gaps.mean()), low=low, high=high,
    )  # fmt: skip


def bars(bright: Runs, pairs: Pairs, bounded: bool) -> list[Figure]:
    """Every arm's numbers; bounds on the arm with PIB in a full run."""
    found: list[Figure] = []
    for arm, runs in bright.items():
        bounds = BOUNDS if bounded and arm == "pib" else {}
        found += _of_arm(ARMS[arm], runs, bounds)
    # The sign of the interval is reported, not demanded.
    error = None
    if len(pairs.seeds) > 1:
        error = mean_and_error(np.subtract(pairs.pib, pairs.td).tolist())[1]
    dim = "10 photons"
    return [
        *found,
        Figure(f"{dim}: greedy score, TD + λ PIB", float(np.mean(pairs.pib)), seeds=pairs.seeds),
        Figure(f"{dim}: greedy score, TD alone", float(np.mean(pairs.td)), seeds=pairs.seeds),
        Figure(f"{dim}: paired difference", pairs.difference, n=len(pairs.seeds),
               standard_error=error, seeds=pairs.seeds),
        Figure(f"{dim}: 95 % interval, low end", pairs.low, n=len(pairs.seeds)),
        Figure(f"{dim}: 95 % interval, high end", pairs.high, n=len(pairs.seeds)),
    ]  # fmt: skip


def _of_arm(name: str, runs: Sequence[xr.Dataset], bounds: Mapping[str, str]) -> list[Figure]:
    seeds = [int(run.attrs["seed"]) for run in runs]
    greedy = min(float(run["greedy"].mean()) for run in runs)
    solved = float(np.mean([_best(run, 100) >= GOOD for run in runs]))
    wall = max(float(run.attrs["wall_seconds"]) for run in runs)
    busy = max(float(run.attrs["cpu_seconds"]) for run in runs)
    return [
        Figure(f"{name}: greedy score, worst seed", greedy, bound=bounds.get("greedy"),
               n=int(runs[0]["greedy"].size), seeds=seeds),
        Figure(f"{name}: steps to mean of 20 >= 195, worst seed", _worst(runs, FAIR, 20), "steps",
               bound=bounds.get("fair"), seeds=seeds),
        Figure(f"{name}: steps to mean of 20 >= 475, worst seed", _worst(runs, GOOD, 20), "steps",
               seeds=seeds),
        Figure(f"{name}: fraction solved (mean of 100 >= 475)", solved,
               bound=bounds.get("solved"), n=len(runs), seeds=seeds),
        Figure(f"{name}: steps to solved, worst seed", _worst(runs, GOOD, 100), "steps",
               seeds=seeds),
        Figure(f"{name}: wall time, slowest seed", wall, "s", bound=bounds.get("wall"),
               seeds=seeds),
        Figure(f"{name}: processor time, slowest seed", busy, "s", seeds=seeds),
    ]  # fmt: skip


def _best(run: xr.Dataset, window: int) -> float:
    means = running_mean(run["score"].values, window)
    return float(np.nanmax(means)) if np.isfinite(means).any() else -math.inf


def _worst(runs: Sequence[xr.Dataset], level: float, window: int) -> float:
    """Steps of the slowest run; infinity if one never got there."""
    steps = [steps_until(run, level, window) for run in runs]
    return max(math.inf if math.isnan(value) else value for value in steps)


def verdict(bright: Runs, pairs: Pairs, quick: bool) -> str:
    """What matched the paper and what did not, from the numbers."""
    told = []
    for arm, runs in bright.items():
        greedy = [float(run["greedy"].mean()) for run in runs]
        solved = sum(_best(run, 100) >= GOOD for run in runs)
        told.append(
            f"{ARMS[arm]}: greedy {min(greedy):.0f} to {max(greedy):.0f}, solved {solved} of "
            f"{len(runs)}"
        )
    learns = all(run["greedy"].mean() >= GOOD for run in bright["pib"])
    first = (
        "As in the paper, an optical agent whose units learn each from a local loss of TD and PIB "
        "learns to balance the pole"
        if learns
        else "Not as in the paper: the optical agent with TD and PIB does not balance the pole"
    )
    quickly = " in this shortened run" if quick else ""
    few = f"{len(bright['pib'])} seed(s) cannot rank the arms."
    return f"{first}{quickly}. {'; '.join(told)}. {few} {_dim(pairs)}"


def _dim(pairs: Pairs) -> str:
    if len(pairs.seeds) < 5:
        return "In dim light there are too few pairs for a statement."
    gap = f"{pairs.difference:+.0f} ({pairs.low:+.0f} to {pairs.high:+.0f}, 95 %)"
    if not pairs.excludes_zero:
        return (
            f"At 10 photons PIB changes the greedy score by {gap} over {len(pairs.seeds)} pairs: "
            "no advantage shown."
        )
    way = "raises" if pairs.low > 0 else "lowers"
    return f"At 10 photons PIB {way} the greedy score, by {gap} over {len(pairs.seeds)} pairs."


def merged(bright: Runs, dim: Runs) -> xr.Dataset:
    """All runs in one data set: dimensions run, episode, fresh; NaN where a run is over."""
    rows = [("bright", arm, run) for arm, runs in bright.items() for run in runs]
    rows += [("dim", arm, run) for arm, runs in dim.items() for run in runs]
    data = xr.concat([run for _, _, run in rows], "run", join="outer", combine_attrs="drop")
    for name in ("score", "step", "running_mean", "temporal", "i_yz", "i_xz", "greedy"):
        data[name].attrs = dict(rows[0][2][name].attrs)
    told = {name: ("run", [run.attrs[name] for _, _, run in rows])
            for name in ("seed", "information_weight", "steps", "updates", "solved")}  # fmt: skip
    seconds = {name: ("run", [run.attrs[name] for _, _, run in rows], {"units": "s"})
               for name in ("wall_seconds", "cpu_seconds")}  # fmt: skip
    return data.assign_coords(
        light=("run", [light for light, _, _ in rows]), arm=("run", [arm for _, arm, _ in rows])
    ).assign({**told, **seconds})
