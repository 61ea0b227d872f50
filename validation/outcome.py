"""What came of a training run: readouts, comparisons, history, summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from pib import checkpoint
from pib.network import Network
from pib.readout import Readout
from pib.sampling import draw
from pib.train import Trainer
from twin.key import Key
from validation import rundata
from validation.config import RunConfig
from validation.experiment import (
    Tensors,
    fit_readout,
    only_devices,
    opened_network,
    seen_by_readout,
)
from validation.job import Job, Stopwatch
from validation.references import TITLES, prepare
from validation.summary import Figure, Summary, binomial_error

MAP_IMAGES = 600


@dataclass(frozen=True)
class Result:
    """What was measured on the test images: accuracies of a readout on each
    unit and on all; curves of (train, test) accuracy by epoch."""

    readout: Readout
    accuracies: dict[str, float]
    curves: dict[str, list[tuple[float, float]]]
    test_features: list[Tensor]
    guess: Tensor


def measure(
    job: Job, network: Network, measured: Sequence[Tensor], data: Tensors, key: Key
) -> Result:
    on_test = network.features(data.test[0], key=key.child("test"))
    views = {u.name: (m, t) for u, m, t in zip(network.units, measured, on_test, strict=True)}
    chosen = f"readout on {job.config.network.readout}"
    views[chosen] = (
        seen_by_readout(job.config, list(measured)),
        seen_by_readout(job.config, on_test),
    )
    curves: dict[str, list[tuple[float, float]]] = {}
    readouts: dict[str, Readout] = {}
    for name, (train, test) in views.items():
        curve = curves[name] = []
        readouts[name] = fit_readout(
            job.config, train, data.train[1], data.classes, key=key.child("readout"),
            after_epoch=_curve(curve, (train, data.train[1]), (test, data.test[1])),
        )  # fmt: skip
    final = views[chosen][1]
    return Result(
        readout=readouts[chosen],
        accuracies={n: r.accuracy(views[n][1], data.test[1]) for n, r in readouts.items()},
        curves=curves,
        test_features=on_test,
        guess=readouts[chosen].logits(final).argmax(1),
    )


def _curve(
    into: list[tuple[float, float]], train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> Callable[[int, Readout], None]:
    def note(epoch: int, readout: Readout) -> None:  # noqa: ARG001
        rows = slice(None, None, -(-len(train[1]) // 10_000))
        into.append((readout.accuracy(train[0][rows], train[1][rows]), readout.accuracy(*test)))

    return note


def save_network(
    folder: Path,
    network: Network,
    readout: Readout,
    devices: tuple[dict[str, Tensor], dict[str, str]],
) -> None:
    """Parameters, constants, device states and readout, for evaluate and export."""
    arrays = {f"network.{n}": t for n, t in network.state().items()}
    arrays |= {f"readout.{n}": t for n, t in readout.state().items()}
    checkpoint.save(folder / "network", arrays | devices[0], devices[1])


def write_history(
    job: Job, trainer: Trainer, result: Result, data: Tensors, key: Key, devices: xr.Dataset
) -> None:
    """Save the record of the run; devices: arrays that picture its devices."""
    labels = data.test[1]
    shown = draw(len(labels), MAP_IMAGES, key.child("shown"))
    history = rundata.training_dataset(trainer)
    history = rundata.add_readouts(history, result.curves)
    # Maps show the network untrained too, which takes devices made once more.
    if not only_devices(job.config, trainer.network):
        with opened_network(job.config, data.train[0].shape[1], key=key) as untrained:
            prepare(untrained, data, key=key)
            before = untrained.features(data.test[0][shown], key=key.child("map"))
        after = [z[shown] for z in result.test_features]
        history = rundata.add_maps(history, before, after, labels[shown])
    history = rundata.add_confusion(history, labels, result.guess, job.data.classes)
    history = history.merge(devices)
    rundata.save(history, job.out, {"command": job.command, "preset": job.preset})


def summarise(
    job: Job,
    trainer: Trainer,
    result: Result,
    found: Any,
    clock: Stopwatch,
    training_seconds: float,
    notes: dict[str, str],
) -> Summary:
    n = len(job.data.test_y)
    names = list(result.accuracies)
    accuracy = result.accuracies[names[-1]]
    figures = {"accuracy": accuracy}
    figures |= {f"accuracy_unit_{i + 1}": result.accuracies[u] for i, u in enumerate(names[:-1])}
    if found is not None:
        figures |= {n: v for n, v in vars(found).items() if v is not None}
    rows = [
        Figure(name, value, n=n, standard_error=binomial_error(value, n), seeds=[job.seed])
        for name, value in figures.items()
    ]
    differences = {"gain_of_later_units": accuracy - result.accuracies[names[0]]}
    if found is not None:
        rivals = {
            "gap_to_backprop_deployed": found.accuracy_backprop_deployed,
            "gap_to_backprop_digital": found.accuracy_backprop_digital,
        }
        differences |= {n: v - accuracy for n, v in rivals.items() if v is not None}
    rows += [Figure(name, value, n=n, seeds=[job.seed]) for name, value in differences.items()]
    rows += [
        Figure("wall_seconds_training", training_seconds, "s", seeds=[job.seed]),
        Figure("wall_seconds", clock.seconds, "s", seeds=[job.seed]),
    ]
    summary = Summary(job.command, rows)
    summary.expect(job.bounds)
    summary.extra = _facts(job, trainer, found, notes)
    return summary


def _facts(job: Job, trainer: Trainer, found: Any, notes: dict[str, str]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "command": job.command,
        "preset": job.preset,
        "seed": job.seed,
        "resumed": notes["resumed"] == "1",
        "ledger": trainer.network.units[0].fence.ledger.rows(),
        "network": [_unit_facts(job.config, trainer.network, i) for i in range(len(trainer.plans))],
        "readout": {
            "inputs": sum(u.width for u in trainer.network.units)
            if job.config.network.readout == "all"
            else trainer.network.units[-1].width,
            "classes": len(job.data.classes),
        },
        "dataset": job.data.describe(),
    }
    facts |= threads_changed(notes)
    if found is None:
        facts["references_off"] = True
    else:
        facts["references"] = {
            title: {
                "accuracy": getattr(found, name),
                "standard_error": binomial_error(getattr(found, name), len(job.data.test_y)),
                "n": len(job.data.test_y),
            }
            for name, title in TITLES.items()
            if getattr(found, name) is not None
        }
    return facts


def threads_changed(notes: Mapping[str, str]) -> dict[str, str]:
    """What to tell if a run goes on with another thread count than its checkpoint's:
    sums are then rounded otherwise, and it is no longer the uninterrupted run to the bit."""
    threads = torch.get_num_threads()
    if int(notes.get("threads", threads)) == threads:
        return {}
    return {"threads_changed": f"checkpoint: {notes['threads']}, now: {threads}"}


def _unit_facts(config: RunConfig, network: Network, index: int) -> dict[str, Any]:
    unit, table = network.units[index], config.unit[index]
    drive = "image"
    if index:
        drive = f"unit {index} features" + (" + image" if network.skip else "")
    return {
        "name": unit.name,
        "backend": table.backend,
        "kind": table.kind,
        "inputs": unit.fence.drive_port.shape[0],
        "outputs": unit.width,
        "drive": drive,
        "reading_width": unit.fence.reading_port.shape[0],
        "device_id": unit.fence.capabilities.device_id,
    }
