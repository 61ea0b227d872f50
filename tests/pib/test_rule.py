"""The local rule is the gradient of what the computer knows of a unit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pib.rule import outer_product, rectified, warmed_cosine
from twin.key import Key

sizes = st.integers(1, 5)
seeds = st.integers(0, 2**32)


@given(seed=seeds, n=sizes, inputs=sizes, outputs=sizes)
def test_the_outer_product_is_the_slope_of_a_rectified_linear_unit(
    seed: int, n: int, inputs: int, outputs: int
) -> None:
    """Finite differences of sum(gradient * relu(x W + b)), float64, away from kinks."""
    draw = Key(seed).torch()
    x, w, b, gradient = (
        torch.randn(shape, generator=draw, dtype=torch.float64)
        for shape in ((n, inputs), (inputs, outputs), (outputs,), (n, outputs))
    )
    step = 1e-7
    a = x @ w + b
    # A pre-activation this close to zero would cross it on the way.
    a = torch.where(a.abs() < 1e-4, torch.full_like(a, 1e-4), a)

    def loss(change: torch.Tensor) -> float:
        return float((gradient * rectified(a + change)).sum())

    found = outer_product(x, a, gradient)
    for i in range(inputs):
        for j in range(outputs):
            towards = torch.zeros_like(a)
            towards[:, j] = x[:, i]
            slope = (loss(step * towards) - loss(-step * towards)) / (2 * step)
            assert float(found["weight"][i, j]) == pytest.approx(slope, abs=1e-6)
    for j in range(outputs):
        towards = torch.zeros_like(a)
        towards[:, j] = 1
        slope = (loss(step * towards) - loss(-step * towards)) / (2 * step)
        assert float(found["bias"][j]) == pytest.approx(slope, abs=1e-6)


@given(seed=seeds, n=sizes)
def test_a_feature_that_is_off_teaches_nothing(seed: int, n: int) -> None:
    draw = Key(seed).torch()
    x, gradient = torch.rand((n, 3), generator=draw), torch.randn((n, 2), generator=draw)
    off = -torch.rand((n, 2), generator=draw)
    found = outer_product(x, off, gradient)
    assert not found["weight"].any() and not found["bias"].any()


@given(steps=st.integers(1, 500), warm_up=st.integers(0, 100), rate=st.floats(1e-5, 1))
def test_the_rate_rises_to_at_most_its_peak_and_ends_near_zero(
    steps: int, warm_up: int, rate: float
) -> None:
    rates = [warmed_cosine(s, steps, rate, warm_up) for s in range(steps)]
    assert all(0 < r <= rate for r in rates)
    assert rates[-1] <= rate * (3 / steps) ** 2 + 1e-12 or steps < 4
    late = rates[min(warm_up, steps) :]
    assert late == sorted(late, reverse=True)
    assert warmed_cosine(steps, steps, rate, warm_up) == pytest.approx(0, abs=1e-12)
