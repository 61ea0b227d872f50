"""A replay says what differs; in mode nearest it answers for drives like the recorded ones."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backends import Made, Physics
from tests.planted import INPUTS, OUTPUTS, Healthy
from tests.test_gradient_blind import flat, of, trained
from tests.test_gradient_blind import same as equal
from tests.twin.tapes import drive, play, weights
from twin.errors import ConfigError, DriveError, ReplayError, UnknownName
from twin.faulty import Faulty
from twin.key import Key
from twin.recording import Recording
from twin.replay import replay
from twin.wrap import Recorded, Replayed

# ---- the same training ---------------------------------------------------------


def test_a_training_on_a_replay_from_the_disk_is_the_recorded_one_bit_for_bit(
    tmp_path: Path,
) -> None:
    law = Physics(
        inputs=5, outputs=4, curve="tanh", gain=1.5, disturb=1e-2, noise=0.1, seed=11
    )  # fmt: skip
    folders = [tmp_path / "unit 1", tmp_path / "unit 2"]
    recorded = [Recorded(b, to=folder) for b, folder in zip(of("numpy", law), folders, strict=True)]
    first = trained(recorded, law, 3)
    again = trained([replay(folder) for folder in folders], law, 3)
    assert len(first.steps) >= 8
    assert equal(flat(first.steps), flat(again.steps))
    # The trajectory is not one that any device gives.
    other = trained([Made(b.law, "numpy") for b in of("numpy", replace(law, noise=0.2))], law, 3)
    assert not equal(flat(first.steps), flat(other.steps))


# ---- strict: what differs, and by how much --------------------------------------


def taped(passes: int = 6) -> Recording:
    device = Recorded(Healthy(Key(3)))
    device.program(weights(), key=Key(1))
    for number in range(passes):
        device.forward(drive(seed=number), key=Key(10 + number))
    return device.recording


def test_a_strict_miss_tells_how_far_the_drive_is_and_which_call_is_nearest() -> None:
    device = Replayed(taped())
    device.program(weights(), key=Key(1))
    asked = drive(seed=4)
    asked[1, 2] += 0.25
    with pytest.raises(ReplayError) as caught:
        device.forward(asked, key=Key(14))
    message = str(caught.value)
    assert "call 2: forward has another key" in message
    assert "Nearest is recorded call 6: forward has another drive" in message
    assert "largest difference 0.25" in message


def test_a_call_out_of_order_is_named() -> None:
    device = Replayed(taped())
    device.program(weights(), key=Key(1))
    with pytest.raises(ReplayError, match="recorded as call 5: the order differs"):
        device.forward(drive(seed=3), key=Key(13))
    with pytest.raises(ReplayError, match=r"No wait was recorded nearby"):
        device.wait(1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_drive_without_a_distance_is_still_a_miss(bad: float) -> None:
    device = Replayed(taped())
    device.program(weights(), key=Key(1))
    with pytest.raises(ReplayError, match="another drive"):
        device.forward(torch.full((3, INPUTS), bad), key=Key(10))


# ---- nearest ---------------------------------------------------------------------


def nearest(recording: Recording, **options: Any) -> Replayed:
    return Replayed(recording, "nearest", **options)


@given(seed=st.integers(0, 2**32), batch=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_each_sample_is_answered_by_the_nearest_recorded_one(seed: int, batch: int) -> None:
    recording = taped()
    device = nearest(recording)
    device.program(weights(), key=Key(99))
    asked = drive(batch, seed=seed)
    reading = device.forward(asked, key=Key(77), first_sample=123)
    known = torch.cat([c.inputs["drive"] for c in recording.calls[1:]]).double()
    codes = torch.cat([c.answer.codes for c in recording.calls[1:]])
    supply = torch.cat([c.answer.extra["supply"] for c in recording.calls[1:]])
    # The slow second way: one pair at a time.
    gaps = torch.tensor([[float((a - b).square().sum()) for b in known] for a in asked.double()])
    assert torch.equal(reading.codes, codes[gaps.argmin(1)])
    assert torch.equal(reading.extra["supply"], supply[gaps.argmin(1)])
    assert device.last_distance is not None
    assert torch.allclose(device.last_distance.square(), gaps.min(1).values.double(), atol=1e-12)


def test_a_recorded_drive_is_at_distance_zero_in_any_order() -> None:
    recording = taped()
    device = nearest(recording, max_distance=0.0)
    device.program({"weights": weights()}, key=Key(5))
    rows = torch.cat([drive(seed=4)[2:], drive(seed=0)[:1]])
    reading = device.forward({"in": rows}, key=Key(0))
    assert torch.equal(reading.codes[0], recording.calls[5].answer.codes[2])
    assert torch.equal(reading.codes[1], recording.calls[1].answer.codes[0])
    assert device.last_distance is not None and not device.last_distance.any()
    cost = recording.calls[1].answer
    assert reading.device_seconds == pytest.approx(2 * cost.device_seconds / 3)
    assert (reading.ratio, reading.state_version) == (cost.ratio, cost.state_version)


def test_a_drive_too_far_away_is_refused_with_its_distance() -> None:
    device = nearest(taped(), max_distance=0.1)
    device.program(weights(), key=Key(1))
    asked = drive(seed=2)
    asked[1] += 1.0
    with pytest.raises(ReplayError, match=r"sample 1 is 1\.8 .*max_distance = 0\.1"):
        device.forward(asked, key=Key(0))
    assert device.last_distance is None


def test_only_the_setting_in_force_answers() -> None:
    device = Recorded(Healthy(Key(3)))
    for seed in (0, 1):
        device.program(weights(seed), key=Key(1))
        device.forward(drive(), key=Key(2))
    device.adjust("drift", 0.1, key=Key(3))
    device.forward(drive(), key=Key(2))
    device.wait(100.0)
    device.forward(drive(), key=Key(2))
    kept = [c.answer.codes for c in device.recording.calls if c.kind == "forward"]
    again = nearest(device.recording)
    with pytest.raises(ReplayError, match="no pass was recorded in the state in force"):
        again.forward(drive(), key=Key(0))
    # Back and forth, and with the dial as any kind of number.
    for seed in (1, 0, 1):
        again.program(weights(seed), key=Key(9))
        assert torch.equal(again.forward(drive(), key=Key(0)).codes, kept[seed])
    again.adjust("drift", 0.1, key=Key(9))
    assert torch.equal(again.forward(drive(), key=Key(0)).codes, kept[2])
    again.wait(100.0)
    assert torch.equal(again.forward(drive(), key=Key(0)).codes, kept[3])
    with pytest.raises(ReplayError, match=r"this wait was not recorded.*as call 7"):
        again.wait(100.0)


def test_a_setting_that_was_not_recorded_is_refused_and_changes_nothing() -> None:
    device = nearest(taped())
    device.program(weights(), key=Key(1))
    changed = weights()
    changed[0, 0] += 0.5
    with pytest.raises(ReplayError, match=r"this program was not.*call 1.*largest difference 0\.5"):
        device.program(changed, key=Key(1))
    device.forward(drive(), key=Key(0))


def test_a_restored_state_is_the_one_of_its_snapshot() -> None:
    device = Recorded(Healthy(Key(3)))
    device.program(weights(0), key=Key(1))
    start = device.snapshot()
    first = device.forward(drive(), key=Key(2)).codes
    device.program(weights(1), key=Key(1))
    device.forward(drive(), key=Key(2))
    device.restore(start)
    device.forward(drive(1, seed=5), key=Key(2))
    again = nearest(device.recording)
    again.program(weights(1), key=Key(1))
    again.restore(start)
    assert torch.equal(again.forward(drive(), key=Key(0)).codes, first)


def test_shots_are_answered_from_calls_with_as_many() -> None:
    device = Recorded(Healthy(Key(3)))
    three = device.forward(drive(), key=Key(1), shots=3)
    device.forward(drive(), key=Key(2))
    again = nearest(device.recording)
    assert torch.equal(again.forward(drive(), key=Key(0), shots=2).codes, three.codes[:2])
    assert torch.equal(again.forward(drive()[:1], key=Key(0)).codes, three.codes[0, :1])
    with pytest.raises(ReplayError, match="4 shots"):
        again.forward(drive(), key=Key(0), shots=4)


def test_failed_and_malformed_passes_answer_nothing() -> None:
    device = Recorded(Faulty(Healthy(Key(3)), Key(0), at={1: "shape", 2: "batch"}))
    for _ in range(3):
        device.forward(drive(), key=Key(1))
    good = device.recording.calls[2].answer.codes
    assert torch.equal(nearest(device.recording).forward(drive(), key=Key(0)).codes, good)
    with pytest.raises(ReplayError, match="as its ports declare"):
        nearest(replace(device.recording, calls=device.recording.calls[:2])).forward(
            drive(), key=Key(0)
        )


def test_an_empty_batch_has_an_empty_answer() -> None:
    device = nearest(taped())
    device.program(weights(), key=Key(1))
    assert device.forward(drive(0), key=Key(0)).codes.shape == (0, OUTPUTS)


def test_a_nearest_replay_survives_the_disk(tmp_path: Path) -> None:
    play(Recorded(Healthy(Key(3)), to=tmp_path / "run"))
    device = replay(tmp_path / "run", mode="nearest")
    device.program(weights(), key=Key(1))
    codes = Recording.load(tmp_path / "run").calls[2].answer.codes
    assert torch.equal(device.forward(drive(), key=Key(0), shots=2).codes, codes)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'nearest'"):
        Replayed(taped(), "neares")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="max_distance"):
        nearest(taped(), max_distance=-1.0)
    device = nearest(taped())
    device.program(weights(), key=Key(1))
    with pytest.raises(DriveError, match="must be"):
        device.forward(torch.zeros(2, INPUTS + 1), key=Key(0))
    with pytest.raises(DriveError, match="expected drives"):
        device.forward({"x": torch.zeros(2, INPUTS)}, key=Key(0))
