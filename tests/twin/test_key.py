"""Keys: named streams that are independent, reproducible and chunk-proof."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.key import SAMPLE_BLOCK, Key

parts = st.one_of(st.integers(-(2**40), 2**40), st.text(max_size=6))
paths = st.lists(parts, max_size=4).map(tuple)


@given(seed=st.integers(0, 2**63), path=paths)
def test_the_same_path_gives_the_same_stream(seed: int, path: tuple[str | int, ...]) -> None:
    a, b = Key(seed).child(*path), Key(seed, path)
    assert a == b
    assert torch.equal(torch.rand(5, generator=a.torch()), torch.rand(5, generator=b.torch()))
    assert a.numpy().random() == b.numpy().random()


@given(one=paths, other=paths)
def test_different_paths_have_different_seeds(
    one: tuple[str | int, ...], other: tuple[str | int, ...]
) -> None:
    same = [(type(p), p) for p in one] == [(type(p), p) for p in other]
    assert (Key(0, one).entropy() == Key(0, other).entropy()) == same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1,), ("1",)),
        (("ab", "c"), ("a", "bc")),
        (("a", "b"), ("a\x1fb",)),
        (("a', 'b",), ("a", "b")),
        (("",), ()),
        ((1, 2), (12,)),
    ],
)
def test_paths_that_look_alike_are_told_apart(one: tuple, other: tuple) -> None:
    assert Key(3, one).entropy() != Key(3, other).entropy()


def test_a_seed_is_not_a_path() -> None:
    assert Key(1, (2,)).entropy() != Key(12).entropy()
    assert Key(1).child(2) != Key(2).child(1)


def test_children_are_uncorrelated_with_each_other() -> None:
    # 200 streams of 500 normals: correlations have standard error 1/sqrt(500);
    # the largest of 19900 stays below 6 of them.
    rows = [torch.randn(500, generator=Key(0).child("c", i).torch()) for i in range(200)]
    correlations = torch.corrcoef(torch.stack(rows)).fill_diagonal_(0.0)
    assert float(correlations.abs().max()) < 6 / 500**0.5


@given(seed=st.integers(0, 2**32), label=st.text(min_size=1, max_size=10))
def test_the_label_of_a_call_changes_no_number_and_no_identity(seed: int, label: str) -> None:
    key = Key(seed, ("a",))
    assert key.for_call(label) == key
    assert key.for_call(label).entropy() == key.entropy()
    assert key.for_call(label).call_id == label
    assert key.for_call(label).child("b").call_id is None


@given(first=st.integers(0, 500), batch=st.integers(0, 500))
def test_blocks_tile_the_batch_exactly_and_are_aligned(first: int, batch: int) -> None:
    blocks = list(Key(0).blocks(first, batch))
    rows = [row for block in blocks for row in range(block.start, block.stop)]
    assert rows == list(range(batch))
    for block in blocks:
        index, offset = divmod(first + block.start, SAMPLE_BLOCK)
        assert (block.key, block.offset) == (Key(0).child("block", index), offset)
        assert block.offset + block.stop - block.start <= SAMPLE_BLOCK


@given(first=st.integers(0, 300), batch=st.integers(1, 300), cut=st.integers(0, 300))
def test_a_sample_lies_in_the_same_block_however_the_batch_is_cut(
    first: int, batch: int, cut: int
) -> None:
    def places(start: int, count: int) -> dict[int, tuple[Key, int]]:
        return {
            start + row: (block.key, block.offset + row - block.start)
            for block in Key(0).blocks(start, count)
            for row in range(block.start, block.stop)
        }

    cut = min(cut, batch)
    assert places(first, batch) == places(first, cut) | places(first + cut, batch - cut)


@pytest.mark.parametrize("seed", [True, 1.0, "1", None])
def test_a_seed_must_be_an_integer(seed: object) -> None:
    with pytest.raises(TypeError, match="seed must be an integer"):
        Key(seed)  # type: ignore[arg-type]


@settings(max_examples=5)
@given(seed=st.integers(0, 2**32))
def test_using_a_key_leaves_the_global_generators_alone(seed: int) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    Key(seed).torch()
    Key(seed).numpy()
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert (before[1] == after[1]).all()
    assert before[2] == after[2]


def test_a_numpy_integer_names_the_same_stream_as_a_plain_one() -> None:
    one, other = Key(1).child("read", 3), Key(1).child("read", np.int64(3))
    assert one == other
    assert one.entropy() == other.entropy()
    starts = [next(one.blocks(first, 5)) for first in (0, np.int64(0))]
    assert starts[0].key.entropy() == starts[1].key.entropy()
