"""The array as its column converters see it, in units of one converter code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from substrates.converter import half_span
from substrates.memristor import device
from substrates.memristor.array import Tiling
from substrates.memristor.presets import CrossbarConfig
from substrates.noise import standard_normal
from twin.key import Key

CHUNK = 256
"""Samples computed together: bounds memory, and a whole number of noise blocks."""


@dataclass(frozen=True)
class Columns:
    """All that a pass needs of conductances and ranges, as two matrices.

    gain: codes per unit drive, (inputs, outputs). noise: variance of that in
    one shot, None without read noise. row_joules: energy of a full-voltage
    read on each row, (inputs,). log_age: the age it holds for.
    """

    tiling: Tiling
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
            gain=(g[0] - g[1]).mul_(scale),
            noise=noise,
            row_joules=g.sum((0, 2)) * (volts**2 * config.read_time_s),
            log_age=log_age,
        )

    def currents(self, drive: Tensor, key: Key, first: int, shots: int | None) -> Iterator[Tensor]:
        """Noisy tile currents in codes, (batch, row tiles, outputs), shot by shot.

        drive: (batch, inputs) in [0, 1], on the DAC's grid. The tensors may be
        changed by the caller.
        """
        mean = self.tiling.partial_sums(drive, self.gain)
        if self.noise is None:
            yield from (mean.clone() for _ in range(shots or 1))
            return
        sigma = self.tiling.partial_sums(drive.square(), self.noise).sqrt_()
        shape = tuple(mean.shape[1:])
        for shot in range(shots or 1):
            stream = key.child("shot", shot) if shots else key
            noise = standard_normal(stream, first, len(drive), shape, device=drive.device)
            yield torch.addcmul(mean, noise, sigma, out=noise)

    def joules(self, drive: Tensor) -> float:
        """Energy in the array for these samples, sum V^2 G t, read noise aside."""
        return float(drive.square().sum(0) @ self.row_joules)


def chunks(batch: int, first_sample: int) -> Iterator[slice]:
    """Rows of a batch, cut at multiples of CHUNK of the sample number."""
    start = 0
    while start < batch:
        stop = min(batch, start + CHUNK - (first_sample + start) % CHUNK)
        yield slice(start, stop)
        start = stop
