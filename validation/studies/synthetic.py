"""Points without physics: a cheap law of made-up parameters, to try an engine with.

Importing this module imports no torch.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from twin.config import STRICT, build
from twin.errors import ObjectiveError

BLOCK = bytes(1000)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SyntheticConfig:
    """The parameters of a synthetic point; every one may be an axis."""

    bits: Annotated[int, Field(ge=1, le=16)] = 8
    """Finer gives a better accuracy and costs energy."""
    size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Larger gives a better accuracy and costs area."""
    noise: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Loss of accuracy, and its spread over seeds."""
    kind: Literal["plain", "fancy"] = "plain"
    """Fancy costs twice the time for half of the noise."""
    shared: bool = False
    """Half of the area for a little accuracy."""
    fail: bool = False
    """The point raises a typed error."""
    die: bool = False
    """The process that computes the point ends at once, as one out of memory does."""
    sleep_s: Annotated[float, Field(ge=0, le=60)] = 0.0
    """Seconds to wait."""
    rounds: Annotated[int, Field(ge=0, le=10**8)] = 0
    """Blocks of a thousand bytes to digest: work without waiting."""


def synthetic(settings: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Figures of a point: a smooth law of its settings and a scatter by seed."""
    config = build(SyntheticConfig, settings, "synthetic")
    if config.die:
        os._exit(1)
    if config.fail:
        raise ObjectiveError("synthetic: fail is true, as asked. Set it to false.")
    time.sleep(config.sleep_s)
    _work(config.rounds)
    fancy = config.kind == "fancy"
    noise = config.noise / (2 if fancy else 1)
    lost = noise * (0.3 + 0.1 * _scatter(seed)) + 2.0**-config.bits + 1 / math.sqrt(config.size)
    return {
        "accuracy": 1 / (1 + lost + 0.02 * config.shared),
        "joules_per_image": 1e-12 * config.size * 2**config.bits,
        "latency_s": 1e-6 * (2 if fancy else 1),
        "area_m2": 1e-9 * config.size * (0.5 if config.shared else 1.0),
    }


def _work(rounds: int) -> None:
    seal = hashlib.blake2b()
    for _ in range(rounds):
        seal.update(BLOCK)


def _scatter(seed: int) -> float:
    """A number in [-1, 1) that belongs to the seed."""
    digest = hashlib.blake2b(str(seed).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") / 2**31 - 1
