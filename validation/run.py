"""One training run: train, checkpoint, measure, compare, leave a run folder."""

from __future__ import annotations

import hashlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pib import checkpoint
from pib.network import Network
from pib.readout import Readout
from pib.train import Trainer
from twin.errors import CheckpointError, ConfigError
from twin.files import write_atomic
from twin.key import Key
from twin.ledger import Ledger
from validation import rundata
from validation.config import RunConfig
from validation.datasets import Dataset
from validation.experiment import (
    Tensors,
    build_network,
    build_plans,
    build_trainer,
    fit_readout,
    seen_by_readout,
    tensors,
)
from validation.references import TITLES, cache_folder, prepared, references
from validation.summary import Figure, Summary, binomial_error

CHECKPOINT = "checkpoint"
CONFIG = "config.json"
MAP_IMAGES = 600
CHECKPOINT_SECONDS = 10.0


class Watcher(Protocol):
    """Who looks on: called after steps and when something else begins."""

    def step(self, trainer: Trainer) -> None: ...

    def say(self, what: str) -> None: ...


class Silent:
    """A watcher that shows nothing."""

    def step(self, trainer: Trainer) -> None:
        """Look away."""

    def say(self, what: str) -> None:
        """Stay silent."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to run. command: as typed, for the record. bounds: figure name to
    bound. references: False leaves the rivals out, and the report says so."""

    config: RunConfig
    data: Dataset
    seed: int
    out: Path
    command: str = ""
    preset: str = ""
    resume: bool = False
    references: bool = True
    bounds: dict[str, str] = field(default_factory=dict)


@dataclass
class _Stopwatch:
    """Wall time of this process and of the ones it resumed from, seconds."""

    before: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started


def run(job: Job, watcher: Watcher | None = None) -> Summary:
    """Do the job and leave config, checkpoint, history and summary in job.out.

    Raises KeyboardInterrupt after leaving a checkpoint; ConfigError when the
    folder belongs to another configuration.
    """
    watcher = watcher or Silent()
    key = Key(job.seed)
    data = tensors(job.data)
    _claim(job)
    ledger = Ledger()
    network = build_network(
        job.config, data.train[0].shape[1], key=key, ledger=ledger, run_id=f"{job.seed}"
    )
    try:
        trainer = build_trainer(network, data, build_plans(job.config), key=key.child("train"))
        clock, notes = _Stopwatch(), {"resumed": "0"}
        if job.resume:
            notes = checkpoint.load_training(job.out / CHECKPOINT, trainer)
            clock.before = float(notes.get("wall_seconds", 0.0))
            notes["resumed"] = "1"
        _train(job, trainer, clock, watcher)
        training_seconds = clock.seconds
        watcher.say("measuring the test images")
        # Before the test passes age the devices: whoever opens the run and
        # measures with the same key finds the same readings.
        devices = checkpoint.device_state(network)
        result = _measure(job, network, trainer.measured, data, key)
        save_network(job.out, network, result.readout, devices)
        found = None
        if job.references:
            found = references(job.config, data, key=key, cache=cache_folder(), say=watcher.say)
        watcher.say("writing the run folder")
        _write_history(job, trainer, result, data, key)
        summary = _summary(job, trainer, result, found, clock, training_seconds, notes)
        summary.write(job.out)
        return summary
    finally:
        network.close()


def _claim(job: Job) -> None:
    """Take the folder, or make sure that it is this run's."""
    fingerprint = _fingerprint(job)
    path = job.out / "run.txt"
    if job.resume:
        if not path.is_file():
            raise CheckpointError(f"{job.out}: there is no run to resume here.")
        if path.read_text() != fingerprint:
            raise ConfigError(
                f"{job.out}: holds a run of another configuration, data set or seed. "
                "Give the same arguments, or another --out."
            )
        return
    job.out.mkdir(parents=True, exist_ok=True)
    for old in (*(job.out / CHECKPOINT).glob("*"), job.out / "summary.json"):
        old.unlink(missing_ok=True)
    write_atomic(path, fingerprint.encode())
    write_atomic(job.out / CONFIG, job.config.model_dump_json(indent=2).encode())


def _fingerprint(job: Job) -> str:
    seal = hashlib.sha256(job.config.model_dump_json().encode())
    for array in (job.data.train_x, job.data.train_y, job.data.test_x, job.data.test_y):
        seal.update(array.tobytes())
    return f"seed {job.seed}\nconfiguration and data {seal.hexdigest()}\n"


def _train(job: Job, trainer: Trainer, clock: _Stopwatch, watcher: Watcher) -> None:
    """Train to the end; a checkpoint now and then, at each unit's end, and at Ctrl-C."""
    folder = job.out / CHECKPOINT
    saved_at, unit = time.monotonic(), trainer.unit_index

    def save() -> None:
        checkpoint.save_training(folder, trainer, {"wall_seconds": f"{clock.seconds:.3f}"})

    with _interrupt_between_steps() as check:
        while not trainer.finished:
            trainer.advance()
            try:
                watcher.step(trainer)
                check()
            except KeyboardInterrupt:
                save()
                raise
            if time.monotonic() - saved_at > CHECKPOINT_SECONDS or trainer.unit_index != unit:
                save()
                saved_at, unit = time.monotonic(), trainer.unit_index
        save()


@contextmanager
def _interrupt_between_steps() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back until the yielded function is called.

    Half a step in a checkpoint could not be repeated bit for bit. A second
    Ctrl-C acts at once and leaves the last checkpoint as it is.
    """
    asked = False

    def note(number: int, frame: object) -> None:  # noqa: ARG001
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check  # signals reach the main thread only
        return
    previous = signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, previous or signal.default_int_handler)


@dataclass(frozen=True)
class Result:
    """What was measured on the test images: accuracies of a readout on each
    unit and on all; curves of (train, test) accuracy by epoch."""

    readout: Readout
    accuracies: dict[str, float]
    curves: dict[str, list[tuple[float, float]]]
    test_features: list[Tensor]
    guess: Tensor


def _measure(
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
        rows = slice(0, 10_000)
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


def _write_history(job: Job, trainer: Trainer, result: Result, data: Tensors, key: Key) -> None:
    images, labels = data.test[0][:MAP_IMAGES], data.test[1]
    untrained = prepared(job.config, data, key=key)
    before = untrained.features(images, key=key.child("map"))
    after = [z[:MAP_IMAGES] for z in result.test_features]
    history = rundata.training_dataset(trainer)
    history = rundata.add_readouts(history, result.curves)
    history = rundata.add_maps(history, before, after, labels[:MAP_IMAGES])
    history = rundata.add_confusion(history, labels, result.guess, job.data.classes)
    rundata.save(history, job.out, {"command": job.command, "preset": job.preset})


def _summary(
    job: Job,
    trainer: Trainer,
    result: Result,
    found: Any,
    clock: _Stopwatch,
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
        differences |= {
            "gap_to_backprop_deployed": found.accuracy_backprop_deployed - accuracy,
            "gap_to_backprop_digital": found.accuracy_backprop_digital - accuracy,
        }
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
    threads = torch.get_num_threads()
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
    if int(notes.get("threads", threads)) != threads:
        facts["threads_changed"] = f"checkpoint: {notes['threads']}, now: {threads}"
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
