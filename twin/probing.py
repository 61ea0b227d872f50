"""Designed probes: the recording that a calibration needs, with a stated number of passes.

What is sent follows from what the device declares: a device that is written gets
several settings and waits, one with a shutter gets dark frames.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from twin.backend import Backend, Capabilities, MinimalBackend
from twin.complete import complete
from twin.errors import ConfigError
from twin.key import Key
from twin.observations import SHUTTER
from twin.recording import Recording
from twin.wrap import Recorded

FEWEST = 300
CHUNK = 512
OTHER_SETTINGS, OTHER_SHARE = 3, 0.1
"""Settings written before the last, and the share of the passes that each gets."""

REPEATED_SHARE, SHOTS, LATE_SHOTS = 0.15, 4, 2
"""Many drives of a few shots, not few of many: a score rests on drives. LATE_SHOTS: of a drive
that comes again in each round."""

PAIRED_SHARE, MOST_PAIRS = 0.2, 200
"""Of the passes on a fixed device: drives of two shots, each in one round only. They are sent
one by one, so that nothing else is shown between the two: what moves slowly is no noise."""

EDGE_SHARE = 0.02
"""Zero and full drives: offset and saturation."""

DARK_SHARE = 0.05
WAITS_S = (10.0, 100.0, 1000.0)
WAIT_SHARE = 0.03
"""Times after the first write, seconds, and the share of the passes after each."""

ROUNDS = 10
"""Times over the probe at which the same few drives come again."""

SPARSE_SHARE = 0.3
"""Of the drives have about half of their entries at zero: a wider span of noise."""

Kind = Literal["memristor", "optics"]


class _Probe(NamedTuple):
    device: Recorded
    key: Key
    width: int

    def send(self, drive: Tensor, what: str, shots: int | None = None) -> None:
        port = self.device.capabilities.drives[0]
        for start in range(0, len(drive), self.width):
            chunk = drive[start : start + self.width].view(-1, *port.shape)
            self.device.forward(
                chunk, key=self.key.child(what, start), first_sample=start, shots=shots
            )


def probe(
    backend: MinimalBackend,
    *,
    passes: int,
    key: Key,
    twin_kind: Kind,
    wait: bool | None = None,
) -> Recording:
    """Drive a device through `passes` passes, exactly, and return the recording.

    wait: let the device rest after its first write, for 1110 s of its time; by default
    on a virtual clock only. Ranging is the caller's. Raises ConfigError for too few passes
    or a device that is no such kind.
    """
    device = Recorded(complete(backend))
    capabilities = device.capabilities
    _require(capabilities, passes, twin_kind)
    width = min(CHUNK, capabilities.max_batch or CHUNK)
    at = _Probe(device, key.child("probe"), width)
    if twin_kind == "memristor":
        rest = capabilities.clock == "virtual" if wait is None else wait
        _written(at, passes, rest and _can_wait(complete(backend)))
    else:
        _fixed(at, passes)
    return device.recording


def _written(at: _Probe, passes: int, rest: bool) -> None:
    """Several settings, waits after the first, and most of the passes on the last."""
    left = passes
    for number in range(OTHER_SETTINGS):
        _program(at, number)
        left -= _random(at, int(OTHER_SHARE * passes), f"setting {number}")
        if number == 0 and rest:
            for index, seconds in enumerate(WAITS_S):
                at.device.wait(seconds)
                left -= _random(at, int(WAIT_SHARE * passes), f"rested {index}")
    _program(at, OTHER_SETTINGS)
    left -= _edges(at, int(EDGE_SHARE * passes))
    groups = max(2, int(REPEATED_SHARE * passes) // SHOTS)
    left -= SHOTS * groups
    at.send(_drives(at, groups, "repeated"), "repeats", SHOTS)
    _random(at, left, "last setting")


def _fixed(at: _Probe, passes: int) -> None:
    """Dark frames, random drives, and between them the same few drives again and again."""
    left = passes - _edges(at, int(EDGE_SHARE * passes))
    if any(dial.name == SHUTTER for dial in at.device.capabilities.dials):
        left -= _dark(at, int(DARK_SHARE * passes))
    few = max(2, int(REPEATED_SHARE * passes) // (ROUNDS * LATE_SHOTS))
    pairs = max(1, min(MOST_PAIRS, int(PAIRED_SHARE * passes) // LATE_SHOTS) // ROUNDS)
    same = _drives(at, few, "repeated")
    share = left // ROUNDS - LATE_SHOTS * (few + pairs)
    for number in range(ROUNDS):
        at.send(same, f"repeats {number}", LATE_SHOTS)
        for index, drive in enumerate(_drives(at, pairs, f"pairs {number}").split(1)):
            at.send(drive, f"pair {number} {index}", LATE_SHOTS)
        left -= LATE_SHOTS * (few + pairs)
        last = number == ROUNDS - 1
        left -= _random(at, left if last else share, f"round {number}")


def _dark(at: _Probe, count: int) -> int:
    """Frames with the shutter closed: black level and read noise."""
    at.device.adjust(SHUTTER, 0.0, key=at.key.child("shut"))
    sent = _random(at, count, "dark")
    at.device.adjust(SHUTTER, 1.0, key=at.key.child("open"))
    return sent


def _edges(at: _Probe, count: int) -> int:
    port = at.device.capabilities.drives[0]
    drive = torch.full((count, *port.shape), port.low)
    drive[count // 2 :] = port.high
    at.send(drive, "edges")
    return count


def _random(at: _Probe, count: int, what: str) -> int:
    if count > 0:
        at.send(_drives(at, count, what), what)
    return count


def _drives(at: _Probe, count: int, what: str) -> Tensor:
    """Uniform in the port's range, some of them sparse, on the converter's levels."""
    port = at.device.capabilities.drives[0]
    generator = at.key.child("drives", what).torch()
    values = torch.rand((count, *port.shape), generator=generator)
    holes = torch.rand(values.shape, generator=generator) < 0.5
    sparse = torch.rand((count, *[1] * len(port.shape)), generator=generator) < SPARSE_SHARE
    values = values.masked_fill(holes & sparse, 0.0)
    return port.on_grid(port.low + (port.high - port.low) * values)


def _program(at: _Probe, number: int) -> None:
    port = at.device.capabilities.settings[0]
    generator = at.key.child("setting", number).torch()
    values = torch.rand(port.shape, generator=generator)
    setting = port.on_grid(port.low + (port.high - port.low) * values)
    at.device.program(setting, key=at.key.child("write", number))


def _can_wait(backend: Backend) -> bool:
    return hasattr(getattr(backend, "_driver", backend), "wait") or (
        backend.capabilities.clock == "wall"
    )


def _require(capabilities: Capabilities, passes: int, kind: Kind) -> None:
    if passes < FEWEST:
        raise ConfigError(f"a probe needs {FEWEST} passes or more, got {passes}.")
    if kind not in ("memristor", "optics"):
        raise ConfigError(f"expected a twin of 'memristor' or 'optics', got {kind!r}.")
    if (kind == "memristor") != capabilities.programmable:
        can = "can" if capabilities.programmable else "cannot"
        raise ConfigError(
            f"{capabilities.device_id} {can} be programmed, so a {kind!r} twin does not fit it. "
            "Use 'memristor' for a device that is written, 'optics' for a fixed one."
        )
