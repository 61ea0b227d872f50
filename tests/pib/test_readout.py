"""The linear readout: what it reaches, and that a key decides it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pib.history import ridge_probe
from pib.readout import Readout, ReadoutRecipe, hard_example_weights, train_readout
from twin.errors import DataError
from twin.key import Key

seeds = st.integers(0, 2**32)
SHORT = ReadoutRecipe(epochs=2, min_steps=20, rate=0.05)


def blobs(seed: int, n: int = 60, classes: int = 3, width: int = 5) -> tuple[Tensor, Tensor]:
    """Classes far apart against their spread."""
    labels = torch.arange(n) % classes
    centres = 6 * torch.eye(classes, width)
    noise = torch.rand((n, width), generator=Key(seed).torch()) - 0.5
    return centres[labels] + noise, labels


@settings(max_examples=8, deadline=None)
@given(seed=seeds, size=st.sampled_from([1e-3, 1.0, 1e3]), shift=st.floats(-10, 10))
def test_separable_classes_are_told_apart_at_any_scale(
    seed: int, size: float, shift: float
) -> None:
    z, y = blobs(seed)
    z = size * (z + shift)
    readout = train_readout(z, y, 3, key=Key(seed), recipe=SHORT)
    assert readout.accuracy(z, y) == 1.0
    assert ridge_probe(z, y, z, y) == 1.0


@settings(max_examples=6, deadline=None)
@given(seed=seeds)
def test_a_readout_is_a_function_of_its_key(seed: int) -> None:
    z, y = blobs(seed)
    recipe = ReadoutRecipe(batch=16, min_steps=10)
    one, again, other = (
        train_readout(z, y, 3, key=Key(k), recipe=recipe) for k in (seed, seed, seed + 1)
    )
    for name, value in one.state().items():
        assert torch.equal(value, again.state()[name])
    assert not torch.equal(one.weight, other.weight)


def test_a_stuck_feature_is_not_blown_up() -> None:
    z, y = blobs(1)
    z = torch.cat([z, torch.full((len(z), 1), 7.0)], 1)
    readout = train_readout(z, y, 3, key=Key(0), recipe=SHORT)
    assert readout.accuracy(z, y) == 1.0
    moved = z.clone()
    moved[:, -1] += 1e-3
    assert readout.accuracy(moved, y) == 1.0


def test_the_curve_ends_at_the_readout_and_keeps_its_past() -> None:
    z, y = blobs(2)
    seen: list[Readout] = []
    recipe = ReadoutRecipe(epochs=3, min_steps=1, batch=20)
    last = train_readout(
        z, y, 3, key=Key(0), recipe=recipe, after_epoch=lambda _, r: seen.append(r)
    )
    assert len(seen) == 3
    assert torch.equal(seen[-1].weight, last.weight)
    assert not torch.equal(seen[0].weight, seen[1].weight)


def test_few_samples_still_get_their_steps() -> None:
    z, y = blobs(3, n=12)
    seen: list[int] = []
    train_readout(
        z, y, 3, key=Key(0), recipe=ReadoutRecipe(epochs=1, min_steps=37),
        after_epoch=lambda epoch, _: seen.append(epoch),
    )  # fmt: skip
    assert seen == list(range(37))


@given(seed=seeds, offset=st.floats(0.01, 2))
def test_hard_examples_weigh_more(seed: int, offset: float) -> None:
    z, y = blobs(seed)
    draw = Key(seed).child("w").torch()
    readout = Readout(
        mean=z.mean(0), scale=z.std(0), weight=torch.randn((5, 3), generator=draw),
        bias=torch.zeros(3),
    )  # fmt: skip
    weights = hard_example_weights(readout, z, y, offset)
    right = readout.probability_correct(z, y)
    assert weights.min() >= offset - 1e-6 and weights.max() <= 1 + offset + 1e-6
    torch.testing.assert_close(weights + right, torch.full_like(right, 1 + offset))


def test_probabilities_are_those_of_a_softmax() -> None:
    z, y = blobs(4)
    readout = train_readout(z, y, 3, key=Key(0), recipe=SHORT)
    each = torch.stack([readout.probability_correct(z, torch.full_like(y, c)) for c in range(3)])
    torch.testing.assert_close(each.sum(0), torch.ones(len(y)))
    assert readout.accuracy(z, y) == pytest.approx(float((each.argmax(0) == y).double().mean()))


def test_labels_of_other_images_are_refused() -> None:
    with pytest.raises(DataError, match="one label per measured feature"):
        train_readout(torch.zeros(10, 3), torch.zeros(20, dtype=torch.int64), 2, key=Key(0))
