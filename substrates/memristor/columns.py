"""The array as its column converters see it, in units of one converter code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from substrates.converter import half_span
from substrates.memristor import device
from substrates.memristor.array import Scratch, Tiling
from substrates.memristor.presets import CrossbarConfig
from substrates.noise import standard_normal
from twin.key import SAMPLE_BLOCK, Key

CHUNK_VALUES = 2**18
"""About how many conversions are computed together: a pass works in buffers of
1 MB, which stay in a processor's cache."""


@dataclass(frozen=True)
class Columns:
    """All that a pass needs of conductances and ranges, as two matrices.

    gain: codes per unit drive, (inputs, outputs). noise: variance of that in
    one shot, None without read noise. row_joules: energy of a full-voltage
    read on each row, (inputs,). log_age: the age it holds for.
    """

    tiling: Tiling
    scratch: Scratch
    gain: Tensor
    noise: Tensor | None
    row_joules: Tensor
    log_age: float

    @staticmethod
    def of(
        g: Tensor,
        full_scale_a: Tensor,
        read_noise: float,
        log_age: float,
        tiling: Tiling,
        scratch: Scratch,
        config: CrossbarConfig,
    ) -> Columns:
        """Fold conductances (2, inputs, outputs), S, and full scales (outputs,), A."""
        volts = config.read_voltage_v
        # Codes per siemens on a row at the full read voltage, (outputs,).
        scale = volts * half_span(config.adc_bits) / full_scale_a
        noise = None
        if read_noise > 0:
            noise = device.read_variance(g, read_noise).mul_(scale.square())
        return Columns(
            tiling=tiling,
            scratch=scratch,
            gain=(g[0] - g[1]).mul_(scale),
            noise=noise,
            row_joules=g.sum((0, 2)) * (volts**2 * config.read_time_s),
            log_age=log_age,
        )

    def currents(self, drive: Tensor, key: Key, first: int, shots: int | None) -> Iterator[Tensor]:
        """Noisy tile currents in codes, (batch, row tiles, outputs), shot by shot.

        drive: (batch, inputs) in [0, 1], on the DAC's grid. The tensors may be
        changed by the caller, and are used up before the next pass begins.
        """
        mean = self._sums("mean", drive, self.gain)
        if self.noise is None:
            yield from (mean.clone() for _ in range(shots or 1))
            return
        squares = self.scratch.take("squares", tuple(drive.shape), drive.device)
        torch.square(drive, out=squares)
        sigma = self._sums("sigma", squares, self.noise).sqrt_()
        shape = tuple(mean.shape[1:])
        for shot in range(shots or 1):
            stream = key.child("shot", shot) if shots else key
            noise = standard_normal(stream, first, len(drive), shape, device=drive.device)
            yield torch.addcmul(mean, noise, sigma, out=noise)

    def _sums(self, name: str, drive: Tensor, matrix: Tensor) -> Tensor:
        shape = (len(drive), len(self.tiling.rows), matrix.shape[1])
        out = self.scratch.take(name, shape, drive.device)
        return self.tiling.partial_sums(drive, matrix, out)

    def joules(self, drive: Tensor) -> float:
        """Energy in the array for these samples, sum V^2 G t, read noise aside."""
        return float(drive.square().sum(0) @ self.row_joules)


def chunks(batch: int, first_sample: int, conversions: int) -> Iterator[slice]:
    """Rows of a batch in whole blocks of noise, cut at fixed sample numbers.

    conversions: per sample, row tiles x outputs.
    """
    stride = SAMPLE_BLOCK * max(1, CHUNK_VALUES // (SAMPLE_BLOCK * conversions))
    start = 0
    while start < batch:
        stop = min(batch, start + stride - (first_sample + start) % stride)
        yield slice(start, stop)
        start = stop
