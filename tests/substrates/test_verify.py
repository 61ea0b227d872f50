"""Write-verify against its closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from substrates.memristor.verify import (
    Verified,
    acceptance,
    expected_pulses,
    expected_yield,
    verified_sigma,
    write_once,
    write_verify,
)
from twin.errors import ConfigError, SettingError
from twin.key import Key

EVERYDAY = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
US = 1e-6
CELLS = 40_000


def full(value: float, cells: int = CELLS) -> torch.Tensor:
    return torch.full((cells,), value)


def pulsed(seed: int, *, tolerance: float, k: int, sigma: float = US, **more: object) -> Verified:
    """Cells far from their common target of 20 uS, so all need pulses."""
    law = {"pulse_sigma": sigma, "tolerance": tolerance, "max_pulses": k, **more}
    return write_verify(full(20 * US), full(2 * US), generator=Key(seed).torch(), **law)


def within_five_errors(mean: float, expected: float, sigma: float, samples: int) -> bool:
    return abs(mean - expected) <= 5 * sigma / math.sqrt(samples) + 1e-12 * abs(expected)


# ---- laws; each with 40 000 cells and five standard errors ---------------------


@pytest.mark.parametrize("tolerance", [0.2 * US, US, 2.5 * US])
@pytest.mark.parametrize("k", [1, 3, 12])
def test_the_yield_follows_the_binomial_law(tolerance, k):
    expected = expected_yield(acceptance(US, tolerance), k)
    found = pulsed(1, tolerance=tolerance, k=k).yielded
    spread = math.sqrt(expected * (1 - expected))
    assert within_five_errors(found, expected, spread, CELLS)


def test_pulse_counts_are_geometric():
    p = acceptance(US, 0.5 * US)
    counts = torch.bincount(pulsed(2, tolerance=0.5 * US, k=60).pulses.long())
    assert counts[0] == 0
    for n in range(1, 13):
        share = p * (1 - p) ** (n - 1)
        found = float(counts[n]) / CELLS
        assert within_five_errors(found, share, math.sqrt(share * (1 - share)), CELLS), n


@pytest.mark.parametrize("k", [1, 4, 20])
def test_the_mean_number_of_pulses_is_that_of_a_cut_geometric_law(k):
    written = pulsed(3, tolerance=0.5 * US, k=k)
    expected = expected_pulses(acceptance(US, 0.5 * US), k)
    spread = float(written.pulses.double().std())
    assert within_five_errors(written.total_pulses / CELLS, expected, spread, CELLS)


@pytest.mark.parametrize("tolerance", [0.1 * US, US, 3 * US])
def test_verified_cells_follow_the_truncated_normal(tolerance):
    written = pulsed(4, tolerance=tolerance, k=200)
    off = (written.conductances - 20 * US)[written.verified].double()
    n, expected = len(off), verified_sigma(US, tolerance)
    assert within_five_errors(float(off.mean()), 0, expected, n)
    # The standard error of a variance, from the fourth moment of the sample.
    error = float(off.pow(4).mean() - off.var() ** 2) ** 0.5
    assert within_five_errors(float(off.var()), expected**2, error, n)


def test_the_truncated_sigma_is_continuous_where_its_formula_changes():
    below, above = (verified_sigma(1.0, a) for a in (0.9999e-3, 1.0001e-3))
    assert below < above < below * 1.0003


def test_read_noise_adds_to_the_spread_that_must_fit_the_tolerance():
    p = acceptance(US, 0.5 * US, read_sigma=0.8 * US)
    written = pulsed(5, tolerance=0.5 * US, k=1, read_sigma=0.8 * US)
    assert within_five_errors(written.yielded, p, math.sqrt(p * (1 - p)), CELLS)
    off = (written.conductances - 20 * US)[written.verified].abs()
    assert float(off.max()) > 0.5 * US  # a lucky read passes a cell that is off


def test_a_target_at_zero_is_missed_on_one_side_only():
    p = (1 + acceptance(US, 0.5 * US)) / 2
    law = {"pulse_sigma": US, "tolerance": 0.5 * US, "max_pulses": 1}
    written = write_verify(full(0.0), full(9 * US), generator=Key(6).torch(), **law)
    assert within_five_errors(written.yielded, p, math.sqrt(p * (1 - p)), CELLS)


def test_an_array_like_the_published_log_ends_with_its_share_of_bad_cells():
    # 94.4 % unchanged cells; 40 % of the others never verify: 2.2 % of the array.
    targets = full(2 * US, 50_000)
    targets[:2_800] = 18 * US
    never = torch.zeros(50_000, dtype=torch.bool)
    never[:1_100] = True
    law = {"pulse_sigma": US, "tolerance": US, "max_pulses": 87, "never": never}
    written = write_verify(targets, full(2 * US, 50_000), generator=Key(7).torch(), **law)
    assert written.yielded == pytest.approx(1 - 0.022)
    assert int((written.pulses == 0).sum()) == 47_200
    p = acceptance(US, US)
    moved = expected_pulses(p, 87) * 1_700
    spread = math.sqrt(1 - p) / p * math.sqrt(1_700)
    assert abs(written.total_pulses - 1_100 * 87 - moved) <= 5 * spread


def test_one_shot_writes_every_cell_once_with_the_full_spread():
    written = write_once(full(20 * US), full(2 * US), pulse_sigma=US, generator=Key(8).torch())
    off = (written.conductances - 20 * US).double()
    assert within_five_errors(float(off.mean()), 0, US, CELLS)
    assert within_five_errors(float(off.var()), US**2, math.sqrt(2) * US**2, CELLS)
    assert written.total_pulses == CELLS and written.yielded == 0
    cost = written.cost(pulse_s=1e-6, pulse_joules=1e-12, check_s=1.0)
    assert cost.checks == 0 and cost.seconds == pytest.approx(CELLS * 1e-6)


# ---- properties ----------------------------------------------------------------


def any_write(seed: int, k: int, tolerance: float, **more: object) -> tuple[Verified, torch.Tensor]:
    generator = Key(seed).torch()
    shape = (2, 1 + seed % 7, 1 + seed % 5)
    targets, start = (torch.rand(shape, generator=generator) * 40 * US for _ in range(2))
    law = {"pulse_sigma": lambda g: 0.1 * g + 0.5 * US, "tolerance": tolerance, "max_pulses": k}
    return write_verify(targets, start, generator=generator, **law, **more), targets


@EVERYDAY
@given(seed=seeds, k=st.integers(0, 9), tolerance=st.floats(0, 10 * US))
def test_a_verified_cell_is_within_tolerance_and_no_other(seed, k, tolerance):
    written, targets = any_write(seed, k, tolerance)
    close = (written.conductances - targets).abs() <= tolerance
    assert torch.equal(close, written.verified)
    assert (written.conductances >= 0).all()
    assert (written.pulses >= 0).all() and (written.pulses <= k).all()
    assert (written.pulses[~written.verified] == k).all()
    assert written.pulses.dtype == torch.int32 and written.pulses.shape == targets.shape


@EVERYDAY
@given(seed=seeds, k=st.integers(0, 6), tolerance=st.floats(0.1 * US, 5 * US))
def test_a_longer_write_continues_a_shorter_one(seed, k, tolerance):
    (short, _), (long, _) = (any_write(seed, n, tolerance) for n in (k, k + 3))
    done = short.verified
    assert torch.equal(long.conductances[done], short.conductances[done])
    assert torch.equal(long.pulses.clamp(max=k), short.pulses)


@EVERYDAY
@given(seed=seeds)
def test_cells_that_are_already_there_take_no_pulse(seed):
    targets = torch.rand(2, 5, 3, generator=Key(seed).torch()) * US
    law = {"pulse_sigma": US, "tolerance": 0.0, "max_pulses": 9}
    written = write_verify(targets, targets, generator=Key(seed).torch(), **law)
    assert written.total_pulses == 0 and written.yielded == 1
    assert torch.equal(written.conductances, targets)


@EVERYDAY
@given(seed=seeds, k=st.integers(1, 6))
def test_cells_that_never_verify_take_every_pulse(seed, k):
    mask = torch.rand((2, 1 + seed % 7, 1 + seed % 5), generator=Key(seed + 1).torch()) < 0.4
    written, _ = any_write(seed, k, 50 * US, never=mask)
    assert torch.equal(written.verified, ~mask)
    assert (written.pulses[mask] == k).all()


@EVERYDAY
@given(seed=seeds, k=st.integers(1, 6))
def test_no_pulse_moves_a_stuck_cell_and_all_are_paid_for(seed, k):
    shape = (2, 4, 3)
    stuck = torch.rand(shape, generator=Key(seed).torch()) < 0.5
    start, targets = torch.full(shape, 5 * US), torch.full(shape, 20 * US)
    law = {"pulse_sigma": US, "tolerance": US, "max_pulses": k, "stuck": stuck}
    written = write_verify(targets, start, generator=Key(seed).torch(), **law)
    assert (written.conductances[stuck] == start[stuck]).all()
    assert (written.pulses[stuck] == k).all() and not written.verified[stuck].any()
    once = write_once(targets, start, pulse_sigma=US, stuck=stuck, generator=Key(seed).torch())
    assert torch.equal(once.conductances == start, stuck)


def test_writing_changes_neither_targets_nor_start():
    targets, start = full(20 * US, 9), full(2 * US, 9)
    write_verify(
        targets, start, pulse_sigma=US, tolerance=US, max_pulses=3, generator=Key(1).torch()
    )
    assert (targets == 20 * US).all() and (start == 2 * US).all()


# ---- cost ------------------------------------------------------------------------


def hand_made() -> Verified:
    pulses = torch.tensor([[[1, 2], [0, 0]], [[5, 0], [3, 0]]], dtype=torch.int32)
    return Verified(conductances=pulses.float(), pulses=pulses, verified=pulses < 5)


def test_the_cost_of_a_write_counts_pulses_and_checks():
    price = {"pulse_s": 1e-3, "pulse_joules": 2.0, "check_s": 1e-6, "check_joules": 1e-3}
    serial = hand_made().cost(**price)
    assert serial.pulses == 11 and serial.checks == 19
    assert serial.seconds == pytest.approx(11e-3 + 19e-6)
    assert serial.joules == pytest.approx(22 + 19e-3)
    # Rows: the slowest cells of the pairs of row 0 need 5 rounds, of row 1 three.
    rows = hand_made().cost(**price, row_parallel=True)
    assert rows.seconds == pytest.approx(8e-3 + 10e-6)
    assert rows.joules == serial.joules and rows.pulses == 11


@EVERYDAY
@given(seed=seeds, k=st.integers(0, 6))
def test_rows_in_parallel_never_take_longer(seed, k):
    written, _ = any_write(seed, k, US)
    price = {"pulse_s": 1e-6, "pulse_joules": 1e-12, "check_s": 1e-6}
    parallel = written.cost(**price, row_parallel=True)
    assert parallel.seconds <= written.cost(**price).seconds * (1 + 1e-9)
    assert parallel.joules == written.cost(**price).joules


# ---- refusals ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"max_pulses": -1}, ConfigError, "max_pulses"),
        ({"max_pulses": 2.5}, ConfigError, "whole number"),
        ({"tolerance": -1e-6}, SettingError, "tolerance"),
        ({"tolerance": torch.ones(2)}, SettingError, "tolerance has shape"),
        ({"pulse_sigma": float("nan")}, SettingError, "pulse_sigma"),
        ({"pulse_sigma": lambda g: -g - 1}, SettingError, "pulse_sigma"),
        ({"read_sigma": float("inf")}, SettingError, "read_sigma"),
        ({"targets": torch.tensor([1e-6, -1e-6, 0.0])}, SettingError, "targets"),
        ({"targets": torch.tensor([1e-6, float("nan"), 0.0])}, SettingError, "targets"),
        ({"start": torch.zeros(4)}, SettingError, "shape"),
        ({"start": torch.tensor([0, 0, float("inf")])}, SettingError, "start"),
        ({"never": torch.zeros(3)}, SettingError, "never must be a bool mask"),
        ({"stuck": torch.zeros(2, dtype=torch.bool)}, SettingError, "stuck"),
    ],
)
def test_a_write_that_makes_no_sense_is_refused(change, error, words):
    good = {"targets": torch.ones(3) * US, "start": torch.zeros(3), "tolerance": US}
    good |= {"pulse_sigma": US, "max_pulses": 2, "generator": Key(1).torch()}
    write_verify(**good)
    state = good["generator"].get_state()
    with pytest.raises(error, match=words):
        write_verify(**(good | change))
    assert torch.equal(good["generator"].get_state(), state)


def test_costs_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="pulse_s"):
        hand_made().cost(pulse_s=-1.0, pulse_joules=0.0)
    flat = Verified(
        conductances=torch.zeros(3),
        pulses=torch.zeros(3, dtype=torch.int32),
        verified=torch.ones(3, dtype=torch.bool),
    )
    with pytest.raises(ConfigError, match="row_parallel"):
        flat.cost(pulse_s=1.0, pulse_joules=0.0, row_parallel=True)
