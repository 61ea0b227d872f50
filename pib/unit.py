"""A unit: a backend together with what it learns locally.

Isomorphic: the setting is the weight matrix and the physics emulates the
product. Broken isomorphism: fixed physics, then a trainable digital layer. In
both the feature is z = relu(x W + b); they differ in who computes x W.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pib.rule import outer_product, rectified
from pib.writes import WHOLE, Writes
from twin.errors import ConfigError
from twin.fence import Fence
from twin.key import Key


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one pass left behind: the drive on the converter's grid and the
    measured values, (batch, inputs) and (batch, reading), float32."""

    drive: Tensor
    values: Tensor
    saturated: float = 0.0


class Unit(Protocol):
    """What the trainer needs of a unit.

    fixed_physics: records stay valid while the unit learns, so that they can
    be stored. parameters: named float32 tensors the optimiser changes.
    """

    name: str
    fence: Fence
    width: int
    fixed_physics: bool
    parameters: dict[str, Tensor]

    def capture(
        self, drive: Tensor, *, key: Key, first_sample: int = 0, phase: str = "train"
    ) -> Record: ...

    def pre_activation(self, record: Record) -> Tensor: ...

    def gradients(
        self, record: Record, pre_activation: Tensor, gradient: Tensor
    ) -> dict[str, Tensor]: ...

    def deploy(self, key: Key, phase: str = "train", *, whole: bool = True) -> None: ...

    def deploy_again(self, key: Key, phase: str = "train") -> None: ...

    def calibrate(self, drive: Tensor, *, key: Key, phase: str = "train") -> None: ...

    def constants(self) -> dict[str, Tensor]: ...

    def load_constants(self, constants: Mapping[str, Tensor]) -> None: ...


def he_layer(inputs: int, outputs: int, key: Key) -> dict[str, Tensor]:
    """weight ~ N(0, 2 / inputs), bias zero (He et al., ICCV 2015, eq. 10)."""
    spread = (2.0 / inputs) ** 0.5
    weight = torch.randn(inputs, outputs, generator=key.torch()) * spread
    return {"weight": weight, "bias": torch.zeros(outputs)}


def one_pass(fence: Fence, drive: Tensor, key: Key, first_sample: int, phase: str) -> Record:
    """Send a drive, rounded as the converter will, and keep what came back."""
    drive = fence.drive_port.on_grid(drive)
    got = fence.forward(drive, key=key, first_sample=first_sample, phase=phase)
    return Record(drive=drive, values=got.values, saturated=got.saturated)


class IsomorphicUnit:
    """The physics computes x W; the computer adds the bias and rectifies.

    clip_rms: each column of W is written in units of this many times its
    r.m.s. value, larger entries are clipped at the end of the window.
    window_sigmas: instead, one window for all columns and for good, this many
    standard deviations of the first weights; the digital copy is held inside it.
    mask_constant: calibrating also finds columns whose reading never changes
    and makes their feature zero; without it the unit is blind to faults.
    """

    fixed_physics = False

    def __init__(
        self,
        fence: Fence,
        *,
        key: Key,
        clip_rms: float = 4.0,
        window_sigmas: float | None = None,
        mask_constant: bool = False,
    ) -> None:
        inputs, outputs = _matrix_sizes(fence)
        for name, value in (("clip_rms", clip_rms), ("window_sigmas", window_sigmas)):
            if value is not None and not value > 0:
                raise ConfigError(f"{fence.name}.{name}: must be > 0, got {value}.")
        self.name, self.fence, self.width = fence.name, fence, outputs
        self.parameters = he_layer(inputs, outputs, key)
        self._clip_rms = clip_rms
        sigma = (2.0 / inputs) ** 0.5
        self._window = None if window_sigmas is None else window_sigmas * sigma
        self._writes, self._written = WHOLE, torch.zeros(inputs, outputs)
        setting, reading = fence.capabilities.settings[0], fence.reading_port
        # A reading of 1 stands for this many units of (drive x setting).
        self._gain = reading.full_scale / (fence.drive_port.full_scale * setting.full_scale)
        self._scale = torch.ones(outputs)
        self._masks = mask_constant
        self._alive = torch.ones(outputs)

    def sparing(self, writes: Writes) -> None:
        """From now on, write as sparingly as this says."""
        self._writes = writes

    def deploy(self, key: Key, phase: str = "train", *, whole: bool = True) -> None:
        """Write the present weights to the device; whole: also where `sparing` would not."""
        setting = self._target()
        if self._writes.partial and not whole:
            setting = self._writes.towards(setting, self._written)
        self._written = setting
        self.fence.program(setting, key=key, phase=phase)

    def deploy_again(self, key: Key, phase: str = "train") -> None:
        """Repeat the last write, for a device that has lost it."""
        setting = self._target() if self._writes.whole else self._written
        self.fence.program(setting, key=key, phase=phase)

    def _target(self) -> Tensor:
        """The setting that stands for the present weights; also sets its scale."""
        weight = self.parameters["weight"]
        if self._window is not None:
            weight.clamp_(-self._window, self._window)
            self._scale = torch.full((self.width,), self._window)
        else:
            rms = weight.square().mean(0).sqrt().clamp_min(1e-12)
            self._scale = rms * self._clip_rms
        return (weight / self._scale).clamp(-1, 1)

    def calibrate(self, drive: Tensor, *, key: Key, phase: str = "train") -> None:
        """Let the device range its converters on `drive`, where it can."""
        if self.fence.capabilities.rangeable:
            self.fence.set_range(drive, key=key, phase=phase)
        if self._masks:
            values = self.capture(drive, key=key.child("mask"), phase=phase).values
            self._alive = (values.amax(0) > values.amin(0)).to(torch.float32)

    def capture(
        self, drive: Tensor, *, key: Key, first_sample: int = 0, phase: str = "train"
    ) -> Record:
        return one_pass(self.fence, drive, key, first_sample, phase)

    def pre_activation(self, record: Record) -> Tensor:
        gain = self._scale * self._gain
        return (record.values * gain + self.parameters["bias"]) * self._alive

    def gradients(
        self, record: Record, pre_activation: Tensor, gradient: Tensor
    ) -> dict[str, Tensor]:
        return outer_product(record.drive, pre_activation, gradient)

    def constants(self) -> dict[str, Tensor]:
        found = {"scale": self._scale.clone(), "alive": self._alive.clone()}
        # Otherwise it follows from the weights.
        return found if self._writes.whole else found | {"written": self._written.clone()}

    def load_constants(self, constants: Mapping[str, Tensor]) -> None:
        self._scale, self._alive = constants["scale"].clone(), constants["alive"].clone()
        self._written = constants.get("written", self._written).clone()


class DigitalLayerUnit:
    """Fixed physics, then a digital layer on the standardised reading.

    standardise_floor: smallest divisor, as a fraction of the mean standard
    deviation over the reading, so that a stuck pixel is not blown up.
    """

    fixed_physics = True

    def __init__(
        self, fence: Fence, *, outputs: int, key: Key, standardise_floor: float = 0.1
    ) -> None:
        (reading,) = fence.reading_port.shape
        self.name, self.fence, self.width = fence.name, fence, outputs
        self.parameters = he_layer(reading, outputs, key)
        self.standardise_floor = standardise_floor
        self._mean = torch.zeros(reading)
        self._scale = torch.ones(reading)

    def deploy(self, key: Key, phase: str = "train", *, whole: bool = True) -> None:
        """Nothing is written: the layer lives in the computer."""

    def deploy_again(self, key: Key, phase: str = "train") -> None:
        """Nothing was written."""

    def calibrate(self, drive: Tensor, *, key: Key, phase: str = "train") -> None:
        """Learn each pixel's mean and spread from a pass of `drive`."""
        values = self.capture(drive, key=key, phase=phase).values
        self._mean = values.mean(0)
        spread = values.std(0)
        self._scale = spread.clamp_min(float(self.standardise_floor * spread.mean()) + 1e-12)

    def capture(
        self, drive: Tensor, *, key: Key, first_sample: int = 0, phase: str = "train"
    ) -> Record:
        return one_pass(self.fence, drive, key, first_sample, phase)

    def pre_activation(self, record: Record) -> Tensor:
        layer = self.parameters
        return torch.addmm(layer["bias"], self.standardised(record), layer["weight"])

    def gradients(
        self, record: Record, pre_activation: Tensor, gradient: Tensor
    ) -> dict[str, Tensor]:
        return outer_product(self.standardised(record), pre_activation, gradient)

    def constants(self) -> dict[str, Tensor]:
        return {"mean": self._mean.clone(), "scale": self._scale.clone()}

    def load_constants(self, constants: Mapping[str, Tensor]) -> None:
        self._mean, self._scale = constants["mean"].clone(), constants["scale"].clone()

    def standardised(self, record: Record) -> Tensor:
        """The reading with every pixel centred and scaled, (n, reading)."""
        return (record.values - self._mean) / self._scale


def feature(unit: Unit, record: Record) -> Tensor:
    """Z of a unit, (batch, width), from what was measured."""
    return rectified(unit.pre_activation(record))


def require_one_ledger(units: Sequence[Unit]) -> None:
    """ConfigError unless all units count their costs in the same ledger."""
    first = units[0].fence.ledger
    apart = [unit.name for unit in units if unit.fence.ledger is not first]
    if apart:
        raise ConfigError(
            f"{', '.join(apart)}: another ledger than {units[0].name}'s, so that a checkpoint "
            "would lose costs. Make one Ledger() and give it to every Fence(..., ledger=)."
        )


def _matrix_sizes(fence: Fence) -> tuple[int, int]:
    ports = fence.capabilities.settings
    if not ports or len(ports[0].shape) != 2:
        raise ConfigError(
            f"{fence.name}: an isomorphic unit needs a backend whose setting is a matrix; "
            "for fixed physics use kind = 'broken-isomorphism'."
        )
    inputs, outputs = ports[0].shape
    if fence.drive_port.shape != (inputs,) or fence.reading_port.shape != (outputs,):
        raise ConfigError(
            f"{fence.name}: the setting is {inputs} x {outputs}, but drive and reading have "
            f"shapes {fence.drive_port.shape} and {fence.reading_port.shape}."
        )
    return inputs, outputs
