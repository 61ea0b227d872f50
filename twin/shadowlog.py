"""What a shadow notes of a call, and how a twin's answer becomes the device's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from twin.backend import Port, Reading
from twin.fence import Measured
from twin.plain import owned


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One call: its number from 1, its kind, and who answered.

    gap: RMS of device - twin over a reading, in units of full scale, where both
    answered. event: "lost" if the device went away in this call, "back" if it was
    brought to the current state in it. twin_error: why the twin could not keep up.
    """

    call: int
    kind: str
    answered_by: Literal["device", "twin"]
    gap: float | None = None
    event: Literal["", "lost", "back"] = ""
    twin_error: str = ""


def encoded(
    shown: Measured, ports: tuple[Port, ...], state_version: int, clock_s: float
) -> Reading:
    """A twin's answer in codes of the device's reading ports, at no device time."""
    main, *others = ports
    return Reading(
        codes=_codes(shown.values, main, shown.ratio),
        ratio=shown.ratio,
        saturated=shown.saturated,
        state_version=state_version,
        clock_s=clock_s,
        extra={port.name: _codes(shown.extra[port.name], port, 1.0) for port in others},
    )


def gap(reading: Reading, shown: Measured, port: Port) -> float | None:
    """RMS of device - twin, in units of full scale; None if it is not a number."""
    codes = torch.as_tensor(reading.codes).detach()
    # A driver's defect is the fence's to tell, with its name for it.
    if codes.shape != shown.values.shape:
        return None
    values = port.decode(codes, owned(reading.ratio)).cpu()
    found = math.sqrt(float((values - shown.values).double().square().mean()))
    return found if math.isfinite(found) else None


def _codes(values: Tensor, port: Port, ratio: float | Tensor) -> Tensor:
    """The inverse of `port.decode`, inside the port."""
    codes = values / (port.step * ratio)
    codes = (codes.round() if port.is_coded else codes).clamp(port.code_low, port.code_high)
    return codes.to(port.torch_dtype)
