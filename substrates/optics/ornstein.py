"""Ornstein-Uhlenbeck paths that can be entered at any time.

The path is a pure function of its key: neither the order in which times are
asked for nor how an interval is split changes a bit. Time is dimensionless, in
units of the correlation time tau: <x(u) x*(v)> = exp(-|u - v|).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from twin.key import Key

EPOCH = 32
"""Length of an epoch, in tau. The ends of epochs are drawn independently: the
exact correlation between them, exp(-32) = 1e-14, is below float32."""

FINE = 1 / 8
"""Gaps from this length down, in tau, are bridged by `fine` draws."""

Draw = Callable[[Key, float, bool, Tensor | None], Tensor]
"""draw(key, rms, fine, spare): a value to own, r.m.s. `rms` times that of the path.
fine: a small part of the path's variance, any symmetric law will do. spare: a
value no longer needed, whose memory may be used."""


class Path:
    """A stationary complex or real Ornstein-Uhlenbeck process of tensors.

    On a grid of steps_per_tau (a power of two) points per tau the law is
    exact: between the ends of an epoch each midpoint is drawn given its
    neighbours, from a stream of its own (epoch, place). Between grid points a
    and b the path turns from x_a to x_b keeping its power: x = (sin((1 - f) t)
    x_a + sin(f t) x_b) / sin(t), cos(t) = exp(-1 / steps_per_tau). The
    correlation of two times is then too high by 1 / (2 steps_per_tau) at most.

    start: the value at 0; drawn if not given. Two grid points in a row cost
    one draw on average, a jump to anywhere log2(32 steps_per_tau) draws; as
    many values are kept in memory.
    """

    def __init__(
        self, draw: Draw, key: Key, start: Tensor | None = None, steps_per_tau: int = 256
    ) -> None:
        self._draw = draw
        self._key = key
        self._start = start
        self.steps_per_tau = steps_per_tau
        self._span = EPOCH * steps_per_tau
        self._ends: dict[int, Tensor] = {}
        self._middles: dict[int, tuple[int, int, Tensor]] = {}

    def at(self, step: int, fraction: float = 0.0, out: Tensor | None = None) -> Tensor:
        """The value `fraction` of the way from grid point `step` to the next.

        Not to be written to, and good until the next call only: memory is
        used again. out: where to put a value between grid points.
        """
        low = self._grid(step)
        if fraction == 0:
            return low
        # One of two neighbours was drawn on the way to the other, so that both hold.
        high = self._grid(step + 1)
        out = torch.empty_like(low) if out is None else out
        here, there = turning(fraction, self.steps_per_tau)
        torch.mul(_real(low), float(here), out=_real(out)).add_(_real(high), alpha=float(there))
        return out

    def along(self, times: np.ndarray) -> np.ndarray:
        """Values at rising `times` (n,), in tau: (n, ...), for paths of few numbers."""
        places = np.asarray(times, np.float64) * self.steps_per_tau
        steps = np.floor(places)
        out = []
        for step in np.unique(steps):
            here, there = turning(places[steps == step] - step, self.steps_per_tau)
            low, high = (self._grid(int(s)).numpy().copy() for s in (step, step + 1))
            out.append(np.multiply.outer(here, low) + np.multiply.outer(there, high))
        return np.concatenate(out)

    def _grid(self, step: int) -> Tensor:
        epoch, inside = divmod(step, self._span)
        low = self._end(epoch)
        if inside == 0:
            return low
        high, begin, half = self._end(epoch + 1), 0, self._span // 2
        while True:
            middle = begin + half
            here = self._middle(epoch, middle, half, low, high)
            if inside == middle:
                return here
            if inside < middle:
                high = here
            else:
                low, begin = here, middle
            half //= 2

    def _end(self, epoch: int) -> Tensor:
        if epoch not in self._ends:
            self._ends = {e: x for e, x in self._ends.items() if abs(e - epoch) == 1}
            given = self._start if epoch == 0 else None
            stream = self._key.child("end", epoch)
            self._ends[epoch] = self._draw(stream, 1.0, False, None) if given is None else given
        return self._ends[epoch]

    def _middle(self, epoch: int, middle: int, half: int, low: Tensor, high: Tensor) -> Tensor:
        held = self._middles.get(half)
        if held is not None and held[:2] == (epoch, middle):
            return held[2]
        rho = math.exp(-half / self.steps_per_tau)
        weight = rho / (1 + rho**2)
        rms = math.sqrt((1 - rho**2) / (1 + rho**2))
        fine = 2 * half <= FINE * self.steps_per_tau
        here = self._draw(
            self._key.child("middle", epoch, middle), rms, fine, None if held is None else held[2]
        )
        _real(here).add_(_real(low), alpha=weight).add_(_real(high), alpha=weight)
        self._middles[half] = (epoch, middle, here)
        return here


def turning(
    fraction: float | np.ndarray, steps_per_tau: int
) -> tuple[float | np.ndarray, float | np.ndarray]:
    """Weights of two neighbouring grid points, `fraction` of the way between them."""
    turn = math.acos(math.exp(-1 / steps_per_tau))
    here, there = np.sin((1 - fraction) * turn), np.sin(fraction * turn)
    return here / math.sin(turn), there / math.sin(turn)


def _real(values: Tensor) -> Tensor:
    """The same memory as real numbers: twice as fast to add up as complex ones."""
    return torch.view_as_real(values) if values.is_complex() else values
