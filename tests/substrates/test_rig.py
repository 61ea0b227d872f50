"""The whole optical rig, of every make, keeps the contract of a backend."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from substrates.optics.camera import Camera
from substrates.optics.chain import Chain
from substrates.optics.modulatortable import make_modulator
from substrates.optics.point import OperatingPoint
from substrates.optics.presets import configured
from substrates.optics.rig import OpticalRig
from tests.substrates.rigs import (
    INPUTS,
    NOISELESS,
    PIXELS,
    REACTING,
    SEEDS,
    SETTLING,
    make_rig,
    rigs,
    still_rigs,
    uniform,
    within_one_level,
)
from twin.fence import Fence
from twin.key import SAMPLE_BLOCK, Key

SHARP: dict[str, Any] = {
    **NOISELESS, "inputs": INPUTS, "pixels": PIXELS, "camera_bits": 16,
    "full_scale_over_mean": 30.0, "frame_rate_hz": 20.0,
}  # fmt: skip
"""Shows the smallest change of the light."""


# ---------------------------------------------------------------- numbers


@given(options=rigs(), seed=SEEDS, when=st.floats(0, 1e5))
@settings(max_examples=25, deadline=None)
def test_light_never_has_negative_or_infinite_power(
    options: dict[str, Any], seed: int, when: float
) -> None:
    config, key = configured(options), Key(seed)
    modulator = make_modulator(config.own_modulator(), config.inputs, key)
    pixels = Camera(config, key).sensor_pixels
    chain = Chain(config, modulator, pixels, key)
    at = OperatingPoint.of(config)
    lights, _ = chain.in_order(uniform(seed, 3), 2, at, None, 0.1)
    found = chain.intensities(
        lights or uniform(seed, 3), at, key, first_sample=0, shots=2, clock_s=when,
        drift_s=when * at.drift_scale, frame_s=0.1, shot_s=0.3,
    )  # fmt: skip
    for intensity in found:
        assert intensity.shape == (3, pixels)
        assert bool((intensity >= 0).all()) and bool(torch.isfinite(intensity).all())


@given(
    options=rigs(), seed=SEEDS, batch=st.integers(1, 70), shots=st.sampled_from([None, 1, 2]),
    wait=st.sampled_from([0.0, 0.7, 1e6]),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_codes_lie_inside_their_port_and_on_its_steps(
    options: dict[str, Any], seed: int, batch: int, shots: int | None, wait: float
) -> None:
    rig = make_rig(options, seed)
    rig.wait(wait)
    drive = uniform(seed, batch)
    Fence(rig, name="rig").forward(drive, key=Key(seed), shots=shots)
    reading, port = rig.forward(drive, key=Key(seed), shots=shots), rig.capabilities.readings[0]
    assert reading.codes.shape == (*((shots,) if shots else ()), batch, *port.shape)
    assert reading.codes.dtype == port.torch_dtype
    assert port.levels is not None
    codes = reading.codes.long()  # 256 is 0 in uint8
    assert codes.min() >= 0 and codes.max() < port.levels
    bits = options["camera_bits"]
    left = isinstance(options["sensor"], dict) and "justification" in options["sensor"]
    step = 2 ** ((8 if bits <= 8 else 16) - bits) if left else 1
    assert port.levels == (2**bits - 1) * step + 1
    assert bool((codes % step == 0).all())
    assert 0 <= reading.saturated <= 1
    at_the_top = (codes == port.levels - 1).double().mean().item()
    assert reading.saturated >= at_the_top - 1e-9


# ---------------------------------------------------------------- state, key, time

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("forward"), st.integers(1, 4)),
        st.tuples(st.just("range"), st.integers(1, 3)),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 1e-3, 0.3, 40.0, 1e5])),
        st.tuples(st.just("shutter"), st.floats(0, 1)),
        st.tuples(st.just("drift_scale"), st.sampled_from([0.0, 1.0, 1200.0])),
        st.tuples(st.just("swapped"), st.sampled_from([0.0, 0.49, 0.5, 1.0])),
        st.tuples(st.just("temperature_c"), st.floats(-100, 100)),
        st.tuples(st.just("exposure_ratio"), st.floats(0.01, 20)),
        st.tuples(st.just("phase_flicker_rad"), st.floats(0, 1)),
        st.tuples(st.just("shift_rows_px"), st.floats(-2, 2)),
        st.tuples(st.just("stuck_macropixel_fraction"), st.floats(0, 1)),
        st.tuples(st.just("dead_macropixel_fraction"), st.floats(0, 1)),
        st.tuples(st.just("hot_pixel_fraction"), st.floats(0, 1)),
        st.tuples(st.just("saturated_fraction"), st.floats(0, 1)),
    ),
    max_size=5,
)


def perform(rig: OpticalRig, actions: list[tuple[str, float]]) -> None:
    declared = {dial.name for dial in rig.capabilities.dials}
    for name, value in actions:
        if name == "forward":
            rig.forward(uniform(int(value), int(value)), key=Key(5), shots=2)
        elif name == "range":
            rig.set_range(uniform(int(value), int(value)), key=Key(6))
        elif name == "wait":
            rig.wait(value)
        elif name in declared:
            rig.adjust(name, value, key=Key(7))


@given(options=rigs(), before=ACTIONS, between=ACTIONS, seed=SEEDS)
@example(
    options={**SHARP, "modulator": SETTLING[0], "drift": "tissue-like"},
    before=[("forward", 2), ("wait", 0.3)], between=[("wait", 1e5), ("forward", 3)], seed=1,
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_the_same_state_drive_and_key_give_the_same_frame_whatever_ran_before(
    options: dict[str, Any],
    before: list[tuple[str, float]],
    between: list[tuple[str, float]],
    seed: int,
) -> None:
    """In the rig itself after a restore, and in another made alike that never ran."""
    rig, drive = make_rig(options, seed), uniform(seed, 5)
    perform(rig, before)
    saved = rig.snapshot()
    first = rig.forward(drive, key=Key(seed), first_sample=3)
    after = rig.snapshot()
    perform(rig, between)
    for other in (rig, make_rig(options, seed)):
        other.restore(saved)
        again = other.forward(drive, key=Key(seed), first_sample=3, shots=1)
        assert torch.equal(first.codes, again.codes[0])
        assert (first.clock_s, first.ratio, first.state_version, first.saturated) == (
            again.clock_s, again.ratio, again.state_version, again.saturated,
        )  # fmt: skip
        then = other.snapshot()
        assert then.values == after.values
        assert then.arrays.keys() == after.arrays.keys()
        assert all(torch.equal(then.arrays[n], after.arrays[n]) for n in then.arrays)


def test_a_snapshot_aliases_nothing() -> None:
    rig = make_rig({**SHARP, "modulator": SETTLING[0]})
    rig.forward(uniform(1, 2), key=Key(0))
    saved, kept = rig.snapshot(), rig.snapshot()
    saved.arrays["pattern_rad"].fill_(7.0)
    assert torch.equal(rig.snapshot().arrays["pattern_rad"], kept.arrays["pattern_rad"])
    rig.restore(kept)
    rig.forward(uniform(2, 2), key=Key(0))
    rig.restore(kept)
    assert not torch.equal(kept.arrays["pattern_rad"], saved.arrays["pattern_rad"])
    kept.arrays["pattern_rad"].fill_(9.0)
    assert not bool((rig.snapshot().arrays["pattern_rad"] == 9.0).any())


@given(
    options=still_rigs(settles=True), seed=SEEDS, batch=st.integers(65, 140),
    blocks=st.integers(1, 2), start=st.sampled_from([0, SAMPLE_BLOCK]),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_aligned_chunks_change_nothing(
    options: dict[str, Any], seed: int, batch: int, blocks: int, start: int
) -> None:
    if options["medium"].get("kerr_rad"):
        batch = 66  # each frame costs several propagations
    cut = min(blocks, (batch - 1) // SAMPLE_BLOCK) * SAMPLE_BLOCK
    drive, key = uniform(seed, batch), Key(seed)
    whole = make_rig(options, seed).forward(drive, key=key, first_sample=start).codes
    rig = make_rig(options, seed)
    head = rig.forward(drive[:cut], key=key, first_sample=start).codes
    tail = rig.forward(drive[cut:], key=key, first_sample=start + cut).codes
    assert torch.equal(whole, torch.cat([head, tail]))


MOVING = st.sampled_from(
    [
        {"drift": "tissue-like"},
        {"drift": {"tau_s": 0.5, "jump_rate_hz": 5.0, "jump_fraction": 0.3}},
        {"drift": {"tau_s": 1.0, "power_rms": 0.1, "power_tau_s": 1.0}},
        {"drift": {"jump_times_s": (0.3, 1.7), "jump_fraction": 1.0}},
        {"drift": {"pointing_rms_pixels": 0.4, "pointing_tau_s": 0.3}},
        {"drift": "tissue-like", "modulator": SETTLING[1]},
        {"drift": "tissue-like", "modulator": {"kind": "dmd"}},
        {"modulator": SETTLING[0]},
        {"medium": REACTING},
    ]
)
"""Frames that depend on when they are taken, and two that should not."""


@given(makeup=MOVING, seed=SEEDS, cuts=st.lists(st.integers(0, 70), max_size=4))
@settings(max_examples=15, deadline=None)
def test_a_moving_medium_is_a_function_of_time_however_the_frames_are_sent(
    makeup: dict[str, Any], seed: int, cuts: list[int]
) -> None:
    """Noiseless, 16 bits: within two codes of 65535 (float32 products of parts differ)."""
    batch = 20 if "medium" in makeup else 70  # each frame costs several propagations
    options, drive = {**SHARP, **makeup}, uniform(seed, batch)
    once, rig = make_rig(options, seed), make_rig(options, seed)
    for each in (once, rig):
        if "drift" in makeup:
            each.adjust("drift_scale", 3.0, key=Key(0))
    whole = once.forward(drive, key=Key(0)).codes
    edges = [0, *sorted(min(cut, batch) for cut in cuts), batch]
    parts = [
        rig.forward(drive[a:b], key=Key(0), first_sample=a).codes
        for a, b in pairwise(edges)
        if b > a
    ]
    assert within_one_level(whole, torch.cat(parts), 2)


@given(makeup=MOVING, seed=SEEDS, a=st.floats(0, 5), b=st.floats(0, 5), scale=st.booleans())
@settings(max_examples=15, deadline=None)
def test_splitting_a_wait_changes_nothing(
    makeup: dict[str, Any], seed: int, a: float, b: float, scale: bool
) -> None:
    found = []
    for waits in ((a + b,), (a, b), (b, 0.0, a)):
        rig = make_rig({**SHARP, **makeup}, seed)
        if scale and "medium" not in makeup:
            rig.adjust("drift_scale", 7.0, key=Key(0))
        rig.forward(uniform(seed, 3), key=Key(1))
        for seconds in waits:
            rig.wait(seconds)
        found.append((rig.forward(uniform(seed + 1, 3), key=Key(1)), rig.snapshot()))
    (reading, state), *others = found
    for other, its in others:
        # A frame whose time falls exactly between two places may see either.
        alike = ((reading.codes - other.codes).abs() <= 2).all(-1)
        assert bool(alike.all())
        assert other.clock_s == pytest.approx(reading.clock_s, rel=1e-12)
        assert its.values["drift_s"] == pytest.approx(state.values["drift_s"], rel=1e-12)


@given(options=rigs(), actions=ACTIONS, seed=SEEDS)
@settings(max_examples=12, deadline=None)
def test_device_time_is_the_sum_of_frames_and_waits(
    options: dict[str, Any], actions: list[tuple[str, float]], seed: int
) -> None:
    rig = make_rig(options, seed)
    perform(rig, actions)
    begin = rig.snapshot().values
    rig.wait(2.5)
    reading = rig.forward(uniform(seed, 2), key=Key(0), shots=3)
    ranged = rig.set_range(uniform(seed, 2), key=Key(0))
    end = rig.snapshot().values
    passed = 2.5 + reading.device_seconds + ranged.device_seconds
    assert float(end["clock_s"]) - float(begin["clock_s"]) == pytest.approx(passed, abs=1e-6)
    drifted = float(end["drift_s"]) - float(begin["drift_s"])
    assert drifted == pytest.approx(passed * float(begin["drift_scale"]), abs=1e-3)
    assert reading.device_seconds >= 6 / 60 * (1 - 1e-9)
