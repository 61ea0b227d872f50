"""`pib-twin adapt`: a fault or drift in the loop, and what retraining wins back."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib.figure import Figure as Picture

from twin.errors import ConfigError, UnknownName, nearest
from twin.files import write_atomic
from validation.adaptation import deployment, drift, training
from validation.adaptation.fault import Fault
from validation.adaptation.methods import METHODS, TITLES, method
from validation.adaptation.picture import of_drift, of_fault
from validation.adaptation.standing import COSTS
from validation.adaptation.tables import of_methods, of_policies
from validation.config import RunConfig, load_config
from validation.console import console
from validation.reproduce.parts import Part, compute
from validation.studies import collect
from validation.studies.collect import TRAINED_BY
from validation.summary import Figure, Summary, mean_and_error

WHENS = ("deployment", "training")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `pib-twin adapt` is asked.

    fault: NAME=VALUE, or None to let the network drift. unit: from 1, None for
    all. when: in deployment, or in training after the share `at` of the steps
    of the hit unit. passes: k. methods: who is hit, of METHODS. tune: rates
    chosen on validation. Drift: dials turned from the start, watched for
    for_s device seconds at `checks` times, treated every every_s and (other
    policies) when a probe falls by drop points.
    """

    preset: str
    fault: str | None = None
    unit: int | None = None
    when: str = "deployment"
    at: float = 0.5
    passes: Sequence[float] = (0.1, 0.5, 1.0, 2.0)
    methods: Sequence[str] = ("pib", "pib-masked", "lce", "lce-masked", "backprop",
                              "backprop-masked")  # fmt: skip
    tune: bool = False
    dials: Mapping[str, float | int | str] | None = None
    for_s: float = 4e6
    checks: int = 8
    every_s: float = 1e6
    drop: float = 2.0
    seeds: int = 1
    quick: bool = False
    limit: int | None = None
    data: Path | None = None
    out: Path | None = None
    jobs: int = 2
    quiet: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        if self.when not in WHENS:
            raise UnknownName(f"when: {self.when!r} is no such time. {nearest(self.when, WHENS)}")
        if self.unit is not None and self.unit < 1:
            raise ConfigError(f"unit: counted from 1, got {self.unit}.")
        if not self.passes:
            raise ConfigError("passes: give at least one k, e.g. 0.5.")
        for name in self.methods:
            method(name)

    @property
    def config(self) -> RunConfig:
        """The preset; quick: fewer images and epochs; limit over both."""
        config = load_config(self.preset)
        table, units = config.data, config.unit
        if self.quick:
            table = table.model_copy(update={"limit": config.quick.limit})
            epochs = {"epochs": config.quick.epochs}
            units = tuple(unit.model_copy(update=epochs) for unit in units)
        if self.limit is not None:
            table = table.model_copy(update={"limit": self.limit})
        return config.model_copy(update={"data": table, "unit": units})


def main(request: Request) -> Summary:
    """Compute what is missing; write picture, data and summary; print the table."""
    kind = "drift" if request.fault is None else request.when
    out = request.out or Path("runs") / f"adapt-{kind}"
    found = compute(_parts(request), out / "parts", request.jobs, request.quiet)
    told = _drift(found, request) if kind == "drift" else _fault(found, request)
    figures, data, picture = told
    image = io.BytesIO()
    picture.savefig(image, format="png", dpi=150)
    write_atomic(out / "adaptation.png", image.getvalue())
    collect.save(data.assign_attrs(command=request.command), out / "adaptation.nc")
    summary = Summary(request.command, figures)
    summary.extra = {"preset": request.preset, "quick": request.quick, "kind": kind}
    summary.write(out)
    console.print(of_policies(data) if kind == "drift" else of_methods(data, request.methods))
    console.print(f"picture, data and figures in {out}")
    return summary


# ---- what is computed -----------------------------------------------------------


def _parts(request: Request) -> list[Part]:
    common: dict[str, Any] = {
        "config": request.config.model_dump(mode="json"),
        "folder": None if request.data is None else str(request.data.resolve()),
    }
    seeds = range(request.seeds)
    if request.fault is None:
        policies = [
            {k: v for k, v in asdict(p).items() if v is not None} for p in _policies(request)
        ]
        more = {
            "dials": dict(request.dials or {}), "policies": policies, "for_s": request.for_s,
            "checks": request.checks, "passes": min(request.passes),
        }  # fmt: skip
        return [Part(f"drift-{s}", drift.work, common | more | {"seed": s}) for s in seeds]
    fault = Fault.parsed(request.fault, None if request.unit is None else request.unit - 1)
    passes = list(request.passes)
    after = {"faults": [asdict(fault)], "passes": passes,
             "factors": list(deployment.FACTORS) if request.tune else [1.0]}  # fmt: skip
    during = {"fault": asdict(fault), "at": request.at, "passes": passes}
    return [
        _part(name, seed, request, common, after, during)
        for name in request.methods
        for seed in seeds
    ]


def _part(
    name: str,
    seed: int,
    request: Request,
    common: dict[str, Any],
    after: dict[str, Any],
    during: dict[str, Any],
) -> Part:
    """One method and seed. In-silico weights never see the chip while they are
    trained: a fault in training meets them deployed."""
    label = f"{request.when}-{name}-{seed}"
    if request.when == "training" and METHODS[name].in_loop:
        return Part(label, training.work, {**common, **during, "name": name, "seed": seed})
    return Part(label, deployment.work, {**common, **after, "method": name, "seed": seed})


def _policies(request: Request) -> list[drift.Policy]:
    """Nothing, everything on schedule, and what a falling probe calls for."""
    drop = request.drop / 100
    return [
        drift.Policy(what="nothing"),
        *(drift.Policy(what=w, every_s=request.every_s) for w in drift.WHAT if w != "nothing"),
        *(drift.Policy(what=w, drop=drop) for w in ("readout", "last", "network")),
    ]


# ---- what is told ---------------------------------------------------------------

Told = tuple[list[Figure], xr.Dataset, Picture]


def _fault(found: Mapping[str, xr.Dataset], request: Request) -> Told:
    """Figures by method, before, after and after k passes; data by (trained_by, seed)."""
    rows, tables = [], []
    for name in request.methods:
        runs = [found[f"{request.when}-{name}-{s}"] for s in range(request.seeds)]
        one = xr.concat(runs, "seed", combine_attrs="drop").assign_coords(seed=range(len(runs)))
        if "fault" in one.dims:
            one = one.isel(fault=0, drop=True)
        tables.append(one)
        rows += _figures_of(name, one)
    data = xr.concat(tables, TRAINED_BY, join="outer", data_vars="all").assign_coords(
        {TRAINED_BY: list(request.methods)}
    )
    titles = [TITLES[name] for name in request.methods]
    return rows, data, of_fault(data, titles, str(request.fault), request.when)


def _figures_of(name: str, one: xr.Dataset) -> list[Figure]:
    singles = ("healthy", "before", "before_head", "after", "after_head", "scheduled")
    rows = [_mean(f"{name}_{c}", one[c]) for c in singles if c in one and one[c].notnull().any()]
    for way in ("readout", "units"):
        if way not in one or not one[way].notnull().any():
            continue
        for k in one["passes"].values:
            at = one.sel(passes=k)
            rows.append(_mean(f"{name}_{way}_{k:g}_passes", at[way]))
    return rows


def _drift(found: Mapping[str, xr.Dataset], request: Request) -> Told:
    """Accuracy on average and at its worst, and the costs, by policy.

    Of values before treatments: those after them depend on how checks fall on
    the schedule.
    """
    runs = [found[f"drift-{s}"] for s in range(request.seeds)]
    data = xr.concat(runs, "seed", combine_attrs="drop").assign_coords(seed=range(len(runs)))
    rows = []
    for policy in data["policy"].values:
        one = data.sel(policy=policy)
        rows.append(
            _mean(f"{policy}: accuracy, mean over time", one["accuracy_before"].mean("time"))
        )
        rows.append(_mean(f"{policy}: accuracy, worst", one["accuracy_before"].min("time")))
        rows.append(_mean(f"{policy}: treatments", one["treated"].sum("time")))
        rows += [
            _mean(f"{policy}: {name}", one[name].isel(time=-1), unit)
            for name, unit in COSTS.items() if name != "waited_seconds"
        ]  # fmt: skip
    return rows, data, of_drift(data)


def _mean(name: str, values: xr.DataArray, unit: str = "1") -> Figure:
    numbers = [float(v) for v in values.values]
    mean, error = mean_and_error(numbers)
    return Figure(name, mean, unit, n=len(numbers), standard_error=error, seeds=range(len(numbers)))
