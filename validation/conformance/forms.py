"""Checks of the form of a reading: shape, dtype, range, finite at the extremes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from twin.backend import Backend, Reading
from validation.conformance.probe import (
    FLOAT_TOLERANCE,
    ROOT,
    Probe,
    batch_of,
    drives,
    flat,
    ports_of,
    program,
    read,
    require,
    values,
)


def _has_its_form(device: Backend, reading: Reading, lead: tuple[int, ...]) -> None:
    for port, codes in ports_of(reading, device.capabilities):
        wanted = (*lead, *port.shape)
        require(
            tuple(codes.shape) == wanted,
            f"reading {port.name!r} has shape {tuple(codes.shape)}, expected {wanted}: shots "
            "(if asked for), one row per sample, then the port's shape. Never squeeze.",
        )
        require(
            codes.dtype == port.torch_dtype,
            f"reading {port.name!r} has dtype {codes.dtype}, the port says {port.dtype}.",
        )
    for name in ("device_seconds", "joules", "clock_s"):
        cost = float(getattr(reading, name))
        require(math.isfinite(cost) and cost >= 0, f"{name} must be finite and >= 0, got {cost}.")
    inside = 0 <= float(reading.saturated) <= 1
    require(inside, f"saturated is a fraction in [0, 1], got {reading.saturated}.")


def a_reading_has_the_form_of_its_ports(probe: Probe) -> None:
    """Shape, dtype, extra ports and costs of a reading are as declared."""
    device = probe.prepared()
    batch = batch_of(device.capabilities, 5)
    drive = drives(device, batch)
    _has_its_form(device, read(device, drive), (batch,))
    _has_its_form(device, read(device, drive, shots=3), (3, batch))


def a_batch_of_one_keeps_its_axis(probe: Probe) -> None:
    """One sample, or one shot, comes back with an axis of length one."""
    device = probe.prepared()
    drive = drives(device, 1)
    _has_its_form(device, read(device, drive), (1,))
    _has_its_form(device, read(device, drive, shots=1), (1, 1))


def the_largest_batch_is_taken(probe: Probe) -> None:
    """A batch of max_batch samples (or 257, where there is no limit) is answered."""
    device = probe.prepared()
    limit = device.capabilities.max_batch
    batch = 257 if limit is None else min(limit, 1024)
    _has_its_form(device, read(device, drives(device, batch)), (batch,))


def _extremes(device: Backend) -> Iterator[Reading]:
    """Readings with everything low, high and random, also in a narrow range."""
    capabilities, batch = device.capabilities, batch_of(device.capabilities, 4)
    kinds = [flat(capabilities.drives, (batch,), s) for s in (0.0, 1.0)]
    kinds.append(drives(device, batch))
    shares = (0.0, 1.0, 0.5) if capabilities.programmable else (0.0,)
    for share in shares:
        if capabilities.programmable:
            device.program(flat(capabilities.settings, (), share), key=ROOT.child("extreme"))
        for drive in kinds:
            yield read(device, drive)
    if capabilities.rangeable:
        program(device)
        weak = values(capabilities.drives, (batch,), ROOT.child("weak"), top=0.05)
        device.set_range(weak, key=ROOT.child("range"))
        for drive in kinds:
            yield read(device, drive)


def readings_stay_inside_their_port(probe: Probe) -> None:
    """Whatever goes in, the codes lie between the port's lowest and highest."""
    device = probe.prepared()
    for reading in _extremes(device):
        for port, codes in ports_of(reading, device.capabilities):
            known = codes[torch.isfinite(codes)] if codes.dtype.is_floating_point else codes
            if known.numel() == 0:
                continue
            slack = 0.0 if port.is_coded else FLOAT_TOLERANCE * (port.high - port.low)
            low, high = known.min().item(), known.max().item()
            require(
                port.code_low - slack <= low and high <= port.code_high + slack,
                f"reading {port.name!r} spans {low} to {high}, its port allows {port.code_low} "
                f"to {port.code_high}. Clip in the driver, or declare a wider port.",
            )


def saturation_is_an_end_code_never_nan(probe: Probe) -> None:
    """Driven as hard as the ports allow, a reading and its range stay finite."""
    device = probe.prepared()
    for reading in _extremes(device):
        for port, codes in ports_of(reading, device.capabilities):
            bad = int((~torch.isfinite(codes.double())).sum())
            require(
                bad == 0,
                f"reading {port.name!r} holds {bad} NaN or infinite values. Report saturation "
                "as the end code, and count it in Reading.saturated.",
            )
        ratio = torch.as_tensor(reading.ratio).double()
        sound = bool((torch.isfinite(ratio) & (ratio > 0)).all())
        require(sound, f"ratio must be finite and positive, got {ratio.min().item()}.")
