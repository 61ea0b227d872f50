"""Signed weights as conductances, and back to the lines a converter subtracts.

Three encodings. A *slice* is what one set of converters sees: a positive and a
negative line of cells per column, and the power of two its codes count for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from substrates.memristor.config import CrossbarConfig
from twin.errors import ConfigError


@dataclass(frozen=True)
class Slice:
    """plus, minus: conductances (inputs, outputs), siemens; minus may be a single
    reference column (inputs, 1). weight: power of two of its codes."""

    plus: Tensor
    minus: Tensor
    weight: int


@dataclass(frozen=True)
class Encoding:
    """How weights in [-1, 1] become cells.

    pair: G+ = g_min + max(w, 0) window, G- the same with -w.
    offset: G = g_min + (w + 1) / 2 window beside one column at mid-window, so
    half the signal per cell and a reference whose noise all columns share.
    sliced: |w| rounded to slices x slice_bits bits, each slice a pair.
    levels: targets rounded to that many levels of the window, if not None; the
    reference column stays at mid-window.
    """

    kind: str
    inputs: int
    outputs: int
    g_min: float
    g_max: float
    levels: int | None
    slices: int
    slice_bits: int

    @staticmethod
    def of(config: CrossbarConfig) -> Encoding:
        """The encoding of a chip; ConfigError where levels cannot hold a slice."""
        sliced = config.encoding == "sliced"
        digits = 2**config.slice_bits - 1
        if sliced and config.levels is not None and (config.levels - 1) % digits:
            raise ConfigError(
                f"memristor.levels: {config.levels} levels cannot hold the digits of slices of "
                f"{config.slice_bits} bits; use a multiple of {digits} plus one, or other slices."
            )
        return Encoding(
            config.encoding,
            config.inputs,
            config.outputs,
            config.g_min_siemens,
            config.g_max_siemens,
            config.levels,
            config.slices if sliced else 1,
            config.slice_bits if sliced else 0,
        )

    @property
    def window(self) -> float:
        return self.g_max - self.g_min

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of all cells: (2 x slices, inputs, outputs), or (1, inputs, outputs + 1)."""
        if self.kind == "offset":
            return (1, self.inputs, self.outputs + 1)
        return (2 * self.slices, self.inputs, self.outputs)

    @property
    def weights(self) -> tuple[int, ...]:
        """Powers of two of the slices."""
        return tuple(2 ** (self.slice_bits * s) for s in range(self.slices))

    @property
    def full(self) -> float:
        """Signal of a weight of 1.0 on one slice, fraction of the window."""
        return 0.5 if self.kind == "offset" else 1.0

    def targets(self, weights: Tensor) -> Tensor:
        """Target conductances of all cells, siemens, always inside the window."""
        if self.kind == "pair":
            level = weights.new_empty((2, *weights.shape))
            torch.clamp(weights, 0, 1, out=level[0])
            torch.clamp(weights, -1, 0, out=level[1]).neg_()
        elif self.kind == "offset":
            level = torch.full(self.shape, 0.5, device=weights.device)
            level[0, :, :-1] = (weights.clamp(-1, 1) + 1) / 2
        else:
            level = self._digits(weights)
        if self.levels is not None:
            level = level.mul_(self.levels - 1).round_().div_(self.levels - 1)
            if self.kind == "offset":
                # Of an even number of levels none is at mid-window.
                level[..., -1] = 0.5
        return level.mul_(self.window).add_(self.g_min)

    def _digits(self, weights: Tensor) -> Tensor:
        top = 2 ** (self.slices * self.slice_bits) - 1
        base = 2**self.slice_bits
        # In double: float32 cannot hold the top code of 25 bits.
        signed = (weights.double().clamp_(-1, 1) * top).round_()
        level = weights.new_empty(self.shape)
        for sign, magnitude in enumerate((signed.clamp(min=0), (-signed).clamp(min=0))):
            for s in range(self.slices):
                level[2 * s + sign] = magnitude.remainder(base).div_(base - 1)
                magnitude = magnitude.div(base, rounding_mode="floor")
        return level

    def split(self, g: Tensor) -> tuple[Slice, ...]:
        """The lines of each slice, as views of conductances of all cells."""
        if self.kind == "offset":
            return (Slice(g[0, :, :-1], g[0, :, -1:], 1),)
        return tuple(Slice(g[2 * s], g[2 * s + 1], weight) for s, weight in enumerate(self.weights))

    def decode(self, g: Tensor) -> Tensor:
        """The weights (inputs, outputs) that conductances stand for."""
        total = sum(self.weights)
        parts = [(s.plus - s.minus).mul_(s.weight) for s in self.split(g)]
        summed = parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
        return summed.div_(self.window * self.full * total)
