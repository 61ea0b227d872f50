"""Devices and their twins: check, validate, fit, certify, stream, budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from validation.commands.common import Data, Options, Out, Quick, Quiet, Seed, friendly, say, typed

app = typer.Typer()


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A name of `pib-twin backends`, or a URI.")],
    option: Options = None,
    seed: Seed = 0,
    budget_seconds: Annotated[float | None, typer.Option(help="Stop starting checks.")] = None,
    out: Out = None,
) -> None:
    """Does a backend keep the contract? Exits with 1 if it does not."""
    with friendly():
        from validation import checking

        checking.main(name, option or [], seed, budget_seconds, out, typed())


@app.command()
def backends() -> None:
    """The installed backends by name."""
    from twin.registry import names

    for name in names():
        say(name)


@app.command()
def validate(
    what: Annotated[str, typer.Argument(help="A substrate: memristor or optics")],
    out: Out = None,
    quick: Quick = False,
    seed: Seed = 0,
) -> None:
    """Every physical law against a closed form or an independent oracle."""
    with friendly():
        from validation.physics import main as physics

        physics.main(what, out, quick, seed, typed())


@app.command("fit-device")
def fit_device(
    measurements: Annotated[Path, typer.Argument(metavar="MEASUREMENTS.csv")],
    out: Out = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the held-out cells.")] = 0,
) -> None:
    """Fit a memristor technology to measured cells.

    Columns of the table: time_s, target_siemens, conductance_siemens, cell.
    """
    with friendly():
        from validation import devicefit

        devicefit.main(measurements, out, typed(), seed)


@app.command()
def certify(
    name: Annotated[str, typer.Argument(help="An optical backend, simulated or real.")] = "optics",
    option: Options = None,
    seed: Seed = 0,
    quick: Quick = False,
    out: Out = None,
    patterns: Annotated[int, typer.Option(min=1, help="Patterns that add up.")] = 1,
    dark: Annotated[float, typer.Option(help="Reading without light (black level).")] = 0.0,
    watch_s: Annotated[float, typer.Option(help="Seconds over which drift is watched.")] = 60.0,
) -> None:
    """Is it speckle? Statistics of an optical backend's frames, with pictures."""
    with friendly():
        from validation.certify import main as certifying

        certifying.main(
            name, option or [], seed, quick, out, typed(),
            patterns=patterns, dark=dark, watch_s=watch_s,
        )  # fmt: skip


@app.command("fit-camera")
def fit_camera(
    folder: Annotated[Path, typer.Argument(help="Frames: dark_0.01s_1.npy, bright_0.02s_2.tif")],
    out: Out = None,
    bits: Annotated[int | None, typer.Option(min=1, max=16, help="Of the camera.")] = None,
    seed: Seed = 0,
) -> None:
    """Fit a camera twin to pairs of frames at several exposures (EMVA 1288)."""
    with friendly():
        from validation import camerafit

        camerafit.main(folder, out, typed(), bits, seed)


@app.command()
def stream(
    name: Annotated[str, typer.Argument(help="A backend's name.")] = "optics",
    out: Annotated[Path, typer.Option(help="Folder for frames.nc.")] = Path("frames"),
    option: Options = None,
    dataset: Annotated[str, typer.Option(help="digits, mnist, ... or FILE.npz")] = "digits",
    limit: Annotated[int | None, typer.Option(min=1, help="Images.")] = None,
    chunk: Annotated[int, typer.Option(min=64, help="Images at a time.")] = 1024,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it stopped.")] = False,
    seed: Seed = 0,
    data: Data = None,
    quiet: Quiet = False,
) -> None:
    """A whole data set through a backend: integer frames on disk, for xarray."""
    with friendly():
        from validation import streaming

        streaming.main(
            name, option or [], dataset, limit, out, chunk, resume, seed, data, typed(), quiet
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
    with friendly():
        from validation import budgeting

        budgeting.main(option or [], after, out, typed(), name)
