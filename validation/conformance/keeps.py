"""Checks of state: snapshots, versions, ranges and dials."""

from __future__ import annotations

import torch
from torch import Tensor

from twin.backend import Backend, Dial, Reading
from validation.conformance.probe import (
    FLOAT_TOLERANCE,
    PAUSE_S,
    ROOT,
    Probe,
    batch_of,
    copied,
    decoded,
    drives,
    flat,
    identical,
    need,
    ports_of,
    program,
    read,
    require,
    spread,
    unlike,
    values,
)


def _restorable(probe: Probe) -> Backend:
    device = probe.prepared()
    need(device.capabilities.restorable, "capabilities.restorable is False")
    return device


def a_snapshot_is_plain_data(probe: Probe) -> None:
    """A snapshot holds the device's id, tensors, and numbers or text; nothing else."""
    device = _restorable(probe)
    snapshot = device.snapshot()
    right_id = snapshot.device_id == device.capabilities.device_id
    require(right_id, f"the snapshot names {snapshot.device_id!r} instead of this device.")
    odd = [n for n, a in snapshot.arrays.items() if not isinstance(a, Tensor)]
    odd += [n for n, v in snapshot.values.items() if not isinstance(v, bool | int | float | str)]
    require(not odd, f"{', '.join(odd)} is not plain data. Use tensors, numbers and text.")


def a_snapshot_shares_nothing(probe: Probe) -> None:
    """Neither does using the device change a snapshot, nor the reverse."""
    device = _restorable(probe)
    drive = drives(device, batch_of(device.capabilities, 8))
    snapshot = device.snapshot()
    kept = copied(snapshot)
    before = read(device, drive)
    program(device, "another")
    for dial in _maps(device):
        device.adjust(dial.name, torch.full(dial.shape, dial.severe), key=ROOT)
    read(device, drive)
    same = all(torch.equal(a, kept.arrays[n]) for n, a in snapshot.arrays.items())
    require(
        same and dict(snapshot.values) == dict(kept.values),
        "a snapshot changed while the device was used. Clone what goes into it.",
    )
    device.restore(snapshot)
    for array in snapshot.arrays.values():
        array.zero_()
    require(
        identical(read(device, drive), before),
        "changing a snapshot after restore() changed the device. Clone what comes out of it.",
    )
    device.restore(kept)
    for array in device.snapshot().arrays.values():
        array.zero_()
    require(
        identical(read(device, drive), before),
        "changing a snapshot changed the device it was taken from. Clone what goes into it.",
    )


def _maps(device: Backend) -> list[Dial]:
    return [d for d in device.capabilities.dials if d.shape and not d.read_only]


def restoring_brings_everything_back(probe: Probe) -> None:
    """After use, waits and writes, a restored device goes on exactly as before."""
    device = _restorable(probe)
    drive = drives(device, batch_of(device.capabilities, 8))

    def go_on() -> list[Reading]:
        first = read(device, drive)
        device.wait(PAUSE_S)
        program(device, "later")
        return [first, read(device, drive, "later")]

    start = device.snapshot()
    before = go_on()
    device.restore(start)
    after = go_on()
    same = all(identical(a, b) for a, b in zip(before, after, strict=True))
    require(
        same,
        "a restored device went on differently. Put all state into the snapshot: what was "
        "written and when, the range, the clock, the dials.",
    )


def the_clock_is_in_the_snapshot(probe: Probe) -> None:
    """Restoring turns the device's clock back as well."""
    device = _restorable(probe)
    drive = drives(device, 1)
    start = device.snapshot()
    before = read(device, drive).clock_s
    device.wait(PAUSE_S)
    device.restore(start)
    after = read(device, drive).clock_s
    require(
        after == before,
        f"after restoring, the clock says {after} s instead of {before} s. Save the clock.",
    )


def dials_are_in_the_snapshot(probe: Probe) -> None:
    """Restoring turns every dial back to where it was."""
    device = _restorable(probe)
    dials = _writable(device)
    need(bool(dials), "there is no dial to turn")
    drive = drives(device, batch_of(device.capabilities, 8))
    base = device.snapshot()

    def use() -> list[Reading]:
        first = read(device, drive)
        program(device, "later")
        device.wait(PAUSE_S)
        return [first, read(device, drive, "later")]

    for dial in dials:
        device.restore(base)
        away = dial.severe if dial.severe != dial.default else dial.ideal
        _turn(device, dial, away)
        turned = device.snapshot()
        before = use()
        device.restore(base)
        _turn(device, dial, dial.default if away != dial.default else dial.low)
        device.restore(turned)
        same = all(identical(a, b) for a, b in zip(before, use(), strict=True))
        require(
            same,
            f"dial {dial.name!r} did not come back with the snapshot. Save its value (or map).",
        )


def _writable(device: Backend) -> list[Dial]:
    return [d for d in device.capabilities.dials if not d.read_only]


def _turn(device: Backend, dial: Dial, value: float) -> None:
    to = torch.full(dial.shape, float(value)) if dial.shape else float(value)
    device.adjust(dial.name, to, key=ROOT.child("turn", dial.name))


def every_dial_keeps_readings_sound(probe: Probe) -> None:
    """At its ideal, default and severe value each dial leaves readings in their port."""
    device = probe.prepared()
    dials = _writable(device)
    need(bool(dials), "there is no dial to turn")
    drive = drives(device, batch_of(device.capabilities, 4))
    for dial in dials:
        for value in (dial.ideal, dial.severe, dial.default):
            _turn(device, dial, value)
            for port, codes in ports_of(read(device, drive), device.capabilities):
                slack = 0.0 if port.is_coded else FLOAT_TOLERANCE * (port.high - port.low)
                low, high = codes.double().min().item(), codes.double().max().item()
                require(
                    port.code_low - slack <= low and high <= port.code_high + slack,
                    f"with dial {dial.name!r} at {value} {dial.unit} the reading {port.name!r} "
                    f"spans {low} to {high} (port: {port.code_low} to {port.code_high}).",
                )


def a_dial_map_is_copied(probe: Probe) -> None:
    """What the caller does to a fault map after adjust() does not reach the device."""
    device = probe.prepared()
    maps = _maps(device)
    need(bool(maps), "no dial takes a map")
    drive = drives(device, batch_of(device.capabilities, 8))
    for dial in maps:
        given = torch.full(dial.shape, float(dial.default))
        device.adjust(dial.name, given, key=ROOT.child("turn", dial.name))
        noise = spread(device, drive)
        before = read(device, drive)
        given.fill_(dial.severe)
        gap = unlike(before, read(device, drive), device.capabilities, noise)
        require(gap is None, f"the map of dial {dial.name!r} is shared ({gap}). Copy it.")


def the_state_version_counts_writes(probe: Probe) -> None:
    """program raises the version, and a reading reports the version it was taken at."""
    device = probe.device()
    need(device.capabilities.programmable, "there is nothing to program")
    drive, versions = drives(device, 1), []
    for name in ("setting", "another", "setting"):
        given = values(device.capabilities.settings, (), ROOT.child(name))
        versions.append(device.program(given, key=ROOT.child(name)).state_version)
        seen = read(device, drive).state_version
        require(
            seen == versions[-1],
            f"program returned state_version {versions[-1]}, the reading after it says {seen}.",
        )
    rising = versions[0] < versions[1] < versions[2]
    require(rising, f"three writes have versions {versions}. Count every write.")


def what_was_written_is_told_on_the_ports_scale(probe: Probe) -> None:
    """Written.achieved has the shape of its port and no SI unit in it."""
    device = probe.device()
    need(device.capabilities.programmable, "there is nothing to program")
    given = values(device.capabilities.settings, (), ROOT.child("setting"))
    written = device.program(given, key=ROOT.child("program"))
    need(bool(written.achieved), "the device cannot know what it wrote (achieved is empty)")
    by_name = {port.name: port for port in device.capabilities.settings}
    for name, achieved in written.achieved.items():
        port = by_name.get(name)
        require(port is not None, f"achieved names {name!r}, which is no setting port.")
        assert port is not None
        right = tuple(achieved.shape) == port.shape
        require(right, f"achieved {name!r} has shape {tuple(achieved.shape)}, not {port.shape}.")
        width, middle = port.high - port.low, (port.high + port.low) / 2
        # Write errors overshoot; another unit is off by orders of magnitude.
        inside = bool(((achieved - middle).abs() <= 1.5 * width).all())
        flat_line = bool(achieved.std() < 1e-3 * width) if achieved.numel() > 1 else False
        require(
            inside and not flat_line,
            f"achieved {name!r} spans {achieved.min():.3g} to {achieved.max():.3g}, the port "
            f"{port.low} to {port.high}. Divide by full_scale ({port.full_scale} {port.unit}).",
        )


def ranging_happens_only_when_asked(probe: Probe) -> None:
    """No drive, however bright, changes the range in force."""
    device = probe.prepared()
    batch = batch_of(device.capabilities, 16)
    weak, strong = drives(device, batch, top=0.2), flat(device.capabilities.drives, (batch,), 1.0)
    noise = spread(device, weak)
    start = device.snapshot() if device.capabilities.restorable else None
    before = read(device, weak)
    if start is not None:
        # What drifts is compared with itself at the same age, a weak batch before it.
        read(device, weak, "as long")
        before = read(device, weak)
        device.restore(start)
        read(device, weak)
    read(device, strong)
    after = read(device, weak)
    same = torch.equal(torch.as_tensor(before.ratio), torch.as_tensor(after.ratio))
    gap = unlike(before, after, device.capabilities, noise)
    require(
        same and gap is None,
        "a bright batch changed the range of the ones after it. Keep the range fixed in "
        f"forward(), change it in set_range() only ({gap or 'ratio differs'}).",
    )


def ranging_rescales_no_feature(probe: Probe) -> None:
    """set_range costs passes and changes resolution, not the values that are decoded."""
    device = probe.prepared()
    capabilities = device.capabilities
    need(capabilities.rangeable, "capabilities.rangeable is False")
    drive = drives(device, batch_of(capabilities, 32))
    # Whoever used the device before may have left a range that these drives overrun.
    device.set_range(drive, key=ROOT.child("begin"))
    noise = spread(device, drive)
    before = read(device, drive)
    wide = flat(capabilities.drives, (batch_of(capabilities, 32),), 1.0)
    ranged = device.set_range(wide, key=ROOT.child("range"))
    after = read(device, drive)
    require(ranged.passes >= 1, f"ranging took {ranged.passes} passes. Count them.")
    told = torch.equal(torch.as_tensor(ranged.ratio).float(), torch.as_tensor(after.ratio).float())
    require(told, "the ratio set_range returned is not the one of the next reading.")
    a, b = decoded(before, capabilities), decoded(after, capabilities)
    port = capabilities.readings[0]
    ratios = [torch.as_tensor(r.ratio, dtype=torch.float32) for r in (before, after)]
    # A value at the end of either range was cut, not rescaled; an element that never moves
    # (a stuck converter) has a fixed code, not a fixed value.
    narrow = torch.minimum(*ratios).clamp(max=1.0)
    limit = 0.95 * narrow * max(abs(port.low), abs(port.high))
    free = (a[port.name].abs() < limit) & (a[port.name] != a[port.name][:1]).any(0)
    gap = (a[port.name] - b[port.name]).abs()[free]
    need(gap.numel() > 0, "every value is stuck, or at the end of its range")
    rms = float(noise[port.name].square().mean().sqrt())
    coarse = max(1.0, *(float(ratio.max()) for ratio in ratios))
    allowed = 2 * port.step * coarse * port.is_coded + 4 * rms + 1e-4
    apart = float(gap.double().square().mean().sqrt())
    require(
        apart <= allowed,
        f"after set_range the same drives decode to values {apart:.3g} away (allowed "
        f"{allowed:.3g}). Reading.ratio must be range in force / nominal range.",
    )
