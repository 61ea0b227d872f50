"""Networks: train, measure again, hand on, and what there is to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from validation.commands.common import Data, Jobs, Out, Quick, Quiet, Seed, friendly, say, typed

app = typer.Typer()


@app.command()
def train(
    preset: Annotated[str, typer.Argument(help="A preset or a CONFIG.toml.")] = "memristor-digits",
    dataset: Annotated[str | None, typer.Option(help="digits, mnist, ... or FILE.npz")] = None,
    out: Out = None,
    seed: Seed = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Runs with seeds SEED, SEED + 1, ...")] = 1,
    folds: Annotated[int, typer.Option(min=1, help="Stratified folds per seed (digits).")] = 1,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of every unit.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from a checkpoint.")] = False,
    quick: Quick = False,
    references: Annotated[bool, typer.Option(help="Train the rivals too.")] = True,
    ablation: Annotated[bool, typer.Option("--ablation", help="Switch parts off.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda: where twins compute.")] = "cpu",
    data: Data = None,
    jobs: Jobs = 2,
    umap: Annotated[bool, typer.Option("--umap", help="UMAP instead of PCA maps.")] = False,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Every unit's twin instead of its device.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train a network unit by unit with PIB and write a report."""
    with friendly():
        from validation import training

        training.main(
            training.Request(
                preset=preset, dataset=dataset, out=out, seed=seed, seeds=seeds, folds=folds,
                epochs=epochs, resume=resume, quick=quick, references=references,
                ablation=ablation, device=device, data=data, jobs=jobs, umap=umap, quiet=quiet,
                simulated=simulated, command=typed(),
            )
        )  # fmt: skip


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    backend: Annotated[str | None, typer.Option(help="Every unit on this backend instead.")] = None,
    on: Annotated[
        str | None, typer.Option(metavar="CONFIG", help="Units on this configuration's devices.")
    ] = None,
    simulated: Annotated[bool, typer.Option("--simulated", help="Units on their twins.")] = False,
    after: Annotated[float, typer.Option(help="Let this many seconds pass first.")] = 0.0,
    dial: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, on every unit.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Another data set.")] = None,
    data: Data = None,
    out: Out = None,
) -> None:
    """Measure a trained network again: later, elsewhere, or with dials turned."""
    with friendly():
        from validation import evaluation

        place = evaluation.Place(backend=backend, on=on, simulated=simulated)
        evaluation.main(folder, place, after, dial or [], dataset, data, out, typed())


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out: Annotated[Path | None, typer.Option(help="The netCDF file.")] = None,
) -> None:
    """Write conductances (siemens) and digital layers as netCDF."""
    with friendly():
        from validation import export as exporting

        say(f"wrote {exporting.export(folder, out)}")


@app.command()
def tune(
    preset: Annotated[str, typer.Argument(help="A preset or a CONFIG.toml.")],
    dataset: Annotated[str | None, typer.Option(help="Another data set.")] = None,
    limit: Annotated[int, typer.Option(min=100, help="Training images.")] = 20_000,
    seed: Seed = 0,
    data: Data = None,
    out: Out = None,
    jobs: Jobs = 2,
) -> None:
    """Three learning rates for PIB and for each rival, judged on validation."""
    with friendly():
        from validation import tuning

        tuning.main(preset, dataset, limit, seed, data, out, jobs, typed())


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(help="Print this one's TOML.")] = None,
) -> None:
    """The shipped presets with what they are for, or one of them to copy and change."""
    with friendly():
        from validation import config

        if name is not None:
            say(config.preset_text(name).rstrip())
            return
        for known in config.presets():
            say(f"{known:20} {config.load_config(known).about}")
