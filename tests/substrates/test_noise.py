"""Noise depends on key, sample number and shot, and on nothing else."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from substrates.noise import poisson, standard_normal
from twin.key import Key

seeds = st.integers(0, 2**31)


@settings(max_examples=40, deadline=None)
@given(
    seed=seeds,
    first=st.integers(0, 200),
    batch=st.integers(1, 200),
    width=st.integers(1, 40),
    shots=st.sampled_from([None, 2]),
)
def test_a_sample_has_the_same_normals_in_any_batch_that_covers_it(
    seed, first, batch, width, shots
):
    part = standard_normal(Key(seed), first, batch, (width,), shots)
    whole = standard_normal(Key(seed), 0, 400, (width,), shots)
    assert torch.equal(part, whole[..., first : first + batch, :])


def test_normals_are_normal_and_independent_between_samples_and_shots():
    drawn = standard_normal(Key(3), 0, 5000, (20,), shots=2).double()
    n = drawn.numel()
    assert abs(drawn.mean()) < 5 / math.sqrt(n)
    assert abs(drawn.square().mean() - 1) < 5 * math.sqrt(2 / n)
    assert abs((drawn[0] * drawn[1]).mean()) < 5 / math.sqrt(n / 2)
    assert abs((drawn[0, :-64] * drawn[0, 64:]).mean()) < 5 / math.sqrt(n / 2 - 64 * 20)


def test_poisson_counts_have_variance_equal_to_their_mean():
    n, mean = 40_000, 7.0
    counts = poisson(Key(4), 0, torch.full((n // 10, 10), mean)).double()
    assert abs(counts.mean() - mean) < 5 * math.sqrt(mean / n)
    # Var of the sample variance: (mu4 - sigma^4) / n with mu4 = 3 mean^2 + mean.
    assert abs(counts.var() - mean) < 5 * math.sqrt((2 * mean**2 + mean) / n)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, blocks=st.integers(1, 3))
def test_aligned_chunks_have_the_counts_of_the_whole(seed, blocks):
    mean = torch.rand((256, 5), generator=Key(seed).torch()) * 50
    cut = 64 * blocks
    parts = [poisson(Key(seed), start, mean[start : start + cut]) for start in range(0, 256, cut)]
    assert torch.equal(torch.cat(parts), poisson(Key(seed), 0, mean))
