"""One reinforced run: play, learn, checkpoint, evaluate, leave a run folder."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from pib.reinforcement.checkpoint import load_training, save_training
from pib.reinforcement.training import Training
from twin.errors import CheckpointError, ConfigError
from twin.files import write_atomic
from validation.job import CHECKPOINT, CONFIG, Stopwatch
from validation.outcome import threads_changed
from validation.rl.build import Playing, playing
from validation.rl.config import AgentConfig
from validation.rl.outcome import dataset
from validation.signals import held
from validation.studies import collect

CHECKPOINT_SECONDS = 20.0
FRESH_EPISODES = 20
DATA = "episodes.nc"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to run, and where to leave it."""

    config: AgentConfig
    environment: str
    seed: int
    out: Path
    resume: bool = False

    def mark(self) -> str:
        """A text that differs for another configuration, environment or seed."""
        seal = hashlib.sha256(self.config.model_dump_json().encode()).hexdigest()
        return f"environment {self.environment}\nseed {self.seed}\nconfiguration {seal}\n"


Shown = Callable[[Training], None]


def run(job: Job, show: Shown | None = None) -> tuple[xr.Dataset, Playing]:
    """Do the job; leaves config.json, checkpoint and episodes.nc in job.out.

    Ctrl-C lets the episode end, leaves a checkpoint and raises KeyboardInterrupt:
    what an environment has inside cannot be saved, so a resumed run begins with
    the next episode, and is bit for bit the run that was not stopped; with another
    thread count it may not be, which the attribute threads_changed then tells.
    """
    _claim(job)
    play = playing(job.config, job.environment, job.seed)
    try:
        clock, notes = Stopwatch(), {"wall_seconds": "0"}
        if job.resume and (job.out / CHECKPOINT).exists():
            notes = load_training(job.out / CHECKPOINT, play.training)
            clock.before = float(notes.get("wall_seconds", 0.0))
        _play(job, play.training, clock, show)
        greedy = play.greedy(FRESH_EPISODES)
        data = _told(job, play, greedy, clock).assign_attrs(threads_changed(notes))
        collect.save(data, job.out / DATA)
        return data, play
    finally:
        play.close()


def _told(job: Job, play: Playing, greedy: Sequence[float], clock: Stopwatch) -> xr.Dataset:
    return dataset(
        play.training,
        greedy,
        environment=job.environment,
        seed=job.seed,
        information_weight=job.config.loss.information_weight,
        wall_seconds=clock.seconds,
    )


def _play(job: Job, training: Training, clock: Stopwatch, show: Shown | None) -> None:
    saved_at = -math.inf

    def save() -> None:
        notes = {"wall_seconds": f"{clock.seconds:.3f}"}
        save_training(job.out / CHECKPOINT, training, notes)

    with held() as check:
        while not training.finished:
            training.episode()
            if show is not None:
                show(training)
            try:
                check()
            except KeyboardInterrupt:
                save()
                raise
            if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                save()
                saved_at = time.monotonic()
        save()


def _claim(job: Job) -> None:
    """Take the folder, or make sure that it is this run's."""
    path = job.out / "run.txt"
    if job.resume:
        if not path.is_file():
            raise CheckpointError(f"{job.out}: there is no run to resume here.")
        if path.read_text() != job.mark():
            raise ConfigError(
                f"{job.out}: holds a run of another configuration, environment or seed. "
                "Give the same arguments, or another --out."
            )
        return
    job.out.mkdir(parents=True, exist_ok=True)
    for old in (*(job.out / CHECKPOINT).glob("*"), job.out / "summary.json", job.out / DATA):
        old.unlink(missing_ok=True)
    write_atomic(path, job.mark().encode())
    write_atomic(job.out / CONFIG, job.config.model_dump_json(indent=2).encode())
