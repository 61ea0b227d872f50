"""A server that is killed goes on where it was, and acts once for each request."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.planted import INPUTS, OUTPUTS, Healthy
from tests.twin.remote.support import Counting, Direct
from twin.backend import MinimalBackend
from twin.errors import DataError, OutcomeUnknown
from twin.fence import Fence
from twin.key import Key
from twin.plain import differs
from twin.registry import open_backend
from twin.remote.app import App
from twin.remote.client import Remote, connect
from twin.remote.device import Device
from twin.remote.journal import Journal

DRIVE = torch.full((2, INPUTS), 0.5)
ROOT = Path(__file__).parents[3]


def served(folder: Path, backend: MinimalBackend) -> tuple[Remote, Journal]:
    journal = Journal(folder, backend.capabilities.device_id)
    device = Device("unit", backend, journal=journal)
    return Remote(Direct(App({"unit": device})), "unit"), journal


def trained(
    fence: Fence, steps: int, key: Key, at: Callable[[int], None] = lambda step: None
) -> Tensor:
    """A small training whose every step depends on what was measured before."""
    weights = torch.zeros(INPUTS, OUTPUTS)
    for step in range(steps):
        at(step)
        fence.program(weights, key=key.child("write", step))
        drive = torch.rand((4, INPUTS), generator=key.child("x", step).torch())
        error = fence.forward(drive, key=key.child("read", step)).values - 0.5
        weights = (weights - 0.05 * drive.T @ error).clamp(-1, 1)
    return weights


def test_a_restarted_server_has_the_same_state_and_the_same_answers(tmp_path: Path) -> None:
    near = Healthy(Key(3))
    for number in range(12):
        # As after a kill: nothing is closed but what the process itself would free.
        far, journal = served(tmp_path, Healthy(Key(3)))
        key = Key(number).for_call(f"call-{number}")
        if number % 3 == 0:
            setting = torch.rand((INPUTS, OUTPUTS), generator=key.torch())
            near.program(setting, key=key)
            far.program(setting, key=key)
        expected = near.forward(DRIVE, key=key.child("x"))
        labelled = key.child("x").for_call(f"read-{number}")
        assert not differs(expected, far.forward(DRIVE, key=labelled))
        journal.close()
        again, journal = served(tmp_path, Healthy(Key(3)))
        assert not differs(expected, again.forward(DRIVE, key=labelled))
        assert not differs(near.snapshot(), again.snapshot())
        journal.close()


def test_a_call_of_a_real_device_that_began_and_was_not_answered_is_unknown(
    tmp_path: Path,
) -> None:
    class Dies(Exception):
        pass

    remote, journal = served(tmp_path, open_backend("ideal", key=Key(5)))
    journal.commit = lambda *_: (_ for _ in ()).throw(Dies())  # type: ignore[method-assign]
    drive, key = torch.zeros(2, 16), Key(1).for_call("a")
    with pytest.raises(OutcomeUnknown):
        remote.forward(drive, key=key)
    journal.close()
    again, journal = served(tmp_path, open_backend("ideal", key=Key(5)))
    with pytest.raises(OutcomeUnknown, match="began earlier"):
        again.forward(drive, key=key)
    again.forward(drive, key=Key(1).for_call("b"))
    journal.close()


def test_a_damaged_or_foreign_or_used_journal_is_refused(tmp_path: Path) -> None:
    remote, journal = served(tmp_path, Counting(Key(3)))
    remote.forward(DRIVE, key=Key(1))
    with pytest.raises(DataError, match="another server"):
        served(tmp_path, Counting(Key(3)))
    journal.close()
    with pytest.raises(DataError, match="own folder"):
        served(tmp_path, Counting(Key(4)))
    entry = next(tmp_path.glob("entry-*.bin"))
    content = bytearray(entry.read_bytes())
    content[-1] ^= 1
    entry.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        served(tmp_path, Counting(Key(3)))


def killed_while_training(folder: Path, steps: int, kills: int) -> Tensor:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.twin.remote.chip_server", str(folder), str(port)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    process, chance = start(), random.Random(1)
    killers: list[threading.Thread] = []

    def kill() -> None:
        nonlocal process
        # Somewhere in the calls of the next step.
        time.sleep(chance.uniform(0.0, 0.03))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert process.stdout is not None
        process.stdout.close()
        process = start()

    def at(step: int) -> None:
        if step % (steps // kills) == 1:
            if killers:
                killers[-1].join()
            assert process.stdout is not None
            assert process.stdout.readline().startswith("http")
            killers.append(threading.Thread(target=kill))
            killers[-1].start()

    try:
        options = {"deadline_s": 120.0, "patience_s": 120.0}
        remote = connect(f"http://127.0.0.1:{port}/chip", **options)
        weights = trained(Fence(remote, name="far"), steps, Key(9), at)
        remote.close()
    finally:
        for killer in killers:
            killer.join()
        process.terminate()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()
    assert len(killers) == kills
    return weights


@pytest.mark.slow
def test_twenty_kills_in_two_hundred_steps_change_no_bit(tmp_path: Path) -> None:
    near = trained(Fence(Healthy(Key(3)), name="near"), 200, Key(9))
    far = killed_while_training(tmp_path, steps=200, kills=20)
    assert torch.equal(near, far)
