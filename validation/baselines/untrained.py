"""The network as drawn: what a readout finds before anything has learnt."""

from __future__ import annotations

from dataclasses import dataclass

from pib.sampling import draw
from validation.baselines.method import Learnt, Task
from validation.config import RunConfig


@dataclass(frozen=True)
class Untrained:
    """The network as drawn, written and ranged: only a readout learns."""

    family: str = "readout"
    own_head: bool = False
    needs_twin: bool = False

    def refusal(self, config: RunConfig) -> str | None:  # noqa: ARG002
        return None

    def train(self, task: Task) -> Learnt:
        network, key, images = task.network, task.key, task.data.train[0]
        some, before = images[draw(len(images), 500, key.child("some"))], None
        for index, unit in enumerate(network.units):
            unit.deploy(key.child("untrained", index))
            unit.calibrate(network.drive(index, some, before), key=key.child("range", index))
            before = network.features(some, key=key.child("link", index), until=index + 1)[-1]
            network.calibrate_link(index, before)
        return Learnt(network.features(images, key=key.child("measure"), phase="capture"))


METHOD = Untrained()
