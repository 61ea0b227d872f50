"""Tiny tasks for the training methods, and a counter below the fence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from twin.key import Key
from validation.baselines.budget import Budget, CappedLedger
from validation.baselines.method import Task, Twins
from validation.config import RunConfig, parse_config
from validation.experiment import Tensors, build_network

PIXELS, CLASSES = 9, 3
IDEAL = '\n[[unit]]\nbackend = "ideal"\noutputs = {n}\nepochs = 2\nclip_rms = 100.0\n'
NOISY = IDEAL + "options = {{ noise_v = 0.05 }}\n"
CHIP = '\n[[unit]]\nbackend = "memristor"\noutputs = {n}\nepochs = 2\nmask_constant = true\n'
RIG = (
    '\n[[unit]]\nbackend = "optics"\nkind = "broken-isomorphism"\noutputs = {n}\n'
    "epochs = 3\noptions = {{ pixels = 12 }}\n"
)
STEADY = (
    '\n[[unit]]\nbackend = "optics"\nkind = "broken-isomorphism"\noutputs = {n}\n'
    'epochs = 3\noptions = {{ pixels = 12, shot_noise = "none", read_noise_electrons = 0.0, '
    "dark_electrons_per_s = 0.0, camera_bits = 16, full_scale_over_mean = 40.0 }}\n"
)


def config(*units: str, skip: bool = True, range_every: int = 4, **compare: Any) -> RunConfig:
    """units: texts of unit tables. compare: fields of the compare table."""
    table = {"batch": 15, "rate": 0.02, "dropout": 0.0} | compare
    text = f"[network]\nskip = {str(skip).lower()}\n[training]\nwarm_up = 2\n"
    text += f"range_every = {range_every}\n[compare]\n"
    text += "".join(f"{name} = {value}\n" for name, value in table.items())
    return parse_config(text + "".join(units), "test")


def blobs(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % CLASSES
    noise = torch.rand((n, PIXELS), generator=Key(seed).torch())
    return 0.6 * noise + 0.4 * torch.nn.functional.one_hot(labels, PIXELS), labels


def data(n: int = 60) -> Tensors:
    """Training, validation and test blobs; the validation part is nobody's business."""
    nothing = torch.full((6, PIXELS), torch.nan), torch.zeros(6, dtype=torch.int64)
    return Tensors(
        train=blobs(n), validation=nothing, test=blobs(60, 9), shape=(3, 3), classes=CLASSES
    )


class Counted:
    """A backend that counts the samples that reach it, without any ledger."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.passes = inner, 0

    def forward(self, drive: Tensor, **options: Any) -> Any:
        self.passes += len(drive) * (options.get("shots") or 1)
        return self._inner.forward(drive, **options)

    def set_range(self, drive: Tensor, **options: Any) -> Any:
        self.passes += len(drive)
        return self._inner.set_range(drive, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def task(
    config: RunConfig, *, n: int = 60, ceiling: int | None = None, seed: int = 3,
    twins: Twins | None = None,
) -> Task:  # fmt: skip
    """A task whose devices are counted below their fences (see `counted`)."""
    ledger, key = CappedLedger(ceiling), Key(seed)
    network = build_network(config, PIXELS, key=key, ledger=ledger)
    for unit in network.units:
        unit.fence._backend = Counted(unit.fence._backend)  # type: ignore[assignment]
    budget = None if ceiling is None else Budget(ledger, ceiling)
    return Task(config=config, network=network, data=data(n), key=key, budget=budget, twins=twins)


def counted(task: Task) -> int:
    """Passes that reached the devices."""
    return sum(unit.fence._backend.passes for unit in task.network.units)  # type: ignore[attr-defined]


def in_ledger(task: Task) -> int:
    cost = task.network.units[0].fence.ledger.total()
    return cost.passes + cost.ranging_passes


def lift_ceiling(task: Task) -> None:
    """After training: what is measured then does not count."""
    ledger = task.network.units[0].fence.ledger
    assert isinstance(ledger, CappedLedger)
    ledger.ceiling = None


class MatrixTwin:
    """Of an ideal unit: a product with what is written."""

    def predict(self, drive: Tensor, setting: Tensor | None = None) -> Tensor:
        assert setting is not None
        return drive @ setting


def matrix_twins(index: int) -> MatrixTwin:
    return MatrixTwin()


class NoTwin:
    """Of anything: claims a derivative that is the same for all readings."""

    def predict(self, drive: Tensor, setting: Tensor | None = None) -> Tensor:
        return drive.sum(1, keepdim=True).repeat(1, 12 if setting is None else setting.shape[1])


def any_twins(index: int) -> NoTwin:
    return NoTwin()
