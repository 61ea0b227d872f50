"""Converters: monotone, finer with more bits, the textbook error, honest ends."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from substrates.converter import half_span, on_grid, signed_codes_, signed_range
from twin.key import Key

EVERYDAY = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31)
widths = st.integers(2, 12)


def uniform(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=Key(seed).torch())


def converted(signal: torch.Tensor, bits: int) -> torch.Tensor:
    """`signal` in units of full scale through a converter and back."""
    codes = signal * half_span(bits)
    signed_codes_(codes, bits)
    return codes / half_span(bits)


@EVERYDAY
@given(seed=seeds, bits=widths, reach=st.floats(0.1, 3))
def test_a_larger_signal_never_gets_a_smaller_code(seed, bits, reach):
    signal = ((uniform(seed, 500) * 2 - 1) * reach).sort().values
    assert (converted(signal, bits).diff() >= 0).all()


@EVERYDAY
@given(bits=widths, edge=st.floats(0.1, 1))
def test_more_bits_never_raise_the_largest_quantisation_error(bits, edge):
    # Up to the top code of the coarser converter, densely, so that both meet their worst case.
    signal = torch.linspace(-edge, edge * (1 - 1 / half_span(bits)), 50_001)
    coarse, fine = (converted(signal, b).sub(signal).abs().max() for b in (bits, bits + 1))
    assert fine <= coarse + 1e-6
    assert coarse <= 0.5 / half_span(bits) + 1e-6


@pytest.mark.parametrize("bits", [4, 8, 10])
def test_quantisation_error_of_a_busy_signal_has_variance_lsb_squared_over_12(bits):
    n = 200_000
    signal = (uniform(3, n) * 2 - 1) * 0.75  # a whole number of levels
    error = (converted(signal, bits) - signal).double() * half_span(bits)
    # For a uniform error e, Var(e^2) = 1/80 - 1/144 = 1/180 (in LSB^4).
    bound = 5 * math.sqrt(1 / 180 / n)
    assert abs(error.square().mean().item() - 1 / 12) < bound


@EVERYDAY
@given(seed=seeds, bits=st.integers(2, 10), reach=st.floats(0.1, 4))
def test_codes_at_the_ends_are_counted_one_by_one(seed, bits, reach):
    half = half_span(bits)
    codes = (uniform(seed, 7, 11) * 2 - 1) * reach * half
    counted = signed_codes_(codes, bits)
    assert codes.min() >= -half and codes.max() <= half - 1
    assert counted == int(((codes == -half) | (codes == half - 1)).sum())


@EVERYDAY
@given(seed=seeds, bits=st.integers(1, 16))
def test_a_dac_keeps_its_ends_and_moves_nothing_by_more_than_half_a_level(seed, bits):
    values = torch.cat([uniform(seed, 200), torch.tensor([0.0, 1.0])])
    levels = on_grid(values, bits)
    assert levels[-2:].tolist() == [0.0, 1.0]
    assert (levels - values).abs().max() <= 0.5 / (2**bits - 1) + 1e-6
    assert torch.equal(on_grid(levels, bits), levels)


@EVERYDAY
@given(seed=seeds, count=st.integers(1, 3000), cut=st.integers(1, 700))
def test_a_range_is_the_stated_multiple_of_the_quantile_however_it_is_chunked(seed, count, cut):
    signal = uniform(seed, count, 3) - 0.5
    found = signed_range(signal.split(cut), count)
    expected = 1.1 * signal.abs().quantile(0.9995, dim=0)
    assert torch.allclose(found, expected, rtol=1e-5)
