"""How a call that is asked for differs from recorded ones, in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from twin.backend import Snapshot
from twin.calls import Call
from twin.key import Key
from twin.plain import differs

WINDOW = 100
"""Calls on either side of the present one that are searched for the nearest:
a long recording is not read as a whole because of one wrong call."""


def mismatch(call: Call, kind: str, key: Key | None, inputs: Mapping[str, Any]) -> str:
    """What differs between a recorded call and the one asked for; "" if nothing."""
    if kind != call.kind:
        return f"expected {call.kind}, got {kind}"
    if key != call.key:
        return f"{kind} has another key (recorded {call.key}, got {key})"
    for name, expected in call.inputs.items():
        got = inputs.get(name)
        if differs(expected, got):
            told = f"recorded {_told(expected)}, got {_told(got)}{_by(expected, got)}"
            return f"{kind} has another {name} ({told})"
    return ""


def nearby(calls: Sequence[Call], position: int) -> Iterator[tuple[int, Call]]:
    """The recorded calls around `position`, with their numbers."""
    for number in range(max(0, position - WINDOW), min(len(calls), position + WINDOW + 1)):
        yield number, calls[number]


def neighbour(
    calls: Iterable[tuple[int, Call]],
    position: int,
    kind: str,
    key: Key | None,
    inputs: Mapping[str, Any],
) -> str:
    """A sentence about that of the numbered calls which is most like the one asked for."""
    best: tuple[float, int, int] | None = None
    told = ""
    for number, call in calls:
        if call.kind != kind:
            continue
        rank = (_distance(call, key, inputs), abs(number - position), number)
        if best is None or rank < best:
            best, told = rank, mismatch(call, kind, key, inputs)
    if best is None:
        return f"No {kind} was recorded nearby."
    if not told:
        return f"It is recorded as call {best[2] + 1}: the order differs."
    return f"Nearest is recorded call {best[2] + 1}: {told}."


def _distance(call: Call, key: Key | None, inputs: Mapping[str, Any]) -> float:
    """Whole numbers count what differs in kind, the fraction by how much."""
    total = float(key != call.key)
    for name, expected in call.inputs.items():
        if differs(expected, inputs.get(name)):
            gap = largest_gap(expected, inputs.get(name))
            total += gap / (1.0 + gap) if gap is not None and math.isfinite(gap) else 1.0
    return total


def largest_gap(expected: Any, got: Any) -> float | None:
    """The largest absolute difference, None where there is none to take."""
    if isinstance(expected, Mapping) and isinstance(got, Mapping) and set(expected) == set(got):
        gaps = [largest_gap(expected[name], got[name]) for name in expected]
        return None if None in gaps or not gaps else max(g for g in gaps if g is not None)
    if isinstance(expected, Tensor) and isinstance(got, Tensor) and expected.shape == got.shape:
        gap = (expected.double() - got.double()).abs()
        # Equal infinities, and NaN for NaN, are no difference.
        same = (expected == got) | (expected.isnan() & got.isnan())
        return float(gap.masked_fill(same, 0.0).max()) if gap.numel() else 0.0
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (expected, got))
    return abs(float(expected) - float(got)) if numbers else None


def _by(expected: Any, got: Any) -> str:
    gap = largest_gap(expected, got)
    return "" if gap is None or isinstance(got, int | float) else f", largest difference {gap:.3g}"


def _told(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {tuple(value.shape)} with sum {float(value.double().sum()):.9g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_told(item)}" for name, item in value.items())
    return f"of {value.device_id!r}" if isinstance(value, Snapshot) else repr(value)
