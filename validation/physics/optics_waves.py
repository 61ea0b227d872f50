"""Laws of free space and of the multislice medium, with LightPipes as the judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from substrates.optics import lightpipes
from substrates.optics.multislice import Slices, transmission_matrix
from substrates.optics.propagation import Allowed, Grid, propagated, transfer
from substrates.optics.screens import MultisliceTable, grid_of, phase_screens
from twin.errors import ConfigError, Unsupported
from twin.key import Key
from validation.certify.certificate import jackknifed
from validation.physics.estimates import Estimate
from validation.physics.law import Check, Effort, Outcome, Skipped, held
from validation.physics.optics_speckle import random_light
from validation.physics.resolved import resolved

EVERYTHING: tuple[Allowed, ...] = ("sampling", "aliasing", "paraxial")
DISTANCES_M = {64: 0.02, 128: 0.1, 256: 0.5}
TOLERANCES = {torch.complex128: 1e-8, torch.complex64: 2e-6}
FORVARD = "LightPipes Forvard, modulo a phase"


def fresnel(effort: Effort) -> Iterator[Outcome]:
    """Random fields through free space: torch beside LightPipes' Forvard."""
    missing = absent()
    if missing is not None:
        yield missing
        return
    for points, distance_m in DISTANCES_M.items():
        grid = Grid(points=points, pitch_m=8e-6, wavelength_m=532e-9)
        field = random_field(points, effort.key.child(points))
        for dtype in TOLERANCES:
            ours = propagated(field.to(dtype), grid, distance_m, "fresnel", allow=EVERYTHING)
            theirs = lightpipes.fresnel(field, grid, distance_m)
            name = f"Fresnel {points} x {points}, {_bits(dtype)}, relative L2"
            yield _close(name, apart(ours, theirs), TOLERANCES[dtype], FORVARD, points**2)
    odd = replace(grid, points=65)
    refused = raises(lambda: lightpipes.fresnel(random_field(65, effort.key), odd, 0.1))
    yield held("odd grids refused for LightPipes", refused, "Forvard is wrong there by 43 %")


def multislice(effort: Effort) -> Iterator[Outcome]:
    """Random screens and free space: torch beside a loop of Forvard."""
    missing = absent()
    if missing is not None:
        yield missing
        return
    for points in (64, 128, 256) if not effort.quick else (64, 128):
        table = MultisliceTable(grid_points=points, slices=6, allow=EVERYTHING)
        screens = phase_screens(table, effort.key.child(points))
        field = random_field(points, effort.key.child("light", points))
        theirs = _looped(field, table, screens)
        for dtype in TOLERANCES:
            slices = Slices(table, effort.key, dtype, screens_rad=screens)
            ours = slices.through(field.to(dtype)[None])[0]
            name = f"multislice {points} x {points}, {_bits(dtype)}, relative L2"
            yield _close(name, apart(ours, theirs), TOLERANCES[dtype], FORVARD, points**2)


def energy(effort: Effort) -> Iterator[Outcome]:
    """Free space keeps the energy, and z then -z gives the field back."""
    grid = Grid(points=128, pitch_m=8e-6, wavelength_m=532e-9)
    field = random_field(128, effort.key).to(torch.complex64)
    # The angular spectrum of a grid coarser than the wavelength has no evanescent waves.
    for law in ("fresnel", "angular_spectrum"):
        there = propagated(field, grid, 0.05, law, allow=EVERYTHING)
        back = propagated(there, grid, -0.05, law, allow=EVERYTHING)
        lost = (power(there) / power(field)) - 1
        yield _close(
            f"{law}, energy after 50 mm - 1, complex64", abs(lost), 1e-6, "unitary", 128**2
        )
        name = f"{law}, z then -z, complex64, relative L2"
        yield _close(name, (back - field).norm() / field.norm(), 2e-6, "unitary", 128**2)
    table = MultisliceTable(grid_points=128, slices=8, allow=EVERYTHING)
    out = Slices(table, effort.key).through(field[None])[0]
    lost = (power(out) / power(field)) - 1
    yield _close("multislice, energy after 8 slices - 1", abs(lost), 1e-6, "unitary", 128**2)


def beams(effort: Effort) -> Iterator[Outcome]:  # noqa: ARG001
    """A Gaussian beam beside its closed form; Fresnel's phase error beside k z theta^4 / 8."""
    grid = Grid(points=256, pitch_m=8e-6, wavelength_m=532e-9)
    waist_m, distance_m = 150e-6, 0.1
    at = (torch.arange(256, dtype=torch.float64) - 128) * grid.pitch_m
    radius2 = at.square()[:, None] + at.square()
    start = torch.exp(-radius2 / waist_m**2).to(torch.complex128)
    ours = propagated(start, grid, distance_m, "fresnel", allow=EVERYTHING)
    rayleigh_m = math.pi * waist_m**2 / grid.wavelength_m
    # exp(-r^2 / (w0^2 (1 + i z / zR))) / (1 + i z / zR), with our sign of time.
    spread = torch.complex(torch.tensor(1.0), torch.tensor(distance_m / rayleigh_m)).to(start.dtype)
    closed = torch.exp(-radius2 / waist_m**2 / spread) / spread
    name = "Gaussian beam after 100 mm, relative L2"
    yield _close(name, (ours - closed).norm() / closed.norm(), 1e-6, "closed form", 256**2)
    for index in (32, 64):
        factors = [transfer(grid, distance_m, law, torch.complex128) for law in
                   ("angular_spectrum", "fresnel")]  # fmt: skip
        found = (factors[0][0, index] / factors[1][0, index]).angle().abs().item()
        sine = index / grid.width_m * grid.wavelength_m
        law = 2 * math.pi / grid.wavelength_m * distance_m * sine**4 / 8
        yield Check(
            name=f"Fresnel's phase error at {1e3 * sine:.1f} mrad",
            measured=found,
            expected=law,
            tolerance=0.01 * law,
            source="k z theta^4 / 8",
            unit="rad",
        )
    steep = Grid(points=64, pitch_m=1e-6, wavelength_m=532e-9)
    field = torch.ones((64, 64), dtype=torch.complex64)
    refused = raises(lambda: propagated(field, steep, 1e-3, "fresnel", allow=("aliasing",)))
    yield held("paraxiality violation refused", refused, "k z theta^4 / 8 = 7.4 rad")


def slab_speckle(effort: Effort) -> Iterator[Outcome]:
    """Eight screens: fully developed speckle, and the same power as came in."""
    table = MultisliceTable(grid_points=128)
    media, channels, pixels = effort.n(12, 10), 64, 1024
    frames = []
    for i in range(media):
        key = effort.key.child(i)
        matrix = transmission_matrix(table, channels, pixels, key, cache=False)
        # On [0, pi] the light has a mean field, which weak screens would let through.
        light = random_light(32, channels, key.child("light"))
        frames.append((light @ matrix.T).abs().square().double())
    # Pixels of all media side by side: the units that are left out in turn.
    seen = torch.cat(frames, 1)
    n = seen.shape[1]
    for name, statistic, law, tolerance, source in (
        ("multislice, mean intensity", _mean, 1.0, 0.03, "unit power"),
        ("multislice, speckle contrast", _contrast, 1.0, 0.03, "Goodman 1976"),
        ("multislice, P(I > 3 <I>)", _tail, math.exp(-3), 0.1 * math.exp(-3), "exp(-3)"),
    ):
        value, error = jackknifed(lambda kept, of=statistic: of(seen[:, kept]), n)  # type: ignore[misc]
        yield resolved(name, Estimate(value, error, seen.numel()), law, tolerance, source)


def absent() -> Skipped | None:
    """Why LightPipes cannot be asked, None if it can."""
    grid = Grid(points=8, pitch_m=8e-6, wavelength_m=532e-9)
    try:
        lightpipes.begin(torch.ones((8, 8), dtype=torch.complex128), grid)
    except Unsupported as error:
        return Skipped("free space against LightPipes", str(error))
    return None


def random_field(points: int, key: Key) -> Tensor:
    """Independent complex normals, (points, points), complex128: light at all angles."""
    parts = torch.randn((2, points, points), generator=key.torch(), dtype=torch.float64)
    return torch.complex(parts[0], parts[1])


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Relative L2 distance of two fields modulo one global phase."""
    a, b = ours.to(torch.complex128).flatten(), theirs.to(torch.complex128).flatten()
    overlap = torch.vdot(a, b)
    return ((a * overlap / overlap.abs() - b).norm() / b.norm()).item()


def power(field: Tensor) -> float:
    """Sum of |field|^2, in double precision."""
    return field.to(torch.complex128).abs().square().sum().item()


def raises(act: Callable[[], object]) -> bool:
    """Whether it is refused with a ConfigError."""
    try:
        act()
    except ConfigError:
        return True
    return False


def _looped(field: Tensor, table: MultisliceTable, screens_rad: Tensor) -> Tensor:
    passing = lightpipes.begin(field, grid_of(table))
    for rad in screens_rad:
        passing = lightpipes.forvard(passing, table.slice_distance_m)
        passing.field = passing.field * torch.polar(torch.ones_like(rad), rad).numpy()
    return torch.from_numpy(lightpipes.forvard(passing, table.camera_distance_m).field)


def _mean(seen: Tensor) -> float:
    return seen.mean().item()


def _contrast(seen: Tensor) -> float:
    variance, mean = seen.var(1).mean(), seen.mean(1)
    return (variance / mean.square().mean()).sqrt().item()


def _tail(seen: Tensor) -> float:
    return (seen > 3 * seen.mean(1, keepdim=True)).double().mean().item()


def _bits(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _close(name: str, found: float | Tensor, tolerance: float, source: str, n: int) -> Check:
    return Check(
        name=name, measured=float(found), expected=0.0, tolerance=tolerance, source=source, n=n
    )
