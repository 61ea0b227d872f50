"""Batches are balanced, complete, sorted, and a function of the key."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pib.sampling import balanced_epoch, steps_per_epoch
from twin.errors import ObjectiveError
from twin.key import Key

seeds = st.integers(0, 2**32)
counts = st.lists(st.integers(1, 40), min_size=2, max_size=5)


def labels_with(counts: list[int], seed: int) -> torch.Tensor:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=Key(seed).child("mix").torch())]


@given(seed=seeds, counts=counts, share=st.integers(1, 9), extra=st.integers(0, 1))
def test_every_batch_has_equal_shares_sorted_by_class(
    seed: int, counts: list[int], share: int, extra: int
) -> None:
    labels = labels_with(counts, seed)
    batch = share * len(counts) + extra
    epoch = balanced_epoch(labels, batch, Key(seed))
    assert epoch.shape == (steps_per_epoch(labels, batch), share * len(counts))
    expected = torch.arange(len(counts)).repeat_interleave(share)
    assert all(torch.equal(labels[rows], expected) for rows in epoch)


@given(seed=seeds, counts=counts, share=st.integers(1, 9))
def test_no_sample_comes_again_before_its_whole_class_has_come(
    seed: int, counts: list[int], share: int
) -> None:
    labels = labels_with(counts, seed)
    epoch = balanced_epoch(labels, share * len(counts), Key(seed))
    seen = torch.bincount(epoch.flatten(), minlength=len(labels))
    for c, size in enumerate(counts):
        of_class = seen[labels == c]
        need = epoch.shape[0] * share
        assert int(of_class.max()) <= -(-need // size)
        assert int(of_class.min()) >= need // size


@given(seed=seeds, counts=counts)
def test_an_epoch_is_a_function_of_its_key(seed: int, counts: list[int]) -> None:
    labels = labels_with(counts, seed)
    batch = 2 * len(counts)
    one, again = (balanced_epoch(labels, batch, Key(seed)) for _ in range(2))
    assert torch.equal(one, again)


def test_another_key_draws_another_epoch() -> None:
    labels = labels_with([40, 40], 0)
    assert not torch.equal(balanced_epoch(labels, 20, Key(0)), balanced_epoch(labels, 20, Key(1)))


def test_weights_draw_in_proportion() -> None:
    """400 epochs of 20 draws from a class of 4: n = 8000, five standard errors."""
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    weights = torch.tensor([1.0, 2, 3, 4, 1, 1, 1, 0])
    rows = torch.cat([balanced_epoch(labels, 40, Key(1, (i,)), weights) for i in range(400)])
    seen = torch.bincount(rows.flatten(), minlength=8).double()
    n = 400 * 20
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4, 1 / 3, 1 / 3, 1 / 3, 0], dtype=torch.float64)
    error = (shares * (1 - shares) / n).sqrt()
    assert bool(((seen / n - shares).abs() <= 5 * error + 1e-12).all())


@pytest.mark.parametrize(("counts", "batch"), [([3, 3, 3], 2), ([5], 4)])
def test_a_batch_that_cannot_hold_every_class_is_refused(counts: list[int], batch: int) -> None:
    with pytest.raises(ObjectiveError, match="at least two classes"):
        balanced_epoch(labels_with(counts, 0), batch, Key(0))
