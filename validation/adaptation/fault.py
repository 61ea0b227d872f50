"""A fault as one writes it, NAME=VALUE at a unit, and how it is switched on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pib.network import Network
from twin.backend import Dial
from twin.errors import ConfigError
from twin.key import Key
from twin.registry import open_backend
from validation.config import RunConfig, UnitTable

BROKEN = "broken+"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A dial turned in mid-run.

    unit: 0 for the first, None for every one that has the dial. value: of a
    number; of a dial that is a map (dead_column, ...) the share of its
    entries that get its severe value (stuck_column_code: random codes).
    """

    name: str
    value: float
    unit: int | None = None

    def __str__(self) -> str:
        where = "" if self.unit is None else f" in unit {self.unit + 1}"
        return f"{self.name}={self.value:g}{where}"

    @property
    def first(self) -> int:
        """The first unit that is hit."""
        return self.unit or 0

    @classmethod
    def parsed(cls, text: str, unit: int | None = None) -> Fault:
        """From NAME=VALUE; unit: from 0."""
        name, equals, value = text.partition("=")
        try:
            return cls(name=name, value=float(value), unit=unit)
        except ValueError:
            got = f"{text!r}" if equals else f"{text!r} without '='"
            raise ConfigError(
                f"fault: expected NAME=VALUE, e.g. stuck_column_fraction=0.5, got {got}."
            ) from None

    def turn(self, network: Network, key: Key) -> None:
        """Switch it on. The same key breaks the same columns of the same devices."""
        units = list(enumerate(network.units))
        if self.unit is not None:
            units = units[self.unit : self.unit + 1]
        if not units:
            raise ConfigError(f"{self}: the network has {len(network.units)} units.")
        for index, unit in units:
            dial = unit.fence.capabilities.dial(self.name)
            here = key.child("fault", self.name, index)
            unit.fence.adjust(self.name, self._setting(dial, here), key=here)

    def _setting(self, dial: Dial, key: Key) -> float | Tensor:
        if not dial.shape:
            return self.value
        if not 0 <= self.value <= 1:
            raise ConfigError(f"{self}: {self.name} is a map; give the share of it, 0 to 1.")
        hit = torch.rand(dial.shape, generator=key.child("hit").torch()) < self.value
        severe = torch.full(dial.shape, float(dial.severe))
        if self.name == "stuck_column_code":
            codes = torch.rand(dial.shape, generator=key.child("codes").torch())
            severe = (codes * (2 * dial.high + 1)).floor() - dial.high
            severe = severe.clamp(max(dial.low, -dial.high), dial.high)
        return torch.where(hit, severe, torch.full(dial.shape, float(dial.default)))


def breakable(config: RunConfig, fault: Fault, pixels: int) -> RunConfig:
    """The configuration with units that have the fault's dial.

    A dial that a backend lacks is laid over it from outside (broken+NAME).
    """
    units = tuple(
        table if fault.unit not in (None, index) else _with_dial(table, fault, pixels)
        for index, table in enumerate(config.unit)
    )
    return config.model_copy(update={"unit": units})


def _with_dial(table: UnitTable, fault: Fault, pixels: int) -> UnitTable:
    options = {"inputs": pixels, **table.options}
    if table.kind == "isomorphic":
        options = {"outputs": table.outputs, **options}
    device = open_backend(table.backend, key=Key(0), **options)
    known = {dial.name for dial in device.capabilities.dials}
    device.close()
    if fault.name in known or table.backend.startswith(BROKEN):
        return table
    return table.model_copy(update={"backend": BROKEN + table.backend})
