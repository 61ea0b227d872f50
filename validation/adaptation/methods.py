"""Who adapts: PIB and local cross-entropy in the loop, in-silico weights deployed.

Each comes blind to the fault, and masked: its controller finds the columns
whose reading never changes and makes their features zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pib.network import Network
from pib.objective import Objective
from pib.readout import Readout
from twin.errors import UnknownName, nearest
from twin.key import Key
from validation.baselines.backprop import DigitalNet, measured_on_chip
from validation.baselines.lce import LocalCrossEntropy
from validation.config import RunConfig
from validation.experiment import Tensors, build_network, build_plans, build_trainer
from validation.references import backprop_digital


@dataclass(frozen=True, kw_only=True)
class Adapting:
    """One way to train, and to mend what has broken.

    in_loop: units can be retrained on measured outputs; else only a readout.
    objective: the local loss, None for PIB's. masked: dead columns are found.
    """

    in_loop: bool = True
    objective: Callable[[], Objective] | None = None
    masked: bool = False

    def rate(self, config: RunConfig) -> float | None:
        """One learning rate for all units, None for each unit's own."""
        if self.objective is None:
            return None
        return config.references.local_cross_entropy_rate


METHODS = {
    "pib": Adapting(),
    "pib-masked": Adapting(masked=True),
    "lce": Adapting(objective=LocalCrossEntropy),
    "lce-masked": Adapting(objective=LocalCrossEntropy, masked=True),
    "backprop": Adapting(in_loop=False),
    "backprop-masked": Adapting(in_loop=False, masked=True),
}
TITLES = {
    "pib": "PIB in the loop, blind",
    "pib-masked": "PIB in the loop, dead columns masked",
    "lce": "local cross-entropy in the loop, blind",
    "lce-masked": "local cross-entropy, dead columns masked",
    "backprop": "in-silico weights deployed, blind",
    "backprop-masked": "in-silico weights deployed, dead columns masked",
}


def method(name: str) -> Adapting:
    """A method by name; UnknownName with the nearest one."""
    if name not in METHODS:
        raise UnknownName(f"no method {name!r}. {nearest(name, METHODS)}")
    return METHODS[name]


@dataclass(frozen=True)
class Trained:
    """A network trained or deployed while healthy.

    measured: its features of the training images, by unit. head: of the
    in-silico net, which was trained with the weights.
    """

    network: Network
    measured: list[Tensor]
    head: Readout | None = None


def trained(config: RunConfig, data: Tensors, who: Adapting, key: Key) -> Trained:
    """Train in the loop, or in silico and write the weights onto the devices."""
    config = masking(config, who.masked)
    if not who.in_loop:
        net, _ = backprop_digital(config, data, key=key)
        network = build_network(config, data.train[0].shape[1], key=key)
        measured = measured_on_chip(net, network, data.train[0], key=key.child("deploy"))
        return Trained(network, measured, head_of(net))
    network = build_network(config, data.train[0].shape[1], key=key)
    plans = build_plans(config, who.objective, who.rate(config))
    trainer = build_trainer(network, data, plans, key=key.child("train"))
    trainer.RECORDS_PER_UNIT = trainer.PROBES_PER_UNIT = 0
    return Trained(network, trainer.run())


def masking(config: RunConfig, masked: bool) -> RunConfig:
    """The configuration whose isomorphic units find dead columns, or are blind to them."""
    units = tuple(
        u.model_copy(update={"mask_constant": masked}) if u.kind == "isomorphic" else u
        for u in config.unit
    )
    return config.model_copy(update={"unit": units})


def head_of(net: DigitalNet) -> Readout:
    """The net's own head as a readout on the features of all units."""
    weight, bias = (t.detach().clone() for t in net.head)
    width = len(weight)
    return Readout(mean=torch.zeros(width), scale=torch.ones(width), weight=weight, bias=bias)
