"""What the unsupervised figure measures: one network learning without labels, and rivals.

Every choice is ours, for the paper's unsupervised objective is not public. Labels are
used by the probes alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pib.readout import ReadoutRecipe, train_readout
from pib.train import Trainer
from twin.key import Key
from validation import datasets
from validation.config import RunConfig
from validation.experiment import Tensors, build_network, build_plans, build_trainer, tensors
from validation.probes import Found, Labelled, Probes, both, knn_probe, probed, spread_over
from validation.references import prepared

GLOBAL_RATE = 0.192
"""Rate of the probe with one scale, for small components need large weights. Chosen on
validation images of both sets: from 0.064 to 0.256 none differs by 0.3 points, 0.008 is
1.1 to 2.0 points worse."""


def learnt(
    config: dict[str, Any], seed: int, folder: str | None, looks: int, tried: int
) -> xr.Dataset:
    """Train without labels; probe on the way and, on all images, at the end.

    looks: probes of each unit on the way, on `tried` test images. Raises what the
    training raises.
    """
    begun = time.monotonic()
    run, key, data = _opened(config, seed, folder)
    labelled = _labelled(data)
    network = build_network(run, data.train[0].shape[1], key=key)
    try:
        trainer = build_trainer(network, data, build_plans(run), key=key.child("train"))
        on_the_way = labelled.fewer(len(data.train[0]), tried, key.child("tried"))
        at = frozenset().union(
            *({1} | spread_over(trainer.steps_of(i), looks) for i in range(len(network.units)))
        )
        probes = Probes(on_the_way, at, key.child("probes"))
        trainer.run(probes if looks else None)
        seconds = time.monotonic() - begun
        found = probed(network, labelled, key=key.child("end"))
        cost = network.units[0].fence.ledger.total()
    finally:
        network.close()
    rows = _curves(probes.rows, len(network.units)) if looks else {}
    loss = [[row["loss"] for row in unit] for unit in trainer.history.steps]
    return xr.Dataset(
        rows
        | _accuracies(found)
        | {
            "loss_start": ("unit", [unit[0] for unit in loss]),
            "loss_end": ("unit", [float(np.mean(unit[-5:])) for unit in loss]),
        },
        coords={"unit": [unit.name for unit in network.units]},
        attrs={
            "seed": seed, "seconds": seconds, "passes": cost.passes,
            "writes": cost.writes, "joules": cost.joules, "device_seconds": cost.device_seconds,
        },
    )  # fmt: skip


def untrained(config: dict[str, Any], seed: int, folder: str | None) -> xr.Dataset:
    """Probes on the same network before it has learnt anything."""
    run, key, data = _opened(config, seed, folder)
    network = prepared(run, data, key=key)
    try:
        found = probed(network, _labelled(data), key=key.child("end"))
    finally:
        network.close()
    names = [unit.name for unit in network.units]
    return xr.Dataset(_accuracies(found), coords={"unit": names}, attrs={"seed": seed})


def without_physics(
    name: str, limit: int | None, folder: str | None, widths: Sequence[int]
) -> xr.Dataset:
    """Probes on pixels, and on their leading components with one global scale."""
    data = tensors(datasets.load(name, data_dir=folder, limit=limit))
    labelled, key = _labelled(data), Key(0)
    found = {"pixels": both(labelled.images, labelled, labelled.test_images, key=key)}
    mean = labelled.images.mean(0)
    train, test = labelled.images - mean, labelled.test_images - mean
    _, axes = torch.linalg.eigh(train.T @ train)
    for width in widths:
        leading = axes[:, -min(width, axes.shape[1]) :]
        found[f"{width} components"] = _one_scale(train @ leading, test @ leading, labelled, key)
    return xr.Dataset(_accuracies(list(found.values()), "what"), coords={"what": list(found)})


def blindness(config: dict[str, Any], seed: int, folder: str | None, steps: int) -> xr.Dataset:
    """Whether permuted and absent labels leave every weight as it was, to the last bit."""
    config = {**config, "unit": [{**unit, "steps": steps} for unit in config["unit"]]}
    run, key, data = _opened(config, seed, folder)
    labels = data.train[1]
    permuted = labels[torch.randperm(len(labels), generator=key.child("permuted").torch())]
    none = torch.empty(0, dtype=torch.int64)
    true, others = _weights(run, data, labels, key), {"permuted": permuted, "absent": none}
    same = {
        name: all(torch.equal(true[n], w) for n, w in _weights(run, data, labels, key).items())
        for name, labels in others.items()
    }
    return xr.Dataset({n: int(v) for n, v in same.items()}, attrs={"seed": seed, "steps": steps})


def _weights(run: RunConfig, data: Tensors, labels: Tensor, key: Key) -> dict[str, Tensor]:
    network = build_network(run, data.train[0].shape[1], key=key)
    try:
        built = build_trainer(network, data, build_plans(run), key=key.child("train"))
        given = replace(built.data, labels=labels)
        Trainer(network, built.plans, given, key=key.child("train")).run()
        return network.state()
    finally:
        network.close()


def _opened(
    config: dict[str, Any], seed: int, folder: str | None
) -> tuple[RunConfig, Key, Tensors]:
    torch.set_num_threads(1)
    run = RunConfig.model_validate(config)
    return (
        run,
        Key(seed),
        tensors(datasets.load(run.data.name, data_dir=folder, limit=run.data.limit)),
    )


def _labelled(data: Tensors) -> Labelled:
    return Labelled(
        images=data.train[0],
        labels=data.train[1],
        test_images=data.test[0],
        test_labels=data.test[1],
    )


def one_scale(features: Tensor) -> ReadoutRecipe:
    """A probe that divides all features (n, width) by one number: the largest standard
    deviation of any of them."""
    spread = features.std(0)
    # The recipe states its floor in r.m.s. deviations of the features.
    floor = float(spread.max() / spread.square().mean().sqrt())
    return ReadoutRecipe(epochs=10, min_steps=0, scale_floor=floor, rate=GLOBAL_RATE)


def _one_scale(train: Tensor, test: Tensor, data: Labelled, key: Key) -> Found:
    recipe = one_scale(train)
    readout = train_readout(train, data.labels, data.classes, key=key, recipe=recipe)
    linear = readout.accuracy(test, data.test_labels)
    return Found(linear, knn_probe(train, data.labels, test, data.test_labels))


def _accuracies(found: Sequence[Found], dim: str = "unit") -> dict[str, Any]:
    return {
        "linear": (dim, [f.linear for f in found], {"units": "1"}),
        "knn": (dim, [f.knn for f in found], {"units": "1"}),
    }


def _curves(rows: Sequence[dict[str, Any]], units: int) -> dict[str, Any]:
    """(unit, look), NaN where a unit was looked at less often."""
    by_unit = [[row for row in rows if row["unit"] == index] for index in range(units)]
    longest = max(map(len, by_unit))
    found = {}
    for name in ("iteration", "linear", "knn"):
        table = np.full((units, longest), np.nan)
        for index, mine in enumerate(by_unit):
            table[index, : len(mine)] = [row[name] for row in mine]
        found[f"curve_{name}"] = (("unit", "look"), table)
    return found
