"""The optical backend: modulator, scattering medium, camera.

Frames are integers; time is virtual and follows from the frames taken.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from substrates.optics.camera import Camera
from substrates.optics.chain import Chain
from substrates.optics.config import RigConfig
from substrates.optics.medium import Medium
from substrates.optics.modulatortable import make_modulator
from substrates.optics.point import OperatingPoint
from substrates.optics.ports import capabilities
from substrates.optics.presets import configured
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
from twin.key import Key

RANGING_ROUNDS = 10
PATTERN = "pattern_rad"


class OpticalRig:
    """frame = camera(|T light(drive)|^2): what a camera sees behind a medium.

    The medium and the maps of faulty pixels are drawn once from the key the rig
    is made with. A reading of 1.0 is full_scale_over_mean times the mean
    intensity, at any exposure; with a black level, that level is part of it.
    """

    def __init__(self, config: RigConfig, key: Key, medium: Medium | None = None) -> None:
        """medium: takes inputs channels (one more with unmodulated light); by
        default that of the configuration."""
        self._config = config
        self._device = _device(config.compute_device)
        self._camera = Camera(config, key.child("camera"), self._device)
        modulator = make_modulator(
            config.own_modulator(), config.inputs, key.child("modulator"), self._device
        )
        self._chain = Chain(config, modulator, self._camera.sensor_pixels, key, medium)
        self._point = OperatingPoint.of(config)
        self._clock_s = self._drift_s = 0.0
        self._pattern: Tensor | None = None
        self._version = 0
        self._closed = False
        self.capabilities = capabilities(config, key, modulator, self._camera)

    def program(self, setting: Values, *, key: Key) -> Written:  # noqa: ARG002
        raise Unsupported(
            f"{self.capabilities.device_id}: a scattering medium cannot be programmed. "
            "Train a digital layer behind it."
        )

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        """One frame per sample and shot; the first shot is the frame of shots=None."""
        values = self._checked(drive).to(self._device)
        batch, repeats, frame_s = len(values), shots or 1, self._frame_s
        shown, pattern = self._chain.in_order(values, repeats, self._point, self._pattern, frame_s)
        try:
            self._require_delivered(key, first_sample, batch, repeats)
        except DeviceUnavailable:
            self._pattern = pattern  # what was lost had been shown
            raise
        codes = torch.empty(
            (repeats, batch, self._config.pixels), dtype=self._camera.dtype, device=self._device
        )
        # Block by block: what a block needs stays in the processor's cache.
        for block in key.blocks(first_sample, batch):
            rows = slice(block.start, block.stop)
            intensities = self._chain.intensities(
                values[rows] if shown is None else [light[rows] for light in shown],
                self._point,
                key,
                first_sample=first_sample + block.start,
                shots=repeats,
                clock_s=self._clock_s + block.start * frame_s,
                drift_s=self._drift_s + block.start * frame_s * self._point.drift_scale,
                frame_s=frame_s,
                shot_s=batch * frame_s,
            )
            for shot, intensity in enumerate(intensities):
                codes[shot, rows] = self._camera.frames(
                    intensity, self._point, key.child("shot", shot), first_sample + block.start
                )
        seconds = frame_s * batch * repeats
        self._pass_time(seconds)
        self._pattern = pattern
        return Reading(
            codes=(codes if shots else codes[0]).to(values.device),
            ratio=1 / self._point.exposure_ratio,
            saturated=self._camera.clipped(codes, self._point),
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
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise DialError(
                f"{self.capabilities.device_id}: dial {dial!r} takes a number in {declared.unit}, "
                f"got {value!r}."
            ) from None
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
        """Let time pass: the medium drifts, the last pattern settles."""
        clocks = (self._clock_s + seconds, self._drift_s + seconds * self._point.drift_scale)
        if not (seconds >= 0 and all(map(math.isfinite, clocks))):
            raise DialError(f"a wait must be finite and >= 0 s, got {seconds}.")
        self._pass_time(seconds)
        self._pattern = self._chain.rested(self._pattern, seconds)

    def snapshot(self) -> Snapshot:
        """Everything that can change. What is drawn once follows from the key."""
        values = {
            **dataclasses.asdict(self._point),
            "clock_s": self._clock_s,
            "drift_s": self._drift_s,
            "state_version": self._version,
        }
        pattern = self._pattern
        arrays = {} if pattern is None else {PATTERN: pattern.to("cpu", copy=True)}
        return Snapshot(device_id=self.capabilities.device_id, arrays=arrays, values=values)

    def restore(self, snapshot: Snapshot) -> None:
        """Return to a state this very rig had; SnapshotError otherwise."""
        expected = self.snapshot()
        if snapshot.device_id != expected.device_id:
            raise SnapshotError(
                f"this is {expected.device_id}, the snapshot is of {snapshot.device_id}. Make the "
                "rig with the configuration and key of that one."
            )
        if set(snapshot.values) != set(expected.values):
            differ = sorted(set(snapshot.values) ^ set(expected.values))
            raise SnapshotError(f"{expected.device_id}: snapshot differs in {', '.join(differ)}.")
        shapes = {name: tuple(array.shape) for name, array in snapshot.arrays.items()}
        if shapes not in ({}, {PATTERN: self._chain.pattern_shape}):
            raise SnapshotError(f"{expected.device_id}: the snapshot's arrays are {shapes}.")
        pattern = snapshot.arrays.get(PATTERN)
        if pattern is not None and not bool(torch.isfinite(pattern).all()):
            raise SnapshotError(f"{expected.device_id}: the snapshot's pattern is not finite.")
        try:
            values = {name: float(value) for name, value in snapshot.values.items()}
            version = int(values.pop("state_version"))
            clocks = values.pop("clock_s"), values.pop("drift_s")
        except (TypeError, ValueError, OverflowError) as error:
            raise SnapshotError(f"{expected.device_id}: a value is no number ({error}).") from None
        if not all(math.isfinite(clock) and clock >= 0 for clock in clocks):
            raise SnapshotError(f"{expected.device_id}: clocks {clocks} s, expected >= 0 s.")
        for dial in self.capabilities.dials:
            if not dial.low <= values[dial.name] <= dial.high:
                raise SnapshotError(
                    f"{expected.device_id}: in the snapshot {dial.name} is {values[dial.name]:g} "
                    f"{dial.unit}, expected {dial.low:g} to {dial.high:g}."
                )
        self._version, (self._clock_s, self._drift_s) = version, clocks
        self._point = OperatingPoint(**values)
        self._pattern = None if pattern is None else pattern.to(self._device, copy=True)

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
            stands_for = "pi rad" if port.unit == "rad" else "all mirrors on"
            raise DriveError(
                f"{self.capabilities.device_id}: drive spans {low:g} to {high:g}, expected 0 to 1 "
                f"(1.0 stands for {stands_for}). Scale it."
            )
        return values

    def _require_delivered(self, key: Key, first_sample: int, batch: int, shots: int) -> None:
        """DeviceUnavailable if a frame is lost; the frames have taken their time then."""
        frame_s = self._frame_s
        try:
            for shot in range(shots):
                begin_s = self._clock_s + shot * batch * frame_s
                self._camera.require_delivered(
                    self._point, key.child("shot", shot), first_sample, batch, begin_s, frame_s
                )
        except DeviceUnavailable:
            self._pass_time(frame_s * batch * shots)
            raise

    def _pass_time(self, seconds: float) -> None:
        self._clock_s += seconds
        self._drift_s += seconds * self._point.drift_scale


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
