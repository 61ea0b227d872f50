"""Checks of what a device does to the process around it, and of its end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from validation.conformance.probe import Probe, batch_of, drives, read, require


def _process() -> dict[str, object]:
    return {
        "torch's grad mode": torch.is_grad_enabled(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's thread count": torch.get_num_threads(),
        "numpy's error handling": np.geterr(),
        "the working folder": os.getcwd(),
        "the environment": dict(os.environ),
    }


@contextmanager
def preserved() -> Iterator[None]:
    """Put torch's process state back, so that one check cannot spoil the next."""
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.set_rng_state(state)


def the_process_is_left_as_it_was(probe: Probe) -> None:
    """Making, using and closing a device changes nothing of the process."""
    before = _process()
    device = probe.prepared()
    read(device, drives(device, batch_of(device.capabilities, 4)))
    device.close()
    after = _process()
    changed = [name for name in before if before[name] != after[name]]
    require(not changed, f"the driver changed {', '.join(changed)}. Restore it before returning.")


def closing_twice_is_harmless(probe: Probe) -> None:
    """close may be called again, before and after use."""
    for device in (probe.device(), probe.prepared()):
        device.close()
        device.close()
