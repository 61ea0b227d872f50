"""What stands beside every result: rivals on the same physics and passes.

Backpropagation of the same digital net, the same net deployed (own head, and
with a readout retrained on measured features), local cross-entropy on PIB's
schedule, a linear readout on the raw physics, an untrained network.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from pib.augment import Augment
from pib.network import Network
from pib.sampling import draw
from pib.unit import DigitalLayerUnit, IsomorphicUnit
from twin.files import write_atomic
from twin.key import Key
from validation.baselines.backprop import (
    BackpropPlan,
    DigitalNet,
    Inputs,
    measured_on_chip,
    train_backprop,
)
from validation.baselines.lce import LocalCrossEntropy
from validation.config import RunConfig
from validation.exactwires import through_exact_wires
from validation.experiment import (
    Tensors,
    build_network,
    build_plans,
    build_trainer,
    fit_readout,
    opened_network,
    seen_by_readout,
)


@dataclass(frozen=True, kw_only=True)
class References:
    """Test accuracies in [0, 1]; the names are those of the figures.

    backprop_* use as many image passes as PIB's units together had. Deployed
    ones are None behind a second medium: backpropagation cannot pass it, so
    there is no layer to deploy on what comes after.
    """

    accuracy_backprop_digital: float
    accuracy_backprop_deployed: float | None
    accuracy_backprop_deployed_retrained: float | None
    accuracy_local_cross_entropy: float
    accuracy_linear_on_physics: float
    accuracy_untrained: float
    accuracy_backprop_converged: float | None = None


OURS = ("ideal", "memristor", "optics")
"""Backends whose source is in the digest; what others answer is never cached."""

TITLES = {
    "accuracy_backprop_digital": "backpropagation, in the computer",
    "accuracy_backprop_deployed": "backpropagation, deployed on the device",
    "accuracy_backprop_deployed_retrained": "backpropagation deployed, readout retrained",
    "accuracy_local_cross_entropy": "local cross-entropy, same schedule as PIB",
    "accuracy_linear_on_physics": "linear readout on the raw physics",
    "accuracy_untrained": "untrained network",
    "accuracy_backprop_converged": "backpropagation in the computer, trained long",
}
"""What the report calls each figure."""


def references(
    config: RunConfig,
    data: Tensors,
    *,
    key: Key,
    cache: Path | None,
    say: Callable[[str], None] = lambda _: None,
) -> References:
    """All rivals, from the cache if the same question was answered before."""
    path = None
    if cache is not None and all(unit.backend in OURS for unit in config.unit):
        path = cache / f"{_question(config, data, key)}.json"
    if path is not None and path.is_file():
        say("references: cached")
        return References(**json.loads(path.read_text()))
    say("reference: backpropagation")
    net, digital = backprop_digital(config, data, key=key)
    own_head = retrained = None
    if all(unit.kind == "isomorphic" for unit in config.unit[1:]):
        say("reference: backpropagation deployed")
        own_head, retrained = deployed(config, net, data, key=key)
    say("reference: local cross-entropy")
    local = local_cross_entropy(config, data, key=key)
    say("reference: untrained")
    untrained, raw = untrained_network(config, data, key=key)
    converged = None
    if config.references.converged_epochs is not None:
        say("reference: backpropagation, trained long")
        epochs = config.references.converged_epochs
        _, converged = backprop_digital(config, data, key=key, epochs=epochs)
    found = References(
        accuracy_backprop_digital=digital,
        accuracy_backprop_deployed=own_head,
        accuracy_backprop_deployed_retrained=retrained,
        accuracy_local_cross_entropy=local,
        accuracy_linear_on_physics=raw,
        accuracy_untrained=untrained,
        accuracy_backprop_converged=converged,
    )
    if path is not None:
        write_atomic(path, json.dumps(asdict(found)).encode())
    return found


def backprop_digital(
    config: RunConfig, data: Tensors, *, key: Key, epochs: int | None = None
) -> tuple[DigitalNet, float]:
    """The digital net and its test accuracy; epochs: PIB's sum by default."""
    train, test = digital_inputs(config, data, key=key)
    first = config.unit[0]
    plan = BackpropPlan(
        epochs=epochs or sum(u.epochs for u in config.unit),
        rate=config.references.backprop_rate,
        batch=config.training.batch,
        warm_up=config.training.warm_up,
        augment=Augment(**config.augment.model_dump()),
        input_dropout=first.record_dropout,
    )
    widths = [u.outputs for u in config.unit]
    net = train_backprop(
        train, widths, data.classes, plan, config.network.skip, key.child("backprop")
    )
    return net, net.accuracy(test.first, test.beside, test.labels)


def deployed(config: RunConfig, net: DigitalNet, data: Tensors, *, key: Key) -> tuple[float, float]:
    """Test accuracies of the net written onto the devices: with its own head,
    and with the configured readout retrained on measured features."""
    here = key.child("deploy")
    with opened_network(config, data.train[0].shape[1], key=key) as network:
        measured = measured_on_chip(net, network, data.train[0], key=here)
        on_test = network.features(data.test[0], key=here.child("test"))
    own_head = net.head_accuracy(torch.cat(on_test, 1), data.test[1])
    train = seen_by_readout(config, measured)
    readout = fit_readout(config, train, data.train[1], data.classes, key=here)
    return own_head, readout.accuracy(seen_by_readout(config, on_test), data.test[1])


def digital_inputs(config: RunConfig, data: Tensors, *, key: Key) -> tuple[Inputs, Inputs]:
    """What the digital net is trained and tested on.

    Behind a scattering unit: its standardised frames, one shot per image; a
    second scattering unit's layer then sees those frames too (its own frames
    depend on the layer before it, and backpropagation cannot pass the medium).
    """
    if config.unit[0].kind == "isomorphic":
        return (
            Inputs(
                first=data.train[0],
                beside=data.train[0],
                labels=data.train[1],
                image_shape=data.shape,
            ),
            Inputs(first=data.test[0], beside=data.test[0], labels=data.test[1]),
        )
    train, test = first_frames(config, data, key=key)
    later_is_optical = len(config.unit) > 1 and config.unit[1].kind != "isomorphic"
    beside = (train, test) if later_is_optical else (data.train[0], data.test[0])
    return (
        Inputs(first=train, beside=beside[0], labels=data.train[1]),
        Inputs(first=test, beside=beside[1], labels=data.test[1]),
    )


def first_frames(config: RunConfig, data: Tensors, *, key: Key) -> tuple[Tensor, Tensor]:
    """Standardised frames of the first (fixed) unit, for train and test."""
    with opened_network(config, data.train[0].shape[1], key=key) as network:
        unit = network.units[0]
        assert isinstance(unit, DigitalLayerUnit)
        some = draw(len(data.train[0]), 500, key.child("some"))
        unit.calibrate(data.train[0][some], key=key.child("calibrate"))
        train, test = (
            unit.standardised(unit.capture(x, key=key.child("frames", name), phase="capture"))
            for name, x in (("train", data.train[0]), ("test", data.test[0]))
        )
    return train, test


def local_cross_entropy(config: RunConfig, data: Tensors, *, key: Key) -> float:
    """Test accuracy of PIB's schedule with a throw-away softmax head as loss."""
    plans = build_plans(config, LocalCrossEntropy, config.references.local_cross_entropy_rate)
    with opened_network(config, data.train[0].shape[1], key=key) as network:
        trainer = build_trainer(network, data, plans, key=key.child("train"))
        trainer.PROBES_PER_UNIT = 1
        measured = through_exact_wires(network, trainer.run(), data.train[0], key=key)
        return _readout_accuracy(config, network, measured, data, key=key)


def untrained_network(config: RunConfig, data: Tensors, *, key: Key) -> tuple[float, float]:
    """Test accuracies of a readout on untrained features, and on raw readings
    of the first unit's physics."""
    images, labels = data.train
    with opened_network(config, images.shape[1], key=key) as network:
        prepare(network, data, key=key)
        measured = network.features(images, key=key.child("measure"), phase="capture")
        untrained = _readout_accuracy(config, network, measured, data, key=key)
        unit = network.units[0]
        train, test = (
            unit.capture(x, key=key.child("raw", name), phase="capture").values
            for name, x in (("train", images), ("test", data.test[0]))
        )
    readout = fit_readout(config, train, labels, data.classes, key=key.child("raw"))
    return untrained, readout.accuracy(test, data.test[1])


def prepared(config: RunConfig, data: Tensors, *, key: Key) -> Network:
    """An untrained network, written, ranged and linked like a trained one."""
    network = build_network(config, data.train[0].shape[1], key=key)
    prepare(network, data, key=key)
    return network


def prepare(network: Network, data: Tensors, *, key: Key) -> None:
    """Write, range and link an untrained network."""
    some = draw(len(data.train[0]), 500, key.child("some"))
    images, before = data.train[0][some], None
    for index, unit in enumerate(network.units):
        unit.deploy(key.child("untrained", index))
        unit.calibrate(network.drive(index, images, before), key=key.child("range", index))
        before = network.features(images, key=key.child("link", index), until=index + 1)[-1]
        network.calibrate_link(index, before)


def _readout_accuracy(
    config: RunConfig, network: Network, measured: list[Tensor], data: Tensors, *, key: Key
) -> float:
    readout = fit_readout(
        config, seen_by_readout(config, measured), data.train[1], data.classes,
        key=key.child("readout"),
    )  # fmt: skip
    on_test = network.features(data.test[0], key=key.child("test"))
    return readout.accuracy(seen_by_readout(config, on_test), data.test[1])


def is_isomorphic(network: Network) -> bool:
    """Whether every unit's weights live on its device."""
    return all(isinstance(unit, IsomorphicUnit) for unit in network.units)


def _question(config: RunConfig, data: Tensors, key: Key) -> str:
    """A digest of all that the references depend on, our own source included."""
    shape = (data.shape, data.classes)
    seal = hashlib.sha256(config.model_dump_json(exclude={"bounds", "about"}).encode())
    seal.update(repr((key, shape, torch.get_num_threads(), torch.__version__)).encode())
    for tensor in (*data.train, *data.test):
        seal.update(tensor.numpy().tobytes())
    root = Path(__file__).resolve().parent.parent
    for package in ("twin", "substrates", "pib", "validation/baselines"):
        for path in sorted((root / package).rglob("*.py")):
            seal.update(path.read_bytes())
    for name in ("references.py", "experiment.py", "exactwires.py", "config.py"):
        seal.update((root / "validation" / name).read_bytes())
    return seal.hexdigest()[:32]


def cache_folder() -> Path:
    """Where answers are kept: PIB_TWIN_CACHE, else the user's cache folder."""
    import pooch

    return Path(os.environ.get("PIB_TWIN_CACHE") or pooch.os_cache("pib-twin")) / "references"
