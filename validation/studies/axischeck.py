"""Are the axes of a study parameters that exist, and do they matter there?

A value is good if the network can be built with it, alone or beside one value
of another axis. Only the way from a configuration to devices is tried: nothing
is trained.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twin.config import build
from twin.errors import ConfigError, PibTwinError, UnknownName, nearest
from validation.config import RunConfig, UnitTable
from validation.studies.disabled import of_no_effect, why_no_dial
from validation.studies.points import SYNTHETIC, WAIT, Point, Value, configured, turns

if TYPE_CHECKING:
    from twin.backend import Dial  # imports torch, which synthetic studies do without

PIXELS = {"digits": 64}
MNIST_PIXELS = 784
"""Drives a device is built for when it is only tried; images of a file may differ."""

MOST_ELEMENTS = 10**9
"""Of one device, inputs x outputs x pixels."""

QUANTITY = re.compile(r"\s*[-+]?[\d.]+(?:[eE][-+]?\d+)?\s*[^\d\s.].*")

Axes = Mapping[str, tuple[Value, ...]]


def check_axes(base: str, methods: tuple[str, ...], axes: Axes, where: str) -> None:
    """Nothing if all axes are good; ConfigError that names the axis otherwise."""
    if base == SYNTHETIC:
        _check_synthetic(axes, where)
        return
    tried = _Tried(base, axes)
    for path, values in axes.items():
        name = f"{where}.axes.{path}"
        for value in values:
            _refuse_quantity(value, values, name)
            _check(tried, path, value, name)
        reason = of_no_effect(path, methods, list(tried.configurations(path)))
        if reason:
            raise ConfigError(f"{name}: the axis has no effect here: {reason}.")


def _check_synthetic(axes: Axes, where: str) -> None:
    from validation.studies.synthetic import SyntheticConfig

    for path, values in axes.items():
        for value in values:
            _refuse_quantity(value, values, f"{where}.axes.{path}")
            build(SyntheticConfig, {path: value}, f"{where}.axes")


def _refuse_quantity(value: Value, values: tuple[Value, ...], name: str) -> None:
    if isinstance(value, str) and all(QUANTITY.fullmatch(str(v)) for v in values):
        raise ConfigError(
            f"{name}: expected plain numbers, got {value!r}. The unit belongs to the parameter's "
            "name (g_max_siemens, wavelength_m), not to its values."
        )


def _check(tried: _Tried, path: str, value: Value, name: str) -> None:
    """The value alone, else beside each value of the other axes in turn."""
    try:
        tried.build({path: value})
        return
    except Exception as error:
        # Not only typed ones: a size may be beyond the memory of this machine.
        first = error
    for other in tried.beside(path):
        try:
            tried.build({path: value, **other})
            return
        except Exception:
            continue
    kind = type(first) if isinstance(first, ConfigError) else ConfigError
    raise kind(f"{name}: {first}")


@dataclass
class _Tried:
    """Networks of a base with some settings; equal devices are made once."""

    base: str
    axes: Axes

    def __post_init__(self) -> None:
        self._dials: dict[str, tuple[Dial, ...]] = {}

    def beside(self, path: str) -> Iterator[dict[str, Value]]:
        """Each single value of each other axis."""
        for other, values in self.axes.items():
            if other != path:
                yield from ({other: value} for value in values)

    def configurations(self, path: str) -> Iterator[RunConfig]:
        """The base with the first value of the axis, alone and beside others."""
        for other in ({}, *self.beside(path)):
            try:
                yield configured(self._point({path: self.axes[path][0], **other}))
            except PibTwinError:
                continue

    def build(self, settings: Mapping[str, Value]) -> None:
        """Make the devices and see whether the dials turn that far; raises if not."""
        point = self._point(settings)
        config = configured(point)
        dials = [self._of_unit(config, index) for index in range(len(config.unit))]
        for turn in turns(point):
            path = f"dial.{turn.name}" if turn.unit is None else f"unit.{turn.unit}.dial"
            if turn.unit is not None and turn.unit >= len(dials):
                raise ConfigError(f"{path}: the base has units 0 to {len(dials) - 1}.")
            asked = dials if turn.unit is None else [dials[turn.unit]]
            _may_turn(turn.name, turn.value, [dial for unit in asked for dial in unit], config)

    def _point(self, settings: Mapping[str, Value]) -> Point:
        own = {path: value for path, value in settings.items() if path != WAIT}
        if WAIT in settings:
            _waits(settings[WAIT])
        return Point(base=self.base, method="pib", seed=0, settings=tuple(own.items()))

    def _of_unit(self, config: RunConfig, index: int) -> tuple[Dial, ...]:
        from twin.key import Key
        from validation.experiment import open_device

        table = config.unit[index]
        pixels = PIXELS.get(config.data.name, MNIST_PIXELS)
        seal = json.dumps([index, pixels, table.model_dump()], sort_keys=True, default=str)
        if seal not in self._dials:
            _refuse_giants(table, index, pixels)
            # The options travel as a copy: a device may keep what it is given.
            device = open_device(copy.deepcopy(table), index, pixels, Key(0))
            self._dials[seal] = device.capabilities.dials
            device.close()
        return self._dials[seal]


def _refuse_giants(table: UnitTable, index: int, pixels: int) -> None:
    """Before a device is made that would take all the memory of this machine."""
    sizes = {"inputs": pixels, "outputs": table.outputs, "pixels": 1, **table.options}
    numbers = [sizes[n] for n in ("inputs", "outputs", "pixels")]
    product = math.prod(n for n in numbers if isinstance(n, int | float))
    if product > MOST_ELEMENTS:
        raise ConfigError(
            f"unit.{index}: expected at most {MOST_ELEMENTS:.0e} elements, got about "
            f"{product:.1e} (inputs, outputs and pixels {numbers})."
        )


def _waits(value: Value) -> None:
    if isinstance(value, bool | str) or not 0 <= value <= 1e10:
        raise ConfigError(f"{WAIT}: expected seconds from 0 to 1e10, got {value!r}.")


def _may_turn(name: str, value: float, dials: list[Dial], config: RunConfig) -> None:
    """Some unit has the dial, it turns, and every one that has it turns so far."""
    own = [dial for dial in dials if dial.name == name]
    if not own:
        reason = why_no_dial(name, config)
        if reason:
            raise ConfigError(f"dial {name!r}: not of this network: {reason}.")
        known = sorted({dial.name for dial in dials if not dial.shape and not dial.read_only})
        raise UnknownName(f"no unit has a dial {name!r}. {nearest(name, known)}")
    for dial in own:
        if dial.shape:
            raise ConfigError(
                f"dial {name!r} takes a map of shape {dial.shape}, not a number. Vary a "
                "fraction instead, e.g. dial.stuck_column_fraction."
            )
        if dial.read_only:
            raise ConfigError(
                f"dial {name!r} cannot be turned on this device, it stays at {dial.default:g} "
                f"{dial.unit}. Leave the axis out."
            )
        if not dial.low <= value <= dial.high:
            raise ConfigError(
                f"dial {name!r}: expected {dial.low:g} to {dial.high:g} {dial.unit}, got {value:g}."
            )
