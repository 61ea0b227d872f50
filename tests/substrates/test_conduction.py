"""Curved cells and their transistors: odd, rising, and solved to the last bits."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from substrates.memristor.conduction import (
    behind_transistor,
    current,
    effective_volts,
    series_current,
)
from substrates.memristor.traits import Nonlinearity
from twin.errors import ConfigError, DriveError, SettingError
from twin.key import Key

seeds = st.integers(0, 2**31)


def curve(c3: float, c5: float = 0.0, v_max: float = 1.0) -> Nonlinearity:
    return Nonlinearity(cubic_per_v2=c3, quintic_per_v4=c5, v_max=v_max, source="made up")


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# c3 > -1/3 and c5 >= 0 rise up to 1 V.
curves = st.builds(curve, st.floats(-0.3, 20), st.floats(0, 50))
volts_ = st.floats(-1, 1)
siemens = st.floats(1e-9, 1e-2)
ohms = st.floats(0, 1e5)


@settings(max_examples=60)
@given(table=curves, v=volts_, g=siemens)
def test_current_is_the_polynomial_and_odd(table, v, g):
    law = g * v * (1 + table.cubic_per_v2 * v**2 + table.quintic_per_v4 * v**4)
    got = current(double(g), double(v, -v), table)
    assert float(got[0]) == pytest.approx(law, rel=1e-13, abs=0)
    assert got[0] == -got[1]


def test_a_tenth_at_two_tenths_of_a_volt():
    # c3 V^2 + c5 V^4 = 2 x 0.04 + 12.5 x 0.0016 = 0.1.
    assert float(effective_volts(double(0.2), curve(2.0, 12.5))) == pytest.approx(0.22, rel=1e-14)


@settings(max_examples=25)
@given(seed=seeds, table=curves)
def test_the_curve_folds_into_the_drive_of_an_ideal_array(seed, table):
    generator = Key(seed).torch()
    g = torch.rand((7, 4), generator=generator, dtype=torch.float64) * 4e-5
    v = torch.rand((5, 7), generator=generator, dtype=torch.float64)
    cells = current(g, v[:, :, None], table).sum(1)
    assert torch.allclose(effective_volts(v, table) @ g, cells, rtol=1e-12, atol=0)


@settings(max_examples=40)
@given(g=siemens, resistance=ohms, v=volts_)
def test_a_linear_cell_and_its_transistor_are_resistances_in_series(g, resistance, v):
    both = float(behind_transistor(double(g), resistance))
    assert both == pytest.approx(1 / (1 / g + resistance), rel=1e-14)
    solved = float(series_current(double(g), double(v), curve(0.0), resistance))
    assert solved == pytest.approx(both * v, rel=1e-13, abs=0)


@settings(max_examples=150, deadline=None)
@example(table=curve(20.0, 50.0), g=1e-2, resistance=1e5, v=1.0)
@example(table=curve(-0.33), g=1e-2, resistance=1e5, v=1.0)
@example(table=curve(-1.0, 0.6), g=1e-2, resistance=1e3, v=1.0)
@given(table=curves, g=siemens, resistance=ohms, v=st.floats(1e-6, 1))
def test_the_series_solve_is_that_of_a_bracketing_search(table, g, resistance, v):
    def cell(u: float) -> float:
        return g * u * (1 + table.cubic_per_v2 * u**2 + table.quintic_per_v4 * u**4)

    u = brentq(lambda u: u + resistance * cell(u) - v, 0, v, xtol=1e-300, rtol=8.9e-16)
    got = float(series_current(double(g), double(v), table, resistance))
    assert got == pytest.approx(cell(u), rel=2e-14, abs=0)


@settings(max_examples=40)
@given(seed=seeds, table=curves, resistance=ohms)
def test_series_currents_obey_kirchhoff_are_odd_and_never_exceed_either_element(
    seed, table, resistance
):
    generator = Key(seed).torch()
    g = torch.rand((6, 3), generator=generator, dtype=torch.float64) * 1e-4
    v = torch.rand((4, 6, 1), generator=generator, dtype=torch.float64) * 2 - 1
    i = series_current(g, v, table, resistance)
    assert i.shape == (4, 6, 3)
    assert torch.equal(i, -series_current(g, -v, table, resistance))
    # What the transistor leaves over drives the cell with that very current.
    # Clamped: a difference of two voltages may round past v_max.
    left = (v - resistance * i).clamp(-1, 1)
    assert torch.allclose(current(g, left, table), i, rtol=1e-9, atol=1e-18)
    assert (i.abs() <= current(g, v, table).abs() * (1 + 1e-12)).all()
    assert (i.abs() * resistance <= v.abs() * (1 + 1e-12)).all()


@settings(max_examples=25)
@given(table=curves, g=st.floats(1e-6, 1e-4))
def test_more_voltage_or_less_resistance_never_lowers_the_current(table, g):
    volts = torch.linspace(0, 1, 60, dtype=torch.float64)
    rising = series_current(double(g), volts, table, 1e4)
    assert (rising.diff() > 0).all()
    falling = [float(series_current(double(g), double(0.5), table, r)) for r in (0, 1e3, 1e4, 1e5)]
    assert falling == sorted(falling, reverse=True)


def test_an_ideal_switch_and_a_cell_without_conductance_are_exact():
    g, v = double(0.0, 1e-5), double(0.3, 0.3)
    assert series_current(g, v, curve(2.0), 1e4)[0] == 0
    # The last steps of the solve may differ from the plain product by rounding.
    plain, solved = current(g, v, curve(2.0)), series_current(g, v, curve(2.0), 0.0)
    assert torch.allclose(plain, solved, rtol=1e-15, atol=0)
    assert series_current(g, 0 * v, curve(2.0), 1e4).abs().max() == 0


def test_single_precision_in_gives_single_precision_out():
    g, v = torch.tensor([1e-5]), torch.tensor([0.2])
    exact = series_current(g.double(), v.double(), curve(2.0), 1e4)
    assert series_current(g, v, curve(2.0), 1e4).dtype == torch.float32
    assert torch.equal(series_current(g, v, curve(2.0), 1e4), exact.float())


def test_a_voltage_past_the_fitted_curve_is_refused():
    for bad in (0.41, -0.41, math.nan):
        with pytest.raises(DriveError, match=r"at most v_max = 0.4 V.*got"):
            effective_volts(double(0.1, bad), curve(1.0, v_max=0.4))
        with pytest.raises(DriveError, match=r"v_max"):
            series_current(double(1e-5), double(bad), curve(1.0, v_max=0.4), 1e3)


@pytest.mark.parametrize("bad", [-1e-6, math.nan, math.inf])
def test_a_conductance_that_is_none_is_refused(bad):
    for call in (
        lambda g: current(g, double(0.1), curve(1.0)),
        lambda g: behind_transistor(g, 1e3),
        lambda g: series_current(g, double(0.1), curve(1.0), 1e3),
    ):
        with pytest.raises(SettingError, match="finite and not negative"):
            call(double(bad))


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_a_resistance_that_is_none_is_refused(bad):
    with pytest.raises(ConfigError, match="ohm"):
        behind_transistor(double(1e-5), bad)
    with pytest.raises(ConfigError, match="ohm"):
        series_current(double(1e-5), double(0.1), curve(1.0), bad)
