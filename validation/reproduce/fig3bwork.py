"""One optical network in training: its information plane, and readouts on the way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pib.network import Network
from pib.readout import ReadoutRecipe, train_readout
from pib.sampling import draw
from pib.train import Trainer
from pib.unit import Record, feature
from twin.key import Key
from validation import datasets, rundata
from validation.config import RunConfig
from validation.experiment import Tensors, build_network, build_plans, build_trainer, tensors

READOUT_IMAGES = 10_000
"""Training images of the readouts on the way; one captured frame of each."""
READOUT_EPOCHS = 12
CHUNK = 2048


def work(
    config: dict[str, Any],
    seed: int,
    folder: str | None,
    records: int,
    iterations: Sequence[int],
) -> xr.Dataset:
    """Train a network with fixed physics; arguments in JSON's types.

    records: of the information plane, per unit. iterations: after which a
    readout is trained on the feature of the unit in training, besides its end.
    """
    begun = time.monotonic()
    torch.set_num_threads(1)
    run, key = RunConfig.model_validate(config), Key(seed)
    data = tensors(datasets.load(run.data.name, data_dir=folder, limit=run.data.limit))
    network = build_network(run, data.train[0].shape[1], key=key)
    try:
        trainer = build_trainer(network, data, build_plans(run), key=key.child("train"))
        trainer.RECORDS_PER_UNIT, trainer.PROBES_PER_UNIT = records, 0
        curves = _trained(trainer, _Views(network, data, key.child("views")), iterations, key)
    finally:
        network.close()
    found = rundata.training_dataset(trainer)[["i_yz", "i_xz", "kernel_mean", "loss"]]
    for name in found.data_vars:
        found[name].attrs["units"] = rundata.UNITS[str(name)]
    return found.merge(_as_dataset(curves, found["unit"].values)).assign_attrs(
        seconds=time.monotonic() - begun, seed=seed
    )


def _trained(
    trainer: Trainer, views: _Views, iterations: Sequence[int], key: Key
) -> list[dict[int, list[float]]]:
    """Train to the end; by unit: iteration -> test accuracy after each readout epoch."""
    curves: list[dict[int, list[float]]] = []
    while not trainer.finished:
        index = trainer.unit_index
        wanted = {*iterations, trainer.steps_of(index)}
        curves.append({})
        while trainer.unit_index == index:
            trainer.advance()
            done = trainer.step if trainer.unit_index == index else trainer.steps_of(index)
            if done in wanted:
                curves[index][done] = views.curve(index, key.child("readout", index))
    return curves


class _Views:
    """Frames of some training and all test images, captured once per unit.

    The physics is fixed, so a feature on the way is a digital layer on them.
    """

    def __init__(self, network: Network, data: Tensors, key: Key) -> None:
        rows = draw(len(data.train[1]), READOUT_IMAGES, key.child("rows"))
        self._parts = {
            "train": (data.train[0][rows], data.train[1][rows]),
            "test": data.test,
        }
        self._network, self._classes, self._key = network, data.classes, key
        self._records: dict[str, list[Record]] = {name: [] for name in self._parts}

    def curve(self, index: int, key: Key) -> list[float]:
        """Test accuracy of a readout on unit `index` as it is, after each of its epochs."""
        (z, labels), test = (self._seen(name, index) for name in ("train", "test"))
        accuracies: list[float] = []
        train_readout(
            z, labels, self._classes, key=key,
            recipe=ReadoutRecipe(epochs=READOUT_EPOCHS, min_steps=1),
            after_epoch=lambda _, readout: accuracies.append(readout.accuracy(*test)),
        )  # fmt: skip
        return accuracies

    def _seen(self, name: str, index: int) -> tuple[Tensor, Tensor]:
        images, labels = self._parts[name]
        records = self._records[name]
        while len(records) <= index:
            records.append(self._captured(name, len(records), images))
        return feature(self._network.units[index], records[index]), labels

    def _captured(self, name: str, index: int, images: Tensor) -> Record:
        unit, before = self._network.units[index], None
        if index:
            before = feature(self._network.units[index - 1], self._records[name][index - 1])
        drive = self._network.drive(index, images, before)
        parts = [
            unit.capture(
                drive[start : start + CHUNK], key=self._key.child(name, index),
                first_sample=start, phase="readout",
            )
            for start in range(0, len(images), CHUNK)
        ]  # fmt: skip
        # The layer needs the readings only.
        values = torch.cat([part.values for part in parts])
        return Record(drive=values, values=values)


def _as_dataset(curves: list[dict[int, list[float]]], units: np.ndarray) -> xr.Dataset:
    """Curves as (unit, snapshot, readout_epoch), NaN-padded, with their iterations."""
    most = max(map(len, curves))
    table = np.full((len(curves), most, READOUT_EPOCHS), np.nan)
    at = np.full((len(curves), most), np.nan)
    for unit, found in enumerate(curves):
        for snapshot, (iteration, curve) in enumerate(sorted(found.items())):
            at[unit, snapshot], table[unit, snapshot] = iteration, curve
    return xr.Dataset(
        {
            "readout_accuracy": (("unit", "snapshot", "readout_epoch"), table, {"units": "1"}),
            "snapshot_iteration": (("unit", "snapshot"), at, {"units": "1"}),
        },
        coords={"unit": units, "readout_epoch": np.arange(1, READOUT_EPOCHS + 1)},
    )
