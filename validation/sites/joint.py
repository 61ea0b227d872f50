"""The network put together from both sites' final states, and its rival."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from pib import checkpoint
from pib.local import repeat_write, under
from pib.network import Network
from pib.train import Trainer
from twin.key import Key
from validation.config import RunConfig
from validation.exactwires import through_exact_wires
from validation.experiment import (
    Tensors,
    build_network,
    build_plans,
    build_trainer,
    fit_readout,
    seen_by_readout,
)  # fmt: skip
from validation.sites.order import CHECKPOINT, ROLES, Order, Role
from validation.sites.own import agree


@dataclass(frozen=True)
class Measured:
    """Test accuracies of readouts: on all units as configured, and on each alone.

    losses: per unit, rows of (seconds since the first step, loss in bit).
    """

    accuracy: float
    alone: list[float]
    seconds: float
    losses: list[list[tuple[float, float]]] = field(default_factory=list)


def joint(orders: Mapping[Role, Order], data: Tensors) -> Measured:
    """Both devices as their sites left them, in one chain, measured afresh."""
    begun = time.monotonic()
    order = orders["downstream"]
    config, key = order.run_config(), Key(order.seed)
    network = build_network(config, data.train[0].shape[1], key=key)
    try:
        assemble(network, [orders[role] for role in ROLES])
        through_exact_wires(network, [], data.train[0][:1], key=key)
        measured = network.features(data.train[0], key=key.child("joint"), phase="capture")
        accuracy, alone = accuracies(config, network, measured, data, key)
    finally:
        network.close()
    return Measured(accuracy, alone, time.monotonic() - begun)


def assemble(network: Network, orders: Sequence[Order]) -> None:
    """Put the final state of every site into a network of the same make."""
    for unit, plan in zip(network.units, build_plans(orders[0].run_config()), strict=True):
        agree(unit, plan)
    states, found = dict(network.state()), []
    for order in orders:
        loaded = checkpoint.load(order.own / CHECKPOINT)
        found.append(loaded)
        own = under(loaded.arrays, "network.")
        states |= {n: t for n, t in own.items() if n != "scales"}
        states["scales"][order.index] = own["scales"][order.index]
    network.load(states)
    for order, loaded in zip(orders, found, strict=True):
        unit = network.units[order.index]
        if not unit.fence.capabilities.restorable:
            key = Key(order.seed).child("train", "unit", order.index)
            repeat_write(unit, key, int(loaded.text["step"]))
        checkpoint.restore_devices(network, loaded)


def sequential(config: RunConfig, data: Tensors, seed: int) -> Measured:
    """One unit after the other by the ordinary trainer: same configuration, same passes."""
    begun, key = time.monotonic(), Key(seed)
    network = build_network(config, data.train[0].shape[1], key=key)
    losses: list[list[tuple[float, float]]] = [[] for _ in network.units]

    def note(trainer: Trainer) -> None:
        if trainer.last is not None:
            # At a unit's end it is the next one's turn already.
            index = trainer.unit_index - int(trainer.step == 0)
            losses[index].append((time.monotonic(), trainer.last.loss))

    try:
        trainer = build_trainer(network, data, build_plans(config), key=key.child("train"))
        trainer.run(note)
        took = time.monotonic() - begun
        measured = through_exact_wires(network, trainer.measured, data.train[0], key=key)
        accuracy, alone = accuracies(config, network, measured, data, key)
    finally:
        network.close()
    first = losses[0][0][0]
    return Measured(accuracy, alone, took, [[(t - first, x) for t, x in u] for u in losses])


def accuracies(
    config: RunConfig, network: Network, measured: Sequence[Tensor], data: Tensors, key: Key
) -> tuple[float, list[float]]:
    """Readouts on measured features of the training images, tried on the test images."""
    on_test = network.features(data.test[0], key=key.child("test"))
    views = [(seen_by_readout(config, list(measured)), seen_by_readout(config, on_test))]
    views += list(zip(measured, on_test, strict=True))
    found = []
    for train, test in views:
        readout = fit_readout(config, train, data.train[1], data.classes, key=key.child("readout"))
        found.append(readout.accuracy(test, data.test[1]))
    return found[0], found[1:]
