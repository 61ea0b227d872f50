"""A crossbar's non-idealities as arrays, for the report.

Conductances in siemens, times in seconds, currents in amperes, converters in codes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from substrates.memristor.crossbar import Crossbar
from substrates.memristor.rtn import Traps
from substrates.memristor.wires import interleaved
from twin.key import Key
from validation import memristor_facts as facts
from validation.memristor_transfer import transfer

SHOTS, CELLS, TIMES = 5_000, 50, 61
LONGEST_S = 1e6
FAINT = 0.01
_KEY = Key(0).child("pictures of a crossbar")

Arrays = dict[str, xr.DataArray]


def measured(chip: Crossbar) -> Arrays:
    """Everything the section shows; the chip ages by up to LONGEST_S."""
    found = {"facts": facts.table(chip)}
    found |= _shots(chip)
    found |= transfer(chip)
    found |= _ir_drop(chip)
    # Last, since it takes the chip's time.
    return found | _drift(chip)


# ---- shots -------------------------------------------------------------------


def _shots(chip: Crossbar) -> Arrays:
    """Reads of the cell nearest the reference, drawn from its own noise in the chip
    as it is; and of one with a trap, along that trap's own history."""
    dials, now = chip._dials, chip._moment()
    g = chip.conductances()
    variance = chip.parts.cells.read_variance(g, now, dials)
    sigma = torch.zeros_like(g) if variance is None else variance.sqrt()
    found: Arrays = {}
    quiet = _nearest(chip, 1)
    if variance is not None and len(quiet):
        (cell,) = quiet
        spread = float(sigma.flatten()[cell])
        mean = float(g.flatten()[cell])
        reads = mean + spread * _normals(chip, "quiet")
        facts_of = {"mean_siemens": mean, "sigma_siemens": spread}
        found["quiet"] = _reads(chip, int(cell), reads, facts_of)
    chosen = _visible_trap(chip, g, sigma)
    if chosen is not None:
        found["trapped"] = _trapped(chip, chosen, g, sigma)
    return found


def _trapped(chip: Crossbar, trap: Traps, g: Tensor, sigma: Tensor) -> xr.DataArray:
    cell, loss = int(trap.cells[0]), float(trap.amplitudes[0])
    clock_s = chip._clock.now_s
    empty = float(g.flatten()[cell])
    if bool(trap.occupied(clock_s)[0]):
        empty /= 1 - loss
    # Far enough apart to show how often it is filled, not one long visit.
    interval_s = max(chip._sample_s, float(trap.relaxation_s[0]))
    times = clock_s + interval_s * torch.arange(SHOTS, dtype=torch.float64)
    filled = trap.history(times)[:, 0].numpy()
    spread = float(sigma.flatten()[cell])
    reads = empty * np.where(filled, 1 - loss, 1.0) + spread * _normals(chip, "trapped")
    facts_of = {
        "mean_siemens": empty,
        "sigma_siemens": spread,
        "loss": loss,
        "filled_share": float(trap.occupancy[0]),
        "relaxation_s": float(trap.relaxation_s[0]),
        "interval_s": interval_s,
    }
    return _reads(chip, cell, reads, facts_of)


def _visible_trap(chip: Crossbar, g: Tensor, sigma: Tensor) -> Traps | None:
    """One cell's only trap: often in both states, with steps that the noise does not
    hide, nearest to the reference; the one that shows best if there is none such."""
    dials = chip._dials
    groups = [t for t in chip.parts.cells.traps(dials) if len(t)]
    if not groups:
        return None
    cells = torch.cat([t.cells for t in groups])
    share = torch.cat([t.occupancy for t in groups])
    g, sigma = g.flatten().cpu()[cells], sigma.flatten().cpu()[cells]
    step = torch.cat([t.amplitudes for t in groups]) * g
    ratio = (step / sigma.clamp(min=1e-12)).clamp(max=10.0)
    alone = torch.bincount(cells)[cells] == 1
    usable = alone & (step > 0) & ~facts.stuck(chip).flatten()[cells]
    if not bool(usable.any()):
        return None
    slow = torch.cat([t.relaxation_s for t in groups]) > 1.0
    clear = usable & ~slow & (ratio > 3) & (share > 0.2) & (share < 0.8)
    if bool(clear.any()):
        score = torch.where(clear, -(g - facts.reference(chip)[0]).abs(), -torch.inf)
    else:
        score = torch.where(usable, share * (1 - share) * ratio**2, -torch.inf)
    best = int(score.argmax())
    for group in groups:
        if best < len(group):
            return group.only(best)
        best -= len(group)
    raise AssertionError("unreachable")


def _nearest(chip: Crossbar, count: int) -> NDArray[np.int64]:
    """Flat indices of the cells nearest the reference, neither stuck nor trapped."""
    usable = ~facts.stuck(chip).flatten()
    for traps in chip.parts.cells.traps(chip._dials):
        usable[traps.cells] = False
    off = (chip.conductances().flatten().cpu() - facts.reference(chip)[0]).abs()
    order = torch.where(usable, off, torch.inf).argsort(stable=True)
    return order[: min(count, int(usable.sum()))].numpy()


def _reads(
    chip: Crossbar, cell: int, reads: NDArray[np.float64], more: Mapping[str, float]
) -> xr.DataArray:
    attributes = {"units": "S", "cell": facts.place(chip, cell), **more}
    attributes["reference"] = facts.reference(chip)[1]
    return xr.DataArray(reads.astype(np.float32), dims=("shot",), attrs=attributes)


def _normals(chip: Crossbar, name: str) -> NDArray[np.float64]:
    return _KEY.child(chip.capabilities.device_id, name).numpy().standard_normal(SHOTS)


# ---- wires and time ----------------------------------------------------------


def _ir_drop(chip: Crossbar) -> Arrays:
    """Effective over actual conductance of the first array; none without wires.

    nan for cells of less than FAINT of the window's top: most of what their columns
    get from their rows has leaked there through other cells.
    """
    parts, dials = chip.parts, chip._dials
    if parts.wiring.wires(dials).ideal:
        return {}
    g = parts.conductances(chip._moment(), dials)
    least = FAINT * chip.config.g_max_siemens
    ratio = torch.where(g > least, parts.wiring.effective(g, dials) / g, torch.nan)
    tiling = chip.layout.tiling
    first = ratio[:, tiling.rows[0]].cpu()
    if parts.encoding.kind == "offset":
        shown, layout = first[0], "cells, then the reference column"
    elif chip.config.pair_layout == "neighbours":
        shown, layout = interleaved(first[:2, :, tiling.cols[0]]), "G+ and G- in turn"
    else:
        shown, layout = first[0][:, tiling.cols[0]], "G+"
    attributes = {"units": "1", "columns": layout, "least_siemens": least}
    return {"ir_drop": xr.DataArray(shown.numpy(), dims=("row", "column"), attrs=attributes)}


def _drift(chip: Crossbar) -> Arrays:
    """Cells from now on, and the mean of the law for them; none where no cell moves."""
    # A hair less, so that adding up does not pass the end of the data.
    last_s = min(LONGEST_S, chip.remaining_s() * (1 - 1e-6))
    cells = _nearest(chip, CELLS)
    if not facts.relaxes(chip) or last_s < 10 or not len(cells):
        return {}
    times = np.logspace(0, np.log10(last_s), TIMES)
    age_s = chip.age_s
    siemens, law = np.empty((len(cells), TIMES), np.float32), np.empty(TIMES)
    start = _average(chip, cells)
    siemens_now = chip.conductances().flatten().cpu().numpy()[cells]
    waited = 0.0
    for i, time_s in enumerate(times.tolist()):
        chip.wait(time_s - waited)
        waited = time_s
        siemens[:, i] = chip.conductances().flatten().cpu().numpy()[cells]
        law[i] = siemens_now.mean() + _average(chip, cells) - start
    attributes = {"units": "S", "age_s": age_s, "reference": facts.reference(chip)[1]}
    return {
        "drift_s": xr.DataArray(times, dims=("time",), attrs={"units": "s"}),
        "drift": xr.DataArray(siemens, dims=("cell", "time"), attrs=attributes),
        "drift_law": xr.DataArray(law, dims=("time",), attrs={"units": "S"}),
    }


def _average(chip: Crossbar, cells: NDArray[np.int64]) -> float:
    """Mean conductance of these cells if each relaxed like the average."""
    alike = chip.parts.cells.relaxed_alike(chip._moment(), chip._dials)
    return float(alike.flatten().cpu()[cells].double().mean())
