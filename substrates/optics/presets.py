"""Named rigs, and how options and a preset make a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from substrates.optics.config import RigConfig
from substrates.optics.driftclock import PRESETS as DRIFTS
from substrates.optics.sensor import SENSORS
from twin.config import build
from twin.errors import UnknownName, nearest

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
    merged = {**PRESETS[preset], **own}
    for part, known in (("drift", DRIFTS), ("sensor", SENSORS)):
        name = merged.get(part)
        if isinstance(name, str):
            if name not in known:
                raise UnknownName(f"optics.{part}: no preset {name!r}. {nearest(name, known)}")
            merged[part] = known[name]
    for part in ("medium", "modulator"):
        if isinstance(merged.get(part), str):
            merged[part] = {"kind": merged[part]}
    return build(RigConfig, merged, "optics")
