"""A fault comes after training: accuracy before, right after, and after k further passes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from twin.key import Key
from validation import datasets
from validation.adaptation.fault import Fault, breakable
from validation.adaptation.methods import Adapting, Trained, masking, method, trained
from validation.adaptation.retrain import (
    Recipe,
    classifier,
    judged,
    judged_on,
    retrained,
    some_of,
    tended,
)
from validation.adaptation.standing import COSTS, Standing, since, spent
from validation.config import RunConfig
from validation.experiment import Tensors, tensors
from validation.studies.points import canonical

FACTORS = (0.5, 1.0, 2.0)
"""Trials of a rate, the same number for everybody, judged on validation."""
WAYS = ("readout", "units")
"""What is retrained: the readout alone, or the units from the hit one on."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is asked of one method. passes: k, each from the state right after
    the fault. factors: on the rates, chosen on validation at the largest k.
    fixed: way -> a factor by fault, where they were chosen before."""

    config: RunConfig
    faults: tuple[Fault, ...]
    passes: tuple[float, ...]
    method: str = "pib"
    factors: tuple[float, ...] = (1.0,)
    fixed: Mapping[str, Sequence[float]] | None = None
    seed: int = 0

    def trials(self, way: str, fault: int) -> tuple[float, ...]:
        """The factors that are tried on the fault of this index."""
        return self.factors if self.fixed is None else (self.fixed[way][fault],)

    @property
    def who(self) -> Adapting:
        return method(self.method)


def work(
    config: dict[str, Any],
    faults: Sequence[dict[str, Any]],
    passes: Sequence[float],
    method: str,
    seed: int,
    folder: str | None,
    factors: Sequence[float] = (1.0,),
    tests: int | None = None,
    fixed: dict[str, list[float]] | None = None,
) -> xr.Dataset:
    """The part of a reproduction or of `pib-twin adapt`; arguments in JSON's types.

    Test accuracies: before, before_head (of in-silico weights with their own
    head), after and after_head (fault; right after, nothing done),
    readout (fault, passes; only a readout retrained), units (fault, passes; the
    hit unit, those after it and the readout retrained). With costs of each, and
    validation accuracies where factors are chosen by them. tests: test images, None for all.
    fixed: factors by way and fault that are not to be chosen again.
    """
    begun = time.monotonic()
    torch.set_num_threads(1)
    case = Case(
        config=RunConfig.model_validate(config),
        faults=tuple(Fault(**fault) for fault in faults),
        passes=tuple(passes), method=method, factors=tuple(factors), seed=seed, fixed=fixed,
    )  # fmt: skip
    table = case.config.data
    data = tensors(datasets.load(table.name, data_dir=folder, limit=table.limit))
    found = met(case, judged_on(data, tests))
    return found.assign_attrs(seconds=time.monotonic() - begun)


def work_tuned_once(seeds: Sequence[int], **arguments: Any) -> xr.Dataset:
    """As :func:`work`, along `seed`: rates are chosen with the first seed only.

    The other seeds take over its factors, so that they are no seeds of a choice.
    """
    begun = time.monotonic()
    first = work(seed=seeds[0], **arguments)
    fixed = {way: first[f"{way}_factor"].isel(passes=-1).values.tolist() for way in WAYS}
    rest = [work(seed=seed, fixed=fixed, **arguments) for seed in seeds[1:]]
    found = xr.concat([first, *rest], "seed", combine_attrs="drop")
    facts = {"seconds": time.monotonic() - begun, "tuned_with_seed": seeds[0]}
    return found.assign_coords(seed=list(seeds)).assign_attrs(facts)


def met(case: Case, data: Tensors) -> xr.Dataset:
    """One method under every fault of a case, each from the same healthy network."""
    config, key, pixels = case.config, Key(case.seed), data.train[0].shape[1]
    for fault in case.faults:
        config = breakable(config, fault, pixels)
    healthy = trained(config, data, case.who, key)
    config = masking(config, case.who.masked)
    stood = Standing.of(healthy.network)
    try:
        field = _Field(case, config, data, healthy, key)
        rows = [field.under(index, stood) for index in range(len(case.faults))]
        return _as_dataset(case, rows, *field.before)
    finally:
        healthy.network.close()


class _Field:
    """A trained network where it works: broken, judged and mended.

    before: test accuracies while healthy, of the readout and of the own head.
    """

    def __init__(
        self, case: Case, config: RunConfig, data: Tensors, healthy: Trained, key: Key
    ) -> None:
        self.case, self.config, self.data, self.healthy, self.key = case, config, data, healthy, key
        self.network = healthy.network
        self.readout = classifier(config, healthy.measured, data, key.child("readout"))
        self.before = self._by_old("before")

    def under(self, index: int, stood: Standing) -> dict[str, Any]:
        """Everything that is measured of the fault of this index."""
        fault = self.case.faults[index]
        stood.put(self.network)
        fault.turn(self.network, self.key)
        broken, (after, after_head) = Standing.of(self.network), self._by_old("after")
        mended: dict[str, list[dict[str, float]]] = {}
        for way in WAYS if self.case.who.in_loop else WAYS[:1]:
            largest = max(self.case.passes)
            tried = self.case.trials(way, index)
            trials = {f: self._mended(way, fault, largest, f, broken) for f in tried}
            factor = max(trials, key=lambda f: trials[f]["validation"])
            rows = {largest: trials[factor]}
            for k in self.case.passes:
                if k not in rows:
                    rows[k] = self._mended(way, fault, k, factor, broken)
            mended[way] = [rows[k] | {"factor": factor} for k in self.case.passes]
        return {"after": after, "after_head": after_head, **mended}

    def _by_old(self, name: str) -> tuple[float, float]:
        """Test accuracies of the classifiers trained while healthy."""
        key, test = self.key.child(name), self.data.test
        by_readout = judged(self.config, self.network, self.readout, test, key)
        if self.healthy.head is None:
            return by_readout, float("nan")
        features = torch.cat(self.network.features(test[0], key=key), 1)
        return by_readout, self.healthy.head.accuracy(features, test[1])

    def _mended(
        self, way: str, fault: Fault, passes: float, factor: float, broken: Standing
    ) -> dict[str, float]:
        """One treatment from the state right after the fault."""
        network, config, here = self.network, self.config, self.key.child("mend", str(passes))
        broken.put(network)
        before = spent(network)
        images = some_of(self.data, passes, here)
        tended(network, images.train[0], here)
        measured = self._measured(way, fault, Recipe(
            passes=passes, objective=self.case.who.objective,
            rate=self.case.who.rate(config), factor=factor,
        ), images, here)  # fmt: skip
        on_readout = factor if way == "readout" else 1.0
        readout = classifier(config, measured, images, here.child("readout"), on_readout)
        costs = since(network, before)
        parts = {"test": self.data.test, "validation": self.data.validation}
        scores = {
            name: judged(config, network, readout, part, here.child(name))
            for name, part in parts.items()
            if name == "test" or (self.case.fixed is None and len(self.case.factors) > 1)
        }
        return {"validation": float("nan"), **scores, **costs}

    def _measured(
        self, way: str, fault: Fault, recipe: Recipe, images: Tensors, key: Key
    ) -> list[Tensor]:
        if way == "readout":
            return self.network.features(images.train[0], key=key, phase="capture")
        return retrained(
            self.config, self.network, images, recipe, first=fault.first, key=key.child("retrain")
        )


def _as_dataset(
    case: Case, rows: list[dict[str, Any]], before: float, before_head: float
) -> xr.Dataset:
    data = xr.Dataset(
        {"before": ((), before, {"units": "1"}), "before_head": ((), before_head, {"units": "1"})},
        coords={
            "fault": [str(fault) for fault in case.faults],
            "passes": ("passes", list(case.passes), {"units": "1"}),
        },
        attrs={"method": case.method, "seed": case.seed, "config": canonical(
            case.config.model_dump(mode="json")).decode()},
    )  # fmt: skip
    for name in ("after", "after_head"):
        data[name] = ("fault", [row[name] for row in rows], {"units": "1"})
    for way in WAYS:
        for name, unit in {"test": "1", "validation": "1", "factor": "1", **COSTS}.items():
            table = [
                [mended[name] for mended in row[way]] if way in row else [np.nan] * len(case.passes)
                for row in rows
            ]
            label = way if name == "test" else f"{way}_{name}"
            data[label] = (("fault", "passes"), table, {"units": unit})
    return data
