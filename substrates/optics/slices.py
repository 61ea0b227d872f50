"""The inside of a multislice medium: its planes, and the walk from one to the next."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from substrates.optics.propagation import padded_grid, step, step_, transfer
from substrates.optics.screens import (
    MultisliceTable,
    camera_samples,
    grid_of,
    macropixels,
    phase_screens,
    require_valid_medium,
)
from twin.errors import ConfigError, DriveError
from twin.key import Key

FIELDS_AT_ONCE = 4
"""Fields propagated together; more fall out of the processor's cache."""


class Slices:
    """The screens and the free space of one medium, ready to be walked through.

    screens_rad: (slices, points, points), drawn from the key by default.
    """

    def __init__(
        self,
        table: MultisliceTable,
        key: Key,
        dtype: torch.dtype = torch.complex64,
        device: torch.device | str = "cpu",
        screens_rad: Tensor | None = None,
    ) -> None:
        require_valid_medium(table)
        rad = phase_screens(table, key) if screens_rad is None else screens_rad
        rad = require_screens(rad, table).to(torch.float64)
        self._factors = torch.polar(torch.ones_like(rad), rad).to(dtype).to(device)
        self._table = table
        self._device = torch.device(device)

    def empty(self, rows: int, width: int) -> Tensor:
        """Room for (rows, width) values of the fields' dtype, where they are."""
        return torch.empty((rows, width), dtype=self._factors.dtype, device=self._device)

    def through(self, field: Tensor) -> Tensor:
        """Field in the plane of the camera, (batch, points, points), as `field`.

        In each slice: free space, then the screen, then the Kerr phase
        kerr_rad |field|^2. It is local, instantaneous, and keeps the energy.
        """
        table = self._table
        wide = padded_grid(grid_of(table), table.padding)
        between, last = (
            transfer(wide, distance_m, table.law, field.dtype, self._device)
            for distance_m in (table.slice_distance_m, table.camera_distance_m)
        )
        spectrum = torch.empty_like(field)

        def free(field: Tensor, factor: Tensor) -> Tensor:
            if table.padding > 1:
                return step(field, factor, table.padding)
            return step_(field, factor, spectrum)

        field = field.clone(memory_format=torch.contiguous_format)
        for screen in self._factors:
            field = free(field, between)
            field *= screen
            if table.kerr_rad != 0:
                turned = (field.real.square() + field.imag.square()) * table.kerr_rad
                field *= torch.polar(torch.ones_like(turned), turned)
        return free(field, last)


class Ends:
    """Where light enters and leaves: macropixels and camera pixels on the grid.

    steady: the last channel is unmodulated light, as medium.with_unmodulated
    adds it: a plane wave over all macropixels.
    """

    def __init__(
        self,
        table: MultisliceTable,
        channels: int,
        pixels: int,
        device: torch.device | str = "cpu",
        steady: bool = False,
    ) -> None:
        inputs = channels - steady
        self._owner = macropixels(table, inputs).to(device)
        self._samples = camera_samples(table, pixels).to(device)
        each = int((self._owner == 0).sum())
        # Unit light on all channels then has a mean intensity of 1 on the grid.
        self._amplitude = table.grid_points / math.sqrt(channels * each)
        self._share = 1 / math.sqrt(inputs) if steady else None
        self.channels, self.pixels = channels, pixels

    def shown(self, light: Tensor) -> Tensor:
        """Field on the grid, (batch, points, points), for light (batch, channels)."""
        if light.ndim != 2 or light.shape[1] != self.channels:
            raise DriveError(
                f"medium: light has shape {tuple(light.shape)}, expected (batch, {self.channels})."
            )
        if self._share is not None:
            light = light[:, :-1] + light[:, -1:] * self._share
        # Samples that belong to no macropixel (-1) take the last column: dark.
        dark = torch.nn.functional.pad(light * self._amplitude, (0, 1))
        return dark[:, self._owner]

    def seen(self, field: Tensor) -> Tensor:
        """(batch, pixels) of a field (batch, points, points)."""
        return field.flatten(-2)[:, self._samples]


def columns(slices: Slices, ends: Ends, which: range) -> Tensor:
    """Fields on the camera of single macropixels, (len(which), pixels)."""
    out = slices.empty(len(which), ends.pixels)
    for start in range(0, len(which), FIELDS_AT_ONCE):
        few = which[start : start + FIELDS_AT_ONCE]
        light = slices.empty(len(few), ends.channels).zero_()
        light[range(len(few)), few] = 1
        out[start : start + len(few)] = ends.seen(slices.through(ends.shown(light)))
    return out


def require_screens(rad: Tensor, table: MultisliceTable) -> Tensor:
    """The screens, or ConfigError if their shape or a value cannot be used."""
    wanted = (table.slices, table.grid_points, table.grid_points)
    if tuple(rad.shape) != wanted:
        raise ConfigError(f"medium: screens have shape {tuple(rad.shape)}, expected {wanted}.")
    if rad.is_complex() or not bool(torch.isfinite(rad).all()):
        raise ConfigError("medium: screens are phases, rad, real and finite. Clean the input.")
    return rad
