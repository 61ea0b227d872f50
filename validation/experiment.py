"""From a configuration to a network, its training data and its plans."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from pib.augment import Augment
from pib.batches import Classes
from pib.network import Network
from pib.objective import InformationBottleneck, Objective
from pib.readout import Readout, ReadoutRecipe, train_readout
from pib.train import Plan, Trainer, TrainingData
from pib.unit import DigitalLayerUnit, IsomorphicUnit, Unit
from pib.unsupervised import Unsupervised
from pib.writes import Writes
from twin.backend import Capabilities, MinimalBackend
from twin.errors import ConfigError
from twin.fence import Fence
from twin.key import Key
from twin.ledger import Ledger
from twin.registry import one_of_a_kind, open_backend
from validation.config import RunConfig, UnitTable
from validation.datasets import Dataset
from validation.signals import held

WRAPS = Callable[[object], object]


@dataclass(frozen=True)
class Tensors:
    """A data set as tensors: images (n, pixels) float32, labels (n,) int64."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    shape: tuple[int, ...]
    classes: int


def tensors(data: Dataset) -> Tensors:
    """The three parts of a data set as tensors that share its memory."""

    def pair(x: object, y: object) -> tuple[Tensor, Tensor]:
        return torch.as_tensor(x), torch.as_tensor(y)

    return Tensors(
        train=pair(data.train_x, data.train_y),
        validation=pair(data.validation_x, data.validation_y),
        test=pair(data.test_x, data.test_y),
        shape=data.image_shape,
        classes=len(data.classes),
    )


def build_network(
    config: RunConfig,
    pixels: int,
    *,
    key: Key,
    ledger: Ledger | None = None,
    run_id: str | None = None,
) -> Network:
    """Open every unit's backend and put the units in a row.

    pixels: length of an image. key: fixes the devices and the first weights.
    run_id: begins the label of every device call, unique unless given; it
    changes no number.
    """
    # Fresh in a resumed process too: a device that remembers calls by their
    # label would answer a repeated one from memory.
    run_id = run_id if run_id is not None else uuid.uuid4().hex
    ledger = ledger if ledger is not None else Ledger()
    units: list[Unit] = []
    copies = [table.feature_copies for table in config.unit]
    try:
        for index, inputs in enumerate(unit_inputs(config, pixels)):
            units.append(_unit(config.unit[index], index, inputs, key, ledger, run_id))
        return Network(
            units, skip=config.network.skip, copies=copies, shared_clock=config.network.shared_clock
        )
    except BaseException:
        for unit in units:
            unit.fence.close()
        raise


@contextmanager
def opened_network(
    config: RunConfig, pixels: int, *, key: Key, ledger: Ledger | None = None
) -> Iterator[Network]:
    """`build_network`, and every device closed once at the end, however it comes."""
    with ExitStack() as opened:
        with held():
            network = build_network(config, pixels, key=key, ledger=ledger)
            opened.callback(_closed, network)
        yield network


def _closed(network: Network) -> None:
    with held():
        network.close()


def unit_inputs(config: RunConfig, pixels: int) -> list[int]:
    """Length of every unit's drive, for images of so many pixels."""
    beside, found = pixels if config.network.skip else 0, [pixels]
    for table, before in zip(config.unit[1:], config.unit[:-1], strict=True):
        found.append(before.outputs * table.feature_copies + beside)
    return found


def _unit(table: UnitTable, index: int, inputs: int, key: Key, ledger: Ledger, run_id: str) -> Unit:
    name = f"unit {index + 1}"
    backend = open_device(table, index, inputs, key)
    start = key.child("weights", index)
    try:
        fence = Fence(backend, name=name, ledger=ledger, run_id=f"{run_id}-{index}")
        if table.kind == "isomorphic":
            return IsomorphicUnit(
                fence,
                key=start,
                clip_rms=table.clip_rms,
                window_sigmas=table.window_sigmas,
                mask_constant=table.mask_constant,
            )
        return DigitalLayerUnit(fence, outputs=table.outputs, key=start)
    except BaseException:
        backend.close()
        raise


def open_device(table: UnitTable, index: int, inputs: int, key: Key) -> MinimalBackend:
    """The device of unit `index`, as made; key: of the run. The same arguments
    give the same device, whose snapshots the other one can restore."""
    options = {"inputs": inputs, **table.options}
    if table.kind == "isomorphic":
        options = {"outputs": table.outputs, **options}
    try:
        return open_backend(table.backend, key=key.child("device", index), **options)
    except ConfigError as error:
        raise ConfigError(f"unit.{index} ({table.backend}): {error}") from None


def only_devices(config: RunConfig, network: Network | None = None) -> list[str]:
    """Units whose device is the only one there is, so that no rival can have its own.

    Without an open network, as far as their names tell.
    """
    known: list[Capabilities | None] = [None] * len(config.unit)
    if network is not None:
        known = [unit.fence.capabilities for unit in network.units]
    return [
        f"unit {index + 1} ({table.backend})"
        for index, (table, capabilities) in enumerate(zip(config.unit, known, strict=True))
        if one_of_a_kind(table.backend, capabilities)
    ]


def build_plans(
    config: RunConfig, objective: Callable[[], Objective] | None = None, rate: float | None = None
) -> list[Plan]:
    """One plan per unit; `objective` and `rate` replace PIB's for a control, which
    learns from labels even where PIB does without."""
    network = config.network
    blind = unsupervised(config) if objective is None else None
    make = objective or (lambda: InformationBottleneck(**config.objective.model_dump()))
    return [
        Plan(
            objective=make() if blind is None else blind.objective(),
            batches=Classes() if blind is None else blind.batches,
            epochs=table.epochs,
            steps=table.steps,
            rate=rate if rate is not None else table.rate,
            batch=table.batch or (config.training.batch if blind is None else blind.batch),
            warm_up=config.training.warm_up,
            augment=Augment(**config.augment.model_dump()),
            hard_offset=network.hard_offset if network.hard_examples else None,
            recapture=table.recapture,
            record_dropout=table.record_dropout,
            range_every=config.training.range_every,
            writes=Writes(
                every=table.program_every, threshold=table.write_threshold, step=table.write_step
            ),
        )
        for table in config.unit
    ]


def unsupervised(config: RunConfig) -> Unsupervised | None:
    """What is learnt without labels; None with them."""
    if config.unsupervised is None:
        return None
    loss = config.objective.model_dump(exclude={"sigma_end"})
    return Unsupervised(**config.unsupervised.model_dump(), **loss)


def build_trainer(
    network: Network, data: Tensors, plans: list[Plan], *, key: Key, kind: type[Trainer] = Trainer
) -> Trainer:
    """A trainer over the training part; probes use the validation part."""
    probe = data.validation if len(data.validation[0]) else data.train
    training = TrainingData(
        images=data.train[0],
        labels=data.train[1],
        shape=data.shape,
        probe_images=probe[0],
        probe_labels=probe[1],
    )
    return kind(network, plans, training, key=key)


def seen_by_readout(config: RunConfig, features: list[Tensor]) -> Tensor:
    """What the classifier sees of all units' features."""
    return torch.cat(features, 1) if config.network.readout == "all" else features[-1]


def fit_readout(
    config: RunConfig,
    features: Tensor,
    labels: Tensor,
    classes: int,
    *,
    key: Key,
    after_epoch: Callable[[int, Readout], None] | None = None,
) -> Readout:
    """The configured readout on measured features."""
    recipe = ReadoutRecipe(**config.readout.model_dump())
    return train_readout(features, labels, classes, key=key, recipe=recipe, after_epoch=after_epoch)
