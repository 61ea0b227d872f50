"""What the error budget needs to know of an optical rig."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from substrates.optics.config import RigConfig
from substrates.optics.driftclock import DriftClock
from substrates.optics.modulatortable import ModulatorTable
from substrates.optics.point import OperatingPoint
from substrates.optics.sensor import dark_factor
from twin.config import STRICT
from twin.key import Key

Fraction = Annotated[float, Field(ge=0, le=1)]
Nonnegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Conditions:
    """What the budget needs to know; the defaults are a perfect rig.

    Charges in electrons, phases in rad, fractions of one.
    """

    inputs: Annotated[int, Field(ge=1)] = 64
    """Macropixels of the modulator."""

    modulator: ModulatorTable = Field(default_factory=ModulatorTable)
    """The modulator. Its cross-talk is not in the budget."""

    frame_s: Positive = 1.0
    """From one pattern to the next; matters to a modulator that settles."""

    dead_fraction: Fraction = 0.0
    """Macropixels that stay at level 0."""

    flicker_rad: Nonnegative = 0.0
    """R.m.s. phase jitter of each macropixel in each frame."""

    unmodulated_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Power that misses the modulator."""

    field_correlation: Fraction = 1.0
    """Of the medium's coefficients then and now: exp(-t / tau_E) for drift."""

    patterns: Annotated[int, Field(ge=1)] = 1
    """Independent speckle patterns summed (2 for unpolarised light)."""

    mean_electrons: Positive = 1e6
    """Signal at mean intensity in the exposure in force."""

    shot_noise: bool = True
    """Whether photons are counted one by one."""

    read_noise_electrons: Nonnegative = 0.0
    dark_electrons: Nonnegative = 0.0
    """Dark charge per exposure; only its shot noise counts."""

    pixel_gain_spread: Nonnegative = 0.0
    """PRNU: relative r.m.s. spread of the pixels' gains."""

    pixel_offset_electrons: Nonnegative = 0.0
    """DSNU: r.m.s. spread of the pixels' offsets."""

    full_scale_electrons: Positive = 3e7
    """Charge of the highest code."""

    bits: Annotated[int, Field(ge=1, le=16)] = 16
    stuck_pixel_fraction: Fraction = 0.0
    """Camera pixels at a code of their own, uniform over the range."""

    black_level: bool = False
    """Whether dark pixels can read below zero light (an offset above their noise)."""


def conditions_of(
    config: RigConfig,
    at: OperatingPoint | None = None,
    *,
    after_s: float = 0.0,
) -> Conditions:
    """Conditions of a rig as configured, at an operating point (as delivered by default).

    after_s: seconds between the frames that are compared, at the start of the
    drift (a warm-up is fastest then). Pixel faults, shifts, full well and
    cross-talk are not in the budget.
    """
    at = at or OperatingPoint.of(config)
    sensor, drift = config.sensor, config.drift
    seen = sensor.quantum_efficiency * sensor.binning**2
    range_electrons = config.full_scale_over_mean * seen * at.mean_electrons
    if sensor.gain_dn_per_electron is not None:
        top = 2**config.camera_bits - 1
        range_electrons = (top - sensor.offset_dn) / sensor.gain_dn_per_electron
    temperature = dark_factor(
        at.temperature_c, sensor.reference_temperature_c, sensor.dark_doubling_c
    )
    dark = config.dark_electrons_per_s * config.exposure_s * at.exposure_ratio * temperature
    elapsed = 0.0
    if not drift.static and after_s > 0:
        clock = DriftClock(drift, Key(0))
        elapsed = float(clock.elapsed(np.array([after_s * at.drift_scale]))[0])
    return Conditions(
        inputs=config.inputs,
        modulator=config.own_modulator(),
        frame_s=max(1 / config.frame_rate_hz, config.exposure_s * at.exposure_ratio),
        dead_fraction=at.dead_macropixel_fraction,
        flicker_rad=at.phase_flicker_rad,
        unmodulated_fraction=config.unmodulated_fraction,
        field_correlation=math.exp(-elapsed),
        patterns=getattr(config.medium, "patterns", 1),
        mean_electrons=at.mean_electrons * at.exposure_ratio * seen,
        shot_noise=config.shot_noise != "none",
        read_noise_electrons=at.read_noise_electrons,
        dark_electrons=dark * sensor.binning**2,
        pixel_gain_spread=sensor.prnu,
        pixel_offset_electrons=sensor.dsnu_electrons,
        full_scale_electrons=range_electrons,
        bits=config.camera_bits,
        stuck_pixel_fraction=at.stuck_pixel_fraction,
        black_level=sensor.offset_dn > 0,
    )
