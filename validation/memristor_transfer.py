"""The transfer curve of a crossbar's worst converter, as arrays. Currents in amperes, the
rest in codes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import xarray as xr
from torch import Tensor

from substrates.converter import half_span, signed_codes_
from substrates.memristor.converters import Errors
from substrates.memristor.crossbar import Crossbar

POINTS = 2001


def transfer(chip: Crossbar) -> dict[str, xr.DataArray]:
    """The converter that is furthest from ideal anywhere in its range; none if all
    are ideal or broken."""
    bits, dials = chip.config.adc_bits, chip._dials
    errors = chip.parts.converters.errors(dials, torch.device("cpu"))
    working = ~chip.parts.faults.columns(dials).mask
    ideal = errors.factor is None and errors.offset is None and errors.inl is None
    if ideal or not bool(working.any()):
        return {}
    half = half_span(bits)
    span = torch.linspace(-half, half - 1, 129)[:, None, None]
    shape = (chip.layout.converters, chip.config.outputs)
    worst = (_converted(span.expand(129, *shape), errors, bits) - span).abs().amax(0)
    worst = torch.where(working, worst, -1.0)
    converter, column = divmod(int(worst.argmax()), chip.config.outputs)
    one = _single(errors, converter, column)
    lsb = torch.linspace(-1.15 * half, 1.15 * half, POINTS)
    codes, ideal_codes = _converted(lsb, one, bits), lsb.clone()
    signed_codes_(codes, bits)
    signed_codes_(ideal_codes, bits)
    full_scale_a = chip.capabilities.readings[0].full_scale * float(chip._ratio[column])
    attributes = {
        "units": "1",
        "column": column,
        "converter": converter,
        "gain_error": 0.0 if one.factor is None else float(one.factor) - 1,
        "offset_lsb": 0.0 if one.offset is None else float(one.offset),
        "bow_lsb": 0.0 if one.inl is None else float(one.inl),
        "noise_lsb": one.noise**0.5,
    }
    dims = ("input",)
    amperes = (lsb / half * full_scale_a).numpy()
    return {
        "adc_amperes": xr.DataArray(amperes, dims=dims, attrs={"units": "A"}),
        "adc_codes": xr.DataArray(codes.numpy(), dims=dims, attrs=attributes),
        "adc_ideal_codes": xr.DataArray(ideal_codes.numpy(), dims=dims, attrs={"units": "1"}),
    }


def _converted(lsb: Tensor, errors: Errors, bits: int) -> Tensor:
    """What a converter makes of a signal in codes, before it is rounded."""
    real = lsb.clone() if errors.factor is None else lsb * errors.factor
    if errors.offset is not None:
        real += errors.offset
    errors.bend_(real, bits)
    return real


def _single(errors: Errors, converter: int, column: int) -> Errors:
    def one(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[converter, column]

    return replace(
        errors, factor=one(errors.factor), offset=one(errors.offset), inl=one(errors.inl)
    )
