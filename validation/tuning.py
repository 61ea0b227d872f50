"""`pib-twin tune`: learning rates chosen on validation, as many trials for all.

PIB, local cross-entropy and backpropagation each get the same number of rates
on the same training subset; everything else (epochs, batch, augmentation,
dropout) is the preset's for everybody. Test images are not touched.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pib.objective import Objective
from twin.key import Key
from validation import datasets
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
from validation.summary import Figure, Summary, binomial_error

FACTORS = (0.5, 1.0, 2.0)
METHODS = ("pib", "local_cross_entropy", "backprop")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training of one method with its rate times `factor`."""

    config: RunConfig
    method: str
    factor: float
    limit: int
    seed: int
    data: Path | None

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates of the units, or the one of the whole net."""
        references = self.config.references
        if self.method == "pib":
            return tuple(self.factor * u.rate for u in self.config.unit)
        named = {
            "local_cross_entropy": references.local_cross_entropy_rate,
            "backprop": references.backprop_rate,
        }
        return (self.factor * named[self.method],)


def main(
    preset: str,
    dataset: str | None,
    limit: int,
    seed: int,
    data: Path | None,
    out: Path | None,
    jobs: int,
    command: str,
) -> Summary:
    """Run all trials, print the table, write summary.json to `out` if given."""
    config = load_config(preset)
    if dataset is not None:
        table = config.data.model_copy(update={"name": dataset})
        config = config.model_copy(update={"data": table})
    trials = [
        Trial(config=config, method=m, factor=f, limit=limit, seed=seed, data=data)
        for m in METHODS
        for f in FACTORS
    ]
    summary = Summary(command)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        for trial, (accuracy, n) in zip(trials, pool.map(work, trials), strict=True):
            rates = " and ".join(f"{rate:g}" for rate in trial.rates)
            name = f"validation {trial.method} rate {rates}"
            error = binomial_error(accuracy, n)
            console.print(f"[dim]{name}: {accuracy:.4f}[/dim]")
            summary.add(Figure(name, accuracy, n=n, standard_error=error, seeds=[seed]))
    for method in METHODS:
        count = sum(t.method == method for t in trials)
        summary.add(Figure(f"trials_{method}", count, bound=f"== {len(FACTORS)}"))
    summary.extra = {"preset": preset, "limit": limit}
    console.print(summary.table())
    if out is not None:
        summary.write(out)
    return summary


def work(trial: Trial) -> tuple[float, int]:
    """Accuracy on validation and its number of images; one thread."""
    torch.set_num_threads(1)
    config, key = trial.config, Key(trial.seed)
    whole = datasets.load(config.data.name, data_dir=trial.data)
    limit = trial.limit if trial.limit < len(whole.train_y) else None
    loaded = datasets.load(config.data.name, data_dir=trial.data, limit=limit)
    # Validation stands in for test; what the final figures use stays unseen.
    data = tensors(replace(loaded, test_x=loaded.validation_x, test_y=loaded.validation_y))
    n = len(data.test[1])
    if trial.method == "backprop":
        table = config.references.model_copy(update={"backprop_rate": trial.rates[0]})
        config = config.model_copy(update={"references": table})
        return backprop_digital(config, data, key=key)[1], n
    return _greedy(trial, config, data, key), n


def _greedy(trial: Trial, config: RunConfig, data: Tensors, key: Key) -> float:
    network = build_network(config, data.train[0].shape[1], key=key)
    make: type[Objective] | None = LocalCrossEntropy if trial.method != "pib" else None
    plans = build_plans(config, make)
    rates = trial.rates if len(trial.rates) == len(plans) else trial.rates * len(plans)
    plans = [replace(plan, rate=rate) for plan, rate in zip(plans, rates, strict=True)]
    trainer = build_trainer(network, data, plans, key=key.child("train"))
    trainer.PROBES_PER_UNIT = 1
    measured = seen_by_readout(config, trainer.run())
    readout = fit_readout(config, measured, data.train[1], data.classes, key=key.child("readout"))
    on_validation = network.features(data.test[0], key=key.child("validation"))
    return readout.accuracy(seen_by_readout(config, on_validation), data.test[1])
