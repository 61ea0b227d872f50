"""How well fitted laws foretell cells they were not fitted to, and which law does better."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from substrates.memristor.fit.fitting import Fit, fit
from substrates.memristor.fit.measurements import Measurements
from substrates.memristor.fit.trajectories import Cells, Shape, Sums, log_likelihood
from twin.errors import DataError
from twin.key import Key

HELD_OUT = 0.25
"""Of each target's cells, for the score; a third of the rest chooses the law."""

CHOOSING = 1 / 3
BAND = 0.9
KINDS = ("log", "power")


@dataclass(frozen=True)
class Mean:
    """A mean over readings; its standard error counts cells, not readings, as independent."""

    value: float
    standard_error: float

    @staticmethod
    def ratio(above: NDArray[np.float64], below: NDArray[Any]) -> Mean:
        """sum(above) / sum(below), one entry per cell each."""
        value = float(above.sum() / below.sum())
        rest = above - value * below
        return Mean(value, math.sqrt(float((rest**2).sum())) / float(below.sum()))


@dataclass(frozen=True)
class Score:
    """A fit on held-out cells.

    log_likelihood: nats per reading, density per microsiemens. trajectories,
    reads: variance of the standardised deviations of whole trajectories (two
    numbers per cell) from the law and of readings from their cell's trajectory;
    1 if the law is right. coverage: fraction of readings in the law's central
    90 % band of its target and time. by_cell: nats of each cell.
    """

    log_likelihood: Mean
    trajectories: Mean
    reads: Mean
    coverage: Mean
    by_cell: NDArray[np.float64]
    readings: NDArray[np.int64]

    def gain(self, other: Score) -> Mean:
        """Nats per reading by which this is ahead of another law on the same cells."""
        return Mean.ratio(self.by_cell - other.by_cell, self.readings)


@dataclass(frozen=True)
class Outcome:
    """What `fitted` found.

    fit: of all cells, the law that was chosen. trial: the same law on all but
    the held-out cells, to which `score` belongs. rival: name and score of the
    other law there, None if it could not be fitted.
    """

    fit: Fit
    trial: Fit
    score: Score
    rival: tuple[str, Score] | None
    held_out: Measurements


def fitted(found: Measurements, key: Key) -> Outcome:
    """Choose the law on cells set aside for that, score it on others, fit it to all.

    The three groups are drawn from `key`, cell by cell within every target.
    """
    kept, held = found.split(HELD_OUT, key.child("held-out").numpy())
    base, chooser = kept.split(CHOOSING, key.child("choice").numpy())
    trials = _possible(base)
    best = max(trials, key=lambda kind: score(trials[kind], chooser).log_likelihood.value)
    whole = _possible(kept)
    if best not in whole:
        best = next(iter(whole))
    scores = {kind: score(one, held) for kind, one in whole.items()}
    rival = next(((kind, s) for kind, s in scores.items() if kind != best), None)
    return Outcome(fit(found, best), whole[best], scores[best], rival, held)


def _possible(found: Measurements) -> dict[str, Fit]:
    fits, errors = {}, []
    for kind in KINDS:
        try:
            fits[kind] = fit(found, kind)
        except DataError as error:
            errors.append(str(error))
    if not fits:
        raise DataError(" ".join(errors))
    return fits


def score(fit: Fit, held: Measurements) -> Score:
    """Score a fit on the readings of cells it has not seen, at its own targets."""
    cells = fit.cells_of(held)
    with torch.no_grad():
        shape = fit.shape(cells)
        nats = log_likelihood(shape, cells).numpy()
        sums = Sums.of(shape, cells)
        variance = shape.level.square()
        whole, _ = sums.quadratic(shape.covariance, variance)
        own = sums.own() / variance
        inside = _inside(shape, cells)
    n = held.taken.sum(1)
    two = np.full(len(n), 2.0)
    return Score(
        Mean.ratio(nats, n),
        Mean.ratio((whole - own).numpy(), two),
        Mean.ratio(own.numpy(), n - two),
        Mean.ratio((inside * cells.taken).sum(1).numpy(), n),
        nats,
        n,
    )


def _inside(shape: Shape, cells: Cells) -> Tensor:
    """Whether each reading lies in its central 90 % band, (C, K)."""
    probability = marginal(shape, cells)
    return ((probability - 0.5).abs() < BAND / 2).double()


def marginal(shape: Shape, cells: Cells) -> Tensor:
    """Probability under the law of a reading below the one taken, (C, K).

    Uniform if the law is right; its own cell's noise level is averaged over.
    """
    node, weight = np.polynomial.hermite_e.hermegauss(32)
    cell = between_cells(shape)
    below = torch.zeros_like(cells.g)
    for z, w in zip(node, weight / weight.sum(), strict=True):
        level = shape.level * torch.exp(shape.spread_ln * z - shape.spread_ln.square())
        sigma = (cell + (level * cells.scale).square()).sqrt()
        below += w * torch.special.ndtr((cells.g - shape.mean) / sigma)
    return below


def between_cells(shape: Shape) -> Tensor:
    """Variance over cells at each reading, read noise aside, uS^2, (C, K)."""
    c11, c12, c22 = (c[:, None] for c in shape.covariance.unbind(-1))
    u, v = shape.first, shape.second
    return c11 * u.square() + 2 * c12 * u * v + c22 * v.square()


def own_levels(shape: Shape, cells: Cells) -> NDArray[np.float64]:
    """Relative read noise of each cell about its own best trajectory under the law, (C,)."""
    sums = Sums.of(shape, cells)
    return np.asarray((sums.own() / (sums.n - 2)).clamp(min=0).sqrt().numpy())


def standardised_reads(shape: Shape, cells: Cells) -> NDArray[np.float64]:
    """Residuals about each cell's own trajectory and noise level, as N(0, 1) if the law holds.

    Externally studentised, then from Student's t to the normal, so that few
    readings of a cell do not look like thin tails. Cells of four and more.
    """
    sums = Sums.of(shape, cells)
    u, v = shape.first, shape.second
    a11, a12, a22, b1, b2, n = (
        x[:, None] for x in (sums.a11, sums.a12, sums.a22, sums.b1, sums.b2, sums.n)
    )
    det = a11 * a22 - a12.square()
    fitted = ((a22 * b1 - a12 * b2) * u + (a11 * b2 - a12 * b1) * v) / det
    leverage = (a22 * u.square() - 2 * a12 * u * v + a11 * v.square()) / det
    leverage = (leverage / cells.scale.square()).clamp(max=1 - 1e-9)
    own = (sums.own()[:, None] / (n - 2)).sqrt()
    r = (cells.g - shape.mean - fitted) / cells.scale / own / (1 - leverage).sqrt()
    t = r * ((n - 3) / (n - 2 - r.square()).clamp(min=1e-9)).sqrt()
    keep = ((cells.taken > 0) & (n > 3)).numpy()
    dof = np.broadcast_to((n - 3).numpy(), keep.shape)[keep]
    return np.asarray(stats.norm.ppf(stats.t.cdf(t.numpy()[keep], dof)))
