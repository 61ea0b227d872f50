"""What the error budget needs to know of an optical rig."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from substrates.optics.budgetlight import amplitude_overlap, faulty_overlap
from substrates.optics.config import RigConfig
from substrates.optics.driftclock import PRESETS, DriftClock, DriftTable
from substrates.optics.media import grains_of
from substrates.optics.mediumtable import FileTable, GrainsTable
from substrates.optics.modulatortable import ModulatorTable, make_modulator
from substrates.optics.point import OperatingPoint
from substrates.optics.sensor import SensorTable, dark_factor
from twin.config import STRICT
from twin.errors import ConfigError
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

    patterns: Annotated[float, Field(ge=1)] = 1
    """Independent speckle patterns summed (2 for unpolarised light; times the
    pixels of a binned one; 1 / contrast^2 where grains are correlated)."""

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
    """Charge from black level to the highest code."""

    bits: Annotated[int, Field(ge=1, le=16)] = 16

    black_codes: Nonnegative = 0.0
    """Codes below black level, out of the 2^bits: light has the rest."""

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
    drift (a warm-up is fastest then); random jumps count with their mean effect.
    Pixel faults, shifts, pointing, a swapped medium, full well and cross-talk are
    not in the budget. Binned pixels count as independent, but behind "grains".
    Raises ConfigError for a rig without light.
    """
    at = at or OperatingPoint.of(config)
    sensor = config.sensor
    modulator = replace(config.own_modulator(), stuck_fraction=at.stuck_macropixel_fraction)
    power = _power(modulator, at.dead_macropixel_fraction)
    # Light that misses the modulator keeps its power when mirrors are off.
    arriving = (1 - config.unmodulated_fraction) * power + config.unmodulated_fraction
    seen = sensor.quantum_efficiency * sensor.binning**2
    signal = at.mean_electrons * at.exposure_ratio * at.shutter * arriving * seen
    if signal == 0:
        raise ConfigError(
            f"budget: no light arrives (shutter = {at.shutter:g}, power behind the modulator "
            f"{power:g}). Open the shutter."
        )
    own, whole = _orders(config)
    top = 2**config.camera_bits - 1
    range_electrons = config.full_scale_over_mean * seen * at.mean_electrons
    if sensor.gain_dn_per_electron is not None:
        range_electrons = (top - sensor.offset_dn) / sensor.gain_dn_per_electron
    temperature = dark_factor(
        at.temperature_c, sensor.reference_temperature_c, sensor.dark_doubling_c
    )
    dark = config.dark_electrons_per_s * config.exposure_s * at.exposure_ratio * temperature
    return Conditions(
        inputs=config.inputs,
        modulator=modulator,
        frame_s=max(1 / config.frame_rate_hz, config.exposure_s * at.exposure_ratio),
        dead_fraction=at.dead_macropixel_fraction,
        flicker_rad=at.phase_flicker_rad,
        unmodulated_fraction=config.unmodulated_fraction / arriving,
        field_correlation=_field_correlation(config.drift, after_s * at.drift_scale),
        patterns=whole,
        mean_electrons=signal,
        shot_noise=config.shot_noise != "none",
        read_noise_electrons=at.read_noise_electrons * _tail(sensor),
        dark_electrons=dark * sensor.binning**2,
        # The gains of the pixels of a group are their own.
        pixel_gain_spread=sensor.prnu
        * math.sqrt((own + 1) * whole / (own * (whole + 1)))
        / sensor.binning,
        pixel_offset_electrons=sensor.dsnu_electrons * sensor.binning,
        full_scale_electrons=range_electrons,
        bits=config.camera_bits,
        black_codes=sensor.offset_dn,
        stuck_pixel_fraction=at.stuck_pixel_fraction,
        black_level=sensor.offset_dn > 0,
    )


def _power(table: ModulatorTable, dead: float) -> float:
    """Mean |light|^2 of a macropixel over drives uniform in [0, 1], faulty ones included."""
    shown = make_modulator(table, 1, Key(0)).shown
    by_threshold = table.kind == "dmd" and table.binarise == "threshold"
    good = amplitude_overlap(shown, table.threshold if by_threshold else None)
    return faulty_overlap(shown, good, dead, table.stuck_fraction).power


def _orders(config: RigConfig) -> tuple[float, float]:
    """Independent patterns that a sensor pixel, and a binned one, are worth: 1 / contrast^2."""
    table, side = config.medium, config.sensor.binning
    patterns = 1 if isinstance(table, FileTable) else table.patterns
    if not isinstance(table, GrainsTable):
        return patterns, patterns * side**2
    grains = grains_of(table, config.sensor.sensor_pixels(config.pixels))
    own = patterns / grains.contrast() ** 2
    alike = grains.intensity_correlation()
    shared = sum(
        (side - abs(i)) * (side - abs(j)) * alike[abs(i), abs(j)]
        for i in range(1 - side, side)
        for j in range(1 - side, side)
        if abs(i) < alike.shape[0]
    )
    return max(own, 1.0), max(own * side**4 / float(shared), 1.0)


def _tail(sensor: SensorTable) -> float:
    """R.m.s. read noise over that of ordinary pixels: the tail's excess is exponential."""
    ratio = sensor.read_noise_tail_ratio
    return math.sqrt(1 + sensor.read_noise_tail_fraction * 2 * ratio * (1 + ratio))


def _field_correlation(drift: DriftTable, elapsed_s: float) -> float:
    """Of the medium with itself elapsed_s of its own time after its start."""
    if elapsed_s == 0:
        return 1.0
    # A static rig drifts by the law "slow" once its dial is turned.
    law = PRESETS["slow"] if drift.static else drift
    if not law.moves:
        return 1.0
    moved = 0.0
    if law.jump_rate_hz > 0:
        # Each jump leaves 1 - fraction of the speckle's correlation.
        moved = law.jump_rate_hz * elapsed_s * law.jump_fraction / 2
    steady = DriftClock(replace(law, jump_rate_hz=0.0), Key(0))
    return math.exp(-moved - float(steady.elapsed(np.array([elapsed_s]))[0]))
