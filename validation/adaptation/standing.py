"""A network as it stands, put aside and put back: weights, devices, links and costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from torch import Tensor

from pib import checkpoint
from pib.network import Network
from twin.errors import Unsupported
from twin.ledger import Cost

COSTS = {
    "passes": "1",
    "writes": "1",
    "device_seconds": "s",
    "waited_seconds": "s",
    "joules": "J",
}
"""What is told of a ledger, with units; ranging counts as passes."""


@dataclass(frozen=True)
class Standing:
    """Everything that a later treatment may change, as it was at one moment."""

    state: Mapping[str, Tensor]
    devices: checkpoint.Loaded
    ledger: list[dict[str, float | int | str]]

    @classmethod
    def of(cls, network: Network) -> Standing:
        """Unsupported where a device cannot be put back into an earlier state."""
        for unit in network.units:
            if not unit.fence.capabilities.restorable:
                raise Unsupported(
                    f"{unit.name}: treatments are compared from the same state, but this device "
                    "cannot be restored. Give one treatment only, on the device itself."
                )
        arrays, text = checkpoint.device_state(network)
        arrays = {name: tensor.clone() for name, tensor in arrays.items()}
        return cls(network.state(), checkpoint.Loaded(arrays, text), _ledger(network))

    def put(self, network: Network) -> None:
        """Let `network` stand like this again."""
        network.load(self.state)
        checkpoint.restore_devices(network, self.devices)
        network.units[0].fence.ledger.load(list(self.ledger))


def _ledger(network: Network) -> list[dict[str, float | int | str]]:
    return network.units[0].fence.ledger.rows()


def spent(network: Network) -> Cost:
    """All costs of a network so far, a copy."""
    total = Cost()
    total.add(network.units[0].fence.ledger.total())
    return total


def since(network: Network, before: Cost) -> dict[str, float]:
    """What was spent after `before`, by the names of COSTS."""
    now = spent(network)
    change = {f.name: getattr(now, f.name) - getattr(before, f.name) for f in fields(Cost)}
    change["passes"] += change["ranging_passes"]
    return {name: float(change[name]) for name in COSTS}
