"""Synthetic cameras with known parameters, and the frames a laboratory would take of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from substrates.optics.camera import Camera
from substrates.optics.point import OperatingPoint
from substrates.optics.presets import configured
from twin.key import Key

Stack = tuple[bool, float, NDArray[Any]]


def camera(
    key: Key, pixels: int = 400, sensor: dict[str, Any] | None = None, **options: Any
) -> tuple[Camera, OperatingPoint]:
    """A camera of 12 bits (unless stated) and the point at which it is delivered."""
    config = configured(
        {"pixels": pixels, "camera_bits": 12, **options, "sensor": dict(sensor or {})}
    )
    return Camera(config, key), OperatingPoint.of(config)


def exposed(
    sensor: Camera,
    at: OperatingPoint,
    key: Key,
    exposures_s: Sequence[float],
    electrons_per_s: float,
    frames: int = 2,
    dark_frames: int | None = None,
    pattern: NDArray[np.float64] | None = None,
) -> list[Stack]:
    """Stacks (lit, exposure, codes) of steady light and of the closed shutter.

    The camera has exposure_s = 1, so that its exposure ratio is in seconds.
    pattern: of the light over the pixels, mean 1.
    """
    stacks: list[Stack] = []
    for lit in (False, True):
        for j, seconds in enumerate(exposures_s):
            here = dataclasses.replace(at, exposure_ratio=seconds)
            count = frames if lit else dark_frames or frames
            level = electrons_per_s / at.mean_electrons if lit else 0.0
            flat = torch.full((count, sensor.sensor_pixels), level)
            light = flat if pattern is None else flat * torch.from_numpy(pattern).float()
            codes = sensor.frames(light, here, key.child("lit" if lit else "dark", j), 0)
            stacks.append((lit, seconds, codes.numpy()))
    return stacks
