"""Calls of the contract and their answers as protocol messages, and back.

`forward` and `program` travel as plain tensors and parameters, which any client
of the protocol understands. The rest of the contract travels as JSON text made
by twin.plain, with its tensors as binary tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from twin.backend import Capabilities, Ranged, Reading, Snapshot, Values, Written
from twin.errors import DataError, ReadingError
from twin.key import Key
from twin.plain import owned, pack, unpack
from twin.remote.errors import Malformed
from twin.remote.wire import Message

STATE_CALLS = ("set_range", "adjust", "wait", "snapshot", "restore")
RATIO = "_ratio"
"""Output that carries a range ratio which is not one number."""
UNHASHED = ("timeout", "expect_version", "instance")
"""Parameters that say how a call is made, not what is asked."""

Parameters = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of the contract: member, arguments by name, key (None without)."""

    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    key: Key | None = None


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What travels: parameters and tensors by name."""

    parameters: dict[str, Any]
    tensors: dict[str, Tensor]


# ---- calls ------------------------------------------------------------------


def model_of(kind: str) -> str:
    """Which of a unit's three models serves a member of the contract."""
    return kind if kind in ("forward", "program") else "state"


def pack_call(call: Call, capabilities: Capabilities) -> Packed:
    """A call as parameters and tensors."""
    parameters: dict[str, Any] = {} if call.key is None else {"key": _text(pack(call.key, {}))}
    arguments = dict(call.arguments)
    if call.kind not in ("forward", "program"):
        tensors: dict[str, Tensor] = {}
        parameters |= {"call": call.kind, "arguments": _text(pack(owned(arguments), tensors))}
        return Packed(parameters=parameters, tensors=tensors)
    forward = call.kind == "forward"
    ports = capabilities.drives if forward else capabilities.settings
    values = arguments.pop("drive" if forward else "setting")
    if isinstance(values, Mapping):
        parameters["named"] = True
    named = values if isinstance(values, Mapping) else {ports[0].name if ports else "in": values}
    tensors = {name: torch.as_tensor(value) for name, value in named.items()}
    parameters |= {name: value for name, value in arguments.items() if value is not None}
    return Packed(parameters=parameters, tensors=tensors)


def unpack_call(message: Message, model: str, request_id: str) -> Call:
    """The call that a request asks for; Malformed or DataError if it is none.

    Without a key the request id names the randomness.
    """
    given = message.parameters
    text = given.get("key")
    key = Key(0, ("remote", request_id)) if text is None else _key(text)
    if model == "state":
        kind = given.get("call")
        if kind not in STATE_CALLS:
            raise Malformed(f"parameter 'call': expected one of {', '.join(STATE_CALLS)}.")
        arguments = unpack(_loaded(given.get("arguments", '{"map": {}}')), message.tensors)
        return Call(kind=str(kind), arguments=_arguments(str(kind), arguments), key=key)
    if not message.tensors:
        raise Malformed("inputs: at least one tensor is needed.")
    values: Values = dict(message.tensors)
    if len(message.tensors) == 1 and not given.get("named"):
        values = next(iter(message.tensors.values()))
    if model == "program":
        return Call(kind=model, arguments={"setting": values}, key=key)
    first, shots = given.get("first_sample", 0), given.get("shots")
    if type(first) is not int or not 0 <= first < 2**53:
        raise Malformed("parameter 'first_sample': expected a whole number from 0.")
    if shots is not None and (type(shots) is not int or not 1 <= shots < 2**31):
        raise Malformed("parameter 'shots': expected a whole number from 1.")
    return Call(
        kind=model, arguments={"drive": values, "first_sample": first, "shots": shots}, key=key
    )


EXPECTED: dict[str, dict[str, tuple[type, ...]]] = {
    "set_range": {"drive": (Tensor, dict)},
    "adjust": {"dial": (str,), "value": (int, float, Tensor)},
    "wait": {"seconds": (int, float)},
    "snapshot": {},
    "restore": {"snapshot": (Snapshot,)},
}


def _arguments(kind: str, given: Any) -> dict[str, Any]:
    expected = EXPECTED[kind]
    if not isinstance(given, dict) or set(given) != set(expected):
        raise Malformed(f"{kind}: expected the arguments {sorted(expected)}.")
    for name, kinds in expected.items():
        if not isinstance(given[name], kinds):
            raise Malformed(f"{kind}: {name!r} has a wrong type.")
    if kind == "restore":
        _check_snapshot(given["snapshot"])
    return given


def _check_snapshot(snapshot: Snapshot) -> None:
    arrays, values = snapshot.arrays, snapshot.values
    good = isinstance(snapshot.device_id, str) and isinstance(arrays, dict)
    good = good and all(isinstance(array, Tensor) for array in arrays.values())
    good = good and isinstance(values, dict)
    if not (good and all(isinstance(v, bool | int | float | str) for v in values.values())):
        raise Malformed("restore: not a snapshot of tensors and plain values.")


def _key(text: Any) -> Key:
    key = unpack(_loaded(text), {})
    good = isinstance(key, Key) and isinstance(key.path, tuple)
    good = good and all(type(part) in (str, int) for part in key.path)
    if not (good and isinstance(key.call_id, str | None)):
        raise Malformed("parameter 'key': expected a packed Key (see docs).")
    assert isinstance(key, Key)
    return key


# ---- answers ----------------------------------------------------------------


def pack_answer(answer: Any, call: Call, capabilities: Capabilities) -> Packed:
    """An answer as parameters and tensors; ReadingError if a device gave none."""
    if isinstance(answer, Reading):
        return _pack_reading(answer, capabilities)
    if isinstance(answer, Written):
        parameters = {"state_version": int(answer.state_version), "cells": int(answer.cells)}
        achieved = {name: torch.as_tensor(value) for name, value in answer.achieved.items()}
        return Packed(parameters=parameters | _costs(answer), tensors=achieved)
    if call.kind in ("forward", "program"):
        raise ReadingError(f"{call.kind} of the device returned a {type(answer).__name__}.")
    tensors: dict[str, Tensor] = {}
    text = _text(pack(owned(answer), tensors))
    return Packed(parameters={"answer": text}, tensors=tensors)


def _pack_reading(reading: Reading, capabilities: Capabilities) -> Packed:
    tensors = {capabilities.readings[0].name: torch.as_tensor(reading.codes)}
    tensors |= {name: torch.as_tensor(value) for name, value in reading.extra.items()}
    parameters: dict[str, Any] = {
        "state_version": int(reading.state_version),
        "saturated": _finite(reading.saturated, "saturated"),
        "clock_s": _finite(reading.clock_s, "clock_s"),
    }
    if isinstance(reading.ratio, Tensor):
        tensors[RATIO] = reading.ratio
    else:
        parameters["ratio"] = _finite(reading.ratio, "ratio")
    return Packed(parameters=parameters | _costs(reading), tensors=tensors)


def _costs(answer: Reading | Written) -> dict[str, float]:
    return {name: _finite(getattr(answer, name), name) for name in ("device_seconds", "joules")}


def _finite(value: Any, name: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ReadingError(f"the device reported {name} = {number}; report 0.0 where unknown.")
    return number


def unpack_answer(message: Message, kind: str, capabilities: Capabilities) -> Any:
    """The answer in a reply to a call of `kind`; Malformed if it does not fit."""
    given, tensors = message.parameters, dict(message.tensors)
    try:
        if kind == "forward":
            return _unpack_reading(given, tensors, capabilities)
        if kind == "program":
            numbers = _numbers(given, "state_version", "cells", "device_seconds", "joules")
            return Written(**numbers, achieved=tensors)
        answer = unpack(_loaded(given["answer"]), tensors)
    except KeyError as error:
        raise Malformed(f"the server's reply to {kind} lacks {error}.") from None
    wanted = ANSWERS[kind]
    if type(answer) is not wanted:
        raise Malformed(f"the server's reply to {kind} is no {wanted.__name__}.")
    return answer


ANSWERS: dict[str, type] = {
    "set_range": Ranged,
    "adjust": int,
    "wait": type(None),
    "snapshot": Snapshot,
    "restore": type(None),
}


def _unpack_reading(
    given: Parameters, tensors: dict[str, Tensor], capabilities: Capabilities
) -> Reading:
    ratio = tensors.pop(RATIO) if RATIO in tensors else float(given["ratio"])
    names = ("state_version", "saturated", "clock_s", "device_seconds", "joules")
    codes = tensors.pop(capabilities.readings[0].name)
    return Reading(codes=codes, ratio=ratio, extra=tensors, **_numbers(given, *names))


def _numbers(given: Parameters, *names: str) -> dict[str, Any]:
    for name in names:
        if type(given[name]) not in (int, float):
            raise Malformed(f"the server's reply has {name} = {str(given[name])[:40]!r}.")
    return {name: given[name] for name in names}


# ---- text -------------------------------------------------------------------


def _text(packed: Any) -> str:
    return json.dumps(packed, allow_nan=False)


def _loaded(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise Malformed(f"expected JSON text in a parameter ({str(error)[:100]}).") from None


def pack_capabilities(capabilities: Capabilities) -> str:
    """Capabilities as text, for a model's metadata."""
    return _text(pack(capabilities, {}))


def unpack_capabilities(text: Any) -> Capabilities:
    """Capabilities from a model's metadata; Malformed otherwise."""
    try:
        capabilities = unpack(_loaded(text), {})
    except DataError as error:
        raise Malformed(f"the server describes its device in another way: {error}") from None
    if not isinstance(capabilities, Capabilities):
        raise Malformed("the server does not describe its device. Is it a pib-twin server?")
    return capabilities
