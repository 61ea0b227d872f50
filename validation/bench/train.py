"""`pib-twin bench train`: PIB's wall time per unit-epoch beside backpropagation's.

One epoch of each unit of `memristor-fashion` (on the chip, and with the digital
product in its place), and one epoch of the same net by backpropagation, on
the same images with one thread.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from pib.augment import Augment
from twin.key import Key
from validation import datasets
from validation.baselines.backprop import BackpropPlan, Inputs, train_backprop
from validation.config import RunConfig, load_config
from validation.experiment import Tensors, build_network, build_plans, build_trainer, tensors
from validation.summary import Figure

ROUNDS = 3


def figures(data_dir: Path | None, quick: bool) -> tuple[list[Figure], dict[str, Any]]:
    """Ratios of PIB's time per unit-epoch to backpropagation's per epoch."""
    config = _one_epoch(load_config("memristor-fashion"))
    limit = 5_000 if quick else None
    data = tensors(datasets.load("fashion-mnist", data_dir=data_dir, limit=limit))
    digital = _digital(config)
    times: dict[str, list[float]] = {"backprop": [], "chip": [], "digital": []}
    for round_ in range(ROUNDS):
        times["backprop"].append(_backprop_seconds(config, data, round_))
        times["chip"].append(_pib_seconds(config, data, round_))
        times["digital"].append(_pib_seconds(digital, data, round_))
    units = len(config.unit)

    def ratio(kind: str) -> float:
        pairs = zip(times[kind], times["backprop"], strict=True)
        return statistics.median(a / units / b for a, b in pairs)

    rows = [
        Figure("seconds_per_epoch_backprop", statistics.median(times["backprop"]), "s", n=ROUNDS),
        Figure(
            "seconds_per_unit_epoch_chip", statistics.median(times["chip"]) / units, "s", n=ROUNDS
        ),
        Figure("ratio_per_unit_epoch_chip", ratio("chip"), "x", "<= 4", n=ROUNDS),
        Figure("ratio_per_unit_epoch_digital", ratio("digital"), "x", "<= 3", n=ROUNDS),
    ]
    return rows, {"images": len(data.train[1]), "rounds": ROUNDS, "threads": 1}


def _one_epoch(config: RunConfig) -> RunConfig:
    units = tuple(u.model_copy(update={"epochs": 1}) for u in config.unit)
    return config.model_copy(update={"unit": units})


def _digital(config: RunConfig) -> RunConfig:
    """The same net on the `ideal` backend: a bare product, no chip simulated."""
    units = tuple(u.model_copy(update={"backend": "ideal", "options": {}}) for u in config.unit)
    return config.model_copy(update={"unit": units})


def _pib_seconds(config: RunConfig, data: Tensors, round_: int) -> float:
    """Seconds of all training steps; captures between units are left out."""
    key = Key(round_)
    network = build_network(config, data.train[0].shape[1], key=key)
    trainer = build_trainer(network, data, build_plans(config), key=key)
    trainer.PROBES_PER_UNIT = trainer.RECORDS_PER_UNIT = 1
    seconds = 0.0
    while not trainer.finished:
        last = trainer.step + 1 == trainer.steps_of(trainer.unit_index)
        begun = time.perf_counter()
        trainer.advance()
        # The last step of a unit also measures the whole training set.
        seconds += 0.0 if last else time.perf_counter() - begun
    network.close()
    return seconds


def _backprop_seconds(config: RunConfig, data: Tensors, round_: int) -> float:
    images, labels = data.train
    inputs = Inputs(first=images, beside=images, labels=labels, image_shape=data.shape)
    plan = BackpropPlan(epochs=1, augment=Augment(**config.augment.model_dump()))
    begun = time.perf_counter()
    train_backprop(inputs, [u.outputs for u in config.unit], data.classes, plan, True, Key(round_))
    return time.perf_counter() - begun
