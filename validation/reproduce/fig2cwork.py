"""One memristor network in training: weights and features on the way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pib.history import ridge_probe
from pib.network import Network
from pib.sampling import draw
from pib.train import Trainer
from pib.unit import IsomorphicUnit
from twin.key import Key
from validation import datasets
from validation.config import RunConfig
from validation.experiment import Tensors, build_network, build_plans, build_trainer, tensors
from validation.maps import Method, embed

MAP_IMAGES = 500
PROBE_IMAGES = 2000
BINS = 81


def work(
    config: dict[str, Any],
    seed: int,
    folder: str | None,
    method: Method,
    rows: int,
    moments: Sequence[float],
) -> xr.Dataset:
    """Train a crossbar network and watch it; arguments in JSON's types.

    method: of the maps. rows: of the weight histograms, per unit. moments:
    when features are mapped, as fractions of a unit's iterations (0: after the
    first one). Every choice here is ours.
    """
    begun = time.monotonic()
    torch.set_num_threads(1)
    run, key = RunConfig.model_validate(config), Key(seed)
    data = tensors(datasets.load(run.data.name, data_dir=folder, limit=run.data.limit))
    network = build_network(run, data.train[0].shape[1], key=key)
    try:
        trainer = build_trainer(network, data, build_plans(run), key=key.child("train"))
        trainer.RECORDS_PER_UNIT = trainer.PROBES_PER_UNIT = 0
        watch = _Watch(trainer, data, key.child("watch"), method)
        while not trainer.finished:
            index = trainer.unit_index
            steps = trainer.steps_of(index)
            due = {max(1, round(moment * steps)) for moment in moments}
            noted = {max(1, round(i * steps / (rows - 1))) for i in range(rows)}
            while trainer.unit_index == index:
                trainer.advance()
                done = trainer.step if trainer.unit_index == index else steps
                if done in noted:
                    watch.weights(index, done)
                if done in due:
                    watch.features(index, done)
        return watch.dataset().assign_attrs(
            method=method, seed=seed, classes=list(map(str, range(data.classes))),
            seconds=time.monotonic() - begun,
        )  # fmt: skip
    finally:
        network.close()


@dataclass
class _Watch:
    """What was seen so far. Looking costs passes and changes no weight."""

    trainer: Trainer
    data: Tensors
    key: Key
    method: Method
    _weights: list[list[tuple[int, NDArray[np.float64], float, float]]] = field(init=False)
    _maps: list[list[dict[str, Any]]] = field(init=False)

    def __post_init__(self) -> None:
        self._weights = [[] for _ in self.network.units]
        self._maps = [[] for _ in self.network.units]
        labels = self.data.test[1]
        self._shown = draw(len(labels), MAP_IMAGES, self.key.child("shown"))
        self._start = [unit.parameters["weight"].clone() for unit in self.network.units]
        self._moved = [0.0 for _ in self.network.units]

    @property
    def network(self) -> Network:
        return self.trainer.network

    def weights(self, index: int, iteration: int) -> None:
        """The histogram of the conductance differences asked for, and how far weights moved."""
        unit = self.network.units[index]
        counts, _ = np.histogram(setting(unit), edges())
        now, start = unit.parameters["weight"], self._start[index]
        moved = float((now - start).norm() / start.norm())
        clipped = float(counts[[0, -1]].sum() / counts.sum())
        self._weights[index].append((iteration, counts / counts.sum(), moved, clipped))

    def features(self, index: int, iteration: int) -> None:
        """Map the test images' features; separate classes in numbers too."""
        # Here: importing it sets variables of the process's environment.
        from sklearn.metrics import silhouette_score

        here = self.key.child("features", index, iteration)
        images, labels = self.data.test[0][self._shown], self.data.test[1][self._shown]
        z = self._measured(index, images, here)
        points, names = embed(z.numpy(), self.method)
        self._maps[index].append(
            {
                "iteration": iteration,
                "points": points,
                "axes": list(names),
                "silhouette": float(silhouette_score(z.numpy(), labels.numpy())),
                "probe": self._probe(index, here),
            }
        )

    def _probe(self, index: int, key: Key) -> float:
        train, test = (
            draw(len(part[1]), PROBE_IMAGES, self.key.child("probe", name))
            for name, part in (("train", self.data.train), ("test", self.data.test))
        )
        (x, y), (u, v) = self.data.train, self.data.test
        fit = self._measured(index, x[train], key.child("fit"))
        seen = self._measured(index, u[test], key.child("probe"))
        return ridge_probe(fit, y[train], seen, v[test])

    def _measured(self, index: int, images: Tensor, key: Key) -> Tensor:
        return self.network.features(images, key=key, until=index + 1, phase="probe")[-1]

    def dataset(self) -> xr.Dataset:
        units = [unit.name for unit in self.network.units]
        middles = (edges()[1:] + edges()[:-1]) / 2
        found = {
            "iteration": (
                ("unit", "row"), _table([[w[0] for w in u] for u in self._weights]),
                {"units": "1"},
            ),
            "weight_share": (
                ("unit", "row", "bin"),
                np.stack([np.stack([w[1] for w in u]) for u in _even(self._weights)]),
                {"units": "1"},
            ),
            "weight_change": (
                ("unit", "row"), _table([[w[2] for w in u] for u in self._weights]),
                {"units": "1"},
            ),
            "clipped_share": (
                ("unit", "row"), _table([[w[3] for w in u] for u in self._weights]),
                {"units": "1"},
            ),
            "map_iteration": (
                ("unit", "moment"), _table([[m["iteration"] for m in u] for u in self._maps]),
                {"units": "1"},
            ),
            "silhouette": (
                ("unit", "moment"), _table([[m["silhouette"] for m in u] for u in self._maps]),
                {"units": "1"},
            ),
            "probe_accuracy": (
                ("unit", "moment"), _table([[m["probe"] for m in u] for u in self._maps]),
                {"units": "1"},
            ),
            "map_point": (
                ("unit", "moment", "sample", "axis"),
                np.stack([np.stack([m["points"] for m in u]) for u in self._maps]),
                {"units": "1"},
            ),
            "map_label": (
                ("sample",), self.data.test[1][self._shown].numpy(), {"units": "1"}
            ),
        }  # fmt: skip
        full = [full_scale_siemens(unit) for unit in self.network.units]
        return xr.Dataset(
            found,
            coords={
                "unit": units,
                "bin": ("bin", middles, {"units": "1"}),
                "full_scale": ("unit", full, {"units": "S"}),
            },
        )


def _table(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Rows padded with NaN to the longest."""
    longest = max(map(len, rows))
    return np.array([[*row, *[np.nan] * (longest - len(row))] for row in rows], np.float64)


def _even(rows: list[list[Any]]) -> list[list[Any]]:
    """Short runs have fewer steps than rows: the last row stands for the missing."""
    longest = max(map(len, rows))
    return [[*row, *[row[-1]] * (longest - len(row))] for row in rows]


def edges() -> NDArray[np.float64]:
    """Of the histograms, in units of the largest difference a pair can hold."""
    return np.linspace(-1, 1, BINS + 1)


def setting(unit: Any) -> NDArray[np.float64]:
    """What the device was last asked to hold: (G+ - G-) / full scale, flat."""
    assert isinstance(unit, IsomorphicUnit)
    scaled = unit.parameters["weight"] / unit.constants()["scale"]
    return scaled.clamp(-1, 1).flatten().double().numpy()


def full_scale_siemens(unit: Any) -> float:
    """The conductance difference that a setting of 1 stands for."""
    return float(unit.fence.capabilities.settings[0].full_scale)
