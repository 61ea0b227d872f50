"""Tensors as JSON numbers, for clients without the binary extension.

The numbers may be nested by row or come as one flat list, row major.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from twin.remote.errors import Malformed

INTEGER_ENDS = {
    torch.uint8: (0, 255),
    torch.int8: (-(2**7), 2**7 - 1),
    torch.int16: (-(2**15), 2**15 - 1),
    torch.int32: (-(2**31), 2**31 - 1),
    torch.int64: (-(2**63), 2**63 - 1),
}


def to_numbers(tensor: Tensor) -> list[Any]:
    """A flat list, row major; float32 is exact in JSON's double."""
    numbers: list[Any] = tensor.reshape(-1).tolist()
    return numbers


def from_numbers(data: Any, shape: tuple[int, ...], dtype: torch.dtype, where: str) -> Tensor:
    """A tensor of JSON `data`; Malformed unless count, type and range fit."""
    if not isinstance(data, list):
        raise Malformed(f"{where}: has neither `data` nor parameters.binary_data_size.")
    flat = _flat(data, len(shape), where)
    if len(flat) != math.prod(shape):
        raise Malformed(f"{where}: shape {list(shape)} takes {math.prod(shape)} numbers, "
                        f"got {len(flat)}.")  # fmt: skip
    if dtype is torch.bool:
        good = all(value is True or value is False or value in (0, 1) for value in flat)
    elif dtype in INTEGER_ENDS:
        low, high = INTEGER_ENDS[dtype]
        good = all(type(value) is int and low <= value <= high for value in flat)
    else:
        limit = torch.finfo(dtype).max
        # A comparison of int and float is exact in Python; NaN fails it.
        good = all(type(value) in (int, float) and -limit <= value <= limit for value in flat)
    if not good:
        raise Malformed(f"{where}: a number does not fit {dtype}, or is none.")
    return torch.tensor(flat, dtype=dtype).reshape(shape)


def _flat(data: list[Any], depth: int, where: str) -> list[Any]:
    """All numbers of nested lists, at most `depth` deep."""
    for _ in range(depth):
        if not any(isinstance(item, list) for item in data):
            return data
        if not all(isinstance(item, list) for item in data):
            raise Malformed(f"{where}: `data` mixes numbers and lists.")
        data = [number for row in data for number in row]
    if any(isinstance(item, list) for item in data):
        raise Malformed(f"{where}: `data` is nested deeper than its shape.")
    return data
