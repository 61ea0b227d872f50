"""Which cells and converter columns of one chip are broken, and how.

A chip's faults are drawn once from its own key. Each element has a fixed
score in [0, 1) and is faulty where the score is below the dial's fraction, so
the faults at a larger fraction contain those at a smaller one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from substrates.converter import half_span
from twin.key import Key


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

    def apply(self, codes: Tensor, row_tiles: int) -> Tensor:
        """`codes` (..., outputs) with stuck columns at row_tiles x their code."""
        return torch.where(self.mask, self.codes * row_tiles, codes)


class Faults:
    """The fault scores of one chip of (inputs, outputs) pairs.

    Drawn on the CPU, so that a chip is the same wherever it is computed.
    """

    def __init__(self, key: Key, inputs: int, outputs: int, adc_bits: int) -> None:
        self._key = key
        self._shape = (2, inputs, outputs)
        half = half_span(adc_bits)
        self.healthy_code = -half - 1
        self._stuck = torch.rand(outputs, generator=key.child("stuck column").torch())
        self._dead = torch.rand(outputs, generator=key.child("dead column").torch())
        codes = key.child("stuck code").torch()
        self._codes = torch.randint(-half, half, (outputs,), generator=codes, dtype=torch.int32)

    def columns(self, stuck: float, dead: float, given: Tensor) -> StuckColumns:
        """Faulty columns at these fractions; a code in `given` comes first.

        given: (outputs,), the code a column is stuck at, or healthy_code.
        A dead column (code 0) goes before a drawn stuck one.
        """
        is_dead, is_given = self._dead < dead, given != self.healthy_code
        codes = torch.where(is_dead, torch.zeros_like(self._codes), self._codes)
        codes = torch.where(is_given, given.to(torch.int32), codes)
        return StuckColumns((self._stuck < stuck) | is_dead | is_given, codes)

    def cells(self, fraction: float) -> tuple[Tensor, Tensor]:
        """Stuck cells: a mask and where in the window [0, 1] each one sits.

        Both (2, inputs, outputs). Drawn anew at each call: a chip without
        stuck cells need not hold the scores of all its cells.
        """
        scores = torch.rand(self._shape, generator=self._key.child("stuck cell").torch())
        levels = torch.rand(self._shape, generator=self._key.child("stuck level").torch())
        return scores < fraction, levels
