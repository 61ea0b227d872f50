"""Models of devices that a method may look into: known, known wrongly, unknown, fitted.

What is wrong about a twin depends on the run's seed and the unit alone, so that
errors of different sizes are nested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from pib.network import Network
from twin.backend import Capabilities, MinimalBackend, Port, Reading, Values, Written, single
from twin.errors import Unsupported
from twin.fence import Fence
from twin.key import Key
from validation.baselines.method import Twins, UnitTwin
from validation.baselines.twins_fitted import fitted_twin
from validation.baselines.twins_optics import (
    mistaken,
    optical_twin,
    require_same,
    unrelated,
)
from validation.config import CompareTable, RunConfig, UnitTable

WRAPPERS = {"faulty+": "fault_rate", "broken+": "code_weight"}
"""Prefixes of a backend's name, and the option that each takes for itself."""


class DeviceTwin(UnitTwin, Protocol):
    """A twin that a device can be made of. notes: figures of a fit, by name."""

    notes: Mapping[str, float]

    def backend(self, dials: Mapping[str, Any] | None = None) -> MinimalBackend: ...


def twins_for(config: RunConfig, network: Network, key: Key) -> Twins:
    """The twins of a network as config.compare says, each made when first asked for.

    key: of the run, with which the network was built. Raises Unsupported where a
    device has no twin, ConfigError where the device is not that of `config` and `key`.
    """
    made: dict[int, DeviceTwin] = {}

    def twin(index: int) -> DeviceTwin:
        if index not in made:
            fence = network.units[index].fence
            made[index] = _made(config.compare, config.unit[index], index, fence, key)
        return made[index]

    return twin


def has_twin(table: UnitTable) -> bool:
    """Whether a unit's device has a differentiable model here."""
    return table.kind == "isomorphic" or _unwrapped(table)[0] == "optics"


def _made(
    compare: CompareTable, table: UnitTable, index: int, fence: Fence, key: Key
) -> DeviceTwin:
    here = key.child("twin", index)
    if table.kind == "isomorphic":
        return _matrix_twin(compare, fence, here)
    backend, options = _unwrapped(table)
    if backend != "optics":
        raise Unsupported(
            f"{fence.name}: there is no differentiable model of the fixed physics {table.backend!r}"
            ". Use an optical unit, or a method without a twin."
        )
    (inputs,) = fence.drive_port.shape
    exact = optical_twin(options, inputs, key.child("device", index))
    if backend == table.backend:
        require_same(exact, fence.capabilities.device_id, fence.name)
    match compare.twin:
        case "known":
            return mistaken(exact, compare.twin_error, here.child("error"))
        case "unknown":
            return unrelated(exact, here.child("other"))
    return fitted_twin(exact, fence, compare.twin_probes, here.child("fit"))


def _unwrapped(table: UnitTable) -> tuple[str, dict[str, Any]]:
    """Name and options of the backend inside wrappers that change no number."""
    name, options = table.backend, dict(table.options)
    for prefix, own in WRAPPERS.items():
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            options.pop(own, None)
    return name, options


# ---- written matrices ---------------------------------------------------------


class MatrixTwin:
    """reading = drive x setting in the reading's units, for a device that is written.

    The setting that the device is taken to have is (W + error rms(W) E) / sqrt(1 +
    error^2), E Gaussian of `key` alone; rms(W) E for error = inf.
    """

    def __init__(self, capabilities: Capabilities, key: Key, error: float = 0.0) -> None:
        self._capabilities = capabilities
        drive, setting = capabilities.drives[0], capabilities.settings[0]
        # As backward.gain_of: a reading of 1 stands for so much of drive x setting.
        self._gain = capabilities.readings[0].full_scale / (drive.full_scale * setting.full_scale)
        self._kept = 0.0 if math.isinf(error) else 1 / math.sqrt(1 + error**2)
        self._wrong = math.sqrt(max(0.0, 1 - self._kept**2))
        self._error = (
            torch.randn(setting.shape, generator=key.torch()) if self._wrong else torch.zeros(1)
        )
        self.notes: Mapping[str, float] = {}

    def believed(self, setting: Tensor) -> Tensor:
        """What the device is taken to hold where `setting` was written."""
        if not self._wrong:
            return setting
        rms = setting.square().mean().sqrt()
        return self._kept * setting + self._wrong * rms * self._error

    def predict(self, drive: Tensor, setting: Tensor | None = None) -> Tensor:
        """Reading (n, outputs) of a drive (n, inputs) and a setting (inputs, outputs)."""
        if setting is None:
            raise Unsupported("the reading of a written matrix depends on the setting. Give it.")
        return drive @ self.believed(setting) / self._gain

    def backend(self, dials: Mapping[str, Any] | None = None) -> MatrixBackend:  # noqa: ARG002
        """A noiseless device that behaves as this twin."""
        return MatrixBackend(self, self._capabilities)


class MatrixBackend:
    """A device made of a matrix twin: the ports of the real one, plain readings, no noise."""

    def __init__(self, twin: MatrixTwin, real: Capabilities) -> None:
        self._twin, self._version = twin, 0
        (setting,), reading = real.settings, real.readings[0]
        self._written = torch.zeros(setting.shape)
        limit = 2 * math.prod(setting.shape[:1]) * max(1.0, 1 / twin._gain)
        self.capabilities = Capabilities(
            device_id=f"twin-of-{real.device_id}",
            drives=real.drives[:1],
            settings=real.settings,
            readings=(
                Port(
                    name=reading.name, shape=reading.shape, low=-limit, high=limit,
                    full_scale=reading.full_scale, unit=reading.unit,
                ),
            ),
            deterministic=True,
            seedable=True,
            clock="virtual",
        )  # fmt: skip

    def program(self, setting: Values, *, key: Key) -> Written:  # noqa: ARG002
        self._written = single(setting, self.capabilities.settings[0]).clone()
        self._version += 1
        return Written(state_version=self._version)

    def forward(
        self,
        drive: Values,
        *,
        key: Key,  # noqa: ARG002
        first_sample: int = 0,  # noqa: ARG002
        shots: int | None = None,
    ) -> Reading:
        values = self._twin.predict(single(drive, self.capabilities.drives[0]), self._written)
        codes = values if shots is None else values.expand(shots, *values.shape).clone()
        return Reading(codes=codes, state_version=self._version)

    def wait(self, seconds: float) -> None:
        """A matrix in a computer does not age."""

    def close(self) -> None:
        """Nothing to leave safe."""


def _matrix_twin(compare: CompareTable, fence: Fence, key: Key) -> MatrixTwin:
    if compare.twin == "fitted":
        raise Unsupported(
            f"{fence.name}: a device whose setting is written needs no fit, its matrix is known up "
            'to an error. Use compare.twin = "known" with a twin_error.'
        )
    error = math.inf if compare.twin == "unknown" else compare.twin_error
    return MatrixTwin(fence.capabilities, key.child("error"), error)
