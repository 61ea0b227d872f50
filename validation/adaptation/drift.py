"""A trained network ages in the field; policies say when and what is retrained.

Every policy starts from the same trained network and is judged at the same
device times; what it did is in the ledger: passes, writes, seconds, joules.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pib.network import Network
from pib.readout import Readout
from pib.sampling import draw
from twin.errors import ConfigError, UnknownName, nearest
from twin.key import Key
from validation import datasets
from validation.adaptation.methods import METHODS, trained
from validation.adaptation.retrain import Recipe, classifier, judged, retrained, some_of
from validation.adaptation.standing import COSTS, Standing, since, spent
from validation.config import RunConfig
from validation.evaluation import redeploy
from validation.experiment import Tensors, tensors

WHAT = {
    "nothing": "nothing is done",
    "rewrite": "the same weights written and ranged again",
    "readout": "the readout retrained",
    "last": "the last unit and the readout retrained, warm",
    "network": "all units and the readout retrained, warm",
}
"""What a policy may do. Rewriting is the control: it undoes a crossbar's drift
and cannot undo that of a fixed medium."""
PROBE_IMAGES = 500


@dataclass(frozen=True, kw_only=True)
class Policy:
    """When to do what. every_s: device seconds between treatments. drop: treat
    when a probe on labelled images falls by so much (0 to 1) below its value
    after the last treatment. Exactly one of both, unless nothing is done."""

    what: str
    every_s: float | None = None
    drop: float | None = None

    def __post_init__(self) -> None:
        if self.what not in WHAT:
            raise UnknownName(f"policy: no treatment {self.what!r}. {nearest(self.what, WHAT)}")
        given = (self.every_s is not None) + (self.drop is not None)
        if given != (self.what != "nothing"):
            raise ConfigError(f"policy {self.what}: give either every_s or drop, got {given}.")
        if (self.every_s or 0.0) < 0 or not 0 <= (self.drop or 0.0) < 1:
            raise ConfigError(f"policy {self.what}: every_s must be > 0 and drop in [0, 1).")

    def __str__(self) -> str:
        if self.every_s is not None:
            return f"{self.what} every {self.every_s:g} s"
        return self.what if self.drop is None else f"{self.what} at -{100 * self.drop:g} points"


def work(
    config: dict[str, Any],
    dials: dict[str, float],
    policies: Sequence[dict[str, Any]],
    for_s: float,
    checks: int,
    passes: float,
    seed: int,
    folder: str | None,
) -> xr.Dataset:
    """One trained network under every policy; arguments in JSON's types.

    dials: turned before training, on every unit that has them. for_s: how long
    the network is watched, in `checks` equal waits. passes: of a treatment,
    over the training images.

    accuracy_before, accuracy_after (policy, time): test accuracies just before and
    just after a treatment (the same where nothing was done; the first is what a
    user has had until then); treated (policy, time); cumulated costs of treatments and probes
    as passes, writes, device_seconds, waited_seconds, joules (policy, time).
    """
    begun = time.monotonic()
    torch.set_num_threads(1)
    run, key = RunConfig.model_validate(config), Key(seed)
    data = tensors(datasets.load(run.data.name, data_dir=folder, limit=run.data.limit))
    chosen = [Policy(**policy) for policy in policies]
    found = aged(run, data, dials, chosen, Recipe(passes=passes), for_s, checks, key)
    return found.assign_attrs(seconds=time.monotonic() - begun, seed=seed)


def aged(
    run: RunConfig,
    data: Tensors,
    dials: dict[str, float],
    policies: Sequence[Policy],
    recipe: Recipe,
    for_s: float,
    checks: int,
    key: Key,
) -> xr.Dataset:
    """As :func:`work`, on data at hand."""
    if not for_s > 0 or checks < 1:
        raise ConfigError(f"drift: for_s must be > 0 and checks >= 1, got {for_s} and {checks}.")
    healthy = trained(_with_dials(run, dials), data, METHODS["pib"], key)
    network = healthy.network
    try:
        readout = classifier(run, healthy.measured, data, key.child("readout"))
        stood = Standing.of(network)
        rows = []
        for policy in policies:
            stood.put(network)
            field = _Field(run, network, data, policy, recipe, readout, key)
            rows.append([field.now(), *(field.after(for_s / checks) for _ in range(checks))])
    finally:
        network.close()
    names = {"accuracy_before": "1", "accuracy_after": "1", "treated": "1", **COSTS}
    found = {
        name: (("policy", "time"), [[r[name] for r in row] for row in rows], {"units": unit})
        for name, unit in names.items()
    }
    times = ("time", np.linspace(0, for_s, checks + 1), {"units": "s"})
    return xr.Dataset(found, coords={"policy": [str(p) for p in policies], "time": times})


def _with_dials(run: RunConfig, dials: dict[str, float]) -> RunConfig:
    """Dials as options of the devices, so that training knows them too."""
    units = tuple(u.model_copy(update={"options": {**u.options, **dials}}) for u in run.unit)
    return run.model_copy(update={"unit": units})


@dataclass
class _Field:
    """A network in the field under one policy. readout: the one in use."""

    run: RunConfig
    network: Network
    data: Tensors
    policy: Policy
    recipe: Recipe
    readout: Readout
    key: Key
    age_s: float = 0.0
    count: int = 0
    treated_s: float = 0.0
    level: float | None = None

    def __post_init__(self) -> None:
        self.costs = dict.fromkeys(COSTS, 0.0)
        if self.policy.drop is not None:
            self.level = self._probe()

    def after(self, seconds: float) -> dict[str, float]:
        """Wait, measure, treat if the policy says so, and measure again."""
        for unit in self.network.units:
            unit.fence.wait(seconds)
        self.age_s, self.count = self.age_s + seconds, self.count + 1
        found = self.now()
        if self._due():
            self._treat()
            found |= {"accuracy_after": self._judged("treated"), "treated": 1.0}
        return found | self.costs

    def now(self) -> dict[str, float]:
        """Test accuracy, and costs so far. The test's own passes are no cost."""
        now = self._judged("age")
        return {"accuracy_before": now, "accuracy_after": now, "treated": 0.0, **self.costs}

    def _judged(self, name: str) -> float:
        here = self.key.child(name, self.count)
        return judged(self.run, self.network, self.readout, self.data.test, here)

    def _due(self) -> bool:
        if self.policy.every_s is not None:
            # A tick may fall short of the period by rounding.
            return self.age_s - self.treated_s >= self.policy.every_s * (1 - 1e-9)
        return self.level is not None and self._probe() <= self.level - (self.policy.drop or 0.0)

    def _probe(self) -> float:
        """Accuracy on a few labelled images, at their cost in passes."""
        before = spent(self.network)
        images, labels = self.data.validation
        rows = draw(len(labels), PROBE_IMAGES, self.key.child("probed"))
        here = self.key.child("probe", self.count)
        found = judged(self.run, self.network, self.readout, (images[rows], labels[rows]), here)
        self._charge(before)
        return found

    def _treat(self) -> None:
        before, here = spent(self.network), self.key.child("treat", self.count)
        images = some_of(self.data, self.recipe.passes, here)
        if self.policy.what == "rewrite":
            some = images.train[0][draw(len(images.train[0]), 500, here.child("some"))]
            redeploy(self.network, some, here)
        else:
            measured = self._measured(images, here)
            self.readout = classifier(self.run, measured, images, here.child("readout"))
        self._charge(before)
        self.treated_s = self.age_s
        if self.policy.drop is not None:
            self.level = self._probe()

    def _measured(self, images: Tensors, key: Key) -> list[Tensor]:
        if self.policy.what == "readout":
            return self.network.features(images.train[0], key=key, phase="capture")
        first = len(self.network.units) - 1 if self.policy.what == "last" else 0
        here = key.child("retrain")
        return retrained(self.run, self.network, images, self.recipe, first=first, key=here)

    def _charge(self, before: Any) -> None:
        for name, amount in since(self.network, before).items():
            self.costs[name] += amount
