"""Checks of what a device means when it says that it did not act."""

from __future__ import annotations

from twin.errors import DeviceUnavailable
from validation.conformance.probe import ROOT, Probe, drives, need, read, require, values

WRITES = 8
"""Tried; a device that never fails in so many has nothing to show."""


def what_did_not_act_may_be_tried_again(probe: Probe) -> None:
    """A write that raised DeviceUnavailable has not been made, so that a retry makes it once."""
    device = probe.device()
    need(device.capabilities.programmable, "there is nothing to program")
    drive, refusals = drives(device, 1), 0
    for number in range(WRITES):
        before = read(device, drive).state_version
        key = ROOT.child("write", number).for_call(f"write-{number}")
        given = values(device.capabilities.settings, (), ROOT.child("setting", number))
        try:
            device.program(given, key=key)
        except DeviceUnavailable:
            refusals += 1
            after = read(device, drive).state_version
            require(
                after == before,
                f"program raised DeviceUnavailable, yet the state version went from {before} to "
                f"{after}: a retry would write twice. Raise OutcomeUnknown if the device may "
                "have acted.",
            )
    need(refusals > 0, f"it never said that it did not act, in {WRITES} writes")
