"""One unit of an agent, alone with its local loss: layer, head, target copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pib.local import under
from pib.objective import Verdict
from pib.reinforcement.weights import Weights
from pib.rule import rectified
from pib.unit import DigitalLayerUnit, Record, he_layer
from twin.errors import ConfigError
from twin.key import Key


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What one update saw: temporal-difference loss, PIB (None without it)."""

    temporal: float
    information: Verdict | None = None


class LocalLearner:
    """A unit with fixed physics, its linear Q-head and slow copies of both.

    weights: the unit's own weight and bias and "head.weight" (width, actions),
    "head.bias".
    """

    def __init__(self, unit: DigitalLayerUnit, actions: int, *, key: Key) -> None:
        if not isinstance(unit, DigitalLayerUnit):
            raise ConfigError(
                f"{unit.name}: a reinforced unit needs fixed physics and a digital layer: frames "
                "are remembered, and a frame of a chip whose setting has changed since is of "
                "another chip. Use kind = 'broken-isomorphism'."
            )
        self.unit = unit
        head = he_layer(unit.width, actions, key)
        # Half the gain of a layer that is rectified: values begin small.
        heads = {"head.weight": head["weight"].mul_(0.5**0.5), "head.bias": head["bias"]}
        self.weights = Weights(unit.name, unit.parameters | heads)

    def target_features(self, record: Record) -> Tensor:
        """(n, width) by the slow copy of the layer."""
        layer = self.weights.targets
        seen = self.unit.standardised(record)
        return rectified(torch.addmm(layer["bias"], seen, layer["weight"]))

    def values(self, features: Tensor) -> Tensor:
        """Q of every action, (n, actions), by the present head."""
        head = self.weights.parameters
        return torch.addmm(head["head.bias"], features, head["head.weight"])

    def target_values(self, features: Tensor) -> Tensor:
        """Q of every action, (n, actions), by the slow copy of the head."""
        head = self.weights.targets
        return torch.addmm(head["head.bias"], features, head["head.weight"])

    def learn(
        self,
        record: Record,
        pre_activation: Tensor,
        actions: Tensor,
        wanted: Tensor,
        information: Callable[[Tensor], Verdict] | None,
        weight: float,
        rate: float,
    ) -> Lesson:
        """One step down Huber(Q(s, a), wanted) + weight x information(Z).

        record: of the states, measured by this unit, and its pre_activation
        (n, width). actions, wanted: (n,). Uses nothing of any other unit.
        """
        z = rectified(pre_activation)
        chosen = self.values(z).gather(1, actions[:, None]).squeeze(1)
        loss, slope = huber(chosen - wanted)
        head = self.weights.parameters["head.weight"]
        at_values = torch.zeros((len(z), head.shape[1]))
        at_values.scatter_(1, actions[:, None], slope[:, None])
        at_features = at_values @ head.T
        verdict = information(z) if information is not None else None
        if verdict is not None:
            at_features.add_(verdict.gradient, alpha=weight)
        gradients = self.unit.gradients(record, pre_activation, at_features)
        gradients["head.weight"] = z.T @ at_values
        gradients["head.bias"] = at_values.sum(0)
        self.weights.step(gradients, rate)
        return Lesson(temporal=loss, information=verdict)

    def state(self) -> dict[str, Tensor]:
        """Weights, slow copies, moments, and the unit's constants."""
        constants = {f"constant.{n}": t for n, t in self.unit.constants().items()}
        return self.weights.state() | constants

    def load(self, arrays: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave."""
        self.weights.load(arrays)
        self.unit.load_constants(under(arrays, "constant."))


def huber(error: Tensor) -> tuple[float, Tensor]:
    """Mean Huber loss (quadratic within 1) of errors (n,), and its slope (n,)."""
    slope = error.clamp(-1.0, 1.0)
    loss = float((slope * (error - 0.5 * slope)).mean())
    return loss, slope / len(error)
