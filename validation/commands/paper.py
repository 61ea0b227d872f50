"""What the paper says PIB does: its figures, two sites, an agent, faults and drift."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from validation.commands.common import Data, Jobs, Out, Quick, Quiet, Seed, friendly, typed

app = typer.Typer()


class Site(StrEnum):
    """Of two, the one that sends features and the one that uses them."""

    UPSTREAM = "upstream"
    DOWNSTREAM = "downstream"


@app.command()
def reproduce(
    figure: Annotated[
        str, typer.Argument(help="fig2c, fig2d, fig3b, fig4a, fig4b, fig4c or writes")
    ],
    out: Out = None,
    quick: Quick = False,
    seeds: Annotated[int | None, typer.Option(min=1)] = None,
    jobs: Jobs = 2,
    data: Data = None,
    quiet: Quiet = False,
) -> None:
    """A figure of the PIB paper, made again on twins; goes on where it stopped."""
    with friendly():
        from validation.reproduce import main as reproducing
        from validation.reproduce.figure import Request

        request = Request(quick=quick, seeds=seeds, data=data)
        reproducing.main(figure, out, request, jobs, typed(), quiet)


@app.command()
def parallel(
    preset: Annotated[str, typer.Argument(help="A preset or a CONFIG.toml.")] = "hybrid-digits",
    out: Out = None,
    seed: Seed = 0,
    kill: Annotated[Site | None, typer.Option(help="Kill this site in the middle.")] = None,
    at: Annotated[float, typer.Option(min=0, max=1, help="When: share of its steps.")] = 0.5,
    publications: Annotated[int, typer.Option(min=1, help="Times that features are sent.")] = 6,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where both stopped.")] = False,
    reference: Annotated[bool, typer.Option(help="Train one after the other too.")] = True,
    quick: Quick = False,
    data: Data = None,
    quiet: Quiet = False,
) -> None:
    """Two units at two sites (processes) at once; neither ever waits for the other."""
    with friendly():
        from validation.sites import main as sites

        sites.main(
            sites.Request(
                preset=preset, out=out, seed=seed, kill=None if kill is None else kill.value,
                at=at, publications=publications, resume=resume, reference=reference,
                quick=quick, data=data, quiet=quiet, command=typed(),
            )
        )  # fmt: skip


@app.command()
def reinforce(
    preset: Annotated[str, typer.Argument(help="An agent's preset or TOML.")] = "cartpole-optics",
    environment: Annotated[str, typer.Option(help="A gymnasium environment.")] = "CartPole-v1",
    seed: Seed = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    information: Annotated[
        float | None, typer.Option("--lambda", min=0, help="Weight of PIB beside TD.")
    ] = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from a checkpoint.")] = False,
    quiet: Quiet = False,
) -> None:
    """An agent of physical units learns by PIB and temporal differences."""
    with friendly():
        from validation.rl import main as agents

        agents.main(preset, environment, seed, steps, information, out, resume, quiet, typed())


class When(StrEnum):
    """When a fault comes."""

    DEPLOYMENT = "deployment"
    TRAINING = "training"


@app.command()
def adapt(
    preset: Annotated[str, typer.Argument(help="A preset or a CONFIG.toml.")] = "memristor-digits",
    fault: Annotated[str | None, typer.Option(help="DIAL=VALUE; without one: drift.")] = None,
    unit: Annotated[int | None, typer.Option(min=1, help="Hit only this unit.")] = None,
    when: Annotated[When, typer.Option(help="When the fault comes.")] = When.DEPLOYMENT,
    at: Annotated[float, typer.Option(min=0, max=1, help="Share of training before.")] = 0.5,
    passes: Annotated[list[float] | None, typer.Option(help="k: passes of retraining.")] = None,
    dial: Annotated[list[str] | None, typer.Option(help="NAME=VALUE from the start.")] = None,
    for_s: Annotated[float, typer.Option(help="Drift: seconds watched.")] = 4e6,
    every_s: Annotated[float, typer.Option(help="Drift: seconds between treatments.")] = 1e6,
    drop: Annotated[float, typer.Option(help="Drift: points a probe may fall.")] = 2.0,
    seeds: Annotated[int, typer.Option(min=1)] = 1,
    tune: Annotated[bool, typer.Option("--tune", help="Rates chosen on validation.")] = False,
    quick: Quick = False,
    out: Out = None,
    jobs: Jobs = 2,
    data: Data = None,
    quiet: Quiet = False,
) -> None:
    """A fault or drift hits a network; what retraining wins back, and at what cost."""
    with friendly():
        from validation.adaptation import main as adapting
        from validation.evaluation import parsed_options

        adapting.main(
            adapting.Request(
                preset=preset, fault=fault, unit=unit, when=when.value, at=at,
                dials=parsed_options(dial or []) or None, for_s=for_s, every_s=every_s, drop=drop,
                seeds=seeds, tune=tune, quick=quick, out=out, jobs=jobs, data=data, quiet=quiet,
                passes=passes or (0.1, 0.5, 1.0, 2.0), command=typed(),
            )
        )  # fmt: skip
