"""Laws of a crossbar's converters."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from substrates.converter import half_span, on_grid, signed_codes_
from substrates.memristor.calibration import calibrate_columns
from substrates.memristor.crossbar import make
from validation.physics import estimates
from validation.physics.law import Check, Effort, Outcome, sampled

BITS = 8


def adc_error(effort: Effort) -> Iterator[Outcome]:
    """The error of a converter inside its range is uniform over one code."""
    n = effort.n(400_000, 100_000)
    half = half_span(BITS)
    signal = (torch.rand(n, generator=effort.key.torch()) * 2 - 1) * (half - 2)
    codes = signal.clone()
    signed_codes_(codes, BITS)
    error = codes - signal
    uniform = "uniform quantisation error"
    yield sampled("ADC error variance", estimates.variance(error, 0.0), 1 / 12, uniform, "LSB^2")
    yield sampled("ADC error mean", estimates.mean(error), 0.0, uniform, "LSB")
    yield Check(
        name="ADC largest error",
        measured=float(error.abs().max()),
        expected=0.5,
        tolerance=1e-3,
        source="rounding to the nearest code",
        unit="LSB",
        n=n,
    )


def dac_error(effort: Effort) -> Iterator[Outcome]:
    """A DAC rounds [0, 1] to 2^bits levels, ends included."""
    n = effort.n(400_000, 100_000)
    drive = torch.rand(n, generator=effort.key.torch(), dtype=torch.float64)
    steps = (on_grid(drive, BITS) - drive) * (2**BITS - 1)
    found = estimates.variance(steps, 0.0)
    yield sampled("DAC error variance", found, 1 / 12, "uniform quantisation error", "LSB^2")


def saturation(effort: Effort) -> Iterator[Outcome]:
    """Conversions at an end of the range are counted: those that round to it."""
    n = effort.n(400_000, 100_000)
    half = half_span(BITS)
    signal = torch.randn(n, generator=effort.key.torch()) * (half / 2)
    at_end = signed_codes_(signal.clone(), BITS)
    normal = torch.distributions.Normal(0.0, half / 2)
    ends = normal.cdf(torch.tensor([-half + 0.5, half - 1.5])).tolist()
    expected = ends[0] + 1 - ends[1]
    yield sampled(
        "ADC saturated fraction", estimates.fraction(at_end, n, expected), expected, "normal tails"
    )


def calibration(effort: Effort) -> Iterator[Outcome]:
    """Known drives recover the gain and offset planted in each converter."""
    chip = make(
        key=effort.key.child("chip"), inputs=64, outputs=64, adc_bits=10, array_rows=64,
        adc_gain_spread=0.05, adc_offset_lsb=10.0,
    )  # fmt: skip
    weights = torch.rand((64, 64), generator=effort.key.torch()) * 2 - 1
    held = chip.program(weights, key=effort.key.child("write")).achieved["weights"]
    strong = torch.rand((400, 64), generator=effort.key.child("strong").torch())
    ratio = chip.set_range(strong, key=effort.key.child("range")).ratio
    samples = effort.n(2_000, 500)
    fit = calibrate_columns(chip, held, key=effort.key.child("calibrate"), samples=samples)
    dials = {d.name: d.default for d in chip.capabilities.dials}
    planted = chip.parts.converters.errors(dials, torch.device("cpu"))
    assert planted.factor is not None and planted.offset is not None
    offset = planted.offset[0] * chip.capabilities.readings[0].step * ratio
    known = "planted in the converters"
    for name, error, sigma in (
        ("calibrated gain", fit.gain[0] - planted.factor[0], fit.gain_error[0]),
        ("calibrated offset", fit.offset - offset, fit.offset_error),
    ):
        z = error / sigma
        yield sampled(f"{name}, mean error / s.e.", estimates.mean(z), 0.0, known)
        yield sampled(f"{name}, variance of error / s.e.", estimates.variance(z, 0.0), 1.0, known)
