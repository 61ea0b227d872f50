"""`pib-twin bench memristor`: the crossbar beside the bare product, in one run.

One pass of 256 samples through `Crossbar.forward` (DAC, exact-variance read
noise, one converter per column, bookkeeping) over `torch.mm` of the same
product, one thread; wires beside badcrossbar in the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from substrates.memristor.crossbar import Crossbar, make
from substrates.memristor.wires import Wires, effective_matrix
from twin.fence import Fence
from twin.key import Key
from validation.bench.clock import paired
from validation.oracles import badcrossbar
from validation.summary import Figure

BATCH = 256
BOUNDS = {128: "<= 5", 512: "<= 3", 1024: "<= 3"}
WIRE_BOUNDS = {64: ">= 30", 128: ">= 8"}
VARIANTS: dict[str, dict[str, object]] = {
    "with thermal floor": {"thermal_floor": 1.0},
    "with thermal floor and shot noise, F = 1/3": {"thermal_floor": 1.0, "fano": 1 / 3},
    "with converter gain, offset and noise": {
        "adc_gain_spread": 0.02, "adc_offset_lsb": 1.0, "adc_noise_lsb": 0.5,
    },
    "two 4-bit phases": {"dac_phases": 2},
    "arrays of 128 rows": {"array_rows": 128},
}  # fmt: skip


def figures(seconds: float) -> tuple[list[Figure], dict[str, Any]]:
    """Ratios to the bare product; `seconds` is spent on each."""
    rows = []
    for n, bound in BOUNDS.items():
        rows.append(_ratio(f"read_noise_dac_adc_{n}", n, {}, seconds, bound))
    rows.append(_door(512, seconds))
    for name, options in VARIANTS.items():
        rows.append(_ratio(f"512, {name}", 512, options, seconds, None))
    rows += _wires(seconds)
    rows.append(_memory())
    return rows, {"batch": BATCH, "threads": 1, "ratio": "median over pairs, theirs in turn"}


def _chip(n: int, options: dict[str, object]) -> tuple[Crossbar, torch.Tensor]:
    """A written and ranged chip on one array, and drives for it."""
    sizes = {"inputs": n, "outputs": n, "array_rows": n, "array_cols": n}
    chip = make(key=Key(1), **{**sizes, **options})
    weights = torch.rand((n, n), generator=Key(2).torch()) * 2 - 1
    chip.program(weights, key=Key(3))
    drive = torch.rand((BATCH, n), generator=Key(4).torch())
    chip.set_range(drive, key=Key(5))
    return chip, drive


def _passes(forward: Callable[..., object], drive: torch.Tensor) -> Callable[[], object]:
    count = iter(range(10**9))
    return lambda: forward(drive, key=Key(6).child(next(count)))


def _product(drive: torch.Tensor) -> Callable[[], object]:
    n = drive.shape[1]
    matrix, out = torch.rand((n, n), generator=Key(7).torch()), torch.empty_like(drive)
    return lambda: torch.mm(drive, matrix, out=out)


def _ratio(
    name: str, n: int, options: dict[str, object], seconds: float, bound: str | None
) -> Figure:
    chip, drive = _chip(n, options)
    timed = paired(_product(drive), _passes(chip.forward, drive), seconds)
    return Figure(name, timed.ratio, "x", bound, n=timed.runs)


def _door(n: int, seconds: float) -> Figure:
    """The same through the fence: checked, copied, decoded, counted."""
    chip, drive = _chip(n, {})
    door = Fence(chip, name="bench")
    timed = paired(_product(drive), _passes(door.forward, drive), seconds)
    return Figure(f"{n}, through the checked door", timed.ratio, "x", n=timed.runs)


def _wires(seconds: float) -> list[Figure]:
    """The one-off solve beside badcrossbar's solve of a batch; then a pass."""
    rows = []
    for n, bound in WIRE_BOUNDS.items():
        g = torch.rand((n, n), generator=Key(8).torch(), dtype=torch.float64) * 39e-6 + 1e-6
        wires = Wires(word_ohm=1.0, bit_ohm=1.0)
        ours = paired(partial(effective_matrix, g, wires), lambda: None, seconds)
        rows.append(Figure(f"wires_{n}_one_off_seconds", ours.ours_s, "s", n=ours.runs))
        if not badcrossbar.missing():
            volts = np.random.default_rng(9).uniform(0, 0.2, (BATCH, n))
            theirs_s = badcrossbar.currents(volts, g.numpy(), 1.0, 1.0, repeats=5)[1]
            rows.append(Figure(f"wires_{n}_badcrossbar_seconds", theirs_s, "s", n=1))
            ratio = theirs_s / ours.ours_s
            rows.append(Figure(f"wires_{n}_faster_than_badcrossbar", ratio, "x", bound, n=1))
        else:
            rows.append(Figure(f"wires_{n}_faster_than_badcrossbar", None, "x", bound))
    for n in (128, 512):
        ideal, drive = _chip(n, {"array_rows": 128, "array_cols": 128})
        wired, _ = _chip(n, {"array_rows": 128, "array_cols": 128, "word_ohm": 1.0, "bit_ohm": 1.0})
        timed = paired(_passes(ideal.forward, drive), _passes(wired.forward, drive), seconds)
        rows.append(
            Figure(f"wires_{n}_pass_over_no_wires", timed.ratio, "x", "<= 1.2", n=timed.runs)
        )
    return rows


def _memory() -> Figure:
    """Largest buffer of a pass over the size of the matrix, at batch 4096."""
    n = 256
    chip, _ = _chip(n, {})
    chip.forward(torch.rand((4096, n), generator=Key(4).torch()), key=Key(5))
    largest = max(kept.numel() for kept in chip.parts.scratch.kept())
    # Rows x columns x batch would be 4096 times the matrix.
    return Figure("largest_buffer_over_matrix_at_batch_4096", largest / n**2, "x", "<= 64")
