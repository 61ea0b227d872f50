"""A simulated backend with calibrated parameters: mean, Gaussian noise, rounding, clipping."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from twin.backend import Capabilities, Reading, Snapshot, Values, Written, single
from twin.calibration import Calibration
from twin.errors import DialError, SnapshotError, Unsupported
from twin.key import Key
from twin.twinmodel import Floats, TwinModel, same_ports

PREFIX = "twin-of-"


class CalibratedTwin:
    """The device of a calibration, simulated: its ports, ranges and noise, no dials.

    It starts in the state that the recorded device was left in, as old as that was; what a
    program() writes scatters as the device's writes did. Noise of a shot is Gaussian with the
    predicted variance: photon noise of fewer than about 20 electrons is not.
    """

    def __init__(self, calibration: Calibration, model: TwinModel) -> None:
        if model.kind != calibration.kind or model.parameters != calibration.parameters:
            raise Unsupported(
                f"the calibration is of a {calibration.kind!r} twin and its parameters; got a "
                f"model of {model.kind!r}. Make the model that was fitted."
            )
        if not same_ports(model.capabilities, calibration.capabilities):
            raise Unsupported(
                f"the model was made for other ports than those of {calibration.device_id}. Make "
                "it from the calibration's capabilities."
            )
        self.calibration = calibration
        self._model = model
        self._state = dict(model.held(calibration.values))
        self._version, self._clock_s = 0, 0.0
        self._age_s = model.held_age_s(calibration.values)
        self.capabilities = _capabilities(calibration.capabilities)
        port = self.capabilities.readings[0]
        self._ratio = torch.from_numpy(calibration.step / port.step).float()

    def program(self, setting: Values, *, key: Key) -> Written:
        """Write: the state becomes what such a write made of the device, in law."""
        if not self.capabilities.programmable:
            raise Unsupported(f"{self.capabilities.device_id} has nothing to program.")
        wanted = single(setting, self.capabilities.settings[0]).detach().double().numpy()
        written = self._model.written(self.calibration.values, wanted, key=key.child("write"))
        self._state = dict(written)
        self._version, self._age_s = self._version + 1, 0.0
        return Written(state_version=self._version, cells=wanted.size)

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        values = single(drive, self.capabilities.drives[0])
        port, step = self.capabilities.readings[0], self.calibration.step
        x = self.capabilities.drives[0].on_grid(values.detach()).flatten(1).double().numpy()
        mean, variance = self._model.predict(
            self.calibration.values, x, self._state, np.asarray(self._age_s)
        )
        # Rounding to codes adds its own twelfth of a step squared again.
        rounding = step**2 / 12 if port.is_coded else 0.0
        sigma = np.sqrt(np.maximum(variance - rounding, 0.0))
        keys = [key] if shots is None else [key.child("shot", s) for s in range(shots)]
        raw = np.stack([mean + sigma * _normal(k, first_sample, mean.shape) for k in keys])
        codes = np.clip(raw / step, port.code_low, port.code_high)
        passes = len(x) * (shots or 1)
        seconds = passes * self.calibration.seconds_per_pass
        self._pass_time(seconds)
        ends = (codes <= port.code_low) | (codes >= port.code_high)
        made = torch.from_numpy(codes).view(len(keys), len(x), *port.shape)
        made = (made.round() if port.is_coded else made).to(port.torch_dtype)
        return Reading(
            codes=made[0] if shots is None else made,
            ratio=self._ratio.view(port.shape).clone(),
            saturated=float(ends.mean()),
            state_version=self._version,
            device_seconds=seconds,
            clock_s=self._clock_s,
        )

    def wait(self, seconds: float) -> None:
        """Let what was written relax for `seconds`."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise DialError(f"a wait must be finite and >= 0 s, got {seconds}.")
        self._pass_time(seconds)

    def snapshot(self) -> Snapshot:
        """The state, its age and the clock."""
        arrays = {name: torch.from_numpy(np.array(a)) for name, a in self._state.items()}
        values = {"clock_s": self._clock_s, "age_s": self._age_s, "state_version": self._version}
        return Snapshot(self.capabilities.device_id, arrays, values)

    def restore(self, snapshot: Snapshot) -> None:
        """Return to a state this twin had; SnapshotError otherwise."""
        shapes = {name: tuple(a.shape) for name, a in snapshot.arrays.items()}
        expected = {name: a.shape for name, a in self._state.items()}
        names = {"clock_s", "age_s", "state_version"}
        same_id = snapshot.device_id == self.capabilities.device_id
        if not same_id or shapes != expected or set(snapshot.values) != names:
            raise SnapshotError(
                f"expected a snapshot of {self.capabilities.device_id} with {expected}, got one of "
                f"{snapshot.device_id} with {shapes}. Restore one of this very twin."
            )
        self._state = {n: _array(a) for n, a in snapshot.arrays.items()}
        self._clock_s = float(snapshot.values["clock_s"])
        self._age_s = float(snapshot.values["age_s"])
        self._version = int(snapshot.values["state_version"])

    def close(self) -> None:
        """Nothing to leave safe."""

    def set_range(self, drive: Values, *, key: Key) -> object:  # noqa: ARG002
        raise Unsupported(f"{self.capabilities.device_id} has the range it was calibrated with.")

    def _pass_time(self, seconds: float) -> None:
        self._clock_s += seconds
        self._age_s += seconds


def _array(value: Tensor) -> Floats:
    return value.detach().to("cpu", torch.float64, copy=True).numpy()


def _capabilities(real: Capabilities) -> Capabilities:
    return replace(
        real,
        device_id=f"{PREFIX}{real.device_id}",
        readings=real.readings[:1],
        dials=(),
        deterministic=False,
        seedable=True,
        restorable=True,
        rangeable=False,
        read_disturb=False,
        max_batch=None,
        clock="virtual",
    )


def _normal(key: Key, first_sample: int, shape: tuple[int, ...]) -> Floats:
    """N(0, 1) of (batch, outputs): sample n's numbers whatever the chunk it is in."""
    drawn = np.empty(shape)
    for block in key.blocks(first_sample, shape[0]):
        count = block.stop - block.start
        whole = block.key.numpy().standard_normal((block.offset + count, shape[1]))
        drawn[block.start : block.stop] = whole[block.offset :]
    return drawn
