"""Which columns follow their drive at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from substrates.memristor.twinrows import Mask
from twin.twinmodel import Floats

CHANCE = 1e-6
"""That noise alone explains as much of a column as its weights do: above, it is stuck."""

SEEN = 4.0
"""A column counts as stuck only if weights as asked would pass the test by this factor."""


def lifeless(
    value: Floats, mean: Floats, rows: Sequence[Mask], wanted: Sequence[Floats], inputs: int
) -> Mask:
    """Columns whose fitted weights explain no more of the readings than noise would.

    value, mean: (n, columns), readings and what weights (and an offset) say of them. rows:
    of each write. wanted: the readings that writes asked for; none: nothing was written. An F
    test: of weights that were asked to be near zero it tells nothing, so they are kept.
    """
    from scipy.special import fdtri

    spare = sum(int(r.sum()) for r in rows) - len(rows) * (inputs + 1)
    if spare < inputs:
        return np.zeros(value.shape[1], bool)
    terms = len(rows) * inputs
    left = sum(((value[r] - mean[r]) ** 2).sum(0) for r in rows) / spare
    noise = np.maximum(left, 1e-300)
    told = sum(_about_mean(mean[r]) for r in rows) / terms / noise
    limit = float(fdtri(terms, spare, 1 - CHANCE))
    asked = sum(_about_mean(w) for w in wanted) / terms / noise if wanted else np.inf * noise
    alive = told >= limit
    known = alive & (asked > 0)
    gain2 = float(np.median(told[known] / asked[known])) if known.any() else 1.0
    hidden = asked * (gain2 or 1.0) < SEEN * limit
    return np.asarray(~alive & ~hidden)


def _about_mean(value: Floats) -> Floats:
    return np.asarray(((value - value.mean(0)) ** 2).sum(0))
