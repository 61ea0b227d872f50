"""What the wires of a chip's arrays leave of its conductances.

Kirchhoff's laws are solved array by array. Solving after every write of a
training run would cost more than the training: then ladders are solved each
time, and what they miss is held from the last exact solve for some writes. How
far that is off can be asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from substrates.memristor.attenuation import approximate_matrix, thermal_matrix
from substrates.memristor.config import CrossbarConfig
from substrates.memristor.encoding import Encoding
from substrates.memristor.layout import Layout
from substrates.memristor.wires import Wires, effective_matrix, interleaved, parted

Solver = Callable[[Tensor, Wires], Tensor]


HELD_BY = {
    "word_ohm", "bit_ohm", "dead_row_fraction", "dead_row", "dead_column",
    "stuck_cell_fraction", "stuck_low_fraction", "stuck_high_fraction", "stuck_cell_level",
}  # fmt: skip
"""Dials and maps that make another array: what is held does not outlive a turn of them."""


class Wiring:
    """The wires of one chip. held: siemens that the ladders missed at the last exact
    solve, and the conductances then (both of the shape of the cells); None where every
    fold solves exactly."""

    def __init__(self, config: CrossbarConfig, layout: Layout, encoding: Encoding) -> None:
        self._config, self._layout, self._encoding = config, layout, encoding
        self.held: tuple[Tensor, Tensor] | None = None

    def wires(self, dials: Mapping[str, float]) -> Wires:
        """The wires at these dials."""
        config = self._config
        return Wires(
            word_ohm=dials.get("word_ohm", 0.0),
            bit_ohm=dials.get("bit_ohm", 0.0),
            driver_ohm=config.driver_ohm,
            sense_ohm=config.sense_ohm,
            word_both_sides=config.both_sides,
            bit_both_sides=config.sense_both_sides,
            pairs=config.pair_layout,
        )

    def after_write(self, g: Tensor, dials: Mapping[str, float], writes: int) -> None:
        """Solve exactly or keep what is held, for freshly written conductances."""
        every = int(dials["wire_refresh"])
        wires = self.wires(dials)
        if wires.ideal or every == 1:
            self.held = None
        elif self.held is None or writes % every == 0 or self._moved(g, self.held[1]):
            exact = self._solved(g, wires, effective_matrix)
            self.held = exact - self._solved(g, wires, approximate_matrix), g.clone()

    def after_time(self, g: Tensor) -> None:
        """Drop what is held where cells have moved too far from where they were then."""
        if self.held is not None and self._moved(g, self.held[1]):
            self.held = None

    def after_turn(self, dial: str) -> None:
        """Drop what is held if this dial makes another array."""
        if dial in HELD_BY:
            self.held = None

    def _moved(self, g: Tensor, then: Tensor) -> bool:
        limit = self._config.wire_drift * self._config.window_siemens
        return float((g - then).abs().mean()) > limit

    def effective(self, g: Tensor, dials: Mapping[str, float]) -> Tensor:
        """Conductances as seen through the wires, siemens, same shape as g."""
        wires = self.wires(dials)
        if wires.ideal:
            return g
        if self.held is not None and dials["wire_refresh"] > 1:
            return self._solved(g, wires, approximate_matrix).add_(self.held[0])
        return self._solved(g, wires, effective_matrix)

    def thermal(self, g: Tensor, dials: Mapping[str, float]) -> Tensor:
        """Conductances behind the thermal noise of each bit line, siemens, as g."""
        wires = self.wires(dials)
        return g if wires.ideal else self._solved(g, wires, thermal_matrix)

    def error(self, g: Tensor, dials: Mapping[str, float]) -> float:
        """R.m.s. of (what is in force - exact) over the r.m.s. of the exact, 0 if exact."""
        wires = self.wires(dials)
        if wires.ideal or not bool(g.any()):
            return 0.0
        exact = self._solved(g, wires, effective_matrix)
        size = float(exact.norm())
        return float((self.effective(g, dials) - exact).norm()) / size if size else 0.0

    def _solved(self, g: Tensor, wires: Wires, solve: Solver) -> Tensor:
        out = torch.empty_like(g)
        for rows, cols, lines in self._arrays():
            part = g[lines, rows, cols].cpu()
            if len(part) == 2 and wires.pairs == "neighbours":
                found = parted(solve(interleaved(part), wires))
            else:
                found = solve(part, wires)
            out[lines, rows, cols] = found.to(out)
        return out

    def _arrays(self) -> Iterator[tuple[slice, slice, slice]]:
        """Rows, columns and lines of each physical array.

        A slice has arrays of its own. With a reference column all outputs of a
        row tile share one array, however wide.
        """
        tiling = self._layout.tiling
        for rows in tiling.rows:
            if self._encoding.kind == "offset":
                yield rows, slice(None), slice(0, 1)
                continue
            for cols in tiling.cols:
                for s in range(self._encoding.slices):
                    yield rows, cols, slice(2 * s, 2 * s + 2)
