"""Result files: whole or not there, and every damage is found."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.validation.studies.helpers import Inline, cheap
from twin.errors import DataError
from validation.studies.engine import run
from validation.studies.points import Point
from validation.studies.store import Result, Store, packed, parsed

POINT = Point(base="synthetic", method="synthetic", seed=3, settings=(("bits", 4), ("noise", 0.1)))
RESULT = Result(POINT, "done", {"accuracy": 0.9}, None, {"wall_seconds": 1.0}, {"python": "3"})
FILE = packed("abc", RESULT)


@given(st.dictionaries(st.text("abc", min_size=1), st.floats()), st.text())
def test_a_result_comes_back_as_it_was(figures: dict[str, float], message: str) -> None:
    error = {"kind": "OSError", "message": message}
    back = parsed(packed("k", Result(POINT, "failed", figures, error)), "k")
    assert back.point == POINT and back.error == error
    assert set(back.figures) == set(figures)
    for name, value in figures.items():
        got = back.figures[name]
        assert got == value or (math.isnan(got) and math.isnan(value))


@given(st.integers(0, len(FILE) - 1))
def test_every_truncation_is_found(length: int) -> None:
    with pytest.raises(DataError):
        parsed(FILE[:length], "abc")


@given(st.integers(0, len(FILE) - 1), st.integers(0, 7))
def test_every_flipped_bit_is_found(place: int, bit: int) -> None:
    damaged = bytearray(FILE)
    damaged[place] ^= 1 << bit
    with pytest.raises(DataError):
        parsed(bytes(damaged), "abc")


def test_a_file_under_another_name_is_not_taken(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("abc", RESULT)
    store.path("abc").rename(store.path("other"))
    assert store.read("abc") is None and store.read("other") is None
    assert list(store.results()) == []


def test_no_temporary_file_and_no_claim_is_left(tmp_path: Path) -> None:
    run(cheap(bits=[2, 4]), tmp_path, Inline())
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert len(names) == 2 and all(name.endswith(".json") for name in names)


def test_a_claim_is_of_others_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    assert not store.claimed_elsewhere("abc")
    store.claim("abc")
    assert not store.claimed_elsewhere("abc")
    (tmp_path / "claims" / "abc").write_text("another 1")
    assert store.claimed_elsewhere("abc")
    monkeypatch.setattr("validation.studies.store.CLAIM_HOLDS_S", -1.0)
    assert not store.claimed_elsewhere("abc")
