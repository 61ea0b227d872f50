"""Calls and answers as plain data: JSON for structure, named tensors beside it.

Nothing is executed when such data is read: only the kinds listed here can
come back, each built from its own fields.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twin.backend import Capabilities, Dial, Port, Ranged, Reading, Snapshot, Written
from twin.errors import DataError
from twin.key import Key

KINDS = {
    kind.__name__: kind
    for kind in (Capabilities, Dial, Port, Ranged, Reading, Snapshot, Written, Key)
}


def owned(value: Any) -> Any:
    """A copy of a call's data that shares no memory and no graph with it."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {name: owned(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(owned(item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{f.name: owned(getattr(value, f.name)) for f in fields(value)})
    return value


def pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON data; its tensors are put into `tensors` by name."""
    if isinstance(value, Tensor):
        name = f"t{len(tensors)}"
        # clone(): safetensors refuses tensors that share memory.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"map": {name: pack(item, tensors) for name, item in value.items()}}
    if isinstance(value, tuple):
        return {"tuple": [pack(item, tensors) for item in value]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if KINDS.get(type(value).__name__) is type(value):
        parts = {f.name: pack(getattr(value, f.name), tensors) for f in fields(value)}
        return {"kind": type(value).__name__, "fields": parts}
    raise DataError(
        f"a recording holds tensors, numbers, text and the contract's own records, "
        f"got {type(value).__name__}. Return plain data from the driver."
    )


def unpack(data: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that :func:`pack` made `data` from; DataError if it cannot be."""
    if not isinstance(data, dict):
        return data
    match data:
        case {"tensor": str(name)} if name in tensors:
            return tensors[name]
        case {"map": dict(items)}:
            return {name: unpack(item, tensors) for name, item in items.items()}
        case {"tuple": list(items)}:
            return tuple(unpack(item, tensors) for item in items)
        case {"float": "nan" | "inf" | "-inf" as text}:
            return float(text)
        case {"kind": str(name), "fields": dict(parts)} if name in KINDS:
            return _built(name, {key: unpack(part, tensors) for key, part in parts.items()})
    raise DataError(f"expected recorded data, got {str(data)[:80]!r}. Record it again.")


def _built(name: str, parts: dict[str, Any]) -> Any:
    try:
        return KINDS[name](**parts)
    except TypeError as error:
        raise DataError(f"a recorded {name} does not fit: {error}. Record it again.") from None


def differs(expected: Any, got: Any) -> bool:
    """Whether two pieces of call data are not equal to the last bit."""
    if isinstance(expected, Tensor) and isinstance(got, Tensor):
        return expected.dtype != got.dtype or not _same_bits(expected, got)
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        return set(expected) != set(got) or any(differs(expected[n], got[n]) for n in expected)
    if isinstance(expected, tuple) and isinstance(got, tuple):
        pairs = zip(expected, got, strict=False)
        return len(expected) != len(got) or any(differs(a, b) for a, b in pairs)
    if type(expected) is type(got) and type(expected).__name__ in KINDS:
        names = [f.name for f in fields(expected) if f.compare]
        return any(differs(getattr(expected, n), getattr(got, n)) for n in names)
    if isinstance(expected, float) and isinstance(got, float):
        return not (expected == got or (math.isnan(expected) and math.isnan(got)))
    return type(expected) is not type(got) or bool(expected != got)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    if a.dtype.is_floating_point:
        return bool(torch.equal(a.nan_to_num(0.0), b.nan_to_num(0.0))) and bool(
            torch.equal(a.isnan(), b.isnan())
        )
    return bool(torch.equal(a, b))
