"""The digital half of a backward pass: from a unit's feature to its reading, and from
a unit's drive to the feature before it. What lies between is physics.
"""

from __future__ import annotations

from torch import Tensor

from pib.network import Network
from pib.unit import Record, Unit


def at_reading(unit: Unit, pre_activation: Tensor, at_feature: Tensor) -> Tensor:
    """d loss / d reading, (n, reading), from d loss / d feature, (n, width).

    Through relu and what the computer does to a reading: the digital layer and
    its standardisation, or the scale of a written matrix.
    """
    delta = at_feature * (pre_activation > 0)
    constants = unit.constants()
    if unit.fixed_physics:
        return (delta @ unit.parameters["weight"].T) / constants["scale"]
    return delta * constants["alive"] * constants["scale"] * gain_of(unit)


def gain_of(unit: Unit) -> float:
    """A reading of 1 of a written matrix stands for so much of drive x setting."""
    fence = unit.fence
    setting = fence.capabilities.settings[0]
    return fence.reading_port.full_scale / (fence.drive_port.full_scale * setting.full_scale)


def setting_of(unit: Unit) -> Tensor | None:
    """What was last asked to be written, (inputs, outputs); None for fixed physics."""
    if unit.fixed_physics:
        return None
    return (unit.parameters["weight"] / unit.constants()["scale"]).clamp(-1, 1)


def at_feature_before(network: Network, index: int, before: Tensor, at_drive: Tensor) -> Tensor:
    """d loss / d feature of the unit before `index`, (n, width), from d loss / d drive.

    before: that feature. Where the link clips, nothing comes through; rounding to
    the converter's grid is passed straight through.
    """
    width, copies = before.shape[1], network.copies[index]
    scale = network.scales[index - 1]
    shares = at_drive[:, : width * copies].reshape(len(before), copies, width).sum(1)
    inside = (before >= 0) & (before <= scale)
    return shares * inside / scale


def record_as_if(record: Record, values: Tensor) -> Record:
    """The same pass with other values, as dropout makes them."""
    return Record(drive=record.drive, values=values, saturated=record.saturated)
