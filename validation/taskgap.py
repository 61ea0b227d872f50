"""The task gap: the accuracy lost when a network trained on a twin runs on its device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from pib.network import Network
from pib.objective import InformationBottleneck
from pib.readout import Readout, train_readout
from pib.train import Plan, Trainer, TrainingData
from pib.unit import DigitalLayerUnit, IsomorphicUnit, Unit
from twin.backend import MinimalBackend
from twin.errors import ConfigError
from twin.fence import Fence
from twin.key import Key
from twin.ledger import Ledger
from validation import datasets
from validation.experiment import Tensors, tensors
from validation.summary import Figure, binomial_error

Make = Callable[[], MinimalBackend]
FEATURES = 32
"""Width of the digital layer behind fixed physics."""


@dataclass(frozen=True, kw_only=True)
class TaskGap:
    """A network trained on the twin, run on the device, against one trained there.

    Accuracies on the same test images, in [0, 1]. gap: of the device less that of the
    twin; at or below zero nothing is lost. standard_error: of the gap, from the images
    on which the two disagree. on_twin: trained and run on the twin.
    """

    trained_on_twin: float
    trained_on_device: float
    on_twin: float
    gap: float
    standard_error: float
    images: int
    device_passes: int


def digits(seed: int) -> Tensors:
    """The 8 x 8 digits."""
    return tensors(datasets.load("digits", seed=seed))


def task_gap(
    make_twin: Make, make_device: Make, data: Tensors, *, key: Key, epochs: int = 60
) -> TaskGap:
    """Train one unit on each, run both on the device; `make_...` open one, which is closed
    before the next is opened: of hardware there is one.

    The unit is isomorphic where the device is programmable, else fixed physics with a
    digital layer. Moved to the device, the network keeps weights, constants and readout
    of the twin: weights are written, converters ranged, and nothing is learnt again.
    """
    place = key.child("test")
    with _opened(make_device, data, key) as at_home:
        home = _right(at_home, _train(at_home, data, key, epochs), data, place)
        passes = at_home.units[0].fence.ledger.total().passes
    with _opened(make_twin, data, key) as on_twin:
        readout = _train(on_twin, data, key, epochs)
        twin = _right(on_twin, readout, data, place)
        learnt = on_twin.state()
    with _opened(make_device, data, key) as moved:
        moved.load(learnt)
        _run_in(moved, data, key.child("move"))
        away = _right(moved, readout, data, place)
        passes += moved.units[0].fence.ledger.total().passes
    apart = home - away
    return TaskGap(
        trained_on_twin=float(away.mean()),
        trained_on_device=float(home.mean()),
        on_twin=float(twin.mean()),
        gap=float(apart.mean()),
        standard_error=float(apart.std()) / len(apart) ** 0.5,
        images=len(apart),
        device_passes=passes,
    )


def gap_figures(gap: TaskGap, seed: int) -> list[Figure]:
    """The figures of a task gap for a summary."""
    n = gap.images
    rows = [
        Figure(f"task/{name}", value, n=n, standard_error=binomial_error(value, n), seeds=[seed])
        for name in ("trained_on_twin", "trained_on_device", "on_twin")
        for value in [getattr(gap, name)]
    ]
    return [
        *rows,
        Figure("task/gap", gap.gap, n=n, standard_error=gap.standard_error, seeds=[seed]),
        Figure("task/device_passes", gap.device_passes, "passes", seeds=[seed]),
    ]


@contextmanager
def _opened(make: Make, data: Tensors, key: Key) -> Iterator[Network]:
    """A network of one unit, whose device is closed at the end."""
    network = _network(make, data, key)
    try:
        yield network
    finally:
        network.units[0].fence.close()


def _network(make: Make, data: Tensors, key: Key) -> Network:
    backend = make()
    fence = Fence(backend, name="unit 1", ledger=Ledger())
    pixels = data.train[0].shape[1]
    if fence.drive_port.shape != (pixels,):
        fence.close()
        raise ConfigError(
            f"{backend.capabilities.device_id}: its drive has shape {fence.drive_port.shape}, the "
            f"task gap needs ({pixels},). Make both with inputs={pixels}, or leave the task out."
        )
    start = key.child("weights")
    unit: Unit
    if backend.capabilities.programmable:
        unit = IsomorphicUnit(fence, key=start)
    else:
        unit = DigitalLayerUnit(fence, outputs=FEATURES, key=start)
    return Network([unit])


def _train(network: Network, data: Tensors, key: Key, epochs: int) -> Readout:
    probe = data.validation if len(data.validation[0]) else data.train
    training = TrainingData(
        images=data.train[0], labels=data.train[1], shape=data.shape,
        probe_images=probe[0], probe_labels=probe[1],
    )  # fmt: skip
    plan = Plan(objective=InformationBottleneck(alpha=2), epochs=epochs)
    (features,) = Trainer(network, [plan], training, key=key.child("train")).run()
    return train_readout(features, data.train[1], data.classes, key=key.child("readout"))


def _run_in(network: Network, data: Tensors, key: Key) -> None:
    """Write the network's weights to its device and let it find its range."""
    unit = network.units[0]
    unit.deploy(key.child("write"))
    if unit.fence.capabilities.rangeable:
        unit.fence.set_range(data.train[0][:1000], key=key.child("range"))


def _right(network: Network, readout: Readout, data: Tensors, key: Key) -> Tensor:
    """1.0 for each test image that is classified rightly, else 0.0."""
    (features,) = network.features(data.test[0], key=key)
    return (readout.logits(features).argmax(1) == data.test[1]).double()
