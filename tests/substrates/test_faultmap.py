"""Fault maps: what they hold, how they are drawn, kept and put on a chip."""

import io
import math
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from substrates.memristor import faultscores
from substrates.memristor.crossbar import make
from substrates.memristor.faultmap import STUCK_HIGH, STUCK_LEVEL, FaultMap, install
from substrates.memristor.presets import IDEAL
from twin.backend import Capabilities, Dial, Port
from twin.errors import ConfigError, DataError, DialError, UnknownName, Unsupported
from twin.fence import Fence
from twin.key import Key

EVERYDAY = settings(max_examples=25, deadline=None)
WITH_FILES = settings(EVERYDAY, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 2**31)
sizes = st.integers(1, 12)
CELL_NAMES = ("stuck_low", "stuck_high", "stuck_level")
CONVERTER_NAMES = ("dead_converters", "stuck_converters")
NAMES = (
    *CELL_NAMES,
    *CONVERTER_NAMES,
    "never_verifies",
    "dead_rows",
    "dead_columns",
    "misranged",
)
BY_COLUMN = (*CONVERTER_NAMES, "dead_columns", "misranged")
third = st.floats(0, 0.33)
mixes = st.fixed_dictionaries(dict.fromkeys(NAMES, third))
WORST = dict.fromkeys(NAMES, 0.3)


def everything(seed: int = 1, inputs: int = 9, outputs: int = 7, **more: object) -> FaultMap:
    """A map with every kind of fault in it."""
    return FaultMap.drawn(Key(seed), inputs, outputs, **(WORST | more))


# ---- drawing -------------------------------------------------------------------


@EVERYDAY
@given(seed=seeds, inputs=sizes, outputs=sizes, mix=mixes, clustered=st.booleans())
def test_the_same_key_draws_the_same_map(seed, inputs, outputs, mix, clustered):
    maps = [FaultMap.drawn(Key(seed), inputs, outputs, clustered=clustered, **mix) for _ in "ab"]
    assert maps[0] == maps[1] and hash(maps[0]) == hash(maps[1])
    assert maps[0].digest() == maps[1].digest()


def test_another_key_draws_another_map():
    assert everything(1) != everything(2)


@EVERYDAY
@given(seed=seeds, mix=mixes, other=mixes, clustered=st.booleans())
@example(seed=0, mix=dict.fromkeys(NAMES, 0.0), other=WORST, clustered=True)
def test_faults_at_larger_fractions_contain_those_at_smaller_ones(seed, mix, other, clustered):
    larger = {name: max(mix[name], other[name]) for name in NAMES}
    small, large = (
        FaultMap.drawn(Key(seed), 8, 6, clustered=clustered, **m) for m in (mix, larger)
    )
    less, more = small.faulty(), large.faulty()
    for group in (CELL_NAMES, CONVERTER_NAMES, *((n,) for n in NAMES[5:])):
        before, after = (sum(faulty[n] for n in group) for faulty in (less, more))
        assert (before <= after).all(), group
    kept = less["misranged"]
    assert torch.equal(small.column_gain[kept], large.column_gain[kept])


@EVERYDAY
@given(seed=seeds, mix=mixes, severity=st.floats(0, 1), clustered=st.booleans())
def test_at_a_lower_severity_the_faults_that_remain_are_the_same(seed, mix, severity, clustered):
    milder = {name: severity * value for name, value in mix.items()}
    small, large = (
        FaultMap.drawn(Key(seed), 8, 6, clustered=clustered, **m) for m in (milder, mix)
    )
    less, more = small.faulty(), large.faulty()
    assert all((less[name] <= more[name]).all() for name in NAMES)
    still = small.cell_kind != 0
    assert torch.equal(small.cell_level[still], large.cell_level[still])
    stuck = less["stuck_converters"]
    assert torch.equal(small.converter_code[stuck], large.converter_code[stuck])


@pytest.mark.parametrize("name", NAMES)
def test_independent_faults_have_the_stated_fraction(name):
    # Five standard errors of a binomial count of at least 2000 elements.
    inputs, outputs = (9, 2000) if name in BY_COLUMN else (2000, 9)
    drawn = FaultMap.drawn(Key(3), inputs, outputs, **{name: 0.1})
    mask = drawn.faulty()[name]
    assert abs(int(mask.sum()) - 0.1 * mask.numel()) <= 5 * math.sqrt(0.09 * mask.numel())
    others = {n: c for n, c in drawn.counts().items() if n != name}
    assert not any(others.values())


@EVERYDAY
@given(seed=seeds, fraction=st.floats(0, 1), radius=st.floats(0.5, 6))
def test_clustered_faults_have_exactly_the_stated_fraction(seed, fraction, radius):
    law = {"clustered": True, "cluster_cells": radius}
    drawn = FaultMap.drawn(Key(seed), 12, 9, stuck_low=fraction, **law)
    assert abs(drawn.counts()["stuck_low"] - fraction * 216) <= 0.5 + 1e-6


def block_variance_to_mean(drawn: FaultMap) -> tuple[float, int]:
    """Of the number of stuck cells in blocks of 8 rows x 4 pairs, and blocks."""
    stuck = (drawn.cell_kind != 0).double().sum(0)
    counts = stuck.unfold(0, 8, 8).unfold(1, 4, 4).sum((-2, -1))
    return float(counts.var() / counts.mean()), counts.numel()


def test_clustered_faults_crowd_in_blocks_and_independent_ones_do_not():
    mix = {"stuck_low": 0.02, "stuck_high": 0.01, "stuck_level": 0.02}
    crowded, even = (
        block_variance_to_mean(FaultMap.drawn(Key(4), 256, 128, clustered=c, **mix))
        for c in (True, False)
    )
    # Binomial counts: variance / mean is 1 - f, with a spread of sqrt(2 / blocks).
    assert abs(even[0] - 0.95) <= 5 * math.sqrt(2 / even[1])
    assert crowded[0] > 5


def test_a_cluster_hits_both_cells_of_a_pair():
    plus, minus = faultscores.clustered(Key(5), (2, 64, 32), 3.0)
    assert np.corrcoef(plus.flatten(), minus.flatten())[0, 1] > 0.9


def test_scores_of_clusters_are_uniform_and_cover_each_rank_once():
    scores = faultscores.clustered(Key(6), (2, 5, 7), 2.0).flatten().sort().values
    assert torch.allclose(scores, (torch.arange(70, dtype=torch.float64) + 0.5) / 70)


def test_levels_codes_and_gains_fill_their_ranges():
    drawn = everything(7, 20, 3000, adc_bits=5)
    levels = drawn.cell_level[drawn.cell_kind == STUCK_LEVEL].double()
    # Uniform: mean 1/2 with sigma sqrt(1/12).
    assert abs(float(levels.mean()) - 0.5) <= 5 * math.sqrt(1 / 12 / len(levels))
    codes = drawn.converter_code[drawn.faulty()["stuck_converters"]]
    assert set(codes.tolist()) == set(range(-16, 16))
    gains = drawn.column_gain[drawn.faulty()["misranged"]].double().log2()
    assert abs(float(gains.mean())) <= 5 * math.sqrt(16 / 12 / len(gains))
    assert float(gains.abs().max()) <= 2 and (drawn.cell_level[drawn.cell_kind == STUCK_HIGH]).all()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"stuck_lo": 0.1}, UnknownName, "Did you mean 'stuck_low'"),
        ({"stuck_low": 1.1}, ConfigError, "stuck_low must be a fraction"),
        ({"dead_rows": float("nan")}, ConfigError, "dead_rows"),
        ({"stuck_low": 0.6, "stuck_high": 0.6}, ConfigError, "at most 1"),
        ({"clustered": True, "cluster_cells": 0.0}, ConfigError, "cluster_cells"),
        ({"adc_bits": 1}, ConfigError, "adc_bits"),
        ({"inputs": 0}, ConfigError, "inputs"),
        ({"outputs": 2.0}, ConfigError, "outputs"),
        ({"cells": (2, 5, 4)}, ConfigError, "cells"),
        ({"cells": (0, 4, 4)}, ConfigError, "cells"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        FaultMap.drawn(Key(1), **({"inputs": 4, "outputs": 3} | options))


# ---- as a record ------------------------------------------------------------------


def test_a_healthy_chip_has_no_faults_and_needs_no_dials():
    none = FaultMap.none(5, 3)
    assert not any(none.counts().values()) and none.needed_dials() == []
    assert none == FaultMap.drawn(Key(1), 5, 3)
    assert (none.inputs, none.outputs) == (5, 3)


@EVERYDAY
@given(seed=seeds, mix=mixes, other=mixes)
def test_merging_adds_faults_and_keeps_its_own(seed, mix, other):
    a = FaultMap.drawn(Key(seed), 6, 5, **mix)
    b = FaultMap.drawn(Key(seed + 1), 6, 5, **other)
    both, none = a.merge(b), FaultMap.none(6, 5)
    assert a.merge(none) == a == none.merge(a) == a.merge(a)
    assert torch.equal(both.cell_kind != 0, (a.cell_kind != 0) | (b.cell_kind != 0))
    own = a.cell_kind != 0
    assert torch.equal(both.cell_level[own], a.cell_level[own])
    assert torch.equal(both.dead_row, a.dead_row | b.dead_row)
    assert torch.equal(both.column_gain != 1, (a.column_gain != 1) | (b.column_gain != 1))


@pytest.mark.parametrize("other", [{"inputs": 8}, {"outputs": 8}, {"adc_bits": 9}])
def test_maps_of_different_chips_do_not_merge(other):
    with pytest.raises(DialError, match="same chip"):
        everything().merge(everything(**other))


def test_a_map_shares_no_memory_with_what_it_was_made_of():
    gain = torch.ones(3)
    own = replace(FaultMap.none(4, 3), column_gain=gain)
    gain[0] = 7
    assert own == FaultMap.none(4, 3) and own != "a map"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("cell_kind", torch.full((2, 4, 3), 4, dtype=torch.int8), "cell_kind must be from 0 to 3"),
        ("cell_kind", torch.zeros(2, 4, 3), "cell_kind must be torch.int8"),
        ("cell_kind", torch.zeros(4, 3, dtype=torch.int8), "cell_kind"),
        ("cell_level", torch.full((2, 4, 3), float("nan")), "cell_level"),
        ("cell_level", torch.full((2, 4, 3), 0.5), "0, or 1 if stuck high"),
        ("never_verifies", torch.zeros(2, 4, 2, dtype=torch.bool), "never_verifies"),
        ("dead_row", torch.zeros(3, dtype=torch.bool), "one value per row"),
        ("dead_column", [0, 0, 0], "dead_column must be a tensor"),
        ("converter_kind", torch.full((3,), -1, dtype=torch.int8), "converter_kind"),
        ("converter_code", torch.full((3,), 5, dtype=torch.int32), "0 unless stuck"),
        ("column_gain", torch.zeros(3), "column_gain"),
        ("column_gain", torch.tensor([1, float("inf"), 1]), "at index \\[1\\]"),
    ],
)
def test_an_impossible_map_is_refused_by_name(name, value, words):
    with pytest.raises(DialError, match=words):
        replace(FaultMap.none(4, 3), **{name: value})


def test_a_stuck_code_must_exist_in_the_converter():
    stuck = {"converter_kind": torch.full((3,), 2, dtype=torch.int8)}
    code = torch.full((3,), 127, dtype=torch.int32)
    made = replace(FaultMap.none(4, 3), converter_code=code, **stuck)
    with pytest.raises(DialError, match=r"from -64 to 63 \(7 b\), got 127"):
        replace(made, adc_bits=7)
    with pytest.raises(ConfigError, match="adc_bits"):
        replace(made, adc_bits=17)


# ---- on disk ------------------------------------------------------------------------


@WITH_FILES
@given(seed=seeds, inputs=sizes, outputs=sizes, mix=mixes, bits=st.integers(2, 16))
def test_a_map_survives_the_disk_to_the_last_bit(tmp_path, seed, inputs, outputs, mix, bits):
    one = FaultMap.drawn(Key(seed), inputs, outputs, adc_bits=bits, **mix)
    path = tmp_path / "map.npz"
    one.save(path)
    content, again = path.read_bytes(), FaultMap.load(path)
    assert again == one and again.adc_bits == bits
    assert all(torch.equal(a, one.arrays()[n]) for n, a in again.arrays().items())
    again.save(path)
    assert path.read_bytes() == content


def test_cells_of_other_encodings_survive_the_disk_too(tmp_path):
    for cells in ((1, 9, 8), (6, 9, 7)):
        one = everything(cells=cells, clustered=True)
        one.save(tmp_path / "map")
        assert FaultMap.load(tmp_path / "map") == one and one.cell_kind.shape == cells


def stored(**arrays: object) -> bytes:
    """A file of the saved map `everything`, some of its arrays changed."""
    buffer, path = io.BytesIO(), arrays.pop("path")
    everything().save(path)
    with np.load(path) as file:
        parts = {n: file[n] for n in file.files}
    parts |= {n: np.asarray(a) for n, a in arrays.items()}
    np.savez(buffer, **{n: a for n, a in parts.items() if a.dtype != object or a.shape != ()})
    return buffer.getvalue()


class Bomb:
    def __reduce__(self) -> tuple:
        return (Path("exploded").touch, ())


def packed(path: Path) -> bytes:
    buffer = io.BytesIO()
    everything().save(path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


FOREIGN = {
    "empty": (lambda p: b"", "not a fault map"),
    "text": (lambda p: b"hello", "not a fault map"),
    "pickle": (lambda p: pickle.dumps(Bomb()), "not a fault map"),
    "one array": (lambda p: npy(np.zeros(3)), "not a fault map"),
    "pickled array": (lambda p: npy(np.array([Bomb()])), "not a fault map"),
    "object inside": (lambda p: stored(path=p, dead_row=np.array([Bomb()])), "not a fault map"),
    "packed": (packed, "compressed"),
    "cut": (lambda p: stored(path=p)[:-50], "not a fault map"),
    "lacking": (lambda p: stored(path=p, dead_row=np.array(None)), r"lacks \[dead_row\]"),
    "more": (lambda p: stored(path=p, spare=np.zeros(3)), r"has \[spare\]"),
    "version": (lambda p: stored(path=p, format=np.int32(2)), "format 1, got"),
    "digest": (lambda p: stored(path=p, adc_bits=np.int32(9)), "digest"),
    "value": (lambda p: stored(path=p, dead_row=np.ones(9, bool)), "digest"),
    "text inside": (lambda p: stored(path=p, dead_row=np.array(["a"])), "must hold numbers"),
    "long double": (lambda p: stored(path=p, dead_row=np.ones(9, np.longdouble)), "unknown"),
    "bits": (lambda p: stored(path=p, adc_bits=np.ones(2)), "adc_bits"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_or_damaged_file_is_refused_and_nothing_happens(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, words = FOREIGN[name]
    path = tmp_path / "map.npz"
    content = make(path)
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        FaultMap.load(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        FaultMap.load(tmp_path / "none.npz")


def test_a_file_with_a_right_digest_and_wrong_content_is_refused(tmp_path):
    from substrates.memristor import faultfile

    parts = everything().arrays()
    for name, bad, words in (
        ("dead_row", torch.ones(3, dtype=torch.bool), "one value per row"),
        ("cell_level", parts["cell_level"].double(), "cell_level must be torch.float32"),
        ("column_gain", -parts["column_gain"], "column_gain must be from"),
    ):
        faultfile.write(tmp_path / "map.npz", 8, parts | {name: bad})
        with pytest.raises(DataError, match=words):
            FaultMap.load(tmp_path / "map.npz")


@settings(WITH_FILES, max_examples=200)
@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_changes_nothing(tmp_path, at, flip):
    path, one = tmp_path / "map.npz", everything()
    one.save(path)
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= flip
    path.write_bytes(content)
    try:
        assert FaultMap.load(path) == one
    except DataError:
        assert path.read_bytes() == content


# ---- on a chip ------------------------------------------------------------------------


class Chip:
    """Whatever has dials; remembers how they were turned."""

    def __init__(self, inputs: int = 9, outputs: int = 7, bits: int = 8, without: str = "") -> None:
        half = 2 ** (bits - 1)
        cells = (2, inputs, outputs)
        dials = {
            "read_noise": ((), 0.0, 1.0, 0.0),
            "stuck_cell_level": (cells, -1.0, 1.0, -1.0),
            "never_verifies": (cells, 0.0, 1.0, 0.0),
            "dead_row": ((inputs,), 0.0, 1.0, 0.0),
            "dead_column": ((outputs,), 0.0, 1.0, 0.0),
            "stuck_column_code": ((outputs,), -half - 1, half - 1, -half - 1),
            "column_gain": ((outputs,), 0.0, 100.0, 1.0),
        }
        self.capabilities = Capabilities(
            device_id="chip-a",
            drives=(Port(name="v", shape=(inputs,)),),
            readings=(Port(name="i", shape=(outputs,)),),
            dials=tuple(
                Dial(name=n, unit="1", shape=s, low=a, high=b, ideal=i, default=i, severe=b)
                for n, (s, a, b, i) in dials.items()
                if n not in without.split()
            ),
        )
        self.turned: dict[str, torch.Tensor] = {}
        self.keys: set[Key] = set()

    def adjust(self, dial: str, value: torch.Tensor, *, key: Key) -> int:
        self.turned[dial] = value.clone()
        self.keys.add(key)
        return len(self.keys)


def test_installing_turns_each_dial_to_what_the_map_says():
    chip, faults = Chip(), everything()
    assert install(chip, faults, Key(1)) == 6 == len(chip.turned)
    turned = chip.turned
    healthy = faults.cell_kind == 0
    assert (turned["stuck_cell_level"][healthy] == -1).all()
    assert torch.equal(turned["stuck_cell_level"][~healthy], faults.cell_level[~healthy])
    assert torch.equal(turned["dead_row"].bool(), faults.dead_row)
    assert torch.equal(turned["dead_column"].bool(), faults.dead_column)
    assert torch.equal(turned["never_verifies"].bool(), faults.never_verifies)
    assert torch.equal(turned["column_gain"], faults.column_gain)
    code, sound = turned["stuck_column_code"], faults.converter_kind == 0
    assert (code[sound] == -129).all() and (code[~sound] > -129).all()
    assert (code[faults.faulty()["dead_converters"]] == 0).all()


def test_a_second_map_replaces_the_first():
    chip, fresh = Chip(), Chip()
    install(chip, everything(1), Key(1))
    install(chip, everything(2), Key(2))
    install(fresh, everything(2), Key(2))
    assert all(torch.equal(v, fresh.turned[n]) for n, v in chip.turned.items())


def test_a_map_without_faults_heals_a_chip():
    chip = Chip()
    install(chip, everything(), Key(1))
    install(chip, FaultMap.none(9, 7), Key(1))
    for dial in chip.capabilities.dials[1:]:
        assert (chip.turned[dial.name] == dial.ideal).all()


def test_a_backend_that_lacks_a_needed_dial_is_told_so_and_left_alone():
    chip = Chip(without="dead_row never_verifies")
    with pytest.raises(Unsupported, match=r"chip-a.*needs the dial\(s\) never_verifies, dead_row"):
        install(chip, everything(), Key(1))
    assert not chip.turned
    rest = everything(never_verifies=0.0, dead_rows=0.0)
    install(chip, rest, Key(1))
    assert len(chip.turned) == 4


@pytest.mark.parametrize(
    ("chip", "words"),
    [
        (Chip(inputs=8), "shape"),
        (Chip(outputs=8), "shape"),
        (Chip(bits=3), "stuck_column_code"),
    ],
)
def test_a_map_of_another_chip_is_refused_before_any_dial_turns(chip, words):
    with pytest.raises(DialError, match=words):
        install(chip, everything(), Key(1))
    assert not chip.turned


def test_a_read_only_dial_matters_only_if_the_map_needs_it():
    chip = Chip()
    dials = [replace(d, read_only=d.name == "dead_row") for d in chip.capabilities.dials]
    chip.capabilities = replace(chip.capabilities, dials=tuple(dials))
    install(chip, everything(dead_rows=0.0), Key(1))
    assert "dead_row" not in chip.turned and len(chip.turned) == 5
    with pytest.raises(DialError, match="read-only"):
        install(chip, everything(), Key(1))


@EVERYDAY
@given(seed=seeds, inputs=sizes, outputs=sizes, mix=mixes)
@example(seed=1, inputs=9, outputs=7, mix={**WORST, "never_verifies": 0.0})
def test_a_crossbar_behind_a_fence_reads_what_its_map_says(seed, inputs, outputs, mix):
    # Cells that no write-verify accepts are off their target by chance: not here.
    faults = FaultMap.drawn(
        Key(seed), inputs, outputs, adc_bits=16, **{**mix, "never_verifies": 0.0}
    )
    sizes_ = {"inputs": inputs, "outputs": outputs, "adc_full_scale_a": 0.2 * 18e-6 * inputs * 1.01}
    fence = Fence(make(key=Key(1), **IDEAL, **sizes_), name="chip")
    version = install(fence, faults, Key(2))
    x, w = (torch.rand(s, generator=Key(seed).torch()) for s in ((5, inputs), (inputs, outputs)))
    w = 2 * w - 1
    fence.program(w, key=Key(3))
    measured = fence.forward(x, key=Key(4))
    cells = torch.stack([w.clamp(min=0), (-w).clamp(min=0)])
    plus, minus = torch.where(faults.cell_kind == 0, cells, faults.cell_level).double()
    signal = (x * ~faults.dead_row).double() @ (plus - minus) / (1.01 * inputs)
    signal = (signal * faults.column_gain * ~faults.dead_column).clamp(-1, 1 - 2**-15)
    stuck = faults.converter_kind != 0
    expected = torch.where(stuck, faults.converter_code / 2**15, signal)
    # Two codes: rounding of converters and drives.
    gain = faults.column_gain.clamp(min=1)
    assert ((measured.values - expected).abs() <= 2 * gain / 2**15).all()
    assert measured.state_version > version >= 5
