"""Rows of a transmission matrix from intensities: a regression, then Gauss-Newton.

Intensities of a pixel are |f @ t|^2 with f the light of its channels, the last one
steady. The global phase of a row is free; here the field of the mean light is real.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from twin.key import Key
from twin.twinmodel import Floats

Complex = npt.NDArray[Any]

COARSE_ROWS = 12
"""Rows per unknown on which the first steps are taken."""

COARSE_STEPS, FINE_STEPS = 30, 4
SOFT = 0.1
"""Of the mean intensity: floor of the noise on the coarse steps."""

FAR, RESTARTS = 1.5, 12
"""Pixels that miss by this times the median cost, or one if that is less, start again."""

MOST_LIFTED = 1100
"""Products of channels of the largest regression on them: 33 channels."""

COMPLETIONS = 50

DAMPING = 1e-3
"""Of the mean curvature at the first step; rises and falls with success."""


def started(field: Complex, intensity: Floats) -> tuple[Complex, Complex]:
    """First rows (channels, pixels) by interference with the field of the mean light.

    I - <I> is 2 Re(m* sum_j t_j (f_j - <f_j>)) and terms of second order, with m the
    mean field: linear in m* t_j. |m|^2 follows from <I>, up to the root of a square:
    both are returned, the better one of each pixel first.
    """
    mean = field[:, :-1].mean(0)
    moved = field[:, :-1] - mean
    both = np.concatenate([moved.real, -moved.imag], 1)
    target = intensity - intensity.mean(0)
    gram = both.T @ both
    gram[np.diag_indices_from(gram)] += 1e-9 * np.trace(gram) / len(gram)
    slopes = np.linalg.solve(gram, both.T @ target) / 2
    real, imaginary = np.split(slopes, 2)
    products = real + 1j * imaginary
    power = (np.abs(moved) ** 2).mean(0) @ np.abs(products) ** 2
    total = np.maximum(intensity.mean(0), 1e-12)
    root = np.sqrt(np.maximum(total**2 - 4 * power, 0))
    found = []
    for sign in (1, -1):
        m = np.sqrt(np.maximum((total + sign * root) / 2, 1e-2 * total))
        found.append(np.concatenate([products / m, (m - mean @ (products / m))[None]], 0))
    off = [((np.abs(field @ rows) ** 2 - intensity) ** 2).mean(0) for rows in found]
    first = off[0] <= off[1]
    return np.where(first, *found), np.where(first, *found[::-1])


def refined(
    field: Complex,
    intensity: Floats,
    free: npt.NDArray[np.bool_],
    starts: tuple[Complex, Complex],
    noise: Floats,
    mean: Complex,
    key: Key,
) -> tuple[Complex, Floats]:
    """Rows (channels, pixels) of least squares, and standard errors (2, channels, pixels).

    A pixel that ends up far above the others began in the wrong valley: it is tried
    again from a lifted regression, its second start and random ones of `key`. mean:
    light whose field is made real in every row. noise: (2,), variance of an intensity is
    noise[0] + noise[1] intensity. free: (n, pixels), readings to use. Errors are of real
    and imaginary parts, with the phase of the row held.
    """
    rows, pixels = starts[0].copy(), starts[0].shape[1]
    few = min(len(field), COARSE_ROWS * 2 * field.shape[1])
    # From all over the recording: a probe begins with edges and repeats.
    some = np.linspace(0, len(field) - 1, few).astype(np.int64)
    begun = field[some]
    typical = max(float(intensity.mean()), 1e-12)
    # Weights as of amplitudes: sharp ones of dark pixels would cut up the landscape.
    soft = np.array([SOFT * typical, 1.0]) * (noise[0] / typical + noise[1]) / (1 + SOFT)

    def settled(pixel: int, row: Complex) -> tuple[Complex, float]:
        seen, use = intensity[some, pixel], free[some, pixel]
        row = _descended(begun, seen, use, row, soft, COARSE_STEPS)
        row = _descended(begun, seen, use, row, noise, FINE_STEPS)
        cost = _cost(begun, seen, use, row, noise)
        return row, cost / max(1, int(use.sum()))

    cost = np.zeros(pixels)
    for pixel in range(pixels):
        rows[:, pixel], cost[pixel] = settled(pixel, rows[:, pixel])
    # "lower": between a right and a wrong one of few pixels there is no typical cost.
    far = FAR * max(float(np.quantile(cost, 0.25, method="lower")), 1.0)
    wrong = np.flatnonzero(cost > far)
    again = lifted(field, intensity[:, wrong]) if len(wrong) else starts[1]
    for place, pixel in enumerate(wrong.tolist()):
        size = np.sqrt(intensity[:, pixel].mean() / (np.abs(field) ** 2).sum(1).mean())
        tries = [again[:, place], starts[1][:, pixel]]
        tries += _drawn(size, field.shape[1], key.child(pixel))
        for start in tries:
            if cost[pixel] <= far:
                break
            row, after = settled(pixel, start)
            if after < cost[pixel]:
                rows[:, pixel], cost[pixel] = row, after
    return finished(field, intensity, free, rows, noise, mean)


def nearer(
    field: Complex,
    intensity: Floats,
    free: npt.NDArray[np.bool_],
    rows: Complex,
    noise: Floats,
) -> Complex:
    """Rows (channels, pixels) after one step each; arguments as of `refined`."""
    every = range(rows.shape[1])
    return np.stack(
        [_descended(field, intensity[:, p], free[:, p], rows[:, p], noise, 1) for p in every], 1
    )


def finished(
    field: Complex,
    intensity: Floats,
    free: npt.NDArray[np.bool_],
    rows: Complex,
    noise: Floats,
    mean: Complex,
) -> tuple[Complex, Floats]:
    """Rows that are near their valley's bottom, moved there, and their standard errors.

    Arguments and answer are those of `refined`.
    """
    rows, errors = rows.copy(), np.zeros((2, *rows.shape))
    for pixel in range(rows.shape[1]):
        seen, use = intensity[:, pixel], free[:, pixel]
        row = _descended(field, seen, use, rows[:, pixel], noise, FINE_STEPS)
        rows[:, pixel] = row = gauged(row, mean)
        errors[:, :, pixel] = _errors(field, seen, use, row, noise, mean)
    return rows, errors


def lifted(field: Complex, intensity: Floats) -> Complex:
    """Starts (channels, pixels) from a regression on all products of two channels.

    |f @ t|^2 is linear in t t^H, whose largest eigenvector is t: no valleys, but
    channels^2 unknowns. Of more than MOST_LIFTED, or a third of the readings, the
    second start of `started` instead.
    """
    rows, channels = field.shape
    if channels**2 > min(MOST_LIFTED, rows // 3):
        return started(field, intensity)[1]
    upper = np.triu_indices(channels, 1)
    pairs = np.conj(field[:, upper[0]]) * field[:, upper[1]]
    design = np.concatenate([np.abs(field) ** 2, 2 * pairs.real, -2 * pairs.imag], 1)
    found = np.linalg.lstsq(design, intensity, rcond=1e-8)[0]
    starts = []
    for column in found.T:
        own, real, imaginary = np.split(column, [channels, channels + len(upper[0])])
        matrix = np.diag(own).astype(np.complex128)
        # Entry (j, k) of conj(t) t^T multiplies conj(f_j) f_k.
        matrix[upper] = real + 1j * imaginary
        matrix[upper[::-1]] = np.conj(matrix[upper])
        starts.append(_leading(matrix))
    return np.stack(starts, 1)


def _leading(matrix: Complex) -> Complex:
    """t of the Hermitian matrix nearest to conj(t) t^T, whatever its diagonal.

    Light of modulus 1 tells of the diagonal the sum only, so it is filled in from t.
    """
    for _ in range(COMPLETIONS):
        power, vectors = np.linalg.eigh(matrix)
        row = np.conj(vectors[:, -1]) * np.sqrt(max(float(power[-1]), 1e-12))
        matrix[np.diag_indices_from(matrix)] = np.abs(row) ** 2
    return np.asarray(row)


def _drawn(size: float, count: int, key: Key) -> list[Complex]:
    """Random rows; size: r.m.s. of an entry."""
    stream = key.numpy()
    drawn = stream.standard_normal((2, RESTARTS, count)) * (size / np.sqrt(2))
    return list(drawn[0] + 1j * drawn[1])


def gauged(row: Complex, mean: Complex) -> Complex:
    """The row times a phase that makes the field of the mean light real and positive."""
    at = mean @ row
    return np.asarray(row * (np.conj(at) / max(abs(at), 1e-300)))


class Linearised(NamedTuple):
    """A pixel's squares about its row: curvature (2 channels, 2 channels), slope and cost;
    of its readings what is left (n,), weight (n,), and its product with the changes that a
    row makes, constant (2 channels,)."""

    curvature: Floats
    slope: Floats
    cost: float
    left: Floats
    weight: Floats
    constant: Floats


def linearised(
    field: Complex, seen: Floats, use: npt.NDArray[np.bool_], row: Complex, noise: Floats
) -> Linearised:
    """Squares of a pixel about its row, to second order in real and imaginary parts."""
    at = field @ row
    power = np.abs(at) ** 2
    weight = use / (noise[0] + noise[1] * power)
    left = seen - power
    change = 2 * np.conj(at)[:, None] * field
    design = np.concatenate([change.real, -change.imag], 1)
    weighted = design * weight[:, None]
    cost = float((weight * left**2).sum())
    return Linearised(weighted.T @ design, weighted.T @ left, cost, left, weight, weighted.sum(0))


def _cost(
    field: Complex, seen: Floats, use: npt.NDArray[np.bool_], row: Complex, noise: Floats
) -> float:
    power = np.abs(field @ row) ** 2
    return float((use * (seen - power) ** 2 / (noise[0] + noise[1] * power)).sum())


def _descended(
    field: Complex,
    seen: Floats,
    use: npt.NDArray[np.bool_],
    row: Complex,
    noise: Floats,
    steps: int,
) -> Complex:
    """The row after Levenberg-Marquardt steps; never worse than it came."""
    damping = DAMPING
    for _ in range(steps):
        curvature, slope, cost, *_ = linearised(field, seen, use, row, noise)
        size = np.trace(curvature) / len(curvature)
        if not size > 0:
            return row
        for _ in range(3):
            lifted = curvature + damping * size * np.eye(len(curvature))
            real, imaginary = np.split(np.linalg.solve(lifted, slope), 2)
            moved = row + real + 1j * imaginary
            after = _cost(field, seen, use, moved, noise)
            if after <= cost:
                break
            damping *= 10
        else:
            return row
        row, damping = moved, max(damping / 10, 1e-9)
        if cost - after < 1e-4 * cost:
            return row
    return row


def _errors(
    field: Complex,
    seen: Floats,
    use: npt.NDArray[np.bool_],
    row: Complex,
    noise: Floats,
    mean: Complex,
) -> Floats:
    """Standard errors (2, channels); NaN for what no reading tells."""
    curvature = linearised(field, seen, use, row, noise).curvature
    # The gauge: the mean light's field stays real, Im(mean @ row) = 0.
    gauge = np.concatenate([mean.imag, mean.real])
    size = np.trace(curvature) / len(curvature)
    power, vectors = np.linalg.eigh(curvature + size * np.outer(gauge, gauge) * 1e3)
    keep = power > 1e-12 * power[-1]
    covariance = (vectors[:, keep] / power[keep]) @ vectors[:, keep].T
    open_ = (vectors[:, ~keep] ** 2).sum(1) > 0.01
    variance = np.where(open_, np.nan, np.diag(covariance))
    return np.sqrt(variance).reshape(2, -1)
