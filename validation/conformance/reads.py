"""Checks of what a reading answers, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from twin.backend import Backend, Reading, Values
from twin.key import SAMPLE_BLOCK
from validation.conformance.probe import (
    ROOT,
    WHOLE_BLOCKS,
    Probe,
    batch_of,
    cut,
    decoded,
    drives,
    flat,
    need,
    read,
    require,
    same_state_pair,
    setting,
    spread,
    tensors,
    unlike,
)


def no_reading_carries_a_graph(probe: Probe) -> None:
    """With gradients on, nothing that comes out requires a gradient."""
    device = probe.device()
    out: dict[str, Any] = {}
    with torch.enable_grad():
        if device.capabilities.programmable:
            out |= dict(device.program(setting(device), key=ROOT).achieved)
        reading = read(device, drives(device, batch_of(device.capabilities, 3)))
        out |= {"codes": reading.codes, "ratio": reading.ratio} | dict(reading.extra)
        if device.capabilities.restorable:
            out |= {f"snapshot {n}": a for n, a in device.snapshot().arrays.items()}
    leaks = [n for n, value in out.items() if isinstance(value, Tensor) and value.requires_grad]
    require(not leaks, f"{', '.join(leaks)} requires grad. Detach what leaves the driver.")


def inputs_are_left_as_they_were(probe: Probe) -> None:
    """Drives and settings that were passed in are not written to."""
    device = probe.device()
    capabilities = device.capabilities
    given: dict[str, Values] = {"drive": drives(device, batch_of(capabilities, 4))}
    if capabilities.programmable:
        given["setting"] = setting(device)
    before = {name: [t.clone() for t in tensors(value)] for name, value in given.items()}
    if capabilities.programmable:
        device.program(given["setting"], key=ROOT)
    read(device, given["drive"])
    if capabilities.rangeable:
        device.set_range(given["drive"], key=ROOT)
    for name, value in given.items():
        same = all(torch.equal(a, b) for a, b in zip(tensors(value), before[name], strict=True))
        require(same, f"the {name} passed in was changed in place. Work on a copy.")


def the_setting_is_copied(probe: Probe) -> None:
    """What the caller does to its tensor after program() does not reach the device."""
    device = probe.device()
    capabilities = device.capabilities
    need(capabilities.programmable, "there is nothing to program")
    drive = drives(device, batch_of(capabilities, SAMPLE_BLOCK))

    written = setting(device)
    device.program(written, key=ROOT.child("program"))
    noise = spread(device, drive)
    before = read(device, drive)
    for tensor, port in zip(tensors(written), capabilities.settings, strict=True):
        tensor.copy_(port.low + port.high - tensor)
    after = read(device, drive)
    gap = unlike(before, after, capabilities, noise)
    require(
        gap is None,
        f"changing the caller's tensor after program() changed the reading ({gap}). "
        "Copy the setting in program().",
    )


def a_named_port_means_the_same_as_a_bare_tensor(probe: Probe) -> None:
    """forward({port: x}) is forward(x)."""
    device = probe.prepared()
    ports = device.capabilities.drives
    need(len(ports) == 1, "with several drive ports there is no bare tensor")
    drive = drives(device, batch_of(device.capabilities, 4))
    by_name = {ports[0].name: tensors(drive)[0]}
    noise = spread(device, drive)
    a, b = same_state_pair(probe, device, lambda d: read(d, drive), lambda d: read(d, by_name))
    gap = unlike(a, b, device.capabilities, noise)
    require(gap is None, f"naming the port changes the reading ({gap}). Use twin.backend.single.")


def a_reading_answers_its_own_drive(probe: Probe) -> None:
    """No reading is left over from the call before."""
    device = probe.prepared()
    need(not device.capabilities.read_disturb, "capabilities.read_disturb: a pass may be felt")
    capabilities, batch = device.capabilities, batch_of(device.capabilities, 16)
    drive, other = drives(device, batch), drives(device, batch, "other")
    noise = spread(device, drive)

    def after_another(target: Backend) -> Reading:
        read(target, other)
        return read(target, drive)

    def twice(target: Backend) -> Reading:
        read(target, drive)
        return read(target, drive)

    a, b = same_state_pair(probe, device, after_another, twice)
    gap = unlike(a, b, capabilities, noise)
    require(
        gap is None,
        f"a reading depends on the drive of the call before ({gap}). Wait for the new frame, "
        "and discard buffered ones.",
    )


def the_order_of_the_batch_is_kept(probe: Probe) -> None:
    """Row n of a reading belongs to row n of the drive."""
    device = probe.prepared()
    batch = batch_of(device.capabilities, 8)
    need(batch > 1, "max_batch is 1")
    drive = drives(device, batch)
    # Each alone, under its own sample number, then all together.
    rows = [read(device, cut(drive, n, n + 1), first_sample=n) for n in range(batch)]
    together = decoded(read(device, drive), device.capabilities)
    name = device.capabilities.readings[0].name
    alone = torch.cat([decoded(row, device.capabilities)[name] for row in rows])
    distance = torch.cdist(together[name].flatten(1).double(), alone.flatten(1).double())
    nearest = distance.argmin(1).tolist()
    noise = spread(device, drive)[name].square().sum().sqrt()
    between = torch.pdist(alone.flatten(1).double()).median()
    need(bool(between > 3 * noise), "noise hides which sample a row belongs to")
    right = sum(n == found for n, found in enumerate(nearest))
    require(
        right > batch // 2,
        f"rows came back in another order: the nearest sample of each row is {nearest}, expected "
        f"{list(range(batch))}. Undo the driver's sorting.",
    )


def a_sample_reads_the_same_in_any_company(probe: Probe) -> None:
    """What else is in the batch changes no sample's reading (no range from the batch)."""
    device = probe.prepared()
    capabilities = device.capabilities
    batch = batch_of(capabilities, SAMPLE_BLOCK)
    need(batch > 1, "max_batch is 1")
    keep = batch // 2
    # Bright rows last: the noise of the dim ones is then drawn first.
    dim, bright = drives(device, keep, top=0.3), flat(capabilities.drives, (batch - keep,), 1.0)
    pairs = zip(tensors(dim), tensors(bright), strict=True)
    rows = [torch.cat(pair) for pair in pairs]
    names = [port.name for port in capabilities.drives]
    mixed = dict(zip(names, rows, strict=True)) if len(rows) > 1 else rows[0]
    noise = spread(device, dim)
    a, b = same_state_pair(
        probe, device, lambda d: read(d, dim), lambda d: _first_rows(read(d, mixed), keep)
    )
    gap = unlike(a, b, capabilities, noise)
    require(
        gap is None,
        f"the rest of the batch changes a sample's reading ({gap}). Do not normalise or range "
        "on the batch; use set_range.",
    )


def _first_rows(reading: Reading, count: int) -> Reading:
    extra = {name: torch.as_tensor(codes)[:count] for name, codes in reading.extra.items()}
    return Reading(codes=torch.as_tensor(reading.codes)[:count], ratio=reading.ratio, extra=extra)


def aligned_chunks_give_what_the_whole_gives(probe: Probe) -> None:
    """Two blocks of samples sent one by one read as both sent at once."""
    device = probe.prepared()
    capabilities = device.capabilities
    whole_fits = capabilities.max_batch is None or capabilities.max_batch >= WHOLE_BLOCKS
    need(whole_fits, f"max_batch is below {WHOLE_BLOCKS}")
    drive = drives(device, WHOLE_BLOCKS)
    halves = [cut(drive, s, s + SAMPLE_BLOCK) for s in (0, SAMPLE_BLOCK)]
    noise = spread(device, drive)

    def in_chunks(target: Backend) -> Reading:
        parts = [read(target, halves[i], first_sample=i * SAMPLE_BLOCK) for i in (0, 1)]
        names = parts[0].extra
        extra = {n: torch.cat([torch.as_tensor(p.extra[n]) for p in parts]) for n in names}
        codes = torch.cat([torch.as_tensor(p.codes) for p in parts])
        return Reading(codes=codes, ratio=parts[0].ratio, extra=extra)

    a, b = same_state_pair(probe, device, lambda d: read(d, drive), in_chunks)
    gap = unlike(a, b, capabilities, noise)
    require(
        gap is None,
        f"sent in two chunks the samples read differently ({gap}). Draw noise by sample number "
        "(first_sample), and let nothing depend on the batch.",
    )


def different_drives_read_differently(probe: Probe) -> None:
    """The device is connected: another drive gives another reading."""
    device = probe.prepared()
    batch = batch_of(device.capabilities, 16)
    port = device.capabilities.readings[0]
    # The same key: where the noise follows it, only the drive differs.
    a, b = (
        decoded(read(device, drives(device, batch, n)), device.capabilities)[port.name]
        for n in ("one", "two")
    )
    rms = float(spread(device, drives(device, batch))[port.name].square().mean().sqrt())
    seen = port.step * port.is_coded if device.capabilities.seedable else 3 * rms
    moved = float((a - b).abs().max()) > seen
    require(
        moved,
        "all drives give the same reading: the device is not connected, or stuck. Check its "
        "range (set_range) and the scale of the drive.",
    )
