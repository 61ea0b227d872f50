"""What can be chosen about an optical rig: its configuration, dials and presets.

SI units; charges in electrons. Values marked "assumed" have no source yet.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from substrates.optics.modulator import TOP_RAD
from twin.backend import Capabilities, Dial, Port
from twin.config import STRICT, build
from twin.errors import UnknownName, nearest
from twin.key import Key

ShotNoise = Literal["poisson", "gaussian", "none"]
MAX_MEAN_ELECTRONS = 1e6
MAX_READ_NOISE_ELECTRONS = 1e3
MAX_FLICKER_RAD = 1.0
EXPOSURE_RATIOS = (1e-3, 1e3)


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

    compute_device: str = "cpu"
    """Where the simulation runs: "cpu", "cuda" or "cuda:1"."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """What can be turned while the rig runs; one field per dial."""

    mean_electrons: float
    read_noise_electrons: float
    phase_flicker_rad: float
    stuck_pixel_fraction: float
    dead_macropixel_fraction: float
    exposure_ratio: float = 1.0

    @staticmethod
    def of(config: RigConfig) -> OperatingPoint:
        """The point at which a rig of this configuration is delivered."""
        names = [f.name for f in dataclasses.fields(OperatingPoint) if f.name != "exposure_ratio"]
        return OperatingPoint(**{name: getattr(config, name) for name in names})


def dials(config: RigConfig) -> tuple[Dial, ...]:
    """The dials of a rig; their defaults are what `config` says."""
    at = OperatingPoint.of(config)
    return (
        Dial(
            name="mean_electrons",
            unit="electron",
            low=1.0,
            high=MAX_MEAN_ELECTRONS,
            ideal=MAX_MEAN_ELECTRONS,
            default=at.mean_electrons,
            severe=10.0,
            about="photon level: electrons per pixel at mean intensity; the gain follows it, "
            "so that the brightness of a frame stays and only its noise changes",
        ),
        Dial(
            name="read_noise_electrons",
            unit="electron",
            low=0.0,
            high=MAX_READ_NOISE_ELECTRONS,
            ideal=0.0,
            default=at.read_noise_electrons,
            severe=100.0,
            about="r.m.s. noise of reading a pixel",
        ),
        Dial(
            name="phase_flicker_rad",
            unit="rad",
            low=0.0,
            high=MAX_FLICKER_RAD,
            ideal=0.0,
            default=at.phase_flicker_rad,
            severe=0.3,
            about="r.m.s. phase jitter of each macropixel in each frame",
        ),
        _fraction("stuck_pixel_fraction", at, "camera pixels stuck at a code of their own"),
        _fraction("dead_macropixel_fraction", at, "macropixels that stay at phase 0"),
        Dial(
            name="exposure_ratio",
            unit="1",
            low=EXPOSURE_RATIOS[0],
            high=EXPOSURE_RATIOS[1],
            ideal=1.0,
            default=1.0,
            severe=4.0,
            about="exposure in force over the nominal one; the gain stays, the ratio follows",
        ),
    )


def _fraction(name: str, at: OperatingPoint, about: str) -> Dial:
    default = getattr(at, name)
    return Dial(
        name=name, unit="1", low=0, high=1, ideal=0, default=default, severe=0.5, about=about
    )


def capabilities(config: RigConfig, key: Key) -> Capabilities:
    """What a rig of this configuration, made with this key, is able to do."""
    levels = 2**config.camera_bits
    # Where it is simulated does not make it another device.
    physics = dataclasses.replace(config, compute_device="cpu")
    made_from = hashlib.blake2b(f"{physics!r} {key.entropy()}".encode(), digest_size=4).hexdigest()
    return Capabilities(
        device_id=f"optics-{config.inputs}x{config.pixels}-{made_from}",
        drives=(
            Port(
                name="phases",
                shape=(config.inputs,),
                levels=config.modulator_levels,
                full_scale=TOP_RAD,
                unit="rad",
            ),
        ),
        readings=(
            Port(
                name="frame",
                shape=(config.pixels,),
                levels=levels,
                dtype="uint8" if config.camera_bits <= 8 else "int32",
                full_scale=config.full_scale_over_mean * config.mean_electrons,
                unit="electron",
            ),
        ),
        dials=dials(config),
        seedable=True,
        restorable=True,
        rangeable=True,
        clock="virtual",
    )


PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # IMX174-class global shutter: the defaults of RigConfig.
        "industrial": {},
        # Andor Marana in fast mode: read noise from arXiv 2510.14484; 12 bits
        # and 0.3 electrons per second (cooled) are assumed.
        "scmos": {
            "read_noise_electrons": 1.577,
            "camera_bits": 12,
            "dark_electrons_per_s": 0.3,
        },
        # The noise model of a published MATLAB simulator of optical reservoirs:
        # additive noise of 1.7 % of the mean, clipping at 9 times the mean.
        "additive": {
            "shot_noise": "none",
            "read_noise_electrons": 17.0,
            "dark_electrons_per_s": 0.0,
            "full_scale_over_mean": 9.0,
        },
        # The control: no noise, and steps too fine to matter.
        "ideal": {
            "shot_noise": "none",
            "read_noise_electrons": 0.0,
            "dark_electrons_per_s": 0.0,
            "full_scale_over_mean": 30.0,
            "camera_bits": 16,
            "modulator_levels": 65536,
        },
    }
)
"""Named starting points for RigConfig: what differs from its defaults."""


def configured(options: Mapping[str, Any]) -> RigConfig:
    """A RigConfig from `options`, starting from options["preset"] if given.

    Raises UnknownName for the preset, ConfigError for any other key or value.
    """
    own = dict(options)
    preset = own.pop("preset", "industrial")
    if preset not in PRESETS:
        raise UnknownName(f"optics.preset: no preset {preset!r}. {nearest(str(preset), PRESETS)}")
    return build(RigConfig, {**PRESETS[preset], **own}, "optics")
