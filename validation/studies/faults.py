"""`pib-twin faults`: converter columns stuck at random codes, in every unit.

PIB in the loop, blind to the fault, beside deployed weights and beside rivals
that find and mask dead columns and have their rate tuned again. Rates are
chosen on validation with seed 0, three trials for everybody in every regime.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pib.network import Network
from pib.train import Plan
from twin.key import Key
from validation import datasets
from validation.baselines.backprop import measured_on_chip
from validation.baselines.lce import LocalCrossEntropy
from validation.config import RunConfig, load_config
from validation.console import console
from validation.experiment import (
    Tensors,
    build_network,
    build_plans,
    build_trainer,
    fit_readout,
    seen_by_readout,
    tensors,
)
from validation.references import backprop_digital
from validation.summary import Figure, Summary, mean_and_error

FRACTIONS = (0.25, 0.5)
RATES = {
    "pib": (2.5e-3, 5e-3, 1e-2),
    "lce": (3e-3, 6e-3, 1.2e-2),
    "backprop": (1.5e-3, 3e-3, 6e-3),
}
BOUNDS = {"pib_blind_0.5": ">= 0.945", "pib_blind_ahead_of_backprop_retrained_0.5": "> 0"}
ADAPTATION_EPOCHS = 4


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training or deployment under one fault.

    method: pib, lce, backprop, or pib_switched (trained healthy, then the fault
    comes, then retrained warm). masked: constant columns are found and zeroed.
    """

    method: str
    masked: bool
    fraction: float
    rate: float
    seed: int
    limit: int
    epochs: int | None = None
    data: Path | None = None


@dataclass(frozen=True)
class Score:
    """Accuracies of a readout on measured features; own: without it (or before
    adaptation), where the method has such a thing."""

    validation: float
    test: float
    own: float | None = None


def main(
    out: Path | None, seeds: int, quick: bool, data: Path | None, jobs: int, command: str
) -> Summary:
    """Run everything, print the table, write summary.json to `out` if given."""
    base = Task(
        method="pib", masked=False, fraction=0.5, rate=5e-3, seed=0,
        limit=2_000 if quick else 20_000, epochs=2 if quick else None, data=data,
    )  # fmt: skip
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        scores = dict(_scored(pool, _trials(base)))
        tuned = _tuned(scores)
        # Seed 0 of a tuned rate is one of the trials.
        final = [replace(t, seed=s) for t in tuned.values() for s in range(1, seeds)]
        scores |= dict(_scored(pool, final))
    summary = Summary(command, list(_figures(tuned, scores, seeds)))
    if not quick:
        summary.expect(BOUNDS)
    summary.extra = {
        "quick": quick,
        "images": base.limit,
        "rates": {f"{_name(t)}_{t.fraction:g}": t.rate for t in tuned.values()},
    }
    console.print(summary.table())
    if out is not None:
        summary.write(out)
    return summary


def _trials(base: Task) -> list[Task]:
    regimes = [("pib", False), ("pib", True), ("lce", False), ("lce", True)]
    regimes += [("backprop", False), ("backprop", True), ("pib_switched", False)]
    return [
        replace(base, method=method, masked=masked, fraction=fraction, rate=rate)
        for fraction in FRACTIONS
        for method, masked in regimes
        for rate in RATES[method.removesuffix("_switched")]
    ]


def _scored(pool: ProcessPoolExecutor, tasks: Sequence[Task]) -> Iterable[tuple[Task, Score]]:
    for done, (task, score) in enumerate(zip(tasks, pool.map(work, tasks), strict=True), 1):
        console.print(
            f"[dim]{done}/{len(tasks)} {_name(task)} {task.fraction:g} rate {task.rate:g} "
            f"seed {task.seed}: validation {score.validation:.4f}, test {score.test:.4f}[/dim]"
        )
        yield task, score


def _tuned(trials: Mapping[Task, Score]) -> dict[tuple[str, float], Task]:
    """The best rate on validation of every method in every regime."""
    best: dict[tuple[str, float], tuple[float, Task]] = {}
    for task, score in trials.items():
        regime = (_name(task), task.fraction)
        if regime not in best or score.validation > best[regime][0]:
            best[regime] = (score.validation, task)
    return {regime: task for regime, (_, task) in best.items()}


def _figures(
    tuned: dict[tuple[str, float], Task], scores: dict[Task, Score], seeds: int
) -> Iterable[Figure]:
    def runs(name: str, fraction: float) -> list[Score]:
        task = tuned[name, fraction]
        return [scores[replace(task, seed=seed)] for seed in range(seeds)]

    for name, fraction in tuned:
        found = runs(name, fraction)
        yield _mean(f"{name}_{fraction:g}", [s.test for s in found])
        own = [s.own for s in found if s.own is not None]
        if own:
            kind = "before_adaptation" if name.startswith("pib_switched") else "own_head"
            yield _mean(f"{name}_{kind}_{fraction:g}", own)
    for fraction in FRACTIONS:
        pairs = zip(runs("pib_blind", fraction), runs("backprop_blind", fraction), strict=True)
        name = f"pib_blind_ahead_of_backprop_retrained_{fraction:g}"
        yield _mean(name, [ours.test - theirs.test for ours, theirs in pairs])


def _mean(name: str, values: list[float]) -> Figure:
    mean, error = mean_and_error(values)
    return Figure(name, mean, n=len(values), standard_error=error, seeds=range(len(values)))


def _name(task: Task) -> str:
    return f"{task.method}_{'masked' if task.masked else 'blind'}"


def work(task: Task) -> Score:
    """Do one task in a process of its own, on one thread."""
    torch.set_num_threads(1)
    config, key = _config(task), Key(task.seed)
    data = tensors(datasets.load("mnist", data_dir=task.data, limit=task.limit))
    if task.method == "backprop":
        return _deployed(task, config, data, key)
    network = build_network(config, data.train[0].shape[1], key=key)
    own = None
    if task.method == "pib_switched":
        own = _before_adaptation(task, config, network, data, key)
        config = _shorter(config, ADAPTATION_EPOCHS if task.epochs is None else 1)
    else:
        _break(network, task, key)
    if task.method == "lce":
        plans = build_plans(config, LocalCrossEntropy, task.rate)
    else:
        plans = build_plans(config, rate=task.rate)
    measured = _trained(network, data, plans, key.child("train"))
    validation, test = _scores(config, network, measured, data, key)
    return Score(validation, test, own)


def _config(task: Task) -> RunConfig:
    config = load_config("memristor-mnist")
    units = tuple(u.model_copy(update={"mask_constant": task.masked}) for u in config.unit)
    config = config.model_copy(update={"unit": units})
    config = config.model_copy(
        update={"references": config.references.model_copy(update={"backprop_rate": task.rate})}
    )
    return config if task.epochs is None else _shorter(config, task.epochs)


def _shorter(config: RunConfig, epochs: int) -> RunConfig:
    units = tuple(u.model_copy(update={"epochs": epochs}) for u in config.unit)
    return config.model_copy(update={"unit": units})


def _break(network: Network, task: Task, key: Key) -> None:
    for unit in network.units:
        unit.fence.adjust("stuck_column_fraction", task.fraction, key=key.child("fault"))


def _trained(network: Network, data: Tensors, plans: list[Plan], key: Key) -> list[Tensor]:
    trainer = build_trainer(network, data, plans, key=key)
    trainer.PROBES_PER_UNIT = 1
    return trainer.run()


def _before_adaptation(
    task: Task, config: RunConfig, network: Network, data: Tensors, key: Key
) -> float:
    """Train healthy, let the fault come, read with the readout trained before."""
    measured = _trained(network, data, build_plans(config), key.child("healthy"))
    labels = data.train[1]
    readout = fit_readout(
        config, seen_by_readout(config, measured), labels, data.classes, key=key.child("readout")
    )
    _break(network, task, key)
    on_test = network.features(data.test[0], key=key.child("test"))
    return readout.accuracy(seen_by_readout(config, on_test), data.test[1])


def _scores(
    config: RunConfig, network: Network, measured: list[Tensor], data: Tensors, key: Key
) -> tuple[float, float]:
    readout = fit_readout(
        config, seen_by_readout(config, measured), data.train[1], data.classes,
        key=key.child("readout"),
    )  # fmt: skip

    def accuracy(part: tuple[Tensor, Tensor], name: str) -> float:
        features = network.features(part[0], key=key.child(name))
        return readout.accuracy(seen_by_readout(config, features), part[1])

    return accuracy(data.validation, "validation"), accuracy(data.test, "test")


def _deployed(task: Task, config: RunConfig, data: Tensors, key: Key) -> Score:
    net, _ = backprop_digital(config, data, key=key)
    network = build_network(config, data.train[0].shape[1], key=key)
    _break(network, task, key)
    measured = measured_on_chip(net, network, data.train[0], key=key.child("deploy"))
    validation, test = _scores(config, network, measured, data, key)
    on_test = torch.cat(network.features(data.test[0], key=key.child("test")), 1)
    return Score(validation, test, net.head_accuracy(on_test, data.test[1]))
