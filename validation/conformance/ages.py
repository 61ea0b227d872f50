"""Checks of time: the clock, waits, and what a pass does to the device."""

from __future__ import annotations

import math

from twin.backend import Backend, Reading
from validation.conformance.probe import (
    PAUSE_S,
    Probe,
    batch_of,
    drives,
    need,
    read,
    require,
    same_state_pair,
    spread,
    unlike,
)


def _virtual(device: Backend) -> None:
    need(device.capabilities.clock == "virtual", "the clock is the wall clock")


def the_clock_counts_every_pass(probe: Probe) -> None:
    """The clock goes on by what each pass took, and by each wait."""
    device = probe.prepared()
    batch = batch_of(device.capabilities, 16)
    drive = drives(device, batch)
    first, second = read(device, drive), read(device, drive, shots=2)
    require(
        second.clock_s >= first.clock_s,
        f"the clock went back from {first.clock_s} s to {second.clock_s} s.",
    )
    _virtual(device)
    took = second.clock_s - first.clock_s
    require(
        second.device_seconds > 0 and _close(took, second.device_seconds, second.clock_s),
        f"a pass of {second.device_seconds} s moved the clock by {took} s. Add device_seconds of "
        "every pass to the clock, and report the clock at the end of the pass.",
    )
    device.wait(PAUSE_S)
    third = read(device, drive)
    went = third.clock_s - second.clock_s
    require(
        _close(went, PAUSE_S + third.device_seconds, third.clock_s),
        f"a wait of {PAUSE_S} s moved the clock by {went - third.device_seconds} s.",
    )


def _close(a: float, b: float, scale: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12 * max(1.0, scale))


def splitting_a_wait_changes_nothing(probe: Probe) -> None:
    """Waiting once or in seven uneven parts ends in the same state."""
    device = probe.prepared()
    _virtual(device)
    need(device.capabilities.seedable, "capabilities.seedable is False")
    drive = drives(device, batch_of(device.capabilities, 64))
    noise = spread(device, drive)
    shares = (0.001, 0.009, 0.05, 0.14, 0.3, 0.25, 0.25)

    def at_once(target: Backend) -> Reading:
        target.wait(PAUSE_S)
        return read(target, drive)

    def in_parts(target: Backend) -> Reading:
        for share in shares:
            target.wait(PAUSE_S * share)
        return read(target, drive)

    a, b = same_state_pair(probe, device, at_once, in_parts)
    gap = unlike(a, b, device.capabilities, noise)
    require(
        gap is None,
        f"how a wait is split changes the device ({gap}). Compute drift from the age, and draw "
        "its randomness on an absolute grid of device time from the device's own key.",
    )


def a_pass_disturbs_no_more_than_its_clock(probe: Probe) -> None:
    """Reading many times is to the device as waiting as long, unless declared."""
    device = probe.prepared()
    capabilities = device.capabilities
    need(not capabilities.read_disturb, "capabilities.read_disturb is True")
    need(capabilities.seedable, "capabilities.seedable is False")
    batch = batch_of(capabilities, 64)
    drive = drives(device, batch)
    noise = spread(device, drive)
    took: list[float] = []

    def much_used(target: Backend) -> Reading:
        took.extend(read(target, drive, "use").device_seconds for _ in range(32))
        return read(target, drive)

    def rested(target: Backend) -> Reading:
        if capabilities.clock == "virtual":
            target.wait(math.fsum(took))
        return read(target, drive)

    a, b = same_state_pair(probe, device, much_used, rested)
    gap = unlike(a, b, capabilities, noise)
    require(
        gap is None,
        f"{32 * batch} passes changed the device more than waiting as long ({gap}). Declare "
        "read_disturb=True, or keep forward() from changing state.",
    )


def a_wait_of_no_time_changes_nothing(probe: Probe) -> None:
    """A wait of 0 s leaves the device as it is."""
    device = probe.prepared()
    drive = drives(device, batch_of(device.capabilities, 16))
    noise = spread(device, drive)

    def waited(target: Backend) -> Reading:
        target.wait(0.0)
        return read(target, drive)

    a, b = same_state_pair(probe, device, lambda d: read(d, drive), waited)
    gap = unlike(a, b, device.capabilities, noise)
    require(gap is None, f"a wait of 0 s changed the device ({gap}).")
