"""The command line. Importing this module must not import torch."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from twin.errors import PibTwinError

app = typer.Typer(
    help="Train and study deep physical neural networks without backend gradients.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Out = Annotated[Path | None, typer.Option(help="Folder for the results.")]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer images and epochs; says so.")]
Data = Annotated[Path | None, typer.Option("--data", help="Folder with IDX files.")]


@app.command()
def train(
    preset: Annotated[str, typer.Argument(help="A preset or a CONFIG.toml.")] = "memristor-digits",
    dataset: Annotated[str | None, typer.Option(help="digits, mnist, ... or FILE.npz")] = None,
    out: Out = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Runs with seeds SEED, SEED + 1, ...")] = 1,
    folds: Annotated[int, typer.Option(min=1, help="Stratified folds per seed (digits).")] = 1,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of every unit.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from a checkpoint.")] = False,
    quick: Quick = False,
    references: Annotated[bool, typer.Option(help="Train the rivals too.")] = True,
    ablation: Annotated[bool, typer.Option("--ablation", help="Switch parts off.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda: where twins compute.")] = "cpu",
    data: Data = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 2,
    umap: Annotated[bool, typer.Option("--umap", help="UMAP instead of PCA maps.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only the table.")] = False,
) -> None:
    """Train a network unit by unit with PIB and write a report."""
    with _friendly():
        from validation import training

        training.main(
            training.Request(
                preset=preset, dataset=dataset, out=out, seed=seed, seeds=seeds, folds=folds,
                epochs=epochs, resume=resume, quick=quick, references=references,
                ablation=ablation, device=device, data=data, jobs=jobs, umap=umap, quiet=quiet,
                command=_typed(),
            )
        )  # fmt: skip


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    backend: Annotated[str | None, typer.Option(help="Run on this backend instead.")] = None,
    after: Annotated[float, typer.Option(help="Let this many seconds pass first.")] = 0.0,
    dial: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, on every unit.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Another data set.")] = None,
    data: Data = None,
    out: Out = None,
) -> None:
    """Measure a trained network again: later, elsewhere, or with dials turned."""
    with _friendly():
        from validation import evaluation

        evaluation.main(folder, backend, after, dial or [], dataset, data, out, _typed())


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out: Annotated[Path | None, typer.Option(help="The netCDF file.")] = None,
) -> None:
    """Write conductances (siemens) and digital layers as netCDF."""
    with _friendly():
        from validation import export as exporting

        _say(f"wrote {exporting.export(folder, out)}")


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A backend's name; see `pib-twin backends`.")],
    option: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the backend.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    budget_seconds: Annotated[float | None, typer.Option(help="Stop starting checks.")] = None,
    out: Out = None,
) -> None:
    """Does a backend keep the contract? Exits with 1 if it does not."""
    with _friendly():
        from validation import checking

        checking.main(name, option or [], seed, budget_seconds, out, _typed())


@app.command()
def bench(
    what: Annotated[str, typer.Argument(help="entropy, train, memristor, optics or studies")],
    out: Out = None,
    quick: Quick = False,
    data: Data = None,
) -> None:
    """Speed as ratios within one run."""
    with _friendly():
        from validation.bench import main as benching

        benching.main(what, out, quick, data, _typed())


@app.command()
def validate(
    what: Annotated[str, typer.Argument(help="A substrate: memristor or optics")],
    out: Out = None,
    quick: Quick = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Every physical law against a closed form or an independent oracle."""
    with _friendly():
        from validation.physics import main as physics

        physics.main(what, out, quick, seed, _typed())


@app.command("fit-device")
def fit_device(
    measurements: Annotated[Path, typer.Argument(metavar="MEASUREMENTS.csv")],
    out: Out = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the held-out cells.")] = 0,
) -> None:
    """Fit a memristor technology to measured cells.

    Columns of the table: time_s, target_siemens, conductance_siemens, cell.
    """
    with _friendly():
        from validation import devicefit

        devicefit.main(measurements, out, _typed(), seed)


@app.command()
def certify(
    name: Annotated[str, typer.Argument(help="An optical backend, simulated or real.")] = "optics",
    option: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the backend.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    quick: Quick = False,
    out: Out = None,
    patterns: Annotated[int, typer.Option(min=1, help="Patterns that add up.")] = 1,
    dark: Annotated[float, typer.Option(help="Reading without light (black level).")] = 0.0,
    watch_s: Annotated[float, typer.Option(help="Seconds over which drift is watched.")] = 60.0,
) -> None:
    """Is it speckle? Statistics of an optical backend's frames, with pictures."""
    with _friendly():
        from validation.certify import main as certifying

        certifying.main(
            name, option or [], seed, quick, out, _typed(),
            patterns=patterns, dark=dark, watch_s=watch_s,
        )  # fmt: skip


@app.command("fit-camera")
def fit_camera(
    folder: Annotated[Path, typer.Argument(help="Frames: dark_0.01s_1.npy, bright_0.02s_2.tif")],
    out: Out = None,
    bits: Annotated[int | None, typer.Option(min=1, max=16, help="Of the camera.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Fit a camera twin to pairs of frames at several exposures (EMVA 1288)."""
    with _friendly():
        from validation import camerafit

        camerafit.main(folder, out, _typed(), bits, seed)


@app.command()
def stream(
    name: Annotated[str, typer.Argument(help="A backend's name.")] = "optics",
    out: Annotated[Path, typer.Option(help="Folder for frames.nc.")] = Path("frames"),
    option: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the backend.")] = None,
    dataset: Annotated[str, typer.Option(help="digits, mnist, ... or FILE.npz")] = "digits",
    limit: Annotated[int | None, typer.Option(min=1, help="Images.")] = None,
    chunk: Annotated[int, typer.Option(min=64, help="Images at a time.")] = 1024,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it stopped.")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    data: Data = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only the table.")] = False,
) -> None:
    """A whole data set through a backend: integer frames on disk, for xarray."""
    with _friendly():
        from validation import streaming

        streaming.main(
            name, option or [], dataset, limit, out, chunk, resume, seed, data, _typed(), quiet
        )


@app.command()
def budget(
    name: Annotated[
        str, typer.Argument(help="A rig (industrial, scmos, ...), a preset or CONFIG.toml.")
    ] = "industrial",
    option: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of the rig.")] = None,
    after: Annotated[float, typer.Option(min=0, help="Seconds of drift.")] = 0.0,
    out: Out = None,
) -> None:
    """What an optical rig will lose: the speckle correlation, factor by factor."""
    with _friendly():
        from validation import budgeting

        budgeting.main(option or [], after, out, _typed(), name)


@app.command()
def light(
    out: Out = None,
    seeds: Annotated[int, typer.Option(min=1)] = 1,
    quick: Quick = False,
    data: Data = None,
    jobs: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """PIB on optics under drift and few photons, beside the error budget."""
    with _friendly():
        from validation.studies import light as study

        study.main(out, seeds, quick, data, jobs, _typed())


Mode = Annotated[bool, typer.Option("--quiet", help="Only the table.")]
Lines = Annotated[bool, typer.Option("--json-lines", help="Progress for logs.")]


@app.command()
def study(
    file: Annotated[Path, typer.Argument(metavar="STUDY.toml")],
    out: Out = None,
    jobs: Annotated[int, typer.Option(min=1)] = 2,
    executor: Annotated[str, typer.Option(help="pool or dask")] = "pool",
    scheduler: Annotated[str | None, typer.Option(help="Address of a dask scheduler.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed")] = False,
    quiet: Mode = False,
    json_lines: Lines = False,
    data: Data = None,
) -> None:
    """Every combination of a study's axes; goes on where it stopped."""
    with _friendly():
        from validation.studies import main as studies

        mode = "quiet" if quiet else "json-lines" if json_lines else "live"
        studies.main(file, out, jobs, executor, scheduler, mode, retry_failed, data, _typed())


@app.command()
def robustness(
    network: Annotated[str, typer.Argument(help="A preset, CONFIG.toml or robustness.toml.")],
    out: Out = None,
    seeds: Annotated[int | None, typer.Option(min=1)] = None,
    quick: Quick = False,
    jobs: Annotated[int, typer.Option(min=1)] = 2,
    points: Annotated[list[float] | None, typer.Option(help="Accuracy lost, points.")] = None,
    data: Data = None,
) -> None:
    """Which non-ideality kills the network first, and does PIB in the loop save it?"""
    with _friendly():
        from validation.studies import robustness as robust

        robust.main(network, out, seeds, quick, jobs, data, points, _typed())


@app.command()
def design(
    file: Annotated[str, typer.Argument(metavar="STUDY", help="A TOML file or shipped study.")],
    out: Out = None,
    jobs: Annotated[int, typer.Option(min=1)] = 2,
    quick: Quick = False,
    budget_points: Annotated[int | None, typer.Option(min=1)] = None,
    budget_minutes: Annotated[float | None, typer.Option(min=0)] = None,
    data: Data = None,
) -> None:
    """Search for the designs that trade accuracy, energy, latency and area best."""
    with _friendly():
        from validation.studies import design as designing

        designing.main(file, out, jobs, quick, budget_points, budget_minutes, data, _typed())


@app.command()
def tune(
    preset: Annotated[str, typer.Argument(help="A preset or a CONFIG.toml.")],
    dataset: Annotated[str | None, typer.Option(help="Another data set.")] = None,
    limit: Annotated[int, typer.Option(min=100, help="Training images.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    data: Data = None,
    out: Out = None,
    jobs: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Three learning rates for PIB and for each rival, judged on validation."""
    with _friendly():
        from validation import tuning

        tuning.main(preset, dataset, limit, seed, data, out, jobs, _typed())


@app.command()
def faults(
    out: Out = None,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    quick: Quick = False,
    data: Data = None,
    jobs: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Stuck converter columns: PIB in the loop beside masked and re-tuned rivals."""
    with _friendly():
        from validation.studies import faults as study

        study.main(out, seeds, quick, data, jobs, _typed())


@app.command()
def backends() -> None:
    """The installed backends by name."""
    from twin.registry import names

    for name in names():
        _say(name)


@app.command()
def presets() -> None:
    """The shipped presets with what they are for."""
    from validation.config import load_config
    from validation.config import presets as known

    for name in known():
        _say(f"{name:20} {load_config(name).about}")


def main() -> None:
    """Entry point of `pib-twin`."""
    app()


def _typed() -> str:
    return shlex.join(["pib-twin", *sys.argv[1:]])


def _say(text: Any) -> None:
    typer.echo(text)


@contextmanager
def _friendly() -> Iterator[None]:
    """Typed errors as one message; Ctrl-C as a sentence, exit code 130."""
    try:
        yield
    except PibTwinError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None
