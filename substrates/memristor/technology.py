"""A memristor technology as data: how well it writes, keeps and reads.

A technology is a TOML file (the shipped ones in technologies/, or a user's
own) whose every table names its source and valid range. SI units throughout.
"""

from __future__ import annotations

import bisect
import math
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Self

import torch
from pydantic import model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from substrates.memristor.curve import Curve, NonNegative, Positive
from substrates.memristor.laws import Programming, Relaxation
from substrates.memristor.readnoise import ReadNoise
from substrates.memristor.seconds import Seconds, log_ratio
from substrates.memristor.tables import read_table
from substrates.memristor.tails import Tails, scattered
from substrates.memristor.traits import Disturb, Endurance, Nonlinearity, Rtn
from twin.config import STRICT, build
from twin.errors import SettingError, UnknownName, nearest

__all__ = [
    "Curve",
    "Disturb",
    "Endurance",
    "Nonlinearity",
    "Programming",
    "ReadNoise",
    "Relaxation",
    "Rtn",
    "Technology",
    "load",
    "names",
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Technology:
    """One kind of cell. Tensors are of any shape, one element per cell."""

    name: str
    about: str
    source: str
    g_min_siemens: NonNegative
    """Lower end of the window to program into, siemens."""
    g_max_siemens: Positive
    """Upper end of that window, siemens."""
    low_siemens: NonNegative
    """Lower end of the targets the tables hold for, siemens."""
    high_siemens: Positive
    """Upper end, siemens."""
    programming: tuple[Programming, ...]
    """Spread after write-verify; the first is how cells leave the write."""
    relaxation: Relaxation | None = None
    read_noise: ReadNoise | None = None
    rtn: Rtn | None = None
    nonlinearity: Nonlinearity | None = None
    endurance: Endurance | None = None
    disturb: Disturb | None = None
    tails: Tails = "gaussian"
    """Form of the spread over cells, in writing and in relaxing."""
    pulse_sigma: Curve | None = None
    """Spread after one pulse without verify, siemens."""
    pulse_s: Positive
    """One write pulse with its verifying read, seconds."""
    pulse_joules: NonNegative
    """Energy of one write pulse, joules."""
    write_source: str
    """Where pulse_sigma, pulse_s and pulse_joules come from."""

    def sigma(self, targets: Tensor, table: str | None = None) -> Tensor:
        """Spread of written cells about their targets, siemens.

        table: name of one of `programming`; None is the first.
        Raises SettingError for targets outside the valid range.
        """
        return self.table(table).sigma(targets)

    def programmed(self, targets: Tensor, normals: Tensor, table: str | None = None) -> Tensor:
        """What a write leaves: target + sigma n, >= 0, siemens. normals: N(0, 1)."""
        _require_alike(targets, normals)
        return scattered(targets, self.sigma(targets, table), normals, self.tails)

    def relaxed(
        self,
        programmed: Tensor,
        targets: Tensor,
        normals: Tensor,
        age_s: Seconds,
        temperature_k: float | None = None,
        table: str | None = None,
    ) -> Tensor:
        """Conductances age_s after the write at constant temperature, siemens, >= 0.

        normals: N(0, 1), one per cell and write, other than those of the write:
        with them a cell's trajectory is fixed. age_s: of all cells, or of each.
        table: the one it was programmed by.
        For a history of temperatures give the sum of acceleration(T) dt as age_s
        and no temperature. Without a relaxation table cells stay as programmed.
        Raises DialError after the last measured time or outside the temperatures.
        """
        law = self.relaxation
        if law is None:
            return programmed
        _require_alike(targets, normals)
        _require_alike(targets, programmed)
        seconds = law.effective_s(age_s, temperature_k)
        if law.kind == "log":
            return law.log_law(programmed, normals, seconds, self.tails)
        if law.kind == "power":
            return law.power_law(programmed, targets, normals, seconds, self.tails)
        before = self.sigma(targets, table).square()
        added = (self.sigma_at(targets, seconds).square() - before).clamp(min=0).sqrt()
        return scattered(programmed, added, normals, self.tails)

    def sigma_at(self, targets: Tensor, age_s: Seconds) -> Tensor:
        """Spread by relaxation tables, linear in ln t between them, siemens.

        Outside the times of the tables: the first or last one.
        """
        tables = self.programming
        if isinstance(age_s, Tensor):
            return self._sigma_of_each(targets, age_s)
        position = bisect.bisect_right([p.after_s for p in tables], age_s)
        if position in (0, len(tables)):
            return tables[min(position, len(tables) - 1)].sigma(targets)
        a, b = tables[position - 1], tables[position]
        share = math.log(age_s / a.after_s) / math.log(b.after_s / a.after_s)
        return torch.lerp(a.sigma(targets), b.sigma(targets), share)

    def _sigma_of_each(self, targets: Tensor, age_s: Tensor) -> Tensor:
        """The same for cells of different ages."""
        found = self.programming[0].sigma(targets)
        for a, b in pairwise(self.programming):
            share = log_ratio(age_s, a.after_s, targets)
            assert isinstance(share, Tensor)
            share = share.div(math.log(b.after_s / a.after_s)).clamp(0, 1)
            found = torch.where(
                share > 0, torch.lerp(a.sigma(targets), b.sigma(targets), share), found
            )
        return found

    def read_sigma(self, g: Tensor, age_s: Seconds, normals: Tensor | None = None) -> Tensor:
        """Shot-to-shot sigma of conductances g, siemens; 0 without a table.

        normals: N(0, 1) per cell for its own level; None: r.m.s. over cells.
        """
        if self.read_noise is None:
            return g.new_zeros(g.shape)
        return self.read_noise.sigma(g, age_s, normals)

    def acceleration(self, temperature_k: float) -> float:
        """How much faster cells relax at temperature_k than where measured."""
        return 1.0 if self.relaxation is None else self.relaxation.acceleration(temperature_k)

    @property
    def window_siemens(self) -> float:
        return self.g_max_siemens - self.g_min_siemens

    def table(self, name: str | None = None) -> Programming:
        """One of `programming` by its name; None is the first."""
        if name is None:
            return self.programming[0]
        tables = {p.name: p for p in self.programming}
        if name not in tables:
            raise UnknownName(f"{self.name} has no table {name!r}. {nearest(name, tables)}")
        return tables[name]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.low_siemens <= self.g_min_siemens < self.g_max_siemens <= self.high_siemens:
            raise ValueError(
                f"the window {self.g_min_siemens:g} to {self.g_max_siemens:g} S must rise and lie "
                f"in the valid range {self.low_siemens:g} to {self.high_siemens:g} S; narrow it"
            )
        if not self.programming:
            raise ValueError("at least one programming table is needed")
        for what, curve in self._curves():
            if curve.low_siemens > self.low_siemens or curve.high_siemens < self.high_siemens:
                raise ValueError(
                    f"{what} holds from {curve.low_siemens:g} to {curve.high_siemens:g} S, which "
                    f"is not all of {self.low_siemens:g} to {self.high_siemens:g} S; narrow "
                    f"low_siemens and high_siemens of the technology"
                )
        if len({p.name for p in self.programming}) < len(self.programming):
            raise ValueError("programming tables need different names")
        if self.relaxation is not None and self.relaxation.kind == "tables":
            self._require_times(self.relaxation)
        return self

    def _curves(self) -> list[tuple[str, Curve]]:
        curves = [(f"programming {p.name!r}", p.sigma) for p in self.programming]
        law, named = self.relaxation, {"pulse_sigma": self.pulse_sigma}
        if law is not None:
            named["relaxation.exponent"] = law.exponent
            named["relaxation.exponent_spread"] = law.exponent_spread
        return curves + [(name, curve) for name, curve in named.items() if curve is not None]

    def _require_times(self, law: Relaxation) -> None:
        times = [p.after_s for p in self.programming]
        if len(times) < 2 or times[0] <= 0 or any(b <= a for a, b in pairwise(times)):
            raise ValueError(
                f"relaxation of kind 'tables' needs two or more programming tables with "
                f"ascending after_s > 0, got {times} s"
            )
        if law.first_s != times[0] or law.last_s != times[-1]:
            raise ValueError(
                f"first_s and last_s must be those of the tables, {times[0]:g} and "
                f"{times[-1]:g} s, got {law.first_s:g} and {law.last_s:g} s"
            )


def names() -> list[str]:
    """Names of the shipped technologies."""
    files = resources.files("substrates.memristor").joinpath("technologies").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def load(name_or_path: str | Path) -> Technology:
    """A shipped technology by name, or the one in a TOML file of the user.

    Anything with a folder or the ending .toml is a file. A curve in it may have
    points_csv, a file beside it, in place of points.
    Raises UnknownName, or ConfigError naming file, key and remedy.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml") or Path(text).name != text:
        return build(Technology, read_table(Path(text)), text)
    if text not in names():
        raise UnknownName(
            f"no technology is called {text!r}; a file of yours ends in .toml. "
            f"{nearest(text, names())}"
        )
    folder = resources.files("substrates.memristor").joinpath("technologies")
    with resources.as_file(folder.joinpath(f"{text}.toml")) as path:
        return build(Technology, read_table(path), text)


def _require_alike(targets: Tensor, other: Tensor) -> None:
    if targets.shape != other.shape:
        raise SettingError(
            f"one number per cell is needed: targets have shape {tuple(targets.shape)}, "
            f"got {tuple(other.shape)}. Draw it with the shape of the targets."
        )
