"""How one pass is spread over arrays, slices and phases of the drive.

A *bank* is one conversion of every column: one phase of the drive, one slice
of the weights, one row tile. Banks are ordered phase, slice, tile; a
*converter* serves its (slice, tile) in every phase.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from substrates.converter import half_span
from substrates.memristor.array import Scratch, Tiling
from substrates.memristor.config import CrossbarConfig
from substrates.memristor.encoding import Encoding
from twin.errors import ConfigError

EXACT = 2**24
"""Whole numbers up to this are exact in float32, where codes are added up."""


@dataclass(frozen=True)
class Layout:
    """Tiles, slice weights and phases of a chip. phase_bits: of one phase."""

    tiling: Tiling
    slice_weights: tuple[int, ...]
    phases: int
    phase_bits: int

    @staticmethod
    def of(config: CrossbarConfig, encoding: Encoding) -> Layout:
        """The layout of a chip; ConfigError if its codes would not add up exactly."""
        phase_bits, left = divmod(config.dac_bits, config.dac_phases)
        if left or phase_bits == 0:
            raise ConfigError(
                f"memristor.dac_phases: {config.dac_phases} phases do not divide "
                f"{config.dac_bits} bits; use a divisor of dac_bits."
            )
        tiling = Tiling.of(config.inputs, config.outputs, config.array_rows, config.array_cols)
        layout = Layout(tiling, encoding.weights, config.dac_phases, phase_bits)
        largest = layout.total_weight * len(tiling.rows) * half_span(config.adc_bits)
        if largest >= EXACT:
            raise ConfigError(
                f"memristor: codes of {config.adc_bits} bits over {len(tiling.rows)} tiles, "
                f"{layout.phases} phases and {len(encoding.weights)} slices reach {largest}, "
                f"more than {EXACT}; use fewer ADC bits, slices or phases."
            )
        return layout

    @property
    def converters(self) -> int:
        return len(self.slice_weights) * len(self.tiling.rows)

    @property
    def banks(self) -> int:
        return self.phases * self.converters

    @property
    def plain(self) -> bool:
        """Whether every bank counts once."""
        return self.phases == 1 and len(self.slice_weights) == 1

    @property
    def total_weight(self) -> int:
        """Sum of the powers of two of one tile's banks."""
        return sum(self.slice_weights) * sum(self._phase_weights)

    @property
    def _phase_weights(self) -> tuple[int, ...]:
        return tuple(2 ** (self.phase_bits * p) for p in range(self.phases))

    def bank_weights(self, device: torch.device) -> Tensor:
        """What a code of each bank counts for, (banks,), float32."""
        tiles = range(len(self.tiling.rows))
        each = (p * s for p, s, _ in product(self._phase_weights, self.slice_weights, tiles))
        return torch.tensor([float(w) for w in each], device=device)

    @property
    def phase_top(self) -> int:
        """Code of a full voltage in one phase."""
        return 2**self.phase_bits - 1

    def phased(self, drive: Tensor, scratch: Scratch) -> Tensor:
        """DAC codes, 0 to phase_top, of drives (batch, inputs) in [0, 1], (batch,
        phases, inputs). They hold until the next call with the same `scratch`.
        """
        top = 2 ** (self.phase_bits * self.phases) - 1
        codes = scratch.take("drive codes", tuple(drive.shape), drive.device)
        torch.mul(drive, top, out=codes).round_()
        if self.phases == 1:
            return codes.unsqueeze(1)
        base = 2**self.phase_bits
        groups = []
        for _ in range(self.phases):
            groups.append(codes.remainder(base))
            codes = codes.div(base, rounding_mode="floor")
        return torch.stack(groups, 1)
