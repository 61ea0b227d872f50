"""Crossbars for tests: what they hold, what goes in and what comes out in amperes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from substrates.memristor.crossbar import Crossbar, make
from twin.backend import Snapshot
from twin.key import Key

NO_LAWS = ("programming_scale", "relaxation_scale", "read_noise_scale")


def uniform(seed: int, *shape: int, low: float = 0.0) -> Tensor:
    """Uniform in [low, 1)."""
    return torch.rand(shape, generator=Key(seed).torch()) * (1 - low) + low


def weights(chip: Crossbar, seed: int = 5) -> Tensor:
    return uniform(seed, *chip.capabilities.settings[0].shape, low=-1.0)


def drive(chip: Crossbar, batch: int = 6, seed: int = 9) -> Tensor:
    """Drives that lie on the DAC's grid."""
    port = chip.capabilities.drives[0]
    return port.on_grid(uniform(seed, batch, *port.shape))


def written(seed: int = 1, **options: object) -> Crossbar:
    """A chip that holds random weights."""
    chip = make(key=Key(seed), **options)
    chip.program(weights(chip), key=Key(2))
    return chip


def codes(chip: Crossbar, x: Tensor, seed: int = 3, **more: int) -> Tensor:
    return chip.forward(x, key=Key(seed), **more).codes


def code_amperes(chip: Crossbar) -> Tensor:
    """What one code of the reading stands for, amperes, float64."""
    port = chip.capabilities.readings[0]
    ratio = torch.as_tensor(chip.forward(drive(chip, 1), key=Key(0)).ratio)
    return ratio.double() * port.step * port.full_scale


def amperes(chip: Crossbar, x: Tensor, seed: int = 3, **more: int) -> Tensor:
    """Readings in amperes, float64."""
    return codes(chip, x, seed, **more).double() * code_amperes(chip)


def turn(chip: Crossbar, **values: Any) -> Crossbar:
    """Turn dials, by name."""
    for name, value in values.items():
        chip.adjust(name, value, key=Key(1))
    return chip


def alike(one: Snapshot, other: Snapshot) -> bool:
    """Whether two snapshots are one state, but for its version."""
    plain = ({**s.values, "state_version": 0} for s in (one, other))
    same = set(one.arrays) == set(other.arrays)
    first, second = plain
    return (
        first == second
        and same
        and all(torch.equal(one.arrays[n], other.arrays[n]) for n in one.arrays)
    )
