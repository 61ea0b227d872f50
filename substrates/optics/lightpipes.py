"""LightPipes as an independent judge, and as a reference path sample by sample.

One field at a time, on even grids only. It is imported when first used.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from substrates.optics.propagation import Grid, require_field
from substrates.optics.reacting import in_parts, require_energy
from substrates.optics.screens import MultisliceTable, grid_of, require_valid_medium
from substrates.optics.slices import Ends, require_screens
from twin.errors import ConfigError, ProcessStateError, Unsupported

MAX_POINTS = 512
"""Largest grid of a medium: a sample takes seconds beyond it."""


def fresnel(field: Tensor, grid: Grid, distance_m: float) -> Tensor:
    """`field`, (points, points), after `distance_m` by LightPipes' Forvard.

    Periodic, paraxial; equals propagation.propagated up to one global phase.
    dtype as the field's. ConfigError on an odd grid.
    """
    return torch.from_numpy(forvard(begin(field, grid), distance_m).field)


def begin(field: Tensor, grid: Grid) -> Any:
    """LightPipes' Field with these values, (points, points), in their dtype."""
    if grid.points % 2 or grid.points < 2:
        raise ConfigError(
            f"lightpipes: the grid has {grid.points} points, expected an even number: Forvard is "
            f"wrong on odd grids (43 % off an analytic beam at 257). Take {grid.points + 1}."
        )
    require_field(field, grid)
    values = field.detach().cpu().numpy()
    with contained():
        made = _library().Begin(grid.width_m, grid.wavelength_m, grid.points, values.dtype.type)
    made.field = values.copy()  # LightPipes keeps what it is given
    return made


def forvard(field: Any, distance_m: float) -> Any:
    """LightPipes' Forvard on a Field from :func:`begin`."""
    if not math.isfinite(distance_m):
        raise ConfigError(f"lightpipes: a distance must be finite, got {distance_m} m.")
    return _library().Forvard(field, distance_m)


class LightPipesMedium:
    """A multislice medium in which LightPipes takes each sample through the slices.

    Same macropixels, slices, camera and scale as multislice.MultisliceMedium,
    in complex128. screens_rad: (slices, points, points), rad, the user's own
    or screens.phase_screens. steady: see slices.Ends. LightPipes' RandomPhase
    is not used: it reseeds numpy's global generator, and its screens span half
    of the circle by default.
    """

    static = True

    def __init__(
        self,
        table: MultisliceTable,
        channels: int,
        pixels: int,
        screens_rad: Tensor,
        steady: bool = False,
    ) -> None:
        require_supported(table)
        require_valid_medium(table)
        self._screens = require_screens(screens_rad, table).double().cpu().numpy()
        self._table, self._grid = table, grid_of(table)
        self._ends = Ends(table, channels, pixels, steady=steady)

    def transmit(self, light: Tensor, clock_s: float, frame_s: float) -> Tensor:  # noqa: ARG002
        """Fields on the camera, (batch, pixels), complex64; see Medium."""
        return self.fields(light).to(torch.complex64).to(light.device)

    def fields(self, light: Tensor) -> Tensor:
        """The same for light (batch, channels) of any precision, complex128, on the CPU."""
        return in_parts(light.cpu().to(torch.complex128), self._few)

    def _few(self, light: Tensor) -> Tensor:
        with contained():
            through = [self._through(field) for field in self._ends.shown(light)]
        return self._ends.seen(torch.stack(through))

    def _through(self, field: Tensor) -> Tensor:
        library, passing = _library(), begin(field, self._grid)
        for rad in self._screens:
            passing = library.Forvard(passing, self._table.slice_distance_m)
            passing = library.MultPhase(passing, rad)
        return torch.from_numpy(library.Forvard(passing, self._table.camera_distance_m).field)


def require_supported(table: MultisliceTable) -> None:
    """ConfigError for what this path cannot do, with what it can."""
    require_energy(table, "LightPipesMedium")
    limits = (
        ("grid_points", table.grid_points % 2 == 0, "even"),
        ("grid_points", table.grid_points <= MAX_POINTS, f"<= {MAX_POINTS}"),
        ("law", table.law == "fresnel", "'fresnel' (Forvard is paraxial)"),
        ("padding", table.padding == 1, "1 (Forvard is periodic)"),
        ("kerr_rad", table.kerr_rad == 0, "0 rad (its slices do not react)"),
    )
    for name, holds, wanted in limits:
        if not holds:
            raise ConfigError(
                f"medium: LightPipes needs {name} {wanted}, got {getattr(table, name)!r}. "
                "Change it, or use the multislice medium."
            )


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """ProcessStateError if numpy's global generator is not as it was before."""
    before = np.random.get_state(legacy=False)  # noqa: NPY002
    yield
    after = np.random.get_state(legacy=False)  # noqa: NPY002
    moved = not np.array_equal(before["state"]["key"], after["state"]["key"])
    if moved or before["state"]["pos"] != after["state"]["pos"]:
        raise ProcessStateError(
            "lightpipes: a call moved numpy's global generator. Draw screens from a Key and give "
            "them as phases instead of using LightPipes' random helpers."
        )


def _library() -> Any:
    try:
        import LightPipes
    except ImportError as error:
        raise Unsupported(
            f"lightpipes: LightPipes cannot be imported ({error}). Run: pip install LightPipes"
        ) from None
    return LightPipes
