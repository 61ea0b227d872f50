"""Checks of randomness: it comes from keys, and from nowhere else."""

from __future__ import annotations

import random

import numpy as np
import torch

from twin.backend import Backend, Reading
from twin.key import SAMPLE_BLOCK
from validation.conformance.probe import (
    PAUSE_S,
    ROOT,
    Probe,
    batch_of,
    decoded,
    drives,
    identical,
    need,
    one_drive,
    program,
    read,
    require,
    same_state_pair,
    setting,
)


def _global_generators() -> tuple[object, ...]:
    # Looking at the global generators is the one way to see who uses them.
    name, words, *rest = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), name, list(words), rest, random.getstate()


def no_global_generator_is_used(probe: Probe) -> None:
    """Making and using a device leaves the generators of torch, numpy and Python alone."""
    before = _global_generators()
    device = probe.prepared()
    drive = drives(device, batch_of(device.capabilities, 4))
    if device.capabilities.rangeable:
        device.set_range(drive, key=ROOT)
    read(device, drive, shots=2)
    require(
        _global_generators() == before,
        "a global random generator was used or seeded. Draw from the key: key.child(...).torch().",
    )


def the_same_call_gives_the_same_reading(probe: Probe) -> None:
    """Same state, drive and key: the same reading to the last bit, whatever ran before."""
    device = probe.prepared()
    capabilities = device.capabilities
    need(capabilities.seedable, "capabilities.seedable is False")
    drive = drives(device, batch_of(capabilities, 16))

    if capabilities.restorable:
        start = device.snapshot()
        a = read(device, drive)
        _wander(device)
        device.restore(start)
        b = read(device, drive)
    else:
        a, b = same_state_pair(probe, device, lambda d: read(d, drive), lambda d: read(d, drive))
    require(
        identical(a, b),
        "the same state, drive and key gave two readings. Draw every random number from the key, "
        "and keep no state outside the snapshot.",
    )


def _wander(device: Backend) -> None:
    """Use the device in every way that may leave a trace."""
    batch = batch_of(device.capabilities, 8)
    read(device, drives(device, batch, "elsewhere"), "elsewhere")
    program(device, "elsewhere")
    if device.capabilities.rangeable:
        device.set_range(drives(device, batch, "weak", top=0.2), key=ROOT.child("elsewhere"))
    device.wait(0.01)
    read(device, drives(device, batch, "elsewhere"), "elsewhere", shots=2)


ONE = "there is one device only"


def equal_devices_give_equal_readings(probe: Probe) -> None:
    """A device made again, and used in the same way, reads the same to the last bit."""
    first = probe.prepared()
    need(first.capabilities.seedable, "capabilities.seedable is False")
    need(not probe.only, ONE)
    drive = drives(first, batch_of(first.capabilities, 16))
    pairs = []
    for device in (first, probe.prepared()):
        fresh = read(device, drive)
        if device.capabilities.clock == "virtual":
            device.wait(PAUSE_S)  # spread of ageing shows only with age
        pairs.append((fresh, read(device, drive)))
    require(
        all(identical(a, b) for a, b in zip(*pairs, strict=True)),
        "two devices made with the same key read differently. Draw the spread between devices "
        "once, from the key given to make().",
    )


def two_devices_share_nothing(probe: Probe) -> None:
    """Programming one device leaves another one alone."""
    first = probe.prepared()
    need(first.capabilities.seedable and not probe.only, ONE)
    drive = drives(first, batch_of(first.capabilities, 16))
    second = probe.prepared()
    program(second, "another")
    read(second, drive, "another")
    require(
        identical(read(first, drive), read(probe.prepared(), drive)),
        "using one device changed another. Keep state in the instance, not in the class or module.",
    )


def the_key_decides_the_noise(probe: Probe) -> None:
    """Another key gives another reading, unless the device is declared deterministic."""
    device = probe.prepared()
    capabilities = device.capabilities
    need(capabilities.seedable, "capabilities.seedable is False")
    drive = drives(device, batch_of(capabilities, SAMPLE_BLOCK))
    a, b = same_state_pair(
        probe, device, lambda d: read(d, drive, "one"), lambda d: read(d, drive, "two")
    )
    if capabilities.deterministic:
        require(identical(a, b), "declared deterministic, but another key changes the reading.")
        return
    require(
        not identical(a, b),
        "another key gives the very same reading. Use the key of the call for its noise, or "
        "declare deterministic=True.",
    )


def noise_is_fresh_for_every_sample_and_shot(probe: Probe) -> None:
    """Equal drives in one call read differently in each row, and in each shot."""
    device = probe.prepared()
    capabilities = device.capabilities
    need(not capabilities.deterministic, "capabilities.deterministic is True")
    batch = batch_of(capabilities, SAMPLE_BLOCK)
    drive = one_drive(device, batch)
    # (shots, batch, ...) of all ports, decoded.
    seen = list(decoded(read(device, drive, shots=2), capabilities).values())
    shots_differ = any(not torch.equal(v[0], v[1]) for v in seen)
    require(shots_differ, "two shots of one call carry the same noise. Draw it per shot.")
    rows_differ = batch == 1 or any(bool((v[0] != v[0, :1]).any()) for v in seen)
    require(rows_differ, "all samples of a batch carry the same noise. Draw it per sample.")


def the_sample_number_names_the_noise(probe: Probe) -> None:
    """A sample with another number gets other noise under the same key."""
    device = probe.prepared()
    capabilities = device.capabilities
    need(capabilities.seedable, "capabilities.seedable is False")
    need(not capabilities.deterministic, "capabilities.deterministic is True")
    drive = drives(device, batch_of(capabilities, SAMPLE_BLOCK))

    def later(target: Backend) -> Reading:
        return read(target, drive, first_sample=SAMPLE_BLOCK)

    a, b = same_state_pair(probe, device, lambda d: read(d, drive), later)
    require(
        not identical(a, b),
        "samples 0.. and 64.. carry the same noise under one key, so chunks of a data set repeat "
        "it. Draw noise by first_sample + row.",
    )


def writing_is_decided_by_the_key(probe: Probe) -> None:
    """The same setting under the same key is written to the same result."""
    device = probe.device()
    capabilities = device.capabilities
    need(capabilities.programmable, "there is nothing to program")
    need(capabilities.seedable, "capabilities.seedable is False")
    drive = drives(device, batch_of(capabilities, 8))
    readings = []
    for target in (device, probe.device()):
        target.program(setting(target), key=ROOT.child("first"))
        target.program(setting(target, "again"), key=ROOT.child("second"))
        readings.append(read(target, drive))
    require(
        identical(*readings),
        "the same two writes under the same keys ended in different states. Draw write errors "
        "from the key of program().",
    )
