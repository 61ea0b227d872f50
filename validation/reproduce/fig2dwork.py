"""One training of one method on one data set, on the chip: accuracies and costs."""

from __future__ import annotations

import time
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from pib.network import Network
from pib.readout import Readout
from twin.key import Key
from twin.ledger import Cost
from validation import datasets
from validation.adaptation.methods import METHODS, head_of, trained
from validation.adaptation.retrain import classifier, judged, judged_on
from validation.adaptation.standing import COSTS, since
from validation.baselines.backprop import measured_on_chip
from validation.config import RunConfig
from validation.experiment import Tensors, build_network, tensors
from validation.references import backprop_digital


def work(
    config: dict[str, Any],
    method: str,
    seed: int,
    folder: str | None,
    epochs: int | None = None,
    tests: int | None = None,
) -> xr.Dataset:
    """Train and measure; arguments in JSON's types.

    tests: how many test images, None for all.
    method: pib, lce (in the loop) or backprop (in silico, then written onto
    the same chip). epochs: of backprop, None for the sum of the units'.

    chip: test accuracy of a readout on measured features. head: of in-silico
    weights with the head they were trained with. digital: of the same net in
    the computer. With the costs of all devices until the test.
    """
    begun = time.monotonic()
    torch.set_num_threads(1)
    run, key = RunConfig.model_validate(config), Key(seed)
    data = tensors(datasets.load(run.data.name, data_dir=folder, limit=run.data.limit))
    data = judged_on(data, tests)
    if method == "backprop":
        found = _in_silico(run, data, key, epochs)
    else:
        found = _in_the_loop(run, data, key, method)
    facts = {"seconds": time.monotonic() - begun, "test_images": len(data.test[1])}
    return found.assign_attrs(facts)


def _in_the_loop(run: RunConfig, data: Tensors, key: Key, method: str) -> xr.Dataset:
    learnt = trained(run, data, METHODS[method], key)
    try:
        return _measured(run, learnt.network, learnt.measured, data, key)
    finally:
        learnt.network.close()


def _in_silico(run: RunConfig, data: Tensors, key: Key, epochs: int | None) -> xr.Dataset:
    net, digital = backprop_digital(run, data, key=key, epochs=epochs)
    network = build_network(run, data.train[0].shape[1], key=key)
    try:
        measured = measured_on_chip(net, network, data.train[0], key=key.child("deploy"))
        found = _measured(run, network, measured, data, key, head_of(net))
    finally:
        network.close()
    return found.assign(digital=digital)


def _measured(
    run: RunConfig,
    network: Network,
    measured: list[Tensor],
    data: Tensors,
    key: Key,
    head: Readout | None = None,
) -> xr.Dataset:
    costs = since(network, Cost())
    readout = classifier(run, measured, data, key.child("readout"))
    found = {"chip": judged(run, network, readout, data.test, key.child("test"))}
    if head is not None:
        features = network.features(data.test[0], key=key.child("test"))
        found["head"] = head.accuracy(torch.cat(features, 1), data.test[1])
    rows = xr.Dataset(found | costs)
    for name in rows.data_vars:
        rows[name].attrs["units"] = COSTS.get(str(name), "1")
    return rows
