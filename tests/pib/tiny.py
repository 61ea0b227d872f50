"""Networks and data small enough to be trained in a blink, of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pib.network import Network
from pib.objective import InformationBottleneck, Objective
from pib.train import Plan, Trainer, TrainingData
from pib.unit import DigitalLayerUnit, IsomorphicUnit, Unit
from twin.backend import MinimalBackend
from twin.fence import Fence
from twin.key import Key
from twin.ledger import Ledger
from twin.registry import open_backend

PIXELS = 12
WIDTH = 6
OPTIONS: dict[str, dict[str, Any]] = {
    "ideal": {"noise_v": 0.02},
    "memristor": {"array_rows": 8},
    "optics": {"pixels": 16},
}
Wrap = Callable[[MinimalBackend], MinimalBackend]


def unwrapped(backend: MinimalBackend) -> MinimalBackend:
    return backend


def unit(name: str, inputs: int, index: int, ledger: Ledger, wrap: Wrap = unwrapped) -> Unit:
    """A unit of WIDTH features on the backend `name`, optics with a digital layer."""
    options = {"inputs": inputs, **OPTIONS[name]}
    if name != "optics":
        options["outputs"] = WIDTH
    backend = wrap(open_backend(name, key=Key(1).child("device", index), **options))
    fence = Fence(backend, name=f"unit {index + 1}", ledger=ledger, run_id=f"r-{index}")
    key = Key(1).child("weights", index)
    if name == "optics":
        return DigitalLayerUnit(fence, outputs=WIDTH, key=key)
    return IsomorphicUnit(fence, key=key, mask_constant=index == 1)


def network(names: tuple[str, ...], skip: bool = True, wrap: Wrap = unwrapped) -> Network:
    """Units on these backends in a row, one ledger for all."""
    ledger = Ledger()
    later = WIDTH + (PIXELS if skip else 0)
    sizes = [PIXELS] + [later] * (len(names) - 1)
    pairs = zip(names, sizes, strict=True)
    return Network([unit(n, s, i, ledger, wrap) for i, (n, s) in enumerate(pairs)], skip=skip)


def images(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three classes of 3 x 4 pictures that differ in one pixel each."""
    labels = torch.arange(n) % 3
    noise = torch.rand((n, PIXELS), generator=Key(seed).child("images").torch())
    return 0.5 * noise + 0.5 * torch.nn.functional.one_hot(labels, PIXELS), labels


def data(n: int = 24) -> TrainingData:
    x, y = images(n)
    return TrainingData(
        images=x, labels=y, shape=(3, 4), probe_images=x[:6].flip(1), probe_labels=y[:6]
    )


def plan(objective: Objective | None = None, **changes: Any) -> Plan:
    """Two epochs of two batches unless `changes` say otherwise."""
    options = {"epochs": 2, "batch": 12, "warm_up": 1, "rate": 0.05, "range_every": 2, **changes}
    return Plan(objective=objective or InformationBottleneck(alpha=2), **options)


def trainer(
    names: tuple[str, ...],
    make_plan: Callable[[], Plan] = plan,
    skip: bool = True,
    wrap: Wrap = unwrapped,
) -> Trainer:
    """A fresh trainer of a fresh network; the same arguments give the same one."""
    plans = [make_plan() for _ in names]
    return Trainer(network(names, skip, wrap), plans, data(), key=Key(5))


def same_tensors(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Equal names, types and bits."""
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a
    )
