"""The non-idealities of a crossbar that can be turned in mid-run."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from substrates.converter import half_span
from substrates.memristor.config import CrossbarConfig
from substrates.memristor.encoding import Encoding
from substrates.memristor.floor import MAX_VOLTS
from substrates.memristor.technology import Nonlinearity, Technology
from twin.backend import Dial
from twin.errors import ConfigError, DialError

# name: (unit, high, severe, about); low and ideal are 0.
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
    "stuck_low_fraction": ("1", 1.0, 0.1, "cells stuck at the bottom; severe: assumed"),
    "stuck_high_fraction": ("1", 1.0, 0.02, "cells stuck at the top; severe: assumed"),
    "dead_row_fraction": ("1", 1.0, 0.1, "open word lines; severe: assumed"),
    "adc_gain_spread": ("1", 0.5, 0.1, "sigma of a converter's gain error; severe: assumed"),
    "adc_offset_lsb": ("code", 64.0, 4.0, "sigma of a converter's offset; severe: assumed"),
    "adc_inl_lsb": ("code", 64.0, 2.0, "sigma of the peak of a converter's bow; severe: assumed"),
    "adc_noise_lsb": ("code", 64.0, 1.0, "sigma of a conversion; severe: assumed"),
    "thermal_floor": ("1", 10.0, 10.0, "thermal and shot noise in multiples of the law"),
    "rtn_active_fraction": ("1", 1.0, 0.2, "cells with an active trap; severe: assumed"),
    "word_ohm": ("ohm", 1e5, 5.0, "word line per cell; severe: assumed"),
    "bit_ohm": ("ohm", 1e5, 5.0, "bit line per cell; severe: assumed"),
}
SCALES = {
    "programming_scale": "programming spread in multiples of the technology's; next write",
    "relaxation_scale": "relaxation in multiples of the technology's law",
    "read_noise_scale": "read noise in multiples of the technology's law",
    "rtn_scale": "steps of telegraph noise in multiples of the technology's",
}
WIRES = ("word_ohm", "bit_ohm")
WHOLE = ("stuck_column_code", "dead_row", "dead_column", "never_verifies")
HELD = "wire_refresh"


def declared(
    config: CrossbarConfig,
    encoding: Encoding,
    technology: Technology | None,
    curve: Nonlinearity | None,
) -> tuple[Dial, ...]:
    """The dials of a crossbar; their defaults are what it was built with."""
    # Curved cells behind wires would need a solve for every sample.
    left_out = () if curve is None else WIRES
    return (
        *(_scalar(config, *item) for item in SCALARS.items() if item[0] not in left_out),
        *_scales(technology),
        *_points(config, technology),
        *_maps(config, encoding),
    )


def _scalar(config: CrossbarConfig, name: str, facts: tuple[str, float, float, str]) -> Dial:
    unit, high, severe, about = facts
    # Shot noise is known up to a volt; built without a floor, a chip stays without.
    unknown = name == "thermal_floor" and config.fano > 0 and config.read_voltage_v > MAX_VOLTS
    return Dial(
        name=name, unit=unit, low=0.0, high=high, ideal=0.0, default=getattr(config, name),
        severe=severe, about=about, read_only=unknown,
    )  # fmt: skip


def _scales(technology: Technology | None) -> Iterator[Dial]:
    if technology is None:
        return
    for name, about in SCALES.items():
        yield Dial(
            name=name, unit="1", low=0.0, high=10.0, ideal=0.0, default=1.0, severe=3.0,
            about=f"{about} ({technology.name})",
        )  # fmt: skip


def _points(config: CrossbarConfig, technology: Technology | None) -> Iterator[Dial]:
    """Operating points: no value of them is an imperfection as such."""
    law = None if technology is None else technology.relaxation
    normal, low, high = 300.0, 200.0, 450.0
    if law is not None:
        normal = law.temperature_k
        # Without an activation energy no other temperature is known.
        low = law.low_temperature_k or normal
        high = law.high_temperature_k or normal
    kelvin = normal if config.temperature_k is None else config.temperature_k
    if not low <= kelvin <= high:
        raise ConfigError(
            f"memristor.temperature_k: {kelvin:g} K is outside {low:g} to {high:g} K, where the "
            f"relaxation of {config.technology!r} is known; leave it out or stay inside."
        )
    yield Dial(
        name="temperature_k", unit="K", low=low, high=high, ideal=normal, default=kelvin,
        severe=min(358.0, high), read_only=low == high, about="of the array; severe: 85 degrees C",
    )  # fmt: skip
    yield Dial(
        name=HELD, unit="1", low=1.0, high=1e6, ideal=1.0, default=float(config.wire_refresh),
        severe=100.0, about="writes after which wires are solved anew; 1: always exact",
    )  # fmt: skip


def _maps(config: CrossbarConfig, encoding: Encoding) -> Iterator[Dial]:
    half = half_span(config.adc_bits)
    rows, cols, cells = (config.inputs,), (config.outputs,), encoding.shape
    for name, unit, low, high, healthy, severe, shape, about in (
        ("stuck_column_code", "code", -half - 1, half - 1, -half - 1, half - 1, cols,
         f"code of one tile each column is stuck at; {-half - 1} means healthy"),
        ("column_gain", "1", 0.0, 1024.0, 1.0, 0.5, cols, "factor of mis-ranged converters"),
        ("dead_column", "1", 0, 1, 0, 1, cols, "1: open bit lines, whose cells conduct nothing"),
        ("dead_row", "1", 0, 1, 0, 1, rows, "1: open word lines, whose cells conduct nothing"),
        ("stuck_cell_level", "1", -1.0, 1.0, -1.0, 1.0, cells,
         "where in the window each cell is stuck; below 0 means healthy"),
        ("never_verifies", "1", 0, 1, 0, 1, cells, "1: cells no verifying read accepts"),
    ):  # fmt: skip
        yield Dial(
            name=name, unit=unit, low=low, high=high, ideal=healthy, default=healthy,
            severe=severe, shape=shape, about=about,
        )  # fmt: skip


def checked(dial: Dial, value: object, where: str) -> Tensor:
    """`value` as a tensor that `dial` allows; DialError otherwise."""
    if dial.read_only:
        raise DialError(
            f"{where}: dial {dial.name!r} cannot be turned, it stays at {dial.default} "
            f"{dial.unit}. There is no law for other values."
        )
    try:
        shown = torch.as_tensor(value).detach()
        if shown.is_complex():
            raise TypeError
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise DialError(
            f"{where}: dial {dial.name!r} takes a number or an array of shape {dial.shape} in "
            f"{dial.unit}, got {value!r}."
        ) from None
    if tuple(shown.shape) != dial.shape:
        raise DialError(
            f"{where}: dial {dial.name!r} takes a value of shape {dial.shape}, "
            f"got {tuple(shown.shape)}."
        )
    # NaN fails both comparisons.
    bad = ~((shown >= dial.low) & (shown <= dial.high))
    whole = dial.name in WHOLE
    if whole:
        bad |= shown != shown.round()
    if bool(bad.any()):
        raise DialError(
            f"{where}: dial {dial.name!r} must be {'whole, ' if whole else ''}from "
            f"{dial.low} to {dial.high} {dial.unit}, got {shown[bad].flatten()[0].item()}."
        )
    return shown
