"""fig4b: CartPole by two optical units, each learning from TD and PIB of its own."""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr

from validation.reproduce.fig4bfigures import bars, merged, paired, verdict
from validation.reproduce.fig4bpicture import picture
from validation.reproduce.figure import Drawing, Request
from validation.reproduce.parts import Part
from validation.rl.arms import ARMS, played
from validation.rl.config import load_agent

ABOUT = "CartPole by an optical agent: temporal difference and PIB, unit by unit"
DIM_ELECTRONS, DIM_STEPS, DIM_SEEDS = 10.0, 16_000, 6
QUICK_STEPS, QUICK_DIM_STEPS = 6_000, 3_000


def parts(request: Request) -> list[Part]:
    """One per arm and seed, and per side and seed of the pairs in dim light."""
    steps = QUICK_STEPS if request.quick else None
    # Its content, not its name: another rate is another part.
    agent = {"preset": load_agent("cartpole-optics").model_dump(mode="json")}
    work = [
        Part(f"{arm}-{seed}", played, {"arm": arm, "seed": seed, "steps": steps, **agent})
        for seed in request.seeds_or(full=3, quick=1)
        for arm in ARMS
    ]
    dim = {"steps": QUICK_DIM_STEPS if request.quick else DIM_STEPS, "electrons": DIM_ELECTRONS}
    return work + [
        Part(f"dim-{arm}-{seed}", played, {"arm": arm, "seed": seed, **dim, **agent})
        for seed in dim_seeds(request)
        for arm in ("pib", "td")
    ]


def dim_seeds(request: Request) -> range:
    """Seeds of the pairs in dim light: the figure's own number, however many runs."""
    return range(1 if request.quick else DIM_SEEDS)


def drawn(found: Mapping[str, xr.Dataset], request: Request) -> Drawing:
    """The curves of all arms and the pairs, against the bars of a full run."""
    bright = {
        arm: [found[f"{arm}-{seed}"] for seed in request.seeds_or(full=3, quick=1)] for arm in ARMS
    }
    dim = {arm: [found[f"dim-{arm}-{s}"] for s in dim_seeds(request)] for arm in ("pib", "td")}
    pairs = paired(dim)
    numbers = bars(bright, pairs, bounded=not request.quick)
    return Drawing(
        data=merged(bright, dim),
        picture=picture(bright, pairs, request.quick),
        figures=numbers,
        verdict=verdict(bright, pairs, request.quick),
    )
