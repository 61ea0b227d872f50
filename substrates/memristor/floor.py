"""The noise no cell can be without: thermal agitation and the grain of charge.

Spectral densities are one-sided, in A^2/Hz. One formula covers both, so that
neither is counted twice: at rest a conductor has thermal noise only.
"""

from __future__ import annotations

import math

import torch
from scipy import constants
from torch import Tensor

from twin.errors import ConfigError, DialError, DriveError, SettingError

DIFFUSIVE_FANO = 1 / 3
"""Fano factor of a diffusive metallic wire shorter than its inelastic length.
Beenakker & Buttiker, Phys. Rev. B 46, 1889 (1992), doi 10.1103/PhysRevB.46.1889."""
TUNNEL_FANO = 1.0
"""Fano factor of a tunnel contact; the upper bound of independent electrons."""

MAX_VOLTS = 1.0
MIN_KELVIN, MAX_KELVIN = 1.0, 1000.0
MAX_BANDWIDTH_HZ = 1e10
"""Range of `current_psd`: elastic transport without self-heating, and
frequencies far below kT/h (20 GHz at 1 K), where the density is white."""


def density_per_siemens(volts: Tensor, temperature_k: float, fano: float) -> Tensor:
    """s(V) = 4kT (1 - F) + F 2q|V| coth(q|V| / 2kT), in A^2/Hz per siemens.

    volts: across the conductor, any shape, |V| <= 1 V. temperature_k: 1 to
    1000 K. fano: F in [0, 1]. V -> 0 gives 4kT whatever F is; large V gives
    4kT (1 - F) + 2q|V| F.

    Source: Blanter & Buttiker, Phys. Rep. 336, 1 (2000), section 2.4,
    doi 10.1016/S0370-1573(99)00123-4; transmissions independent of energy.
    """
    _check(volts, temperature_k, fano)
    four_kt = 4 * constants.k * temperature_k
    half = volts.abs() * (constants.e / (2 * constants.k * temperature_k))
    # 2qV coth(x) = 4kT x coth(x), and x coth(x) is 1 at x = 0.
    rise = torch.where(half > 0, half / torch.tanh(half), torch.ones_like(half))
    return rise.mul_(four_kt * fano).add_(four_kt * (1 - fano))


def current_psd(g: Tensor, volts: Tensor, temperature_k: float, fano: float) -> Tensor:
    """Density of one cell's current noise, A^2/Hz: G s(V).

    g: siemens, >= 0, and volts broadcast. See density_per_siemens for the range.
    """
    _check_conductance(g)
    return g * density_per_siemens(volts, temperature_k, fano)


def variance(
    g: Tensor, volts: Tensor, temperature_k: float, fano: float, bandwidth_hz: float
) -> Tensor:
    """Variance of one cell's current in this noise bandwidth, A^2."""
    _check_bandwidth(bandwidth_hz)
    return current_psd(g, volts, temperature_k, fano) * bandwidth_hz


def column_variance(
    g: Tensor, volts: Tensor, temperature_k: float, fano: float, bandwidth_hz: float
) -> Tensor:
    """Variance of each column's current, A^2, (batch, outputs): sum_i G_ij s(V_i) B.

    g: (inputs, outputs), siemens; for a differential pair G+ + G-, since noises
    of independent cells add whatever the sign. volts: (batch, inputs). Wires
    and amplifiers add their own.
    """
    _check_bandwidth(bandwidth_hz)
    _check_conductance(g)
    # The bandwidth goes in first: 1e-20 A^2/Hz/S would leave float16 and
    # bfloat16 sums nothing to hold.
    return (density_per_siemens(volts, temperature_k, fano) * bandwidth_hz) @ g


def read_bandwidth_hz(read_time_s: float) -> float:
    """Equivalent noise bandwidth of an average over read_time_s: 1 / (2 t), Hz.

    For an integrating converter: the integral of sinc^2(f t) over f >= 0.
    """
    if not (math.isfinite(read_time_s) and read_time_s > 0):
        raise ConfigError(
            f"noise floor: read time must be a positive number of seconds, got {read_time_s}. "
            "Give the integration time of one read."
        )
    return 1 / (2 * read_time_s)


def _check(volts: Tensor, temperature_k: float, fano: float) -> None:
    if not 0 <= fano <= 1:
        raise ConfigError(
            f"noise floor: Fano factor must be from 0 (wire) to 1 (tunnel contact), got {fano}. "
            f"A diffusive wire has {DIFFUSIVE_FANO:.3f}."
        )
    if not MIN_KELVIN <= temperature_k <= MAX_KELVIN:
        raise DialError(
            f"noise floor: temperature must be from {MIN_KELVIN:g} to {MAX_KELVIN:g} K, "
            f"got {temperature_k} K. Give kelvin, not degrees Celsius."
        )
    bad = ~(volts.abs() <= MAX_VOLTS)
    if bool(bad.any()):
        raise DriveError(
            f"noise floor: |V| must be at most {MAX_VOLTS:g} V, got {volts[bad][0].item()} V. "
            "Lower the read voltage."
        )


def _check_conductance(g: Tensor) -> None:
    bad = ~((g >= 0) & (g < math.inf))
    if bool(bad.any()):
        raise SettingError(
            f"noise floor: conductances must be finite and not negative, got "
            f"{g[bad][0].item()} S. Give each cell's own, for a pair the sum."
        )


def _check_bandwidth(bandwidth_hz: float) -> None:
    if not 0 < bandwidth_hz <= MAX_BANDWIDTH_HZ:
        raise ConfigError(
            f"noise floor: bandwidth must be above 0 and at most {MAX_BANDWIDTH_HZ:g} Hz, got "
            f"{bandwidth_hz} Hz. An integrating read of t seconds has 1 / (2 t)."
        )
