"""The contract between a trainer and one physical thing, simulated or real.

What crosses it is dimensionless: a drive goes in with each sample, a setting
is programmed and stays, integer codes come out. The trainer never sees an
ampere, the backend never sees a label or a loss. A runtime Protocol checks
names only; ``validation.conformance`` is the definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from twin.errors import ConfigError, UnknownName, nearest
from twin.key import Key

Values = Tensor | Mapping[str, Tensor]
"""One tensor for the first port, or a mapping from port names to tensors."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """One named way in or out.

    shape: of one sample, without batch. low, high: the dimensionless range.
    levels: how many values it can take, None if continuous. dtype: of the
    codes that travel (a torch dtype name; 16-bit frames travel as int32).
    full_scale, unit: the SI quantity that the value 1.0 stands for. This scale
    is nominal and fixed: ranging a device never changes it.
    """

    name: str
    shape: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0
    levels: int | None = None
    dtype: str = "float32"
    full_scale: float = 1.0
    unit: str = "1"

    def __post_init__(self) -> None:
        if not self.is_coded:
            return
        if self.levels is None or self.levels < 2:
            raise ConfigError(f"port {self.name!r}: a port of integer codes needs levels >= 2.")
        if abs(self.low / self.step - self.code_low) > 1e-6 * self.levels:
            raise ConfigError(
                f"port {self.name!r}: low ({self.low:g}) is {self.low / self.step:g} steps of "
                f"{self.step:g}; it must be a whole number, or codes decode off their scale. "
                "A signed 8-bit port spans -1 to 127/128."
            )

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    @property
    def is_coded(self) -> bool:
        """Whether values travel as integer codes."""
        return not self.torch_dtype.is_floating_point

    @property
    def step(self) -> float:
        """Value of one code (1.0 for a port of plain floats)."""
        if not self.is_coded:
            return 1.0
        assert self.levels is not None and self.levels > 1
        return (self.high - self.low) / (self.levels - 1)

    @property
    def code_low(self) -> float:
        return round(self.low / self.step) if self.is_coded else self.low

    @property
    def code_high(self) -> float:
        return round(self.high / self.step) if self.is_coded else self.high

    def on_grid(self, values: Tensor) -> Tensor:
        """`values` clipped to the range and rounded to the port's levels."""
        values = values.clamp(self.low, self.high)
        if self.levels is None:
            return values
        steps = (self.levels - 1) / (self.high - self.low)
        return ((values - self.low) * steps).round_().div_(steps).add_(self.low)

    def decode(self, codes: Tensor, ratio: float | Tensor = 1.0) -> Tensor:
        """Codes to float32 values; `ratio` is the range in force / nominal."""
        return codes.to(torch.float32) * (self.step * ratio)


@dataclass(frozen=True, kw_only=True)
class Dial:
    """A non-ideality, a fault map or an operating point that can be turned.

    low, high: allowed range, both included. ideal: the value at which the
    physics is perfect; default: as delivered; severe: bad but seen in practice.
    shape: () for a number, else the shape of a map.
    """

    name: str
    unit: str
    low: float
    high: float
    ideal: float
    default: float
    severe: float
    shape: tuple[int, ...] = ()
    read_only: bool = False
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a backend is able to do, as plain data that never changes.

    deterministic: a reading does not depend on the key. seedable: it depends
    on nothing but state, drive and key. restorable: snapshot/restore work.
    read_disturb: a forward pass changes the state by more than its clock.
    max_batch: the largest batch of one call, None if unlimited.
    clock: "virtual" (time follows from the passes and waits) or "wall".
    """

    device_id: str
    drives: tuple[Port, ...]
    readings: tuple[Port, ...]
    settings: tuple[Port, ...] = ()
    dials: tuple[Dial, ...] = ()
    deterministic: bool = False
    seedable: bool = False
    restorable: bool = False
    rangeable: bool = False
    read_disturb: bool = False
    max_batch: int | None = None
    clock: Literal["virtual", "wall"] = "wall"

    @property
    def programmable(self) -> bool:
        return bool(self.settings)

    def dial(self, name: str) -> Dial:
        """The dial of that name; UnknownName with the nearest one otherwise."""
        for dial in self.dials:
            if dial.name == name:
                return dial
        known = nearest(name, [d.name for d in self.dials])
        raise UnknownName(f"{self.device_id}: no dial {name!r}. {known}")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one forward pass gave.

    codes: (batch, *reading) or (shots, batch, *reading), dtype of the port.
    ratio: range in force / nominal range, broadcastable to the port's shape.
    saturated: fraction of codes at the end of their range.
    clock_s: device time at the end of the pass, seconds since it was made.
    device_seconds, joules: what this pass took. extra: codes of further ports.
    """

    codes: Tensor
    ratio: float | Tensor = 1.0
    saturated: float = 0.0
    state_version: int = 0
    device_seconds: float = 0.0
    joules: float = 0.0
    clock_s: float = 0.0
    extra: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a write achieved and cost.

    achieved: per setting port, the value as far as the device can know it
    (empty if it cannot). cells: how many physical elements were written.
    """

    state_version: int
    cells: int = 0
    device_seconds: float = 0.0
    joules: float = 0.0
    achieved: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Ranged:
    """What an explicit ranging found and cost. ratio: as in Reading."""

    state_version: int
    ratio: float | Tensor
    passes: int
    device_seconds: float = 0.0
    joules: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """The complete state of a device as plain data, aliasing nothing.

    arrays: tensors (clones). values: numbers, strings, booleans.
    """

    device_id: str
    arrays: Mapping[str, Tensor]
    values: Mapping[str, float | int | str | bool]


@runtime_checkable
class MinimalBackend(Protocol):
    """The four members a driver must write; `twin.complete` adds the rest."""

    @property
    def capabilities(self) -> Capabilities: ...

    def program(self, setting: Values, *, key: Key) -> Written: ...

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading: ...

    def close(self) -> None: ...


@runtime_checkable
class Backend(MinimalBackend, Protocol):
    """The whole contract. Same state, drive and key give the same reading.

    program: write a setting. forward: one pass of a batch. set_range: find the
    range on a stated drive (never a side effect of forward). adjust: turn a
    dial. wait: let device time pass. snapshot, restore: complete state.
    close: leave the device safe; may be called again.
    """

    def set_range(self, drive: Values, *, key: Key) -> Ranged: ...

    def adjust(self, dial: str, value: Any, *, key: Key) -> int: ...

    def wait(self, seconds: float) -> None: ...

    def snapshot(self) -> Snapshot: ...

    def restore(self, snapshot: Snapshot) -> None: ...


def single(values: Values, port: Port) -> Tensor:
    """The tensor meant for `port`, from a tensor or a one-port mapping."""
    if isinstance(values, Mapping):
        if set(values) != {port.name}:
            known = nearest(", ".join(map(str, values)), [port.name])
            raise UnknownName(f"ports {sorted(values)} were given. {known}")
        return values[port.name]
    return values
