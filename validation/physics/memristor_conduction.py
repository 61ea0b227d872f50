"""Laws of a cell's current: its curved I-V, and its transistor in series."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from scipy.optimize import brentq
from torch import Tensor

from substrates.memristor import conduction
from substrates.memristor.technology import Nonlinearity
from validation.physics.law import Check, Effort, Outcome

CURVE = Nonlinearity(cubic_per_v2=0.8, quintic_per_v4=0.3, v_max=0.5, source="planted")
OHM = 20e3
ROUNDING = 1e-12


def curved_current(effort: Effort) -> Iterator[Outcome]:
    """I = G V (1 + c3 V^2 + c5 V^4), odd in V."""
    g, volts = _cells(effort, 1_000)
    law = g * (volts + 0.8 * volts**3 + 0.3 * volts**5)
    yield _relative(
        "I-V, odd polynomial, relative",
        conduction.current(g, volts, CURVE),
        law,
        "G V (1 + c3 V^2 + c5 V^4)",
    )
    mirrored = -conduction.current(g, -volts, CURVE)
    yield _relative("I-V, odd in V, relative", mirrored, law, "I(-V) = -I(V)")


def transistor(effort: Effort) -> Iterator[Outcome]:
    """A linear cell behind R is G / (1 + G R); a curved one solves I = f(V - R I)."""
    g, volts = _cells(effort, effort.n(400, 100))
    behind = conduction.behind_transistor(g, OHM)
    yield _relative(
        "transistor, linear cell, relative", behind, 1 / (1 / g + OHM), "resistors in series"
    )
    found = conduction.series_current(g, volts, CURVE, OHM)
    roots = torch.tensor(
        [_root(a, b) for a, b in zip(g.tolist(), volts.tolist(), strict=True)], dtype=torch.float64
    )
    text = "scipy's brentq"
    yield _relative("transistor, curved cell, relative", found, roots, text, 1e-9)


def _root(g: float, volts: float) -> float:
    def excess(current: float) -> float:
        u = volts - OHM * current
        return current - g * (u + 0.8 * u**3 + 0.3 * u**5)

    top = g * volts * 2
    return float(brentq(excess, min(0.0, top), max(0.0, top), xtol=1e-22, rtol=1e-14))


def _cells(effort: Effort, n: int) -> tuple[Tensor, Tensor]:
    generator = effort.key.torch()
    g = 1e-6 + 39e-6 * torch.rand(n, generator=generator, dtype=torch.float64)
    volts = torch.rand(n, generator=generator, dtype=torch.float64) - 0.5
    return g, volts


def _relative(
    name: str, found: Tensor, law: Tensor, source: str, tolerance: float = ROUNDING
) -> Check:
    return Check(
        name=name,
        measured=float(((found - law) / law).abs().max()),
        expected=0.0,
        tolerance=tolerance,
        source=source,
        n=law.numel(),
    )
