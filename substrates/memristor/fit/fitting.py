"""From readings of a user's own cells to the laws of a technology, with errors.

Maximum likelihood over whole cells; standard errors are analytic, from the
curvature of the log likelihood at its maximum (observed information) and the
delta method. Spreads get their own value at every target first; a curve over
targets is then the lowest polynomial that these values do not reject.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor

from substrates.memristor.fit.measurements import Measurements
from substrates.memristor.fit.relaxationlaws import LAWS, Law, Natural, natural_names
from substrates.memristor.fit.smoothing import Smooth, smoothed
from substrates.memristor.fit.trajectories import UNIT_SIEMENS, Cells, Shape, log_likelihood
from twin.errors import DataError

QUANTILE = 1.959964
"""Of N(0, 1), for two-sided 95 % intervals."""

ROUNDS = 8
CONVERGED = 1e-3
"""Nats that another Newton step would gain, summed over all cells (times two)."""

RISING = 5.0
"""Standard errors beyond which a mean gain with time contradicts every law here."""


@dataclass(frozen=True)
class Estimate:
    """One fitted number with its analytic standard error and 95 % interval.

    All in `unit`. Intervals of positive numbers are symmetric in the logarithm.
    """

    name: str
    value: float
    standard_error: float
    unit: str
    positive: bool = True

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high) of the 95 % confidence interval."""
        half = QUANTILE * self.standard_error
        if not self.positive or self.value <= 0:
            return self.value - half * (not self.positive), self.value + half
        factor = math.exp(min(half / self.value, 700.0))
        return self.value / factor, self.value * factor


@dataclass(frozen=True)
class Fit:
    """A relaxation law with the programming and read-noise laws around it.

    kind: "log" or "power". levels: targets, siemens, ascending. natural: values
    in uS at the levels, after smoothing, by name. curves: what became of those
    that depend on the target. estimates: every parameter of the device file.
    """

    kind: str
    levels: NDArray[np.float64]
    first_s: float
    last_s: float
    natural: Natural
    curves: Mapping[str, Smooth]
    estimates: tuple[Estimate, ...]
    cells: int
    readings: int

    def shape(self, cells: Cells) -> Shape:
        """The law at the readings of cells on the same levels."""
        return LAWS[self.kind].shape(self.natural, cells)

    def cells_of(self, found: Measurements) -> Cells:
        """Measurements as this fit sees them: its levels, its first time."""
        return Cells.of(found, self.levels, self.first_s)

    def estimate(self, name: str) -> Estimate:
        """A parameter by name."""
        return next(e for e in self.estimates if e.name == name)


def fit(found: Measurements, kind: str) -> Fit:
    """Fit the law of this kind to all cells of `found`.

    Raises DataError where no parameters of the law describe the readings.
    """
    law, cells = LAWS[kind], Cells.of(found)
    levels = found.levels
    free = law.start(cells, len(levels))
    held = torch.zeros(len(free), dtype=torch.bool)
    free = _maximum(law, cells, free, held)
    values, covariance = _natural(law, cells, free, held, len(levels))
    held = law.at_bounds(free, len(levels))
    if bool(held.any()):
        _never_rising(kind, values, covariance, len(levels))
        # On the edge of what the law allows: the rest is fitted with it held there.
        free = _maximum(law, cells, torch.where(held, 0.0, free), held)
        values, within = _natural(law, cells, free, held, len(levels))
        # Its own error is the one it had when free; places agree in both forms.
        at = np.flatnonzero(held.numpy())
        within[at, at] = covariance[at, at]
        covariance = within
    return _smoothed(found, kind, values, covariance)


def _maximum(law: Law, cells: Cells, start: Tensor, held: Tensor) -> Tensor:
    """The free parameters of highest likelihood; those held stay as they are."""
    free = start
    for _ in range(ROUNDS):
        # Parameters differ by orders of magnitude in how sharply they are known:
        # the search runs in units of their errors, renewed where it has arrived.
        unit = _whitening(_curvature(law, cells, free), held)
        free = _searched(law, cells, free, unit)
        slope = unit.T @ _slope(law, cells, free)[1].numpy()
        if float(slope @ slope) < CONVERGED:
            return free
    raise DataError(
        f"relaxation of kind {law.name!r}: no best parameters were found for these readings. Look "
        "for cells of another kind (stuck, not formed) and leave them out."
    )


def _searched(law: Law, cells: Cells, start: Tensor, unit: NDArray[np.float64]) -> Tensor:
    def loss(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, slope = _slope(law, cells, start + torch.from_numpy(unit @ x))
        if not math.isfinite(value):
            return 1e300, np.zeros_like(x)
        return value, unit.T @ slope.numpy()

    zero = np.zeros(unit.shape[1])
    found = optimize.minimize(
        loss, zero, jac=True, method="BFGS", options={"gtol": 1e-3, "maxiter": 200}
    )
    return start + torch.from_numpy(unit @ found.x)


def _slope(law: Law, cells: Cells, free: Tensor) -> tuple[float, Tensor]:
    """Minus ln likelihood, nats, and its gradient."""
    with torch.enable_grad():
        free = free.detach().requires_grad_()
        value = -_total(law, cells, free)
        (slope,) = torch.autograd.grad(value, free)
    return float(value.detach()), slope


def _curvature(law: Law, cells: Cells, free: Tensor) -> NDArray[np.float64]:
    """Second derivatives of minus ln likelihood: the observed information."""
    with torch.enable_grad():
        hessian = torch.autograd.functional.hessian(lambda x: -_total(law, cells, x), free)
    return np.asarray(hessian.numpy())


def _whitening(curvature: NDArray[np.float64], held: Tensor) -> NDArray[np.float64]:
    """Columns: steps of one standard error, none along what is held, (P, loose)."""
    loose = np.flatnonzero(~held.numpy())
    value, vector = np.linalg.eigh(curvature[np.ix_(loose, loose)])
    unit = np.zeros((len(held), len(loose)))
    # Away from the maximum a direction may curve the other way: its size still counts.
    unit[loose] = vector / np.sqrt(np.maximum(np.abs(value), 1.0))
    return unit


def _total(law: Law, cells: Cells, free: Tensor) -> Tensor:
    levels = int(cells.level.max()) + 1
    return log_likelihood(law.shape(law.natural(free, levels), cells), cells).sum()


def _natural(
    law: Law, cells: Cells, free: Tensor, held: Tensor, levels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values in physical units, all names in order, and their covariance."""

    def flat(x: Tensor) -> Tensor:
        return torch.cat(tuple(law.natural(x, levels).values()))

    with torch.enable_grad():
        jacobian = torch.autograd.functional.jacobian(flat, free)
    loose = (~held).numpy()
    information = _curvature(law, cells, free)[np.ix_(loose, loose)]
    slopes = jacobian.numpy()[:, loose]
    covariance = slopes @ _inverse(information) @ slopes.T
    return flat(free).numpy(), covariance


def _inverse(information: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse on the directions that the data determine."""
    # Scaled to a unit diagonal, so that one cut serves parameters of all sizes.
    size = np.sqrt(np.maximum(np.abs(np.diag(information)), 1e-12))
    value, vector = np.linalg.eigh(information / np.outer(size, size))
    kept = value > 1e-8
    inverse = (vector[:, kept] / value[kept]) @ vector[:, kept].T
    return np.asarray(inverse / np.outer(size, size))


def _never_rising(
    kind: str, values: NDArray[np.float64], covariance: NDArray[np.float64], levels: int
) -> None:
    place = natural_names(kind, levels).index("mean" if kind == "log" else "exponent")
    where = range(place, place + (1 if kind == "log" else levels))
    for i in where:
        if values[i] < -RISING * math.sqrt(covariance[i, i]):
            raise DataError(
                f"conductance rises with time (by {-values[i]:.3g} uS or as a power per unit of "
                f"ln t, {-values[i] / math.sqrt(covariance[i, i]):.0f} standard errors): no "
                "relaxation law here does that. Is time_s counted from the write, and was the "
                "read voltage low enough not to write?"
            )


def _smoothed(
    found: Measurements, kind: str, values: NDArray[np.float64], covariance: NDArray[np.float64]
) -> Fit:
    law, levels = LAWS[kind], found.levels
    names = natural_names(kind, len(levels))
    natural: dict[str, Tensor] = {}
    curves: dict[str, Smooth] = {}
    estimates: list[Estimate] = []
    for quantity in law.quantities:
        at = [i for i, name in enumerate(names) if name == quantity.name]
        value, block = values[at], covariance[np.ix_(at, at)]
        if quantity.per_level:
            curve = smoothed(levels / UNIT_SIEMENS, value, block, spread=quantity.spread)
            curves[quantity.name] = curve
            value = curve.values
            estimates += _of_curve(quantity.name, quantity.scale, quantity.unit, levels, curve)
        else:
            # Signs of spreads are arbitrary; a loss below nothing is none.
            value = np.abs(value) if quantity.spread else np.maximum(value, 0.0)
            error = math.sqrt(max(block[0, 0], 0.0)) * quantity.scale
            number = float(value[0]) * quantity.scale
            estimates.append(
                Estimate(quantity.label, number, error, quantity.unit, quantity.spread)
            )
        natural[quantity.name] = torch.from_numpy(np.asarray(value, np.float64))
    last_s = float(found.time_s[found.taken].max())
    return Fit(
        kind, levels, found.first_s, last_s, natural, curves, tuple(estimates),
        len(found.target), int(found.taken.sum()),
    )  # fmt: skip


def _of_curve(
    name: str, scale: float, unit: str, levels: NDArray[np.float64], curve: Smooth
) -> list[Estimate]:
    rows = zip(levels, curve.values, curve.errors, strict=True)
    return [
        Estimate(
            f"{name} at {level * 1e6:.4g} uS", float(value) * scale, float(error) * scale, unit
        )
        for level, value, error in rows
    ]


def curve_table(fit: Fit, name: str, scale: float) -> dict[str, Any]:
    """A smoothed quantity as the table of a technology's Curve; values times `scale`."""
    curve, levels = fit.curves[name], fit.levels
    table: dict[str, Any] = {
        "low_siemens": float(levels[0]),
        "high_siemens": float(levels[-1]),
        "unit_siemens": UNIT_SIEMENS,
    }
    if curve.coefficients is None:
        values = zip(levels, np.maximum(curve.values, 0.0), strict=True)
        return {**table, "points": tuple((float(g), float(v) * scale) for g, v in values)}
    return {**table, "coefficients": tuple(float(c) * scale for c in curve.coefficients)}
