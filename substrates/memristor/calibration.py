"""Gain and offset of column converters, recovered from known drives.

Uses the contract only, so it calibrates a real chip as well as a twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from twin.backend import Backend
from twin.errors import DriveError, ReadingError, Unsupported
from twin.fence import Fence
from twin.key import Key


@dataclass(frozen=True)
class ColumnFit:
    """A line per column and group of rows: value = offset + sum_t gain_t ideal_t.

    gain: (groups, outputs), 1 is ideal. offset: (outputs,), in the reading
    port's units (1.0 is its nominal full scale). gain_error, offset_error:
    standard errors. residual: r.m.s. of what the line leaves, (outputs,).
    samples: drives used.
    """

    gain: Tensor
    offset: Tensor
    gain_error: Tensor
    offset_error: Tensor
    residual: Tensor
    samples: int

    def corrected(self, values: Tensor) -> Tensor:
        """Readings (..., outputs) of a chip with one row tile, free of both errors."""
        if len(self.gain) != 1:
            raise ReadingError(
                f"calibration: readings add up {len(self.gain)} row tiles of different gains and "
                "cannot be corrected afterwards. Use arrays as tall as the matrix."
            )
        return (values - self.offset) / self.gain[0]


def calibrate_columns(
    backend: Backend | Fence,
    weights: Tensor,
    *,
    key: Key,
    samples: int = 512,
    groups: Sequence[slice] | None = None,
) -> ColumnFit:
    """Read `samples` random known drives and fit every column by least squares.

    weights: what the cells hold, (inputs, outputs) in [-1, 1]: best
    `Written.achieved`, since an error in it is seen as an error of gain.
    groups: rows with converters of their own (a chip's row tiles), all rows
    together if None. Costs `samples` passes; range the chip before.
    Raises Unsupported for a backend that is not a product in V and S, DriveError
    for weights of another shape or too few samples, ReadingError where columns
    saturate.
    """
    fence = backend if isinstance(backend, Fence) else Fence(backend, name="calibration")
    ideal_scale = _scale(fence)
    drive_port, setting = fence.capabilities.drives[0], fence.capabilities.settings[0]
    if tuple(weights.shape) != setting.shape:
        raise DriveError(
            f"{fence.name}: calibration weights have shape {tuple(weights.shape)}, "
            f"expected {setting.shape}. Give what was written, Written.achieved."
        )
    rows = tuple(groups) if groups is not None else (slice(None),)
    unknowns = len(rows) + 1
    if samples < 4 * unknowns:
        raise DriveError(
            f"{fence.name}: {samples} drives for {unknowns} unknowns per column; "
            f"use at least {4 * unknowns}."
        )
    drive = _drives(samples, drive_port.shape[0], rows, key.child("drives"))
    drive = drive_port.on_grid(drive)
    measured = fence.forward(drive, key=key.child("read"), phase="calibrate")
    if measured.saturated > 0.001:
        raise ReadingError(
            f"{fence.name}: {measured.saturated:.2%} of the codes are at an end of the range, "
            "which bends the line. Call set_range on drives as strong as the calibration's."
        )
    ideal = torch.stack([drive[:, r].double() @ weights[r].double() * ideal_scale for r in rows])
    return _fitted(ideal, measured.values.double())


def _scale(fence: Fence) -> float:
    """Value of a reading per unit of drive times setting."""
    ports = (fence.capabilities.drives, fence.capabilities.settings, fence.capabilities.readings)
    units = [port[0].unit if port else "none" for port in ports]
    if units != ["V", "S", "A"]:
        raise Unsupported(
            f"{fence.name}: calibration needs a product of volts and siemens read in amperes, "
            f"got ports in {', '.join(units)}."
        )
    drive, setting, reading = (port[0].full_scale for port in ports)
    return drive * setting / reading


def _drives(samples: int, inputs: int, rows: Sequence[slice], key: Key) -> Tensor:
    """Uniform drives whose strength varies from group to group and sample to sample."""
    generator = key.torch()
    drive = torch.rand((samples, inputs), generator=generator)
    for group in rows:
        drive[:, group] *= torch.rand((samples, 1), generator=generator)
    return drive


def _fitted(ideal: Tensor, values: Tensor) -> ColumnFit:
    """ideal: (groups, samples, outputs); values: (samples, outputs); float64."""
    groups, samples, _ = ideal.shape
    one = torch.ones_like(ideal[0])
    design = torch.stack([*ideal, one], -1).transpose(0, 1)  # (outputs, samples, groups + 1)
    target = values.T.unsqueeze(-1)
    solution = torch.linalg.lstsq(design, target).solution.squeeze(-1)
    left = (target - design @ solution.unsqueeze(-1)).squeeze(-1)
    variance = left.square().sum(1) / (samples - groups - 1)
    covariance = torch.linalg.inv(design.transpose(1, 2) @ design) * variance[:, None, None]
    errors = covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    return ColumnFit(
        gain=solution[:, :-1].T.contiguous(),
        offset=solution[:, -1].contiguous(),
        gain_error=errors[:, :-1].T.contiguous(),
        offset_error=errors[:, -1].contiguous(),
        residual=variance.sqrt(),
        samples=samples,
    )
