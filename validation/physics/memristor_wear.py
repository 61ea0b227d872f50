"""Laws of use: how many writes a cell survives, and what reading does to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from substrates.memristor import wear
from substrates.memristor.technology import Disturb, Endurance
from validation.physics import estimates
from validation.physics.law import Check, Effort, Outcome, sampled

WEIBULL = Endurance(median_cycles=1e7, weibull_shape=2.0, fails_to="low", source="planted")
NORMAL = replace(WEIBULL, weibull_shape=None, spread_ln=0.7)
DISTURB = Disturb(relative_per_decade=0.001, first_reads=1e6, source="planted")


def endurance(effort: Effort) -> Iterator[Outcome]:
    """The part of the cells that a number of writes has broken."""
    n = effort.n(200_000, 40_000)
    for name, table in (("Weibull", WEIBULL), ("log-normal", NORMAL)):
        lives = wear.lifetimes(effort.key.child(name), (n,), table)
        for factor in (0.5, 1.0, 2.0):
            if name == "Weibull":
                law = 1 - 0.5 ** (factor**2.0)
            else:
                law = math.erfc(-math.log(factor) / 0.7 / math.sqrt(2)) / 2
            broken = int(wear.worn_out(lives, factor * 1e7).sum())
            found = estimates.fraction(broken, n, law)
            text = f"endurance, {name}, broken at {factor:g} of the median"
            yield sampled(text, found, law, f"{name} law")


def read_disturb(effort: Effort) -> Iterator[Outcome]:  # noqa: ARG001
    """Nothing is lost up to the first reads, then a fixed part per decade."""
    g = torch.tensor([23.4e-6], dtype=torch.float64)
    for reads, law in ((1e6, 23.4), (1e9, 23.4 * (1 - 0.001 * 3))):
        yield Check(
            name=f"read disturb, 23.4 uS after {reads:.0e} reads",
            measured=wear.disturbed(g, reads, DISTURB).item() * 1e6,
            expected=law,
            tolerance=1e-9,
            source="0.1 % per decade beyond 1e6 reads",
            unit="uS",
        )
