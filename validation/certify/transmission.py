"""The transmission matrix by phase stepping, from intensities alone, and its singular values.

What laboratories do (Popoff et al. 2010, arXiv 0910.5436): part of the
macropixels are the reference, Hadamard patterns are shown on the others, and
three phases between the two give the product of both fields at every pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import hadamard
from torch import Tensor

from twin.key import Key
from validation.certify.certificate import SIGMAS, Certificate
from validation.certify.rig import Rig
from validation.physics import randommatrix
from validation.physics.law import Skipped

MOST_INPUTS, MOST_PIXELS = 256, 1024
NULLS = 40
"""Random matrices of the same size, from which the bound comes."""


@dataclass(frozen=True)
class Spectrum:
    """Singular values, ascending, of a matrix whose rows are normalised.

    ratio: smaller over larger dimension. rows: pixels; columns: macropixels.
    """

    values: NDArray[np.float64]
    rows: int
    columns: int

    @property
    def ratio(self) -> float:
        return min(self.rows, self.columns) / max(self.rows, self.columns)

    @property
    def distance(self) -> float:
        """Kolmogorov's, from Marchenko and Pastur's law."""
        return randommatrix.distance(self.values, self.ratio)

    @property
    def top(self) -> float:
        """Largest singular value over the law's edge."""
        return float(self.values[-1]) / randommatrix.edges(self.ratio)[1]


def controlled(inputs: int) -> int:
    """How many macropixels are stepped: the largest power of two up to half of them."""
    return int(min(MOST_INPUTS, 1 << int(math.log2(max(1, inputs // 2)))))


def measured(rig: Rig, key: Key) -> Tensor:
    """Transmission matrix (live pixels, columns), complex128, up to a factor per pixel.

    Only the reference is stepped, over 0, pi / 2 and pi, so that drives on
    [0, pi] suffice. Takes 3 frames per controlled macropixel. The first column
    is left out: light that misses the modulator ends in it.
    """
    n = controlled(rig.inputs)
    order = torch.randperm(rig.inputs, generator=key.torch())
    signs = torch.from_numpy(hadamard(n)).to(torch.float64)
    patterns = torch.zeros((n, 3, rig.inputs), dtype=torch.float64)
    patterns[:, :, order[:n]] = ((1 - signs) / 2)[:, None, :]
    patterns[:, :, order[n:]] = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)[:, None]
    frames = rig.frames(patterns.view(3 * n, -1), "phase steps").view(n, 3, -1)
    start, quarter, half = frames.unbind(1)
    even, odd = (start - half) / 2, quarter - (start + half) / 2
    # |R e^(ia) + S|^2 = |R|^2 + |S|^2 + 2 Re(R S*) cos a - 2 Im(R S*) sin a.
    products = torch.complex(even, -odd) / 2
    return (signs.to(torch.complex128) @ products).T[:, 1:].conj() / n


def spectrum(matrix: Tensor, key: Key) -> Spectrum:
    """Singular values; rows brought to the same power, which takes the reference out.

    At most 1024 rows, drawn by `key`, are used.
    """
    chosen = torch.randperm(len(matrix), generator=key.torch())[:MOST_PIXELS]
    rows = matrix[chosen]
    power = rows.abs().square().mean(1, keepdim=True).sqrt()
    rows = rows / power.clamp_min(1e-300)
    return Spectrum(randommatrix.singular_values(rows.numpy()), *rows.shape)


def singular_values(found: Spectrum, key: Key) -> list[Certificate]:
    """Distance from Marchenko and Pastur's law, and the largest singular value.

    Bounds: what random matrices of this size do, mean and five standard
    deviations of 40 of them, at least 0.02 for the distance.
    """
    nulls = [
        spectrum(_gaussian(found, key.child("null", i)), key.child("rows", i)) for i in range(NULLS)
    ]
    far = np.array([null.distance for null in nulls])
    top = np.array([null.top for null in nulls])
    law = f"i.i.d. matrix of {found.rows} x {found.columns}"
    count = len(found.values)
    return [
        Certificate(
            name="singular values, KS distance from Marchenko-Pastur",
            value=found.distance,
            standard_error=float(far.std(ddof=1)),
            low=None,
            high=max(0.02, float(far.mean() + SIGMAS * far.std(ddof=1))),
            law=law,
            n=count,
        ),
        Certificate(
            name="largest singular value over the law's edge",
            value=found.top,
            standard_error=float(top.std(ddof=1)),
            low=float(top.mean() - SIGMAS * top.std(ddof=1)),
            high=float(top.mean() + SIGMAS * top.std(ddof=1)),
            law=law,
            n=count,
        ),
    ]


def unavailable(rig: Rig) -> Skipped | None:
    """Why the matrix cannot be measured here, None if it can."""
    name = "singular values against Marchenko-Pastur"
    if not rig.steps_phases:
        return Skipped(name, "the drive cannot show phases of 0, pi / 2 and pi")
    if controlled(rig.inputs) < 8:
        return Skipped(name, f"needs 16 macropixels or more, got {rig.inputs}")
    return None


def _gaussian(like: Spectrum, key: Key) -> Tensor:
    parts = torch.randn((2, like.rows, like.columns), generator=key.torch(), dtype=torch.float64)
    return torch.complex(parts[0], parts[1])
