"""The ladder of media: from a table to a Medium.

independent Gaussian -> prescribed singular values -> correlated grains ->
multislice -> measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from substrates.optics.grains import Grains
from substrates.optics.matrixfile import measured_matrix
from substrates.optics.medium import (
    GaussianMedium,
    MatrixMedium,
    Medium,
    White,
    gaussian_matrix,
)
from substrates.optics.mediumtable import (
    BimodalTable,
    FileTable,
    GaussianTable,
    GrainsTable,
    MarchenkoPasturTable,
    MediumTable,
    SlabTable,
)
from substrates.optics.multislice import transmission_matrix, with_steady
from substrates.optics.reacting import ReactingMedium
from substrates.optics.spectra import between_unitaries, bimodal, marchenko_pastur
from substrates.optics.white import white_noise
from twin.errors import ConfigError
from twin.key import Key

__all__ = [
    "BimodalTable",
    "FileTable",
    "GaussianTable",
    "GrainsTable",
    "MarchenkoPasturTable",
    "MediumTable",
    "SlabTable",
    "contrast_of",
    "effective_outputs_of",
    "grains_of",
    "make_medium",
    "swapped_medium",
]

MAX_MODES = 8192
"""Largest side of a random unitary matrix: its QR takes minutes beyond."""


def make_medium(
    table: MediumTable,
    channels: int,
    pixels: int,
    key: Key,
    device: torch.device | str = "cpu",
    steady: bool = False,
) -> Medium:
    """The medium of a table for light of `channels` values and a camera of `pixels`.

    key: of the device, fixes what is random. steady: the last channel is
    unmodulated light (see medium.with_unmodulated), for a multislice medium a
    plane wave. Raises ConfigError or DataError where table and sizes disagree.
    """
    match table:
        case GaussianTable(patterns=1):
            return GaussianMedium(channels, pixels, key, device)
        case SlabTable() if table.kerr_rad != 0:
            return _reacting(table, channels, pixels, key, device, steady)
        case FileTable():
            path = Path(table.path)
            matrix = measured_matrix(path, channels, pixels, table.name, table.normalise)
            return MatrixMedium(matrix.to(device))
        case GrainsTable():
            return _grainy(table, channels, pixels, key, device)
    draw = _drawing(table, channels, pixels, steady)
    return MatrixMedium(_stacked(draw, table.patterns, key).to(device))


def swapped_medium(
    table: MediumTable,
    channels: int,
    pixels: int,
    key: Key,
    device: torch.device | str = "cpu",
    steady: bool = False,
    other: int = 1,
) -> Medium:
    """The medium of another device of the same kind: a fault, as when a sample is changed.

    other: which one; 0 is the device's own. A measured matrix has no second.
    """
    if isinstance(table, FileTable):
        raise ConfigError(
            f"medium: the matrix in {table.path!r} was measured on one device and cannot be "
            "swapped for another. Give the other device's file."
        )
    own = key if other == 0 else key.child("swapped", other)
    return make_medium(table, channels, pixels, own, device, steady)


def grains_of(table: GrainsTable, pixels: int) -> Grains:
    """The grains on a camera of `pixels`. ConfigError where its rows do not fit."""
    if pixels % table.camera_rows:
        raise ConfigError(
            f"medium: {pixels} pixels do not form {table.camera_rows} rows. Choose camera_rows "
            f"among the divisors of {pixels}."
        )
    camera = (table.camera_rows, pixels // table.camera_rows)
    return Grains(camera, table.pixels_per_grain, table.kernel, table.points_per_pixel)


def effective_outputs_of(table: MediumTable, channels: int, pixels: int) -> float:
    """Independent outputs that `pixels` are worth, from the table alone.

    (tr C)^2 / tr C^2 of the covariance C of the intensities over light of
    independent phases: 1 / (1 / grains + (1 + 1 / patterns) / channels^2); the
    second term is the chance overlap of two pixels' rows. (For multislice and measured
    media an upper bound; ask grains.effective_outputs of frames.)
    """
    grains = float(pixels)
    if isinstance(table, GrainsTable):
        grains = grains_of(table, pixels).effective_outputs()
    patterns = 1 if isinstance(table, FileTable) else table.patterns
    return 1 / (1 / grains + (1 + 1 / patterns) / channels**2)


def contrast_of(table: MediumTable, pixels: int) -> float | None:
    """Contrast of the speckle, from the table alone; None for a measured matrix.

    1 / sqrt(patterns), times that of the grains inside a pixel.
    """
    if isinstance(table, FileTable):
        return None
    inside = grains_of(table, pixels).contrast() if isinstance(table, GrainsTable) else 1.0
    return inside / math.sqrt(table.patterns)


def _grainy(
    table: GrainsTable, channels: int, pixels: int, key: Key, device: torch.device | str
) -> MatrixMedium:
    grains = grains_of(table, pixels)

    def redraw(white: White) -> Tensor:
        drawn = [grains.draw(channels, white) for _ in range(table.patterns)]
        if len(drawn) == 1:
            return drawn[0]
        return torch.stack(drawn) if drawn[0].ndim == 2 else torch.cat(drawn)

    return MatrixMedium(redraw(white_noise(key)).to(device), redraw)


def _reacting(
    table: SlabTable,
    channels: int,
    pixels: int,
    key: Key,
    device: torch.device | str,
    steady: bool,
) -> ReactingMedium:
    if table.patterns != 1 or steady:
        raise ConfigError(
            f"medium: a slab that reacts to the light (kerr_rad = {table.kerr_rad:g} rad) takes "
            f"patterns = 1 and no unmodulated light, got patterns = {table.patterns}. Use "
            "kerr_rad = 0."
        )
    return ReactingMedium(table, channels, pixels, key, device)


def _drawing(
    table: GaussianTable | MarchenkoPasturTable | BimodalTable | SlabTable,
    channels: int,
    pixels: int,
    steady: bool,
) -> Callable[[Key], Tensor]:
    """How one pattern's matrix, (pixels, channels), is drawn from a key."""
    match table:
        case GaussianTable():
            return lambda key: gaussian_matrix(pixels, channels, key)
        case MarchenkoPasturTable():
            short, long = sorted((pixels, channels))
            _require_modes(long)
            squared = marchenko_pastur(short, short / long)
            return lambda key: _spectral(squared, pixels, channels, key)
        case BimodalTable():
            squared = bimodal(_modes(table, channels, pixels), table.mean_transmission)
            return lambda key: _spectral(squared, pixels, channels, key)

    def slab(key: Key) -> Tensor:
        matrix = transmission_matrix(table, channels - steady, pixels, key)
        return with_steady(matrix) if steady else matrix

    return slab


def _stacked(draw: Callable[[Key], Tensor], patterns: int, key: Key) -> Tensor:
    if patterns == 1:
        return draw(key)
    return torch.stack([draw(key.child("pattern", n)) for n in range(patterns)])


def _spectral(squared: np.ndarray, pixels: int, channels: int, key: Key) -> Tensor:
    """A matrix whose uncut squared singular values are in proportion to `squared`."""
    rows, columns = max(pixels, len(squared)), max(channels, len(squared))
    # Each of rows * columns entries carries sum / (rows * columns) before the cut.
    scale = rows * columns / (channels * squared.sum())
    return between_unitaries(np.sqrt(squared * scale), pixels, channels, key)


def _modes(table: BimodalTable, channels: int, pixels: int) -> int:
    modes = round(channels / table.controlled_fraction)
    if pixels > modes:
        raise ConfigError(
            f"medium: {channels} channels at controlled_fraction = {table.controlled_fraction:g} "
            f"make a slab of {modes} modes, fewer than the {pixels} pixels. Use "
            f"controlled_fraction <= {channels / pixels:.3g}, or fewer pixels."
        )
    _require_modes(modes)
    return modes


def _require_modes(modes: int) -> None:
    if modes > MAX_MODES:
        raise ConfigError(
            f"medium: random unitaries of {modes} modes exceed {MAX_MODES}. Use fewer channels "
            "or pixels, a larger controlled_fraction, or kind = 'gaussian'."
        )
