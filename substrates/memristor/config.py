"""What a crossbar is made of: each number with its unit and source.

"assumed" marks a round figure without a source.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

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
Small = Annotated[float, Field(ge=0, le=0.5)]
Codes = Annotated[float, Field(ge=0, le=64)]
Ohm = Annotated[float, Field(ge=0, le=1e5)]


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
    encoding: Literal["pair", "offset", "sliced"] = "pair"
    """Signed weights as differential pairs, as one cell beside a shared reference
    column, or as bit slices on several pairs added up with powers of two."""
    slices: Annotated[int, Field(ge=2, le=8)] = 2
    """Slices of a sliced weight."""
    slice_bits: Annotated[int, Field(ge=1, le=5)] = 2
    """Bits of one slice; a sliced weight has slices x slice_bits bits and a sign."""
    levels: Annotated[int, Field(ge=2, le=4096)] | None = None
    """Discrete levels of the window, ends included; None: continuous."""
    dac_bits: Bits = 8
    """Bits of a row's drive."""
    dac_phases: Count = 1
    """The drive goes in as this many groups of dac_bits / dac_phases bits, each
    converted on its own and added up with powers of two. dac_bits: bit-serial."""
    adc_bits: Annotated[int, Field(ge=2, le=16)] = 8
    """Bits of a column's signed converter."""
    adc_full_scale_a: Positive | None = None
    """Nominal full scale of a tile's column, amperes. None: read voltage x window
    x sqrt(rows of a tile), three sigma for uniformly random drives and weights."""
    adc_gain_spread: Small = 0.0
    """Sigma of the relative gain error of a converter, drawn when made."""
    adc_offset_lsb: Codes = 0.0
    """Sigma of a converter's offset, codes, drawn when made."""
    adc_inl_lsb: Codes = 0.0
    """Sigma of the largest deviation of a converter's bow from a line, codes."""
    adc_noise_lsb: Codes = 0.0
    """Noise of a conversion referred to its input, sigma in codes."""
    technology: str | None = None
    """A cell technology by name or TOML file; its laws replace the six plain
    numbers below (programming, read noise, relaxation), which must then be 0."""
    programming_table: str | None = None
    """Which of the technology's programming tables; None: its first."""
    write_mode: Literal["outcome", "verify", "one-shot"] = "outcome"
    """outcome: the published spread after write-verify. verify: pulse by pulse.
    one-shot: a single pulse, cheap and coarse."""
    write_unchanged: bool = True
    """In mode outcome: cells whose target is what it was are written again. If not, they
    are left alone and cost nothing; the first write is of all cells in any case, and
    a cell relaxes on one random slope for good (assumed), not a new one per write. The
    other modes look at each cell, or pulse it, whatever its target was. Refused with a
    technology that has an endurance law: cells are not counted one by one."""
    verify_tolerance: Annotated[float, Field(gt=0, le=1)] | None = None
    """Accepted distance from the target, fraction of the window. None: what the
    technology states, relative to each target; without a statement 0.02 of the
    window, assumed."""
    verify_max_pulses: Annotated[int, Field(ge=1, le=10_000)] = 50
    """Pulses after which a cell is given up. Assumed."""
    pulse_error: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Sigma of where one pulse lands, fraction of the window, where the
    technology has no table for it. Assumed."""
    temperature_k: Annotated[float, Field(ge=200, le=450)] | None = None
    """Of the array; speeds up relaxation and sets the thermal floor. None: where
    the technology's relaxation was measured, else 300 K."""
    activation_ev: Annotated[float, Field(ge=0, le=3)] = 1.1
    """Activation energy of the plain relaxation, eV. Assumed, as HfOx retention."""
    programming_error: Fraction = 0.02
    """Sigma of a written conductance, fraction of the window. Assumed; published
    write-verify gives 0.3 % (CMO/HfOx) to 6 % (HfOx after 1 s) of the window."""
    read_noise: Fraction = 0.02
    """sigma_G / G per cell and shot. Assumed; CMO/HfOx reads of 1 us give 0.6 %."""
    relaxation_mean: Slope = CMO_MEAN_SIEMENS / CMO_WINDOW_SIEMENS
    """Loss of conductance, fraction of the window per unit of ln(t / 1 s)."""
    relaxation_spread: Slope = CMO_SPREAD_SIEMENS / CMO_WINDOW_SIEMENS
    """Broadening over cells, fraction of the window per unit of ln(t / 1 s)."""
    read_noise_spread: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Log-normal spread of the noise level over cells, of ln; same mean power."""
    thermal_floor: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Thermal and shot noise as multiples of the law; 1 is physics, 0 is off."""
    fano: Fraction = 0.0
    """Fano factor: 0 for a macroscopic, 1/3 for a short diffusive conductor,
    1 for a tunnel junction (Blanter and Buettiker, Phys. Rep. 336, 2000)."""
    rtn_active_fraction: Fraction = 0.0
    """Cells with one active trap, on top of those of the technology. Assumed."""
    rtn_amplitude: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Median relative loss of conductance while a trap is filled. Assumed."""
    series_ohm: Ohm = 0.0
    """Access transistor of a cell in its linear range, ohms; 0: none."""
    cubic_per_v2: Annotated[float, Field(ge=0, le=100)] = 0.0
    """I = G V (1 + c V^2): curvature of the cells, 1/V^2; 0: linear."""
    linear_cells: bool = False
    """Ignore the I-V curve of the technology. Behind wires or transistors a curved
    one is not offered; what is left out is largest at full read voltage."""
    word_ohm: Ohm = 0.0
    """Resistance of a word line between two cells, ohms. aihwkit's tiles use 0.35."""
    bit_ohm: Ohm = 0.0
    """Resistance of a bit line between two cells, ohms."""
    driver_ohm: Ohm = 0.0
    """Output resistance of a row's driver, ohms."""
    sense_ohm: Ohm = 0.0
    """Input resistance of a column's sense amplifier, ohms."""
    both_sides: bool = False
    """Word lines are driven from both ends."""
    sense_both_sides: bool = False
    """Bit lines are sensed at both ends."""
    pair_layout: Literal["neighbours", "separate"] = "neighbours"
    """G+ and G- in neighbouring columns of one array, or in two arrays."""
    wire_refresh: Count = 1
    """Writes after which the wires are solved exactly; in between, approximately. 1:
    always exactly."""
    wire_drift: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Mean change of the cells since the last exact solve, fraction of the window, beyond
    which the wires are solved exactly before it is due."""
    stuck_column_fraction: Fraction = 0.0
    """Columns whose converter always gives one random code."""
    dead_column_fraction: Fraction = 0.0
    """Columns whose converter always gives code 0."""
    stuck_cell_fraction: Fraction = 0.0
    """Cells at a random conductance of the window that no write moves."""
    stuck_low_fraction: Fraction = 0.0
    """Cells at the bottom of the window that no write moves."""
    stuck_high_fraction: Fraction = 0.0
    """Cells at the top of the window that no write moves."""
    dead_row_fraction: Fraction = 0.0
    """Rows with an open word line."""
    read_time_s: Positive = 1e-6
    """One sample through all tiles at once, seconds. CMO/HfOx reads (arXiv 2502.04524)."""
    adc_joules_per_step: Annotated[float, Field(ge=0)] = 50e-15
    """Energy of a conversion per 2**bits (Walden figure of merit), joules. Assumed."""
    adc_area_m2_per_step: Annotated[float, Field(ge=0)] = 20e-12
    """Area of a converter per 2**bits, square metres: 5,000 um^2 at 8 bits. Assumed."""
    feature_m: Positive = 130e-9
    """Feature size F, metres. CMO/HfOx 1T1R of arXiv 2502.04524; NeuRRAM's is 130 nm."""
    cell_area_f2: Positive = 125.7
    """Area of a 1T1R cell in F^2, as in CiMLoop's NeuRRAM macro."""
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
        if not self.write_unchanged and self.write_mode != "outcome":
            raise ValueError(
                f"write_unchanged = false is for write_mode 'outcome', not {self.write_mode!r}, "
                "where the look at each cell decides; leave it out"
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
