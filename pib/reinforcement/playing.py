"""Play without learning: greedy episodes, random walks, seeds of episodes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pib.reinforcement.agent import Player
from pib.reinforcement.encoding import StateScale
from pib.reinforcement.environment import Environment
from twin.key import Key


def evaluate(
    player: Player, environments: Sequence[Environment], scale: StateScale, *, key: Key
) -> list[float]:
    """Scores of greedy play, one episode per environment, all side by side.

    Side by side is only faster: one call to a device then serves all of them.
    """
    seeds = [seed_of(key.child("episode", number)) for number in range(len(environments))]
    states = [e.reset(seed) for e, seed in zip(environments, seeds, strict=True)]
    scores, playing, moment = [0.0] * len(environments), list(range(len(environments))), 0
    while playing:
        here = key.child("moment", moment)
        scaled = scale(torch.stack([states[i] for i in playing]))
        frames = player.look(scaled, key=here, phase="evaluate")
        actions = player.values(frames, key=here, phase="evaluate").argmax(1).tolist()
        led = {i: environments[i].step(a) for i, a in zip(playing, actions, strict=True)}
        for i, step in led.items():
            states[i], scores[i] = step.state, scores[i] + step.reward
        playing = [i for i, step in led.items() if not (step.terminated or step.truncated)]
        moment += 1
    return scores


def wandered(environment: Environment, count: int, *, key: Key) -> Tensor:
    """`count` states (count, state_size) on the way of a player that acts at random."""
    states: list[Tensor] = []
    episode = 0
    draw = torch.randint(environment.actions, (count,), generator=key.child("actions").torch())
    while len(states) < count:
        state, over = environment.reset(seed_of(key.child("episode", episode))), False
        states.append(state)
        while not over and len(states) < count:
            led = environment.step(int(draw[len(states)]))
            over = led.terminated or led.truncated
            states.append(led.state)
        episode += 1
    return torch.stack(states)


def seed_of(key: Key) -> int:
    """A seed for an environment, below 2^31."""
    return key.entropy() % 2**31
