"""One training run: train, checkpoint, measure, compare, leave a run folder."""

from __future__ import annotations

import math
import time

from pib import checkpoint
from pib.network import Network
from pib.train import Trainer
from twin.errors import ConfigError
from twin.key import Key
from twin.ledger import Ledger
from validation import devices
from validation.exactwires import through_exact_wires
from validation.experiment import (
    build_plans,
    build_trainer,
    only_devices,
    opened_network,
    tensors,
)
from validation.job import CHECKPOINT, Job, Silent, Stopwatch, Watcher, claim
from validation.outcome import measure, save_network, summarise, write_history
from validation.references import cache_folder, references
from validation.signals import held
from validation.summary import Summary

CHECKPOINT_SECONDS = 10.0


def run(job: Job, watcher: Watcher | None = None) -> Summary:
    """Do the job and leave config, checkpoint, history and summary in job.out.

    Raises KeyboardInterrupt after leaving a checkpoint; ConfigError when the
    folder belongs to another configuration.
    """
    watcher = watcher or Silent()
    key = Key(job.seed)
    data = tensors(job.data)
    claim(job)
    ledger = Ledger()
    _require_rivals(job)
    pixels = data.train[0].shape[1]
    with opened_network(job.config, pixels, key=key, ledger=ledger) as network:
        _require_rivals(job, network)
        trainer = build_trainer(network, data, build_plans(job.config), key=key.child("train"))
        clock, notes = Stopwatch(), {"resumed": "0"}
        if job.resume:
            notes = checkpoint.load_training(job.out / CHECKPOINT, trainer)
            clock.before = float(notes.get("wall_seconds", 0.0))
            notes["resumed"] = "1"
        _train(job, trainer, clock, watcher)
        training_seconds = clock.seconds
        watcher.say("measuring the test images")
        measured = through_exact_wires(network, trainer.measured, data.train[0], key=key)
        # Before the test passes age the devices: whoever opens the run and
        # measures with the same key finds the same readings.
        state = checkpoint.device_state(network)
        pictured = devices.measured(job.config, network, key=key)
        result = measure(job, network, measured, data, key)
        save_network(job.out, network, result.readout, state)
        found = None
        if job.references:
            found = references(job.config, data, key=key, cache=cache_folder(), say=watcher.say)
        watcher.say("writing the run folder")
        write_history(job, trainer, result, data, key, pictured)
        summary = summarise(job, trainer, result, found, clock, training_seconds, notes)
        summary.write(job.out)
        return summary


def _require_rivals(job: Job, network: Network | None = None) -> None:
    """ConfigError, before any pass, if references would need a second one of a device."""
    single = only_devices(job.config, network)
    if job.references and single:
        raise ConfigError(
            f"references are trained on devices of their own, and there is only one of "
            f"{', '.join(single)}. Pass --no-references, or --simulated for the twins."
        )


def _train(job: Job, trainer: Trainer, clock: Stopwatch, watcher: Watcher) -> None:
    """Train to the end; a checkpoint after the first step, so that a run killed
    early can go on, then now and then, at each unit's end, and at Ctrl-C."""
    folder = job.out / CHECKPOINT
    saved_at, unit = -math.inf, trainer.unit_index

    def save() -> None:
        checkpoint.save_training(folder, trainer, {"wall_seconds": f"{clock.seconds:.3f}"})

    with held() as check:
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
