"""What an agent needs of an environment, and nothing more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """What an action led to.

    state: (state_size,), float32, in the environment's units. terminated: the
    state has no future. truncated: the episode was cut, its future goes on.
    """

    state: Tensor
    reward: float
    terminated: bool
    truncated: bool


class Environment(Protocol):
    """Discrete actions 0 .. actions - 1; the same seed and actions, the same episode."""

    state_size: int
    actions: int

    def reset(self, seed: int) -> Tensor: ...

    def step(self, action: int) -> Step: ...
