"""The whole rig beside its error budget: no training, one number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from substrates.optics.budget import budget
from substrates.optics.conditions import conditions_of
from substrates.optics.medium import GaussianMedium
from substrates.optics.presets import configured
from substrates.optics.rig import OpticalRig
from validation.physics import estimates
from validation.physics.law import Effort, Outcome
from validation.physics.optics_modulator import correlations
from validation.physics.resolved import resolved

SIZE = {"inputs": 256, "pixels": 2048}

RIGS: dict[str, dict[str, Any]] = {
    "industrial": {},
    "scmos at 20 e": {"preset": "scmos", "mean_electrons": 20.0},
    "16 levels, flicker, residue": {
        "modulator_levels": 16,
        "phase_flicker_rad": 0.2,
        "unmodulated_fraction": 0.1,
    },
    "full scale at 4 means, 4 bits": {"full_scale_over_mean": 4.0, "camera_bits": 4},
}
"""Options of each rig, besides SIZE."""


def error_budget(effort: Effort) -> Iterator[Outcome]:
    """Frames of whole rigs against those of a perfect one behind the same medium."""
    generator = effort.key.child("drive").torch()
    drive = torch.rand((effort.n(192, 64), SIZE["inputs"]), generator=generator)
    for name, options in RIGS.items():
        config = configured({**SIZE, **options})
        channels = SIZE["inputs"] + (config.unmodulated_fraction > 0)
        medium = GaussianMedium(channels, SIZE["pixels"], effort.key.child("medium"))
        rig = OpticalRig(config, effort.key, medium)
        frames = rig.forward(drive, key=effort.key.child(name)).codes.double()
        light = torch.polar(torch.ones_like(drive), torch.pi * drive)
        truth = (light @ medium.matrix[:, : SIZE["inputs"]].T).abs().square()
        found = estimates.mean(correlations(truth, frames))
        law = budget(conditions_of(config)).correlation
        yield resolved(f"error budget, {name}", found, law, 0.01, "product of closed forms")
