"""Messages of the Open Inference Protocol v2 with the binary tensor extension.

A message is a JSON header and, behind it, the bytes of its tensors (little
endian, row major). Every size is checked against every other before a byte of
a tensor is read or allocated. NaN and infinity are refused in both directions.

Source: KServe "Open Inference Protocol", HTTP/REST, and Triton's "Binary Tensor
Data Extension".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twin.remote.errors import Malformed, TooLarge
from twin.remote.numbers import from_numbers, to_numbers

DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "FP32": torch.float32,
    "FP64": torch.float64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
ALIGNMENT = 64
MAX_DIMENSIONS = 8
MAX_TENSORS = 4096
MAX_NAME = 256

Buffer = bytearray | memoryview
Take = Callable[[int], Buffer]
"""Gives exactly so many of the next bytes of a message, in a buffer of its own."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """body_bytes: of one message. header_bytes: of its JSON part."""

    body_bytes: int = 256 * 2**20
    header_bytes: int = 2 * 2**20


@dataclass(frozen=True)
class Message:
    """What was read: the JSON header without its tensors, and the tensors by name."""

    header: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    parameters: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class _Announced:
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    size: int | None
    data: Any

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def read_message(
    take: Take, length: int, header_length: int | None, part: str, limits: Limits
) -> Message:
    """Read a message of `length` bytes whose tensors are announced under `part`.

    header_length: bytes of the JSON header, None if there is nothing behind it.
    part: "inputs" or "outputs". Raises Malformed or TooLarge.
    """
    json_bytes = length if header_length is None else header_length
    if not 0 < json_bytes <= length:
        raise Malformed(f"header length: expected 1 to {length} bytes, got {json_bytes}.")
    if length > limits.body_bytes or json_bytes > limits.header_bytes:
        raise TooLarge(
            f"message: at most {limits.body_bytes} bytes, of them {limits.header_bytes} of JSON; "
            f"got {length} and {json_bytes}. Send tensors as binary data, in smaller batches."
        )
    header = parsed_json(take(json_bytes))
    announced = _announced(header.pop(part, []), part)
    behind = sum(a.size for a in announced if a.size is not None)
    if behind != length - json_bytes:
        raise Malformed(
            f"{part}: binary_data_size adds up to {behind} bytes, {length - json_bytes} follow "
            "the header. Announce every tensor with its exact size."
        )
    tensors = {a.name: _tensor(a, take) for a in announced}
    return Message(header, tensors, parameters(header))


def parsed_json(content: bytes | Buffer) -> dict[str, Any]:
    """A JSON object without NaN or infinity; Malformed otherwise."""
    try:
        value = json.loads(bytes(content), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"header: not JSON ({str(error)[:200]}).") from None
    if not isinstance(value, dict):
        raise Malformed(f"header: expected a JSON object, got a {type(value).__name__}.")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of this protocol")


def parameters(holder: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """The `parameters` of a header or tensor: text, finite numbers, booleans."""
    given = holder.get("parameters", {})
    if not isinstance(given, dict):
        raise Malformed("parameters: expected an object of names and plain values.")
    for name, value in given.items():
        plain = isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
        if not plain:
            raise Malformed(f"parameter {name[:80]!r}: expected text, a finite number or a boolean")
    return given


def _announced(entries: Any, part: str) -> list[_Announced]:
    if not isinstance(entries, list) or len(entries) > MAX_TENSORS:
        raise Malformed(f"{part}: expected a list of at most {MAX_TENSORS} tensors.")
    found = [_entry(entry, f"{part}[{n}]") for n, entry in enumerate(entries)]
    if len({a.name for a in found}) < len(found):
        raise Malformed(f"{part}: two tensors have the same name.")
    return found


def _entry(entry: Any, where: str) -> _Announced:
    if not isinstance(entry, dict):
        raise Malformed(f"{where}: expected an object, got a {type(entry).__name__}.")
    name, kind, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise Malformed(f"{where}: name must be text of 1 to {MAX_NAME} characters.")
    if not isinstance(kind, str) or kind not in DTYPES:
        raise Malformed(f"{where}: datatype must be one of {', '.join(DTYPES)}.")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise Malformed(f"{where}: shape must be a list of at most {MAX_DIMENSIONS} sizes.")
    if not all(type(n) is int and 0 <= n < 2**40 for n in shape):
        raise Malformed(f"{where}: sizes of a shape are whole numbers from 0.")
    size = parameters(entry).get("binary_data_size")
    announced = _Announced(name, DTYPES[kind], tuple(shape), None, entry.get("data"))
    if size is None:
        return announced
    expected = announced.count * announced.dtype.itemsize
    if type(size) is not int or size != expected or "data" in entry:
        raise Malformed(
            f"{where}: shape {shape} of {kind} takes {expected} bytes, binary_data_size says "
            f"{str(size)[:40]}. A tensor comes either as `data` or as binary data."
        )
    return _Announced(name, announced.dtype, announced.shape, size, None)


def _tensor(announced: _Announced, take: Take) -> Tensor:
    where = f"tensor {announced.name!r}"
    if announced.size is None:
        return from_numbers(announced.data, announced.shape, announced.dtype, where)
    if announced.count == 0:
        return torch.empty(announced.shape, dtype=announced.dtype)
    buffer = take(announced.size)
    if announced.dtype is torch.bool and max(buffer) > 1:
        raise Malformed(f"{where}: a BOOL is a byte 0 or 1.")
    tensor = torch.frombuffer(buffer, dtype=announced.dtype).reshape(announced.shape)
    require_finite(tensor, where)
    return tensor


def require_finite(tensor: Tensor, where: str) -> None:
    """Malformed if a tensor holds NaN or infinity."""
    if tensor.dtype.is_floating_point and tensor.numel():
        low, high = tensor.aminmax()
        # NaN wins in both ends; half precision has no aminmax of its own everywhere.
        if not (math.isfinite(low.item()) and math.isfinite(high.item())):
            raise Malformed(f"{where}: holds a NaN or infinite value; this door takes neither.")


@dataclass(frozen=True)
class Written:
    """A message ready to send. header_length: None if no binary data follows."""

    header_length: int | None
    content: bytes


def write_message(
    header: Mapping[str, Any], tensors: Mapping[str, Tensor], part: str, binary: bool = True
) -> Written:
    """A message of `header` and `tensors`, as bytes. Raises Malformed for NaN."""
    entries: list[dict[str, Any]] = []
    chunks: list[bytes | memoryview] = []
    for name, given in tensors.items():
        tensor = given.detach().cpu().contiguous()
        if tensor.dtype not in NAMES:
            raise Malformed(f"tensor {name!r}: no protocol type for {tensor.dtype}.")
        require_finite(tensor, f"tensor {name!r}")
        entry: dict[str, Any] = {
            "name": name,
            "shape": list(tensor.shape),
            "datatype": NAMES[tensor.dtype],
        }
        if binary:
            chunks.append(_bytes(tensor))
            entry["parameters"] = {"binary_data_size": len(chunks[-1])}
        else:
            entry["data"] = to_numbers(tensor)
        entries.append(entry)
    text = json.dumps({**header, part: entries}, allow_nan=False).encode()
    if not binary or not entries:
        return Written(None, text)
    # Blanks behind the JSON, so that the first tensor begins at a round address.
    text += b" " * (-len(text) % ALIGNMENT)
    return Written(len(text), b"".join([text, *chunks]))


def _bytes(tensor: Tensor) -> bytes | memoryview:
    if tensor.numel() == 0:
        return b""
    return tensor.numpy().reshape(-1).view(np.uint8).data
