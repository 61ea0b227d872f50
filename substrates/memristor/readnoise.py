"""Read noise of one cell, shot to shot: how large, by state and by age.

Conductances in siemens, times in seconds after the write.
"""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from pydantic import model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from substrates.memristor.curve import NonNegative, Positive
from substrates.memristor.seconds import Seconds, at_least, checked_age
from twin.config import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReadNoise:
    """Shot-to-shot sigma of one cell, siemens, at age t.

    relative: level G.
    log: level max(log10(G / unit), 0) a(t).
    pcm: G min(level (G / unit)^-exponent, most) a(t).
    a(t) = sqrt(ln[(t + t_read) / (2 t_read)]), 1/f noise since the write.
    """

    kind: Literal["relative", "log", "pcm"]
    level: NonNegative
    """relative, pcm: of G, dimensionless. log: siemens."""
    unit_siemens: Positive = 1e-6
    """Unit of G inside the law, siemens."""
    exponent: NonNegative = 0.0
    """pcm only."""
    most: Positive | None = None
    """pcm only: largest level of 1/f noise, of G."""
    read_time_s: Positive
    """Duration of a read, seconds."""
    first_s: Positive
    """First measured age, seconds; earlier returns the noise there."""
    spread_ln: NonNegative = 0.0
    """Log-normal spread of sigma over cells."""
    source: str

    def sigma(self, g: Tensor, age_s: Seconds, normals: Tensor | None = None) -> Tensor:
        """Sigma of conductances g (any shape, >= 0), siemens.

        normals: N(0, 1) per cell, for its factor; without, the r.m.s. over cells.
        Defined for every g, since a cell out of its window is still read.
        """
        if self.kind == "relative":
            sigma = g * self.level
        elif self.kind == "log":
            decades = (g / self.unit_siemens).clamp(min=1).log10()
            sigma = decades * (self.level * self._growth_like(g, age_s))
        else:
            level = self.level * (g / self.unit_siemens).pow(-self.exponent)
            sigma = g * level.clamp(max=self.most) * self._growth_like(g, age_s)
        return sigma if normals is None else sigma * self.factors(normals)

    def factors(self, normals: Tensor) -> Tensor:
        """Each cell's factor on sigma, log-normal, mean square 1."""
        return torch.exp(self.spread_ln * normals - self.spread_ln**2)

    def growth(self, age_s: Seconds) -> Seconds:
        """a(t), of which only log and pcm make use."""
        t = at_least(checked_age(age_s), self.first_s)
        ratio = (t + self.read_time_s) / (2 * self.read_time_s)
        return ratio.log().sqrt() if isinstance(ratio, Tensor) else math.sqrt(math.log(ratio))

    def _growth_like(self, g: Tensor, age_s: Seconds) -> Seconds:
        growth = self.growth(age_s)
        return growth.to(g) if isinstance(growth, Tensor) else growth

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind != "pcm" and (self.exponent != 0 or self.most is not None):
            raise ValueError(f"read noise of kind {self.kind!r} takes no exponent and no most")
        if self.kind == "pcm" and self.most is None:
            raise ValueError("read noise of kind 'pcm' needs most")
        if self.first_s < self.read_time_s:
            raise ValueError(
                f"first_s ({self.first_s:g} s) must not be below read_time_s "
                f"({self.read_time_s:g} s), where 1/f noise is not defined"
            )
        return self
