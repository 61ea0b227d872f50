"""What one point of a study does in a worker process: train, turn, measure, report.

The same point gives the same figures to the bit, apart from points.VOLATILE,
whether or not it shares what it trains with other points.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache

import torch

from pib.network import Network
from pib.readout import Readout
from pib.sampling import draw
from twin.errors import CheckpointError, ConfigError, UnknownName, nearest
from twin.key import Key
from validation import datasets
from validation.baselines import registry
from validation.baselines.method import Learnt, Method, Task, require
from validation.config import RunConfig
from validation.evaluation import redeploy
from validation.exactwires import through_exact_wires
from validation.experiment import Tensors, build_network, fit_readout, seen_by_readout, tensors
from validation.studies.measures import (
    INFERENCE,
    OWN,
    accuracies,
    cost_of_inference,
    cost_of_training,
    on_validation,
    redone,
    shown,
    views,
)
from validation.studies.points import WHENS, Point, turns
from validation.studies.settings import (
    as_built,
    has_options,
    resolved,
    rest,
    run_config,
    turned,
    wait_s,
)
from validation.studies.sharing import Shared, Training, keeper, sharable


def work(point: Point, *, share: bool = True) -> dict[str, float]:
    """Train and measure as the point says; figures by name (see points.UNITS).

    With when = "training" all settings hold from the start. With "test" the
    network is trained without the point's dials and unit options; then
    its dials are turned, or, if there are options, its weights are written
    and ranged anew on devices made with them and its dials turned there.
    The readouts stay those trained before. In both cases "test.wait_s" passes
    before the test images.

    accuracy: on the test images (test_images of them), by the configured readout or the method's
    own head. accuracy_unit_1, ...: readouts on single units.
    accuracy_own_readout: by a method's own head. accuracy_readout_redone (test,
    methods with a readout): readout retrained on REDONE_CAPTURES training images
    measured after that. accuracy_validation: on the validation images, if there
    are any, measured after the test; designs are chosen by it. joules_per_image, latency_s:
    of the devices, all units one after another; joules_per_image_unit_1, ...: of each.
    area_m2: of the crossbars, if any. passes, writes, device_seconds_training,
    joules_training: on all devices before the test, ranging and readout included.
    share: look up and keep trained networks in the folder of `sharing.keeper`.
    Raises ConfigError, UnknownName, DialError, Unsupported and what devices raise.
    """
    begun = time.monotonic()
    with one_thread():
        figures = _worked(point, share)
    return figures | {"wall_seconds": time.monotonic() - begun}


def _worked(point: Point, share: bool) -> dict[str, float]:
    method = registry.method(point.method)
    if point.when not in WHENS:
        raise UnknownName(f"when: {point.when!r} is no such time. {nearest(point.when, WHENS)}")
    later = point.when == "test"
    built = as_built(point) if later else point
    config, key = run_config(built), Key(point.seed)
    seconds = wait_s(point)
    require(method, config, point.base)
    data, seal = _data(config.data.name, point.data, config.data.limit)
    tests = shown(data.test, point.quick, Key(0).child("quick tests"))
    with ExitStack() as opened:
        network = _opened(config, data, key, opened)
        field = network
        if later:
            field = _in_the_field(point, network, data, opened)
            resolved(field, turns(point))  # what is wrong is known before training
        dials = turned(network, turns(built), key)
        shared = None
        if share and sharable(network, config):
            training = Training(
                config=config, family=method.family, seed=point.seed, data=seal, dials=dials
            )
            shared = Shared(keeper(), training)
        readouts = _trained(config, network, data, method, key, shared)
        figures = cost_of_training(network)
        if field is not network:
            config = run_config(point)
            _written(field, network, data, key.child("moved"))
        if later:
            turned(field, turns(point), key)
        rest(field, seconds)
        features = field.features(tests[0], key=key.child("test"), phase=INFERENCE)
        figures |= accuracies(config, features, tests[1], method, readouts)
        figures |= on_validation(
            config, field, data, method, readouts, quick=point.quick, key=key.child("validation")
        )
        if later and not method.own_head:
            readout = redone(config, field, data, key)
            seen = seen_by_readout(config, features)
            figures["accuracy_readout_redone"] = readout.accuracy(seen, tests[1])
        return figures | cost_of_inference(config, field, len(tests[1]))


# ---- what a point is made of ------------------------------------------------


@lru_cache(maxsize=2)
def _data(name: str, folder: str | None, limit: int | None) -> tuple[Tensors, str]:
    """A data set as tensors, and a digest of its numbers."""
    data = tensors(datasets.load(name, data_dir=folder, limit=limit))
    seal = hashlib.sha256(repr((data.shape, data.classes)).encode())
    for tensor in (*data.train, *data.validation, *data.test):
        seal.update(tensor.numpy().tobytes())
    return data, seal.hexdigest()


def _opened(config: RunConfig, data: Tensors, key: Key, opened: ExitStack) -> Network:
    """A network as made, closed with `opened`."""
    network = build_network(config, data.train[0].shape[1], key=key)
    opened.callback(network.close)
    return network


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums over several threads would differ between machines in the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# ---- training -----------------------------------------------------------------


def _trained(
    config: RunConfig, network: Network, data: Tensors, method: Method, key: Key,
    shared: Shared | None,
) -> dict[str, Readout]:  # fmt: skip
    """Train the network, or find it trained; its classifiers by view."""
    readouts = None if shared is None else shared.trained(network)
    if readouts is not None:
        return readouts
    task = Task(config=config, network=network, data=data, key=key, upstream=shared)
    learnt = method.train(task)
    readouts = _readouts(config, network, data, learnt, key)
    if shared is not None:
        shared.keep(network, readouts)
    return readouts


def _readouts(
    config: RunConfig, network: Network, data: Tensors, learnt: Learnt, key: Key
) -> dict[str, Readout]:
    images, labels = data.train
    measured = through_exact_wires(network, learnt.measured, images, key=key)
    readouts = {
        name: fit_readout(config, seen, labels, data.classes, key=key.child("readout"))
        for name, seen in views(config, measured).items()
    }
    return readouts if learnt.head is None else readouts | {OWN: learnt.head}


# ---- after training -------------------------------------------------------------


def _in_the_field(point: Point, network: Network, data: Tensors, opened: ExitStack) -> Network:
    """The network to be tested later: other devices if the point has unit options.

    They have the draws of those trained on, and nothing written yet.
    """
    if not has_options(point):
        return network
    field = _opened(run_config(point), data, Key(point.seed), opened)
    try:
        field.load(network.state())
    except CheckpointError as error:
        raise ConfigError(
            f"{point.told()}: these options change the shape of a trained unit ({error}). "
            'Use when = "training".'
        ) from None
    return field


def _written(field: Network, network: Network, data: Tensors, key: Key) -> None:
    """Write and range the trained weights on the devices in the field."""
    field.load(network.state())
    images = data.train[0]
    some = images[draw(len(images), 500, key.child("some"))]
    redeploy(field, some, key)
    through_exact_wires(field, [], some, key=key)
