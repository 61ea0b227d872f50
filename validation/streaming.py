"""`pib-twin stream NAME`: a whole data set through one backend into one file of frames.

Memory holds one chunk. Sample n is the same whatever the chunk, since chunks
are whole blocks of noise; a killed run goes on where it stopped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from twin.errors import ConfigError
from twin.fence import Fence
from twin.key import SAMPLE_BLOCK, Key
from twin.registry import open_backend
from validation import datasets, framefile
from validation.console import console
from validation.evaluation import backend_options
from validation.streamjob import Drives, Job
from validation.summary import Figure, Summary

FILE = "frames.nc"
CHUNK = 16 * SAMPLE_BLOCK
"""Samples per call by default: 17 MB of float32 at 4,096 pixels."""

MOST_GB = 2.0
"""Resident memory that a stream of any length may take."""


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """What a stream left. samples: in the file; first: where this call began;
    seconds: of this call, wall time."""

    path: Path
    samples: int
    first: int
    seconds: float


def stream(
    fence: Fence,
    drives: Drives,
    path: Path | str,
    *,
    key: Key,
    chunk: int = CHUNK,
    progress: Callable[[int, int], None] | None = None,
    labels: Any = None,
    classes: tuple[str, ...] = (),
    options: Mapping[str, Any] | None = None,
    resume: bool = False,
    compression: int = 0,
) -> Streamed:
    """Send every sample once, write its frame to the netCDF file `path`.

    drives: (n, drive port) floats in the port's range; only slices of `chunk`
    samples, a multiple of SAMPLE_BLOCK, are ever asked for. Only the first
    reading port is kept. labels: (n,) integers, classes: their names, options:
    of the backend, all for the record. progress: called with the samples done
    and all. compression: gzip level 1 to 9 once all is measured, 0 for none.

    resume: go on with a stream that was interrupted, by the same arguments. A
    restorable device is put back into its state at that point; any other must
    be in it. What depends on state and key alone is then the same to the last
    bit. The state lies beside the file until the stream is complete.
    """
    if not 0 <= compression <= 9:
        raise ConfigError(f"compression is a gzip level from 0 to 9, got {compression}.")
    job = Job.of(fence, drives, Path(path), key, chunk, labels, classes, options)
    began = time.monotonic()
    first = job.resumed() if resume else job.fresh()
    with closing(job):
        for start in range(first, job.layout.samples, chunk):
            if progress is not None:
                progress(start, job.layout.samples)
            job.advance(start)
        squeeze = compression > 0 and not job.compressed
    if progress is not None:
        progress(job.layout.samples, job.layout.samples)
    if squeeze:
        framefile.compress(job.path, job.layout, compression)
    job.state_path.unlink(missing_ok=True)
    return Streamed(
        path=job.path,
        samples=job.layout.samples,
        first=first,
        seconds=time.monotonic() - began,
    )


def main(
    name: str,
    options: Sequence[str],
    dataset: str,
    limit: int | None,
    out: Path,
    chunk: int,
    resume: bool,
    seed: int,
    data: Path | None,
    command: str,
    quiet: bool,
) -> Summary:
    """Stream the training images of `dataset` to out/frames.nc; print the figures.

    options: NAME=VALUE texts for the backend, which has one input per pixel of
    an image unless they say otherwise. A programmable backend gets a random
    setting. limit: a stratified subset. Exit code 1 if a bound is missed.
    """
    found = datasets.load(dataset, data_dir=data, seed=seed, validation=0, limit=limit)
    chosen = backend_options(options)
    if not name.startswith("replay:"):
        chosen = {"inputs": found.train_x.shape[1], **chosen}
    key = Key(seed)
    fence = Fence(open_backend(name, key=key, **chosen), name=name)
    threads = torch.get_num_threads()
    # The last bit of a product depends on the number of threads.
    torch.set_num_threads(1)
    try:
        _program(fence, key.child("setting"))
        with _bar(name, len(found.train_x), quiet) as told:
            made = stream(
                fence, found.train_x, out / FILE, key=key.child("stream"), chunk=chunk,
                progress=told, labels=found.train_y, classes=found.classes, options=chosen,
                resume=resume,
            )  # fmt: skip
    finally:
        torch.set_num_threads(threads)
        fence.close()
    summary = Summary(command, figures(made, seed))
    summary.extra = {
        "backend": name,
        "device_id": fence.capabilities.device_id,
        "options": chosen,
        "data": found.describe(),
        "file": FILE,
        "begun_at_sample": made.first,
        "chunk": chunk,
    }
    summary.write(out)
    console.print(summary.table())
    if not summary.holds:
        raise typer.Exit(1)
    return summary


def figures(made: Streamed, seed: int) -> list[Figure]:
    """What was measured, how fast, in how much memory and space."""
    new = made.samples - made.first
    with framefile.opened(made.path) as held:
        sizes = np.full(held.sizes["chunk"], held.attrs["chunk_samples"])
        sizes[-1] = made.samples - sizes[:-1].sum()
        saturated = float(np.average(held["saturated"], weights=sizes))
        device_s, done = float(held["clock_s"][-1]), held.sizes["sample"]
    rows = [
        ("samples", done, "1", f"== {made.samples}"),
        ("samples measured now", new, "1", None),
        ("time", made.seconds, "s", None),
        ("samples per second", new / made.seconds, "1/s", None),
        ("device time", device_s, "s", None),
        ("saturated fraction", saturated, "1", None),
        ("peak resident memory", peak_resident_gb(), "GB", f"< {MOST_GB:g}"),
        ("file size", made.path.stat().st_size / 1e9, "GB", None),
    ]
    return [Figure(n, value, unit, bound, new, seeds=[seed]) for n, value, unit, bound in rows]


def peak_resident_gb() -> float:
    """The most memory that this process ever held, 1e9 bytes."""
    import resource  # not on every system

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def _program(fence: Fence, key: Key) -> None:
    """A setting drawn from `key`, uniform in each port's range."""
    setting: dict[str, Tensor] = {}
    for port in fence.capabilities.settings:
        drawn = torch.rand(port.shape, generator=key.child(port.name).torch())
        setting[port.name] = port.on_grid(port.low + (port.high - port.low) * drawn)
    if setting:
        fence.program(setting, key=key, phase="stream")


@contextmanager
def _bar(name: str, samples: int, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, and the function that moves it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} samples"),
    )
    with Progress(*columns, console=console, disable=quiet) as progress:
        task = progress.add_task(name, total=samples)
        yield lambda done, _: progress.update(task, completed=done)
