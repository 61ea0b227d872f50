"""`pib-twin bench optics`: the rig beside the bare complex product, in one run.

One pass of 64 frames, 784 channels to 4096 pixels, through `OpticalRig.forward`
(encoding, medium, intensity, camera) over `torch.mm` of complex64 matrices of
that size, one thread; then free space and media beside LightPipes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from substrates.optics.rig import make
from twin.fence import Fence
from twin.key import Key
from validation.bench import optics_propagation
from validation.bench.clock import paired
from validation.summary import Figure

BATCH, CHANNELS, PIXELS = 64, 784, 4096
CASES: tuple[tuple[str, dict[str, object], str | None], ...] = (
    ("poisson_camera", {"shot_noise": "poisson"}, "<= 2"),
    ("gaussian_camera", {"shot_noise": "gaussian"}, "<= 1.15"),
    ("mirrors, one real product, gaussian camera",
     {"shot_noise": "gaussian", "modulator": {"kind": "dmd"}}, None),
    ("12 bits, maps of a real sensor", {"preset": "scmos", "sensor": "scmos"}, None),
    ("drift of 10 minutes, gaussian camera", {"shot_noise": "gaussian", "drift": "slow"}, None),
)  # fmt: skip


def figures(seconds: float) -> tuple[list[Figure], dict[str, Any]]:
    """Ratios to the bare product; `seconds` is spent on each."""
    rows = [_ratio(name, options, seconds, bound) for name, options, bound in CASES]
    rows.append(_door(seconds))
    rows += optics_propagation.figures(seconds)
    sizes = f"{BATCH} frames, {CHANNELS} channels, {PIXELS} pixels"
    return rows, {"sizes": sizes, "threads": 1, "ratio": "median over pairs, theirs in turn"}


def _product() -> Callable[[], object]:
    parts = torch.randn((2, BATCH + PIXELS, CHANNELS), generator=Key(1).torch())
    both = torch.complex(parts[0], parts[1])
    light, matrix = both[:BATCH].contiguous(), both[BATCH:].contiguous()
    out = torch.empty((BATCH, PIXELS), dtype=torch.complex64)
    return lambda: torch.mm(light, matrix.t(), out=out)


def _passes(forward: Callable[..., object]) -> Callable[[], object]:
    drive = torch.rand((BATCH, CHANNELS), generator=Key(2).torch())
    count = iter(range(10**9))
    return lambda: forward(drive, key=Key(3).child(next(count)))


def _ratio(name: str, options: dict[str, object], seconds: float, bound: str | None) -> Figure:
    rig = make(key=Key(4), inputs=CHANNELS, pixels=PIXELS, **options)
    timed = paired(_product(), _passes(rig.forward), seconds)
    return Figure(name, timed.ratio, "x", bound, n=timed.runs)


def _door(seconds: float) -> Figure:
    """The same through the fence: checked, copied, decoded, counted."""
    rig = make(key=Key(4), inputs=CHANNELS, pixels=PIXELS, shot_noise="gaussian")
    timed = paired(_product(), _passes(Fence(rig, name="bench").forward), seconds)
    return Figure("gaussian camera, through the checked door", timed.ratio, "x", n=timed.runs)
