"""Wires against Kirchhoff: two oracles, closed forms, and what any resistor network obeys."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from substrates.memristor.attenuation import Held, approximate_matrix, misfit
from substrates.memristor.nodal import nodal_oracle
from substrates.memristor.wires import (
    Wires,
    effective_matrix,
    effective_pairs,
    input_matrix,
    interleaved,
    parted,
)
from twin.config import build
from twin.errors import ConfigError, DriveError, SettingError
from twin.key import Key
from validation.oracles import badcrossbar

needs_badcrossbar = pytest.mark.skipif(bool(badcrossbar.missing()), reason=badcrossbar.missing())
EVERYDAY = settings(max_examples=60, deadline=None)
ONE_OHM = Wires(word_ohm=1.0, bit_ohm=1.0)

seeds = st.integers(0, 2**31)
sizes = st.integers(1, 9)
# The oracle loses digits with the ratio of resistances, ours does not (see below).
ohms = st.one_of(st.just(0.0), st.floats(0.1, 1e3))
wires = st.builds(
    Wires,
    word_ohm=ohms,
    bit_ohm=ohms,
    driver_ohm=ohms,
    sense_ohm=ohms,
    word_both_sides=st.booleans(),
    bit_both_sides=st.booleans(),
)


def cells(seed: int, *shape: int, off: float = 0.0) -> Tensor:
    """Conductances uniform in 1 to 40 uS, a fraction `off` of them zero."""
    generator = Key(seed).torch()
    g = 1e-6 + 39e-6 * torch.rand(shape, generator=generator, dtype=torch.float64)
    return g * (torch.rand(shape, generator=generator) >= off)


def oracle(g: Tensor, lines: Wires) -> tuple[Tensor, Tensor]:
    """Effective and input matrices, one driven word line after the other."""
    nodes = nodal_oracle(g, torch.eye(len(g)), lines)
    return nodes.currents, nodes.input_currents


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference relative to the largest entry."""
    size = theirs.abs().max()
    return float((ours - theirs).abs().max() / size) if size > 0 else float(ours.abs().max())


def turned(g: Tensor) -> Tensor:
    """The array on its side, with its driven and its sensed ends exchanged."""
    return g.mT.flip(-2, -1)


# ---- exactness -----------------------------------------------------------


@EVERYDAY
@given(m=sizes, n=sizes, lines=wires, seed=seeds, off=st.sampled_from([0.0, 0.3, 1.0]))
@example(m=5, n=2, lines=Wires(word_ohm=0, bit_ohm=2), seed=0, off=0.0)
@example(m=3, n=4, lines=Wires(driver_ohm=5, word_both_sides=True), seed=0, off=0.3)
def test_the_effective_and_the_input_matrix_solve_kirchhoffs_law(
    m: int, n: int, lines: Wires, seed: int, off: float
) -> None:
    g = cells(seed, m, n, off=off)
    currents, inputs = oracle(g, lines)
    assert apart(effective_matrix(g, lines), currents) < 1e-9
    assert apart(input_matrix(g, lines), inputs) < 1e-9


@pytest.mark.parametrize("word_ohm", [0.0, 1.0])
@pytest.mark.parametrize("bit_ohm", [0.0, 2.0])
@pytest.mark.parametrize("end_ohm", [0.0, 50.0])
@pytest.mark.parametrize("both", [(False, False), (True, False), (False, True), (True, True)])
def test_every_topology_and_every_zero_agrees_with_the_oracle(
    word_ohm: float, bit_ohm: float, end_ohm: float, both: tuple[bool, bool]
) -> None:
    lines = Wires(
        word_ohm=word_ohm,
        bit_ohm=bit_ohm,
        driver_ohm=end_ohm,
        sense_ohm=2 * end_ohm,
        word_both_sides=both[0],
        bit_both_sides=both[1],
    )
    for m, n in ((20, 12), (12, 20)):
        g = cells(m, m, n, off=0.1)
        currents, inputs = oracle(g, lines)
        assert apart(effective_matrix(g, lines), currents) < 1e-11
        assert apart(input_matrix(g, lines), inputs) < 1e-11


@needs_badcrossbar
@pytest.mark.parametrize("size", [8, 32, 64])
def test_currents_are_those_of_badcrossbar(size: int) -> None:
    g = cells(size, size, size)
    volts = 0.2 * torch.rand(3, size, generator=Key(size).torch(), dtype=torch.float64)
    lines = Wires(word_ohm=1.0, bit_ohm=0.5)
    theirs, seconds = badcrossbar.currents(volts.numpy(), g.numpy(), 1.0, 0.5)
    torch.testing.assert_close(
        volts @ effective_matrix(g, lines), torch.from_numpy(theirs), rtol=1e-9, atol=0
    )
    assert seconds > 0


def test_pairs_on_neighbouring_bit_lines_are_solved_in_one_array() -> None:
    pairs, lines = cells(3, 2, 7, 5), replace(ONE_OHM, bit_ohm=20.0)
    array = torch.stack([pairs[k % 2, :, k // 2] for k in range(10)], dim=1)
    currents, _ = oracle(array, lines)
    found = effective_pairs(pairs, lines)
    assert apart(found[0], currents[:, 0::2]) < 1e-11
    assert apart(found[1], currents[:, 1::2]) < 1e-11


def test_pairs_in_separate_arrays_do_not_see_each_other() -> None:
    pairs, lines = cells(4, 2, 7, 5), replace(ONE_OHM, pairs="separate")
    found = effective_pairs(pairs, lines)
    for sign in (0, 1):
        assert apart(found[sign], oracle(pairs[sign], lines)[0]) < 1e-11


def test_interleaving_is_undone_by_parting() -> None:
    pairs = cells(5, 3, 2, 4, 6)
    assert torch.equal(parted(interleaved(pairs)), pairs)


@pytest.mark.parametrize("shape", [(4, 7), (7, 4)])
def test_arrays_solved_together_are_those_solved_alone(shape: tuple[int, int]) -> None:
    g, lines = cells(6, 3, 2, *shape), replace(ONE_OHM, word_both_sides=True)
    together = effective_matrix(g, lines)
    inputs = input_matrix(g, lines)
    for a in range(3):
        for b in range(2):
            assert apart(together[a, b], effective_matrix(g[a, b], lines)) < 1e-13
            assert apart(inputs[a, b], input_matrix(g[a, b], lines)) < 1e-13


def in_fractions(g: Tensor, lines: Wires) -> Tensor:
    """Effective matrix by rational arithmetic; single-sided, no resistance zero."""
    (m, n), half = g.shape, g.numel()
    rows = [[Fraction(0)] * (2 * half + m) for _ in range(2 * half)]

    def join(a: int, b: int, siemens: Fraction) -> None:
        for one, other in ((a, b), (b, a)):
            rows[one][one] += siemens
            rows[one][other] -= siemens

    sense = 1 / (Fraction(lines.bit_ohm) + Fraction(lines.sense_ohm))
    driver = 1 / (Fraction(lines.word_ohm) + Fraction(lines.driver_ohm))
    for cell in range(half):
        join(cell, cell + half, Fraction(float(g.flatten()[cell])))
        if cell % n:
            join(cell, cell - 1, 1 / Fraction(lines.word_ohm))
        else:
            rows[cell][cell] += driver
            rows[cell][2 * half + cell // n] = driver
        if cell >= n:
            join(cell + half, cell + half - n, 1 / Fraction(lines.bit_ohm))
        if cell >= half - n:
            rows[cell + half][cell + half] += sense
    for k in range(2 * half):
        rows[k] = [value / rows[k][k] for value in rows[k]]
        for other in range(2 * half):
            if other != k and rows[other][k]:
                factor = rows[other][k]
                rows[other] = [a - factor * b for a, b in zip(rows[other], rows[k], strict=True)]
    volts = [[float(sense * v) for v in row[2 * half :]] for row in rows[2 * half - n :]]
    return torch.tensor(volts, dtype=torch.float64).mT


@pytest.mark.parametrize("small", ["word_ohm", "bit_ohm", "driver_ohm", "sense_ohm"])
def test_no_ratio_of_resistances_costs_precision(small: str) -> None:
    """One resistance of 1e-9 among 1e4 ohm, where the sparse oracle is off by 1e-3."""
    g = cells(7, 3, 2)
    lines = replace(
        Wires(word_ohm=1e4, bit_ohm=1e4, driver_ohm=1e4, sense_ohm=1e4), **{small: 1e-9}
    )
    assert apart(effective_matrix(g, lines), in_fractions(g, lines)) < 1e-14


def test_a_line_that_loses_everything_stays_exact() -> None:
    """The volts along it fall by exp(-400), beyond what the fast form may handle."""
    g = cells(16, 150, 2) * 1e3
    lines = Wires(word_ohm=1.0, bit_ohm=1e3)
    assert apart(effective_matrix(g, lines), oracle(g, lines)[0]) < 1e-9
    assert apart(input_matrix(g, lines), oracle(g, lines)[1]) < 1e-9


# ---- closed forms --------------------------------------------------------


def test_a_single_cell_is_in_series_with_its_wires() -> None:
    g = torch.tensor([[2e-5]], dtype=torch.float64)
    lines = Wires(word_ohm=3, bit_ohm=5, driver_ohm=7, sense_ohm=11)
    expected = torch.tensor([[1 / (1 / 2e-5 + 26)]], dtype=torch.float64)
    assert apart(effective_matrix(g, lines), expected) < 1e-14
    both = replace(lines, word_both_sides=True, bit_both_sides=True)
    assert apart(effective_matrix(g, both), 1 / (1 / g + 13)) < 1e-14


def test_only_sense_resistance_divides_each_column_by_itself() -> None:
    g = cells(8, 6, 4)
    lines = Wires(word_ohm=0, bit_ohm=0, sense_ohm=1e3)
    assert apart(effective_matrix(g, lines), g / (1 + 1e3 * g.sum(0))) < 1e-14


def test_perfect_wires_leave_the_conductances() -> None:
    g = cells(9, 6, 4, off=0.2)
    none = Wires(word_ohm=0, bit_ohm=0)
    assert torch.equal(effective_matrix(g, none), g)
    assert torch.equal(input_matrix(g, none), torch.diag(g.sum(1)))
    assert apart(effective_matrix(g, Wires(word_ohm=1e-9, bit_ohm=1e-9)), g) < 1e-11


@pytest.mark.parametrize(("size", "loss"), [(32, 0.015), (64, 0.054), (128, 0.182)])
def test_the_mean_loss_of_a_random_array_is_the_published_one(size: int, loss: float) -> None:
    """One ohm per segment: 1.5, 5.4 and 18.2 %, rounded to 0.1 %.

    Mean over 4 arrays of 256 drives; it scatters over arrays by 0.03, 0.05 and
    0.08 % of the current, so five standard errors are 0.2 % at most.
    """
    g = cells(size, 4, size, size)
    volts = 0.2 * torch.rand(256, size, generator=Key(1).torch(), dtype=torch.float64)
    lost = 1 - (volts @ effective_matrix(g, ONE_OHM)) / (volts @ g)
    scatter = {32: 3e-4, 64: 5e-4, 128: 8e-4}[size]
    assert abs(float(lost.mean()) - loss) < 5e-4 + 5 * scatter / 4**0.5


# ---- what every resistor network obeys -----------------------------------


@EVERYDAY
@given(m=sizes, n=sizes, lines=wires, seed=seeds)
def test_drivers_and_sense_amplifiers_can_be_exchanged(
    m: int, n: int, lines: Wires, seed: int
) -> None:
    g = cells(seed, m, n, off=0.2)
    back, _ = oracle(turned(g), lines.turned())
    assert apart(effective_matrix(g, lines), turned(back)) < 1e-9


@EVERYDAY
@given(m=sizes, n=sizes, lines=wires, seed=seeds)
def test_what_goes_in_comes_out_and_power_is_never_negative(
    m: int, n: int, lines: Wires, seed: int
) -> None:
    g = cells(seed, m, n, off=0.2)
    currents, inputs = effective_matrix(g, lines), input_matrix(g, lines)
    scale = float(g.sum(1).max()) + 1e-12
    assert apart(inputs, inputs.mT) < 1e-9
    # Input column k: all currents at volts on k; at equal volts, by symmetry, row sums.
    assert float((inputs.sum(0) - currents.sum(1)).abs().max()) < 1e-9 * scale
    assert float(torch.linalg.eigvalsh(inputs).min()) > -1e-9 * scale
    assert float((inputs - inputs.diag().diag()).max()) < 1e-9 * scale
    assert float(currents.min()) > -1e-12 * scale


@EVERYDAY
@given(
    m=sizes,
    n=sizes,
    lines=wires,
    seed=seeds,
    field=st.sampled_from(["word_ohm", "bit_ohm", "driver_ohm", "sense_ohm"]),
    more=st.floats(1e-2, 1e4),
)
def test_more_resistance_never_takes_more_power(
    m: int, n: int, lines: Wires, seed: int, field: str, more: float
) -> None:
    """Rayleigh's monotonicity, for every drive at once: the difference is positive."""
    g = cells(seed, m, n)
    worse = replace(lines, **{field: getattr(lines, field) + more})
    gained = input_matrix(g, lines) - input_matrix(g, worse)
    assert float(torch.linalg.eigvalsh(gained).min()) > -1e-9 * float(g.sum(1).max())
    assert effective_matrix(g, worse).sum() <= effective_matrix(g, lines).sum() * (1 + 1e-9)


@EVERYDAY
@given(m=sizes, n=sizes, lines=wires, seed=seeds)
def test_a_second_side_never_takes_less_power(m: int, n: int, lines: Wires, seed: int) -> None:
    g = cells(seed, m, n)
    one = replace(lines, word_both_sides=False, bit_both_sides=False)
    two = replace(lines, word_both_sides=True, bit_both_sides=True)
    gained = input_matrix(g, two) - input_matrix(g, one)
    assert float(torch.linalg.eigvalsh(gained).min()) > -1e-9 * float(g.sum(1).max())


@EVERYDAY
@given(m=sizes, n=sizes, lines=wires, seed=seeds, volts=st.floats(0.01, 1.0))
def test_the_power_lies_between_its_two_cheap_bounds(
    m: int, n: int, lines: Wires, seed: int, volts: float
) -> None:
    g = cells(seed, m, n)
    drive = volts * torch.rand(4, m, generator=Key(seed).torch(), dtype=torch.float64)
    power = ((drive @ input_matrix(g, lines)) * drive).sum(1)
    squares = drive.square()
    assert (power >= squares @ effective_matrix(g, lines).sum(1) * (1 - 1e-9)).all()
    assert (power <= squares @ g.sum(1) * (1 + 1e-9)).all()


@EVERYDAY
@given(m=sizes, n=sizes, lines=wires, seed=seeds, rows=st.integers(1, 4), cols=st.integers(1, 4))
def test_unused_lines_beyond_the_last_used_ones_change_nothing(
    m: int, n: int, lines: Wires, seed: int, rows: int, cols: int
) -> None:
    """Word lines are counted towards the sense amplifiers: the far ones come first."""
    lines = replace(lines, word_both_sides=False, bit_both_sides=False)
    g = cells(seed, m, n)
    wider = torch.nn.functional.pad(g, (0, cols, rows, 0))
    found = effective_matrix(wider, lines)
    assert apart(found[rows:, :n], effective_matrix(g, lines)) < 1e-11
    assert float(found[:rows].abs().sum() + found[:, n:].abs().sum()) == 0


def test_a_cell_far_from_driver_and_sense_amplifier_gets_the_least_voltage() -> None:
    g = torch.full((6, 8), 2e-5)
    drop = nodal_oracle(g, torch.full((1, 6), 0.2), ONE_OHM).cell_volts[0]
    assert (drop < 0.2).all()
    assert (drop.diff(dim=1) < 0).all()
    assert (drop.diff(dim=0) > 0).all()


def test_neither_input_nor_precision_is_lost() -> None:
    g = cells(10, 5, 6).float()
    before = g.clone()
    assert effective_matrix(g, ONE_OHM).dtype == torch.float64
    input_matrix(g, ONE_OHM)
    approximate_matrix(g, ONE_OHM)
    assert torch.equal(g, before)


# ---- the approximation ---------------------------------------------------


@EVERYDAY
@given(m=sizes, n=sizes, lines=wires, seed=seeds, ideal=st.sampled_from(["word", "bit"]))
def test_ladders_are_exact_where_lines_do_not_mix(
    m: int, n: int, lines: Wires, seed: int, ideal: str
) -> None:
    end = "driver_ohm" if ideal == "word" else "sense_ohm"
    lines = replace(lines, **{f"{ideal}_ohm": 0.0, end: 0.0})
    g = cells(seed, m, n, off=0.2)
    assert apart(approximate_matrix(g, lines), oracle(g, lines)[0]) < 1e-9


@pytest.mark.parametrize("word_both", [False, True])
@pytest.mark.parametrize("bit_both", [False, True])
def test_what_the_ladders_miss_is_of_second_order(word_both: bool, bit_both: bool) -> None:
    g = cells(11, 16, 16)
    both = {"word_both_sides": word_both, "bit_both_sides": bit_both}
    missed = []
    for ohm in (0.1, 1.0):
        lines = Wires(word_ohm=ohm, bit_ohm=ohm, driver_ohm=ohm, sense_ohm=ohm, **both)
        missed.append(misfit(approximate_matrix(g, lines), g, lines).relative)
    assert missed[0] < 0.011 * missed[1]


def test_what_is_held_from_an_exact_solve_survives_new_weights() -> None:
    g, other = cells(12, 64, 64), cells(13, 64, 64)
    held = Held.of(g, ONE_OHM)
    near = (g + 0.01 * (other - g)).clamp(1e-6, 40e-6)
    assert misfit(held.matrix(g), g, ONE_OHM).relative < 1e-14
    assert misfit(held.matrix(near), near, ONE_OHM).relative < 1e-5
    anew = misfit(held.matrix(other), other, ONE_OHM)
    assert anew.relative < 3e-4
    assert anew.relative < misfit(approximate_matrix(other, ONE_OHM), other, ONE_OHM).relative / 3


def test_the_misfit_without_any_correction_is_the_whole_loss() -> None:
    g = cells(14, 16, 16)
    assert misfit(g, g, ONE_OHM).of_loss == pytest.approx(1)
    assert misfit(effective_matrix(g, ONE_OHM), g, ONE_OHM).relative == 0


# ---- bad input -----------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e-6])
def test_conductances_that_no_cell_has_are_refused(value: float) -> None:
    g = cells(15, 3, 4)
    g[1, 2] = value
    for solve in (effective_matrix, input_matrix, approximate_matrix):
        with pytest.raises(SettingError, match=r"finite and >= 0 S, got"):
            solve(g, ONE_OHM)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(SettingError, match=r"word lines, bit lines.*\(5,\)"):
        effective_matrix(torch.ones(5), ONE_OHM)
    with pytest.raises(SettingError, match=r"G\+ then G-.*\(3, 4, 5\)"):
        effective_pairs(torch.ones(3, 4, 5), ONE_OHM)
    with pytest.raises(DriveError, match=r"\(3, 4\) and \(2, 4\)"):
        nodal_oracle(torch.ones(3, 4), torch.ones(2, 4), ONE_OHM)


def test_a_negative_resistance_or_an_unknown_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"array\.word_ohm.*-1"):
        build(Wires, {"word_ohm": -1}, "array")
    with pytest.raises(ConfigError, match=r"array\.wordohm.*word_ohm"):
        build(Wires, {"wordohm": 1}, "array")
