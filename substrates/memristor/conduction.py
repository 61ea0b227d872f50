"""What current a cell gives at a voltage: its curved I-V and its transistor.

Conductances in siemens are those at small voltage; volts are across the cell
or, with a transistor, across both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from substrates.memristor.traits import Nonlinearity
from twin.errors import ConfigError, DriveError, SettingError

MOST_STEPS = 200
"""Steps of the series solve before it is given up; bisection alone needs 60."""


def effective_volts(volts: Tensor, table: Nonlinearity) -> Tensor:
    """V (1 + c3 V^2 + c5 V^4): the voltage a linear cell would need.

    volts: any shape, |V| <= table.v_max. One function for all cells of a
    device, so the currents of an array with ideal wires and no transistors are
    a product with the same conductances: the curve folds into the drive.
    """
    _check_volts(volts, table.v_max)
    return _curve(volts, table)


def current(g: Tensor, volts: Tensor, table: Nonlinearity) -> Tensor:
    """I = G V (1 + c3 V^2 + c5 V^4), amperes; g and volts broadcast. Odd in V."""
    _check_conductance(g)
    return g * effective_volts(volts, table)


def behind_transistor(g: Tensor, access_ohms: float) -> Tensor:
    """Conductance of a linear cell in series with its transistor, G / (1 + G R), siemens.

    access_ohms: the transistor's resistance, fully on and in its linear region
    (V_ds far below V_gs - V_th); the same for all cells.
    """
    _check_conductance(g)
    _check_ohms(access_ohms)
    return g / (1 + g * access_ohms)


def series_current(g: Tensor, volts: Tensor, table: Nonlinearity, access_ohms: float) -> Tensor:
    """Current of a curved cell behind its transistor, amperes.

    Solves I = G u (1 + c3 u^2 + c5 u^4) with u = V - R I to the last bits of a
    double; g and volts broadcast, e.g. (batch, inputs, 1) with (inputs, outputs):
    it does not fold into a product, and memory is that of the broadcast shape.
    Returns the type that g and volts promote to.
    """
    _check_conductance(g)
    _check_volts(volts, table.v_max)
    _check_ohms(access_ohms)
    wide_g, wide_v = torch.broadcast_tensors(g.double(), volts.double())
    u = _cell_volts(wide_v.abs(), wide_g * access_ohms, table)
    out = wide_g * _curve(u, table) * wide_v.sign()
    return out.to(torch.promote_types(g.dtype, volts.dtype))


def _cell_volts(volts: Tensor, load: Tensor, table: Nonlinearity) -> Tensor:
    """The u in [0, V] with u + G R f(u) = V; f rises (the table sees to it), so there is one.

    Newton's steps, or the middle of the bracket where one would leave it.
    """
    low, high, u = torch.zeros_like(volts), volts.clone(), volts / (1 + load)
    for _ in range(MOST_STEPS):
        excess = u + load * _curve(u, table) - volts
        high, low = torch.where(excess >= 0, u, high), torch.where(excess <= 0, u, low)
        step = u - excess / (1 + load * _slope(u, table))
        moved = torch.where((step >= low) & (step <= high), step, (low + high) / 2)
        # A few units in the last place may be stepped to and fro for ever.
        if bool(((moved - u).abs() <= 2e-15 * moved).all()):
            return moved
        u = moved
    raise AssertionError("the bracket halves at each step that Newton does not take")


def _curve(u: Tensor, table: Nonlinearity) -> Tensor:
    square = u * u
    return u * (1 + square * (table.cubic_per_v2 + square * table.quintic_per_v4))


def _slope(u: Tensor, table: Nonlinearity) -> Tensor:
    square = u * u
    return 1 + square * (3 * table.cubic_per_v2 + square * 5 * table.quintic_per_v4)


def _check_volts(volts: Tensor, v_max: float) -> None:
    bad = ~(volts.abs() <= v_max)
    if bool(bad.any()):
        raise DriveError(
            f"conduction: |V| must be at most v_max = {v_max} V, where the curve was fitted, "
            f"got {volts[bad][0].item()} V. Lower the read voltage."
        )


def _check_conductance(g: Tensor) -> None:
    bad = ~((g >= 0) & (g < math.inf))
    if bool(bad.any()):
        raise SettingError(
            f"conduction: conductances must be finite and not negative, got {g[bad][0].item()} S."
            " Give each cell's own, not the difference of a pair."
        )


def _check_ohms(access_ohms: float) -> None:
    if not 0 <= access_ohms < math.inf:
        raise ConfigError(
            f"conduction: the transistor's resistance must be finite and not negative, got "
            f"{access_ohms} ohm. Use 0 for an ideal switch."
        )
