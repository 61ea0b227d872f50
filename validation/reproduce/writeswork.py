"""One training with a chip that follows its weights sparingly, and what that cost."""

from __future__ import annotations

import time
from typing import Any

import torch
import xarray as xr

from twin.key import Key
from validation import datasets
from validation.config import RunConfig
from validation.experiment import (
    build_network,
    build_plans,
    build_trainer,
    fit_readout,
    seen_by_readout,
    tensors,
)

COSTS = {"writes": "1", "cells": "1", "joules": "J", "device_seconds": "s"}
"""Of training alone, with their units."""


def trained(config: dict[str, Any], seed: int, folder: str | None) -> xr.Dataset:
    """Validation and test accuracy of the configured readout, and the ledger of the
    training passes. Choices are for the former to make."""
    begun = time.monotonic()
    torch.set_num_threads(1)
    run, key = RunConfig.model_validate(config), Key(seed)
    data = tensors(datasets.load(run.data.name, data_dir=folder, limit=run.data.limit))
    network = build_network(run, data.train[0].shape[1], key=key)
    try:
        trainer = build_trainer(network, data, build_plans(run), key=key.child("train"))
        trainer.PROBES_PER_UNIT = 1
        measured = trainer.run()
        cost = network.units[0].fence.ledger.total(phase="train")
        seen = seen_by_readout(run, measured)
        readout = fit_readout(run, seen, data.train[1], data.classes, key=key.child("readout"))
        accuracies = {}
        for name, part in (("test", data.test), ("validation", data.validation)):
            features = network.features(part[0], key=key.child(name))
            accuracies[name] = readout.accuracy(seen_by_readout(run, features), part[1])
    finally:
        network.close()
    weights = sum(unit.parameters["weight"].numel() for unit in network.units)
    spent = {n: ((), float(getattr(cost, n)), {"units": u}) for n, u in COSTS.items()}
    return xr.Dataset(
        {
            "accuracy": ((), accuracies["test"], {"units": "1"}),
            "validation_accuracy": ((), accuracies["validation"], {"units": "1"}),
            **spent,
        },
        attrs={
            "seed": seed, "seconds": time.monotonic() - begun, "weights": weights,
            "test_images": len(data.test[1]), "validation_images": len(data.validation[1]),
        },
    )  # fmt: skip
