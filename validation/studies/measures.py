"""What is measured on a network of a study: accuracies and what they cost."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pib.network import Network
from pib.readout import Readout
from pib.sampling import draw
from substrates.memristor.cost import cost_sheet
from twin.key import Key
from validation.baselines.method import Method
from validation.config import RunConfig
from validation.experiment import Tensors, fit_readout, seen_by_readout

REDONE_CAPTURES = 1000
"""Training images measured again for a readout that is retrained in the field."""

QUICK_TESTS = 2000
"""Test images of a quick point, drawn once for all points; all if there are fewer."""

INFERENCE = "inference"
"""The ledger's phase of the test images."""

CHIP, OWN = "readout", "own"
"""Classifiers beside those on single units ("unit 1"): the configured readout on
measured features, and a method's own head on the features of all units."""


def shown(pair: tuple[Tensor, Tensor], quick: bool, key: Key) -> tuple[Tensor, Tensor]:
    """The images and labels that a point is measured on: all, or some of them if quick."""
    images, labels = pair
    if not quick or len(labels) <= QUICK_TESTS:
        return images, labels
    rows = draw(len(labels), QUICK_TESTS, key)
    return images[rows], labels[rows]


def views(config: RunConfig, features: list[Tensor]) -> dict[str, Tensor]:
    """What each readout sees; equal views are fitted once."""
    seen = {CHIP: seen_by_readout(config, features)}
    single = len(features) == 1
    return seen | {f"unit {i + 1}": z for i, z in enumerate(features) if not single}


def accuracies(
    config: RunConfig, features: list[Tensor], labels: Tensor, method: Method,
    readouts: Mapping[str, Readout],
) -> dict[str, float]:  # fmt: skip
    """Of every classifier there is, on measured features (n, width) of the test images."""
    seen = views(config, features) | {OWN: torch.cat(features, 1)}
    found = {name: readout.accuracy(seen[name], labels) for name, readout in readouts.items()}
    if len(features) == 1:
        found["unit 1"] = found[CHIP]
    figures = {"accuracy": found[OWN if method.own_head else CHIP]}
    for index in range(len(features)):
        figures[f"accuracy_unit_{index + 1}"] = found[f"unit {index + 1}"]
    return figures | ({"accuracy_own_readout": found[OWN]} if OWN in found else {})


def on_validation(
    config: RunConfig, network: Network, data: Tensors, method: Method,
    readouts: Mapping[str, Readout], *, quick: bool, key: Key,
) -> dict[str, float]:  # fmt: skip
    """The same accuracy on images that nothing is reported on, to choose by; none without them."""
    if not len(data.validation[1]):
        return {}
    images, labels = shown(data.validation, quick, Key(0).child("quick validation"))
    features = network.features(images, key=key, phase="validation")
    found = accuracies(config, features, labels, method, readouts)
    return {"accuracy_validation": found["accuracy"]}


def redone(config: RunConfig, network: Network, data: Tensors, key: Key) -> Readout:
    """A readout trained on a few captures by the network as it is now."""
    images, labels = data.train
    rows, here = draw(len(images), REDONE_CAPTURES, key.child("redone")), key.child("redone")
    measured = network.features(images[rows], key=here, phase="redone")
    seen = seen_by_readout(config, measured)
    return fit_readout(config, seen, labels[rows], data.classes, key=here)


def cost_of_training(network: Network) -> dict[str, float]:
    """Everything spent so far on all devices."""
    cost = network.units[0].fence.ledger.total()
    return {
        "passes": float(cost.passes + cost.ranging_passes),
        "writes": float(cost.writes),
        "device_seconds_training": cost.device_seconds,
        "joules_training": cost.joules,
    }


def cost_of_inference(config: RunConfig, network: Network, images: int) -> dict[str, float]:
    """Energy and time of an image, on all units and on each, and the silicon of the crossbars."""
    ledger = network.units[0].fence.ledger
    cost = ledger.total(phase=INFERENCE)
    figures = {
        "joules_per_image": cost.joules / images,
        "latency_s": cost.device_seconds / images,
        "test_images": float(images),
    }
    for index, unit in enumerate(network.units):
        own = ledger.total(unit.name, INFERENCE)
        figures[f"joules_per_image_unit_{index + 1}"] = own.joules / images
        figures[f"latency_s_unit_{index + 1}"] = own.device_seconds / images
    sheets = [
        cost_sheet({"inputs": unit.fence.drive_port.shape[0], "outputs": unit.width}
                   | table.options)
        for unit, table in zip(network.units, config.unit, strict=True)
        if table.backend == "memristor"
    ]  # fmt: skip
    return figures | ({"area_m2": sum(sheet.area_m2 for sheet in sheets)} if sheets else {})
