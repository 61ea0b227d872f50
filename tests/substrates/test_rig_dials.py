"""Every dial of the optical rig acts, in the direction it states, and can be turned back."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from substrates.optics.rig import OpticalRig
from tests.substrates.rigs import (
    NOISELESS,
    SEEDS,
    make_rig,
    matrix_file,
    pearson,
    uniform,
    within_one_level,
)
from twin.key import Key

CAMERA: dict[str, Any] = {"pixels": 64, "inputs": 16, "sensor": {"shape": (8, 8)}}
DARK: dict[str, Any] = {
    **CAMERA, **NOISELESS, "camera_bits": 16, "dark_electrons_per_s": 4e4,
    "sensor": {"shape": (8, 8), "gain_dn_per_electron": 1.0, "offset_dn": 50.0},
}  # fmt: skip
"""One code per electron, 400 electrons of dark current in a frame, black level 50."""

SHARP: dict[str, Any] = {
    **CAMERA, **NOISELESS, "camera_bits": 16, "full_scale_over_mean": 30.0
}  # fmt: skip
DIALS = [dial.name for dial in make_rig(CAMERA).capabilities.dials]
IRREVERSIBLE = ("drift_scale", "lost_frame_probability")


def frames(rig: OpticalRig, seed: int = 1, batch: int = 4) -> Tensor:
    """Codes (batch, pixels) of the same drives and noise each time."""
    return rig.forward(uniform(seed, batch, 16), key=Key(2)).codes.long()


def turned(options: dict[str, Any], seed: int = 0, /, **dials: float) -> Tensor:
    """Frames of a rig with dials turned."""
    rig = make_rig(options, seed)
    for name, value in dials.items():
        rig.adjust(name, value, key=Key(0))
    return frames(rig)


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", [name for name in DIALS if name not in IRREVERSIBLE])
def test_a_dial_acts_and_turning_it_back_undoes_it(name: str) -> None:
    rig = make_rig({**CAMERA, "dark_electrons_per_s": 2e4, "modulator": {"stuck_fraction": 0.1}})
    dial = rig.capabilities.dial(name)
    as_delivered = frames(rig)
    version = rig.snapshot().values["state_version"]
    assert rig.adjust(name, dial.severe, key=Key(0)) > int(version)
    assert not torch.equal(frames(rig), as_delivered)
    rig.adjust(name, dial.default, key=Key(0))
    assert torch.equal(frames(rig), as_delivered)


@pytest.mark.parametrize(
    "options",
    [
        CAMERA,
        {**CAMERA, "drift": "tissue-like", "phase_flicker_rad": 0.1},
        {
            **CAMERA, "modulator": {"stuck_fraction": 0.3}, "stuck_pixel_fraction": 0.1,
            "sensor": {
                "shape": (8, 8), "dead_pixel_fraction": 0.1, "hot_pixel_fraction": 0.2,
                "saturated_fraction": 0.1, "temperature_c": 40.0, "shift_rows_px": 0.5,
            },
        },
    ],
)  # fmt: skip
def test_the_defaults_of_the_dials_are_what_the_rig_was_made_with(options: dict[str, Any]) -> None:
    dials = make_rig(options).capabilities.dials
    for dial in dials:
        assert dial.low <= dial.default <= dial.high
        assert dial.low <= dial.ideal <= dial.high and dial.low <= dial.severe <= dial.high
    set_again = turned(options, **{dial.name: dial.default for dial in dials})
    assert torch.equal(set_again, turned(options))


# ---------------------------------------------------------------- light


@pytest.mark.parametrize(
    ("name", "worse"),
    [
        ("mean_electrons", [1e4, 100.0, 10.0]),
        ("read_noise_electrons", [1.0, 300.0, 900.0]),
        ("phase_flicker_rad", [0.05, 0.3, 0.8]),
        ("dead_macropixel_fraction", [0.1, 0.4, 0.8]),
        ("stuck_macropixel_fraction", [0.1, 0.4, 0.8]),
        ("stuck_pixel_fraction", [0.01, 0.2, 0.7]),
        ("dead_pixel_fraction", [0.01, 0.2, 0.7]),
        ("saturated_fraction", [0.001, 0.02, 0.4]),
        ("shift_columns_px", [0.1, 0.5, 1.0]),
        ("shift_rows_px", [-0.1, -0.5, -1.0]),
    ],
)
def test_a_dial_turned_further_makes_the_frames_less_like_perfect_ones(
    name: str, worse: list[float]
) -> None:
    """1024 pixels, 4 drives: the steps are far larger than the spread of 1 / sqrt(1024)."""
    options = {"inputs": 16, "pixels": 1024, "sensor": {"shape": (32, 32)}, "camera_bits": 12}
    perfect = turned({**options, **NOISELESS})
    found = [pearson(turned(options, **{name: x}), perfect).mean().item() for x in worse]
    assert found[0] > found[1] + 0.005 and found[1] > found[2] + 0.05
    assert found[0] > 0.85


@given(seed=SEEDS, share=st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_the_shutter_lets_its_share_of_the_light_through(seed: int, share: float) -> None:
    open_, shut = turned(DARK, seed), turned(DARK, seed, shutter=0.0)
    assert bool((shut == 450).all())
    expected = 450 + share * (open_ - 450)
    clipped = 1 + (open_ == 65535) * 65535
    assert bool(((turned(DARK, seed, shutter=share) - expected).abs() <= clipped).all())


@pytest.mark.parametrize(("temperature_c", "factor"), [(25, 1), (33, 2), (49, 8), (1, 0.125)])
def test_eight_degrees_double_the_dark_current(temperature_c: float, factor: float) -> None:
    dark = turned(DARK, shutter=0.0, temperature_c=temperature_c)
    assert bool((dark == 50 + 400 * factor).all())


@pytest.mark.parametrize("ratio", [0.25, 2.0])
def test_light_and_dark_charge_grow_with_the_exposure(ratio: float) -> None:
    rig, longer = make_rig(DARK), make_rig(DARK)
    longer.adjust("exposure_ratio", ratio, key=Key(0))
    expected = 50 + ratio * (frames(rig) - 50)
    assert within_one_level(frames(longer).double(), expected, 2)
    drive = uniform(1, 4, 16)
    assert longer.forward(drive, key=Key(0)).ratio == pytest.approx(1 / ratio)
    taken = longer.forward(drive, key=Key(0)).device_seconds
    assert taken == pytest.approx(4 * max(1 / 60, 0.01 * ratio))


# ---------------------------------------------------------------- medium


@given(seed=SEEDS, drift=st.sampled_from(["static", "tissue-like"]))
@settings(max_examples=10, deadline=None)
def test_a_swapped_medium_is_a_stranger_and_the_own_one_comes_back(seed: int, drift: str) -> None:
    """2048 pixels: strangers correlate by 1 / sqrt(2048) = 0.022 at random."""
    options = {**NOISELESS, "inputs": 16, "pixels": 2048, "drift": drift, "camera_bits": 12}
    own, other = turned(options, seed, swapped=0.49), turned(options, seed, swapped=0.5)
    assert torch.equal(own, turned(options, seed))
    assert torch.equal(other, turned(options, seed, swapped=1.0))
    assert pearson(own, other).abs().max() < 5 / math.sqrt(2048)


def test_a_line_of_pixels_has_no_shift_and_a_measured_medium_no_other() -> None:
    line = {dial.name for dial in make_rig({}).capabilities.dials}
    assert set(DIALS) - line == {"shift_rows_px", "shift_columns_px"}
    file = {"kind": "file", "path": matrix_file(16, 9)}
    measured = make_rig({"inputs": 9, "pixels": 16, "medium": file}).capabilities.dials
    assert line - {dial.name for dial in measured} == {"swapped"}


def test_a_still_medium_moves_only_while_its_dial_says_so() -> None:
    rig = make_rig({**SHARP, "pixels": 64})
    first = frames(rig)
    rig.wait(1e5)
    assert torch.equal(frames(rig), first)
    rig.adjust("drift_scale", 1200.0, key=Key(0))
    rig.wait(10.0)
    moved = frames(rig)
    assert pearson(moved, first).mean() < 0.6
    rig.adjust("drift_scale", 0.0, key=Key(0))
    still = frames(rig)
    rig.wait(1e5)
    assert torch.equal(frames(rig), still)


def test_a_second_at_a_tenfold_drift_scale_is_ten_seconds() -> None:
    options = {**SHARP, "drift": "tissue-like", "frame_rate_hz": 1e6, "exposure_s": 1e-6}
    fast, slow = make_rig(options), make_rig(options)
    fast.adjust("drift_scale", 10.0, key=Key(0))
    fast.wait(0.3)
    slow.wait(3.0)
    assert within_one_level(frames(fast), frames(slow), 2)
    slow.wait(1.0)
    assert not within_one_level(frames(fast), frames(slow), 500)


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("name", ["dead_macropixel_fraction", "stuck_macropixel_fraction"])
def test_a_modulator_without_a_live_macropixel_ignores_the_drive(name: str) -> None:
    rig = make_rig(SHARP)
    rest = rig.forward(torch.zeros(1, 16), key=Key(0)).codes.long()[0]
    rig.adjust(name, 1.0, key=Key(0))
    held = frames(rig)
    assert bool((held == held[0]).all())
    assert torch.equal(held[0], rest) == (name == "dead_macropixel_fraction")


@given(seed=SEEDS, low=st.floats(0, 1), high=st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_faulty_pixels_of_a_small_fraction_are_among_those_of_a_larger_one(
    seed: int, low: float, high: float
) -> None:
    low, high = sorted((low, high))
    healthy = turned(DARK, seed)
    for name in ("dead_pixel_fraction", "hot_pixel_fraction", "saturated_fraction"):
        few, many = (turned(DARK, seed, **{name: f}) != healthy for f in (low, high))
        assert bool((few <= many).all())


@given(seed=SEEDS, share=st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_faulty_pixels_show_what_their_fault_says(seed: int, share: float) -> None:
    """64 pixels, each faulty on its own: within five binomial standard errors."""
    healthy, slack = turned(DARK, seed), 5 * math.sqrt(64 * share * (1 - share)) + 0.01
    dead = (turned(DARK, seed, dead_pixel_fraction=share) != healthy).any(0)
    assert bool((turned(DARK, seed, dead_pixel_fraction=share)[:, dead] == 450).all())
    assert abs(int(dead.sum()) - 64 * share) <= slack
    hot = turned(DARK, seed, hot_pixel_fraction=share, shutter=0.0)
    assert set(hot.unique().tolist()) <= {450, 50 + 100 * 400}
    assert abs(int((hot[0] > 450).sum()) - 64 * share) <= slack
    blind = turned(DARK, seed, saturated_fraction=share)
    full = (blind == 65535).all(0) & (healthy < 65535).any(0)
    assert abs(int(full.sum()) - 64 * share) <= 1


def test_a_picture_moves_the_way_and_as_far_as_the_dials_say() -> None:
    still = turned(SHARP).view(4, 8, 8)
    moved = turned(SHARP, shift_rows_px=2.0, shift_columns_px=-1.0).view(4, 8, 8)
    assert torch.equal(moved[:, 2:, :-1], still[:, :-2, 1:])
    half = turned(SHARP, shift_columns_px=0.5).view(4, 8, 8)
    between = (still[:, :, 1:] + still[:, :, :-1]) / 2
    assert bool(((half[:, :, 1:] - between).abs() <= 1.5).all())


# ---------------------------------------------------------------- time


def test_a_pattern_settles_while_the_rig_waits() -> None:
    """Three time constants leave exp(-3) of the way: as much as 9 frames of the same pattern do."""
    options = {**SHARP, "frame_rate_hz": 60.0, "modulator": {"settling_s": 0.05}}
    drive, waiting, showing = uniform(1, 1, 16), make_rig(options), make_rig(options)
    waiting.forward(drive, key=Key(0))
    waiting.wait(9 / 60)
    showing.forward(drive.expand(10, -1), key=Key(0))
    assert within_one_level(frames(waiting, 2), frames(showing, 2), 2)
    hasty = make_rig(options)
    hasty.forward(drive, key=Key(0))
    assert not within_one_level(frames(hasty, 2), frames(showing, 2), 100)
