"""Pictures of the memristor's non-idealities, from its own laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from substrates.converter import half_span, signed_codes_
from substrates.memristor import technology
from substrates.memristor.converters import Errors
from substrates.memristor.rtn import Traps
from substrates.memristor.wires import Wires, effective_matrix
from twin.key import Key
from validation.physics import pictures
from validation.physics.published import CMO_LOSS

TECHNOLOGY = "cmo-hfox-2"
CELL_SIEMENS = 23.4e-6
SHOTS, CELLS, SIZE, BITS = 5_000, 50, 64, 8
SHOT_S = 1e-6


def written(folder: Path, key: Key) -> list[Path]:
    """All pictures as PNG files in `folder`."""
    makers = {
        "histogram.png": histogram,
        "drift.png": drift,
        "adc_transfer.png": adc_transfer,
        "ir_drop.png": ir_drop,
    }

    def drawn(name: str) -> Path:
        own = key.child(name)
        return pictures.printed(folder / name, lambda: makers[name](own))

    return [drawn(name) for name in makers]


def histogram(key: Key) -> Figure:
    """Shots of one quiet cell of 23.4 uS and of one with an active trap."""
    cell = torch.full((SHOTS,), CELL_SIEMENS, dtype=torch.float64)
    sigma = float(technology.load(TECHNOLOGY).read_sigma(cell[:1], 1.0))
    quiet = cell + sigma * _normals(key.child("quiet"), SHOTS)
    trap = Traps(key, [0], [0.03], [400 * SHOT_S], [200 * SHOT_S])
    times = 1.0 + SHOT_S * torch.arange(SHOTS, dtype=torch.float64)
    held = trap.history(times)[:, 0]
    restless = cell * torch.where(held, 0.97, 1.0) + sigma * _normals(key.child("trap"), SHOTS)
    return pictures.histogram(
        quiet.numpy(), restless.numpy(), sigma, "A cell of 23.4 uS, CMO/HfOx, 1 s after the write"
    )


def drift(key: Key) -> Figure:
    """Fifty cells from a second to four months after their write."""
    found = technology.load(TECHNOLOGY)
    targets = torch.full((CELLS,), CELL_SIEMENS, dtype=torch.float64)
    cells = found.programmed(targets, _normals(key.child("write"), CELLS))
    normals = _normals(key.child("relax"), CELLS)
    times = np.logspace(-1, 7, 81)
    at = [found.relaxed(cells, targets, normals, t).numpy() for t in times.tolist()]
    law = CELL_SIEMENS - CMO_LOSS * 1e-6 * np.log(np.maximum(times, 1.0))
    title = "Drift of cells written to 23.4 uS, CMO/HfOx"
    return pictures.drift(times, np.stack(at, 1), law, title)


def adc_transfer(key: Key) -> Figure:
    """A converter with 2 % gain error, an offset of 3 codes and a bow of 2."""
    del key  # nothing of it is random
    half = half_span(BITS)
    lsb = torch.linspace(-1.15 * half, 1.15 * half, 4001)
    ideal, real = lsb.clone(), lsb * 1.02 + 3.0
    errors = Errors(factor=None, offset=None, inl=torch.tensor(2.0), noise=0.0)
    errors.bend_(real, BITS)
    signed_codes_(ideal, BITS)
    signed_codes_(real, BITS)
    title = "8-bit converter: gain +2 %, offset 3, bow 2 codes"
    amperes = (lsb / half * 20e-6).double().numpy()
    return pictures.adc_transfer(amperes, real.double().numpy(), ideal.double().numpy(), title)


def ir_drop(key: Key) -> Figure:
    """What a 64 x 64 array loses to 1 ohm per segment."""
    drawn = torch.rand((SIZE, SIZE), generator=key.torch(), dtype=torch.float64)
    g = 1e-6 + 39e-6 * drawn
    seen = effective_matrix(g, Wires(word_ohm=1.0, bit_ohm=1.0)) / g
    return pictures.ir_drop(seen.numpy(), "IR drop, 1 to 40 uS, 1 ohm per segment")


def _normals(key: Key, n: int) -> Tensor:
    return torch.randn(n, generator=key.torch(), dtype=torch.float64)
