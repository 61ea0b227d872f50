"""The laws of the optical twin, and its pictures."""

from __future__ import annotations

from pathlib import Path

from validation.physics import optics_camera as camera
from validation.physics import optics_chain as chain
from validation.physics import optics_modulator as modulator
from validation.physics import optics_pictures
from validation.physics import optics_speckle as speckle
from validation.physics import optics_time as time
from validation.physics import optics_waves as waves
from validation.physics.law import Effort, Law

LAWS: tuple[Law, ...] = (
    speckle.gaussian_speckle,
    speckle.patterns,
    speckle.singular_values,
    speckle.grain_correlation,
    speckle.grain_count,
    modulator.levels,
    modulator.half_turn,
    modulator.flicker,
    modulator.injective,
    modulator.parameter_shift,
    time.drift,
    time.presets,
    time.jumps,
    time.absolute_time,
    time.laser,
    camera.photon_transfer,
    camera.saturation,
    camera.noise,
    camera.shot_laws,
    camera.dark_current,
    waves.fresnel,
    waves.multislice,
    waves.energy,
    waves.beams,
    waves.slab_speckle,
    chain.error_budget,
)
"""All laws, in the order of the table."""


def pictures(folder: Path, effort: Effort) -> list[Path]:
    """Write the pictures into `folder`; returns their paths."""
    return optics_pictures.written(folder, effort.key.child("pictures"))
