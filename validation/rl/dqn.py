"""The digital rival: a deep Q-network by backpropagation, no physics anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from pib.reinforcement.learner import Lesson
from pib.reinforcement.replay import Batch
from pib.reinforcement.weights import Weights
from pib.unit import he_layer
from twin.key import Key


class DigitalAgent:
    """An MLP with two hidden layers that remembers states instead of frames.

    Memory, schedule, double-DQN target, Huber loss, clipping and slow copies are
    those of the physical agent; only the network and its gradient differ.
    """

    def __init__(
        self, state_size: int, actions: int, *, key: Key, hidden: int = 64, follow: float = 0.01
    ) -> None:
        self.frame_size, self._follow = state_size, follow
        sizes = [state_size, hidden, hidden, actions]
        layers: dict[str, Tensor] = {}
        for index, (inputs, outputs) in enumerate(pairwise(sizes)):
            layer = he_layer(inputs, outputs, key.child("layer", index))
            layers |= {f"{index}.{name}": tensor for name, tensor in layer.items()}
        self.weights = Weights("digital agent", layers)

    def look(self, states: Tensor, *, key: Key, phase: str = "act") -> Tensor:  # noqa: ARG002
        """The scaled states themselves."""
        return states

    def values(self, frames: Tensor, *, key: Key, phase: str = "act") -> Tensor:  # noqa: ARG002
        """Q of every action, (n, actions)."""
        with torch.no_grad():
            return _values(self.weights.parameters, frames)

    def learn(self, batch: Batch, *, rate: float, key: Key) -> list[Lesson]:  # noqa: ARG002
        """One step of Adam on the Huber loss."""
        with torch.no_grad():
            best = _values(self.weights.parameters, batch.next_frames).argmax(1, keepdim=True)
            future = _values(self.weights.targets, batch.next_frames).gather(1, best).squeeze(1)
            wanted = (batch.returns + batch.discounts * future).clamp(batch.least, batch.most)
        leaves = {n: p.detach().requires_grad_() for n, p in self.weights.parameters.items()}
        with torch.enable_grad():
            chosen = _values(leaves, batch.frames).gather(1, batch.actions[:, None]).squeeze(1)
            loss = functional.huber_loss(chosen, wanted)
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        with torch.no_grad():
            self.weights.step(dict(zip(leaves, gradients, strict=True)), rate)
            self.weights.follow(self._follow)
        return [Lesson(temporal=float(loss.detach()))]

    def state(self) -> dict[str, Tensor]:
        """Weights, slow copies and the optimiser's moments."""
        return self.weights.state()

    def load(self, arrays: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave."""
        self.weights.load(arrays)


def _values(layers: Mapping[str, Tensor], states: Tensor) -> Tensor:
    x = states
    depth = len(layers) // 2
    for index in range(depth):
        x = torch.addmm(layers[f"{index}.bias"], x, layers[f"{index}.weight"])
        x = x.clamp_min(0.0) if index < depth - 1 else x
    return x
