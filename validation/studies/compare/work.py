"""What one point of a comparison does: train one method under a ceiling of physical
passes, let validation images choose among its classifiers, test, report costs.

The same point gives the same figures to the bit, apart from points.VOLATILE.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache

from torch import Tensor

from pib.network import Network
from pib.sampling import draw
from twin.errors import ConfigError
from twin.key import Key
from validation import datasets
from validation.baselines import registry
from validation.baselines.budget import Budget, CappedLedger
from validation.baselines.method import Learnt, Method, Task, require
from validation.baselines.twins import twins_for
from validation.config import RunConfig
from validation.experiment import Tensors, build_network, tensors
from validation.studies.compare.after import adapted, decorrelate, without_class
from validation.studies.compare.classifiers import Classifiers, best, fitted
from validation.studies.compare.strange import told_apart
from validation.studies.measures import (
    INFERENCE,
    REDONE_CAPTURES,
    cost_of_inference,
    cost_of_training,
    shown,
)
from validation.studies.points import Point, Settings
from validation.studies.points import turns as turns_of
from validation.studies.settings import run_config, turned
from validation.studies.work import one_thread

TEST_DIAL = "test.dial."
"""Head of settings that turn a dial of all units that have it, after training."""


def work(point: Point) -> dict[str, float]:
    """Train, choose, test; figures by name (see points.UNITS).

    Settings: those of a run configuration (`compare` among them), dials turned
    before training, and "test.dial.NAME", turned after it. accuracy: on the test
    images, of the classifier that is best on validation images, chosen on the
    devices as they were trained; accuracy_own: of the method's own one;
    accuracy_redone: of a readout on REDONE_CAPTURES images measured at the end, if
    something happened after training. Whatever went through a device before the
    validation images counts as passes.
    """
    begun = time.monotonic()
    with one_thread(), ExitStack() as opened:
        figures = _figures(point, opened)
    return figures | {"wall_seconds": time.monotonic() - begun}


def _figures(point: Point, opened: ExitStack) -> dict[str, float]:
    built, later = _parted(point)
    method, config, key = registry.method(point.method), _config(built), Key(point.seed)
    require(method, config, point.base)
    data = _data(config, point)
    ledger = CappedLedger(_ceiling(config, data))
    network = build_network(config, data.train[0].shape[1], key=key, ledger=ledger)
    opened.callback(network.close)
    turned(network, turns_of(built), key)
    learnt = method.train(_task(method, config, network, data, key))
    ledger.ceiling = None
    figures = cost_of_training(network) | _digital(network)
    figures |= {f"note_{name}": value for name, value in learnt.notes.items()}
    classifiers = fitted(config, learnt, data, key)
    validation = shown(data.validation, point.quick, Key(0).child("quick validation"))
    known = classifiers.accuracies(network, validation, key.child("validation"), "validation")
    chosen = best(known, method.own_head)
    figures["accuracy_validation"] = known[chosen]
    changed = bool(later) or config.compare.speckle_correlation < 1
    if changed:
        turned(network, turns_of(replace(point, settings=later)), key.child("later"))
        decorrelate(network, config, key.child("later"))
    if config.compare.adapt_passes is not None:
        task = _task(method, config, network, data, key)
        learnt, few, figures["passes_adapting"] = adapted(task, method, learnt)
        classifiers = fitted(config, learnt, few.data, key.child("adapted"))
        known = classifiers.accuracies(network, validation, key.child("again"), "validation")
        chosen = best(known, method.own_head)
    figures |= _tested(point, config, network, data, classifiers, chosen)
    if changed and not method.own_head and learnt.judge is None:
        figures |= _redone(config, network, data, key)
    if config.compare.strange:
        figures |= told_apart(config, network, data, classifiers, learnt, key, point.data)
    return figures


# ---- what a point is made of --------------------------------------------------


def _parted(point: Point) -> tuple[Point, Settings]:
    """The point as trained, and the dials turned later, as plain dial settings."""
    later = tuple(
        (path.removeprefix("test."), value)
        for path, value in point.settings
        if path.startswith(TEST_DIAL)
    )
    built = tuple(pair for pair in point.settings if not pair[0].startswith(TEST_DIAL))
    return replace(point, settings=built), later


def _config(point: Point) -> RunConfig:
    """The configuration of a point, with as many units as are asked for."""
    config = run_config(point)
    count = config.compare.units
    if count is None:
        return config
    units = (*config.unit, *[config.unit[-1]] * (count - len(config.unit)))[:count]
    return config.model_copy(update={"unit": units})


def _data(config: RunConfig, point: Point) -> Tensors:
    whole = _loaded(config.data.name, point.data, config.data.limit)
    held_out = config.compare.held_out_class
    return whole if held_out is None else without_class(whole, held_out)


@lru_cache(maxsize=2)
def _loaded(name: str, folder: str | None, limit: int | None) -> Tensors:
    return tensors(datasets.load(name, data_dir=folder, limit=limit))


def _ceiling(config: RunConfig, data: Tensors) -> int | None:
    per_image = config.compare.passes_per_image
    return None if per_image is None else int(per_image * len(data.train[1]))


def _task(method: Method, config: RunConfig, network: Network, data: Tensors, key: Key) -> Task:
    ledger = network.units[0].fence.ledger
    if not isinstance(ledger, CappedLedger):
        raise ConfigError("a comparison counts in a CappedLedger. Build the network with one.")
    twins = twins_for(config, network, key) if method.needs_twin else None
    return Task(
        config=config, network=network, data=data, key=key, twins=twins,
        budget=Budget(ledger, ledger.ceiling),
    )  # fmt: skip


def _digital(network: Network) -> dict[str, float]:
    cost = network.units[0].fence.ledger.total()
    return {"digital_operations": float(cost.digital_operations), "cells": float(cost.cells)}


# ---- after training -----------------------------------------------------------


def _tested(
    point: Point, config: RunConfig, network: Network, data: Tensors,
    classifiers: Classifiers, chosen: str,
) -> dict[str, float]:  # fmt: skip
    tests, key = _tests(data), Key(point.seed).child("test")
    found = classifiers.accuracies(network, tests, key, INFERENCE)
    figures = {f"accuracy_{n.replace(' ', '_')}": v for n, v in found.items()}
    figures["accuracy"] = found[chosen]
    return figures | cost_of_inference(config, network, len(tests[1]))


def _tests(data: Tensors) -> tuple[Tensor, Tensor]:
    """QUICK_TESTS test images, the same for every point: a judge may need many passes each."""
    return shown(data.test, True, Key(0).child("quick tests"))


def _redone(config: RunConfig, network: Network, data: Tensors, key: Key) -> dict[str, float]:
    """Of a readout on a few captures by the network as it is now, all units seen."""
    (images, labels), here = data.train, key.child("redone")
    rows = draw(len(images), REDONE_CAPTURES, here)
    measured = network.features(images[rows], key=here, phase="redone")
    small = replace(data, train=(images[rows], labels[rows]))
    again = fitted(config, Learnt(measured), small, here)
    known = again.accuracies(network, data.validation, here.child("validation"), "validation")
    found = again.accuracies(network, _tests(data), here.child("test"), "redone")
    return {"accuracy_redone": found[best(known, own_head=False)]}
