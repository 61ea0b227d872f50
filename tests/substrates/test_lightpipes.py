"""LightPipes takes samples through the same medium and finds the same light."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from substrates.optics.lightpipes import LightPipesMedium, contained, fresnel, require_supported
from substrates.optics.multislice import transmission_matrix
from substrates.optics.propagation import Grid, propagated
from substrates.optics.reacting import ReactingMedium
from substrates.optics.screens import MultisliceTable, phase_screens
from twin.errors import ConfigError, DriveError, ProcessStateError
from twin.key import Key

SMALL = MultisliceTable(grid_points=64, slices=4, slice_distance_m=8e-3, camera_distance_m=8e-3)


@pytest.mark.parametrize("points", [64, 128, 256])
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32), slices=st.integers(1, 6))
def test_both_walk_through_the_slices_alike(points: int, seed: int, slices: int) -> None:
    table = dataclasses.replace(SMALL, grid_points=points, slices=slices)
    key, light = Key(seed), torch.zeros((1, 16), dtype=torch.complex128)
    light[0] = torch.polar(torch.ones(16), torch.rand(16, generator=Key(seed).torch())).to(light)
    screens = phase_screens(table, key)
    theirs = LightPipesMedium(table, 16, 64, screens)
    expected = theirs.fields(light)
    for dtype, bound in ((torch.complex128, 1e-8), (torch.complex64, 2e-6)):
        ours = ReactingMedium(table, 16, 64, key, dtype=dtype).transmit(light, 0.0, 0.0)
        ours = ours.to(torch.complex128)
        turn = torch.vdot(ours.flatten(), expected.flatten())
        gap = (ours * turn / turn.abs() - expected).norm() / expected.norm()
        assert float(gap) <= bound


def test_its_light_is_that_of_the_matrix() -> None:
    screens = phase_screens(SMALL, Key(1))
    matrix = transmission_matrix(SMALL, 9, 100, Key(1), cache=False)
    light = torch.polar(torch.ones(3, 9), torch.rand(3, 9, generator=Key(2).torch()))
    theirs = LightPipesMedium(SMALL, 9, 100, screens).transmit(light, 0.0, 0.0)
    assert theirs.dtype == torch.complex64
    ours = light @ matrix.t()
    for a, b in zip(ours, theirs, strict=True):
        assert float((a.abs() - b.abs()).norm() / b.norm()) < 3e-6


def test_the_users_own_screens_are_what_light_passes() -> None:
    own = torch.zeros((4, 64, 64), dtype=torch.float64)
    light = torch.ones((1, 1), dtype=torch.complex64)
    clear = LightPipesMedium(SMALL, 1, 64, own).transmit(light, 0.0, 0.0)
    assert float((clear.abs() - 1).abs().max()) < 1e-6
    own[0] = torch.rand((64, 64), generator=Key(3).torch(), dtype=torch.float64) * 6.28
    assert float(LightPipesMedium(SMALL, 1, 64, own).transmit(light, 0, 0).abs().std()) > 0.2


@pytest.mark.parametrize("points", [33, 65, 257])
def test_odd_grids_are_refused(points: int) -> None:
    grid = Grid(points=points, pitch_m=8e-6, wavelength_m=532e-9)
    with pytest.raises(ConfigError, match=f"{points} points, expected an even"):
        fresnel(torch.ones((points, points), dtype=torch.complex128), grid, 1e-3)
    table = dataclasses.replace(SMALL, grid_points=points)
    with pytest.raises(ConfigError, match="even"):
        LightPipesMedium(table, 4, 16, phase_screens(table, Key(1)))


def test_forvard_is_wrong_on_odd_grids_which_is_why() -> None:
    import LightPipes

    grid = Grid(points=65, pitch_m=8e-6, wavelength_m=532e-9)
    at = (torch.arange(65, dtype=torch.float64) - 32) / 8
    beam = torch.exp(-(at[:, None].square() + at.square())).to(torch.complex128)
    field = LightPipes.Begin(grid.width_m, grid.wavelength_m, 65)
    field.field = beam.numpy().copy()
    theirs = torch.from_numpy(LightPipes.Forvard(field, 5e-3).field).abs()
    ours = propagated(beam, grid, 5e-3).abs()
    assert float((theirs - ours).norm() / ours.norm()) > 0.05


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grid_points": 1024}, "<= 512"),
        ({"law": "angular_spectrum"}, "paraxial"),
        ({"padding": 2}, "periodic"),
        ({"kerr_rad": 0.1}, "react"),
        ({"normalisation": "unit"}, "energy"),
    ],
)
def test_what_it_cannot_do_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        require_supported(dataclasses.replace(SMALL, **changes))


def test_bad_screens_and_light_are_refused() -> None:
    screens = phase_screens(SMALL, Key(1))
    with pytest.raises(ConfigError, match="shape"):
        LightPipesMedium(SMALL, 4, 16, screens[:2])
    screens[1, 2, 3] = float("nan")
    with pytest.raises(ConfigError, match="finite"):
        LightPipesMedium(SMALL, 4, 16, screens)
    medium = LightPipesMedium(SMALL, 4, 16, phase_screens(SMALL, Key(1)))
    with pytest.raises(DriveError, match="expected \\(batch, 4\\)"):
        medium.transmit(torch.ones((2, 5), dtype=torch.complex64), 0.0, 0.0)


def test_the_process_random_state_is_left_alone_and_watched() -> None:
    before = np.random.get_state(legacy=False)  # noqa: NPY002
    ours = torch.get_rng_state()
    medium = LightPipesMedium(SMALL, 4, 16, phase_screens(SMALL, Key(1)))
    medium.transmit(torch.ones((2, 4), dtype=torch.complex64), 0.0, 0.0)
    after = np.random.get_state(legacy=False)  # noqa: NPY002
    assert np.array_equal(before["state"]["key"], after["state"]["key"])
    assert before["state"]["pos"] == after["state"]["pos"]
    assert torch.equal(ours, torch.get_rng_state())
    bit_generator = np.random.mtrand._rand._bit_generator
    with pytest.raises(ProcessStateError, match="Key"), contained():
        np.random.random()  # noqa: NPY002
    bit_generator.state = before


def test_lightpipes_is_imported_only_when_used() -> None:
    code = "import sys, substrates.optics.lightpipes; assert 'LightPipes' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
