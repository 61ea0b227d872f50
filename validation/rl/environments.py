"""gymnasium's environments with discrete actions, behind the agent's protocol.

gymnasium is imported when an environment is opened, not before.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pib.reinforcement.encoding import StateScale
from pib.reinforcement.environment import Step
from twin.errors import ConfigError, UnknownName


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of an environment.

    half_width: of each state variable, about 0; the state is divided by it.
    good: the score that counts as solved over 100 episodes. freeze: the mean of
    ten from which the weights are left alone. fair: a score on the way.
    """

    half_width: tuple[float, ...] | None = None
    good: float | None = None
    freeze: float | None = None
    fair: float | None = None


KNOWN = {
    # Half the track, 3 m/s, the angle at which an episode ends, 3 rad/s.
    "CartPole-v1": Facts(half_width=(2.4, 3.0, 0.2095, 3.0), good=475.0, freeze=490.0, fair=195.0),
    # Cosines and sines, then a third of the environment's limits of 4 pi and 9 pi rad/s.
    "Acrobot-v1": Facts(half_width=(1, 1, 1, 1, 4.2, 9.4), good=-100.0, freeze=None, fair=-200.0),
}
"""Scales of our own choice; thresholds are gymnasium's where it has any."""


class Gymnasium:
    """One gymnasium environment; a fixed seed and actions give one episode."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._made = _opened(name)
        spaces = _spaces()
        actions, states = self._made.action_space, self._made.observation_space
        if not isinstance(actions, spaces.Discrete):
            raise ConfigError(
                f"environment {name!r}: actions are {actions}, but an agent chooses one of a few. "
                "Give an environment with discrete actions, such as CartPole-v1."
            )
        if not isinstance(states, spaces.Box) or len(states.shape) != 1:
            raise ConfigError(
                f"environment {name!r}: states are {states}, expected a vector of numbers, "
                "such as those of CartPole-v1."
            )
        self.actions, self.state_size = int(actions.n), int(states.shape[0])
        self._first = int(actions.start)

    def reset(self, seed: int) -> Tensor:
        """Begin the episode of that seed."""
        return _state(self._made.reset(seed=seed)[0])

    def step(self, action: int) -> Step:
        """One action, 0 .. actions - 1."""
        state, reward, terminated, truncated, _ = self._made.step(action + self._first)
        return Step(_state(state), float(reward), bool(terminated), bool(truncated))

    def close(self) -> None:
        """Let go of the environment."""
        self._made.close()


def facts(name: str) -> Facts:
    """What is known of an environment; gymnasium's threshold for others, if any."""
    if name in KNOWN:
        return KNOWN[name]
    threshold = getattr(_registered(name), "reward_threshold", None)
    return Facts(good=None if threshold is None else float(threshold))


def fixed_scale(name: str) -> StateScale | None:
    """The stated scale of a known environment, None for others."""
    known = KNOWN.get(name, Facts()).half_width
    if known is None:
        return None
    return StateScale(torch.zeros(len(known)), torch.tensor(known, dtype=torch.float32))


def several(name: str, count: int) -> Sequence[Gymnasium]:
    """As many environments of that name."""
    return [Gymnasium(name) for _ in range(count)]


def _state(values: Any) -> Tensor:
    state = torch.from_numpy(np.array(values, np.float32))
    if not bool(torch.isfinite(state).all()):
        raise ConfigError("the environment's state holds a NaN or infinite value.")
    return state


def _gymnasium() -> Any:
    try:
        return importlib.import_module("gymnasium")
    except ImportError as error:
        raise ConfigError(
            f"reinforcement learning needs gymnasium ({error}). "
            "Install it with: pip install 'pib-twin[reinforcement]'."
        ) from None


def _spaces() -> Any:
    return _gymnasium().spaces


def _registered(name: str) -> Any:
    gymnasium = _gymnasium()
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:
        known = ", ".join(KNOWN)
        raise UnknownName(f"environment {name!r}: {error} Tried here: {known}.") from None


def _opened(name: str) -> Any:
    gymnasium = _gymnasium()
    spec = _registered(name)
    try:
        return gymnasium.make(spec, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError) as error:
        raise ConfigError(f"environment {name!r} cannot be made: {error}") from None
