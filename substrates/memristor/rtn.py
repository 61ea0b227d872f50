"""Random telegraph noise: traps that catch and release a charge, in device time.

The state of a trap is a function of the device's key, the trap and the time
alone. Any time may be asked in any order, years apart, at the same cost.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import numpy.typing as npt
import torch
from scipy import special
from torch import Tensor

from substrates.memristor.counter import uniforms
from substrates.memristor.traits import Rtn
from twin.errors import DialError
from twin.key import Key

STEP_S = 1e-6
"""Grid of device time, seconds: a state is that of the nearest grid point, so
that sums of waits which differ in rounding only are one time."""

CHUNK_PLACES = 2**16
"""About how many (time, trap) pairs are looked at together; bounds the memory."""

MOST_BLOCKS = 2.0**50
"""Longest life in units of the fastest trap; beyond, a double cannot tell its times
apart."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def _poisson_table() -> Floats:
    """P(N <= n) of the events in one block, until a double cannot tell it from 1."""
    table: Floats = np.asarray(special.pdtr(np.arange(30), 1.0), dtype=np.float64)
    return table[: int(np.argmax(table >= 1.0)) + 1]


_EVENTS = _poisson_table()


class Traps:
    """Two-state Markov traps of one device, each in a cell of its own.

    cells: flat index of the cell, in [0, 2^32). amplitudes: relative loss of
    conductance where occupied, in [0, 1]. capture_s: mean time an empty trap
    stays empty; emission_s: mean time an occupied one stays occupied. All (traps,).

    A two-state Markov process of relaxation time tau = 1 / (1/capture + 1/emission)
    is a Poisson process of rate 1 / tau whose every event draws the state anew
    from the stationary law: P(t) = p + (P(0) - p) exp(-t / tau). Time is cut
    into blocks of tau, whose events are numbers at an address (trap, block), so
    the last event before any t is found without the history. Exact, also in
    continuous time: step_s only rounds the times asked.
    """

    def __init__(
        self,
        key: Key,
        cells: npt.ArrayLike,
        amplitudes: npt.ArrayLike,
        capture_s: npt.ArrayLike,
        emission_s: npt.ArrayLike,
        step_s: float = STEP_S,
    ) -> None:
        self._key = key
        self._step_s = step_s
        self._ids = np.asarray(cells, dtype=np.int64)
        self.cells = torch.from_numpy(self._ids.copy())
        self.amplitudes = torch.from_numpy(np.asarray(amplitudes, dtype=np.float32).copy())
        capture, emission = np.asarray(capture_s, float), np.asarray(emission_s, float)
        self._rates = 1 / capture + 1 / emission
        self._occupancy = emission / (capture + emission)
        self._forget()

    @staticmethod
    def drawn(key: Key, shape: tuple[int, ...], table: Rtn, step_s: float = STEP_S) -> Traps:
        """The traps of a device with cells of this shape, at most one per cell.

        Whether a cell is active, its amplitude (log-normal, cut at 1: a cell
        cannot lose more than it has) and its two mean dwell times (log-uniform)
        depend on (key, cell) alone, so more active cells contain the fewer.
        Log-normal: as measured over cycles in "Random telegraph noise (RTN) in
        scaled RRAM devices", IRPS 2013. Assumed: dwell times independent of each
        other and of bias, and traps that outlive a write.
        """
        scores = torch.rand(math.prod(shape), generator=key.child("rtn active").torch())
        cells = torch.nonzero(scores < table.active_fraction).flatten().numpy()
        size, _ = uniforms(key.child("rtn amplitude"), cells, 0, 0)
        dwell = uniforms(key.child("rtn dwell"), cells, 0, 0)
        loss = table.amplitude * np.exp(table.amplitude_spread_ln * special.ndtri(size))
        capture, emission = (_log_uniform(u, table.fastest_s, table.slowest_s) for u in dwell)
        states = key.child("rtn state")
        return Traps(states, cells, np.minimum(loss, 1.0), capture, emission, step_s)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def occupancy(self) -> Tensor:
        """Probability of being occupied, emission / (capture + emission), (traps,)."""
        return torch.from_numpy(self._occupancy.copy())

    @property
    def relaxation_s(self) -> Tensor:
        """tau of the autocovariance p (1 - p) exp(-lag / tau), seconds, (traps,)."""
        return torch.from_numpy(1 / self._rates)

    @property
    def longest_s(self) -> float:
        """Device time up to which states can be told, seconds."""
        return float(MOST_BLOCKS / self._rates.max(initial=1 / self._step_s))

    def only(self, trap: int) -> Traps:
        """Trap number `trap` alone, with the same history."""
        one = copy.copy(self)
        one._ids, one._rates = self._ids[[trap]], self._rates[[trap]]
        one._occupancy = self._occupancy[[trap]]
        one.cells, one.amplitudes = self.cells[[trap]], self.amplitudes[[trap]]
        one._forget()
        return one

    def occupied(self, time_s: float) -> Tensor:
        """Which traps hold their charge at this device time, (traps,), bool."""
        blocks, phases = self._addresses(np.array([time_s]))
        return torch.from_numpy(self._states(blocks[0], phases[0]).copy())

    def history(self, times_s: Tensor) -> Tensor:
        """`occupied` at many times, (times, traps), bool.

        A trap without an event in a chunk of neighbouring times is looked at
        once, any other once per block of its own that the times fall into.
        """
        times = np.asarray(times_s, dtype=np.float64)
        out = np.zeros((len(times), len(self)), dtype=bool)
        order = np.argsort(times, kind="stable")
        stride = max(1, CHUNK_PLACES // max(1, len(self)))
        for start in range(0, len(times), stride):
            rows = order[start : start + stride]
            blocks, phases = self._addresses(times[rows])
            out[rows] = self._states(blocks[0], phases[0])
            busy = np.flatnonzero(self._stale(blocks[-1], phases[-1]))
            if busy.size:
                out[np.ix_(rows, busy)] = self._paths(busy, blocks[:, busy], phases[:, busy])
        return torch.from_numpy(out)

    def apply(self, g: Tensor, time_s: float) -> Tensor:
        """Conductances at this time, siemens, same shape: g (1 - amplitude) where occupied.

        g: the cells these traps were drawn for, any float type and device.
        """
        held = self.occupied(time_s)
        hit, loss = self.cells[held].to(g.device), self.amplitudes[held].to(g)
        out = g.flatten().clone()
        out[hit] = out[hit] * (1 - loss)
        return out.view(g.shape)

    def _addresses(self, times_s: Floats) -> tuple[Ints, Floats]:
        """Block, and place in it in [0, 1), of each time for each trap, (times, traps)."""
        longest = self.longest_s
        # NaN fails both comparisons.
        bad = ~((times_s >= 0) & (times_s <= longest))
        if bad.any():
            raise DialError(
                f"telegraph noise: device time must be from 0 to {longest:.3g} s, "
                f"got {times_s[bad][0]} s. Shorten the wait, or use slower traps (fastest_s)."
            )
        grid = np.round(times_s / self._step_s) * self._step_s
        place = np.multiply.outer(grid, self._rates)
        blocks = np.floor(place)
        return blocks.astype(np.int64), place - blocks

    def _forget(self) -> None:
        """Empty the cache: for each trap a stretch of a block without an event."""
        count = len(self._ids)
        self._block = np.full(count, -1, dtype=np.int64)
        self._since, self._until = np.zeros(count), np.zeros(count)
        self._state = np.zeros(count, dtype=bool)

    def _stale(self, blocks: Ints, phases: Floats) -> Bools:
        """Where the cached stretch does not contain this place, (traps,)."""
        stale: Bools = (blocks != self._block) | (phases < self._since) | (phases >= self._until)
        return stale

    def _states(self, blocks: Ints, phases: Floats) -> Bools:
        """States of all traps at these places, through the cache."""
        stale = np.flatnonzero(self._stale(blocks, phases))
        if stale.size:
            states, since, until = self._look_up(stale, blocks[stale], phases[stale])
            self._state[stale], self._since[stale], self._until[stale] = states, since, until
            self._block[stale] = blocks[stale]
        return self._state

    def _paths(self, traps: Ints, blocks: Ints, phases: Floats) -> Bools:
        """States of these traps at ascending places, (times, traps)."""
        # Trap by trap, so that the times in one block are neighbours.
        flat, at = blocks.T.ravel(), phases.T.ravel()
        owner = np.repeat(traps, len(blocks))
        fresh = np.ones(len(flat), dtype=bool)
        fresh[1:] = (flat[1:] != flat[:-1]) | (owner[1:] != owner[:-1])
        which = np.cumsum(fresh) - 1
        places, marks = self._events(owner[fresh], flat[fresh])
        states, since, _ = _newest(places[which], marks[which], at)
        earlier = self._before(owner[fresh], flat[fresh])
        found: Bools = np.where(since >= 0, states, earlier[which])
        return found.reshape(blocks.T.shape).T

    def _look_up(self, traps: Ints, blocks: Ints, phases: Floats) -> tuple[Bools, Floats, Floats]:
        """State at a place of a block, and the stretch of the block it holds for."""
        states, since, until = _newest(*self._events(traps, blocks), phases)
        entered = np.flatnonzero(since < 0)
        states[entered] = self._before(traps[entered], blocks[entered])
        return states, np.maximum(since, 0.0), until

    def _before(self, traps: Ints, blocks: Ints) -> Bools:
        """State in which each trap enters a block: what the last event before it drew."""
        states = np.zeros(len(traps), dtype=bool)
        todo, back = np.arange(len(traps)), 1
        while todo.size:
            events = self._events(traps[todo], blocks[todo] - back)
            ended, since, _ = _newest(*events, np.ones(todo.size))
            states[todo] = ended
            todo, back = todo[since < 0], back + 1
        return states

    def _events(self, traps: Ints, blocks: Ints) -> tuple[Floats, Bools]:
        """Where in each block events are, infinity for none, and the states they draw.

        Both (blocks, most events). Block -1 is the past: one draw of the
        stationary state.
        """
        ids = self._ids[traps]
        # Block 0 of time is page 1, so that the past has an address too.
        counts = np.searchsorted(_EVENTS, uniforms(self._key, ids, blocks + 1, 0)[0])
        counts = np.where(blocks < 0, 1, counts)
        slots = np.arange(max(1, int(counts.max(initial=0))))
        row, slot = np.nonzero(slots < counts[:, None])
        place, mark = uniforms(self._key, ids[row], blocks[row] + 1, slot + 1)
        places = np.full((len(traps), len(slots)), np.inf)
        marks = np.zeros(places.shape, dtype=bool)
        places[row, slot], marks[row, slot] = place, mark < self._occupancy[traps[row]]
        return places, marks


def _newest(places: Floats, marks: Bools, phases: Floats) -> tuple[Bools, Floats, Floats]:
    """What the last event up to each phase drew and where it was, -1 if there is none.

    Third, the place of the next event in the block, or its end, 1.
    """
    past = places <= phases[:, None]
    since = np.where(past, places, -1.0)
    newest = since.argmax(1)
    rows = np.arange(len(places))
    until = np.minimum(np.where(past, np.inf, places).min(1), 1.0)
    return marks[rows, newest], since[rows, newest], until


def _log_uniform(uniform: Floats, low: float, high: float) -> Floats:
    return np.asarray(low * (high / low) ** uniform)
