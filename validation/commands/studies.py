"""Studies: sweeps, robustness, design, faults, light, the paper's figures, speed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from validation.commands.common import Data, Jobs, Out, Quick, Quiet, friendly, typed

app = typer.Typer()

Lines = Annotated[bool, typer.Option("--json-lines", help="Progress for logs.")]


@app.command()
def study(
    file: Annotated[Path, typer.Argument(metavar="STUDY.toml")],
    out: Out = None,
    jobs: Jobs = 2,
    executor: Annotated[str, typer.Option(help="pool or dask")] = "pool",
    scheduler: Annotated[str | None, typer.Option(help="Address of a dask scheduler.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed")] = False,
    quiet: Quiet = False,
    json_lines: Lines = False,
    data: Data = None,
) -> None:
    """Every combination of a study's axes; goes on where it stopped."""
    with friendly():
        from validation.studies import main as studies

        mode = _mode(quiet, json_lines)
        studies.main(file, out, jobs, executor, scheduler, mode, retry_failed, data, typed())


@app.command()
def robustness(
    network: Annotated[str, typer.Argument(help="A preset, CONFIG.toml or robustness.toml.")],
    out: Out = None,
    seeds: Annotated[int | None, typer.Option(min=1)] = None,
    quick: Quick = False,
    jobs: Jobs = 2,
    points: Annotated[list[float] | None, typer.Option(help="Accuracy lost, points.")] = None,
    quiet: Quiet = False,
    json_lines: Lines = False,
    data: Data = None,
) -> None:
    """Which non-ideality kills the network first, and does PIB in the loop save it?"""
    with friendly():
        from validation.studies import robustness as robust

        mode = _mode(quiet, json_lines)
        robust.main(network, out, seeds, quick, jobs, data, points, typed(), mode)


@app.command()
def design(
    file: Annotated[str, typer.Argument(metavar="STUDY", help="A TOML file or shipped study.")],
    out: Out = None,
    jobs: Jobs = 2,
    quick: Quick = False,
    budget_points: Annotated[int | None, typer.Option(min=1)] = None,
    budget_minutes: Annotated[float | None, typer.Option(min=0)] = None,
    quiet: Quiet = False,
    json_lines: Lines = False,
    data: Data = None,
) -> None:
    """Search for the designs that trade accuracy, energy, latency and area best."""
    with friendly():
        from validation.studies import design as designing

        mode = _mode(quiet, json_lines)
        designing.main(file, out, jobs, quick, budget_points, budget_minutes, data, typed(), mode)


@app.command()
def compare(
    comparison: Annotated[
        str,
        typer.Argument(help="passes, noise, data, ood, fault, mismatch, drift or depth"),
    ],
    out: Out = None,
    quick: Quick = False,
    seeds: Annotated[int | None, typer.Option(min=1)] = None,
    jobs: Jobs = 2,
    arm: Annotated[list[str] | None, typer.Option(help="Only this arm; again for more.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed")] = False,
    quiet: Quiet = False,
    json_lines: Lines = False,
    data: Data = None,
) -> None:
    """Training methods on the same physics at equal cost; goes on where it stopped."""
    with friendly():
        from validation.studies.compare import main as comparing

        mode = _mode(quiet, json_lines)
        comparing.main(
            comparison, out, quick, seeds, jobs, data, typed(), mode, retry_failed, arm or []
        )


@app.command()
def methods(
    out: Out = None,
    quick: Quick = False,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    data: Data = None,
) -> None:
    """Each training method in its own right; exits with 1 where a stated figure is missed."""
    with friendly():
        from validation.baselines import inownright

        summary = inownright.main(out, quick, seeds, data, typed())
    raise typer.Exit(0 if summary.holds else 1)


@app.command()
def faults(
    out: Out = None,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    quick: Quick = False,
    data: Data = None,
    jobs: Jobs = 2,
) -> None:
    """Stuck converter columns: PIB in the loop beside masked and re-tuned rivals."""
    with friendly():
        from validation.studies import faults as study

        study.main(out, seeds, quick, data, jobs, typed())


@app.command()
def light(
    out: Out = None,
    seeds: Annotated[int, typer.Option(min=1)] = 1,
    quick: Quick = False,
    data: Data = None,
    jobs: Jobs = 2,
) -> None:
    """PIB on optics under drift and few photons, beside the error budget."""
    with friendly():
        from validation.studies import light as study

        study.main(out, seeds, quick, data, jobs, typed())


@app.command()
def bench(
    what: Annotated[
        str, typer.Argument(help="entropy, train, memristor, optics, studies or remote")
    ],
    out: Out = None,
    quick: Quick = False,
    data: Data = None,
) -> None:
    """Speed as ratios within one run."""
    with friendly():
        from validation.bench import main as benching

        benching.main(what, out, quick, data, typed())


def _mode(quiet: bool, json_lines: bool) -> str:
    """How progress is shown."""
    return "quiet" if quiet else "json-lines" if json_lines else "live"
