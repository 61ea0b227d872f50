"""Checks of what a device says about itself, and of what it refuses."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch

from twin.backend import Dial, Port, Snapshot
from twin.errors import SnapshotError, UnknownName, Unsupported
from validation.conformance.probe import (
    ROOT,
    CheckFailed,
    Probe,
    copied,
    drives,
    need,
    program,
    read,
    require,
)

SI = ("1", "V", "A", "S", "ohm", "Ω", "W", "J", "C", "F", "H", "T", "Wb", "N", "Pa", "kg", "s")
FURTHER = ("Hz", "m", "rad", "sr", "K", "lx", "lm", "cd", "mol", "bit", "level", "levels", "code")
COUNTED = ("e", "electron", "electrons", "photon", "photons", "count", "counts", "px", "pixel")
UNITS = frozenset((*SI, *FURTHER, *COUNTED))
"""Coherent SI units (a prefix belongs into full_scale) and counted things."""


def capabilities_are_complete_and_consistent(probe: Probe) -> None:
    """Ports and dials have sensible shapes, ranges, levels, names and SI units."""
    capabilities = probe.device().capabilities
    require(bool(capabilities.device_id), "device_id is empty. Name the device.")
    require(
        bool(capabilities.drives and capabilities.readings),
        "a device has at least one drive port and one reading port.",
    )
    for ports in (capabilities.drives, capabilities.readings, capabilities.settings):
        names = [port.name for port in ports]
        require(len(set(names)) == len(names), f"port names repeat: {names}. Rename one.")
        for port in ports:
            _port_is_sound(port)
    for dial in capabilities.dials:
        _dial_is_sound(dial)
    limit = capabilities.max_batch
    require(limit is None or limit >= 1, f"max_batch must be None or >= 1, got {limit}.")
    require(
        capabilities.seedable or not capabilities.deterministic,
        "deterministic without seedable: a reading that depends on state and drive only is "
        "seedable too. Set seedable=True.",
    )


def _port_is_sound(port: Port) -> None:
    where = f"port {port.name!r}"
    dtype = getattr(torch, port.dtype, None)
    require(isinstance(dtype, torch.dtype), f"{where}: torch has no dtype {port.dtype!r}.")
    require(all(n >= 1 for n in port.shape), f"{where}: shape {port.shape} has an empty axis.")
    finite = math.isfinite(port.low) and math.isfinite(port.high)
    require(
        finite and port.low < port.high,
        f"{where}: expected finite low < high, got {port.low} and {port.high}.",
    )
    require(
        math.isfinite(port.full_scale) and port.full_scale > 0,
        f"{where}: full_scale must be positive and finite, got {port.full_scale} {port.unit}.",
    )
    _unit_is_coherent(where, port.unit)
    if port.is_coded:
        require(
            port.levels is not None and port.levels > 1,
            f"{where}: a port of integer codes needs levels >= 2, got {port.levels}.",
        )
        info = torch.iinfo(port.torch_dtype)
        require(
            info.min <= port.code_low and port.code_high <= info.max,
            f"{where}: codes {port.code_low} to {port.code_high} do not fit {port.dtype}.",
        )


def _dial_is_sound(dial: Dial) -> None:
    for name in ("ideal", "default", "severe"):
        value = getattr(dial, name)
        require(
            dial.low <= value <= dial.high,
            f"dial {dial.name!r}: {name} is {value}, outside {dial.low} to {dial.high} "
            f"{dial.unit}. Widen the range or move the value.",
        )
    _unit_is_coherent(f"dial {dial.name!r}", dial.unit)


def _unit_is_coherent(where: str, unit: str) -> None:
    parts = [part for part in re.split(r"[*/·^ ]|\*\*", unit) if part]
    for part in parts or [unit]:
        known = part in UNITS or re.fullmatch(r"-?\d+(\.\d+)?", part) is not None
        require(
            known,
            f"{where}: {unit!r} is not a coherent SI unit (V, A, S, s, J, m, rad, electron, 1 …). "
            "Put a prefix into full_scale: 200 mV is full_scale=0.2, unit='V'.",
        )


def a_description_never_changes(probe: Probe) -> None:
    """Capabilities are the same before and after use, and on each device made alike."""
    device = probe.device()
    before = device.capabilities
    program(device)
    read(device, drives(device, 1))
    require(
        device.capabilities == before,
        "capabilities changed by using the device. They are frozen: report changes as state.",
    )
    need(before.seedable, "a device that is not seedable may differ from the next one")
    require(
        probe.device().capabilities == before,
        "two devices made alike describe themselves differently. Derive device_id from the "
        "configuration and the key, not from a counter or the time.",
    )


def what_is_not_offered_is_refused(probe: Probe) -> None:
    """Unknown dials raise UnknownName; undeclared abilities raise Unsupported."""
    device = probe.prepared()
    capabilities = device.capabilities
    _refuses("turning an unknown dial", UnknownName, lambda: device.adjust("", 0.0, key=ROOT))
    if not capabilities.rangeable:
        drive = drives(device, 1)
        _refuses("set_range", Unsupported, lambda: device.set_range(drive, key=ROOT))
    if not capabilities.restorable:
        empty = Snapshot(capabilities.device_id, {}, {})
        _refuses("snapshot", Unsupported, device.snapshot)
        _refuses("restore", Unsupported, lambda: device.restore(empty))
    if not capabilities.programmable:
        nothing = torch.zeros(1)
        _refuses("program", Unsupported, lambda: device.program(nothing, key=ROOT))


def _refuses(what: str, kind: type[Exception], act: Callable[[], object]) -> None:
    try:
        act()
    except kind:
        return
    except Exception as error:
        came = f"{type(error).__name__}: {error}"
        raise CheckFailed(f"{what} must raise {kind.__name__}, got {came}") from error
    raise CheckFailed(f"{what} must raise {kind.__name__}, but it was accepted.")


def a_foreign_snapshot_is_refused(probe: Probe) -> None:
    """A snapshot of another device, or an incomplete one, raises SnapshotError."""
    device = probe.prepared()
    need(device.capabilities.restorable, "capabilities.restorable is False")
    good = copied(device.snapshot())
    foreign = replace(good, device_id=good.device_id + "-other")
    _refuses("restoring another device's snapshot", SnapshotError, lambda: device.restore(foreign))
    for broken, lost in _incomplete(good):
        what = f"restoring a snapshot without {lost!r}"
        _refuses(what, SnapshotError, partial(device.restore, broken))
    device.restore(good)


def _incomplete(good: Snapshot) -> Iterator[tuple[Snapshot, str]]:
    """Copies of a snapshot that lack one array, and one value."""
    arrays, numbers = dict(good.arrays), dict(good.values)
    if arrays:
        lost = next(iter(arrays))
        yield replace(good, arrays={n: a for n, a in arrays.items() if n != lost}), lost
    if numbers:
        lost = next(iter(numbers))
        yield replace(good, values={n: v for n, v in numbers.items() if n != lost}), lost
