"""From one matrix to arrays of limited size: tiles and their partial sums.

Rows are inputs (word lines), columns are signed outputs (pairs of bit lines).
Wires are ideal here; every tile sees the full read voltage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


def split_evenly(count: int, limit: int) -> tuple[slice, ...]:
    """[0, count) in the fewest runs of at most `limit`, sizes differing by <= 1."""
    parts = -(-count // limit)
    edges = [count * part // parts for part in range(parts + 1)]
    return tuple(slice(a, b) for a, b in pairwise(edges))


@dataclass(frozen=True)
class Tiling:
    """How a matrix is laid out on arrays of at most (array_rows, array_cols).

    Columns do not influence each other with ideal wires, so the column tiles
    count arrays only; row tiles each have their own converters.
    """

    rows: tuple[slice, ...]
    cols: tuple[slice, ...]

    @staticmethod
    def of(inputs: int, outputs: int, array_rows: int, array_cols: int) -> Tiling:
        """The even tiling of an (inputs, outputs) matrix."""
        return Tiling(split_evenly(inputs, array_rows), split_evenly(outputs, array_cols))

    @property
    def tallest(self) -> int:
        """Rows of the largest tile."""
        return max(s.stop - s.start for s in self.rows)

    @property
    def arrays(self) -> int:
        return len(self.rows) * len(self.cols)

    def partial_sums(self, drive: Tensor, matrix: Tensor, out: Tensor) -> Tensor:
        """Products of each row tile, written to `out` (batch, row tiles, outputs).

        drive: (batch, inputs); matrix: (inputs, outputs).
        """
        for tile, rows in enumerate(self.rows):
            torch.mm(drive[:, rows], matrix[rows], out=out[:, tile])
        return out


class Scratch:
    """Buffers kept from pass to pass; never part of a chip's state.

    Fresh memory of megabytes costs more in page faults than the arithmetic on it.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """A float32 buffer of this shape with arbitrary contents."""
        size = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or kept.numel() < size:
            kept = self._kept[name] = torch.empty(size, device=device)
        return kept[:size].view(shape)
