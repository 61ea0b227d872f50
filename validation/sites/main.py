"""`pib-twin parallel`: two sites at once, then the network made of both."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import xarray as xr

from twin.files import write_atomic
from validation import datasets, training
from validation.config import RunConfig
from validation.console import console
from validation.experiment import tensors
from validation.sites import picture
from validation.sites.joint import Measured, joint, sequential
from validation.sites.order import ROLES, Order, Role
from validation.sites.progress import Both
from validation.sites.publication import Code
from validation.sites.run import Kill, claim, run
from validation.sites.timeline import facts, timeline
from validation.studies import collect
from validation.summary import Figure, Summary, binomial_error

NAME = "parallel"


@dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of the command. reference: train one after the other too."""

    preset: str = "hybrid-digits"
    out: Path | None = None
    seed: int = 0
    kill: Literal["upstream", "downstream"] | None = None
    at: float = 0.5
    away_s: float = 5.0
    publications: int = 6
    code: Code = "uint8"
    quick: bool = False
    resume: bool = False
    reference: bool = True
    data: Path | None = None
    quiet: bool = False
    command: str = ""


def main(request: Request) -> Summary:
    """Train at two sites, measure the joint network, write and print what came of it.

    Leaves order, both sites' checkpoints, parallel.nc, parallel.png and
    summary.json in `out`. KeyboardInterrupt after both sites were stopped.
    """
    out = request.out or Path("runs") / f"parallel-{Path(request.preset).stem}-{request.seed}"
    config = training.configured(training.Request(preset=request.preset, quick=request.quick))
    orders = orders_of(request, config, out.resolve())
    kill = Kill(request.kill, request.at, request.away_s) if request.kill else None
    claim(orders["upstream"], request.resume)
    with Both(quiet=request.quiet) as shown:
        run(orders, kill, shown)
    loaded = datasets.load(config.data.name, data_dir=request.data, limit=config.data.limit)
    data = tensors(loaded)
    _say(request, "measuring the joint network")
    together, rival = joint(orders, data), None
    if request.reference:
        _say(request, "training one unit after the other, for comparison")
        rival = sequential(config, data, request.seed)
    events = timeline(orders)
    summary = summarise(request, events, together, rival, len(data.test[1]))
    written(out, events, summary, request.command)
    console.print(summary.table())
    console.print(f"results in {out}")
    return summary


def orders_of(request: Request, config: RunConfig, folder: Path) -> dict[Role, Order]:
    """One order per site."""
    return {
        role: Order(
            role=role, config=config.model_dump_json(), seed=request.seed, folder=folder,
            data=None if request.data is None else request.data.resolve(),
            publications=request.publications, code=request.code,
        )
        for role in ROLES
    }  # fmt: skip


def summarise(
    request: Request, data: xr.Dataset, together: Measured, rival: Measured | None, n: int
) -> Summary:
    """Accuracies and the ledger of messages."""
    seeds, found = [request.seed], facts(data)
    rows = [_accuracy("accuracy_joint", together.accuracy, n, seeds)]
    if rival is not None:
        rows.append(_accuracy("accuracy_sequential", rival.accuracy, n, seeds))
        gain = together.accuracy - rival.accuracy
        rows.append(Figure("joint_minus_sequential", gain, n=n, seeds=seeds))
        rows.append(Figure("seconds_sequential", rival.seconds, "s", seeds=seeds))
    took = float(max(data[f"{role}_time"].max() for role in ROLES))
    rows.append(Figure("seconds_parallel", took, "s", seeds=seeds))
    for index, accuracy in enumerate(together.alone):
        rows.append(_accuracy(f"accuracy_unit_{index + 1}", accuracy, n, seeds))
    units = {"bytes_published": "byte", "bytes_read": "byte"}
    units |= {"seconds_publishing": "s", "seconds_reading": "s"}
    rows += [
        Figure(name, value, units.get(name, "1"), seeds=seeds) for name, value in found.items()
    ]
    summary = Summary(request.command, rows)
    summary.extra = {
        "preset": request.preset, "quick": request.quick, "killed": request.kill,
        "events": data.attrs["events"], "said": data.attrs["said_downstream"],
        "reproducible": "no: what a free-running site consumes depends on the clock; its "
        "schedule (variable `version`) repeats its weights bit for bit",
    }  # fmt: skip
    return summary


def _accuracy(name: str, value: float, n: int, seeds: list[int]) -> Figure:
    return Figure(name, value, n=n, standard_error=binomial_error(value, n), seeds=seeds)


def written(out: Path, data: xr.Dataset, summary: Summary, command: str) -> None:
    """Write record, picture and summary."""
    collect.save(data.assign_attrs(data.attrs | {"command": command}), out / f"{NAME}.nc")
    image = io.BytesIO()
    picture.drawn(data).savefig(image, format="png", dpi=150)
    write_atomic(out / f"{NAME}.png", image.getvalue())
    summary.write(out)


def _say(request: Request, what: str) -> None:
    if not request.quiet:
        console.print(what, style="dim")
