"""`pib-twin train`: one run, or many over seeds and folds, and their table."""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from twin.errors import ConfigError
from validation import datasets, report
from validation.config import RunConfig, load_config, simulated
from validation.console import LiveWatcher, console
from validation.datasets import Dataset
from validation.job import Job
from validation.run import run
from validation.summary import Figure, Summary, mean_and_error

ENOUGH_SEEDS = 3
"""Bounds on a data set are bounds on a mean over at least so many seeds."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of the command."""

    preset: str
    dataset: str | None = None
    out: Path | None = None
    seed: int = 0
    seeds: int = 1
    folds: int = 1
    epochs: int | None = None
    resume: bool = False
    quick: bool = False
    references: bool = True
    ablation: bool = False
    device: str = "cpu"
    data: Path | None = None
    jobs: int = 2
    umap: bool = False
    quiet: bool = False
    simulated: bool = False
    command: str = ""


def main(request: Request) -> Summary:
    """Run, print the table, write summary and report; returns the summary."""
    config = configured(request)
    out = request.out or Path("runs") / f"{Path(request.preset).stem}-{request.seed}"
    jobs = list(_jobs(request, config, out))
    summary = _single(jobs[0], request) if len(jobs) == 1 else _many(jobs, request, out)
    console.print(summary.table())
    console.print(f"results in {out}")
    return summary


def configured(request: Request) -> RunConfig:
    """The preset with what the command line changes."""
    config = load_config(request.preset)
    config = simulated(config) if request.simulated else config
    table = config.model_dump()
    if request.dataset is not None:
        table["data"]["name"] = request.dataset
    if request.quick and config.quick.limit is not None:
        table["data"]["limit"] = config.quick.limit
    epochs = request.epochs or (config.quick.epochs if request.quick else None)
    for unit in table["unit"]:
        unit["epochs"] = epochs or unit["epochs"]
        if unit["steps"] is not None and epochs is not None:
            unit["steps"] = None if request.epochs else config.quick.steps
        if request.device != "cpu" and unit["backend"] in ("memristor", "optics"):
            unit["options"] = {**unit["options"], "compute_device": request.device}
    if request.device != "cpu" and not torch.cuda.is_available():
        raise ConfigError(f"--device {request.device}: torch sees no such device here. Use cpu.")
    return RunConfig(**table)


def _jobs(request: Request, config: RunConfig, out: Path) -> Iterator[Job]:
    several = request.seeds > 1 or request.folds > 1 or request.ablation
    for seed in range(request.seed, request.seed + request.seeds):
        for fold, data in enumerate(_data(request, config, seed)):
            job = Job(
                config=config,
                data=data,
                seed=seed,
                out=out / f"seed-{seed}-fold-{fold}" if several else out,
                command=request.command,
                preset=request.preset,
                resume=request.resume,
                references=request.references,
                bounds=_bounds(request, config) if not several else {},
            )
            yield job
            if request.ablation:
                yield from _ablated(job, out)


def _data(request: Request, config: RunConfig, seed: int) -> Sequence[Dataset]:
    name = config.data.name
    if request.folds > 1:
        if config.data.limit is not None:
            raise ConfigError("folds use all images: leave out data.limit, --quick or --folds.")
        return datasets.folds(name, k=request.folds, seed=seed, data_dir=request.data)
    # One split for all seeds: seeds are repetitions of the training.
    return [datasets.load(name, data_dir=request.data, limit=config.data.limit)]


def _ablated(job: Job, out: Path) -> Iterator[Job]:
    """The same run with parts switched off; rivals are not trained again."""
    network = job.config.network
    for name, changed in {
        "plain": network.model_copy(update={"skip": False, "hard_examples": False}),
        "skip": network.model_copy(update={"hard_examples": False}),
    }.items():
        config = job.config.model_copy(update={"network": changed})
        yield replace(job, config=config, out=out / f"{name}-{job.out.name}", references=False)


def _bounds(request: Request, config: RunConfig) -> dict[str, str]:
    """Bounds of one run: those of --quick, or the preset's table "single"."""
    if request.quick:
        bound = config.quick.accuracy_bound
        return {} if bound is None else {"accuracy": f">= {bound}"}
    changed = request.epochs or request.dataset or config.data.limit
    return {} if changed else dict(config.bounds.get("single", {}))


def _single(job: Job, request: Request) -> Summary:
    with LiveWatcher(quiet=request.quiet) as watcher:
        short = " (quick: fewer images and epochs)" if request.quick else ""
        watcher.say(f"{job.preset} on {job.data.name}, seed {job.seed}{short}")
        if not job.resume and (job.out / "summary.json").is_file():
            watcher.say(f"a finished run in {job.out} is replaced")
        summary = run(job, watcher)
    if request.quick:
        summary.extra["quick"] = True
        summary.write(job.out)
    report.write_report(job.out, method="umap" if request.umap else "pca")
    return summary


def _many(jobs: Sequence[Job], request: Request, out: Path) -> Summary:
    """All jobs in a pool of single-threaded processes, then means over them."""
    threads = max(1, torch.get_num_threads() // request.jobs)
    summaries: list[Summary] = []
    # spawn: a forked child would inherit torch's locked thread pools.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(request.jobs, mp_context=context) as pool:
        waiting = [pool.submit(_work, job, threads) for job in jobs]
        for job, future in zip(jobs, waiting, strict=True):
            summaries.append(future.result())
            accuracy = next(f.value for f in summaries[-1].figures if f.name == "accuracy")
            if not request.quiet:
                console.print(f"[dim]{job.out.name}: accuracy {accuracy:.4f}[/dim]")
    config = jobs[0].config
    main_runs = [(j, s) for j, s in zip(jobs, summaries, strict=True) if j.config == config]
    summary = Summary(request.command, _means(main_runs))
    summary.extra = {
        "runs": [str(j.out.relative_to(out)) for j in jobs],
        "quick": request.quick,
        "standard_error": "over runs; the test images are the same for all seeds"
        if request.folds == 1
        else "over runs, as if independent; folds share training images",
    }
    ablation = _ablation_rows(jobs, summaries, config)
    if ablation:
        summary.extra["ablation"] = ablation
        summary.figures += [
            Figure(f"ablation {row['name']}", row["accuracy"], n=row["n"],
                   standard_error=row["standard_error"], seeds=row["seeds"])
            for row in ablation
        ]  # fmt: skip
    if not request.epochs and not request.quick and request.seeds >= ENOUGH_SEEDS:
        kind = "folds" if request.folds > 1 else jobs[0].data.name
        summary.expect(config.bounds.get(kind, {}))
    summary.write(out)
    return summary


def _work(job: Job, threads: int) -> Summary:
    """One run in a worker; its own report comes with it."""
    torch.set_num_threads(threads)
    summary = run(job)
    report.write_report(job.out)
    return summary


def _means(runs: Sequence[tuple[Job, Summary]]) -> list[Figure]:
    """Mean over runs of every figure; the standard error is over runs."""
    rows: dict[str, list[Figure]] = {}
    for _, summary in runs:
        for figure in summary.figures:
            rows.setdefault(figure.name, []).append(figure)
    means = []
    for name, figures in rows.items():
        value, error = mean_and_error([f.value for f in figures if f.value is not None])
        means.append(
            Figure(
                name,
                value,
                figures[0].unit,
                n=len(figures),
                standard_error=error,
                seeds=sorted({s for f in figures for s in f.seeds}),
            )
        )
    return means


def _ablation_rows(
    jobs: Sequence[Job], summaries: Sequence[Summary], config: RunConfig
) -> list[dict[str, Any]]:
    """Readouts on the last unit and on all, by what was switched off."""
    found: dict[str, list[float]] = {}
    seeds: dict[str, list[int]] = {}
    if all(job.config == config for job in jobs):
        return []
    for job, summary in zip(jobs, summaries, strict=True):
        network = job.config.network
        parts = [n for n, on in (("skip", network.skip), ("hard", network.hard_examples)) if on]
        name = " + ".join(parts) or "plain stacking"
        values = {f.name: f.value for f in summary.figures}
        last = max(n for n in values if n.startswith("accuracy_unit_"))
        for view, key in ((name + ", last unit", last), (name + ", all units", "accuracy")):
            found.setdefault(view, []).append(float(values[key] or 0.0))
            seeds.setdefault(view, []).append(job.seed)
    return [
        {
            "name": name,
            "accuracy": statistics.fmean(values),
            "standard_error": mean_and_error(values)[1],
            "n": len(values),
            "seeds": seeds[name],
        }
        for name, values in found.items()
    ]
