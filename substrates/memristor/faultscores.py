"""Random laws of fault maps: a score in [0, 1) for each element.

An element is faulty where its score is below a fraction, so the faults at a
larger fraction contain those at a smaller one. Drawn on the CPU.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from twin.key import Key


def independent(key: Key, *shape: int) -> Tensor:
    """Uniform scores, float64; the number of faults is then binomial."""
    return torch.rand(shape, generator=key.torch(), dtype=torch.float64)


def clustered(key: Key, shape: tuple[int, ...], radius_cells: float) -> Tensor:
    """Scores of cells (planes, inputs, columns) whose low ones lie together.

    Law: white Gaussian noise on the plane of the array, smoothed by a Gaussian
    of standard deviation radius_cells, and ranked. Faults fill blobs of about
    that radius; their number is the stated fraction of the cells, rounded. In
    the array the cells of a pair are neighbours on one row, so a blob hits both.
    A shape to test with, assumed: no published map of one array was fitted.
    """
    planes, inputs, columns = shape
    width = planes * columns
    reach = math.ceil(3 * radius_cells)
    size = (inputs + 2 * reach, width + 2 * reach)
    plane = torch.randn(size, generator=key.torch(), dtype=torch.float64)
    taps = [math.exp(-0.5 * (n / radius_cells) ** 2) for n in range(-reach, reach + 1)]
    # Added tap by tap: a library's convolution may differ in its last bits
    # between machines, and so might the ranks.
    for dim, length in ((0, inputs), (1, width)):
        total = torch.zeros_like(plane.narrow(dim, 0, length))
        for shift, weight in enumerate(taps):
            total += weight * plane.narrow(dim, shift, length)
        plane = total
    ranks = torch.empty(plane.numel(), dtype=torch.float64)
    ranks[plane.flatten().argsort(stable=True)] = torch.arange(plane.numel(), dtype=torch.float64)
    scores = (ranks + 0.5) / plane.numel()
    return scores.view(inputs, columns, planes).permute(2, 0, 1).contiguous()


def kinds(scores: Tensor, choices: Tensor, fractions: tuple[float, ...]) -> Tensor:
    """Which kind of fault each element has, int8: 0 none, k the k-th fraction.

    scores: faulty below the sum of the fractions. choices: uniform, of the
    same shape; picks the kind in proportion to the fractions. So a common
    factor on all fractions never changes the kind of a fault that stays.
    """
    total = sum(fractions)
    found = torch.zeros(scores.shape, dtype=torch.int8)
    if total > 0:
        edges = torch.tensor(fractions, dtype=torch.float64).cumsum(0)[:-1] / total
        kind = 1 + torch.bucketize(choices, edges, right=True)
        found = torch.where(scores < total, kind.to(torch.int8), found)
    return found
