"""What can be chosen about a medium: one table per kind, and their union.

Every medium has mean |t|^2 = 1 / channels (a multislice one: over its whole
plane, see screens), so that the mean intensity is 1.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from substrates.optics.grains import Kernel
from substrates.optics.screens import MultisliceTable
from twin.config import STRICT

Patterns = Annotated[int, Field(ge=1, le=64)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GaussianTable:
    """Independent complex Gaussian entries: pixels on different grains."""

    kind: Literal["gaussian"] = "gaussian"

    patterns: Patterns = 1
    """Independent patterns whose intensities add: 2 for unpolarised light,
    more for light of short coherence. Contrast 1 / sqrt(patterns)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GrainsTable:
    """Gaussian entries, correlated between neighbouring camera pixels."""

    kind: Literal["grains"] = "grains"

    pixels_per_grain: Annotated[float, Field(gt=0, le=64)] = 2.0
    """wavelength * distance / (aperture's diameter), in pixels: below 1 the
    pixels average grains, far above neighbours tell the same."""

    kernel: Kernel = "airy"
    """"airy": round aperture. "gaussian": Gaussian beam of the same curvature."""

    camera_rows: Annotated[int, Field(ge=1)] = 1
    """Rows of the camera; it has pixels / camera_rows columns. 1: a line of pixels."""

    points_per_pixel: Annotated[int, Field(ge=1, le=8)] = 1
    """Points along each side of a pixel whose intensities it adds up (1: the
    field at its centre). The integral over a pixel of even response needs
    two points per grain or more."""

    patterns: Patterns = 1
    """Independent patterns whose intensities add."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MarchenkoPasturTable:
    """Singular values at the quantiles of the Marchenko-Pastur law, unitaries random."""

    kind: Literal["marchenko-pastur"] = "marchenko-pastur"

    patterns: Patterns = 1
    """Independent patterns whose intensities add."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BimodalTable:
    """A part of the matrix of a lossless diffusive slab, whose transmissions are bimodal.

    The filtered random matrix of Goetschy and Stone (arXiv 1304.5562): random
    unitaries, bimodal singular values, rows and columns left out. The slab has
    channels / controlled_fraction modes on each side, the camera sees `pixels` of them.
    """

    kind: Literal["bimodal"] = "bimodal"

    mean_transmission: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Mean transmission of the slab, about mean free path over thickness. It
    shapes the singular values; light is scaled to mean intensity 1 as always."""

    controlled_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Modes of the slab that the light's channels are, of all of them. 1 gives
    the whole bimodal law, small fractions the Marchenko-Pastur law."""

    patterns: Patterns = 1
    """Independent patterns whose intensities add."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FileTable:
    """A measured matrix."""

    path: str
    """.npy, .npz or netCDF (.nc) file: complex (pixels, channels), or
    (patterns, pixels, channels)."""

    kind: Literal["file"] = "file"

    name: str | None = None
    """Which array of the file; may be left out where there is one."""

    normalise: bool = True
    """Scale to mean |t|^2 = 1 / channels, so that the mean intensity is 1."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SlabTable(MultisliceTable):
    """Random phase screens with free space between them (see screens)."""

    kind: Literal["multislice"] = "multislice"

    patterns: Patterns = 1
    """Independent slabs whose intensities add."""


MediumTable = Annotated[
    GaussianTable | GrainsTable | MarchenkoPasturTable | BimodalTable | FileTable | SlabTable,
    Field(discriminator="kind"),
]
"""One of the tables above; `kind` says which."""
