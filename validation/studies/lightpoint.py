"""One optical network in one medium at one photon level: trained, then tested later.

All times are device seconds; the devices share one clock and drift all the time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pib.network import Network
from pib.train import Trainer
from pib.unit import Unit
from twin.errors import ConfigError
from twin.key import Key
from validation import datasets
from validation.config import RunConfig, load_config
from validation.experiment import (
    Tensors,
    build_network,
    build_plans,
    build_trainer,
    fit_readout,
    seen_by_readout,
    tensors,
)
from validation.studies.lightpair import Seen, Shown, clean_frames

PRESET = "optics-fashion"
CHUNK = 512
"""Test images between two moments at which the devices wait for each other."""

VALIDATION = 100
"""Validation images: only the probe of a unit's first step looks at them."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training. medium: a drift by name. electrons: per pixel at mean intensity.

    limit, tests: training and test images. shown: training images that are shown
    again in the middle of the test. pixels, epochs: of every unit, None as the
    preset has.
    """

    medium: str
    electrons: float
    seed: int = 0
    dataset: str = "fashion-mnist"
    limit: int = 10_000
    tests: int = 5_000
    shown: int = 64
    pixels: int | None = None
    epochs: int | None = None
    data: Path | None = None


@dataclass(frozen=True)
class Point:
    """accuracy: of PIB on the test images; linear: of a readout on the raw frames
    of the first unit, the same frames. units: one per unit. ledger: see twin.ledger."""

    accuracy: float
    linear: float
    tests: int
    units: tuple[Seen, ...]
    device_seconds: float
    ledger: list[dict[str, Any]]
    wall_seconds: float


@dataclass(frozen=True)
class Store:
    """What one unit captured to be trained on: frames (n, pixels), the first at
    device time begin_s, then one every frame_s."""

    frames: Tensor
    begin_s: float
    frame_s: float


def work(task: Task) -> Point:
    """Do one task, in a process of its own, on one thread."""
    torch.set_num_threads(1)
    begun = time.monotonic()
    config, key = configuration(task), Key(task.seed)
    data = tensors(
        datasets.load(
            task.dataset, data_dir=task.data, limit=task.limit, validation=VALIDATION,
            seed=task.seed,
        )
    )  # fmt: skip
    network = build_network(config, data.train[0].shape[1], key=key)
    try:
        measured, stores = trained(network, data, config, key.child("train"))
        shown = chosen(config, network, data.train[0], measured, stores, task.shown, key)
        test = data.test[0][: task.tests], data.test[1][: task.tests]
        frames, features, seen = tested(network, test[0], shown, key.child("test"))
        views = {
            "readout": (seen_by_readout(config, measured), seen_by_readout(config, features)),
            "raw": (stores[0].frames, frames),
        }
        accuracy, linear = (
            fit_readout(
                config, fit, data.train[1], data.classes, key=key.child(name)
            ).accuracy(seen_then, test[1])
            for name, (fit, seen_then) in views.items()
        )  # fmt: skip
        ledger = network.units[0].fence.ledger
        return Point(
            accuracy=accuracy,
            linear=linear,
            tests=len(test[1]),
            units=tuple(seen),
            device_seconds=ledger.total().device_seconds,
            ledger=ledger.rows(),
            wall_seconds=time.monotonic() - begun,
        )
    finally:
        network.close()


def configuration(task: Task) -> RunConfig:
    """The preset of the optical network under the task's medium and light."""
    config = load_config(PRESET)
    light: dict[str, Any] = {"drift": task.medium, "mean_electrons": float(task.electrons)}
    if task.pixels is not None:
        light["pixels"] = task.pixels
    changes = {} if task.epochs is None else {"epochs": task.epochs}
    units = tuple(
        unit.model_copy(update={"options": unit.options | light, "recapture": "never", **changes})
        for unit in config.unit
    )
    shared = config.network.model_copy(update={"shared_clock": True})
    return config.model_copy(update={"unit": units, "network": shared})


def trained(
    network: Network, data: Tensors, config: RunConfig, key: Key
) -> tuple[list[Tensor], list[Store]]:
    """Features of the training images, and what each unit captured for them."""
    trainer = build_trainer(network, data, build_plans(config), key=key)
    # A unit is still probed at its first step: those frames too age the devices.
    trainer.PROBES_PER_UNIT = 0
    stores: list[Store] = []
    while not trainer.finished:
        unit, now_s = network.units[trainer.unit_index], None
        if len(stores) == trainer.unit_index:
            now_s = clock_s(unit)
        trainer.advance()
        if now_s is not None:
            stores.append(_store(trainer, unit, now_s))
    return trainer.measured, stores


def _store(trainer: Trainer, unit: Unit, now_s: float) -> Store:
    """What `unit` captured in its first step, which began at device time now_s.

    The phase "capture" of the ledger holds a calibration and then this capture.
    """
    frames = trainer.state()[0].get("unit.readings")
    if frames is None:
        raise ConfigError(
            f"light: {unit.name} is trained for one step only, its frames are gone. Use more "
            "epochs or images."
        )
    cost = unit.fence.ledger.total(unit.name, "capture")
    frame_s = cost.device_seconds / cost.passes
    return Store(frames, now_s + (cost.passes - len(frames)) * frame_s, frame_s)


def clock_s(unit: Unit) -> float:
    """Device time of a unit whose passes and waits are all in its ledger."""
    cost = unit.fence.ledger.total(unit.name)
    return cost.device_seconds + cost.waited_seconds


def chosen(
    config: RunConfig,
    network: Network,
    images: Tensor,
    measured: list[Tensor],
    stores: list[Store],
    count: int,
    key: Key,
) -> list[Shown]:
    """`count` neighbours from the middle of each unit's training capture: their
    mean age is that of the training set. key: of the run."""
    first = max(0, (len(images) - count) // 2)
    rows, found = slice(first, first + count), []
    for index, (unit, table, store) in enumerate(
        zip(network.units, config.unit, stores, strict=True)
    ):
        before = measured[index - 1][rows] if index else None
        drive = network.drive(index, images[rows], before)
        taken_s = store.begin_s + first * store.frame_s
        clean = clean_frames(table, index, drive, taken_s, key)
        found.append(Shown(unit, table.options, drive, store.frames[rows], clean, taken_s))
    return found


def tested(
    network: Network, images: Tensor, shown: list[Shown], key: Key
) -> tuple[Tensor, list[Tensor], list[Seen]]:
    """Raw frames of the first unit, features of all, and in the middle of the test
    the training images `shown`, once more."""
    frames, parts, seen = [], [], []
    starts = range(0, len(images), CHUNK)
    for start in starts:
        if start == starts[len(starts) // 2]:
            for index, part in enumerate(shown):
                now_s = clock_s(part.unit)
                seen.append(part.again(now_s, key.child("shown again", index)))
            network.catch_up()
        rows = images[start : start + CHUNK]
        steps = list(network.chain(rows, key=key, first_sample=start))
        network.catch_up()
        frames.append(steps[0][0].values)
        parts.append([z for _, z in steps])
    features = [torch.cat(column) for column in zip(*parts, strict=True)]
    return torch.cat(frames), features, seen
