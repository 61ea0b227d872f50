"""Free space between two planes: batched paraxial Fresnel and angular spectrum.

Fields are (..., points, points), complex64 or complex128, on a square grid.
Lengths in m, phases in rad. The common phase exp(i k z) is left out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from twin.errors import ConfigError, DriveError, nearest

Law = Literal["fresnel", "angular_spectrum"]
Allowed = Literal["sampling", "aliasing", "paraxial"]

PARAXIAL_LIMIT_RAD = 0.1
"""Largest k z theta^4 / 8 accepted without being told to. A random field that
fills the whole grid's band is then 9 % (relative L2) off the angular spectrum."""

SAMPLES_AT_ONCE = 2**17
"""Samples transformed together on a CPU: 2 fields of 256 x 256."""

CACHED_TRANSFERS = 16
"""Transfer functions kept; at 512 x 512 complex128 each takes 4 MB."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A square of points x points samples of a field, periodic.

    aperture: numerical aperture of the light on it (sine of its half angle);
    None stands for all that the grid carries, wavelength / (2 pitch).
    """

    points: int
    pitch_m: float
    wavelength_m: float
    aperture: float | None = None

    def __post_init__(self) -> None:
        lengths = (self.pitch_m, self.wavelength_m)
        if self.points < 1 or not all(math.isfinite(a) and a > 0 for a in lengths):
            raise ConfigError(
                "grid: expected points >= 1 and a positive, finite pitch and wavelength, got "
                f"{self.points} points, {self.pitch_m:g} m, {self.wavelength_m:g} m."
            )
        if self.aperture is not None and not 0 < self.aperture <= 1:
            raise ConfigError(f"grid: aperture must be in (0, 1], got {self.aperture:g}.")

    @property
    def width_m(self) -> float:
        """Side of the square."""
        return self.points * self.pitch_m

    @property
    def sine(self) -> float:
        """Sine of the steepest angle of the light to each axis."""
        return self.aperture or min(1.0, self.wavelength_m / (2 * self.pitch_m))

    @property
    def sampling_ratio(self) -> float:
        """pitch / (wavelength / (2 aperture)); the light is sampled up to 1."""
        return self.pitch_m * 2 * self.sine / self.wavelength_m

    def aliasing_ratio(self, distance_m: float) -> float:
        """Sideways travel of the steepest light / half the width of the grid.

        Up to 1 the transfer function of light that fills the grid's band,
        distance * wavelength / (points * pitch^2), is sampled often enough;
        beyond, that light comes back in on the other side.
        """
        return abs(distance_m) * self.sine / (self.width_m / 2)

    def paraxial_error_rad(self, distance_m: float) -> float:
        """k |z| theta^4 / 8: phase by which Fresnel misses the steepest light.

        theta stands for its sine; the first term that the paraxial
        approximation drops from sqrt(1 - theta^2).
        """
        return 2 * math.pi / self.wavelength_m * abs(distance_m) * self.sine**4 / 8


def require_valid(
    grid: Grid,
    distance_m: float,
    law: Law = "fresnel",
    allow: Collection[str] = (),
    total_m: float | None = None,
) -> None:
    """ConfigError with the number for what `allow` does not accept.

    sampling: pitch over wavelength / (2 aperture). aliasing: see Grid, for one
    step of `distance_m`. paraxial (Fresnel only): k z theta^4 / 8 over
    `total_m`, the whole way if there are several steps.
    """
    for name in allow:
        if name not in get_args(Allowed):
            known = nearest(name, get_args(Allowed))
            raise ConfigError(f"propagation.allow: {name!r} cannot be allowed. {known}")
    if law not in get_args(Law):
        raise ConfigError(f"propagation: no law {law!r}. {nearest(law, get_args(Law))}")
    total_m = distance_m if total_m is None else total_m
    if not (math.isfinite(distance_m) and math.isfinite(total_m)):
        raise ConfigError(f"propagation: a distance must be finite, got {distance_m} m.")
    sampling, aliasing = grid.sampling_ratio, grid.aliasing_ratio(distance_m)
    error_rad = grid.paraxial_error_rad(total_m)
    if sampling > 1 + 1e-9 and "sampling" not in allow:
        raise ConfigError(
            f"propagation: the pitch of {grid.pitch_m:.4g} m is {sampling:.3g} times "
            f"wavelength / (2 NA) = {grid.pitch_m / sampling:.4g} m, expected at most 1 times. "
            "Take a finer pitch or a smaller aperture, or allow 'sampling'."
        )
    if aliasing > 1 + 1e-9 and "aliasing" not in allow:
        raise ConfigError(
            f"propagation: over {distance_m:.4g} m light of NA {grid.sine:.3g} travels "
            f"{aliasing:.3g} times half the grid sideways ({grid.width_m / 2:.4g} m), expected at "
            "most 1 times: it wraps around. Take more points, a shorter step or zero padding, or "
            "allow 'aliasing'."
        )
    if law == "fresnel" and error_rad > PARAXIAL_LIMIT_RAD and "paraxial" not in allow:
        raise ConfigError(
            f"propagation: Fresnel is off by k z theta^4 / 8 = {error_rad:.3g} rad over "
            f"{total_m:.4g} m at NA {grid.sine:.3g}, expected at most {PARAXIAL_LIMIT_RAD:g} rad. "
            "Take law = 'angular_spectrum', or allow 'paraxial'."
        )


def propagated(
    field: Tensor,
    grid: Grid,
    distance_m: float,
    law: Law = "fresnel",
    padding: int = 1,
    allow: Collection[str] = (),
    out: Tensor | None = None,
) -> Tensor:
    """The field (..., points, points) after `distance_m` of free space.

    Periodic at padding 1: energy is conserved and -distance_m goes back. With
    padding 2 or more the field stands in that many times as wide a dark
    square, and what leaves the middle is lost. out: a contiguous tensor like
    `field` to write to, possibly `field` itself; fresh memory costs a tenth.
    """
    require_field(field, grid)
    if out is not None and (out.shape != field.shape or out.dtype != field.dtype):
        raise DriveError(
            f"propagation: out is {out.dtype} {tuple(out.shape)}, expected {field.dtype} "
            f"{tuple(field.shape)}."
        )
    wide = padded_grid(grid, padding)
    require_valid(wide, distance_m, law, allow)
    factor = transfer(wide, distance_m, law, field.dtype, field.device)
    out = step(field, factor, padding, out)
    # A transform spreads one bad value over all samples: one of each field tells.
    if not bool(torch.isfinite(torch.view_as_real(out[..., 0, 0])).all()):
        raise DriveError("propagation: the field holds NaN or infinity. Clean the input.")
    return out


def step(field: Tensor, factor: Tensor, padding: int = 1, out: Tensor | None = None) -> Tensor:
    """One step with a ready transfer function, unchecked; see `propagated`."""
    points = field.shape[-1]
    rows = field.reshape(-1, points, points)
    if out is None:
        out = torch.empty_like(rows, memory_format=torch.contiguous_format)
    out = out.view(-1, points, points)
    # Few at a time: what they need stays in the processor's cache.
    few = max(1, SAMPLES_AT_ONCE // factor.numel()) if rows.device.type == "cpu" else len(rows)
    buffer = torch.empty_like(rows[:few], memory_format=torch.contiguous_format)
    for start in range(0, len(rows), max(1, few)):
        part = rows[start : start + few]
        if padding > 1:
            out[start : start + few] = _padded_step(part, factor)
        else:
            spectrum = torch.fft.fft2(part, out=buffer[: len(part)])
            spectrum *= factor
            torch.fft.ifft2(spectrum, out=out[start : start + few])
    return out.view(field.shape)


def step_(field: Tensor, factor: Tensor, spectrum: Tensor) -> Tensor:
    """`step` without padding in place; spectrum: a buffer of the field's shape."""
    torch.fft.fft2(field, out=spectrum)
    spectrum *= factor
    return torch.fft.ifft2(spectrum, out=field)


def _padded_step(field: Tensor, factor: Tensor) -> Tensor:
    points = field.shape[-1]
    before = (factor.shape[-1] - points) // 2
    after = factor.shape[-1] - points - before
    wide = torch.nn.functional.pad(field, (before, after, before, after))
    step_(wide, factor, torch.empty_like(wide))
    return wide[..., before : before + points, before : before + points]


def padded_grid(grid: Grid, padding: int) -> Grid:
    """The grid on which a step with that padding is made. ConfigError below 1."""
    if padding < 1:
        raise ConfigError(f"propagation: padding must be 1 (none) or more times, got {padding}.")
    # The pitch is the same, so the band of the grid, and NA None, are too.
    return replace(grid, points=grid.points * padding)


def require_field(field: Tensor, grid: Grid) -> None:
    """DriveError unless `field` is complex and has the grid's shape."""
    if field.dtype not in (torch.complex64, torch.complex128):
        raise DriveError(f"propagation: expected complex64 or complex128, got {field.dtype}.")
    if tuple(field.shape[-2:]) != (grid.points, grid.points):
        raise DriveError(
            f"propagation: the field has shape {tuple(field.shape)}, expected "
            f"(..., {grid.points}, {grid.points})."
        )


@functools.lru_cache(maxsize=CACHED_TRANSFERS)
def transfer(
    grid: Grid,
    distance_m: float,
    law: Law,
    dtype: torch.dtype = torch.complex64,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Factor on the spectrum, (points, points), in the order of torch.fft.

    fresnel: exp(-i pi wavelength z f^2), as LightPipes' Forvard.
    angular_spectrum: exp(i k z (sqrt(1 - (wavelength f)^2) - 1)); evanescent
    waves decay with |z|. Made in float64; kept, so do not write into it.
    """
    f = torch.fft.fftfreq(grid.points, grid.pitch_m, dtype=torch.float64)
    # (wavelength * f)^2 is the squared sine of the angle.
    sine2 = (f * grid.wavelength_m).square()
    sine2 = sine2[:, None] + sine2
    waves = distance_m / grid.wavelength_m
    if law == "fresnel":
        turns, decay = -waves * sine2 / 2, torch.ones_like(sine2)
    else:
        cosine = (1 - sine2).clamp(min=0).sqrt()
        # cos - 1 without cancellation; evanescent waves keep no phase of their own.
        turns = torch.where(sine2 <= 1, -waves * sine2 / (1 + cosine), -waves)
        decay = torch.exp(-2 * math.pi * abs(waves) * (sine2 - 1).clamp(min=0).sqrt())
    phase = 2 * math.pi * (turns - turns.round())
    return torch.polar(decay, phase).to(dtype).to(device)
