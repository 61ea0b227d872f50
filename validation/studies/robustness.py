"""`pib-twin robustness`: which non-ideality costs the most accuracy, and what helps.

Every non-ideality of a network's devices is swept from zero to severe, one at a
time and all together, for each method, after training only and with training
in the loop. What is not swept stays as delivered.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from twin.config import build
from twin.errors import ConfigError
from twin.files import write_atomic
from validation import datasets
from validation.baselines import registry
from validation.config import load_config
from validation.console import console
from validation.studies import collect, robustnesspage
from validation.studies.collect import TRAINED_BY
from validation.studies.engine import run
from validation.studies.nonidealities import inventory
from validation.studies.points import Point
from validation.studies.progress import Tally, watcher
from validation.studies.robustnessdata import dataset, failures, ranked, severe_loss
from validation.studies.robustnessplan import (
    LOOP,
    QUICK,
    TEST,
    TOGETHER,
    Case,
    Plan,
    Study,
    is_plan,
    load_plan,
    narrowed,
    pairs,
    points,
    reference,
    require_methods,
    singles,
    written,
)
from validation.studies.severity import NonIdeality
from validation.studies.store import Store
from validation.studies.workers import Pool
from validation.summary import Figure, Summary, binomial_error, mean_and_error

DATASET, REPORT, PLAN, NETWORK = (
    "robustness.nc",
    "robustness.html",
    "robustness.toml",
    "network.toml",
)


def main(
    network: str,
    out: Path | None,
    seeds: int | None = None,
    quick: bool = False,
    jobs: int = 2,
    data: Path | None = None,
    accuracy_points: Sequence[float] | None = None,
    command: str = "",
    progress: str = "live",
) -> Summary:
    """Compute what is missing in `out`, write report, dataset, plan and summary there.

    network: a preset, a run configuration, or a plan (robustness.toml). seeds,
    accuracy_points: in place of the plan's. progress: see `progress.watcher`.
    """
    plan = planned(network, seeds, quick, accuracy_points)
    study = prepared(plan, data)
    out = out or Path("runs") / f"robustness-{Path(network).stem}"
    paired = computed(study, out, jobs, progress)
    found = dataset(study.plan, study.cases, paired, Store(out), study.images)
    missing = failures(_asked(study, found), Store(out))
    collect.save(found, out / DATASET)
    text = written(study.plan, study.found.swept, command)
    write_atomic(out / PLAN, text.encode())
    network_text = ""
    if study.plan.network.endswith(".toml"):
        network_text = Path(study.plan.network).read_text(encoding="utf-8")
        write_atomic(out / NETWORK, network_text.encode())
    summary = summarised(study, found, missing, command)
    summary.write(out)
    page = robustnesspage.page(study, found, missing, text, command, network_text)
    write_atomic(out / REPORT, page.encode())
    if progress != "json-lines":
        console.print(summary.table())
        console.print(f"report in {out / REPORT}", markup=False)
    return summary


def planned(
    network: str, seeds: int | None, quick: bool, accuracy_points: Sequence[float] | None
) -> Plan:
    """The plan of the command line's arguments."""
    path = Path(network)
    if network.endswith(".toml") and is_plan(path):
        if quick:
            raise ConfigError(f"{path}: a plan says itself what is quick. Leave --quick out.")
        plan = load_plan(path)
    else:
        plan = Plan(network=network).model_copy(update=QUICK if quick else {})
    if seeds is not None:
        plan = plan.model_copy(update={"seeds": tuple(range(seeds))})
    if accuracy_points is not None:
        plan = plan.model_copy(update={"accuracy_points": tuple(accuracy_points)})
    return build(Plan, plan.model_dump(), "robustness")


def prepared(plan: Plan, data: Path | None) -> Study:
    """Look at the network and its data; leave out methods that cannot train it."""
    require_methods(plan, registry.STUDIED)
    config = load_config(plan.network)
    loaded = datasets.load(config.data.name, data_dir=data)
    refusals = {name: registry.method(name).refusal(config) for name in plan.methods}
    kept = tuple(name for name, reason in refusals.items() if reason is None)
    if not kept:
        raise ConfigError(f"{plan.network}: no method can train it. {refusals}")
    return Study(
        plan=plan.model_copy(update={"methods": kept}),
        config=config,
        found=narrowed(plan, inventory(config, loaded.train_x.shape[1])),
        images=len(loaded.test_y),
        data=None if data is None else str(data),
        refused=tuple((name, reason) for name, reason in refusals.items() if reason),
    )


# ---- computing ------------------------------------------------------------------


def computed(study: Study, out: Path, jobs: int, progress: str) -> list[Case]:
    """Compute everything; returns the pairs, which depend on what was found.

    First what is asked after training, then the loop of all or the worst and
    the pairs of the worst.
    """
    store, plan = Store(out), study.plan
    with Pool(jobs) as pool:
        for asked in (_first(study), None):
            if asked is None:
                found = dataset(plan, study.cases, [], store, study.images)
                asked = _second(study, found)
            wanted = list(dict.fromkeys(study.placed(asked)))
            if progress == "live":
                console.print(
                    f"{plan.network}: {len(study.found.swept)} non-idealities, "
                    f"{', '.join(plan.methods)}, {len(plan.seeds)} seeds: {len(wanted)} points"
                )
            with watcher(progress, Tally(len(wanted))) as watch:
                run(wanted, out, pool, watch)
    return pairs(paired_ones(study, found))


def _first(study: Study) -> list[Point]:
    plan = study.plan
    asked = [reference(plan, method, seed) for method in plan.methods for seed in plan.seeds]
    asked += points(plan, study.cases, TEST)
    if plan.loop_worst is None:
        asked += points(plan, study.cases, LOOP)
    return asked


def _second(study: Study, found: xr.Dataset) -> list[Point]:
    plan = study.plan
    chosen = paired_ones(study, found)
    paired, alone = pairs(chosen), singles(chosen)
    asked: list[Point] = []
    for when in (TEST, LOOP) if plan.loop_worst is None else (TEST,):
        asked += points(plan, [*alone, *paired], when, (plan.pair_severity,))
    if plan.loop_worst is not None:
        looped = singles(worst(study, found, plan.loop_worst))
        asked += points(plan, [*looped, study.cases[-1]], LOOP)
    return asked


def _asked(study: Study, found: xr.Dataset) -> list[Point]:
    """Everything that was asked for, each once."""
    return list(dict.fromkeys(study.placed([*_first(study), *_second(study, found)])))


def worst(study: Study, found: xr.Dataset, count: int) -> list[NonIdeality]:
    """The non-idealities with degrees that cost the first method most when severe."""
    by_name = {one.name: one for one in study.found.swept if not one.is_event}
    return [by_name[n] for n in ranked(found, study.plan.methods[0]) if n in by_name][:count]


def paired_ones(study: Study, found: xr.Dataset) -> list[NonIdeality]:
    """The worst that pairs are made of: those which are compared with the network as
    delivered, without a rest before the test."""
    some = [one for one in worst(study, found, len(study.found.swept)) if not one.always]
    return [one for one in some if TEST in one.whens][: study.plan.pairs_of_worst]


# ---- what came of it --------------------------------------------------------------


def summarised(
    study: Study, found: xr.Dataset, missing: Sequence[tuple[str, str]], command: str
) -> Summary:
    """The accuracies of the network as delivered, perfect and poor, and what was lost."""
    summary = Summary(command, list(_figures(study, found)))
    summary.add(Figure("points_without_result", float(len(missing))))
    summary.extra = {
        "network": study.plan.network,
        "plan": study.plan.model_dump(),
        "ranked": ranked(found, study.plan.methods[0]),
        "refused_methods": [list(row) for row in study.refused],
        "left_out": [list(row) for row in study.found.left_out],
    }
    return summary


def _figures(study: Study, found: xr.Dataset) -> Iterable[Figure]:
    seeds, images = study.plan.seeds, study.images
    for method in study.plan.methods:
        values = found["delivered"].sel({TRAINED_BY: method}).values
        yield _accuracy(f"accuracy_{method}", values[np.isfinite(values)], seeds, images)
        for name, severity in (("ideal", 0.0), ("severe", 1.0)):
            place = {"case": TOGETHER, TRAINED_BY: method, "severity": severity, "when": TEST}
            values = found["accuracy"].sel(place).values
            yield _accuracy(
                f"accuracy_{method}_all_{name}", values[np.isfinite(values)], seeds, images
            )
    first = study.plan.methods[0]
    for name in [*ranked(found, first)[:5], TOGETHER]:
        for when in (TEST, LOOP):
            lost = severe_loss(found, name, first, when)
            if lost is not None:
                label = f"loss_{name.replace(' ', '_')}_{'test' if when == TEST else 'loop'}"
                yield Figure(label, lost.value, n=images, standard_error=lost.error, seeds=seeds)


def _accuracy(name: str, values: np.ndarray, seeds: Sequence[int], images: int) -> Figure:
    if not len(values):
        return Figure(name, None)
    mean, error = mean_and_error(list(values))
    error = math.hypot(error or 0.0, binomial_error(mean, images))
    return Figure(name, mean, n=images, standard_error=error, seeds=seeds)
