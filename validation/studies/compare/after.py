"""What happens between training and test: media move, faults come, methods adapt."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from pib.network import Network
from pib.sampling import draw
from substrates.optics.driftclock import PRESETS
from substrates.optics.presets import configured
from twin.errors import ConfigError
from twin.key import Key
from validation.baselines.budget import Budget, CappedLedger
from validation.baselines.method import Learnt, Method, Task
from validation.config import RunConfig
from validation.experiment import Tensors

PASSES_PER_IMAGE = 10
"""Of the images that an adaptation uses: fewer passes mean fewer images. Two units take four
to be ranged and measured for a readout; the rest is for training."""


def without_class(data: Tensors, held_out: int) -> Tensors:
    """The data with one class left out of training, validation and test; labels close up."""
    if not 0 <= held_out < data.classes:
        raise ConfigError(
            f"compare.held_out_class: the data have classes 0 to {data.classes - 1}, got "
            f"{held_out}."
        )

    def kept(pair: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = pair
        rows = labels != held_out
        return images[rows], labels[rows] - (labels[rows] > held_out).to(labels.dtype)

    return replace(
        data, train=kept(data.train), validation=kept(data.validation), test=kept(data.test),
        classes=data.classes - 1,
    )  # fmt: skip


def decorrelate(network: Network, config: RunConfig, key: Key) -> None:
    """Let every optical medium move until speckle correlates as asked, then stand still.

    The field correlates as exp(-t / tau) and the speckle as its square.
    """
    wanted = config.compare.speckle_correlation
    if wanted == 1:
        return
    for index, (unit, table) in enumerate(zip(network.units, config.unit, strict=True)):
        if table.backend != "optics":
            raise ConfigError(
                f"compare.speckle_correlation: unit {index + 1} is {table.backend!r}, which has "
                "no speckle. Leave it out, or use optical units."
            )
        options = {"inputs": unit.fence.drive_port.shape[0], **table.options}
        drift = configured(options).drift
        tau_s = (PRESETS["slow"] if drift.static else drift).tau_s
        assert tau_s is not None
        here = key.child("decorrelate", index)
        unit.fence.adjust("drift_scale", 1.0, key=here)
        unit.fence.wait(-tau_s * math.log(wanted) / 2)
        unit.fence.adjust("drift_scale", 0.0, key=here)


def adapted(task: Task, method: Method, learnt: Learnt) -> tuple[Learnt, Task, int]:
    """Train the method again, from where it stands, on some images and few passes.

    The budget is adapt_passes per training image, spent on so many images that each
    can be shown PASSES_PER_IMAGE times. What was learnt, the task with just these
    images (whatever was measured is of them), and the passes that it took.
    """
    wanted = task.config.compare.adapt_passes
    assert wanted is not None
    images, labels = task.data.train
    ledger = task.network.units[0].fence.ledger
    assert isinstance(ledger, CappedLedger)
    before = Budget(ledger).spent
    total = int(wanted * len(labels))
    count = min(len(labels), max(task.data.classes * 10, total // PASSES_PER_IMAGE))
    rows = draw(len(labels), count, task.key.child("adapt"))
    ledger.ceiling = before + total
    again = replace(
        task, key=task.key.child("adapt"), start=learnt, lasting=task.key,
        data=replace(task.data, train=(images[rows], labels[rows])),
        budget=Budget(ledger, ledger.ceiling),
    )  # fmt: skip
    found = method.train(again)
    ledger.ceiling = None
    return found, again, Budget(ledger).spent - before
