"""The laws of the memristor twin, and its pictures."""

from __future__ import annotations

from pathlib import Path

from validation.physics import memristor_cells as cells
from validation.physics import memristor_chip as chip
from validation.physics import memristor_conduction as conduction
from validation.physics import memristor_noise as noise
from validation.physics import memristor_periphery as periphery
from validation.physics import memristor_pictures
from validation.physics import memristor_wear as wear
from validation.physics import memristor_wires as wires
from validation.physics import memristor_writing as writing
from validation.physics.law import Effort, Law

LAWS: tuple[Law, ...] = (
    cells.programming,
    writing.write_verify_yield,
    writing.write_verify_spread,
    cells.cmo_drift,
    cells.pcm_drift,
    cells.log_logistic,
    cells.arrhenius,
    cells.read_noise,
    noise.noise_floor,
    noise.telegraph,
    noise.telegraph_levels,
    wear.endurance,
    wear.read_disturb,
    conduction.curved_current,
    conduction.transistor,
    wires.ir_drop_badcrossbar,
    wires.ir_drop_nodal,
    wires.ir_drop_limits,
    periphery.adc_error,
    periphery.dac_error,
    periphery.saturation,
    periphery.calibration,
    chip.column_noise,
    chip.column_floor,
    chip.cell_histogram,
    chip.split_wait,
    chip.chip_wires,
)
"""All laws, in the order of the table."""


def pictures(folder: Path, effort: Effort) -> list[Path]:
    """Write the pictures into `folder`; returns their paths."""
    return memristor_pictures.written(folder, effort.key.child("pictures"))
