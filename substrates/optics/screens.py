"""A thick scattering medium as random phase screens with free space between them.

What can be chosen about it, the screens themselves, and where the modulator's
macropixels and the camera's pixels lie on its grid. Lengths in m, phases in rad.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from substrates.optics.propagation import Allowed, Grid, Law, padded_grid, require_valid
from twin.config import STRICT
from twin.errors import ConfigError
from twin.key import Key

Normalisation = Literal["energy", "unit"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MultisliceTable:
    """A multislice medium. The defaults (assumed) give fully developed speckle."""

    grid_points: Annotated[int, Field(ge=8, le=4096)] = 256
    """Samples of the field along each side of the square."""

    pitch_m: Annotated[float, Field(gt=0)] = 8e-6
    """Distance of two samples, m (the pitch of a common liquid-crystal modulator)."""

    wavelength_m: Annotated[float, Field(gt=0)] = 532e-9
    """Vacuum wavelength, m."""

    slices: Annotated[int, Field(ge=1, le=256)] = 8
    """Phase screens. Light goes from the modulator to the first, and from the
    last to the camera."""

    slice_distance_m: Annotated[float, Field(ge=0)] = 15e-3
    """From the modulator to the first screen and from screen to screen, m."""

    camera_distance_m: Annotated[float, Field(ge=0)] = 15e-3
    """From the last screen to the plane of the camera, m."""

    correlation_length_m: Annotated[float, Field(ge=0)] = 45e-6
    """Distance at which the autocorrelation of a screen has fallen to 1/e, m;
    0 gives independent samples."""

    phase_rms_rad: Annotated[float, Field(ge=0)] = 1.7
    """R.m.s. phase of each screen, rad. A part exp(-rms^2) of the power passes
    a screen unscattered."""

    kerr_rad: float = 0.0
    """Phase that each slice adds per unit of intensity (mean 1), rad; not 0
    makes the medium react to the light, sample by sample."""

    law: Law = "fresnel"
    """"fresnel" (paraxial, as LightPipes' Forvard) or "angular_spectrum" (exact)."""

    padding: Annotated[int, Field(ge=1, le=8)] = 1
    """1: light that leaves at one side comes in at the other, no energy is
    lost. 2 or more: each step in so many times as wide a dark square; light
    that leaves is lost."""

    modulator_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the side of the grid that the modulator covers."""

    normalisation: Normalisation = "energy"
    """"energy": mean |field|^2 over the whole plane of the camera is 1 for light
    of unit mean power, less what was lost on the way. "unit": mean |t|^2 of the
    matrix is exactly 1 / channels."""

    allow: tuple[Allowed, ...] = ()
    """Violations accepted: "sampling", "aliasing", "paraxial"."""


def grid_of(table: MultisliceTable) -> Grid:
    """The grid of the medium, with the numerical aperture of its light.

    Twice the r.m.s. angle to an axis behind all screens, 2 sqrt(2 slices) rms /
    (k correlation length), which 95 % of the light stay within; the band of
    the grid for independent samples.
    """
    aperture = None
    if table.correlation_length_m > 0:
        slope = math.sqrt(2 * table.slices) * table.phase_rms_rad / table.correlation_length_m
        sine = 2 * slope * table.wavelength_m / (2 * math.pi)
        aperture = min(1.0, sine) or None
    return Grid(
        points=table.grid_points,
        pitch_m=table.pitch_m,
        wavelength_m=table.wavelength_m,
        aperture=aperture,
    )


def require_valid_medium(table: MultisliceTable) -> None:
    """ConfigError with the number where the grid cannot carry the medium's light."""
    wide = padded_grid(grid_of(table), table.padding)
    longest_m = max(table.slice_distance_m, table.camera_distance_m)
    total_m = table.slices * table.slice_distance_m + table.camera_distance_m
    require_valid(wide, longest_m, table.law, table.allow, total_m)


def phase_screens(table: MultisliceTable, key: Key) -> Tensor:
    """Gaussian random phases, (slices, grid_points, grid_points), rad, float64.

    Autocorrelation rms^2 exp(-(r / correlation length)^2), periodic. Screen s
    depends on the key and s only, not on how many there are.
    """
    n = table.grid_points
    f = torch.fft.fftfreq(n, table.pitch_m, dtype=torch.float64)
    line = torch.exp(-((math.pi * table.correlation_length_m * f) ** 2) / 2)
    filtered = line[:, None] * line
    # White noise of variance 1 keeps the mean square of the filter.
    filtered = filtered * (table.phase_rms_rad / filtered.square().mean().sqrt())
    out = torch.empty((table.slices, n, n), dtype=torch.float64)
    for s in range(table.slices):
        stream = key.child("screen", s).torch()
        white = torch.randn((n, n), generator=stream, dtype=torch.float64)
        out[s] = torch.fft.ifft2(torch.fft.fft2(white) * filtered).real
    return out


def macropixels(table: MultisliceTable, channels: int) -> Tensor:
    """Which macropixel each sample belongs to, (points, points), int64; -1: none.

    Squares in rows, ceil(sqrt(channels)) a row, in the middle of the grid.
    ConfigError if they would be smaller than one sample.
    """
    across = math.ceil(math.sqrt(channels))
    side = int(table.grid_points * table.modulator_fraction) // across
    if side < 1:
        raise ConfigError(
            f"medium: {channels} macropixels need a modulator of {across} x {across} samples or "
            f"more, got {int(table.grid_points * table.modulator_fraction)} across. "
            "Raise grid_points or modulator_fraction."
        )
    start = (table.grid_points - across * side) // 2
    at = torch.arange(table.grid_points) - start
    cell = torch.where((at >= 0) & (at < across * side), at.clamp(min=0) // side, -1)
    owner = cell[:, None] * across + cell
    outside = (cell[:, None] < 0) | (cell < 0) | (owner >= channels)
    return owner.masked_fill(outside, -1)


def camera_samples(table: MultisliceTable, pixels: int) -> Tensor:
    """Index of each camera pixel into the flattened grid, (pixels,), int64.

    On a square raster over the whole grid, as coarse as it can be; a pixel
    samples a point. ConfigError if there are more pixels than samples.
    """
    across = math.ceil(math.sqrt(pixels))
    stride = table.grid_points // across
    if stride < 1:
        raise ConfigError(
            f"medium: {pixels} camera pixels need {across} x {across} samples, got "
            f"{table.grid_points} x {table.grid_points}. Raise grid_points."
        )
    at = (table.grid_points - across * stride) // 2 + stride // 2 + stride * torch.arange(across)
    return (at[:, None] * table.grid_points + at).flatten()[:pixels]


def grains_per_pixel_step(table: MultisliceTable, pixels: int) -> float:
    """Distance of two camera pixels over the speckle grain, wavelength / (2 NA).

    Above 1 neighbouring pixels see different grains, the independent outputs
    that a learner needs.
    """
    across = math.ceil(math.sqrt(pixels))
    grid = grid_of(table)
    return table.grid_points // across * grid.sampling_ratio
