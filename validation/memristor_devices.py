"""Crossbars in the report: what is measured of them, and how it is drawn."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from validation.figures import Drawing, styled
from validation.memristor_measured import measured
from validation.physics import pictures

__all__ = ["drawings", "measured"]

Drawn = tuple[Figure, str]


def drawings(data: xr.Dataset, unit: str) -> list[Drawing]:
    """The pictures of what was recorded, from arrays named as in :func:`measured`."""
    makers = {
        "quiet": _draw_quiet,
        "trapped": _draw_trapped,
        "drift": _draw_drift,
        "ir_drop": _draw_ir_drop,
        "adc_codes": _draw_transfer,
    }
    return [Drawing(f"{unit} {name}", *make(data)) for name, make in makers.items() if name in data]


def _draw_quiet(data: xr.Dataset) -> Drawn:
    reads = data["quiet"]
    mean, sigma = reads.attrs["mean_siemens"], reads.attrs["sigma_siemens"]
    title = f"Repeated shots of a cell of {mean * 1e6:.3g} uS"
    caption = (
        f"{reads.attrs['cell']}: of all cells without a trap the nearest to "
        f"{reads.attrs['reference']}. sigma is {100 * sigma / mean:.2g} % of it, as the chip "
        "draws its read noise at this age."
    )
    figure = styled(pictures.shots)(_values(reads), [(1.0, mean)], sigma, title)
    return figure, caption


def _draw_trapped(data: xr.Dataset) -> Drawn:
    reads = data["trapped"]
    a = reads.attrs
    mean, share = a["mean_siemens"], a["filled_share"]
    levels = [(1 - share, mean), (share, mean * (1 - a["loss"]))]
    title = f"Shots of a cell with an active trap, {mean * 1e6:.3g} uS"
    caption = (
        f"{a['cell']}: filled {100 * share:.0f} % of the time, it then lacks "
        f"{100 * a['loss']:.2g} %; relaxation time {a['relaxation_s']:.2g} s, shots every "
        f"{a['interval_s']:.2g} s."
    )
    figure = styled(pictures.shots)(_values(reads), levels, a["sigma_siemens"], title)
    return figure, caption


def _draw_drift(data: xr.Dataset) -> Drawn:
    cells = data["drift"]
    title = f"Drift of cells near {cells.attrs['reference'].removeprefix('mid-window, ')}"
    caption = (
        f"The {len(cells)} cells nearest to {cells.attrs['reference']}, neither stuck nor trapped, "
        f"last written {cells.attrs['age_s']:.2g} s before the end of training."
    )
    figure = styled(pictures.drift)(
        _values(data["drift_s"]), _values(cells), _values(data["drift_law"]), title,
        since="the end of training",
    )  # fmt: skip
    return figure, caption


def _draw_ir_drop(data: xr.Dataset) -> Drawn:
    ratio = data["ir_drop"]
    lost = 100 * (1 - float(ratio.mean()))
    figure = styled(pictures.ir_drop)(_values(ratio), "IR drop in the first array")
    blank = int(ratio.isnull().sum())
    caption = (
        f"Effective over actual conductance of each cell; {lost:.2g} % lost on average, "
        f"{100 * (1 - float(ratio.min())):.2g} % at worst. Columns: {ratio.attrs['columns']}."
    )
    if blank:
        least = ratio.attrs["least_siemens"] * 1e6
        caption += f" Blank: {blank:,} cells below {least:.2g} uS."
    return figure, caption


def _draw_transfer(data: xr.Dataset) -> Drawn:
    codes = data["adc_codes"]
    a = codes.attrs
    title = f"The converter furthest from ideal: column {a['column']}"
    figure = styled(pictures.adc_transfer)(
        _values(data["adc_amperes"]), _values(codes), _values(data["adc_ideal_codes"]), title
    )
    caption = (
        f"Converter {a['converter']} of its column: gain {100 * a['gain_error']:+.2g} %, offset "
        f"{a['offset_lsb']:+.2g} codes, bow {a['bow_lsb']:+.2g} codes. Noise of a conversion, "
        f"{a['noise_lsb']:.2g} codes, not drawn."
    )
    return figure, caption


def _values(array: xr.DataArray) -> NDArray[np.float64]:
    return np.asarray(array.values, np.float64)
