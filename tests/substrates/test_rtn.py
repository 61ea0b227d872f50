"""Telegraph noise is a Markov process, and a function of key, trap and time alone."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from substrates.memristor.counter import philox, uniforms
from substrates.memristor.rtn import Traps
from substrates.memristor.traits import Rtn
from twin.errors import DialError
from twin.key import Key

seeds = st.integers(0, 2**31)
TABLE = Rtn(
    active_fraction=0.25,
    amplitude=0.03,
    amplitude_spread_ln=0.5,
    fastest_s=1e-5,
    slowest_s=1e2,
    source="made up for the tests",
)
YEAR_S = 3.15e7


def alike(seed: int, count: int, capture_s: float, emission_s: float) -> Traps:
    """Independent traps with the same dwell times."""
    ones = np.ones(count)
    key = Key(seed)
    return Traps(key, np.arange(count), 0.1 * ones, capture_s * ones, emission_s * ones)


# Vectors of the reference implementation of the generator (Random123, kat_vectors).
@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            0xFFFFFFFFFFFFFFFF,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_addressed_generator_gives_the_published_words(counter, key, words):
    drawn = philox(tuple(np.array([c], dtype=np.uint64) for c in counter), key)
    assert tuple(int(w[0]) for w in drawn) == words


def test_addressed_numbers_are_uniform_and_differ_in_every_part_of_the_address():
    n = 40_000
    first, second = uniforms(Key(1), np.arange(n), 5, 3)
    for drawn in (first, second):
        # Kolmogorov-Smirnov: P(sqrt(n) D > 3) = 3e-8.
        assert stats.kstest(drawn, "uniform").statistic < 3 / math.sqrt(n)
    far = [uniforms(Key(1), 7, page, slot)[0] for page in (0, 2**40, 2**40 + 1) for slot in (0, 1)]
    far += [uniforms(Key(1), 8, 2**40, 0)[0], uniforms(Key(2), 7, 2**40, 0)[0]]
    assert len({float(u) for u in far}) == len(far)


@pytest.mark.parametrize("time_s", [0.0, 0.3, YEAR_S])
def test_occupancy_is_stationary_at_emission_over_the_sum_of_dwell_times(time_s):
    n, p = 40_000, 3 / (1 + 3)
    share = alike(1, n, 1e-2, 3e-2).occupied(time_s).double().mean()
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("lag", [0.05, 0.3, 1.0, 2.5, 6.0])
def test_autocorrelation_falls_with_the_sum_of_the_rates(lag):
    n, capture_s, emission_s = 60_000, 2e-2, 3e-2
    traps = alike(2, n, capture_s, emission_s)
    tau, p = 1 / (1 / capture_s + 1 / emission_s), emission_s / (capture_s + emission_s)
    assert torch.allclose(traps.relaxation_s, torch.tensor(tau, dtype=torch.float64))
    start = 12.3456
    first, later = (traps.occupied(t).double() - p for t in (start, start + lag * tau))
    # Of the product of two deviations the standard error is at most its r.m.s. / sqrt(n).
    product = first * later
    expected = p * (1 - p) * math.exp(-lag)
    assert abs(product.mean() - expected) < 5 * product.std() / math.sqrt(n)


def test_dwell_times_are_exponential_with_their_own_means():
    """Runs of one state on a fine grid, against the geometric law of a Markov chain."""
    capture_s, emission_s, step = 4e-3, 1e-3, 1e-4
    traps = alike(3, 60, capture_s, emission_s)
    states = traps.history(torch.arange(8_000, dtype=torch.float64) * step).numpy()
    tau, p = 1 / (1 / capture_s + 1 / emission_s), emission_s / (capture_s + emission_s)
    decay = math.exp(-step / tau)
    for state, leave in ((True, (1 - p) * (1 - decay)), (False, p * (1 - decay))):
        here = states[:-1] == state
        n, left = here.sum(), (states[1:] != state)[here].sum()
        assert abs(left - n * leave) < 5 * math.sqrt(n * leave * (1 - leave))
        # Markov: the chance to leave does not depend on how long it has stayed.
        stayed = here[2:] & (states[:-3] == state) & (states[1:-2] == state)
        n, left = stayed.sum(), (states[3:] != state)[stayed].sum()
        assert abs(left - n * leave) < 5 * math.sqrt(n * leave * (1 - leave))


def test_patterns_are_those_of_a_simulation_step_by_step():
    """Five states at uneven times, 32 patterns: two-sample chi-squared."""
    n, capture_s, emission_s = 30_000, 1e-2, 2e-2
    times = [0.5, 0.502, 0.51, 0.513, 0.53]
    tau, p = 1 / (1 / capture_s + 1 / emission_s), emission_s / (capture_s + emission_s)
    traps = alike(4, n, capture_s, emission_s)
    ours = sum(2**k * traps.occupied(t).long() for k, t in enumerate(times))
    rng = Key(5).numpy()
    state = rng.random(n) < p
    theirs = state.astype(int)
    for k, gap in enumerate(np.diff(times), start=1):
        chance = p + (state - p) * math.exp(-gap / tau)
        state = rng.random(n) < chance
        theirs += 2**k * state
    counts = [np.bincount(np.asarray(codes), minlength=32) for codes in (ours, theirs)]
    # Five standard errors of a normal are p = 5.7e-7.
    assert stats.chi2_contingency(counts).pvalue > 5.7e-7


def test_traps_are_independent_of_each_other_and_between_devices():
    n = 40_000
    traps, others = alike(6, n, 1e-2, 1e-2), alike(7, n, 1e-2, 1e-2)
    here, there = (2 * t.occupied(1.0).double() - 1 for t in (traps, others))
    assert abs((here[1:] * here[:-1]).mean()) < 5 / math.sqrt(n - 1)
    assert abs((here * there).mean()) < 5 / math.sqrt(n)


times_s = st.one_of(
    st.floats(0, 1e-3),
    st.floats(0, 10),
    st.floats(0, YEAR_S),
    st.sampled_from([0.0, 1.0, 1 + 1e-6]),
)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, times=st.lists(times_s, min_size=1, max_size=12))
def test_what_was_asked_before_changes_no_state(seed, times):
    traps = Traps.drawn(Key(seed), (2, 8, 8), TABLE)
    fresh = [Traps.drawn(Key(seed), (2, 8, 8), TABLE).occupied(t) for t in times]
    assert all(torch.equal(traps.occupied(t), f) for t, f in zip(times, fresh, strict=True))
    backwards = [traps.occupied(t) for t in reversed(times)]
    assert all(torch.equal(b, f) for b, f in zip(reversed(backwards), fresh, strict=True))
    many = traps.history(torch.tensor(times, dtype=torch.float64))
    assert torch.equal(many, torch.stack(fresh))


def test_going_back_by_less_than_a_dwell_time_changes_no_state():
    traps = alike(17, 300, 1e-3, 1e-3)
    times = 0.5 + 1e-4 * torch.arange(50, dtype=torch.float64)
    forth = traps.history(times)
    back = torch.stack([traps.occupied(float(t)) for t in times.flip(0)]).flip(0)
    assert torch.equal(forth, back)
    assert (forth[0] != forth[-1]).any()


def test_a_state_is_that_of_the_nearest_grid_point_of_time():
    traps = alike(18, 2000, 2e-6, 2e-6)
    here = traps.occupied(1.0)
    assert torch.equal(traps.occupied(1.0 + 4e-7), here)
    assert torch.equal(traps.occupied(1.0 - 4e-7), here)
    assert not torch.equal(traps.occupied(1.0 + 1e-6), here)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, start=st.floats(0, 1e3), step=st.floats(1e-6, 1e-2), count=st.integers(2, 600))
def test_a_run_of_reads_is_that_of_single_reads(seed, start, step, count):
    traps = Traps.drawn(Key(seed), (2, 16, 16), TABLE)
    times = start + step * torch.arange(count, dtype=torch.float64)
    picked = [0, count // 3, count // 2, count - 1]
    many = traps.history(times)
    alone = Traps.drawn(Key(seed), (2, 16, 16), TABLE)
    assert all(torch.equal(many[i], alone.occupied(float(times[i]))) for i in picked)


def test_a_long_run_in_many_chunks_is_that_of_single_reads(monkeypatch):
    traps = Traps.drawn(Key(8), (2, 16, 16), TABLE)
    times = torch.arange(300, dtype=torch.float64) * 1e-4
    whole = traps.history(times)
    monkeypatch.setattr("substrates.memristor.rtn.CHUNK_PLACES", 1000)
    assert torch.equal(Traps.drawn(Key(8), (2, 16, 16), TABLE).history(times), whole)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, waits=st.lists(st.integers(0, 10**7), min_size=1, max_size=30))
def test_how_a_wait_is_split_changes_no_state(seed, waits):
    traps = Traps.drawn(Key(seed), (2, 8, 8), TABLE)
    # Microseconds added up in seconds: the rounding differs, the time does not.
    split = 0.0
    for wait in waits:
        split += wait * 1e-6
    assert torch.equal(traps.occupied(split), traps.occupied(sum(waits) * 1e-6))


def test_no_trap_has_moved_where_no_time_has_passed_and_all_have_after_years():
    traps = alike(9, 20_000, 1.0, 1.0)
    now = traps.occupied(5.0)
    # 20,000 traps of rate 1/s per state: 0.01 expected to move in 1 us at most a few.
    assert (traps.occupied(5.0 + 1e-6) != now).sum() <= 3
    moved = (traps.occupied(10 * YEAR_S) != now).double().mean()
    assert abs(moved - 0.5) < 5 * 0.5 / math.sqrt(len(traps))


def test_an_occupied_trap_takes_exactly_its_amplitude_and_an_empty_one_nothing():
    shape = (2, 12, 9)
    traps = Traps.drawn(Key(10), shape, TABLE)
    g = torch.rand(shape, generator=Key(11).torch()) * 4e-5
    given_g = g.clone()
    out, held = traps.apply(g, 3.0), traps.occupied(3.0)
    assert held.any() and not held.all()
    expected = g.flatten().clone()
    for cell, loss, full in zip(traps.cells, traps.amplitudes, held, strict=True):
        if full:
            expected[cell] *= 1 - loss
    assert torch.equal(out.flatten(), expected) and out.shape == shape
    assert torch.equal(g, given_g)


def test_active_cells_and_their_laws_are_those_of_the_table():
    shape = (2, 200, 200)
    n = math.prod(shape)
    traps = Traps.drawn(Key(12), shape, TABLE)
    active, f = len(traps), TABLE.active_fraction
    assert abs(active - n * f) < 5 * math.sqrt(n * f * (1 - f))
    logs = traps.amplitudes.double().log()
    spread = TABLE.amplitude_spread_ln
    assert abs(logs.mean() - math.log(TABLE.amplitude)) < 5 * spread / math.sqrt(active)
    assert abs(logs.std() / spread - 1) < 5 / math.sqrt(2 * active)
    tau, p = traps.relaxation_s.numpy(), traps.occupancy.numpy()
    for dwell in (tau / p, tau / (1 - p)):
        place = np.log(dwell / TABLE.fastest_s) / np.log(TABLE.slowest_s / TABLE.fastest_s)
        assert stats.kstest(place, "uniform").statistic < 3 / math.sqrt(active)


def test_more_active_cells_contain_the_fewer_and_leave_them_as_they_were():
    few, many = (
        Traps.drawn(Key(13), (2, 20, 20), Rtn(**{**vars_of(TABLE), "active_fraction": f}))
        for f in (0.1, 0.4)
    )
    where = torch.isin(many.cells, few.cells)
    assert torch.equal(many.cells[where], few.cells)
    assert torch.equal(many.amplitudes[where], few.amplitudes)
    assert torch.equal(many.occupied(7.7)[where], few.occupied(7.7))


def vars_of(table: Rtn) -> dict[str, object]:
    names = ("amplitude", "amplitude_spread_ln", "fastest_s", "slowest_s", "source")
    return {name: getattr(table, name) for name in names}


def test_no_step_takes_more_than_the_whole_cell():
    wild = Rtn(**{**vars_of(TABLE), "active_fraction": 1.0, "amplitude_spread_ln": 3.0})
    traps = Traps.drawn(Key(14), (2, 40, 40), wild)
    assert traps.amplitudes.max() == 1
    assert (traps.apply(torch.ones(2, 40, 40), 1.0) >= 0).all()


def test_a_device_without_active_cells_is_left_alone():
    none = Traps.drawn(Key(15), (2, 3, 3), Rtn(**{**vars_of(TABLE), "active_fraction": 0.0}))
    g = torch.rand((2, 3, 3), generator=Key(15).torch())
    assert len(none) == 0 and torch.equal(none.apply(g, 1.0), g)
    assert none.history(torch.arange(4.0)).shape == (4, 0)


@pytest.mark.parametrize("time_s", [-1.0, math.nan, math.inf, 1e30])
def test_a_time_that_is_none_is_refused_with_range_and_unit(time_s):
    traps = Traps.drawn(Key(16), (2, 3, 3), TABLE)
    with pytest.raises(DialError, match=r"from 0 to .* s, got"):
        traps.occupied(time_s)
