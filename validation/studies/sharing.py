"""What points share: networks trained alike, and units trained alike below others.

Everything is kept under a digest of all it depends on, and stands after loading
as right after training, to the bit.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from pib import checkpoint
from pib.network import Network
from pib.readout import Readout
from pib.train import Trainer
from validation.config import RunConfig
from validation.studies.codeversion import code_version
from validation.studies.kept import Keeper, Kept
from validation.studies.points import canonical

OURS = ("memristor", "optics")
"""Backends that can be restored, and whose source is in the digest."""

NO_MATTER = {"about", "bounds", "quick"}
"""Tables of a configuration that change nothing that is computed."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """All that a trained network depends on.

    data: a digest of the images and labels. dials: (unit, name, value), turned
    before training. family: of the method.
    """

    config: RunConfig
    family: str
    seed: int
    data: str
    dials: Sequence[tuple[int, str, float]] = ()

    def whole(self) -> str:
        """The name of the trained network with its readouts."""
        return self._named("network", self.config.model_dump(mode="json", exclude=NO_MATTER))

    def until(self, last: int) -> str:
        """The name of the units up to `last` (from 0), trained greedily.

        Later units are left out, unless they wait while these are trained.
        """
        table = self.config.model_dump(mode="json", exclude=NO_MATTER | {"readout"})
        del table["network"]["readout"]
        if self.family != "lce":
            del table["references"]
        shared_clock = self.config.network.shared_clock
        if not shared_clock:
            table["unit"] = table["unit"][: last + 1]
            if last == 0:
                del table["network"]  # skip and hard examples concern later units
        dials = [dial for dial in self.dials if shared_clock or dial[0] <= last]
        return self._named("units", [last, shared_clock, table], dials)

    def _named(self, kind: str, table: Any, dials: Any = None) -> str:
        content = {
            "table": table,
            "family": self.family,
            "seed": self.seed,
            "data": self.data,
            "dials": [list(dial) for dial in (self.dials if dials is None else dials)],
            "code": code_version(*sorted({unit.backend for unit in self.config.unit})),
            "torch": [torch.__version__, torch.get_num_threads()],
        }
        return f"{kind}-{hashlib.blake2b(canonical(content), digest_size=20).hexdigest()}"


@dataclass(frozen=True)
class Shared:
    """Where one training may find and leave what it has in common with others."""

    keeper: Keeper
    training: Training

    # -- units, while training ------------------------------------------------

    def go_on(self, trainer: Trainer) -> None:
        """Put the trainer behind the last unit that is kept, if any."""
        for last in reversed(range(len(trainer.network.units) - 1)):
            kept = self.keeper.get(self.training.until(last))
            if kept is not None:
                _stand(trainer.network, self._concerned(last), kept)
                trainer.measured = [kept.arrays[f"measured.{i}"] for i in range(last + 1)]
                trainer.unit_index = last + 1
                return

    def unit_ended(self, trainer: Trainer) -> None:
        """Keep the unit that has just been trained, if others follow."""
        last = trainer.unit_index - 1
        if trainer.finished:
            return
        arrays, facts = _standing(trainer.network, self._concerned(last))
        arrays |= {f"measured.{i}": t for i, t in enumerate(trainer.measured)}
        self.keeper.put(self.training.until(last), arrays, facts)

    def _concerned(self, last: int) -> slice:
        """Units whose devices have changed until unit `last` was trained."""
        return slice(None) if self.training.config.network.shared_clock else slice(0, last + 1)

    # -- a whole network --------------------------------------------------------

    def trained(self, network: Network) -> dict[str, Readout] | None:
        """The readouts, the network standing as trained; None if it is not kept."""
        kept = self.keeper.get(self.training.whole())
        if kept is None:
            return None
        _stand(network, slice(None), kept)
        return {name: _readout(kept, name) for name in kept.facts["readouts"]}

    def keep(self, network: Network, readouts: Mapping[str, Readout]) -> None:
        """Keep a trained network as it stands."""
        arrays, facts = _standing(network, slice(None))
        for name, readout in readouts.items():
            arrays |= {f"readout.{name}.{n}": t for n, t in readout.state().items()}
        facts["readouts"] = list(readouts)
        self.keeper.put(self.training.whole(), arrays, facts)


def keeper() -> Keeper:
    """The folder of what is kept: in PIB_TWIN_CACHE, else in the user's cache."""
    import pooch

    folder = os.environ.get("PIB_TWIN_CACHE") or pooch.os_cache("pib-twin")
    return Keeper(Path(folder) / "trained")


def sharable(network: Network, config: RunConfig) -> bool:
    """Whether all that the devices do follows from what is in the digest."""
    ours = all(unit.backend in OURS for unit in config.unit)
    return ours and all(unit.fence.capabilities.restorable for unit in network.units)


def _part(network: Network, units: slice) -> Network:
    """Some first units of a network as a network of their own."""
    return Network(
        network.units[units],
        skip=network.skip,
        scales=list(network.scales[units]),
        copies=network.copies[units],
        shared_clock=network.shared_clock,
    )


def _standing(network: Network, units: slice) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters, devices and costs of some first units, as tensors and facts."""
    part = _part(network, units)
    arrays, devices = checkpoint.device_state(part)
    arrays |= {f"network.{n}": t for n, t in part.state().items()}
    return arrays, {"devices": devices, "ledger": part.units[0].fence.ledger.rows()}


def _stand(network: Network, units: slice, kept: Kept) -> None:
    """Put some first units into the state they were kept in."""
    part = _part(network, units)
    head = "network."
    part.load({n[len(head) :]: t for n, t in kept.arrays.items() if n.startswith(head)})
    network.scales[units] = part.scales
    checkpoint.restore_devices(part, checkpoint.Loaded(kept.arrays, kept.facts["devices"]))
    part.units[0].fence.ledger.load(kept.facts["ledger"])


def _readout(kept: Kept, name: str) -> Readout:
    return Readout(**{f.name: kept.arrays[f"readout.{name}.{f.name}"] for f in fields(Readout)})
