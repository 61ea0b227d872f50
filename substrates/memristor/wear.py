"""What use does to a cell: it fails after so many writes, and reads disturb it.

Pure functions of counts. A cell's lifetime is drawn once from the device's key.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from substrates.memristor.traits import Disturb, Endurance
from twin.errors import DialError
from twin.key import Key

Count = int | float | Tensor


def lifetimes(key: Key, shape: tuple[int, ...], table: Endurance) -> Tensor:
    """Writes each cell survives, (shape), float64, >= 1; drawn on the CPU.

    Weibull: P(N <= n) = 1 - 2 ** -((n / median) ** shape). Log-normal:
    ln N = ln median + spread_ln N(0, 1). Which one, and its numbers, is the table's.

    Scale: 1e6 cycles at each of four levels in HfOx (Huang et al., analytic model
    of endurance degradation of metal-oxide RRAM), 1e11 weak incremental updates
    in analog RRAM (Zhao et al., IEDM 2018, doi 10.1109/IEDM.2018.8614664): a
    write-verify pulse counts for far less than a full cycle. The form of the law
    over cells is assumed; permanent failures are filaments broken through (high)
    or dissolved (low), Grossi et al. 2019, doi 10.1109/TED.2019.2894387.
    """
    generator = key.child("endurance").torch()
    if table.weibull_shape is not None:
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
        scaled = torch.log1p(-uniform).mul_(-1 / math.log(2)).pow_(1 / table.weibull_shape)
    else:
        assert table.spread_ln is not None, "the table has one of the two"
        normal = torch.randn(shape, generator=generator, dtype=torch.float64)
        scaled = normal.mul_(table.spread_ln).exp_()
    return scaled.mul_(table.median_cycles).clamp_(min=1.0)


def worn_out(lifetime: Tensor, cycles: Count) -> Tensor:
    """Which cells no write moves any more: those with cycles >= lifetime, bool.

    cycles: full cycles so far, one number or one per cell.
    """
    _check_count("cycles", cycles)
    return lifetime <= cycles


def stuck(g: Tensor, failed: Tensor, table: Endurance, low: float, high: float) -> Tensor:
    """Conductances with failed cells at the end of the window they fail to, siemens.

    low, high: the window, siemens. "high" is a filament that does not break,
    "low" one that is gone.
    """
    return torch.where(failed, torch.full_like(g, low if table.fails_to == "low" else high), g)


def disturbed(g: Tensor, reads: Count, table: Disturb) -> Tensor:
    """Conductance after so many reads since the cell's last write, siemens.

    g (1 - loss), loss = relative_per_decade x log10(reads / first_reads), none up
    to first_reads and never more than all. A write restarts it: give the reads
    since then, one number or one per cell. Holds at the read voltage of the
    table; a deterministic mean, cells differ.

    Data of this kind: 1e6 reads of 0.2 V on 936 analog cells, Yao et al., Nature
    577, 641 (2020), Extended Data Fig. 7; that the mean goes with the logarithm
    is assumed.
    """
    return g * (1 - disturb_loss(reads, table)).to(g)


def disturb_loss(reads: Count, table: Disturb) -> Tensor:
    """Fraction of the conductance lost after so many reads, [0, 1], float64."""
    _check_count("reads", reads)
    count = torch.as_tensor(reads, dtype=torch.float64)
    decades = torch.log10(torch.clamp(count / table.first_reads, min=1.0))
    return torch.clamp(decades * table.relative_per_decade, 0.0, 1.0)


def _check_count(name: str, count: Count) -> None:
    shown = torch.as_tensor(count, dtype=torch.float64)
    bad = ~((shown >= 0) & (shown < math.inf))
    if bool(bad.any()):
        raise DialError(
            f"wear: {name} must be a finite number from 0 up, got {shown[bad].flatten()[0].item()}."
            " Count from the making of the device, or from the last write for reads."
        )
