"""Who is worth another seed: early stopping of designs that cannot win any more.

The rule. A design is hopeless when another one is not worse in any objective
that is the same for all seeds, and better by more than the scatter over seeds
explains in every objective that is not: by the one-sided Student quantile at
`confidence` times s sqrt(1/n + 1/m), s pooled over all designs, n and m their
seeds. Where nothing scatters, hopeless means dominated. Before any design has a
second seed, nobody is hopeless, and only the front gets one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from validation.studies.pareto import Array, Mask, Scatter, front


def hopeless(means: Array, counts: NDArray[np.int64], scatter: Scatter, confidence: float) -> Mask:
    """Which designs (rows of means) another one beats by more than chance."""
    if scatter.freedom == 0:
        return np.zeros(len(means), bool)
    s = np.sqrt(scatter.variance) * student.ppf(confidence, scatter.freedom)
    lost = np.zeros(len(means), bool)
    for row, n in zip(means, counts, strict=True):
        lead = means - row - s * np.sqrt(1 / n + 1 / counts)[:, None]
        # Exact objectives may tie; of all, at least one must be better.
        lost |= np.all(np.where(s > 0, lead > 0, lead >= 0), axis=1) & np.any(lead > 0, axis=1)
    return lost


def next_round(
    means: Array,
    counts: NDArray[np.int64],
    scatter: Scatter,
    seeds: int,
    confidence: float,
    eligible: Mask | None = None,
) -> list[int]:
    """Rows that get one seed more, the present front first; none when all is settled."""
    if len(means) == 0:
        return []
    eligible = np.ones(len(means), bool) if eligible is None else eligible
    leading = front(means)
    open_ = ~hopeless(means, counts, scatter, confidence)
    if scatter.freedom == 0:
        open_ = leading
    wanted = np.flatnonzero(open_ & eligible & (counts < seeds))
    return sorted(wanted.tolist(), key=lambda row: (not leading[row], counts[row], row))
