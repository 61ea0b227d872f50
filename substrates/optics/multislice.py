"""A multislice medium as its matrix, made once by propagation and kept.

A field is dimensionless; see MultisliceTable.normalisation for its scale.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from substrates.optics import matrixcache, propagation, screens, slices
from substrates.optics.screens import MultisliceTable, require_valid_medium
from substrates.optics.slices import Ends, Slices, columns
from twin.errors import ConfigError
from twin.key import Key

SOURCES = tuple(Path(str(m.__file__)) for m in (propagation, screens, slices))
"""The code that a matrix depends on, besides this file."""


def transmission_matrix(
    table: MultisliceTable,
    channels: int,
    pixels: int,
    key: Key,
    *,
    screens_rad: Tensor | None = None,
    dtype: torch.dtype = torch.complex64,
    device: torch.device | str = "cpu",
    cache: bool = True,
) -> Tensor:
    """(pixels, channels): the field of each macropixel, taken through all slices.

    key: of the device, fixes the screens unless they are given. Kept on disk
    (see matrixcache) unless the screens are given. ConfigError if the medium
    reacts to the light, is sampled too coarsely, or does not fit its grid.
    """
    if table.kerr_rad != 0:
        raise ConfigError(
            f"medium: with kerr_rad = {table.kerr_rad:g} rad the medium reacts to the light and "
            "has no matrix. Use ReactingMedium, or kerr_rad = 0."
        )
    require_valid_medium(table)
    make = partial(_made, table, channels, pixels, key, screens_rad, dtype, device)
    if screens_rad is not None or not cache:
        return make()
    name = matrix_name(table, channels, pixels, key, dtype, torch.device(device).type)
    return matrixcache.cached(name, lambda: make().cpu()).to(device)


def matrix_name(
    table: MultisliceTable, channels: int, pixels: int, key: Key, dtype: torch.dtype, where: str
) -> str:
    """What the matrix is kept under: everything that it depends on."""
    question = matrixcache.told(
        table=dataclasses.asdict(table),
        channels=channels,
        pixels=pixels,
        key=key.entropy(),
        dtype=str(dtype),
        where=where,
    )
    return matrixcache.content_key(question, (*SOURCES, Path(__file__)))


def _made(
    table: MultisliceTable,
    channels: int,
    pixels: int,
    key: Key,
    screens_rad: Tensor | None,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Tensor:
    walk = Slices(table, key, dtype, device, screens_rad)
    made = columns(walk, Ends(table, channels, pixels, device), range(channels))
    if table.normalisation == "unit":
        power = made.abs().square().mean(dtype=torch.float64)
        made *= 1 / torch.sqrt(power * channels).item()
    return made.t().contiguous()


class MultisliceMedium:
    """A multislice medium as its matrix: one product per batch.

    steady: the last channel is unmodulated light, as medium.with_unmodulated
    adds it: a plane wave over all macropixels, the sum of their columns.
    """

    static = True

    def __init__(
        self,
        table: MultisliceTable,
        channels: int,
        pixels: int,
        key: Key,
        device: torch.device | str = "cpu",
        steady: bool = False,
    ) -> None:
        inputs = channels - steady
        matrix = transmission_matrix(table, inputs, pixels, key)
        self.matrix = (with_steady(matrix) if steady else matrix).to(device)

    def transmit(self, light: Tensor, clock_s: float, frame_s: float) -> Tensor:  # noqa: ARG002
        return light @ self.matrix.t()

    def matrix_at(self, time_s: float) -> Tensor:  # noqa: ARG002
        """(pixels, channels), complex64; the same at all times."""
        return self.matrix


def with_steady(matrix: Tensor) -> Tensor:
    """`matrix`, (pixels, inputs), with a last column for unmodulated light.

    That of a plane wave over all macropixels. All columns are scaled from mean
    |t|^2 = 1 / inputs to 1 / (inputs + 1).
    """
    inputs = matrix.shape[1]
    plane = matrix.sum(1, keepdim=True) / math.sqrt(inputs)
    return torch.cat([matrix, plane], 1) * math.sqrt(inputs / (inputs + 1))
