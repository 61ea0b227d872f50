"""What can answer for a trained network: readouts on what was measured of single units
or all of them, the method's own head, or its own judge, which needs the physics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pib.network import Network
from pib.readout import Readout
from twin.errors import ObjectiveError
from twin.key import Key
from validation.baselines.method import Judge, Learnt
from validation.config import RunConfig
from validation.experiment import Tensors, fit_readout

ALL, OWN, JUDGE = "all units", "own head", "own judge"


@dataclass(frozen=True)
class Classifiers:
    """readouts: by name ("unit 1", ..., ALL, OWN). judge: None if features suffice."""

    readouts: Mapping[str, Readout]
    judge: Judge | None

    def accuracies(
        self, network: Network, pair: tuple[Tensor, Tensor], key: Key, phase: str
    ) -> dict[str, float]:
        """Fractions of right answers by name; the readouts' on the same measured features."""
        images, labels = pair
        found: dict[str, float] = {}
        if self.readouts:
            seen = views(network.features(images, key=key, phase=phase))
            found = {n: r.accuracy(seen[n], labels) for n, r in self.readouts.items()}
        if self.judge is not None:
            guess = self.judge(images, key=key.child("judge"), phase=phase)
            found[JUDGE] = float((guess == labels).double().mean())
        return found


def views(features: list[Tensor]) -> dict[str, Tensor]:
    """What each readout sees, by its name."""
    together = torch.cat(features, 1)
    seen = {f"unit {i + 1}": z for i, z in enumerate(features)}
    return seen | {ALL: together, OWN: together}


def fitted(config: RunConfig, learnt: Learnt, data: Tensors, key: Key) -> Classifiers:
    """Every classifier there is; ObjectiveError if there is none."""
    readouts: dict[str, Readout] = {}
    if learnt.measured:
        labels, single = data.train[1], len(learnt.measured) == 1
        readouts = {
            name: fit_readout(config, seen, labels, data.classes, key=key.child("readout"))
            for name, seen in views(learnt.measured).items()
            if name != OWN and not (single and name == ALL)
        }
    if learnt.head is not None:
        readouts[OWN] = learnt.head
    if not readouts and learnt.judge is None:
        raise ObjectiveError("a method left nothing that can answer: no features, no head.")
    return Classifiers(readouts, learnt.judge)


def best(accuracies: Mapping[str, float], own_head: bool) -> str:
    """The name of the best on validation; a method judged by its own head has no choice."""
    if own_head:
        return OWN if OWN in accuracies else JUDGE
    return max(accuracies, key=lambda name: accuracies[name])
