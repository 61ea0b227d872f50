"""Cells fail after their own number of writes, and reads take their share."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from substrates.memristor.traits import Disturb, Endurance
from substrates.memristor.wear import disturb_loss, disturbed, lifetimes, stuck, worn_out
from twin.errors import DialError
from twin.key import Key

seeds = st.integers(0, 2**31)
WEIBULL = Endurance(median_cycles=1e6, weibull_shape=1.5, fails_to="low", source="made up")
LOG_NORMAL = Endurance(median_cycles=1e6, spread_ln=1.2, fails_to="high", source="made up")
DISTURB = Disturb(relative_per_decade=0.02, first_reads=1e4, source="made up")


def weibull_cdf(cycles: float) -> float:
    return 1 - 2 ** -((cycles / 1e6) ** 1.5)


def log_normal_cdf(cycles: float) -> float:
    return (1 + math.erf(math.log(cycles / 1e6) / 1.2 / math.sqrt(2))) / 2


@pytest.mark.parametrize(("table", "law"), [(WEIBULL, weibull_cdf), (LOG_NORMAL, log_normal_cdf)])
@pytest.mark.parametrize("cycles", [1e4, 1e5, 5e5, 1e6, 3e6])
def test_the_worn_fraction_is_the_law_of_the_table(table, law, cycles):
    n, p = 200_000, law(cycles)
    failed = worn_out(lifetimes(Key(1), (n,), table), cycles).double().mean()
    assert abs(failed - p) < 5 * math.sqrt(p * (1 - p) / n)


@settings(max_examples=25)
@given(seed=seeds, table=st.sampled_from([WEIBULL, LOG_NORMAL]))
def test_a_worn_cell_stays_worn_and_a_new_device_has_none(seed, table):
    life = lifetimes(Key(seed), (2, 8, 9), table)
    assert torch.equal(life, lifetimes(Key(seed), (2, 8, 9), table))
    assert not worn_out(life, 0).any() and (life >= 1).all()
    before = worn_out(life, 0)
    for cycles in (10, 10**5, 10**6, 10**7):
        now = worn_out(life, cycles)
        assert (now | ~before).all()
        before = now


def test_the_first_write_is_survived_by_all_until_it_is_made():
    frail = Endurance(median_cycles=1, spread_ln=3.0, fails_to="low", source="made up")
    life = lifetimes(Key(4), (1000,), frail)
    assert not worn_out(life, 0.99).any() and worn_out(life, 1).any()


def test_every_cell_may_have_its_own_count():
    life = lifetimes(Key(2), (2, 3, 4), WEIBULL)
    cycles = torch.where(torch.arange(24).view(2, 3, 4) % 2 == 0, life, life * 0.999)
    assert torch.equal(worn_out(life, cycles), (torch.arange(24) % 2 == 0).view(2, 3, 4))


def test_a_failed_cell_sits_at_its_end_of_the_window_and_others_stay():
    g = torch.tensor([1e-5, 2e-5, 3e-5])
    failed = torch.tensor([True, False, True])
    low, high = stuck(g, failed, WEIBULL, 1e-6, 4e-5), stuck(g, failed, LOG_NORMAL, 1e-6, 4e-5)
    assert torch.equal(low, torch.tensor([1e-6, 2e-5, 1e-6]))
    assert torch.equal(high, torch.tensor([4e-5, 2e-5, 4e-5]))


@pytest.mark.parametrize(
    ("reads", "loss"), [(0, 0.0), (1e4, 0.0), (1e5, 0.02), (1e7, 0.06), (1e60, 1.0)]
)
def test_a_decade_of_reads_costs_what_the_table_says(reads, loss):
    assert float(disturb_loss(reads, DISTURB)) == pytest.approx(loss, abs=1e-15)
    left = disturbed(torch.tensor([2e-5]), reads, DISTURB)
    assert float(left) == pytest.approx(2e-5 * (1 - loss), rel=1e-6)
    assert left.dtype == torch.float32


@settings(max_examples=40)
@given(first=st.floats(0, 1e12), more=st.floats(0, 1e12))
def test_more_reads_never_give_back_conductance(first, more):
    g = torch.tensor([1e-6, 4e-5], dtype=torch.float64)
    fewer, greater = disturbed(g, first, DISTURB), disturbed(g, first + more, DISTURB)
    assert (greater <= fewer).all() and (fewer <= g).all() and (greater >= 0).all()


def test_a_write_restarts_the_disturb_of_its_own_cell_only():
    g = torch.full((2,), 1e-5, dtype=torch.float64)
    total, at_write = 10**7, torch.tensor([0, 10**7 - 10])
    out = disturbed(g, total - at_write, DISTURB)
    assert out[1] == g[1] and float(out[0]) == pytest.approx(0.94e-5, rel=1e-14)


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf])
def test_a_count_that_is_none_is_refused(bad):
    with pytest.raises(DialError, match="cycles must be a finite number from 0 up, got"):
        worn_out(lifetimes(Key(3), (2,), WEIBULL), bad)
    with pytest.raises(DialError, match="reads must be"):
        disturbed(torch.ones(2), bad, DISTURB)
