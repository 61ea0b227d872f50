"""What the arrays of a fault map may hold, and the checks of it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from substrates.converter import half_span
from twin.errors import ConfigError, DialError, UnknownName, nearest

HEALTHY, STUCK_LOW, STUCK_HIGH, STUCK_LEVEL = range(4)
"""Kinds of a cell; STUCK_LEVEL is stuck anywhere in the window."""
DEAD_CONVERTER, STUCK_CONVERTER = 1, 2
"""Kinds of a column's converter besides HEALTHY: always code 0, always one code."""

ARRAYS: Mapping[str, tuple[torch.dtype, str, float, float]] = {
    "cell_kind": (torch.int8, "cell", HEALTHY, STUCK_LEVEL),
    "cell_level": (torch.float32, "cell", 0, 1),
    "never_verifies": (torch.bool, "cell", 0, 1),
    "dead_row": (torch.bool, "row", 0, 1),
    "dead_column": (torch.bool, "column", 0, 1),
    "converter_kind": (torch.int8, "column", HEALTHY, STUCK_CONVERTER),
    "converter_code": (torch.int32, "column", -(2**15), 2**15 - 1),
    "column_gain": (torch.float32, "column", 2.0**-10, 2.0**10),
}
"""name: (dtype, one value per what, lowest, highest) of each array of a map."""

CELLS = ("stuck_low", "stuck_high", "stuck_level")
CONVERTERS = ("dead_converters", "stuck_converters")
SINGLE = ("never_verifies", "dead_rows", "dead_columns", "misranged")


def sizes(
    inputs: int, outputs: int, cells: tuple[int, ...] | None = None
) -> dict[str, tuple[int, ...]]:
    """Shapes of a chip's arrays by what they have one value per.

    cells: (planes, inputs, columns of cells); None for pairs, (2, inputs, outputs).
    """
    cells = (2, inputs, outputs) if cells is None else tuple(cells)
    numbers = {
        "inputs": inputs,
        "outputs": outputs,
        **{f"cells[{n}]": c for n, c in enumerate(cells)},
    }
    for name, size in numbers.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigError(f"fault map: {name} must be a whole number >= 1, got {size!r}.")
    if len(cells) != 3 or cells[1] != inputs:
        raise ConfigError(f"fault map: cells must be (planes, {inputs}, columns), got {cells}.")
    return {"cell": cells, "row": (inputs,), "column": (outputs,)}


def bits(adc_bits: int) -> int:
    """`adc_bits` if a signed converter can have them."""
    if isinstance(adc_bits, bool) or not isinstance(adc_bits, int) or not 2 <= adc_bits <= 16:
        raise ConfigError(f"fault map: adc_bits must be a whole number 2 to 16, got {adc_bits!r}.")
    return adc_bits


def all_fractions(given: Mapping[str, float]) -> dict[str, float]:
    """All fractions by name, 0 where not given; the kinds of a group exclude each other."""
    groups = (CELLS, CONVERTERS, *((name,) for name in SINGLE))
    known = [name for group in groups for name in group]
    for name, value in given.items():
        if name not in known:
            raise UnknownName(f"fault map: no fraction {name!r}. {nearest(name, known)}")
        if not 0 <= value <= 1:
            raise ConfigError(f"fault map: {name} must be a fraction in [0, 1], got {value}.")
    fractions = {name: float(given.get(name, 0.0)) for name in known}
    for group in groups:
        total = math.fsum(fractions[name] for name in group)
        if total > 1 + 1e-9:
            raise ConfigError(f"fault map: {' + '.join(group)} must be at most 1, got {total}.")
    return fractions


def require(adc_bits: int, arrays: Mapping[str, Tensor]) -> None:
    """ConfigError or DialError naming the array that is wrong, and how."""
    half = half_span(bits(adc_bits))
    for name, array in arrays.items():
        if not isinstance(array, Tensor):
            raise DialError(f"fault map: {name} must be a tensor, got {type(array).__name__}.")
    cells = tuple(arrays["cell_kind"].shape)
    if len(cells) != 3:
        raise DialError(f"fault map: cell_kind must be (planes, inputs, columns), got {cells}.")
    shapes = sizes(cells[1], arrays["dead_column"].numel(), cells)
    for name, (dtype, per, low, high) in ARRAYS.items():
        array = arrays[name]
        if array.dtype != dtype or tuple(array.shape) != shapes[per]:
            raise DialError(
                f"fault map: {name} must be {dtype} of shape {shapes[per]} (one value per {per}), "
                f"got {array.dtype} of shape {tuple(array.shape)}."
            )
        bad = ~((array >= low) & (array <= high))  # NaN fails both
        _refuse(name, array, bad, f"from {low:g} to {high:g}")
    kind, level = arrays["cell_kind"], arrays["cell_level"]
    fixed = (kind == STUCK_HIGH).float()
    _refuse("cell_level", level, (kind != STUCK_LEVEL) & (level != fixed), "0, or 1 if stuck high")
    code, stuck = arrays["converter_code"], arrays["converter_kind"] == STUCK_CONVERTER
    _refuse("converter_code", code, ~stuck & (code != 0), "0 unless stuck")
    outside = (code < -half) | (code >= half)
    _refuse("converter_code", code, outside, f"from {-half} to {half - 1} ({adc_bits} b)")


def _refuse(name: str, array: Tensor, bad: Tensor, expected: str) -> None:
    if bool(bad.any()):
        at = bad.nonzero()[0].tolist()
        raise DialError(
            f"fault map: {name} must be {expected}, got {array[bad][0].item()} at index {at}."
        )
