"""Laws of the noise of single cells: thermal and shot floor, telegraph noise."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy import constants

from substrates.memristor import floor
from substrates.memristor.rtn import Traps
from substrates.memristor.technology import Rtn
from validation.physics import estimates
from validation.physics.law import Check, Effort, Outcome, sampled

SIEMENS, VOLTS, KELVIN = 23.4e-6, 0.2, 300.0
ROUNDING = 1e-12
"""Relative tolerance of a formula evaluated twice in doubles."""
CAPTURE_S, EMISSION_S = 3e-3, 1e-3
LAGS_S = (1e-4, 7.5e-4, 3e-3)
START_S = 0.4321
"""Any time well after the device was made."""


def noise_floor(effort: Effort) -> Iterator[Outcome]:  # noqa: ARG001
    """Thermal at rest whatever the Fano factor, shot noise at high voltage, one law between."""
    thermal = 4 * constants.k * KELVIN * SIEMENS
    for fano in (0.0, 1.0):
        yield _density(f"thermal limit, F = {fano:g}, 0 V", 0.0, KELVIN, fano, thermal, "4kTG")
    shot = 2 * constants.e * SIEMENS * VOLTS
    cold = 4.0  # kelvin: qV / kT = 580, and 4kTG (1 - F) is nothing for F = 1
    yield _density("shot limit, F = 1, qV >> kT", VOLTS, cold, 1.0, shot, "2qI")
    between = 1 / 3
    x = constants.e * VOLTS / (2 * constants.k * KELVIN)
    law = thermal * (1 - between) + between * shot / math.tanh(x)
    text = "Blanter and Buettiker 2000"
    yield _density("floor, F = 1/3, 0.2 V", VOLTS, KELVIN, between, law, text)
    for name, fano, nano in (("thermal", 0.0, 0.62), ("shot", 1.0, 1.22)):
        g, v = torch.tensor([SIEMENS]).double(), torch.tensor([VOLTS]).double()
        found = math.sqrt(floor.variance(g, v, KELVIN, fano, 1e6).item())
        # coth(3.87) - 1 = 9e-4 is the thermal part that remains beside shot noise.
        yield Check(
            name=f"{name} noise in 1 MHz",
            measured=found * 1e9,
            expected=nano,
            tolerance=0.006,
            source="by hand, two digits",
            unit="nA",
        )


def _density(
    name: str, volts: float, kelvin: float, fano: float, expected: float, source: str
) -> Check:
    g, v = (torch.tensor([value], dtype=torch.float64) for value in (SIEMENS, volts))
    found = floor.current_psd(g, v, kelvin, fano).item()
    scale = 1e24
    return Check(
        name=name,
        measured=found * scale,
        expected=expected * scale,
        tolerance=ROUNDING * expected * scale,
        source=source,
        unit="pA^2/Hz",
    )


def telegraph(effort: Effort) -> Iterator[Outcome]:
    """Occupancy and autocorrelation of independent traps of one kind, over traps."""
    n = effort.n(40_000, 10_000)
    traps = Traps(
        effort.key,
        np.arange(n),
        np.full(n, 0.1),
        np.full(n, CAPTURE_S),
        np.full(n, EMISSION_S),
    )
    times = torch.tensor([START_S, *(START_S + lag for lag in LAGS_S)], dtype=torch.float64)
    states = traps.history(times).double()
    occupancy = EMISSION_S / (CAPTURE_S + EMISSION_S)
    tau = 1 / (1 / CAPTURE_S + 1 / EMISSION_S)
    law = "two-state Markov"
    found = estimates.fraction(int(states[0].sum()), n, occupancy)
    yield sampled("RTN occupancy", found, occupancy, law)
    for lag, later in zip(LAGS_S, states[1:], strict=True):
        found = estimates.correlation(states[0], later)
        expected = math.exp(-lag / tau)
        name = f"RTN autocorrelation, lag {1e3 * lag:g} ms"
        yield sampled(name, found, expected, law)


def telegraph_levels(effort: Effort) -> Iterator[Outcome]:
    """How many cells have a trap, and how much it takes from a 23.4 uS cell."""
    n = effort.n(200_000, 50_000)
    table = Rtn(
        active_fraction=0.3,
        amplitude=0.02,
        amplitude_spread_ln=0.5,
        fastest_s=1e-5,
        slowest_s=1e-1,
        source="planted",
    )
    traps = Traps.drawn(effort.key, (n,), table)
    active = estimates.fraction(len(traps), n, table.active_fraction)
    yield sampled("RTN active cells", active, table.active_fraction, "as planted")
    logs = traps.amplitudes.double().log()
    yield sampled(
        "RTN amplitude, mean ln dG/G",
        estimates.mean(logs),
        math.log(table.amplitude),
        "as planted",
    )
    found = estimates.standard_deviation(logs)
    name = "RTN amplitude, spread of ln dG/G"
    yield sampled(name, found, table.amplitude_spread_ln, "as planted")
    g = torch.full((n,), SIEMENS, dtype=torch.float64)
    lost = (g - traps.apply(g, START_S)) / SIEMENS
    expected = torch.zeros(n, dtype=torch.float64)
    held = traps.occupied(START_S)
    expected[traps.cells[held]] = traps.amplitudes[held].double()
    yield Check(
        name="RTN loss of an occupied cell, largest error",
        measured=float((lost - expected).abs().max()),
        expected=0.0,
        tolerance=1e-12,
        source="G (1 - amplitude) where occupied",
        n=n,
    )
