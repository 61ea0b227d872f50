"""What a crossbar is made of: its configuration, with unit and source of each
number. "assumed" marks a round figure without a source.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from twin.config import STRICT

CMO_WINDOW_SIEMENS = 82e-6
CMO_MEAN_SIEMENS = 0.089e-6
CMO_SPREAD_SIEMENS = 0.0420e-6
"""CMO/HfOx 1T1R: window 8 to 90 uS, loss and broadening per unit of ln(t / 1 s).
Falcone et al. 2025, arXiv 2502.04524, fitted at 50 uS."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Bits = Annotated[int, Field(ge=1, le=16)]
Slope = Annotated[float, Field(ge=0, le=0.1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CrossbarConfig:
    """A 1T1R crossbar of signed pairs, read in parallel by one ADC per column."""

    inputs: Count = 64
    """Rows of the matrix."""
    outputs: Count = 32
    """Columns of the matrix; each is a differential pair."""
    array_rows: Count = 128
    """Rows of one physical array; a taller matrix is tiled. Assumed."""
    array_cols: Count = 128
    """Columns of pairs of one physical array. As a 2T2R chip with 128 pairs per row."""
    g_min_siemens: Annotated[float, Field(ge=0)] = 2e-6
    """Lower end of the window, siemens. Assumed for Yao et al., Nature 577 (2020)."""
    g_max_siemens: Positive = 20e-6
    """Upper end of the window, siemens. Assumed for Yao et al., Nature 577 (2020)."""
    read_voltage_v: Positive = 0.2
    """Row voltage of a drive of 1.0, volts. Assumed for Yao et al., Nature 577 (2020)."""
    dac_bits: Bits = 8
    """Bits of a row's drive."""
    adc_bits: Annotated[int, Field(ge=2, le=16)] = 8
    """Bits of a column's signed converter."""
    adc_full_scale_a: Positive | None = None
    """Nominal full scale of a tile's column, amperes. None: read voltage x window
    x sqrt(rows of a tile), three sigma for uniformly random drives and weights."""
    programming_error: Fraction = 0.02
    """Sigma of a written conductance, fraction of the window. Assumed; published
    write-verify gives 0.3 % (CMO/HfOx) to 6 % (HfOx after 1 s) of the window."""
    read_noise: Fraction = 0.02
    """sigma_G / G per cell and shot. Assumed; CMO/HfOx reads of 1 us give 0.6 %."""
    relaxation_mean: Slope = CMO_MEAN_SIEMENS / CMO_WINDOW_SIEMENS
    """Loss of conductance, fraction of the window per unit of ln(t / 1 s)."""
    relaxation_spread: Slope = CMO_SPREAD_SIEMENS / CMO_WINDOW_SIEMENS
    """Broadening over cells, fraction of the window per unit of ln(t / 1 s)."""
    stuck_column_fraction: Fraction = 0.0
    """Columns whose converter always gives one random code."""
    dead_column_fraction: Fraction = 0.0
    """Columns whose converter always gives code 0."""
    stuck_cell_fraction: Fraction = 0.0
    """Cells at a random conductance of the window that no write moves."""
    read_time_s: Positive = 1e-6
    """One sample through all tiles at once, seconds. CMO/HfOx reads (arXiv 2502.04524)."""
    adc_joules_per_step: Annotated[float, Field(ge=0)] = 50e-15
    """Energy of a conversion per 2**bits (Walden figure of merit), joules. Assumed."""
    write_pulses: Count = 10
    """Write-verify pulses per cell, mean. Assumed."""
    write_pulse_s: Positive = 1e-6
    """One pulse with its verifying read, seconds; cells one after the other. Assumed."""
    write_pulse_joules: Annotated[float, Field(ge=0)] = 1e-12
    """Energy of one pulse, joules. Assumed."""
    compute_device: str = "cpu"
    """Torch device on which the numbers are computed."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.g_min_siemens >= self.g_max_siemens:
            raise ValueError(
                f"g_min_siemens ({self.g_min_siemens:g} S) must be below g_max_siemens "
                f"({self.g_max_siemens:g} S); widen the window"
            )
        try:
            device = torch.device(self.compute_device)
        except RuntimeError:
            raise ValueError(f"compute_device {self.compute_device!r} is no torch device") from None
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError("compute_device is 'cuda' but torch sees none; use 'cpu'")
        return self

    @property
    def window_siemens(self) -> float:
        return self.g_max_siemens - self.g_min_siemens


IDEAL: Mapping[str, object] = MappingProxyType(
    {
        "programming_error": 0.0,
        "read_noise": 0.0,
        "relaxation_mean": 0.0,
        "relaxation_spread": 0.0,
        "dac_bits": 16,
        "adc_bits": 16,
    }
)
"""Options of a crossbar without imperfections but 16-bit converters."""
