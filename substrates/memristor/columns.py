"""The array as its column converters see it, in units of one converter code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from substrates.converter import signed_codes_
from substrates.memristor.ages import Moment
from substrates.memristor.array import Scratch
from substrates.memristor.conduction import effective_volts
from substrates.memristor.converters import Errors
from substrates.memristor.floor import density_per_siemens
from substrates.memristor.layout import Layout
from substrates.memristor.traits import Nonlinearity
from substrates.noise import standard_normal
from twin.key import SAMPLE_BLOCK, Key

CHUNK_VALUES = 2**18
"""About how many conversions are computed together: a pass works in buffers of
1 MB, which stay in a processor's cache."""


@dataclass(frozen=True)
class Shot:
    """Current noise of the conductances that grows with the voltage.

    weight: codes^2 per (A^2 / S), conductances in it, (slices, inputs, outputs), or of
    a reference column without the converters, (slices, inputs, 1).
    """

    weight: Tensor
    temperature_k: float
    fano: float
    bandwidth_hz: float
    step_v: float

    def drive(self, drive: Drive) -> Tensor:
        """Variance per siemens of rows, beyond the thermal part, A^2 / S.

        2q times the current through the cells, which of curved ones is more than G V.
        """
        codes = drive.codes.double()
        # In double: near zero volts the two differ in their last bits only.
        at = density_per_siemens(codes * self.step_v, self.temperature_k, self.fano)
        still = density_per_siemens(codes.new_zeros((1,)), self.temperature_k, self.fano)
        if drive.linear is not drive.codes:
            calm = (1 - self.fano) * density_per_siemens(
                codes.new_zeros((1,)), self.temperature_k, 0
            )
            more = torch.where(codes > 0, drive.linear / codes, 1.0)
            at = (at - calm) * more + calm
        return ((at - still) * self.bandwidth_hz).float().clamp_(min=0)


@dataclass(frozen=True)
class Shared:
    """Noise of a reference column that all outputs subtract, in siemens and DAC codes.

    noise: variance per squared DAC code, siemens^2, (slices, inputs, 1). steady: variance
    whatever the drive, siemens^2 codes^2, (row tiles, 1). shot: what comes with the
    current. None: nothing of the kind. codes: codes per siemens and DAC code of each
    column, (converters, outputs).
    """

    noise: Tensor | None
    steady: Tensor | None
    shot: Shot | None
    codes: Tensor


class Drive(NamedTuple):
    """Row voltages of some samples in DAC codes, all (batch, phases, inputs).

    codes: as applied. linear: what linear cells would need for the same
    currents. squares: of that.
    """

    codes: Tensor
    linear: Tensor
    squares: Tensor


@dataclass(frozen=True)
class Columns:
    """All that a pass needs of conductances, converters and ranges.

    gain: codes per DAC code, (slices, inputs, outputs). noise: variance of
    that in one shot, None without read noise. shared: None without a noisy reference
    column. steady: variance whatever the drive, (converters, outputs). row_joules:
    energy of a read on each row at one DAC code, (inputs,). curve: of the cells' I-V,
    None if linear. step_v: volts of one DAC code. moment: when it holds.
    """

    layout: Layout
    scratch: Scratch
    gain: Tensor
    noise: Tensor | None
    shared: Shared | None
    steady: Tensor | None
    shot: Shot | None
    errors: Errors
    row_joules: Tensor
    curve: Nonlinearity | None
    step_v: float
    bits: int
    moment: Moment

    def currents(
        self, drive: Drive, key: Key, first: int, shots: int | None, start: int = 0
    ) -> Iterator[Tensor]:
        """Noisy signals in codes, (batch, banks, outputs), shot by shot from `start`.

        The tensors may be changed by the caller, and are used up before the next
        pass begins.
        """
        mean = self._sums("mean", drive.linear, self.gain)
        if self.errors.offset is not None:
            self._per_phase(mean).add_(self.errors.offset)
        sigma = self._sigma(drive)
        joint = self._joint_sigma(drive)
        for shot in range(start, start + (shots or 1)):
            stream = key.child("shot", shot) if shots else key
            if sigma is None and joint is None:
                signal = mean.clone()
            else:
                signal = self._noisy(mean, sigma, joint, stream, first)
            if self.errors.inl is not None:
                self.errors.bend_(self._per_phase(signal), self.bits)
            yield signal

    def convert_(self, signal: Tensor) -> tuple[Tensor, int]:
        """Codes (batch, outputs), int32, all banks added up with their powers of
        two, and how many conversions ended at an end of the range."""
        at_end = signed_codes_(signal, self.bits)
        if signal.shape[1] == 1:
            return signal[:, 0].to(torch.int32), at_end
        if self.layout.plain:
            return signal.sum(1).to(torch.int32), at_end
        weights = self.layout.bank_weights(signal.device)
        return torch.einsum("bko,k->bo", signal, weights).to(torch.int32), at_end

    def driven(self, codes: Tensor) -> Drive:
        """codes: of the DAC, (batch, phases, inputs)."""
        linear = codes
        if self.curve is not None:
            # Rounding alone may leave the range of the curve; more is refused when built.
            volts = (codes * self.step_v).clamp_(max=self.curve.v_max)
            linear = effective_volts(volts, self.curve).div_(self.step_v)
        squares = self.scratch.take("squares", tuple(codes.shape), codes.device)
        return Drive(codes, linear, torch.square(linear, out=squares))

    def joules(self, drive: Drive) -> float:
        """Energy in the array for these samples, sum V^2 G t, read noise aside."""
        # V times I, which with curved cells is not the square of either.
        power = drive.squares if self.curve is None else drive.codes * drive.linear
        return float(power.sum((0, 1)) @ self.row_joules)

    def _noisy(
        self, mean: Tensor, sigma: Tensor | None, joint: Tensor | None, stream: Key, first: int
    ) -> Tensor:
        batch, banks, outputs = mean.shape
        extra = 0 if joint is None else 1
        shape = (banks, outputs + extra)
        buffer = self.scratch.take("noise", (batch, *shape), mean.device)
        noise = standard_normal(stream, first, batch, shape, device=mean.device, out=buffer)
        if joint is None:
            assert sigma is not None
            return torch.addcmul(mean, noise, sigma, out=noise)
        own = mean if sigma is None else torch.addcmul(mean, noise[..., :-1], sigma)
        return own - joint * noise[..., -1:]

    def _sigma(self, drive: Drive) -> Tensor | None:
        """Standard deviation of each bank's signal, codes; None without noise."""
        variance = None
        if self.noise is not None:
            variance = self._sums("variance", drive.squares, self.noise)
        if self.shot is not None:
            more = self._sums("shot", self.shot.drive(drive), self.shot.weight)
            variance = more if variance is None else variance.add_(more)
        if self.steady is not None:
            if variance is None:
                shape = (len(drive.codes), self.layout.banks, self.gain.shape[2])
                variance = self.scratch.take("variance", shape, self.gain.device).zero_()
            self._per_phase(variance).add_(self.steady)
        return None if variance is None else variance.sqrt_()

    def _joint_sigma(self, drive: Drive) -> Tensor | None:
        """Codes per standard deviation of the reference, (batch, banks, outputs)."""
        if self.shared is None:
            return None
        shared, shape = self.shared, (len(drive.codes), self.layout.banks, 1)
        if shared.noise is not None:
            variance = self._sums("joint", drive.squares, shared.noise)
        else:
            variance = self.scratch.take("joint", shape, self.gain.device).zero_()
        if shared.shot is not None:
            variance += self._sums("joint shot", shared.shot.drive(drive), shared.shot.weight)
        if shared.steady is not None:
            self._per_phase(variance).add_(shared.steady)
        return (self._per_phase(variance.sqrt_()) * shared.codes).flatten(1, 2)

    def _sums(self, name: str, drive: Tensor, matrix: Tensor) -> Tensor:
        """Products of each phase, slice and row tile: (batch, banks, columns)."""
        batch, phases, inputs = drive.shape
        shape = (batch, self.layout.banks, matrix.shape[2])
        out = self.scratch.take(name, shape, drive.device)
        if shape[1] == 1:
            torch.mm(drive.view(batch, inputs), matrix[0], out=out.view(batch, shape[2]))
            return out
        bank = 0
        for phase in range(phases):
            for slice_ in matrix:
                for rows in self.layout.tiling.rows:
                    torch.mm(drive[:, phase, rows], slice_[rows], out=out[:, bank])
                    bank += 1
        return out

    def _per_phase(self, signal: Tensor) -> Tensor:
        """(batch, phases, converters, outputs) of (batch, banks, outputs), a view."""
        return signal.unflatten(1, (self.layout.phases, self.layout.converters))


def chunks(batch: int, first_sample: int, conversions: int) -> Iterator[slice]:
    """Rows of a batch in whole blocks of noise, cut at fixed sample numbers.

    conversions: per sample, banks x outputs.
    """
    stride = SAMPLE_BLOCK * max(1, CHUNK_VALUES // (SAMPLE_BLOCK * conversions))
    start = 0
    while start < batch:
        stop = min(batch, start + stride - (first_sample + start) % stride)
        yield slice(start, stop)
        start = stop
