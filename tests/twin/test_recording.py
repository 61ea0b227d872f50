"""A recording is on the disk when the answer is given, and is read back to the last bit."""

from __future__ import annotations

import errno
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.planted import Healthy, HealthyFloat
from tests.twin.tapes import NAMES, drive, play, same, taped, weights
from twin.backend import Capabilities, Port, Ranged, Reading, Snapshot, Written
from twin.blocks import CALLS, CLOSED, block_path
from twin.calls import Call, Timing
from twin.errors import DataError, PibTwinError, UnknownName
from twin.faulty import CALL_FAULTS, READING_FAULTS, Faulty
from twin.key import Key
from twin.plain import differs, owned
from twin.recording import Recording
from twin.recordingtold import describe
from twin.replay import replay
from twin.wrap import Recorded, Replayed

GOLDEN = Path(__file__).parent / "data"


# ---- as it happens -----------------------------------------------------------


def test_recording_to_the_disk_changes_no_answer(tmp_path: Path) -> None:
    plain = play(Healthy(Key(3)))
    recorded = play(Recorded(Healthy(Key(3)), to=tmp_path / "run"))
    assert not differs(tuple(map(owned, plain)), tuple(map(owned, recorded)))


@pytest.mark.parametrize("kind", [Healthy, HealthyFloat])
def test_a_recording_on_the_disk_is_the_one_in_memory(kind: type[Healthy], tmp_path: Path) -> None:
    memory, disk = Recorded(kind(Key(3))), Recorded(kind(Key(3)), to=tmp_path / "run")
    play(memory)
    play(disk)
    loaded = Recording.load(tmp_path / "run")
    for a, b in zip(loaded.calls, memory.recording.calls, strict=True):
        assert not any(differs(getattr(a, n), getattr(b, n)) for n in NAMES if n != "timing")
    assert loaded.capabilities == memory.capabilities
    play(Replayed(loaded))


def test_every_call_is_on_the_disk_before_its_answer_is_given(tmp_path: Path) -> None:
    device = Recorded(Healthy(Key(3)), to=tmp_path / "run")
    for number in range(5):
        device.forward(drive(), key=Key(number))
        found = Recording.load(tmp_path / "run")
        assert len(found.calls) == number + 1 and not found.closed
    device.close()
    device.close()
    assert Recording.load(tmp_path / "run").closed


def test_a_call_says_when_it_was_what_it_cost_and_which_state_it_met(tmp_path: Path) -> None:
    before_s = time.time()
    program, forward, wait = Recording.load(taped(tmp_path / "run")).calls
    assert [c.kind for c in (program, forward, wait)] == ["program", "forward", "wait"]
    assert (program.version_before, program.version_after) == (None, 1)
    assert (forward.version_before, forward.version_after) == (1, 1)
    assert (forward.id, program.id, wait.id) == ("r-2", None, None)
    assert (forward.passes, program.passes, wait.passes) == (2, 0, 0)
    assert forward.device_seconds == forward.answer.device_seconds > 0
    times = [call.timing for call in (program, forward, wait)]
    for timing, after in pairwise(times):
        assert timing and after
        assert timing.began_monotonic_s <= timing.ended_monotonic_s <= after.began_monotonic_s
        assert before_s - 1 <= timing.began_unix_s <= time.time() + 1


def test_a_recording_names_the_device_and_the_software(tmp_path: Path) -> None:
    found = Recording.load(taped(tmp_path / "run"))
    assert found.device_id == "planted-3"
    assert found.versions["torch"] == torch.__version__
    assert {"python", "numpy", "pib-twin", "safetensors"} <= set(found.versions)
    assert found.created_unix_s is not None and abs(found.created_unix_s - time.time()) < 100


def test_a_restored_device_has_an_unknown_version_until_it_tells_one(tmp_path: Path) -> None:
    device = Recorded(Healthy(Key(3)), to=tmp_path / "run")
    play(device)
    last, restore = device.recording.calls[-1], device.recording.calls[-2]
    assert restore.kind == "restore" and restore.version_after is None
    assert (last.version_before, last.version_after) == (None, 0)


def test_typed_errors_are_recorded_and_defects_of_a_driver_are_not(tmp_path: Path) -> None:
    class Defective(Healthy):
        def wait(self, seconds: float) -> None:
            raise ZeroDivisionError

    device = Recorded(Defective(Key(3)), to=tmp_path / "run")
    with pytest.raises(ZeroDivisionError):
        device.wait(1.0)
    with pytest.raises(UnknownName):
        device.adjust("nothing", 1.0, key=Key(0))
    (call,) = Recording.load(tmp_path / "run").calls
    assert call.error is not None and call.error[0] == "UnknownName"


# ---- where it cannot be written ----------------------------------------------


def test_a_full_disk_ends_the_recording_and_the_device_acts_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = Healthy(Key(3))
    device = Recorded(inner, to=tmp_path / "run")
    device.program(weights(), key=Key(1))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(DataError, match=r"call 1 \(program\).*No space.*has acted"):
            device.program(weights(1), key=Key(2))
    assert inner.version == 2
    with pytest.raises(DataError, match="call 1 was not recorded"):
        device.program(weights(2), key=Key(3))
    assert inner.version == 2
    device.close()
    found = Recording.load(tmp_path / "run")
    assert len(found.calls) == 1 and not found.closed


def test_an_interrupt_while_writing_leaves_no_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Recorded(Healthy(Key(3)), to=tmp_path / "run")

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            device.wait(1.0)
    with pytest.raises(DataError, match="call 0 was not recorded"):
        device.wait(1.0)


def test_what_cannot_be_recorded_is_refused_before_the_device_acts(tmp_path: Path) -> None:
    inner = Healthy(Key(3))
    device = Recorded(inner, to=tmp_path / "run")
    with pytest.raises(DataError, match="got object"):
        device.program({"weights": object()}, key=Key(1))  # type: ignore[dict-item]
    assert inner.version == 0
    device.program(weights(), key=Key(1))


def test_a_closed_recording_takes_no_more_calls(tmp_path: Path) -> None:
    inner = Healthy(Key(3))
    device = Recorded(inner, to=tmp_path / "run")
    device.close()
    with pytest.raises(DataError, match="closed"):
        device.program(weights(), key=Key(1))
    assert inner.version == 0


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    folder = taped(tmp_path / "run")
    with pytest.raises(DataError, match="exists already"):
        Recording.load(folder).save(folder)
    with pytest.raises(DataError, match="exists already"):
        Recorded(Healthy(Key(3)), to=folder)


def test_a_failed_save_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording.load(taped(tmp_path / "run"))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        recording.save(tmp_path / "second")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


# ---- round trips --------------------------------------------------------------

numbers = st.one_of(st.floats(), st.integers(-(2**60), 2**60))
words = st.text(max_size=6)


@st.composite
def tensors(draw: Any, leading: tuple[int, ...] = ()) -> Tensor:
    """Any dtype and shape, NaN and infinities among the floats."""
    dtype = draw(st.sampled_from(["float32", "float64", "int32", "uint8", "bool", "bfloat16"]))
    shape = (*leading, *draw(st.lists(st.integers(0, 3), max_size=2)))
    made = 20 * torch.randn(shape, generator=Key(draw(st.integers(0, 2**32))).torch())
    if dtype.startswith(("float", "bfloat")) and made.numel():
        made.view(-1)[0] = draw(st.sampled_from([0.0, -0.0, torch.nan, torch.inf, -torch.inf]))
    return made.to(getattr(torch, dtype))


values = st.one_of(tensors(), st.dictionaries(words, tensors(), min_size=1, max_size=2))
keys = st.builds(
    lambda seed, path, label: Key(seed, tuple(path), label),
    st.integers(-(2**70), 2**70),
    st.lists(st.one_of(words, st.integers()), max_size=3),
    st.one_of(st.none(), words),
)
costs: dict[str, Any] = {"device_seconds": st.floats(0, 1e9), "joules": numbers}
named = st.dictionaries(words, tensors(), max_size=2)
ratios = st.one_of(st.floats(), tensors())
whole = st.integers(0, 2**40)
answers = {
    "program": st.builds(Written, state_version=whole, achieved=named, **costs),
    "forward": st.builds(
        Reading, codes=tensors(), ratio=ratios, saturated=st.floats(), state_version=whole,
        clock_s=st.floats(), extra=named, **costs,
    ),
    "set_range": st.builds(Ranged, state_version=whole, ratio=ratios, passes=whole, **costs),
    "adjust": whole,
    "wait": st.none(),
    "snapshot": st.builds(Snapshot, words, named, st.dictionaries(words, numbers, max_size=2)),
    "restore": st.none(),
}  # fmt: skip
inputs = {
    "program": st.fixed_dictionaries({"setting": values}),
    "forward": st.fixed_dictionaries(
        {
            "drive": values,
            "first_sample": whole,
            "shots": st.one_of(st.none(), st.integers(1, 9)),
        }
    ),
    "set_range": st.fixed_dictionaries({"drive": values}),
    "adjust": st.fixed_dictionaries({"dial": words, "value": st.one_of(numbers, tensors())}),
    "wait": st.fixed_dictionaries({"seconds": st.floats()}),
    "snapshot": st.just({}),
    "restore": st.fixed_dictionaries({"snapshot": answers["snapshot"]}),
}
timings = st.one_of(st.none(), st.builds(Timing, *[st.floats(0, 2e9)] * 4))
unknown = st.one_of(st.none(), whole)


@st.composite
def calls(draw: Any) -> Call:
    kind = draw(st.sampled_from(sorted(inputs)))
    failed = draw(st.booleans())
    return Call(
        kind,
        draw(inputs[kind]),
        draw(st.one_of(st.none(), keys)),
        None if failed else draw(answers[kind]),
        (draw(words), draw(words)) if failed else None,
        draw(timings),
        draw(unknown),
        draw(unknown),
    )


CHIP = Capabilities(device_id="chip é", drives=(Port(name="in", shape=(3,)),), readings=())


@given(made=st.lists(calls(), max_size=4), closed=st.booleans(), created=unknown)
@settings(max_examples=25, deadline=None)
def test_any_recording_comes_back_from_the_disk_to_the_last_bit(
    made: list[Call], closed: bool, created: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any") / "run"
    first = Recording(CHIP, tuple(made), closed, {"torch": "é"}, created)
    first.save(folder)
    again = Recording.load(folder)
    assert same(first, again)
    assert (again.capabilities, again.closed) == (CHIP, closed)
    assert (again.versions, again.created_unix_s) == (first.versions, first.created_unix_s)


@pytest.mark.parametrize("fault", [*CALL_FAULTS, *READING_FAULTS])
def test_what_a_faulty_device_does_is_recorded_as_it_was(fault: str, tmp_path: Path) -> None:
    def made(to: Path | None) -> Recorded:
        device = Recorded(Faulty(HealthyFloat(Key(3)), Key(0), at={2: fault}), to=to)
        device.forward(drive(1), key=Key(1))
        for batch in (4, 2):
            with suppress(PibTwinError):
                device.forward(drive(batch), key=Key(batch), shots=batch)
        device.close()
        return device

    memory, disk = made(None).recording.calls, made(tmp_path / "run").recording.calls
    assert len(memory) == len(disk) == 3
    for a, b in zip(memory, disk, strict=True):
        assert not differs(a.answer, b.answer)
        assert a.error == b.error


def test_calls_are_read_one_by_one_and_slices_are_tuples(tmp_path: Path) -> None:
    recording = Recording.load(taped(tmp_path / "run"), verify=False)
    kinds = ["program", "forward", "wait"]
    assert [c.kind for c in recording.calls[:2]] == kinds[:2]
    assert [c.kind for c in recording.calls] == kinds
    assert recording.calls[-1].kind == "wait"
    with pytest.raises(IndexError):
        recording.calls[3]
    # Nothing is held: a block that has gone is missed.
    block_path(tmp_path / "run", 1).unlink()
    with pytest.raises(DataError, match=r"000000001\.block"):
        recording.calls[1]


def test_a_replay_from_the_disk_answers_as_one_from_memory(tmp_path: Path) -> None:
    first = play(Recorded(Healthy(Key(3)), to=tmp_path / "run"))
    again = play(replay(tmp_path / "run"))
    assert not differs(tuple(map(owned, first)), tuple(map(owned, again)))


def test_an_unclosed_recording_stays_so_when_saved_again(tmp_path: Path) -> None:
    Recording.load(taped(tmp_path / "run", close=False)).save(tmp_path / "copy")
    assert not Recording.load(tmp_path / "copy").closed
    assert not (tmp_path / "copy" / CLOSED).exists()


# ---- old formats ----------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2])
def test_a_recording_that_an_older_version_wrote_stays_readable(number: int) -> None:
    recording = Recording.load(GOLDEN / f"recording-format-{number}")
    assert recording.device_id == "planted-3"
    # Not what this version makes of it: what that version printed.
    sums = [int(c.answer.codes.sum()) for c in recording.calls if c.kind == "forward"]
    assert sums == [103, 113, 23]
    play(Replayed(recording))


def test_a_golden_recording_has_every_kind_of_file() -> None:
    assert (GOLDEN / "recording-format-2" / CLOSED).exists()
    assert len(list((GOLDEN / "recording-format-2" / CALLS).iterdir())) == 11


# ---- described ---------------------------------------------------------------------


def test_a_recording_is_described_in_a_few_lines(tmp_path: Path) -> None:
    told = dict(describe(taped(tmp_path / "run")))
    assert told["device"] == "planted-3"
    assert told["calls"] == "3 (1 program, 1 forward, 1 wait)"
    assert told["closed"] == "yes"
    assert told["errors"] == "0"
    assert told["cost"].startswith("2 passes")
    assert told["digests"] == "all as recorded"
    assert dict(describe(GOLDEN / "recording-format-1"))["duration"] == "not told"


def test_a_description_names_the_damaged_block(tmp_path: Path) -> None:
    folder = taped(tmp_path / "run", close=False)
    path = block_path(folder, 1)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    told = dict(describe(folder))
    assert told["closed"].startswith("no")
    assert "000000001.block" in told["digests"]
