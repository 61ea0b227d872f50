"""What every reproduced figure has: parts to compute, a drawing, a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import xarray as xr
from matplotlib.figure import Figure as Picture

from validation.reproduce.parts import Part
from validation.summary import Figure


@dataclass(frozen=True, kw_only=True)
class Request:
    """How a figure is wanted.

    quick: minutes on two cores: fewer images, seeds or steps; the picture
    says so. seeds: how many, None for the figure's own number. data: folder
    with IDX files.
    """

    quick: bool = False
    seeds: int | None = None
    data: Path | None = None

    def seeds_or(self, full: int, quick: int) -> range:
        """The seeds of the runs."""
        return range(self.seeds or (quick if self.quick else full))

    @property
    def folder(self) -> str | None:
        """The data folder as an argument of parts."""
        return None if self.data is None else str(self.data.resolve())


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What came of it.

    data: everything shown, with units and named dimensions. picture: near the
    paper's layout. figures: with bounds (of a full run; a quick one has its
    own or none). verdict: a sentence or three on what matched the paper and
    what did not.
    """

    data: xr.Dataset
    picture: Picture
    figures: Sequence[Figure]
    verdict: str
    extra: Mapping[str, Any] = field(default_factory=dict)


class Reproduction(Protocol):
    """A figure that can be made again; a module of this package is one.

    ABOUT: one line for the list of figures.
    """

    ABOUT: str

    def parts(self, request: Request) -> list[Part]: ...

    def drawn(self, found: Mapping[str, xr.Dataset], request: Request) -> Drawing: ...
