"""Laws of the wires: two independent solves of Kirchhoff's equations, and limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from substrates.memristor.nodal import nodal_oracle
from substrates.memristor.wires import Wires, effective_matrix, effective_pairs
from twin.key import Key
from validation.oracles import badcrossbar
from validation.physics.law import Check, Effort, Outcome, Skipped

AGREE = 1e-9
LOW, HIGH, VOLTS = 1e-6, 40e-6, 0.2
ONE_OHM = Wires(word_ohm=1.0, bit_ohm=1.0)
VECTORS = 4


def ir_drop_badcrossbar(effort: Effort) -> Iterator[Outcome]:
    """Output currents against an exact nodal solver of others."""
    if badcrossbar.missing():
        yield Skipped("IR drop against badcrossbar", badcrossbar.missing())
        return
    for size in (8, 32, 64):
        g, volts = _array(effort.key.child(size), size)
        found, _ = badcrossbar.currents(volts.numpy(), g.numpy(), ONE_OHM.word_ohm, ONE_OHM.bit_ohm)
        oracle = torch.from_numpy(found)
        yield _agreement(f"IR drop against badcrossbar, {size} x {size}", g, volts, oracle)


def ir_drop_nodal(effort: Effort) -> Iterator[Outcome]:
    """Single lines and signed pairs against a sparse solve of every node."""
    everything = replace(ONE_OHM, driver_ohm=50.0, sense_ohm=20.0, bit_ohm=0.35)
    both = replace(everything, word_both_sides=True, bit_both_sides=True)
    for name, wires in (("drivers and sense", everything), ("both sides", both)):
        g, volts = _array(effort.key.child(name), 24)
        oracle = nodal_oracle(g, volts, wires).currents
        yield _agreement(f"IR drop against nodes, {name}", g, volts, oracle, wires)
    yield from _pairs(effort.key.child("pairs"), everything)


def _pairs(key: Key, wires: Wires) -> Iterator[Outcome]:
    """G+ and G- in turn on neighbouring bit lines, solved as the one array they are."""
    g, volts = _array(key, 16, (2, 16, 12))
    laid_out = torch.stack([g[0], g[1]], dim=2).reshape(16, 24)
    oracle = nodal_oracle(laid_out, volts, wires).currents
    matrix = effective_pairs(g, wires)
    yield _check(
        "IR drop of neighbouring pairs against nodes",
        volts @ (matrix[0] - matrix[1]),
        oracle[:, 0::2] - oracle[:, 1::2],
        oracle,
    )


def ir_drop_limits(effort: Effort) -> Iterator[Outcome]:
    """One cell behind its wires is a voltage divider; long lines lose a known share."""
    g = torch.tensor([[23.4e-6]], dtype=torch.float64)
    wires = Wires(word_ohm=100.0, bit_ohm=200.0, driver_ohm=300.0, sense_ohm=400.0)
    yield Check(
        name="one cell behind its wires",
        measured=effective_matrix(g, wires).item() * 1e6,
        expected=1e6 / (1 / 23.4e-6 + 1000.0),
        tolerance=1e-12 * 23.4,
        source="resistors in series",
        unit="uS",
    )
    g, _ = _array(effort.key, 32)
    yield Check(
        name="no wires, no drop",
        measured=float((effective_matrix(g, Wires(word_ohm=0.0, bit_ohm=0.0)) - g).abs().max()),
        expected=0.0,
        tolerance=0.0,
        source="ideal wires",
        unit="S",
    )


def _array(key: Key, rows: int, shape: tuple[int, ...] | None = None) -> tuple[Tensor, Tensor]:
    """Uniformly random conductances (rows, rows) and drives (VECTORS, rows), float64."""
    generator = key.torch()
    g = torch.rand(shape or (rows, rows), generator=generator, dtype=torch.float64)
    volts = torch.rand((VECTORS, rows), generator=generator, dtype=torch.float64) * VOLTS
    return LOW + (HIGH - LOW) * g, volts


def _agreement(
    name: str, g: Tensor, volts: Tensor, oracle: Tensor, wires: Wires = ONE_OHM
) -> Check:
    return _check(name, volts @ effective_matrix(g, wires), oracle, oracle)


def _check(name: str, found: Tensor, oracle: Tensor, scale: Tensor) -> Check:
    return Check(
        name=name,
        measured=float((found - oracle).abs().max() / scale.abs().max()),
        expected=0.0,
        tolerance=AGREE,
        source="Kirchhoff at every node",
        n=oracle.numel(),
    )
