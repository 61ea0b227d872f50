"""What can be turned while a rig runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from substrates.optics.config import (
    MAX_FLICKER_RAD,
    MAX_MEAN_ELECTRONS,
    MAX_READ_NOISE_ELECTRONS,
    RigConfig,
)
from substrates.optics.sensor import MAX_SHIFT_PX, TEMPERATURES_C
from twin.backend import Dial

EXPOSURE_RATIOS = (1e-3, 1e3)
SENSOR_DIALS = (
    "dead_pixel_fraction",
    "hot_pixel_fraction",
    "saturated_fraction",
    "lost_frame_probability",
    "temperature_c",
    "shift_rows_px",
    "shift_columns_px",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """One field per dial. swapped: 0 for the rig's own medium, else another's.
    shutter: 1 open, 0 closed. drift_scale: seconds of the medium per device second."""

    mean_electrons: float
    read_noise_electrons: float
    phase_flicker_rad: float
    stuck_pixel_fraction: float
    dead_macropixel_fraction: float
    stuck_macropixel_fraction: float = 0.0
    exposure_ratio: float = 1.0
    shutter: float = 1.0
    drift_scale: float = 0.0
    swapped: float = 0.0
    dead_pixel_fraction: float = 0.0
    hot_pixel_fraction: float = 0.0
    saturated_fraction: float = 0.0
    lost_frame_probability: float = 0.0
    temperature_c: float = 25.0
    shift_rows_px: float = 0.0
    shift_columns_px: float = 0.0

    @staticmethod
    def of(config: RigConfig) -> OperatingPoint:
        """The point at which a rig of this configuration is delivered."""
        flat = (
            "mean_electrons",
            "read_noise_electrons",
            "phase_flicker_rad",
            "stuck_pixel_fraction",
            "dead_macropixel_fraction",
        )
        return OperatingPoint(
            **{name: getattr(config, name) for name in flat},
            **{name: getattr(config.sensor, name) for name in SENSOR_DIALS},
            stuck_macropixel_fraction=config.modulator.stuck_fraction,
            drift_scale=0.0 if config.drift.static else 1.0,
        )


def dials(config: RigConfig) -> tuple[Dial, ...]:
    """The dials of a rig; their defaults are what `config` says."""
    return (*_light(config), _shutter(), *_faults(config), *_places(config))


def _light(config: RigConfig) -> Iterator[Dial]:
    at = OperatingPoint.of(config)
    yield Dial(
        name="mean_electrons",
        unit="electron",
        low=1.0,
        high=MAX_MEAN_ELECTRONS,
        ideal=MAX_MEAN_ELECTRONS,
        default=at.mean_electrons,
        severe=10.0,
        about="photon level: electrons per pixel at mean intensity; the gain follows it, "
        "so that the brightness of a frame stays and only its noise changes",
    )
    yield Dial(
        name="read_noise_electrons",
        unit="electron",
        low=0.0,
        high=MAX_READ_NOISE_ELECTRONS,
        ideal=0.0,
        default=at.read_noise_electrons,
        severe=100.0,
        about="r.m.s. noise of reading a pixel",
    )
    yield Dial(
        name="phase_flicker_rad",
        unit="rad",
        low=0.0,
        high=MAX_FLICKER_RAD,
        ideal=0.0,
        default=at.phase_flicker_rad,
        severe=0.3,
        about="r.m.s. phase jitter of each macropixel in each frame",
    )
    yield Dial(
        name="exposure_ratio",
        unit="1",
        low=EXPOSURE_RATIOS[0],
        high=EXPOSURE_RATIOS[1],
        ideal=1.0,
        default=1.0,
        severe=4.0,
        about="exposure in force over the nominal one; the gain stays, the ratio follows",
    )
    yield Dial(
        name="temperature_c",
        unit="1",
        low=TEMPERATURES_C[0],
        high=TEMPERATURES_C[1],
        ideal=TEMPERATURES_C[0],
        default=at.temperature_c,
        severe=45.0,
        about="of the sensor, degrees Celsius; dark current follows it",
    )
    if config.medium.kind == "multislice" and config.medium.kerr_rad != 0:
        return  # a medium without a matrix has none to drift
    yield Dial(
        name="drift_scale",
        unit="1",
        low=0.0,
        high=1e4,
        ideal=0.0,
        default=at.drift_scale,
        severe=1200.0,
        about="seconds of the medium's drift per device second; of the law the rig was built "
        'with, of the preset "slow" for a static one (then 1200 is one correlation per second)',
    )


def _shutter() -> Dial:
    return Dial(
        name="shutter", unit="1", low=0.0, high=1.0, ideal=1.0, default=1.0, severe=0.5,
        about="share of the light let through; 0 for dark frames",
    )  # fmt: skip


def _faults(config: RigConfig) -> Iterator[Dial]:
    at = OperatingPoint.of(config)
    for name, severe, about in (
        ("stuck_pixel_fraction", 0.5, "camera pixels stuck at a code of their own"),
        ("dead_macropixel_fraction", 0.5, "macropixels that stay at level 0"),
        ("stuck_macropixel_fraction", 0.5, "macropixels stuck at a level of their own"),
        ("dead_pixel_fraction", 0.5, "camera pixels without response to light"),
        ("hot_pixel_fraction", 0.1, "camera pixels with a large dark current"),
        ("saturated_fraction", 0.2, "share of the camera in one saturated region"),
        ("lost_frame_probability", 0.01, "that a frame does not arrive: the call fails"),
        ("swapped", 1.0, "from 0.5 on: the medium of another rig in place of its own"),
    ):
        # A measured matrix was measured on one medium; there is no other.
        if name == "swapped" and config.medium.kind == "file":
            continue
        yield Dial(
            name=name, unit="1", low=0, high=1, ideal=0, default=getattr(at, name),
            severe=severe, about=about,
        )  # fmt: skip


def _places(config: RigConfig) -> Iterator[Dial]:
    if config.sensor.read_shape is None:
        return  # a line of pixels without neighbours has no picture to shift
    at = OperatingPoint.of(config)
    for name in ("shift_rows_px", "shift_columns_px"):
        yield Dial(
            name=name, unit="1", low=-MAX_SHIFT_PX, high=MAX_SHIFT_PX, ideal=0.0,
            default=getattr(at, name), severe=0.5, about="misregistration of the camera, pixels",
        )  # fmt: skip
