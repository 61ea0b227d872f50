"""One site's share of a network: its own unit, and placeholders for the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn, cast

import torch
from torch import Tensor

from pib.network import Network
from pib.plan import Plan
from pib.unit import IsomorphicUnit, Unit
from twin.errors import ConfigError, Unsupported
from twin.key import Key
from twin.ledger import Ledger
from validation.config import RunConfig
from validation.experiment import build_network, build_plans


class Elsewhere:
    """A unit that stands at another site: its width is known, nothing else.

    Whoever calls it gets an error; so a site that trains has not called it.
    """

    fixed_physics = False

    def __init__(self, name: str, width: int) -> None:
        self.name, self.width = name, width
        self.parameters: dict[str, Tensor] = {}

    def constants(self) -> dict[str, Tensor]:
        return {}

    def load_constants(self, constants: Mapping[str, Tensor]) -> None:
        """It has none."""

    def __getattr__(self, name: str) -> NoReturn:
        raise Unsupported(
            f"{self.name} stands at another site; {name!r} cannot be asked from here. "
            "Use what it has published."
        )


def own_network(config: RunConfig, pixels: int, index: int, *, key: Key, ledger: Ledger) -> Network:
    """The network as site `index` sees it: one device opened, the others elsewhere.

    The device and the first weights are those that a run of the whole network
    with this key has. The clock is the site's own, never shared.
    """
    if len(config.unit) != 2:
        raise ConfigError(
            f"two sites need a network of two units, got {len(config.unit)}. "
            "Use a hybrid preset, e.g. hybrid-digits."
        )
    # A device that costs nothing fills the other's place until the next line but one.
    free = {"backend": "ideal", "kind": "isomorphic", "options": {}}
    tables = [t if i == index else t.model_copy(update=free) for i, t in enumerate(config.unit)]
    stripped = config.model_copy(update={"unit": tuple(tables)})
    network = build_network(stripped, pixels, key=key, ledger=ledger)
    network.units = [
        unit if i == index else cast(Unit, Elsewhere(unit.name, unit.width))
        for i, unit in enumerate(network.units)
    ]
    network.shared_clock = False
    agree(network.units[index], build_plans(config)[index])
    return network


def agree(unit: Unit, plan: Plan) -> None:
    """Tell a unit how sparingly its plan wants it to write."""
    if isinstance(unit, IsomorphicUnit):
        unit.sparing(plan.writes)


def stand_in(images: Tensor, width: int, skip: bool) -> Tensor:
    """What takes the place of features before the first publication, (n, width).

    Ours. With a skip connection: darkness, so that the unit learns from its
    image part. In a chain, where darkness would teach nothing: the image
    itself, resampled to the width.
    """
    if skip:
        return torch.zeros(len(images), width)
    return torch.nn.functional.interpolate(
        images[:, None], size=width, mode="linear", align_corners=False
    )[:, 0].contiguous()
