"""What a training run is asked to do, and the folder it takes for it."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pib.train import Trainer
from twin.errors import CheckpointError, ConfigError
from twin.files import write_atomic
from validation.config import RunConfig
from validation.datasets import Dataset

CHECKPOINT = "checkpoint"
CONFIG = "config.json"


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
class Stopwatch:
    """Wall time of this process and of the ones it resumed from, seconds."""

    before: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started


def claim(job: Job) -> None:
    """Take the folder, or make sure that it is this run's."""
    mark = fingerprint(job)
    path = job.out / "run.txt"
    if job.resume:
        if not path.is_file():
            raise CheckpointError(f"{job.out}: there is no run to resume here.")
        if path.read_text() != mark:
            raise ConfigError(
                f"{job.out}: holds a run of another configuration, data set or seed. "
                "Give the same arguments, or another --out."
            )
        return
    job.out.mkdir(parents=True, exist_ok=True)
    for old in (*(job.out / CHECKPOINT).glob("*"), job.out / "summary.json"):
        old.unlink(missing_ok=True)
    write_atomic(path, mark.encode())
    write_atomic(job.out / CONFIG, job.config.model_dump_json(indent=2).encode())


def fingerprint(job: Job) -> str:
    """A text that differs for another configuration, data set or seed."""
    seal = hashlib.sha256(job.config.model_dump_json().encode())
    for array in (job.data.train_x, job.data.train_y, job.data.test_x, job.data.test_y):
        seal.update(array.tobytes())
    return f"seed {job.seed}\nconfiguration and data {seal.hexdigest()}\n"
