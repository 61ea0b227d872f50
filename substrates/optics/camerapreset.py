"""A fitted camera as a preset (TOML and maps), and frames as it would take them."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from substrates.optics.camera import Camera
from substrates.optics.camerafit import SQUARED, CameraFit
from substrates.optics.config import RigConfig
from substrates.optics.point import OperatingPoint
from substrates.optics.sensor import SensorTable
from twin.config import build
from twin.key import Key

Floats = NDArray[np.float64]
DRAWS = 30
CHECKED_PIXELS = 4096


def options(fit: CameraFit, maps: str = "") -> dict[str, Any]:
    """Fields of RigConfig, with the table `sensor`, for the fitted camera.

    maps: name of the file of measured maps; without it maps of the same spread
    are drawn. Efficiency and light level are not told by frames.
    """
    share = {name: n / fit.moments.pixels for name, n in fit.moments.counts.items()}
    sensor: dict[str, Any] = {
        "gain_dn_per_electron": fit.value("gain"),
        "offset_dn": max(fit.value("offset"), 0.0),
        "prnu": fit.value("prnu"),
        "dsnu_electrons": fit.value("dsnu"),
        "read_noise_spread": min(fit.value("read_noise_spread"), 2.0),
    }
    if "dark_ratio" not in fit.maps or not maps:
        sensor["hot_pixel_fraction"] = share["hot"]
    if not maps:
        sensor["dead_pixel_fraction"] = share["dead"]
    if fit.full_well_electrons is not None:
        sensor["full_well_electrons"] = fit.full_well_electrons
    if len(fit.frames.shape) == 2:
        sensor["shape"] = tuple(fit.frames.shape)
    if fit.frames.step > 1:
        sensor["justification"] = "left"
    if maps:
        sensor["maps"] = maps
    return {
        "pixels": fit.moments.pixels,
        "camera_bits": fit.frames.bits,
        "read_noise_electrons": fit.value("read_noise"),
        "dark_electrons_per_s": max(fit.value("dark_current"), 0.0),
        "stuck_pixel_fraction": share["stuck"],
        "sensor": sensor,
    }


def document(fit: CameraFit, source: str, maps: str = "") -> str:
    """The preset as TOML, each estimate with its standard error and interval."""
    told = options(fit, maps)
    sensor = told.pop("sensor")
    lines = [f"# Camera {source}.", "# Value +- standard error [95 % interval]:"]
    lines += [
        f"#   {e.name} {e.value:.6g} +- {e.standard_error:.2g} [{e.low:.6g}, {e.high:.6g}] {e.unit}"
        for e in fit.estimates.values()
    ]
    lines += [f"{name} = {_toml(value)}" for name, value in told.items()]
    lines += ["", "[sensor]", *(f"{name} = {_toml(value)}" for name, value in sensor.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)


def maps_file(fit: CameraFit) -> bytes:
    """The maps and their standard errors (NAME_error) as .npz, shaped like a frame."""
    arrays = {n: m.reshape(fit.frames.shape).astype(np.float32) for n, m in fit.maps.items()}
    for name, error in fit.map_errors.items():
        arrays[f"{name}_error"] = error.reshape(fit.frames.shape).astype(np.float32)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


@dataclass(frozen=True)
class Predicted:
    """Statistics of the frames and of frames simulated from draws of the fit.

    names: of the statistics. seen: (statistics,). drawn: (DRAWS, statistics).
    """

    names: tuple[str, ...]
    seen: Floats
    drawn: Floats

    @property
    def distance(self) -> Floats:
        """Of each statistic from its prediction, in predictive standard deviations."""
        spread = np.maximum(self.drawn.std(0, ddof=1), 1e-12)
        return np.asarray((self.seen - self.drawn.mean(0)) / spread)


def predicted(fit: CameraFit, key: Key) -> Predicted:
    """The posterior-predictive check: temporal variance and, under flat light,
    spatial variance of every level used, and the kurtosis of the dark noise.

    The camera itself takes the simulated frames, so the whole preset is checked.
    """
    m = fit.moments
    chosen = key.child("pixels").numpy().permutation(len(m.good_pixels))[:CHECKED_PIXELS]
    chosen.sort()
    stacks = [level.codes[:, m.good_pixels[chosen]] for level in fit.frames.levels]
    flat = "prnu" in fit.estimates
    names = _names(fit, flat)
    drawn = [
        _statistics(_simulated(fit, chosen, flat, key.child("draw", n)), fit, chosen, flat)
        for n in range(DRAWS)
    ]
    return Predicted(names, _statistics(stacks, fit, chosen, flat), np.array(drawn))


def _names(fit: CameraFit, flat: bool) -> tuple[str, ...]:
    used = [str(x) for x, u in zip(fit.frames.levels, fit.moments.used, strict=True) if u]
    kinds = ["temporal variance", *(["spatial variance"] if flat else [])]
    return (*(f"{kind}, {level}" for kind in kinds for level in used), "kurtosis of dark noise")


def _statistics(
    stacks: list[NDArray[Any]], fit: CameraFit, chosen: NDArray[np.int64], flat: bool
) -> Floats:
    m = fit.moments
    temporal, spatial = [], []
    fourth, square, count = 0.0, 0.0, 0
    for j, codes in enumerate(stacks):
        values = codes.astype(np.float64)
        values -= values.mean(1, keepdims=True) - values.mean()
        kept = m.mask[j][chosen]
        if m.used[j]:
            temporal.append(values.var(0, ddof=1)[kept].mean())
            spatial.append(_shaded(values.mean(0), m.surface, chosen)[kept].var())
        if not m.lit[j]:
            squares = (values - values.mean(0)) ** 2
            fourth, square = fourth + (squares**2).sum(), square + squares.sum()
            count += squares.size
    kurtosis = fourth * count / max(square, 1e-30) ** 2
    return np.array([*temporal, *(spatial if flat else []), kurtosis])


def _shaded(means: Floats, surface: Floats | None, chosen: NDArray[np.int64]) -> Floats:
    """Without the lamp's shading."""
    if surface is None:
        return means
    terms = surface[chosen]
    return np.asarray(means - terms @ np.linalg.lstsq(terms, means, rcond=None)[0])


def _simulated(
    fit: CameraFit, chosen: NDArray[np.int64], flat: bool, key: Key
) -> list[NDArray[Any]]:
    """Frames of all levels, as the camera of one draw of the parameters takes them."""
    found = _drawn(fit, key)
    config = _config(fit, found, len(chosen))
    camera = Camera(config, key.child("camera"))
    m, stacks = fit.moments, []
    for j, level in enumerate(fit.frames.levels):
        means = m.mean[j][chosen] if not flat else np.full(len(chosen), m.level_mean[j])
        black = found["offset"] + found["gain"] * found["dark_current"] * level.exposure_s
        electrons = np.maximum(means - black, 0.0) / found["gain"] if level.lit else 0 * means
        # A light level of 1 electron and an exposure of 1 s are the units here.
        at = replace(OperatingPoint.of(config), exposure_ratio=max(level.exposure_s, 1e-9))
        light = torch.from_numpy(electrons / at.exposure_ratio).float()
        frames = light.expand(len(level.codes), -1)
        stacks.append(camera.frames(frames, at, key.child("frames", j), 0).numpy())
    return stacks


def _drawn(fit: CameraFit, key: Key) -> dict[str, float]:
    """Parameters from the normal law of the fit's errors; squares as roots."""
    weight = key.child("deviate").numpy().standard_normal(len(fit.deviates))
    shift = weight @ fit.deviates / math.sqrt(len(fit.deviates))
    found = {n: v + d for (n, v), d in zip(fit.parameters.items(), shift.tolist(), strict=True)}
    for name in SQUARED:
        found[name] = math.sqrt(max(found.get(name, 0.0), 0.0))
    return {name: max(value, 0.0) for name, value in found.items()}


def _config(fit: CameraFit, found: Mapping[str, float], pixels: int) -> RigConfig:
    table = {
        "gain_dn_per_electron": found["gain"],
        "offset_dn": found["offset"],
        "prnu": found["prnu"],
        "dsnu_electrons": found["dsnu"],
        "read_noise_spread": min(found["read_noise_spread"], 2.0),
    }
    return RigConfig(
        pixels=pixels, mean_electrons=1.0, exposure_s=1.0, camera_bits=fit.frames.bits,
        read_noise_electrons=found["read_noise"], dark_electrons_per_s=found["dark_current"],
        sensor=build(SensorTable, table, "sensor"),
    )  # fmt: skip
