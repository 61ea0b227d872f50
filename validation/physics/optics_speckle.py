"""Laws of speckle: contrast, tail, singular values, patterns, grains, waves that add up."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy.special import gammaincc, j1
from torch import Tensor

from substrates.optics.grains import effective_outputs
from substrates.optics.media import grains_of, make_medium
from substrates.optics.medium import GaussianMedium, MatrixMedium, Medium, summed_intensity
from substrates.optics.mediumtable import GaussianTable, GrainsTable
from twin.key import Key
from validation.physics import estimates, randommatrix
from validation.physics.estimates import Estimate
from validation.physics.law import Check, Effort, Outcome
from validation.physics.resolved import resolved

CHANNELS = 16
"""Macropixels of the small media: of Gaussian ones any number gives the same law."""

MP_PIXELS, MP_CHANNELS = 144, 966
GRAIN_PIXELS, LINE = 3.0, 48


def gaussian_speckle(effort: Effort) -> Iterator[Outcome]:
    """Behind an i.i.d. medium: mean 1, contrast 1, exponential tail."""
    n = effort.n(400_000, 250_000)
    seen = _intensity(GaussianMedium(CHANNELS, n, effort.key), effort.key.child("light"))
    yield resolved("speckle mean intensity, i.i.d.", estimates.mean(seen), 1.0, 0.02, "unit power")
    found = contrast(seen)
    yield resolved("speckle contrast, i.i.d.", found, 1.0, 0.02, "Goodman 1976")
    for level in (1.0, 3.0):
        law = math.exp(-level)
        hits = int((seen > level * seen.mean()).sum())
        share = estimates.fraction(hits, n, law)
        yield resolved(f"P(I > {level:g} <I>), i.i.d.", share, law, 0.05 * law, f"exp(-{level:g})")


def patterns(effort: Effort) -> Iterator[Outcome]:
    """M independent patterns: contrast 1 / sqrt(M), a gamma law of order M."""
    n = effort.n(300_000, 240_000)
    for count in (2, 3, 8):
        key = effort.key.child(count)
        medium = make_medium(GaussianTable(patterns=count), CHANNELS, n // count, key)
        seen = _intensity(medium, key.child("light"))
        law = 1 / math.sqrt(count)
        name = f"speckle contrast, {count} patterns"
        yield resolved(name, contrast(seen), law, 0.02, "1 / sqrt(M), Goodman 1976")
        if count == 2:
            expected = float(gammaincc(count, 2.0 * count))
            hits = int((seen > 2 * seen.mean()).sum())
            share = estimates.fraction(hits, len(seen), expected)
            name = "P(I > 2 <I>), 2 patterns"
            yield resolved(name, share, expected, 0.05 * expected, "gamma law of order 2")


def singular_values(effort: Effort) -> Iterator[Outcome]:
    """i.i.d. matrices of 144 x 966 beside Marchenko and Pastur's law."""
    media = effort.n(8, 4)
    size = (MP_CHANNELS, MP_PIXELS)
    drawn = [GaussianMedium(*size, effort.key.child(i)).matrix.numpy() for i in range(media)]
    values = [randommatrix.singular_values(matrix) for matrix in drawn]
    ratio = MP_PIXELS / MP_CHANNELS
    source = "Marchenko and Pastur 1967"
    far = estimates.mean(np.array([randommatrix.distance(s, ratio) for s in values]))
    yield resolved("singular values of 144 x 966, KS distance", far, 0.0, 0.02, source)
    for name, place, edge in zip(
        ("smallest", "largest"), (0, -1), randommatrix.edges(ratio), strict=True
    ):
        found = estimates.mean(np.array([s[place] for s in values]))
        # At a finite size the edge is blurred over n^(-2/3) of itself.
        blur = 2.0 * MP_PIXELS ** (-2 / 3) * edge
        yield resolved(f"{name} singular value of 144 x 966", found, edge, blur, "edge of the law")
    power = estimates.mean(np.abs(np.concatenate(drawn)) ** 2).times(MP_CHANNELS)
    yield resolved("mean |t|^2 x channels", power, 1.0, 0.02, "convention of the media")


def grain_correlation(effort: Effort) -> Iterator[Outcome]:
    """Intensities of neighbouring pixels, 3 pixels a grain, beside |mu|^2."""
    n = effort.n(60_000, 40_000)
    for kernel in ("airy", "gaussian"):
        table = GrainsTable(pixels_per_grain=GRAIN_PIXELS, kernel=kernel)
        columns = _columns(table, n, effort.key.child(kernel))
        for offset in (1, 2, 4):
            found = estimates.correlation(columns[10], columns[10 + offset])
            law = float(_coherence(offset, kernel)) ** 2
            name = f"grains, {kernel}, correlation {offset} pixels apart"
            # The slow tail of an Airy pattern is cut: up to 0.01 of the field.
            yield resolved(name, found, law, 0.04, f"|mu|^2, {kernel}")


def grain_count(effort: Effort) -> Iterator[Outcome]:
    """Independent outputs of a line of correlated pixels: (tr C)^2 / tr C^2."""
    parts = 8
    n = effort.n(4_000, 2_000)
    table = GrainsTable(pixels_per_grain=GRAIN_PIXELS)
    seen = _columns(table, parts * n, effort.key).T
    offsets = np.subtract.outer(np.arange(LINE), np.arange(LINE))
    law = LINE**2 / (_coherence(np.abs(offsets), "airy") ** 4).sum()
    found = estimates.mean(np.array([effective_outputs(part) for part in seen.chunk(parts)]))
    name = f"grains, independent outputs of {LINE} pixels"
    yield resolved(name, found, float(law), 0.03 * law, "(tr C)^2 / tr C^2, Airy", "pixels")
    # The closed form of the module itself, beside this one.
    yield Check(
        name="grains, predicted outputs",
        measured=grains_of(table, LINE).effective_outputs(),
        expected=float(law),
        tolerance=0.02 * float(law),
        source="(tr C)^2 / tr C^2, Airy",
        unit="pixels",
    )


def contrast(intensity: Tensor) -> Estimate:
    """Standard deviation over mean of independent values, with its influence function's error."""
    x = intensity.to(torch.float64).flatten()
    x = x / x.mean()
    value = x.std().item()
    influence = ((x - 1).square() - value**2) / (2 * value) - value * (x - 1)
    return Estimate(value, influence.std().item() / math.sqrt(len(x)), len(x))


def random_light(n: int, channels: int, key: Key) -> Tensor:
    """Light (n, channels), complex64, of random phases on [0, pi], as the rig shows.

    Its mean field is large, and so is any that a medium should not let through.
    """
    turns = torch.rand((n, channels), generator=key.torch())
    return torch.polar(torch.ones_like(turns), math.pi * turns)


def _intensity(medium: Medium, key: Key) -> Tensor:
    """One frame, (pixels,), of a random pattern."""
    return summed_intensity(medium.transmit(random_light(1, CHANNELS, key), 0.0, 0.0))[0]


def _columns(table: GrainsTable, n: int, key: Key) -> Tensor:
    """Intensity (pixels, n) of single channels: each is speckle of its own."""
    parts = []
    for i in range(math.ceil(n / 512)):
        medium = make_medium(table, 512, LINE, key.child(i))
        assert isinstance(medium, MatrixMedium)
        parts.append(medium.matrix)
    return torch.cat(parts, 1)[:, :n].abs().square().double() * 512


def _coherence(offset: np.ndarray | int, kernel: str) -> np.ndarray:
    x = np.pi * np.asarray(offset, np.float64) / GRAIN_PIXELS
    if kernel == "gaussian":
        return np.exp(-(x**2) / 8)
    safe = np.where(x == 0, 1.0, x)
    return np.where(x == 0, 1.0, 2 * j1(safe) / safe)
