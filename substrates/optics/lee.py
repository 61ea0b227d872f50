"""Lee holograms: phases from mirrors that are only on or off.

A macropixel shows a binary grating; a pinhole keeps its first order. Shifting
the fringes shifts the phase of that order, their width sets its modulus.
Source: Lee, Progress in Optics 16, 119 (1978); for mirror arrays Popoff et al.,
arXiv 2311.17496. Fields in units of the light on the macropixel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from substrates.optics.modulator import even_phases, require_injective

IDEAL_FIRST_ORDER = 1 / math.pi
"""Modulus of the first order of an infinitely fine grating half of which is on."""


def fringes(side: int, period: int, slant: float = 0.0) -> Tensor:
    """Place of each mirror within its fringe, (side * side,), in [0, 1), float64.

    period: mirrors per fringe along a row; slant: mirrors by which the fringes
    shift from row to row.
    """
    row = torch.arange(side, dtype=torch.float64)
    # Rounded, so that mirrors of one fringe phase compare equal.
    return ((row + slant * row[:, None]) / period).remainder(1).flatten().mul(1e9).round() / 1e9


def first_order(
    amplitude: Tensor, phase_rad: Tensor, side: int, period: int, slant: float = 0.0
) -> Tensor:
    """Field of the first order of one macropixel per target, complex128.

    amplitude: wanted modulus in [0, 1] of IDEAL_FIRST_ORDER; phase_rad: wanted
    phase; both of one shape, which is returned. A mirror is on where its place
    u in the fringe has frac(u - phase / 2 pi + w / 2) < w, with the width w =
    arcsin(amplitude) / pi; the first order is then the mean of exp(2 pi i u)
    over the mirrors that are on, relative to IDEAL_FIRST_ORDER. Whole mirrors
    quantise the phase in steps of 2 pi / period (without slant) and the modulus
    to those of whole widths, sin(pi k / period) / sin(pi / period) / period.
    Valid for a pinhole that passes the whole macropixel's spectrum and no other
    order.
    """
    u = fringes(side, period, slant)
    width = (amplitude.clamp(0, 1).to(torch.float64).asin() / math.pi).unsqueeze(-1)
    centre = (phase_rad.to(torch.float64) / (2 * math.pi)).unsqueeze(-1)
    # The small shift puts a rim that falls onto a mirror always to one side of it.
    on = (u - centre + width / 2 + 1e-7).remainder(1) < width
    carrier = torch.polar(torch.ones_like(u), 2 * math.pi * u)
    return (on * carrier).mean(-1) / IDEAL_FIRST_ORDER


def lee_light(side: int, period: int, slant: float = 0.0, levels: int | None = None) -> Tensor:
    """Field of a macropixel at each level of phase on [0, pi], (levels,), complex128.

    Phases count from that of level 0: where the fringes begin is of no account.
    levels: by default one per step by which the fringes can shift. More than
    can be told apart are refused (ConfigError).
    """
    steps = fringes(side, period, slant).unique().numel()
    phases = even_phases(levels or max(2, steps // 2 + 1))
    field = first_order(torch.ones_like(phases), phases, side, period, slant)
    require_injective(field.angle())
    return field * (field[0].conj() / field[0].abs())
