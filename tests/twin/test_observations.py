"""The table of a recording: what each reading belongs to, and where nobody can tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.twin.chips import chip, rig
from twin.calls import Call, Timing
from twin.errors import DataError
from twin.key import Key
from twin.observations import observations
from twin.recording import Recording
from twin.wrap import Recorded

SEEDS = st.integers(0, 2**32)
SECONDS = st.floats(0, 1e5)
UNKNOWN = ("OutcomeUnknown", "timed out")


def drive(seed: int = 0, batch: int = 4) -> torch.Tensor:
    return torch.rand((batch, 12), generator=Key(seed).torch())


def setting(seed: int) -> torch.Tensor:
    return torch.rand((12, 8), generator=Key(seed).torch()) * 2 - 1


def used(seconds: float, idle: float = 0.0, rest: float = 5.0) -> Recorded:
    """A chip at work for `seconds` before it is recorded; written, read, rested, read; and
    again after `idle` seconds."""
    device = chip(1)
    device.wait(seconds)
    device.forward(drive(), key=Key(9))
    told = Recorded(device)
    for number in range(2):
        told.wait(idle)
        told.program(setting(number), key=Key(1).child(number))
        told.forward(drive(), key=Key(2), shots=2)
        told.wait(rest)
        told.forward(drive(), key=Key(3))
    return told


def edited(recording: Recording, change: Callable[[Call], Call]) -> Recording:
    return replace(recording, calls=tuple(change(call) for call in recording.calls))


# ---- age --------------------------------------------------------------------------


@given(before=SECONDS, idle=SECONDS, rest=SECONDS)
@example(before=3600.0, idle=0.0, rest=10.0)
@settings(max_examples=20, deadline=None)
def test_the_age_of_a_write_counts_from_the_write_whatever_came_before(
    before: float, idle: float, rest: float
) -> None:
    seen = observations(used(before, idle, rest).recording)
    young = seen.rest - seen.rest.min() == seen.write * 2 - 2
    assert (seen.age_s[young] > 0).all()
    assert (seen.age_s[young] < 1e-3).all()
    # The clock of a device that has run for a day is known to a nanosecond.
    assert seen.age_s[~young] == pytest.approx(rest, abs=1e-3)


def test_on_a_wall_clock_age_counts_from_the_end_of_the_write() -> None:
    """What an experimenter does between two calls passes on the device too."""
    device = used(0.0)
    told = device.recording
    ends = {"program": 100.0, "forward": 107.0, "wait": 107.0}
    calls = edited(told, lambda c: replace(c, timing=Timing(0.0, 0.0, ends[c.kind], 0.0)))
    walled = replace(calls, capabilities=replace(told.capabilities, clock="wall"))
    seen = observations(walled)
    first = [float(seen.age_s[seen.write == write].min()) for write in (1, 2)]
    assert first == pytest.approx([7.0, 7.0], abs=1e-2)
    assert observations(told).age_s.min() < 1e-3


def test_before_any_write_age_counts_from_the_beginning_of_the_recording() -> None:
    device = rig(1)
    device.wait(50.0)
    told = Recorded(device)
    told.wait(3.0)
    told.forward(torch.rand((2, 6), generator=Key(1).torch()), key=Key(2))
    seen = observations(told.recording)
    assert 3.0 < seen.age_s[0] < 4.0 and seen.clock_s[0] > 50.0


# ---- groups -------------------------------------------------------------------------


@given(seed=SEEDS, rest=st.sampled_from([0.0, 1e-3, 100.0]))
@settings(max_examples=20, deadline=None)
def test_equal_drives_of_one_write_are_one_group_whatever_rest_lies_between(
    seed: int, rest: float
) -> None:
    seen = observations(used(0.0, rest=rest).recording)
    for write in (1, 2):
        own = seen.write == write
        assert len(np.unique(seen.group[own])) == 4
    assert len(np.unique(seen.group)) == 8
    one = Recorded(rig(1))
    frames = torch.rand((3, 6), generator=Key(seed).torch())
    for number in range(3):
        one.forward(frames, key=Key(number))
        one.wait(rest)
    assert len(np.unique(observations(one.recording).group)) == 3


# ---- calls of unknown outcome ---------------------------------------------------------


def played() -> Recorded:
    """One of each call that changes a chip, each followed by a reading."""
    device = Recorded(chip(1))
    device.program(setting(0), key=Key(1))
    device.forward(drive(), key=Key(2))
    device.set_range(drive(), key=Key(3))
    device.forward(drive(), key=Key(4))
    device.adjust("read_noise", 0.1, key=Key(5))
    device.forward(drive(), key=Key(6))
    device.wait(1.0)
    device.forward(drive(), key=Key(7))
    return device


@pytest.mark.parametrize("kind", ["program", "set_range", "adjust", "wait"])
@pytest.mark.parametrize("error", ["OutcomeUnknown", "ReadingError"])
def test_readings_behind_a_call_of_unknown_outcome_are_refused(kind: str, error: str) -> None:
    told = played().recording
    assert len(observations(told)) == 16
    lost = edited(told, lambda c: _failed(c, (error, "timed out")) if c.kind == kind else c)
    with pytest.raises(DataError, match=f"{error}.*Record again"):
        observations(lost)


@pytest.mark.parametrize("kind", ["set_range", "adjust", "wait"])
def test_a_call_that_was_refused_changed_nothing(kind: str) -> None:
    told = played().recording
    refused = ("DeviceUnavailable", "busy")
    kept = edited(told, lambda c: _failed(c, refused) if c.kind == kind else c)
    assert len(observations(kept)) == 16


def test_a_write_makes_up_for_a_write_of_unknown_outcome_before_it() -> None:
    device = used(0.0).recording
    first = next(i for i, c in enumerate(device.calls) if c.kind == "program")
    lost = _failed(replace(device.calls[first], inputs={"setting": setting(7)}), UNKNOWN)
    twice = (*device.calls[:first], lost, *device.calls[first:])
    seen = observations(replace(device, calls=twice))
    plain = observations(device)
    assert len(seen.settings) == 2
    for name in ("write", "age_s", "value"):
        assert np.array_equal(getattr(seen, name), getattr(plain, name)), name


def test_a_write_does_not_tell_where_a_dial_stands() -> None:
    device = Recorded(chip(1))
    device.adjust("read_noise", 0.1, key=Key(5))
    device.program(setting(0), key=Key(1))
    device.forward(drive(), key=Key(2))
    unknown = edited(device.recording, lambda c: _failed(c) if c.kind == "adjust" else c)
    with pytest.raises(DataError, match="read_noise"):
        observations(unknown)
    again = (unknown.calls[0], *device.recording.calls)
    assert len(observations(replace(unknown, calls=again))) == 4


def test_a_restore_of_unknown_outcome_is_refused_as_one_that_worked() -> None:
    device = played()
    device.restore(device.snapshot())
    device.forward(drive(), key=Key(8))
    for told in (
        device.recording,
        edited(device.recording, lambda c: _failed(c) if c.kind == "restore" else c),
    ):
        with pytest.raises(DataError):
            observations(told)


def test_a_forward_pass_of_unknown_outcome_leaves_the_state_as_it_is() -> None:
    device = played()
    lost: list[Any] = [_failed(device.recording.calls[1])]
    calls = (*device.recording.calls[:2], *lost, *device.recording.calls[2:])
    assert len(observations(replace(device.recording, calls=calls))) == 16


def _failed(call: Call, error: tuple[str, str] = UNKNOWN) -> Call:
    return replace(call, answer=None, error=error)


# ---- dials and ranges -------------------------------------------------------------------


def test_rows_stand_where_range_and_dials_are_as_at_the_end() -> None:
    device = Recorded(chip(1))
    device.program(setting(0), key=Key(1))
    for value in (0.02, 0.2, 0.02):
        device.adjust("read_noise", value, key=Key(5))
        device.forward(drive(), key=Key(2))
    seen = observations(device.recording)
    assert seen.standing().tolist() == [True] * 4 + [False] * 4 + [True] * 4
    device.set_range(0.1 * drive(), key=Key(6))
    device.forward(drive(), key=Key(3))
    assert observations(device.recording).standing().tolist() == [False] * 12 + [True] * 4


def test_frames_with_the_shutter_closed_stand_with_the_others() -> None:
    device = Recorded(rig(1))
    frames = torch.rand((3, 6), generator=Key(1).torch())
    for shutter in (0.0, 1.0):
        device.adjust("shutter", shutter, key=Key(2))
        device.forward(frames, key=Key(3))
    assert observations(device.recording).standing().all()


def test_a_map_that_is_turned_between_readings_is_refused() -> None:
    device = Recorded(chip(1))
    codes = torch.full((8,), -2049.0)
    device.adjust("stuck_column_code", codes, key=Key(1))
    device.program(setting(0), key=Key(1))
    device.forward(drive(), key=Key(2))
    device.adjust("stuck_column_code", codes, key=Key(1))
    device.forward(drive(), key=Key(2))
    assert len(observations(device.recording)) == 8
    codes = codes.clone()
    codes[0] = 300.0
    device.adjust("stuck_column_code", codes, key=Key(1))
    device.forward(drive(), key=Key(2))
    with pytest.raises(DataError, match="stuck_column_code"):
        observations(device.recording)
