"""What the settings of a point mean: a configuration, dials to turn, a time to wait.

Some hold from the start, some come after training (see `as_built`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from pib.network import Network
from twin.checks import dial_value
from twin.errors import ConfigError, UnknownName, nearest
from twin.key import Key
from validation.config import RunConfig
from validation.studies.points import Point, Settings, Turn, configured

WAIT = "test.wait_s"
"""A setting of points only: device seconds that every unit rests before the test."""


def run_config(point: Point) -> RunConfig:
    """The configuration of a point: base, then quick, then its settings and limit."""
    config = configured(replace(point, settings=_but(point, lambda path: path == WAIT)))
    given = {path for path, _ in point.settings}
    data, units = config.data, config.unit
    if point.quick:
        if config.quick.limit is not None and "data.limit" not in given:
            data = data.model_copy(update={"limit": config.quick.limit})
        units = tuple(
            unit
            if {"unit.epochs", f"unit.{index}.epochs"} & given
            else unit.model_copy(update={"epochs": config.quick.epochs})
            for index, unit in enumerate(units)
        )
    if point.limit is not None:
        data = data.model_copy(update={"limit": point.limit})
    return config.model_copy(update={"data": data, "unit": units})


def as_built(point: Point) -> Point:
    """The point without what is changed after training: dials and unit options."""
    return replace(point, settings=_but(point, lambda path: _is_dial(path) or _is_option(path)))


def _but(point: Point, out: Callable[[str], bool]) -> Settings:
    return tuple(pair for pair in point.settings if not out(pair[0]))


def has_options(point: Point) -> bool:
    """Whether the point sets options of a unit's device."""
    return any(_is_option(path) for path, _ in point.settings)


def _is_option(path: str) -> bool:
    parts = path.split(".")
    return parts[0] == "unit" and "options" in parts[1:3]


def _is_dial(path: str) -> bool:
    parts = path.split(".")
    return parts[0] == "dial" or (parts[0] == "unit" and "dial" in parts[1:3])


# ---- dials and waiting --------------------------------------------------------


def turned(
    network: Network, wanted: Sequence[Turn], key: Key
) -> tuple[tuple[int, str, float], ...]:
    """Turn the dials; returns (unit, dial, value) of each."""
    found = resolved(network, wanted)
    for index, name, value in found:
        network.units[index].fence.adjust(name, value, key=key.child("dial", index, name))
    return found


def resolved(network: Network, wanted: Sequence[Turn]) -> tuple[tuple[int, str, float], ...]:
    """(unit, dial, value) by unit and name; one unit's own value beats the one for all.

    Raises ConfigError, UnknownName or DialError before anything is turned.
    """
    found: dict[tuple[int, str], float] = {}
    for turn in sorted(wanted, key=lambda turn: turn.unit is not None):
        found |= {(index, turn.name): turn.value for index in _meant(network, turn)}
    for (index, name), value in found.items():
        fence = network.units[index].fence
        dial_value(fence.capabilities.dial(name), value, fence.name)
    return tuple((index, name, value) for (index, name), value in sorted(found.items()))


def _meant(network: Network, turn: Turn) -> list[int]:
    """The units whose dial it is; ConfigError or UnknownName if there is none."""
    declared = [{d.name for d in unit.fence.capabilities.dials} for unit in network.units]
    if turn.unit is not None:
        if turn.unit >= len(declared):
            raise ConfigError(
                f"unit.{turn.unit}.dial.{turn.name}: the network has units 0 to "
                f"{len(declared) - 1}."
            )
        network.units[turn.unit].fence.capabilities.dial(turn.name)
        return [turn.unit]
    units = [index for index, names in enumerate(declared) if turn.name in names]
    if not units:
        hint = nearest(turn.name, set().union(*declared))
        raise UnknownName(f"dial.{turn.name}: no unit has such a dial. {hint}")
    return units


def wait_s(point: Point) -> float:
    """Seconds of rest before the test, as WAIT says; 0 without it."""
    seconds = dict(point.settings).get(WAIT, 0.0)
    if isinstance(seconds, bool | str) or not (math.isfinite(seconds) and seconds >= 0):
        raise ConfigError(f"{WAIT}: expected seconds, a number >= 0, got {seconds!r}.")
    return float(seconds)


def rest(network: Network, seconds: float) -> None:
    """Let every device wait."""
    for unit in network.units if seconds else ():
        unit.fence.wait(seconds)
