"""From approximate wires while training to exact ones for what is reported."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pib.network import Network
from twin.key import Key

DIAL = "wire_refresh"


def through_exact_wires(
    network: Network, measured: Sequence[Tensor], images: Tensor, *, key: Key
) -> list[Tensor]:
    """Features of the training images as the reported ones will be measured.

    A device may solve its wires only every few writes (dial wire_refresh above
    1), since it is written after every step. Here, after the last one, that
    dial is turned to 1 on every unit that has it. If any was turned, all features
    are measured again: readout and test then see the same wires, and units
    that have aged since their own end. Otherwise `measured` is returned.
    key: of the run. images: (n, pixels), as trained on.
    """
    turned = False
    for unit in network.units:
        declared = {dial.name: dial for dial in unit.fence.capabilities.dials}
        dial = declared.get(DIAL)
        if dial is None or dial.read_only or dial.default == 1:
            continue
        unit.fence.adjust(DIAL, 1.0, key=key.child("exact wires"))
        turned = True
    if not turned:
        return list(measured)
    return network.features(images, key=key.child("exact wires"), phase="capture")
