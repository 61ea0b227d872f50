"""What a crossbar refuses, that no refusal leaves a trace, and that a life can be lived again."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from substrates.memristor.crossbar import Crossbar, make
from substrates.memristor.presets import IDEAL
from tests.substrates.crossbars import alike, codes, drive, uniform, weights, written
from twin.errors import (
    ConfigError,
    DialError,
    DriveError,
    SettingError,
    SnapshotError,
    UnknownName,
)
from twin.fence import Fence
from twin.key import Key

seeds = st.integers(0, 2**31)
KINDS = ("pair", "offset", "sliced")
SIZES = {**IDEAL, "inputs": 12, "outputs": 6, "array_rows": 5, "adc_bits": 10}


# ---- what is refused -------------------------------------------------------------------------


def bad_dials(chip: Crossbar) -> list[tuple[str, object]]:
    shape = chip.parts.encoding.shape
    return [
        ("read_noise", -1e-9),
        ("read_noise", math.inf),
        ("adc_offset_lsb", 65.0),
        ("temperature_k", 27.0),
        ("wire_refresh", 0.0),
        ("word_ohm", -1.0),
        ("dead_row", torch.zeros(6)),
        ("dead_row", torch.full((12,), 0.5)),
        ("column_gain", torch.full((6,), math.nan)),
        ("column_gain", torch.full((6,), -1.0)),
        ("stuck_cell_level", torch.zeros(shape).mT),
        ("stuck_cell_level", torch.full(shape, 1.5)),
        ("never_verifies", torch.full(shape, 0.5)),
        ("stuck_column_code", 3.0),
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fenced", [False, True])
def test_a_bad_dial_is_refused_by_name_and_leaves_no_trace(kind, fenced):
    chip = written(**SIZES, encoding=kind)
    before, x = chip.snapshot(), drive(chip)
    door = Fence(chip, name="c1") if fenced else chip
    for dial, value in bad_dials(chip):
        with pytest.raises(DialError, match=dial) as caught:
            door.adjust(dial, value, key=Key(1))
        shown = str(caught.value)
        assert chip.capabilities.device_id in shown or (fenced and "c1" in shown)
        assert alike(before, chip.snapshot())
        assert chip.snapshot().values["state_version"] == before.values["state_version"]
    assert torch.equal(codes(chip, x), codes(written(**SIZES, encoding=kind), x))


def test_bad_calls_are_typed_errors_and_leave_no_trace():
    chip = written(**SIZES)
    fence, before = Fence(chip, name="c1"), chip.snapshot()
    nan, key = torch.full((6, 12), math.nan), Key(1)
    calls = [
        (SettingError, "shape", lambda: fence.program(torch.zeros(6, 12), key=key)),
        (SettingError, "NaN", lambda: fence.program(nan.T.contiguous(), key=key)),
        (SettingError, "Scale it", lambda: fence.program(torch.full((12, 6), 1.1), key=key)),
        (DriveError, "shape", lambda: fence.forward(torch.zeros(2, 6), key=key)),
        (DriveError, "NaN", lambda: fence.forward(nan, key=key)),
        (DriveError, "Scale it", lambda: fence.forward(torch.full((2, 12), -0.1), key=key)),
        (DriveError, "empty batch", lambda: fence.set_range(torch.zeros(0, 12), key=key)),
        (DriveError, "shots", lambda: fence.forward(torch.zeros(2, 12), key=key, shots=0)),
        (DialError, ">= 0 s", lambda: fence.wait(-1.0)),
        (DialError, ">= 0 s", lambda: chip.wait(math.nan)),
        (DialError, ">= 0 s", lambda: chip.wait(math.inf)),
        (DriveError, "expected batch x", lambda: chip.forward(torch.zeros(2, 6), key=key)),
        (SettingError, "Transpose", lambda: chip.program(torch.zeros(6, 12), key=key)),
        (UnknownName, "weights", lambda: chip.program({"w": torch.zeros(12, 6)}, key=key)),
        (UnknownName, "word_ohm", lambda: chip.adjust("word_om", 1.0, key=key)),
    ]
    for error, words, call in calls:
        with pytest.raises(error, match=words):
            call()
        assert alike(before, chip.snapshot())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"technology": "cmo-hfox"}, "Did you mean 'cmo-hfox-"),
        ({"technology": "neurram-hfox", "g_max_siemens": 5e-5}, "narrow the window"),
        ({"technology": "cmo-hfox-2", "g_min_siemens": 1e-6}, "8e-06 to 9e-05 S"),
        ({"preset": "pcm", "temperature_k": 350.0}, "outside 300 to 300 K"),
        ({"preset": "neurram-like", "programming_table": "1 dey"}, "Did you mean '1 day'"),
        ({"preset": "neurram-like", "programming_table": "1 day"}, "relaxes to"),
        ({"preset": "neurram-like", "read_voltage_v": 0.6}, r"0.5 V; lower it"),
        ({"preset": "cmo-hfox", "cubic_per_v2": 1.0}, "leave cubic_per_v2 out"),
        ({"preset": "a112-like"}, "Did you mean 'a111-like'"),
        ({"temperature_k": 25.0}, "greater than or equal to 200"),
        ({"write_mode": "verified"}, "'outcome', 'verify' or 'one-shot'"),
    ],
)
def test_a_chip_that_cannot_be_is_refused_when_built(options, words):
    with pytest.raises(ConfigError, match=words):
        make(key=Key(1), **options)


@pytest.mark.parametrize("preset", ["neurram-like", "pcm", "cmo-hfox"])
def test_no_cell_is_read_beyond_the_data_of_its_technology(preset):
    chip = written(preset=preset, inputs=6, outputs=4, write_mode="verify")
    last_s = chip.technology.relaxation.last_s
    chip.wait(0.9 * last_s)
    before = chip.snapshot()
    with pytest.raises(DialError, match=re.escape(f"up to {last_s:g} s")):
        chip.wait(0.2 * last_s)
    assert alike(before, chip.snapshot())
    chip.forward(drive(chip), key=Key(1))
    chip.program(weights(chip), key=Key(1))


def test_a_snapshot_of_another_chip_or_with_parts_missing_is_refused_whole():
    chip = written(**SIZES)
    other = make(key=Key(1), **{**SIZES, "encoding": "offset"}).snapshot()
    saved = chip.snapshot()
    lacking = type(saved)(saved.device_id, {"ratio": saved.arrays["ratio"]}, saved.values)
    odd = {**saved.arrays, "map dead_row": torch.zeros(5)}
    for bad in (other, lacking, type(saved)(saved.device_id, odd, saved.values)):
        before = chip.snapshot()
        with pytest.raises(SnapshotError):
            chip.restore(bad)
        assert alike(before, chip.snapshot())


# ---- anything in any order ------------------------------------------------------------------


ACTIONS = ("program", "forward", "shots", "range", "wait", "dial", "map")


def act(chip: Crossbar, what: str, seed: int) -> None:
    key, x = Key(seed), drive(chip, 2, seed)
    if what == "program":
        chip.program(weights(chip, seed), key=key)
    elif what in ("forward", "shots"):
        chip.forward(x, key=key, shots=3 if what == "shots" else None)
    elif what == "range":
        chip.set_range(x, key=key)
    elif what == "wait":
        chip.wait(float(uniform(seed, 1)) * 1e3)
    else:
        dials = [d for d in chip.capabilities.dials if bool(d.shape) == (what == "map")]
        dial = dials[seed % len(dials)]
        value = dial.low + uniform(seed, *dial.shape) * (dial.severe - dial.low)
        whole = dial.shape and dial.name not in ("column_gain", "stuck_cell_level")
        if not dial.read_only:
            chip.adjust(dial.name, value.round() if whole else value, key=key)


@settings(max_examples=30, deadline=None)
@given(
    seed=seeds,
    preset=st.sampled_from(["default", "neurram-like", "cmo-hfox", "pcm", "a111-like"]),
    kind=st.sampled_from(KINDS),
    mode=st.sampled_from(["outcome", "verify", "one-shot"]),
    steps=st.lists(st.tuples(st.sampled_from(ACTIONS), seeds), max_size=8),
    after=st.lists(st.tuples(st.sampled_from(ACTIONS), seeds), max_size=4),
)
def test_a_chip_restored_after_anything_lives_the_same_life_again(
    seed, preset, kind, mode, steps, after
):
    options = {"preset": preset, "inputs": 7, "outputs": 3, "array_rows": 4, "dac_phases": 2}
    options |= {"encoding": kind, "write_mode": mode, "slice_bits": 1, "dac_bits": 4}
    chip, twin = (make(key=Key(seed), **options, verify_max_pulses=5) for _ in range(2))
    for what, number in steps:
        act(chip, what, number)
    saved = chip.snapshot()
    lives = []
    for one in (chip, twin, chip):
        one.restore(saved)
        for what, number in after:
            act(one, what, number)
        x = drive(one, 3, seed)
        lives.append((codes(one, x, shots=2), one.snapshot()))
        assert torch.isfinite(one.conductances()).all() and (one.conductances() >= 0).all()
        Fence(one, name="c").forward(x, key=Key(5))  # inside its own port
    assert all(torch.equal(lives[0][0], life[0]) for life in lives)
    assert all(alike(lives[0][1], life[1]) for life in lives)
