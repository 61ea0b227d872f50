"""From one matrix to arrays of limited size, and the buffers of a pass.

Rows are inputs (word lines), columns are signed outputs (pairs of bit lines).
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

    Row tiles each have their own converters; column tiles matter to the wires.
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


class Scratch:
    """Buffers kept from pass to pass; never part of a chip's state.

    Fresh memory of megabytes costs more in page faults than the arithmetic on it.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}
        self._views: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def kept(self) -> list[Tensor]:
        """All buffers, for whoever wants to know how large they are."""
        return list(self._kept.values())

    def take(self, name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """A float32 buffer of this shape with arbitrary contents."""
        view = self._views.get((name, shape))
        if view is None:
            size = math.prod(shape)
            kept = self._kept.get(name)
            if kept is None or kept.numel() < size:
                kept = self._kept[name] = torch.empty(size, device=device)
                self._views = {of: v for of, v in self._views.items() if of[0] != name}
            view = self._views[name, shape] = kept[:size].view(shape)
        return view
