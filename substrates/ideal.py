"""The smallest honest backend: a matrix product in numpy with additive noise.

Copy this file to write a driver. Only four members are needed; the rest of the
contract comes from ``twin.complete``. The numbers stand for volts.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from twin.backend import Capabilities, Port, Reading, Values, Written, single
from twin.config import STRICT, build
from twin.key import Key


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IdealConfig:
    """inputs, outputs: sizes. noise_v: r.m.s. noise of a reading, volts."""

    inputs: Annotated[int, Field(ge=1)] = 16
    outputs: Annotated[int, Field(ge=1)] = 8
    noise_v: Annotated[float, Field(ge=0, le=1)] = 0.0


class Ideal:
    """y = x W + noise, with x in [0, 1] V, W in [-1, 1] and y in volts."""

    def __init__(self, config: IdealConfig) -> None:
        n, m = config.inputs, config.outputs
        self._config = config
        self._weights = np.zeros((n, m), np.float32)
        self._version = 0
        limit = n + 10 * config.noise_v
        self.capabilities = Capabilities(
            device_id=f"ideal-{n}x{m}",
            drives=(Port(name="in", shape=(n,), unit="V"),),
            settings=(Port(name="weights", shape=(n, m), low=-1.0),),
            readings=(Port(name="out", shape=(m,), low=-limit, high=limit, unit="V"),),
            deterministic=config.noise_v == 0,
            seedable=True,
        )

    def program(self, setting: Values, *, key: Key) -> Written:
        weights = single(setting, self.capabilities.settings[0])
        self._weights = weights.numpy().copy()  # the caller may reuse its buffer
        self._version += 1
        return Written(state_version=self._version, cells=self._weights.size)

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        x = single(drive, self.capabilities.drives[0]).numpy()
        y = x @ self._weights
        repeats = [y + self._noise(key, s, first_sample, len(x)) for s in range(shots or 1)]
        codes = np.stack(repeats) if shots else repeats[0]
        limit = self.capabilities.readings[0].high
        codes = codes.clip(-limit, limit).astype(np.float32)
        return Reading(codes=torch.from_numpy(codes), state_version=self._version)

    def close(self) -> None:
        self._weights[:] = 0.0

    def _noise(self, key: Key, shot: int, first_sample: int, batch: int) -> np.ndarray:
        """One stream per sample: what else is in the batch cannot matter."""
        if self._config.noise_v == 0:
            return np.zeros((batch, self._config.outputs))
        streams = (key.child(shot, first_sample + b).numpy() for b in range(batch))
        draws = [stream.standard_normal(self._config.outputs) for stream in streams]
        return self._config.noise_v * np.stack(draws)


def make(*, key: Key, **options: object) -> Ideal:
    """The backend's entry point: options are the fields of IdealConfig."""
    return Ideal(build(IdealConfig, options, "ideal"))
