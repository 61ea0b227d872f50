"""What may go into a backend and what may come out of it, as plain functions.

The fence calls these; each raises a typed error that says what was expected,
what came, and what to do. `where` names the unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twin.backend import Dial, Port, Values
from twin.errors import DialError, PibTwinError, ReadingError, UnknownName, nearest

# Float32 products of values in range may leave it by rounding alone.
SLACK = 1e-5


def checked(
    values: Values,
    ports: tuple[Port, ...],
    where: str,
    what: str,
    error: type[PibTwinError],
    batched: bool = False,
) -> Values:
    """`values` for `ports`, detached, float32, clipped to the last rounding."""
    by_name = values if isinstance(values, Mapping) else {ports[0].name: values}
    known = {p.name: p for p in ports}
    for name in by_name:
        if name not in known:
            raise UnknownName(f"{where}: no {what} port {name!r}. {nearest(name, known)}")
    missing = sorted(set(known) - set(by_name))
    if missing:
        raise error(f"{where}: {what} lacks the port(s) {', '.join(missing)}.")
    clean = {
        n: _value(v, known[n], f"{where}: {what} {n!r}", error, batched) for n, v in by_name.items()
    }
    if batched and len({len(v) for v in clean.values()}) > 1:
        raise error(f"{where}: the ports of the {what} have different batch sizes.")
    return clean if isinstance(values, Mapping) else clean[ports[0].name]


def _value(
    value: Tensor, port: Port, where: str, error: type[PibTwinError], batched: bool
) -> Tensor:
    if not isinstance(value, Tensor) or not value.dtype.is_floating_point:
        kind = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
        raise error(f"{where} must be a tensor of floats, got {kind}.")
    shape = tuple(value.shape[1:] if batched else value.shape)
    if shape != port.shape or (batched and value.ndim != len(port.shape) + 1):
        wanted = ("batch", *port.shape) if batched else port.shape
        raise error(
            f"{where} has shape {tuple(value.shape)}, the port wants {wanted}. "
            "Transpose it, or build the unit with other sizes."
        )
    if batched and len(value) == 0:
        raise error(f"{where} is an empty batch; a backend takes one sample or more.")
    value = value.detach().to(torch.float32)
    low, high = value.aminmax()
    # NaN fails both comparisons, so it must be asked for by name.
    if not (math.isfinite(low.item()) and math.isfinite(high.item())):
        at = (~torch.isfinite(value)).nonzero()[0].tolist()
        raise error(f"{where} has a NaN or infinite value at index {at}. Clean the input.")
    if low < port.low - SLACK or high > port.high + SLACK:
        raise error(
            f"{where} spans {low:.4g} to {high:.4g}, the port takes {port.low:g} to "
            f"{port.high:g} (1.0 stands for {port.full_scale:g} {port.unit}). Scale it."
        )
    return value.clamp(port.low, port.high)


def decoded(
    codes: Any, port: Port, lead: tuple[int, ...], ratio: float | Tensor, where: str
) -> Tensor:
    """Checked codes of a reading as float32 values; a copy, without a graph."""
    what = f"{where}: reading {port.name!r}"
    codes = torch.as_tensor(codes).detach()
    if tuple(codes.shape) != (*lead, *port.shape):
        raise ReadingError(
            f"{what} has shape {tuple(codes.shape)}, expected {(*lead, *port.shape)} "
            "(batch first, one row per sample of the drive)."
        )
    if codes.dtype != port.torch_dtype:
        raise ReadingError(f"{what} has dtype {codes.dtype}, the port says {port.dtype}.")
    require_finite(codes, what)
    slack = 0.0 if port.is_coded else SLACK * max(1.0, port.high - port.low)
    low, high = (end.item() for end in codes.aminmax())
    if low < port.code_low - slack or high > port.code_high + slack:
        raise ReadingError(
            f"{what} spans {low} to {high}, outside its port ({port.code_low} to "
            f"{port.code_high} in codes). Clip in the driver, or declare a wider port."
        )
    ratio = ratio.detach() if isinstance(ratio, Tensor) else ratio
    require_finite(torch.as_tensor(ratio), f"{where}: range of {port.name!r}")
    # A copy, since a driver may reuse its buffer; on the CPU, wherever it computed.
    return port.decode(codes, ratio).to("cpu", copy=True)


def dial_value(dial: Dial, value: Any, where: str) -> Any:
    """A value a dial may take: a number, or a copy of a map."""
    if dial.read_only:
        raise DialError(f"{where}: dial {dial.name!r} is read-only on this device.")
    shown = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    if tuple(shown.shape) != dial.shape:
        raise DialError(
            f"{where}: dial {dial.name!r} takes a value of shape {dial.shape}, "
            f"got {tuple(shown.shape)}."
        )
    inside = torch.isfinite(shown) & (shown >= dial.low) & (shown <= dial.high)
    if not bool(inside.all()):
        bad = shown[~inside].flatten()[0].item()
        unit = "" if dial.unit == "1" else f" {dial.unit}"
        raise DialError(
            f"{where}: dial {dial.name!r} must be between {dial.low:g} and "
            f"{dial.high:g}{unit}, got {bad}."
        )
    return shown.detach().clone() if dial.shape else shown.item()


def require_finite(value: Tensor, what: str) -> None:
    """ReadingError if a device's answer holds NaN or infinity."""
    value = torch.as_tensor(value)
    # aminmax passes NaN on and costs a tenth of isfinite(...).all().
    if value.dtype.is_floating_point and not all(
        math.isfinite(float(end)) for end in (value.aminmax() if value.numel() else ())
    ):
        at = (~torch.isfinite(value)).nonzero()[0].tolist()
        raise ReadingError(
            f"{what} holds a NaN or infinite value at index {at}; "
            "a device reports saturation as its end code, never as NaN."
        )


def batch_of(values: Values) -> int:
    """How many samples a checked drive has."""
    return len(values if isinstance(values, Tensor) else next(iter(values.values())))


def rows_of(values: Values, rows: slice) -> Values:
    """Some samples of a drive."""
    if isinstance(values, Tensor):
        return values[rows]
    return {name: value[rows] for name, value in values.items()}


def copied(values: Values) -> Values:
    """A copy that a driver may spoil."""
    if isinstance(values, Tensor):
        return values.clone()
    return {name: value.clone() for name, value in values.items()}
