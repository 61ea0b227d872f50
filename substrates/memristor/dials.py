"""The non-idealities of a crossbar that can be turned in mid-run."""

from __future__ import annotations

import torch
from torch import Tensor

from substrates.converter import half_span
from substrates.memristor.presets import CrossbarConfig
from twin.backend import Dial
from twin.errors import DialError

# name: (unit, high, severe, about)
SCALARS = {
    "read_noise": ("1", 1.0, 0.1, "sigma_G / G per cell and shot; severe: PCM at 5 uS"),
    "programming_error": ("1", 1.0, 0.1, "sigma of a write / window; acts on the next write"),
    "relaxation_mean": ("1", 0.1, 0.01, "loss / window per ln(t / 1 s); severe: assumed"),
    "relaxation_spread": (
        "1",
        0.1,
        0.0066,
        "broadening / window per ln(t / 1 s); severe: HfOx of Wan et al. 2022 over a day",
    ),
    "stuck_column_fraction": ("1", 1.0, 0.5, "converter columns at a random code"),
    "dead_column_fraction": ("1", 1.0, 0.5, "converter columns at code 0"),
    "stuck_cell_fraction": ("1", 1.0, 0.022, "cells no write moves; severe: never verified, A111"),
}
COLUMN_MAP = "stuck_column_code"


def declared(config: CrossbarConfig) -> tuple[Dial, ...]:
    """The dials of a crossbar; their defaults are what it was built with."""
    scalars = (
        Dial(
            name=name,
            unit=unit,
            low=0.0,
            high=high,
            ideal=0.0,
            default=getattr(config, name),
            severe=severe,
            about=about,
        )
        for name, (unit, high, severe, about) in SCALARS.items()
    )
    half = half_span(config.adc_bits)
    column_map = Dial(
        name=COLUMN_MAP,
        unit="code",
        low=-half - 1,
        high=half - 1,
        ideal=-half - 1,
        default=-half - 1,
        severe=half - 1,
        shape=(config.outputs,),
        about=f"code of one tile each column is stuck at; {-half - 1} means healthy",
    )
    return (*scalars, column_map)


def checked(dial: Dial, value: object, where: str) -> Tensor:
    """`value` as a tensor that `dial` allows; DialError otherwise."""
    shown = torch.as_tensor(value).detach()
    if tuple(shown.shape) != dial.shape:
        raise DialError(
            f"{where}: dial {dial.name!r} takes a value of shape {dial.shape}, "
            f"got {tuple(shown.shape)}."
        )
    # NaN fails both comparisons.
    bad = ~((shown >= dial.low) & (shown <= dial.high))
    if dial.name == COLUMN_MAP:
        bad |= shown != shown.round()
    if bool(bad.any()):
        raise DialError(
            f"{where}: dial {dial.name!r} must be {'whole, ' if dial.shape else ''}from "
            f"{dial.low} to {dial.high} {dial.unit}, got {shown[bad].flatten()[0].item()}."
        )
    return shown
