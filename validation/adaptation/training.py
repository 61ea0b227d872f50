"""A fault comes in the middle of a unit's training, which goes on, blind to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
import xarray as xr

from pib.network import Network
from pib.train import Trainer
from twin.errors import ConfigError
from twin.key import Key
from validation import datasets
from validation.adaptation.fault import Fault, breakable
from validation.adaptation.methods import masking, method
from validation.adaptation.retrain import (
    Recipe,
    classifier,
    judged,
    retrained,
    some_of,
)
from validation.adaptation.standing import COSTS, Standing, since, spent
from validation.config import RunConfig
from validation.experiment import (
    Tensors,
    build_network,
    build_plans,
    build_trainer,
    seen_by_readout,
    tensors,
)


def work(
    config: dict[str, Any],
    fault: dict[str, Any],
    at: float,
    passes: Sequence[float],
    name: str,
    seed: int,
    folder: str | None,
) -> xr.Dataset:
    """One training with a fault in its middle; arguments in JSON's types.

    at: share of the hit unit's steps done when it comes. Test accuracies:
    before, after: of a readout on the units so far, trained before the fault;
    scheduled: after the schedule was gone through to its end; healthy: the same
    without a fault; units (passes): after k further passes of the hit unit and
    those after it.
    """
    begun = time.monotonic()
    torch.set_num_threads(1)
    run, hit = RunConfig.model_validate(config), Fault(**fault)
    data = tensors(datasets.load(run.data.name, data_dir=folder, limit=run.data.limit))
    found = met(run, hit, at, passes, name, data, Key(seed))
    return found.assign_attrs(seconds=time.monotonic() - begun, method=name, seed=seed)


def met(
    run: RunConfig,
    fault: Fault,
    at: float,
    passes: Sequence[float],
    name: str,
    data: Tensors,
    key: Key,
) -> xr.Dataset:
    """As :func:`work`, on data at hand."""
    who = method(name)
    if not who.in_loop or not 0 < at < 1:
        raise ConfigError(f"a fault in training needs a method in the loop and 0 < at < 1, got "
                          f"{name!r} and {at}.")  # fmt: skip
    run = masking(breakable(run, fault, data.train[0].shape[1]), who.masked)
    network = build_network(run, data.train[0].shape[1], key=key)
    try:
        plans = build_plans(run, who.objective, who.rate(run))
        trainer = build_trainer(network, data, plans, key=key.child("train"))
        trainer.RECORDS_PER_UNIT = trainer.PROBES_PER_UNIT = 0
        _go_to(trainer, fault.first, at)
        figures = _struck(run, trainer, fault, data, key)
        stood = Standing.of(network)
        rows = []
        for k in passes:
            stood.put(network)
            recipe = Recipe(passes=k, objective=who.objective, rate=who.rate(run))
            rows.append(_further(run, network, recipe, fault, data, key))
    finally:
        network.close()
    told: dict[str, Any] = {n: ((), v, {"units": "1"}) for n, v in figures.items()}
    for column, unit in {"units": "1", **COSTS}.items():
        label = column if column == "units" else f"units_{column}"
        told[label] = ("passes", [row[column] for row in rows], {"units": unit})
    return xr.Dataset(told, coords={"passes": ("passes", list(passes), {"units": "1"})})


def _go_to(trainer: Trainer, unit: int, at: float) -> None:
    """Train until the share `at` of the steps of `unit` is done."""
    steps = max(1, min(trainer.steps_of(unit) - 1, round(at * trainer.steps_of(unit))))
    while trainer.unit_index < unit or trainer.step < steps:
        trainer.advance()


def _struck(
    run: RunConfig, trainer: Trainer, fault: Fault, data: Tensors, key: Key
) -> dict[str, float]:
    """Accuracies around the fault, and at the end with and without it."""
    network, until = trainer.network, fault.first + 1
    arrays, text = trainer.state()
    stood = Standing.of(network)
    healthy = _ended(run, trainer, data, key)
    # Back to the middle: the same steps again, this time with the fault.
    stood.put(network)
    trainer.load(arrays, text)
    readout = classifier(
        run, _seen(network, data.train[0], until, key.child("middle")), data, key.child("readout")
    )

    def accuracy(name: str) -> float:
        features = _seen(network, data.test[0], until, key.child(name))
        return readout.accuracy(seen_by_readout(run, features), data.test[1])

    before = accuracy("before")
    fault.turn(network, key)
    after = accuracy("after")
    return {
        "before": before,
        "after": after,
        "scheduled": _ended(run, trainer, data, key),
        "healthy": healthy,
    }


def _seen(network: Network, images: torch.Tensor, until: int, key: Key) -> list[torch.Tensor]:
    return network.features(images, key=key, until=until, phase="probe")


def _ended(run: RunConfig, trainer: Trainer, data: Tensors, key: Key) -> float:
    measured = trainer.run()
    readout = classifier(run, measured, data, key.child("readout"))
    return judged(run, trainer.network, readout, data.test, key.child("test"))


def _further(
    run: RunConfig, network: Network, recipe: Recipe, fault: Fault, data: Tensors, key: Key
) -> dict[str, float]:
    here = key.child("further", str(recipe.passes))
    images, before = some_of(data, recipe.passes, here), spent(network)
    measured = retrained(run, network, images, recipe, first=fault.first, key=here.child("retrain"))
    readout = classifier(run, measured, images, here.child("readout"))
    costs = since(network, before)
    return {"units": judged(run, network, readout, data.test, here.child("test")), **costs}
