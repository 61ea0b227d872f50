"""Frames that the camera loses: they take their time, and a retry brings them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.substrates.rigs import NOISELESS, make_rig, mean_and_error, uniform
from twin.errors import DeviceUnavailable
from twin.fence import Fence
from twin.key import Key

CAMERA: dict[str, Any] = {"pixels": 64, "inputs": 16}


def test_lost_frames_take_their_time_and_a_retry_brings_the_very_frame() -> None:
    clean, rig = make_rig(CAMERA), make_rig(CAMERA)
    rig.adjust("lost_frame_probability", 0.5, key=Key(0))
    failures, drive = 0, uniform(1, 2, 16)
    for call in range(20):
        expected = clean.forward(drive, key=Key(call))
        begin = float(rig.snapshot().values["clock_s"])
        tries = 0
        while True:
            tries += 1
            try:
                reading = rig.forward(drive, key=Key(call))
                break
            except DeviceUnavailable:
                spent = float(rig.snapshot().values["clock_s"]) - begin
                assert spent == pytest.approx(tries * 2 / 60)
        failures += tries - 1
        assert torch.equal(reading.codes, expected.codes)
        assert reading.clock_s - begin == pytest.approx(tries * 2 / 60)
    assert failures > 0
    fence = Fence(rig, name="rig", retries=60)
    for call in range(20):
        again = fence.forward(drive, key=Key(call)).values
        wanted = Fence(clean, name="clean").forward(drive, key=Key(call)).values
        assert torch.equal(again, wanted)


def test_a_fence_gives_up_on_a_camera_that_loses_everything() -> None:
    rig = make_rig(CAMERA)
    rig.adjust("lost_frame_probability", 1.0, key=Key(0))
    with pytest.raises(DeviceUnavailable, match="lost"):
        Fence(rig, name="rig", retries=2).forward(uniform(1, 2, 16), key=Key(0))
    assert rig.snapshot().values["clock_s"] == pytest.approx(3 * 2 / 60)


def test_frames_are_lost_as_often_as_the_dial_says() -> None:
    """1000 single frames, within five binomial standard errors."""
    rig = make_rig({"inputs": 4, "pixels": 4})
    rig.adjust("lost_frame_probability", 0.2, key=Key(0))
    lost = []
    for n in range(1000):
        try:
            rig.forward(uniform(1, 1, 4), key=Key(3), first_sample=n)
            lost.append(0.0)
        except DeviceUnavailable:
            lost.append(1.0)
    found, error = mean_and_error(lost)
    assert abs(found - 0.2) < 5 * error


def test_a_settling_modulator_shows_what_the_camera_loses() -> None:
    options = {**CAMERA, **NOISELESS, "modulator": {"settling_s": 0.05}}
    rig, clean = make_rig(options), make_rig(options)
    rig.adjust("lost_frame_probability", 1.0, key=Key(0))
    with pytest.raises(DeviceUnavailable):
        rig.forward(uniform(1, 3, 16), key=Key(0))
    clean.forward(uniform(1, 3, 16), key=Key(0))
    rig.adjust("lost_frame_probability", 0.0, key=Key(0))
    after = [r.forward(uniform(2, 4, 16), key=Key(0)).codes for r in (rig, clean)]
    assert torch.equal(*after)
