"""A process that is killed while it records loses at most the call under way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.planted import Healthy
from tests.twin.tapes import drive
from twin.key import Key
from twin.recording import Recording
from twin.wrap import Recorded

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")


def killed(folder: Path, after_s: float) -> int:
    """Kill a recorder `after_s` after its first answer; how many answers it gave."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.twin.recorder_child", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    with child.stdout as answers:
        first = answers.readline()
        time.sleep(after_s)
        child.kill()
        rest = answers.read()
    assert child.wait() == -signal.SIGKILL
    # The last line may have been cut by the kill.
    return len((first + rest).split(b"\n")) - 1


def check_a_kill(folder: Path, after_s: float) -> None:
    answered = killed(folder, after_s)
    recording = Recording.load(folder)
    assert not recording.closed
    # At most one more than was told: recorded, and killed before it was told.
    assert answered <= len(recording.calls) <= answered + 1
    again = Healthy(Key(3))
    for number, call in enumerate(recording.calls):
        assert call.key == Key(number)
        assert torch.equal(call.inputs["drive"], drive(8, seed=number))
        expected = again.forward(drive(8, seed=number), key=Key(number))
        assert torch.equal(call.answer.codes, expected.codes)


@pytest.mark.parametrize("moment", range(4))
def test_a_killed_recorder_loses_at_most_the_call_under_way(moment: int, tmp_path: Path) -> None:
    check_a_kill(tmp_path / "run", 0.2 * Key(moment).numpy().random())


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(4, 24))
def test_so_it_does_at_any_moment(moment: int, tmp_path: Path) -> None:
    check_a_kill(tmp_path / "run", 1.0 * Key(moment).numpy().random())


class Killed(BaseException):
    """Stands for a death of the process at a step of the operating system."""


@pytest.mark.parametrize("step", ["fsync", "replace", "rename", "open"])
def test_a_death_at_any_step_of_writing_leaves_a_prefix(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "replace", lambda self, target: os.replace(self, target))
    real = getattr(os, step)
    for die_at in range(12):
        folder, seen, answered = tmp_path / f"run {die_at}", [0], 0

        def dying(*given: object, seen: list[int] = seen, die_at: int = die_at, **named: object):
            seen[0] += 1
            if seen[0] > die_at:
                raise Killed
            return real(*given, **named)

        with monkeypatch.context() as patched:
            patched.setattr(os, step, dying)
            try:
                device = Recorded(Healthy(Key(3)), to=folder)
                for number in range(3):
                    device.forward(drive(), key=Key(number))
                    answered += 1
                device.close()
            except Killed:
                pass
        if folder.exists():
            assert answered <= len(Recording.load(folder).calls) <= answered + 1
        else:
            assert answered == 0
