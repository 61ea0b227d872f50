"""White noise in memory that is used again."""

from __future__ import annotations

import gc

import pytest
import torch

from substrates.optics.white import sign_noise, white_noise
from twin.key import Key

SHAPE = (7, 11)


@pytest.mark.parametrize("noise", [white_noise, sign_noise])
def test_used_memory_holds_the_same_noise_as_fresh_memory(noise: type) -> None:
    old = torch.zeros(SHAPE, dtype=torch.complex64)
    fresh, reused = noise(Key(1))(SHAPE, 2.0), noise(Key(1), old)(SHAPE, 2.0)
    assert torch.equal(fresh, reused)
    assert reused.data_ptr() == old.data_ptr()


@pytest.mark.parametrize("noise", [white_noise, sign_noise])
def test_memory_used_again_and_again_keeps_nothing_of_the_past(noise: type) -> None:
    """A hundred draws in one place: a view of each would leave two hundred tensors."""

    def tensors() -> int:
        gc.collect()
        return sum(type(thing) is torch.Tensor for thing in gc.get_objects())

    held = noise(Key(0))(SHAPE, 1.0)
    before = tensors()
    for step in range(100):
        held = noise(Key(0).child(step), held)(SHAPE, 1.0)
    assert tensors() <= before + 2
