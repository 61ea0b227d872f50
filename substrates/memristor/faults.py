"""Which cells, rows and converter columns of one chip are broken, and how.

A chip's own faults are drawn once from its key. Each element has a fixed score
in [0, 1) and is faulty where the score is below the dial's fraction, so the
faults at a larger fraction contain those at a smaller one. Maps installed by
dial come on top and win.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from substrates.converter import half_span
from substrates.memristor.encoding import Encoding
from twin.key import Key

CELL_KINDS = ("stuck_low_fraction", "stuck_high_fraction", "stuck_cell_fraction")
"""From weakest to strongest: a cell hit twice stays at a random conductance."""


@dataclass(frozen=True)
class StuckColumns:
    """Columns whose converter ignores its input. mask: (outputs,), bool.

    codes: (outputs,), int32, the code of one tile's converter where masked.
    """

    mask: Tensor
    codes: Tensor

    @property
    def any(self) -> bool:
        return bool(self.mask.any())

    def to(self, device: torch.device) -> StuckColumns:
        """The same on another torch device."""
        return StuckColumns(self.mask.to(device), self.codes.to(device))

    def apply(self, codes: Tensor, banks: int) -> Tensor:
        """`codes` (..., outputs) with stuck columns at `banks` times their code."""
        return torch.where(self.mask, self.codes * banks, codes)


class Faults:
    """The faults of one chip; maps: by the names of the dials that hold them.

    Drawn on the CPU, so that a chip is the same wherever it is computed.
    """

    def __init__(self, key: Key, encoding: Encoding, adc_bits: int) -> None:
        self._key, self._encoding = key, encoding
        half = half_span(adc_bits)
        self.healthy_code = -half - 1
        self.maps: dict[str, Tensor] = {}
        outputs = encoding.outputs
        self._stuck = torch.rand(outputs, generator=key.child("stuck column").torch())
        self._dead = torch.rand(outputs, generator=key.child("dead column").torch())
        codes = key.child("stuck code").torch()
        self._codes = torch.randint(-half, half, (outputs,), generator=codes, dtype=torch.int32)

    def columns(self, dials: Mapping[str, float]) -> StuckColumns:
        """Faulty converters; a code in the map comes first.

        A dead column (code 0) goes before a drawn stuck one.
        """
        is_dead = self._dead < dials["dead_column_fraction"]
        mask = (self._stuck < dials["stuck_column_fraction"]) | is_dead
        codes = torch.where(is_dead, torch.zeros_like(self._codes), self._codes)
        given = self.maps.get("stuck_column_code")
        if given is not None:
            is_given = given != self.healthy_code
            codes = torch.where(is_given, given.to(torch.int32), codes)
            mask = mask | is_given
        return StuckColumns(mask, codes)

    def stuck_cells(self, dials: Mapping[str, float]) -> tuple[Tensor, Tensor] | None:
        """Cells that no write moves: a mask and where in the window [0, 1] each sits.

        None if there are none. Drawn anew at each call: a chip without stuck
        cells need not hold the scores of all its cells.
        """
        mask, level = torch.zeros(self._encoding.shape, dtype=torch.bool), None
        for name, at in zip(CELL_KINDS, (0.0, 1.0, None), strict=True):
            if dials[name] == 0:
                continue
            own = self._scores(name.removesuffix("_fraction").replace("_", " ")) < dials[name]
            where = self._scores("stuck level") if at is None else torch.tensor(at)
            level = torch.where(own, where, 0.0 if level is None else level)
            mask |= own
        given = self.maps.get("stuck_cell_level")
        if given is not None:
            level = torch.where(given >= 0, given, 0.0 if level is None else level)
            mask |= given >= 0
        return None if level is None else (mask, level)

    def never_verify(self) -> Tensor | None:
        """Cells that no verifying read accepts, bool; None if there are none."""
        given = self.maps.get("never_verifies")
        return None if given is None else given > 0

    def rows(self, dials: Mapping[str, float]) -> Tensor | None:
        """1 for rows whose word line is whole, 0 for dead ones, (inputs,); None if all are."""
        scores = torch.rand(self._encoding.inputs, generator=self._key.child("dead row").torch())
        dead = scores < dials["dead_row_fraction"]
        if "dead_row" in self.maps:
            dead = dead | (self.maps["dead_row"] > 0)
        return (~dead).float() if bool(dead.any()) else None

    def connected(self, dials: Mapping[str, float]) -> Tensor | None:
        """1 for cells on whole lines, 0 on open ones, broadcastable to all cells; None if
        all lines are whole."""
        rows, open_line = self.rows(dials), self.maps.get("dead_column")
        if rows is None and open_line is None:
            return None
        factor = torch.ones(self._encoding.shape[1:]) if rows is None else rows[:, None]
        if open_line is None:
            return factor
        whole = torch.ones(self._encoding.shape[2])  # a reference column stays whole
        whole[: self._encoding.outputs] = (open_line <= 0).float()
        return factor * whole

    def column_factors(self) -> Tensor | None:
        """Factor on each column's signal, (outputs,): mis-ranged converters and
        open bit lines (0); None if there are none."""
        gain, open_line = self.maps.get("column_gain"), self.maps.get("dead_column")
        if gain is None and open_line is None:
            return None
        factors = torch.ones(self._encoding.outputs) if gain is None else gain
        return factors if open_line is None else factors * (open_line <= 0)

    def _scores(self, name: str) -> Tensor:
        return torch.rand(self._encoding.shape, generator=self._key.child(name).torch())
