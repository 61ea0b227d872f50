"""Free space: LightPipes agrees, energy stays, the way back leads home."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from substrates.optics.lightpipes import fresnel
from substrates.optics.propagation import Grid, Law, propagated, transfer
from twin.errors import ConfigError, DriveError
from twin.key import Key

ANYTHING = ("sampling", "aliasing", "paraxial")
seeds = st.integers(0, 2**32)
distances = st.floats(1e-4, 0.5)
grids = st.builds(
    Grid,
    points=st.sampled_from([64, 128, 256]),
    pitch_m=st.floats(4e-6, 16e-6),
    wavelength_m=st.sampled_from([532e-9, 633e-9]),
)


def random_field(grid: Grid, seed: int, batch: int = 1) -> Tensor:
    """(batch, points, points), complex128: independent samples fill the band."""
    shape = (batch, grid.points, grid.points)
    parts = torch.randn((2, *shape), generator=Key(seed).torch(), dtype=torch.float64)
    return torch.complex(parts[0], parts[1])


def distance(found: Tensor, expected: Tensor) -> float:
    """Relative L2 modulo one global phase; both in complex128."""
    found, expected = found.to(torch.complex128), expected.to(torch.complex128)
    turn = torch.vdot(found.flatten(), expected.flatten())
    return float((found * (turn / turn.abs()) - expected).norm() / expected.norm())


@pytest.mark.parametrize("points", [64, 128, 256])
@settings(max_examples=12)
@given(grid=grids, z=distances, seed=seeds)
def test_lightpipes_and_we_agree_on_paraxial_free_space(
    points: int, grid: Grid, z: float, seed: int
) -> None:
    grid = replace(grid, points=points)
    field = random_field(grid, seed)
    expected = fresnel(field[0], grid, z)
    ours = propagated(field, grid, z, allow=ANYTHING)[0]
    assert distance(ours, expected) <= 1e-8
    assert float((ours.abs() ** 2 - expected.abs() ** 2).norm()) <= 1e-8 * float(
        (expected.abs() ** 2).norm()
    )
    single = propagated(field.to(torch.complex64), grid, z, allow=ANYTHING)[0]
    assert single.dtype == torch.complex64
    assert distance(single, expected) <= 2e-6


def test_the_judge_would_notice_the_other_law() -> None:
    grid = Grid(points=64, pitch_m=8e-6, wavelength_m=532e-9)
    field = random_field(grid, 1)
    ours = propagated(field, grid, 0.05, "angular_spectrum", allow=ANYTHING)[0]
    assert distance(ours, fresnel(field[0], grid, 0.05)) > 0.05


@given(grid=grids, z=distances, seed=seeds, law=st.sampled_from(["fresnel", "angular_spectrum"]))
@settings(max_examples=20)
def test_free_space_keeps_the_energy_and_the_way_back_leads_home(
    grid: Grid, z: float, seed: int, law: Law
) -> None:
    field = random_field(grid, seed, 2).to(torch.complex64)
    there = propagated(field, grid, z, law, allow=ANYTHING)
    energy = there.abs().double().square().sum() / field.abs().double().square().sum()
    assert abs(float(energy) - 1) <= 1e-6
    back = propagated(there, grid, -z, law, allow=ANYTHING)
    assert float((back - field).norm() / field.norm()) <= 2e-6


@given(grid=grids, a=distances, b=distances, seed=seeds)
@settings(max_examples=10)
def test_two_steps_are_one_long_step(grid: Grid, a: float, b: float, seed: int) -> None:
    field = random_field(grid, seed)
    twice = propagated(propagated(field, grid, a, allow=ANYTHING), grid, b, allow=ANYTHING)
    once = propagated(field, grid, a + b, allow=ANYTHING)
    assert float((twice - once).norm() / once.norm()) <= 1e-9


@given(seed=seeds, batch=st.integers(1, 7), padding=st.integers(1, 2))
@settings(max_examples=10)
def test_a_batch_is_its_fields_one_by_one(seed: int, batch: int, padding: int) -> None:
    grid = Grid(points=256, pitch_m=8e-6, wavelength_m=532e-9)
    field = random_field(grid, seed, batch)
    together = propagated(field, grid, 0.02, padding=padding)
    alone = [propagated(f, grid, 0.02, padding=padding) for f in field]
    assert float((together - torch.stack(alone)).abs().max()) <= 1e-12
    kept = field.clone()
    propagated(field, grid, 0.02, padding=padding, out=field)
    assert float((field - together).abs().max()) <= 1e-12
    assert not torch.equal(field, kept)


@pytest.mark.parametrize("points", [64, 65])
def test_a_gaussian_beam_widens_as_the_formula_says(points: int) -> None:
    # Odd grids are right here, unlike in LightPipes.
    waist_m, z, wavelength_m = 40e-6, 5e-3, 633e-9
    grid = Grid(points=points, pitch_m=10e-6, wavelength_m=wavelength_m, aperture=0.015)
    at = (torch.arange(points, dtype=torch.float64) - points // 2) * grid.pitch_m
    r2 = at[:, None].square() + at.square()
    beam = torch.exp(-r2 / waist_m**2).to(torch.complex128)
    rayleigh_m = math.pi * waist_m**2 / wavelength_m
    q_ratio = torch.complex(torch.tensor(1.0), torch.tensor(z / rayleigh_m)).to(torch.complex128)
    expected = torch.exp(-r2 / waist_m**2 / q_ratio) / q_ratio
    assert float((propagated(beam, grid, z) - expected).abs().max()) <= 1e-5


def test_the_two_laws_part_as_k_z_theta_to_the_fourth_over_eight() -> None:
    ratios = []
    for pitch_m, z in [(4e-6, 1e-3), (8e-6, 1e-2), (8e-6, 4e-2), (16e-6, 1e-1), (16e-6, 5e-1)]:
        grid = Grid(points=128, pitch_m=pitch_m, wavelength_m=532e-9)
        field = random_field(grid, 3)
        exact = propagated(field, grid, z, "angular_spectrum", allow=ANYTHING)
        paraxial = propagated(field, grid, z, allow=ANYTHING)
        gap = float((exact - paraxial).norm() / exact.norm())
        ratios.append(gap / grid.paraxial_error_rad(z))
    # In a square band (s_x^2 + s_y^2)^2 has an r.m.s. of 0.918 theta^4.
    assert all(0.87 <= ratio <= 0.94 for ratio in ratios), ratios


def test_evanescent_waves_decay_both_ways() -> None:
    grid = Grid(points=64, pitch_m=0.2e-6, wavelength_m=532e-9)
    for z in (1e-6, -1e-6):
        factor = transfer(grid, z, "angular_spectrum", torch.complex128)
        assert float(factor.abs().max()) <= 1 + 1e-12
        assert float(factor[32, 32].abs()) < 1e-6


def test_dark_padding_lets_light_leave_instead_of_coming_back() -> None:
    grid = Grid(points=64, pitch_m=8e-6, wavelength_m=532e-9)
    field = torch.zeros((64, 64), dtype=torch.complex128)
    field[:, 60:] = 1.0
    wrapped = propagated(field, grid, 5e-3)[:, :4].abs().square().sum()
    padded = propagated(field, grid, 5e-3, padding=2)[:, :4].abs().square().sum()
    assert float(padded) < 0.02 * float(wrapped)


def test_what_a_grid_cannot_carry_is_refused_with_the_number() -> None:
    coarse = Grid(points=64, pitch_m=8e-6, wavelength_m=532e-9, aperture=0.05)
    field = torch.zeros((64, 64), dtype=torch.complex64)
    with pytest.raises(ConfigError, match=r"1\.5 times\s+wavelength / \(2 NA\)"):
        propagated(field, coarse, 1e-3)
    grid = Grid(points=64, pitch_m=8e-6, wavelength_m=532e-9)
    with pytest.raises(ConfigError, match=r"6\.49 times half the grid"):
        propagated(field, grid, 0.05)
    with pytest.raises(ConfigError, match=r"k z theta\^4 / 8 = 0\.902 rad"):
        propagated(field, grid, 0.5, allow=("aliasing",))
    propagated(field, grid, 0.5, "angular_spectrum", allow=("aliasing",))
    # Four times as wide a square catches light that would wrap around.
    propagated(field, grid, 0.02, padding=4)


def test_nonsense_is_refused() -> None:
    grid = Grid(points=16, pitch_m=8e-6, wavelength_m=532e-9)
    good = torch.ones((16, 16), dtype=torch.complex64)
    bad = good.clone()
    bad.imag[3, 4] = math.nan
    for field in (good[:8], good.real, bad):
        with pytest.raises(DriveError):
            propagated(field, grid, 1e-4)
    with pytest.raises(DriveError, match="out"):
        propagated(good, grid, 1e-4, out=torch.empty((16, 16), dtype=torch.complex128))
    with pytest.raises(ConfigError, match="Did you mean 'paraxial'"):
        propagated(good, grid, 1e-4, allow=("paraxal",))
    with pytest.raises(ConfigError, match="finite"):
        propagated(good, grid, math.inf)
    with pytest.raises(ConfigError, match="padding"):
        propagated(good, grid, 1e-4, padding=0)
    wrong: tuple[dict[str, Any], ...] = (
        {"points": 0},
        {"pitch_m": -1.0},
        {"wavelength_m": math.nan},
        {"aperture": 2},
    )
    for changes in wrong:
        with pytest.raises(ConfigError, match="grid"):
            Grid(**{"points": 16, "pitch_m": 8e-6, "wavelength_m": 532e-9, **changes})
