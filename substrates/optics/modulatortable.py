"""What a modulator is made of, and how it is made from that.

A field marked "assumed" has no source yet.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from substrates.optics.dmd import mirror_light
from substrates.optics.lee import lee_light
from substrates.optics.modulator import LevelModulator, even_phases, phase_light
from substrates.optics.slm import PhaseSlm, Settling, driven_phases, true_curve
from twin.config import STRICT
from twin.key import Key

Fraction = Annotated[float, Field(ge=0, le=1)]
DEFAULT_LEVELS = 256


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModulatorTable:
    """A modulator as built; the defaults are a perfect 8-bit phase modulator."""

    kind: Literal["phase", "dmd", "lee"] = "phase"
    """A liquid-crystal phase modulator; a mirror array that switches light on and
    off; or such an array that shows Lee holograms (phases by binary gratings)."""

    levels: Annotated[int | None, Field(ge=2, le=65536)] = None
    """States that a drive is rounded to. By default as many as the modulator can
    tell apart (256 for a perfect phase modulator). More are refused."""

    bits: Annotated[int, Field(ge=1, le=16)] = 8
    """Bits of a grey value sent to a phase modulator that has a curve or a table
    (8 is usual; 10 are offered, openwfs pull request 73)."""

    turn_grey: Annotated[float | None, Field(gt=0)] = None
    """Truth: the grey value at which a linear curve reaches 2 pi. 142 of 256 is the
    example of the openwfs documentation. Default: 2**bits, if a table is given."""

    curve_rad: tuple[float, ...] = ()
    """Truth: measured phases at evenly spaced grey values from the first to the last,
    rad, unwrapped; linear in between. Instead of turn_grey."""

    believed_turn_grey: Annotated[float | None, Field(gt=0)] = None
    """Belief: where the driver takes the curve to reach 2 pi, linearly."""

    table: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Belief: the grey value that the driver sends for each level. Without any
    belief the driver is calibrated: it sends the grey value nearest in truth."""

    settling_s: Annotated[float, Field(ge=0)] = 0.0
    """Time constant of the phase's exponential response, seconds (10 ms class,
    1 ms with overdrive: Thalhammer et al. 2013, Opt. Express 21, 1779)."""

    settling_wait_s: Annotated[float, Field(ge=0)] = 0.0
    """From sending a pattern to the exposure, seconds (0.3 s by default in slmsuite)."""

    stuck_fraction: Fraction = 0.0
    """Fraction of macropixels stuck at a level drawn once, uniformly."""

    pixels_per_side: Annotated[int, Field(ge=1, le=1024)] = 1
    """Physical pixels along a side of the square macropixel of one input."""

    crosstalk: Fraction = 0.0
    """Share of a physical pixel's phase that comes from its four neighbours
    (fringing fields; Persson et al. 2012, Opt. Express 20, 22334; the value of a
    device is to be measured). Phase modulators only."""

    binarise: Literal["threshold", "area"] = "threshold"
    """How a "dmd" shows a grey drive: all mirrors of a macropixel by a threshold,
    or a share of its mirrors."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Drive from which on the mirrors of a macropixel are on."""

    lee_period: Annotated[int, Field(ge=2)] = 4
    """Mirrors per fringe of a Lee hologram; it divides pixels_per_side."""

    lee_slant: float = 0.0
    """Mirrors by which the fringes shift from one row of mirrors to the next."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.curve_rad and self.turn_grey is not None:
            raise ValueError("curve_rad and turn_grey both state the true curve. Give one.")
        if self.table and self.believed_turn_grey is not None:
            raise ValueError("table and believed_turn_grey both state the belief. Give one.")
        if len(self.curve_rad) == 1:
            raise ValueError("curve_rad needs the phases of two grey values or more, got 1")
        if self.kind != "phase":
            own = ("turn_grey", "curve_rad", "believed_turn_grey", "table")
            given = [name for name in own if getattr(self, name)]
            given += [name for name in ("settling_s", "crosstalk") if getattr(self, name)]
            if given:
                raise ValueError(f"{', '.join(given)}: only a phase modulator has these")
        if self.kind == "lee" and self.pixels_per_side % self.lee_period:
            raise ValueError(
                f"a macropixel of {self.pixels_per_side} mirrors is no whole number of Lee fringes "
                f"of {self.lee_period}. Make pixels_per_side a multiple of lee_period"
            )
        return self


def make_modulator(
    table: ModulatorTable, inputs: int, key: Key, device: torch.device | str = "cpu"
) -> LevelModulator | PhaseSlm:
    """The modulator of `table` with `inputs` macropixels; `key` fixes its faults.

    Raises ConfigError where two levels would show the same light.
    """
    if table.kind == "phase":
        return _phase(table, inputs, key, device)
    if table.kind == "lee":
        shown = lee_light(
            table.pixels_per_side, table.lee_period, table.lee_slant, levels=table.levels
        )
        return LevelModulator(shown, inputs, key, device, stuck_fraction=table.stuck_fraction)
    by_threshold = table.binarise == "threshold"
    mirrors = 1 if by_threshold else table.pixels_per_side**2
    return LevelModulator(
        mirror_light(mirrors, table.levels),
        inputs,
        key,
        device,
        threshold=table.threshold if by_threshold else None,
        stuck_fraction=table.stuck_fraction,
    )


def _phase(
    table: ModulatorTable, inputs: int, key: Key, device: torch.device | str
) -> LevelModulator | PhaseSlm:
    phases = _phases(table)
    plain = LevelModulator(
        phase_light(phases), inputs, key, device, stuck_fraction=table.stuck_fraction
    )
    if table.settling_s == 0 and table.crosstalk == 0:
        return plain
    return PhaseSlm(
        plain,
        phases,
        inputs,
        settling=Settling(table.settling_s, table.settling_wait_s),
        crosstalk=table.crosstalk,
        pixels_per_side=table.pixels_per_side,
        device=device,
    )


def _phases(table: ModulatorTable) -> torch.Tensor:
    """True phase of each level, (levels,), float64."""
    truth = table.curve_rad or table.turn_grey
    belief = table.table or table.believed_turn_grey
    if not truth and not belief:
        return even_phases(table.levels or DEFAULT_LEVELS)
    curve = true_curve(2**table.bits, table.turn_grey, table.curve_rad)
    return driven_phases(curve, table.levels, table.table, table.believed_turn_grey)
