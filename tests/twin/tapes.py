"""Recordings for tests: what a healthy chip answers to one of each call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.planted import INPUTS, OUTPUTS, Healthy
from twin.backend import Backend, Snapshot
from twin.blocks import CALLS, CLOSED, HEADER
from twin.errors import SnapshotError
from twin.key import Key
from twin.plain import differs
from twin.recording import Recording
from twin.wrap import Recorded

NAMES = (
    "kind", "inputs", "key", "answer", "error", "timing", "version_before", "version_after"
)  # fmt: skip


def drive(batch: int = 3, seed: int = 0) -> Tensor:
    return torch.rand((batch, INPUTS), generator=Key(seed).torch())


def weights(seed: int = 0) -> Tensor:
    return 2 * torch.rand((INPUTS, OUTPUTS), generator=Key(seed).torch()) - 1


def play(device: Backend) -> list[Any]:
    """One of each call; returns all answers."""
    start = device.snapshot()
    answers: list[Any] = [
        device.program(weights(), key=Key(1)),
        device.forward(drive(), key=Key(2), first_sample=7, shots=2),
        device.adjust("stuck", torch.eye(OUTPUTS)[0], key=Key(3)),
        device.adjust("drift", 0.1, key=Key(3)),
        device.set_range(drive(), key=Key(4)),
        device.wait(12.5),
        device.forward({"in": drive(1)}, key=Key(5).child("a", 1).for_call("r-5")),
        start,
    ]
    with pytest.raises(SnapshotError):
        device.restore(Snapshot("another", {}, {}))
    device.restore(start)
    answers.append(device.forward(drive(), key=Key(6)))
    device.close()
    return answers


def taped(folder: Path, close: bool = True) -> Path:
    """A small recording on disk, made as it happens: three calls."""
    device = Recorded(Healthy(Key(3)), to=folder)
    device.program(weights(), key=Key(1))
    device.forward(drive(2), key=Key(2).for_call("r-2"))
    device.wait(1.0)
    if close:
        device.close()
    return folder


def files(folder: Path) -> list[Path]:
    """Every file of a recording."""
    blocks = sorted((folder / CALLS).iterdir())
    return [folder / HEADER, *blocks, *[p for p in [folder / CLOSED] if p.exists()]]


def same(a: Recording, b: Recording) -> bool:
    """Whether two recordings hold the same to the last bit, times and all."""
    return len(a.calls) == len(b.calls) and all(
        not differs(getattr(x, name), getattr(y, name))
        for x, y in zip(a.calls, b.calls, strict=True)
        for name in NAMES
    )
