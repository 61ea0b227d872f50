"""The optical backend: phase modulator, scattering medium, camera.

Frames are integers; time is virtual and follows from the frames taken.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from substrates.optics.camera import Camera
from substrates.optics.medium import GaussianMedium, Medium, with_unmodulated
from substrates.optics.modulator import PhaseModulator, flickered
from substrates.optics.presets import (
    OperatingPoint,
    RigConfig,
    capabilities,
    configured,
)
from twin.backend import (
    Ranged,
    Reading,
    Snapshot,
    Values,
    Written,
    single,
)
from twin.errors import (
    ConfigError,
    DeviceUnavailable,
    DialError,
    DriveError,
    SnapshotError,
    Unsupported,
)
from twin.key import SAMPLE_BLOCK, Key

RANGING_ROUNDS = 10


class OpticalRig:
    """frame = camera(|T exp(i pi drive)|^2): what a camera sees behind a medium.

    The medium and the maps of stuck and dead pixels are drawn once from the
    key the rig is made with. A reading of 1.0 is full_scale_over_mean times
    the mean intensity, at any exposure.
    """

    def __init__(self, config: RigConfig, key: Key, medium: Medium | None = None) -> None:
        """medium: takes inputs channels (one more with unmodulated light);
        a Gaussian one by default."""
        self._config = config
        self._device = _device(config.compute_device)
        channels = config.inputs + (config.unmodulated_fraction > 0)
        self._modulator = PhaseModulator(
            config.inputs, config.modulator_levels, key.child("modulator"), self._device
        )
        self._medium = medium or GaussianMedium(
            channels, config.pixels, key.child("medium"), self._device
        )
        self._camera = Camera(config, key.child("camera"), self._device)
        self._point = OperatingPoint.of(config)
        self._clock_s = 0.0
        self._version = 0
        self._closed = False
        self.capabilities = capabilities(config, key)

    def program(self, setting: Values, *, key: Key) -> Written:  # noqa: ARG002
        raise Unsupported(
            f"{self.capabilities.device_id}: a scattering medium cannot be programmed. "
            "Train a digital layer behind it."
        )

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        """One frame per sample and shot; the first shot is the frame of shots=None."""
        values = self._checked(drive)
        batch, repeats = len(values), shots or 1
        codes = torch.empty(
            (repeats, batch, self._config.pixels), dtype=self._camera.dtype, device=self._device
        )
        # Block by block: what a block needs stays in the processor's cache.
        for block in key.blocks(first_sample, batch):
            codes[:, block.start : block.stop] = self._frames(
                values[block.start : block.stop],
                key,
                first_sample=first_sample + block.start,
                shots=repeats,
                clock_s=self._clock_s + block.start * self._frame_s,
                shot_s=batch * self._frame_s,
            )
        seconds = self._frame_s * batch * repeats
        self._clock_s += seconds
        return Reading(
            codes=(codes if shots else codes[0]).to(values.device),
            ratio=1 / self._point.exposure_ratio,
            saturated=self._camera.clipped(codes),
            state_version=self._version,
            device_seconds=seconds,
            joules=seconds * self._config.electrical_power_w,
            clock_s=self._clock_s,
        )

    def set_range(self, drive: Values, *, key: Key) -> Ranged:
        """Auto-exposure: full scale becomes full_scale_over_mean x the mean frame.

        Measures again, with the new exposure, while more than 2 % of the
        pixels are clipped or the mean is below one code, ten times at most.
        """
        values = self._checked(drive)
        seconds = joules = 0.0
        passes, found = 0, False
        while not found and passes < RANGING_ROUNDS * len(values):
            reading = self.forward(values, key=key.child("range", passes))
            ratio, found = self._camera.better_exposure(reading.codes, self._point)
            self._point = dataclasses.replace(self._point, exposure_ratio=ratio)
            seconds, joules = seconds + reading.device_seconds, joules + reading.joules
            passes += len(values)
        self._version += 1
        return Ranged(
            state_version=self._version,
            ratio=1 / ratio,
            passes=passes,
            device_seconds=seconds,
            joules=joules,
        )

    def adjust(self, dial: str, value: Any, *, key: Key) -> int:  # noqa: ARG002
        """Turn a dial; the maps behind it were drawn when the rig was made."""
        declared = self.capabilities.dial(dial)
        number = float(value)
        if not declared.low <= number <= declared.high:
            raise DialError(
                f"{self.capabilities.device_id}: dial {dial!r} must be between {declared.low:g} "
                f"and {declared.high:g} {declared.unit}, got {number:g}."
            )
        point = dataclasses.replace(self._point, **{dial: number})
        try:
            self._camera.require_bright(point)
        except ConfigError as error:
            raise DialError(str(error)) from None
        self._point = point
        self._version += 1
        return self._version

    def wait(self, seconds: float) -> None:
        if not (math.isfinite(seconds) and seconds >= 0):
            raise DialError(f"a wait must be finite and >= 0 s, got {seconds}.")
        self._clock_s += seconds

    def snapshot(self) -> Snapshot:
        """Everything that can change. What is drawn once follows from the key."""
        values = {
            **dataclasses.asdict(self._point),
            "clock_s": self._clock_s,
            "state_version": self._version,
        }
        return Snapshot(device_id=self.capabilities.device_id, arrays={}, values=values)

    def restore(self, snapshot: Snapshot) -> None:
        expected = self.snapshot()
        if snapshot.device_id != expected.device_id:
            raise SnapshotError(
                f"this is {expected.device_id}, the snapshot is of {snapshot.device_id}. Make the "
                "rig with the configuration and key of that one."
            )
        if set(snapshot.values) != set(expected.values):
            differ = sorted(set(snapshot.values) ^ set(expected.values))
            raise SnapshotError(f"{expected.device_id}: snapshot differs in {', '.join(differ)}.")
        values = dict(snapshot.values)
        self._clock_s = float(values.pop("clock_s"))
        self._version = int(values.pop("state_version"))
        self._point = OperatingPoint(**{name: float(v) for name, v in values.items()})

    def close(self) -> None:
        """Light off; the rig takes no more frames."""
        self._closed = True

    @property
    def _frame_s(self) -> float:
        """Seconds per frame: an exposure longer than the period slows the rig down."""
        exposure_s = self._config.exposure_s * self._point.exposure_ratio
        return max(1 / self._config.frame_rate_hz, exposure_s)

    def _checked(self, drive: Values) -> Tensor:
        if self._closed:
            raise DeviceUnavailable(f"{self.capabilities.device_id} is closed. Open it again.")
        port = self.capabilities.drives[0]
        values = single(drive, port)
        if tuple(values.shape[1:]) != port.shape or len(values) == 0:
            raise DriveError(
                f"{self.capabilities.device_id}: drive has shape {tuple(values.shape)}, "
                f"expected (batch, {port.shape[0]})."
            )
        low, high = (bound.item() for bound in values.aminmax())
        if not (low >= port.low and high <= port.high):  # also true of NaN
            raise DriveError(
                f"{self.capabilities.device_id}: drive spans {low:g} to {high:g}, expected 0 to 1 "
                "(1.0 stands for pi rad). Scale it."
            )
        return values

    def _frames(
        self, drive: Tensor, key: Key, first_sample: int, shots: int, clock_s: float, shot_s: float
    ) -> Tensor:
        """Codes of a part of one aligned block, (shots, rows, pixels).

        The first sample of the first shot is taken at `clock_s`, that of the
        next shot `shot_s` later.
        """
        point = self._point
        light = self._shown(drive)
        fixed = self._medium.static and point.phase_flicker_rad == 0
        out = []
        for shot in range(shots):
            shot_key = key.child("shot", shot)
            if shot == 0 or not fixed:
                flicker = flickered(
                    light, point.phase_flicker_rad, shot_key.child("flicker"), first_sample
                )
                intensity = self._intensity(flicker, clock_s + shot * shot_s)[: len(drive)]
            out.append(self._camera.frames(intensity, point, shot_key, first_sample))
        return torch.stack(out)

    def _shown(self, drive: Tensor) -> Tensor:
        """Light behind the modulator, (SAMPLE_BLOCK, inputs), for a part of a block.

        Padded to one size: a product of fewer rows rounds differently, and one
        different bit shifts the whole stream of a Poisson sampler.
        """
        padded = torch.zeros((SAMPLE_BLOCK, self._config.inputs), device=self._device)
        padded[: len(drive)] = drive
        return self._modulator.light(padded, self._point.dead_macropixel_fraction)

    def _intensity(self, light: Tensor, clock_s: float) -> Tensor:
        """|field|^2 on the camera, (rows, pixels), float32, mean 1 over media."""
        if self._config.unmodulated_fraction > 0:
            light = with_unmodulated(light, self._config.unmodulated_fraction)
        field = self._medium.transmit(light, clock_s, self._frame_s)
        return field.real.square().addcmul_(field.imag, field.imag)


def make(*, key: Key, **options: object) -> OpticalRig:
    """The backend's entry point: fields of RigConfig, and a `preset` to start from."""
    return OpticalRig(configured(options), key)


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"optics.compute_device: {name!r} cannot be used ({reason}). Use 'cpu'."
        ) from None
