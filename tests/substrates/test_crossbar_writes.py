"""Writing a crossbar: what it achieves and what it costs."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from substrates.memristor.crossbar import Crossbar, make
from substrates.memristor.presets import IDEAL
from substrates.memristor.verify import acceptance, expected_pulses, verified_sigma
from tests.substrates.crossbars import turn, uniform, weights
from twin.errors import ConfigError
from twin.key import Key

EVERYDAY = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
WINDOW = 18e-6
SQUARE = {**IDEAL, "inputs": 40, "outputs": 40, "adc_bits": 8}
VERIFY = {**SQUARE, "write_mode": "verify", "pulse_error": 0.05, "verify_tolerance": 0.02}


def off_target(chip: Crossbar, w: torch.Tensor) -> torch.Tensor:
    """Distance of every cell from its target, fraction of the window."""
    targets = chip.parts.encoding.targets(w)
    return ((chip.conductances() - targets) / WINDOW).double()


# ---- pulse by pulse -----------------------------------------------------------------


def test_verified_cells_are_within_the_tolerance_and_spread_as_the_law_says():
    chip = make(key=Key(1), **VERIFY, verify_max_pulses=200)
    w = weights(chip).clamp(min=-0.2)
    cost = chip.program(w, key=Key(2))
    off = off_target(chip, w)
    # Cells that were there already took no pulse; those are the exact ones.
    moved = off[off != 0]
    assert chip.given_up == 0 and off.abs().max() <= 0.02 * (1 + 1e-4)
    sigma = float(verified_sigma(0.05, 0.02))
    assert abs(moved.std() / sigma - 1) < 5 / math.sqrt(2 * moved.numel())
    achieved = cost.achieved["weights"]
    assert torch.allclose(achieved, chip.parts.encoding.decode(chip.conductances()))


def test_pulses_cost_time_and_energy_each():
    chip = make(key=Key(1), **VERIFY, verify_max_pulses=200)
    cost = chip.program(weights(chip), key=Key(2))
    pulses = chip.snapshot().values["pulses_per_cell"] * 3200
    assert cost.cells == 3200
    # Every cell is read once before its first pulse, here at the bottom of the window.
    assert cost.device_seconds == pytest.approx(pulses * 1e-6 + 3200e-6)
    assert cost.joules == pytest.approx(pulses * 1e-12 + 3200 * 0.04 * 2e-6 * 1e-6)
    assert chip.snapshot().values["clock_s"] == pytest.approx(cost.device_seconds)
    # Half of the cells are to stay at the bottom, where they were made.
    mean = float(expected_pulses(acceptance(0.05, 0.02), 200))
    share = pulses / mean / 3200
    assert 0.4 < share < 0.6
    again = chip.program(weights(chip), key=Key(3))
    # All are where they should be: it takes a look at each.
    assert again.device_seconds == pytest.approx(3200e-6) and again.cells == 3200


def test_a_cell_that_is_given_up_has_had_all_its_pulses():
    chip = make(key=Key(1), **{**VERIFY, "verify_tolerance": 0.001}, verify_max_pulses=3)
    w = weights(chip)
    chip.program(w, key=Key(2))
    outside = int((off_target(chip, w).abs() > 0.001 * (1 + 1e-4)).sum())
    assert chip.given_up == outside > 500
    chip.program(w, key=Key(3))  # starts where the first one ended
    assert chip.given_up < 0.99 * outside


def test_one_pulse_without_a_look_is_cheap_and_coarse():
    chip = make(key=Key(1), **{**VERIFY, "write_mode": "one-shot"})
    w = weights(chip).abs().clamp(min=0.3)
    cost = chip.program(w, key=Key(2))
    assert cost.device_seconds == pytest.approx(3200e-6)
    assert cost.joules == pytest.approx(3200e-12)
    off = off_target(chip, w)[0]
    assert abs(off.mean()) < 5 * 0.05 / math.sqrt(1600)
    assert abs(off.std() / 0.05 - 1) < 5 / math.sqrt(2 * 1600)


@pytest.mark.parametrize("mode", ["outcome", "verify", "one-shot"])
def test_what_a_write_leaves_depends_on_its_key_and_on_nothing_else(mode):
    options = {**VERIFY, "write_mode": mode, "programming_error": 0.02}
    a, b = make(key=Key(1), **options), make(key=Key(1), **options)
    for chip in (a, b):
        chip.program(weights(chip), key=Key(7))
    assert torch.equal(a.conductances(), b.conductances())
    a.program(uniform(8, 40, 40, low=-1.0), key=Key(9))
    b.program(uniform(8, 40, 40, low=-1.0), key=Key(10))
    assert not torch.equal(a.conductances(), b.conductances())


@pytest.mark.parametrize("mode", ["outcome", "verify"])
def test_cells_that_never_verify_land_anywhere_and_are_given_up(mode):
    chip = make(key=Key(1), **{**VERIFY, "write_mode": mode})
    never = (uniform(4, 2, 40, 40) < 0.3).float()
    turn(chip, never_verifies=never)
    w = weights(chip).abs().clamp(min=0.3)
    chip.program(w, key=Key(2))
    off = off_target(chip, w)
    bad = off[0][never[0] > 0]
    assert abs(bad.std() / 0.05 - 1) < 5 / math.sqrt(2 * bad.numel())
    assert off[never == 0].abs().max() <= 0.02 * (1 + 1e-4)
    assert chip.given_up == int(never.sum())
    turn(chip, never_verifies=torch.zeros(2, 40, 40))
    chip.program(w, key=Key(2))
    assert chip.given_up == 0


@pytest.mark.parametrize("mode", ["outcome", "verify", "one-shot"])
def test_a_cell_that_is_stuck_away_from_its_target_is_given_up(mode):
    chip = make(key=Key(1), **{**VERIFY, "write_mode": mode}, stuck_high_fraction=0.2)
    chip.program(torch.ones(40, 40), key=Key(2))
    held = chip.parts.faults.stuck_cells(chip._dials)[0]
    assert chip.given_up == int(held[1].sum())  # the others are where they should be
    w = weights(chip) * 0.5
    chip.program(w, key=Key(2))
    held = chip.parts.faults.stuck_cells(chip._dials)[0]
    assert chip.given_up == int(held.sum()) > 500
    assert torch.allclose(chip.conductances()[held], torch.tensor(20e-6))


def test_a_new_chip_has_given_up_nothing_and_a_snapshot_knows_how_many():
    chip = make(key=Key(1), **VERIFY, stuck_low_fraction=0.2)
    saved = chip.snapshot()
    assert chip.given_up == 0
    chip.program(torch.ones(40, 40), key=Key(2))
    assert chip.given_up > 0
    chip.restore(saved)
    assert chip.given_up == 0


@EVERYDAY
@given(
    seed=seeds, mode=st.sampled_from(["outcome", "verify", "one-shot"]), writes=st.integers(1, 4)
)
def test_a_snapshot_in_any_write_mode_continues_alike(seed, mode, writes):
    options = {**IDEAL, "inputs": 8, "outputs": 4, "write_mode": mode, "programming_error": 0.03}
    chip = make(key=Key(seed), **options)
    chip.program(weights(chip, seed), key=Key(1))
    saved, seen = chip.snapshot(), []
    for _ in range(2):
        chip.restore(saved)
        for write in range(writes):
            cost = chip.program(weights(chip, seed + write), key=Key(write))
        seen.append((chip.conductances(), cost.device_seconds, chip.given_up))
    assert torch.equal(seen[0][0], seen[1][0]) and seen[0][1:] == seen[1][1:]


def test_rewriting_does_not_wind_cells_down_by_their_telegraph_noise():
    options = {**VERIFY, "pulse_error": 0.02, "verify_tolerance": 0.05}
    chip = make(key=Key(1), **options, rtn_active_fraction=1.0, rtn_amplitude=0.002)
    w, steps = weights(chip).abs().clamp(min=0.3), []
    for write in range(6):
        chip.program(w, key=Key(write))
        steps.append(chip.parts.cells.programmed)
        chip.wait(100.0)
    # Cells within the tolerance are left alone, whatever state their trap is in.
    assert torch.equal(steps[0], steps[-1])


# ---- cells whose target stays ----------------------------------------------------------

SPARING = {**SQUARE, "programming_error": 0.02, "write_unchanged": False}


@EVERYDAY
@given(seed=seeds, encoding=st.sampled_from(["pair", "offset"]), share=st.floats(0, 1))
def test_only_cells_with_another_target_are_written_where_that_is_asked_for(seed, encoding, share):
    chip = make(key=Key(seed), **{**SPARING, "encoding": encoding})
    first = weights(chip, seed)
    whole = chip.program(first, key=Key(1))
    before, pulses = chip.conductances(), chip.snapshot().values["pulses_per_cell"]
    change = torch.rand(first.shape, generator=Key(seed).child("change").torch()) < share
    second = torch.where(change, -first, first)
    cost = chip.program(second, key=Key(2))
    targets = chip.parts.encoding.targets
    moved = targets(first) != targets(second)
    assert whole.cells == moved.numel() and cost.cells == int(moved.sum())
    assert torch.equal(chip.conductances()[~moved], before[~moved])
    # A programming error can be cut off at the bottom of the window twice in a row.
    assert int((chip.conductances() != before)[moved].sum()) >= 0.4 * int(moved.sum())
    for name in ("device_seconds", "joules"):
        expected = getattr(whole, name) * cost.cells / whole.cells
        assert getattr(cost, name) == pytest.approx(expected)
    after = chip.snapshot().values["pulses_per_cell"] - pulses
    assert after == pytest.approx(10 * cost.cells / whole.cells)


def test_cells_that_are_left_alone_go_on_relaxing_on_their_own_slopes():
    """One cell is rewritten at 100 s; the others are at 200 s what they would have been."""
    options = {**SPARING, "relaxation_spread": 0.05, "relaxation_mean": 0.05}
    touched, alone = (make(key=Key(1), **options) for _ in range(2))
    w = weights(touched)
    for chip in (touched, alone):
        chip.program(w, key=Key(2))
        chip.wait(100.0)
    other = w.clone()
    other[0, 0] = -w[0, 0]
    touched.program(other, key=Key(3))
    for chip in (touched, alone):
        chip.wait(100.0)
    a, b = touched.conductances().clone(), alone.conductances().clone()
    assert (a[:, 0, 0] - b[:, 0, 0]).abs().max() > 0.01 * WINDOW
    a[:, 0, 0] = b[:, 0, 0] = 0.0
    # Writing took the time of two cells.
    assert torch.allclose(a, b, atol=1e-4 * WINDOW)


@EVERYDAY
@given(seed=seeds, writes=st.integers(1, 4))
def test_a_snapshot_of_a_partly_written_chip_continues_alike(seed, writes):
    chip = make(key=Key(seed), **{**SPARING, "relaxation_spread": 0.01})
    w = weights(chip, seed)
    chip.program(w, key=Key(1))
    chip.wait(10.0)
    w[::2] *= 0.5
    chip.program(w, key=Key(2))
    saved, seen = chip.snapshot(), []
    for _ in range(2):
        chip.restore(saved)
        for write in range(writes):
            chip.wait(5.0)
            chip.program(torch.where(w > 0.1 * write, w, -w), key=Key(write))
        seen.append(chip.conductances())
    assert torch.equal(*seen)


@pytest.mark.parametrize("mode", ["verify", "one-shot"])
def test_modes_that_look_at_cells_refuse_to_be_told_which_to_leave(mode):
    with pytest.raises(ConfigError, match="write_unchanged = false is for"):
        make(key=Key(1), write_mode=mode, write_unchanged=False)


def test_cells_that_are_left_alone_are_refused_where_every_write_wears_all_of_them():
    with pytest.raises(ConfigError, match="write_unchanged: false, but 'cmo-hfox-2'"):
        make(key=Key(1), technology="cmo-hfox-2", write_unchanged=False)
    make(key=Key(1), technology="cmo-hfox-2")
