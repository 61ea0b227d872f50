"""Non-idealities that a device is built with and that no dial turns.

Severities marked "assumed" have no source yet; none of them is the limit of
what the device's own configuration allows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from twin.errors import ConfigError, PibTwinError
from validation.config import RunConfig, UnitTable
from validation.studies.nonidealities import WIRES_HELD, WRITES_HELD
from validation.studies.points import Settings
from validation.studies.severity import NonIdeality, Scale

STEPS = (0.0625, 0.125, 0.25, 0.5, 1.0)
"""Severities at which a network must be able to be built."""


@dataclass(frozen=True)
class Option:
    """path: below "options", with dots. unit, zero, severe, scale, about, in_loop: as
    of NonIdeality. beside: further options (path below "options", value) where it is
    above zero."""

    path: str
    unit: str
    zero: float
    severe: float
    scale: Scale
    about: str
    in_loop: Settings = ()
    beside: Settings = ()


HELD: Settings = ((WIRES_HELD, WRITES_HELD),)
MEMRISTOR = (
    Option("adc_bits", "bit", 16, 4, "bits", "bits of a column's converter; severe: assumed"),
    Option("dac_bits", "bit", 16, 2, "bits", "bits of a row's drive; severe: assumed, NeuRRAM "
           "(Wan et al., Nature 608, 2022) has 4"),
    Option("levels", "1", 4096, 4, "levels", "levels of a cell; severe: 2-bit cells, assumed "
           "(the A111 chip has 8 levels)"),
    Option("series_ohm", "ohm", 0, 5e3, "linear", "access transistor of a cell; severe: a tenth "
           "of the cell at 20 uS, assumed"),
    Option("driver_ohm", "ohm", 0, 200, "linear", "output of a row's driver; severe: assumed",
           HELD),
    Option("sense_ohm", "ohm", 0, 200, "linear", "input of a column's amplifier; severe: assumed",
           HELD),
)  # fmt: skip
SETTLING_WAIT_S = 0.0067
"""What 60 patterns a second and an exposure of 10 ms leave for settling; without a
wait the camera would see the pattern before."""

OPTICS = (
    Option("camera_bits", "bit", 16, 4, "bits", "bits of a frame; severe: assumed"),
    Option("modulator_levels", "1", 65536, 2, "levels", "phases of the modulator; severe: a "
           "binary one (ferroelectric)"),
    Option("full_scale_over_mean", "1", 30, 2, "log", "full scale of the camera over the mean; "
           "severe: 14 % of the pixels clip, assumed"),
    Option("unmodulated_fraction", "1", 0, 0.35, "linear", "light that misses the modulator; "
           "severe: a wrong look-up table, slmsuite issue 150"),
    Option("dark_electrons_per_s", "electron/s", 0, 1e4, "linear", "dark current of a pixel; "
           "severe: warm and uncooled, assumed"),
    Option("sensor.prnu", "1", 0, 0.05, "linear", "spread of the pixels' response; severe: "
           "assumed"),
    Option("sensor.dsnu_electrons", "electron", 0, 50, "linear", "spread of the pixels' black "
           "level; severe: assumed"),
    Option("modulator.crosstalk", "1", 0, 0.5, "linear", "phase that comes from the neighbours; "
           "severe: assumed"),
    Option("modulator.settling_s", "s", 0, 0.01, "linear", "time constant of the modulator; "
           "severe: 10 ms class, Thalhammer et al., Opt. Express 21 (2013); exposed after "
           f"{SETTLING_WAIT_S * 1e3:g} ms",
           beside=(("modulator.settling_wait_s", SETTLING_WAIT_S),)),
    Option("drift.power_rms", "1", 0, 0.02, "linear", "fluctuation of the laser's power; severe: "
           "assumed"),
)  # fmt: skip

TECHNOLOGIES = ("cmo-hfox-2", "neurram-hfox", "pcm-joshi")
"""One measured technology of each family, put in place of plain cells."""

Checker = Callable[[Mapping[str, Any]], Any]


def _crossbar(options: Mapping[str, Any]) -> Any:
    from substrates.memristor import presets

    config, technology = presets.configured(options)
    presets.curve(config, technology)
    return config


def _rig(options: Mapping[str, Any]) -> Any:
    from substrates.optics.modulatortable import make_modulator
    from substrates.optics.presets import configured
    from twin.key import Key

    config = configured(options)
    make_modulator(config.own_modulator(), 4, Key(0))
    return config


BACKENDS: Mapping[str, tuple[Checker, tuple[Option, ...]]] = {
    "memristor": (_crossbar, MEMRISTOR),
    "optics": (_rig, OPTICS),
}

Found = tuple[list[NonIdeality], list[tuple[str, str]]]


def of_options(config: RunConfig, known: Collection[str]) -> Found:
    """Non-idealities that are options of the network's devices, and those refused.

    known: names that dials have taken.
    """
    swept: list[NonIdeality] = []
    refused: list[tuple[str, str]] = []
    for backend in dict.fromkeys(unit.backend for unit in config.unit):
        name = backend.removeprefix("broken+").removeprefix("faulty+")
        if name not in BACKENDS:
            continue
        checker, options = BACKENDS[name]
        units = {i: unit for i, unit in enumerate(config.unit) if unit.backend == backend}
        for option in options:
            if option.path in known:
                continue
            try:
                swept.append(_checked(option, units, checker, alone=len(units) == len(config.unit)))
            except ConfigError as error:
                refused.append((option.path, f"refused by the device: {error}"))
        if name == "memristor":
            swept += _technologies(units)
    return swept, refused


def _checked(
    option: Option, units: Mapping[int, UnitTable], checker: Checker, alone: bool
) -> NonIdeality:
    """The option as a non-ideality; ConfigError where a device refuses a severity."""
    heads = _heads(units, alone)
    one = NonIdeality(
        name=option.path, paths=tuple(f"{head}.{option.path}" for head in heads), unit=option.unit,
        with_it=tuple((f"{head}.{path}", v) for head in heads for path, v in option.beside),
        zero=option.zero, severe=option.severe, scale=option.scale, kind="option",
        delivered=_delivered(option, units, checker), about=option.about, in_loop=option.in_loop,
    )  # fmt: skip
    for unit in units.values():
        for severity in (0.0, *STEPS):
            (value,) = set(one.own(severity).values())
            checker(_with(unit.options, option.path, value))
    return one


def _heads(units: Mapping[int, UnitTable], alone: bool) -> list[str]:
    """Where the options of these units are; alone: the network has no others."""
    return ["unit.options"] if alone else [f"unit.{index}.options" for index in units]


def _delivered(option: Option, units: Mapping[int, UnitTable], checker: Checker) -> float | None:
    found = set()
    for unit in units.values():
        value: Any = checker(unit.options)
        for part in option.path.split("."):
            value = getattr(value, part)
        # Continuous cells have no levels: as good as the most there can be.
        found.add(option.zero if value is None else float(value))
    return found.pop() if len(found) == 1 else None


def _with(options: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `options` with one more, or another, value at a dotted path."""
    first, _, rest = path.partition(".")
    if not rest:
        return {**options, first: value}
    below = options.get(first, {})
    if not isinstance(below, Mapping):
        raise ConfigError(f"{first} is {below!r} here; give it as a table to sweep {path}.")
    return {**options, first: _with(below, rest, value)}


def _technologies(units: Mapping[int, UnitTable]) -> Iterator[NonIdeality]:
    """Measured cells in place of plain ones, where every unit has plain ones."""
    if any(_crossbar(unit.options).technology is not None for unit in units.values()):
        return
    heads = [f"unit.{index}.options" for index in units]
    for name in TECHNOLOGIES:
        try:
            for unit in units.values():
                _crossbar({**unit.options, "technology": name, "linear_cells": True})
        except PibTwinError:
            continue
        yield NonIdeality(
            name=f"technology {name}", paths=tuple(f"{head}.technology" for head in heads),
            unit="1", zero=0, severe=1, delivered=0, scale="event", kind="option", word=name,
            about="measured cells in place of plain ones: window, writing, relaxation, noise",
            # A curved I-V has no wires, whose dials may be turned beside it.
            with_it=tuple((f"{head}.linear_cells", True) for head in heads),
        )  # fmt: skip
