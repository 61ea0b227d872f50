"""Recordings repeat a device to the last bit, and refuse what is not theirs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.planted import Healthy, HealthyFloat
from tests.twin.tapes import drive, play, weights
from twin.errors import (
    ConfigError,
    DataError,
    DeviceUnavailable,
    OutcomeUnknown,
    ReplayError,
    UnknownName,
)
from twin.fence import Fence
from twin.key import Key
from twin.plain import differs, owned, pack, unpack
from twin.recording import Call, Recording
from twin.wrap import Faulty, Recorded, Replayed


@pytest.fixture(params=[Healthy, HealthyFloat])
def recording(request: pytest.FixtureRequest) -> Recording:
    device = Recorded(request.param(Key(3)))
    play(device)
    return device.recording


def test_recording_changes_no_answer() -> None:
    plain, recorded = play(Healthy(Key(3))), play(Recorded(Healthy(Key(3))))
    assert not differs(tuple(map(owned, plain)), tuple(map(owned, recorded)))


@pytest.mark.parametrize("kind", [Healthy, HealthyFloat])
def test_a_replay_answers_to_the_last_bit_and_raises_what_was_raised(kind: type[Healthy]) -> None:
    device = Recorded(kind(Key(3)))
    first = play(device)
    replayed = Replayed(device.recording)
    again = play(replayed)
    assert not differs(tuple(map(owned, first)), tuple(map(owned, again)))
    assert replayed.remaining == 0
    assert replayed.capabilities == device.capabilities


def test_a_recording_survives_the_disk(recording: Recording, tmp_path: Path) -> None:
    recording.save(tmp_path / "run")
    loaded = Recording.load(tmp_path / "run")
    assert loaded.capabilities == recording.capabilities
    assert loaded.device_id == recording.device_id
    assert len(loaded.calls) == len(recording.calls)
    for a, b in zip(loaded.calls, recording.calls, strict=True):
        for name in ("kind", "inputs", "key", "answer", "error"):
            assert not differs(getattr(a, name), getattr(b, name)), name
    play(Replayed(loaded))


def test_answers_may_be_used_up_without_harm(recording: Recording) -> None:
    for _ in range(2):
        device = Replayed(recording)
        device.snapshot().arrays["weights"].fill_(9.0)
        device.program(weights(), key=Key(1)).achieved["weights"].fill_(9.0)
        device.forward(drive(), key=Key(2), first_sample=7, shots=2).codes.fill_(9)
    assert not (recording.calls[0].answer.arrays["weights"] == 9.0).any()
    assert not (recording.calls[2].answer.codes == 9).all()


def test_what_is_recorded_is_the_input_before_the_call() -> None:
    class Vandal(Healthy):
        def program(self, setting: Any, *, key: Key) -> Any:
            written = super().program(setting, key=key)
            setting.zero_()
            return written

    device = Recorded(Vandal(Key(3)))
    given = weights()
    device.program(given, key=Key(0))
    assert torch.equal(device.recording.calls[0].inputs["setting"], weights())


def test_what_is_recorded_is_the_answer_as_it_was_given() -> None:
    device = Recorded(Healthy(Key(3)))
    codes = device.forward(drive(), key=Key(0)).codes
    kept = codes.clone()
    codes.fill_(99)
    assert torch.equal(device.recording.calls[0].answer.codes, kept)


# ---- strictness ------------------------------------------------------------


def taped() -> Replayed:
    device = Recorded(Healthy(Key(3)))
    device.program(weights(), key=Key(1))
    device.forward(drive(), key=Key(2))
    device.wait(1.0)
    replayed = Replayed(device.recording)
    replayed.program(weights(), key=Key(1))
    return replayed


WRONG: dict[str, tuple[Any, str]] = {
    "kind": (lambda d: d.wait(1.0), "expected forward, got wait"),
    "drive": (lambda d: d.forward(drive(seed=9), key=Key(2)), "forward has another drive"),
    "one bit": (lambda d: d.forward(drive() * (1 + 2e-7), key=Key(2)), "another drive"),
    "dtype": (lambda d: d.forward(drive().double(), key=Key(2)), "torch.float64"),
    "named port": (lambda d: d.forward({"in": drive()}, key=Key(2)), "another drive"),
    "key": (lambda d: d.forward(drive(), key=Key(2).child("x")), "another key"),
    "sample": (lambda d: d.forward(drive(), key=Key(2), first_sample=1), "another first_sample"),
    "shots": (lambda d: d.forward(drive(), key=Key(2), shots=1), "another shots"),
}


@pytest.mark.parametrize("what", WRONG)
def test_another_call_than_the_recorded_one_is_refused_by_number(what: str) -> None:
    ask, message = WRONG[what]
    device = taped()
    with pytest.raises(ReplayError, match=r"call 2.*" + message):
        ask(device)
    # The call is still there for the right question.
    device.forward(drive(), key=Key(2))
    with pytest.raises(ReplayError, match=r"call 3.*another seconds"):
        device.wait(2.0)
    device.wait(1.0)
    with pytest.raises(ReplayError, match="only 3 calls were recorded"):
        device.wait(1.0)


def test_a_retried_run_replays_with_its_refusals() -> None:
    def run(device: Any) -> Tensor:
        fence = Fence(device, name="chip", run_id="r")
        fence.program(weights(), key=Key(1))
        return torch.stack([fence.forward(drive(), key=Key(i)).values for i in range(5)])

    device = Recorded(Faulty(Healthy(Key(3)), Key(0), at={2: "unavailable", 5: "unavailable"}))
    first = run(device)
    assert sum(call.error is not None for call in device.recording.calls) == 2
    assert torch.equal(run(Replayed(device.recording)), first)


# ---- plain data -----------------------------------------------------------


def test_a_recorded_error_of_an_unknown_kind_is_refused() -> None:
    capabilities = Healthy(Key(3)).capabilities
    call = Call("wait", {"seconds": 1.0}, error=("nearest", "ideal"))
    with pytest.raises(DataError, match="unknown error"):
        Replayed(Recording(capabilities, (call,))).wait(1.0)


dtypes = st.sampled_from([torch.float32, torch.float64, torch.int32, torch.uint8, torch.bool])
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
arrays = st.builds(lambda d, s: torch.ones(s).to(d), dtypes, shapes)
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), arrays
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(tree=trees)
@settings(max_examples=150, deadline=None)
def test_plain_data_survives_being_packed(tree: Any) -> None:
    tensors: dict[str, Tensor] = {}
    text = json.dumps(pack(tree, tensors), allow_nan=False)
    assert not differs(tree, unpack(json.loads(text), tensors))


@given(one=trees, other=trees)
@settings(max_examples=100, deadline=None)
def test_a_difference_is_seen_from_both_sides(one: Any, other: Any) -> None:
    assert differs(one, other) == differs(other, one)
    assert not differs(one, owned(one))


def test_copies_share_no_memory_and_no_graph() -> None:
    array, tensor = np.zeros(3), torch.zeros(3, requires_grad=True)
    copy = owned({"a": array, "t": (tensor, [tensor])})
    array[:] = 1.0
    assert copy["a"].sum() == 0
    assert not copy["t"][0].requires_grad
    assert owned(np.float32(1.5)) == 1.5


def test_only_plain_data_can_be_recorded() -> None:
    with pytest.raises(DataError, match="got object"):
        pack({"a": object()}, {})


# ---- faults ----------------------------------------------------------------


def test_a_refused_call_did_not_act() -> None:
    inner = Healthy(Key(3))
    device = Faulty(inner, Key(0), at={1: "unavailable"})
    with pytest.raises(DeviceUnavailable, match="call 1"):
        device.program(weights(), key=Key(1))
    assert inner.version == 0


def test_a_lost_answer_is_one_after_the_act() -> None:
    inner = Healthy(Key(3))
    with pytest.raises(OutcomeUnknown, match="call 1"):
        Faulty(inner, Key(0), at={1: "unknown"}).program(weights(), key=Key(1))
    assert inner.version == 1


def test_faults_come_at_their_rate_and_from_the_key() -> None:
    def schedule(key: Key) -> list[bool]:
        device, refused = Faulty(Healthy(Key(3)), key, rate=0.2), []
        for _ in range(1000):
            try:
                device.forward(drive(1), key=Key(0))
                refused.append(False)
            except DeviceUnavailable:
                refused.append(True)
        return refused

    first = schedule(Key(1))
    assert schedule(Key(1)) == first != schedule(Key(2))
    # Binomial, n = 1000, p = 0.2: standard error 12.6.
    assert abs(sum(first) - 200) < 5 * 12.65


def test_a_faulty_device_is_otherwise_the_device_itself() -> None:
    plain, faulty = play(Healthy(Key(3))), play(Faulty(Healthy(Key(3)), Key(0)))
    assert not differs(tuple(map(owned, plain)), tuple(map(owned, faulty)))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"at": {1: "nam"}}, UnknownName),
        ({"kinds": ("unavailble",)}, UnknownName),
        ({"rate": 1.5}, ConfigError),
    ],
)
def test_a_fault_that_does_not_exist_is_refused(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(ConfigError, match="faulty"):
        Faulty(Healthy(Key(3)), Key(0), **options)


def test_a_shifted_recording_is_not_the_same() -> None:
    device = taped()
    other = replace(device._recording, calls=device._recording.calls[1:])
    with pytest.raises(ReplayError, match="call 1"):
        Replayed(other).program(weights(), key=Key(1))
