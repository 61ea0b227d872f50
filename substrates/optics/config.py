"""An optical rig as built: what can be chosen, with units and sources.

Charges in electrons. Values marked "assumed" have no source yet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from substrates.optics.driftclock import DriftTable
from substrates.optics.mediumtable import GaussianTable, MediumTable
from substrates.optics.modulatortable import ModulatorTable
from substrates.optics.sensor import SensorTable
from twin.config import STRICT

ShotNoise = Literal["poisson", "gaussian", "none"]
MAX_MEAN_ELECTRONS = 1e6
MAX_READ_NOISE_ELECTRONS = 1e3
MAX_FLICKER_RAD = 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RigConfig:
    """An optical rig as built. The defaults are the preset "industrial"."""

    inputs: Annotated[int, Field(ge=1)] = 64
    """Macropixels of the modulator, one per value of the drive."""

    pixels: Annotated[int, Field(ge=1)] = 256
    """Camera pixels read, one speckle grain each."""

    modulator_levels: Annotated[int, Field(ge=2, le=65536)] = 256
    """Phases the modulator can show, evenly from 0 to pi inclusive (8-bit SLM)."""

    unmodulated_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the light's power that misses the modulator (0 to 0.05 in a
    good set-up, assumed; 0.35 was reported with a wrong look-up table, slmsuite
    issue 150)."""

    phase_flicker_rad: Annotated[float, Field(ge=0, le=MAX_FLICKER_RAD)] = 0.0
    """R.m.s. phase jitter of each macropixel in each frame, rad (0.03 to 0.3, assumed)."""

    mean_electrons: Annotated[float, Field(ge=1, le=MAX_MEAN_ELECTRONS)] = 1000.0
    """Photoelectrons of a pixel at mean intensity and nominal exposure."""

    full_scale_over_mean: Annotated[float, Field(gt=0, le=1000)] = 10.0
    """Full scale of the camera as a multiple of the mean signal. Speckle clips
    a fraction exp(-10) = 5e-5 of its pixels at 10."""

    read_noise_electrons: Annotated[float, Field(ge=0, le=MAX_READ_NOISE_ELECTRONS)] = 6.83
    """R.m.s. read noise, electrons (IMX174 class, vendor's EMVA 1288 data)."""

    dark_electrons_per_s: Annotated[float, Field(ge=0)] = 5.0
    """Dark current of a pixel, electrons per second (1 to 10, assumed)."""

    camera_bits: Annotated[int, Field(ge=1, le=16)] = 8
    """Bits of a frame (the sensor's 8-bit fast mode)."""

    stuck_pixel_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fraction of camera pixels stuck at a code drawn once, uniformly."""

    dead_macropixel_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fraction of macropixels that stay at phase 0."""

    shot_noise: ShotNoise = "poisson"
    """Law of the photon noise; "gaussian" is refused for dim light (see camera)."""

    exposure_s: Annotated[float, Field(gt=0)] = 0.01
    """Nominal exposure, seconds (assumed)."""

    frame_rate_hz: Annotated[float, Field(gt=0)] = 60.0
    """Frames per second of modulator and camera together (liquid crystal, assumed)."""

    electrical_power_w: Annotated[float, Field(ge=0)] = 30.0
    """Laser, modulator and camera together, watts (assumed)."""

    modulator: ModulatorTable = Field(default_factory=ModulatorTable)
    """What the modulator is (see modulatortable); modulator_levels holds for a
    phase modulator without a curve or a table of its own."""

    medium: MediumTable = Field(default_factory=GaussianTable)
    """What the light goes through (see mediumtable): kind = "gaussian", "grains",
    "marchenko-pastur", "bimodal", "multislice" or "file"."""

    drift: DriftTable = Field(default_factory=DriftTable)
    """How the medium changes in time (see driftclock), or the name of a preset:
    "static", "warm-up", "slow", "tissue-like"."""

    sensor: SensorTable = Field(default_factory=SensorTable)
    """What the camera is beyond noise and bits (see sensor), or a preset's name."""

    compute_device: str = "cpu"
    """Where the simulation runs: "cpu", "cuda" or "cuda:1"."""

    def own_modulator(self) -> ModulatorTable:
        """The modulator's table with the levels that hold: modulator_levels for a
        phase modulator that has none, no curve and no table of its own."""
        own = self.modulator
        given = (own.levels, own.curve_rad, own.turn_grey, own.table, own.believed_turn_grey)
        if own.kind != "phase" or any(given):
            return own
        return replace(own, levels=self.modulator_levels)
