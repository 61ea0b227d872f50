"""Differentiable twins of an optical rig, and rigs that behave as such a twin.

A twin knows the modulator, the camera's scale and a transmission matrix. It does
not know which pixels are faulty by dial, nor drift, flicker or any noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from substrates.optics.camera import Camera
from substrates.optics.config import RigConfig
from substrates.optics.media import make_medium
from substrates.optics.medium import (
    MatrixMedium,
    gaussian_matrix,
    summed_intensity,
    transmitted,
    with_unmodulated,
)
from substrates.optics.mediumtable import FileTable
from substrates.optics.modulator import LevelModulator
from substrates.optics.modulatortable import make_modulator
from substrates.optics.point import OperatingPoint
from substrates.optics.ports import capabilities
from substrates.optics.presets import configured
from substrates.optics.rig import OpticalRig
from twin.errors import ConfigError, Unsupported
from twin.key import Key

NOISE_DIALS = ("mean_electrons", "read_noise_electrons")
"""What an operator reads off a light meter and a data sheet, and a twin may know."""


class OpticalTwin:
    """reading = camera(|T light(drive)|^2), without noise and rounding.

    Drives on the modulator's levels are exact; between them modulus and phase are
    interpolated linearly, which for a phase modulator on [0, pi] is exp(i pi drive).
    matrix: (pixels, channels), or (patterns, pixels, channels), complex64; by
    default that of the very rig which `config` and `key` make. notes: figures of a fit.
    """

    def __init__(self, config: RigConfig, key: Key, matrix: Tensor | None = None) -> None:
        self._config, self._key = config, key
        modulator = make_modulator(config.own_modulator(), config.inputs, key.child("modulator"))
        self._shown = _Shown.of(modulator)
        self._camera = Camera(config, key.child("camera"))
        self._at = OperatingPoint.of(config)
        self.device_id = capabilities(config, key, modulator, self._camera).device_id
        self.matrix = own_matrix(self, key.child("medium")) if matrix is None else matrix
        self.notes: Mapping[str, float] = {}

    @property
    def config(self) -> RigConfig:
        return self._config

    @property
    def channels(self) -> int:
        """Columns of the matrix: macropixels, and light that misses them if there is any."""
        return self._config.inputs + (self._config.unmodulated_fraction > 0)

    @property
    def pixels(self) -> int:
        """Rows of the matrix."""
        return self._camera.sensor_pixels

    def predict(self, drive: Tensor, setting: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Reading (n, pixels read) of a drive (n, inputs) in [0, 1], float32."""
        return self.reading(summed_intensity(transmitted(self.light(drive), self.matrix)))

    def light(self, drive: Tensor) -> Tensor:
        """Light on the medium, (n, channels), complex64."""
        light = self._shown(drive)
        fraction = self._config.unmodulated_fraction
        return with_unmodulated(light, fraction) if fraction > 0 else light

    def reading(self, intensity: Tensor) -> Tensor:
        """What the camera makes of an intensity (n, sensor pixels) of mean 1, clipped as there."""
        camera, sensor = self._camera, self._camera.sensor
        charge = camera.mean_charge(intensity, self._at)
        if sensor.full_well_electrons is not None:
            charge = charge.clamp(max=sensor.full_well_electrons * sensor.binning**2)
        gain = camera.gain(self._at)
        level = charge * gain + camera._bias_dn(gain)
        return level.clamp(0, camera.top) * (camera.step / camera.end)

    def intensity(self, reading: Tensor) -> Tensor:
        """The intensity behind an unclipped reading; Unsupported for a camera that bins."""
        if self.pixels != self._config.pixels:
            raise Unsupported(
                "a twin cannot be fitted through a camera that bins or crops: several pixels' "
                "rows make one number. Leave sensor.shape out, or use a known twin."
            )
        dark, one = (self.reading(torch.full((1, self.pixels), level)) for level in (0.0, 1.0))
        return (reading - dark) / (one - dark).clamp_min(1e-9)

    def with_matrix(self, matrix: Tensor, notes: Mapping[str, float] | None = None) -> OpticalTwin:
        """The same rig behind another medium."""
        twin = OpticalTwin(self._config, self._key, matrix)
        twin.notes = dict(notes or {})
        return twin

    def backend(self, dials: Mapping[str, Any] | None = None) -> OpticalRig:
        """A rig that behaves as this twin, with the noise of the real one.

        dials: values of the real rig's dials, of which those of the noise are set.
        """
        rig = OpticalRig(self._config, self._key, MatrixMedium(self.matrix))
        for name in NOISE_DIALS:
            if dials is not None and name in dials:
                rig.adjust(name, dials[name], key=self._key)
        return rig


def optical_twin(options: Mapping[str, Any], inputs: int, key: Key) -> OpticalTwin:
    """The exact twin of the rig that `options` and the device's `key` make."""
    return OpticalTwin(configured({"inputs": inputs, **options}), key)


def own_matrix(twin: OpticalTwin, key: Key) -> Tensor:
    """The matrix that the configured medium has with the medium's key."""
    config = twin.config
    steady = config.unmodulated_fraction > 0
    medium = make_medium(config.medium, twin.channels, twin.pixels, key, steady=steady)
    if not isinstance(medium, MatrixMedium):
        raise Unsupported(
            f"the medium {config.medium.kind!r} with these options has no transmission matrix, so "
            "there is no twin of it. Use kerr_rad = 0, or a method without a twin."
        )
    return medium.matrix


def mistaken(twin: OpticalTwin, error: float, key: Key) -> OpticalTwin:
    """(T + error E) / sqrt(1 + error^2): E is complex Gaussian of T's r.m.s. and of `key`
    alone, so that errors of different sizes point the same way."""
    if error == 0:
        return twin
    matrix = twin.matrix
    rms = float(matrix.abs().square().mean().sqrt())
    parts = torch.randn((2, *matrix.shape), generator=key.torch()) * (rms / math.sqrt(2))
    wrong = matrix + error * torch.complex(parts[0], parts[1])
    return twin.with_matrix(wrong / math.sqrt(1 + error**2))


def unrelated(twin: OpticalTwin, key: Key) -> OpticalTwin:
    """Another device's matrix, of the same law (Gaussian for a measured one)."""
    if isinstance(twin.config.medium, FileTable):
        return twin.with_matrix(gaussian_matrix(twin.pixels, twin.channels, key))
    return twin.with_matrix(own_matrix(twin, key))


class _Shown:
    """Light of a macropixel against its drive, differentiable; tables over the levels."""

    def __init__(self, modulus: Tensor, phase_rad: Tensor) -> None:
        steps = phase_rad.diff()
        even = float((steps - steps[0]).abs().max()) < 1e-9 * math.pi
        self._even = even and bool((modulus - 1).abs().max() < 1e-9)
        self._from, self._span = float(phase_rad[0]), float(phase_rad[-1] - phase_rad[0])
        self._modulus, self._phase = modulus.float(), phase_rad.float()

    @classmethod
    def of(cls, modulator: object) -> _Shown:
        if not isinstance(modulator, LevelModulator):
            raise Unsupported(
                "a modulator that settles or has crosstalk shows no light of one macropixel's "
                "drive alone, so there is no twin of it. Use settling_s = 0 and crosstalk = 0, "
                "or a method without a twin."
            )
        if modulator._threshold not in (None, 0.5):
            raise Unsupported(
                f"mirrors that switch at {modulator._threshold:g} have uneven levels and no twin. "
                "Use threshold = 0.5 or binarise = 'area'."
            )
        angle = torch.where(modulator.shown == 0, 0, modulator.shown.angle())
        turns = ((angle.diff() + math.pi).floor_divide(2 * math.pi) * 2 * math.pi).cumsum(0)
        return cls(modulator.shown.abs(), torch.cat([angle[:1], angle[1:] - turns]))

    def __call__(self, drive: Tensor) -> Tensor:
        if self._even:
            phase = self._from + self._span * drive
            return torch.complex(phase.cos(), phase.sin())
        top = len(self._phase) - 1
        place = drive * top
        below = place.detach().floor().clamp(0, top - 1).to(torch.int64)
        share = place - below
        modulus, phase = (t[below].lerp(t[below + 1], share) for t in (self._modulus, self._phase))
        return torch.complex(modulus * phase.cos(), modulus * phase.sin())


def require_same(twin: OpticalTwin, device_id: str, name: str) -> None:
    """ConfigError if a known twin is that of another device than the one behind the fence."""
    if twin.device_id != device_id:
        raise ConfigError(
            f"{name}: the device is {device_id}, but its options and the key make "
            f"{twin.device_id}. Give the twin the run's own configuration and key."
        )
