"""One arm of the comparison on CartPole: a run by name, for a process of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from twin.config import build
from twin.errors import UnknownName, nearest
from twin.key import Key
from validation.rl.build import Playing, begun, calibration, playing
from validation.rl.config import AgentConfig, load_agent
from validation.rl.dqn import DigitalAgent
from validation.rl.environments import Gymnasium
from validation.rl.outcome import dataset

ARMS = {"pib": "TD + λ PIB, optical", "td": "TD alone, optical", "dqn": "digital DQN"}
FRESH_EPISODES = 20


def played(
    arm: str,
    seed: int,
    environment: str = "CartPole-v1",
    preset: str | Mapping[str, Any] = "cartpole-optics",
    steps: int | None = None,
    electrons: float | None = None,
    fresh: int = FRESH_EPISODES,
) -> xr.Dataset:
    """Train one arm, evaluate it greedily; episodes and scores as a data set.

    arm: "pib" (the preset's lambda), "td" (lambda 0; same devices, first
    weights, encodings and episodes' seeds), "dqn" (an MLP of 64 and 64). steps:
    cap, the preset's if absent. electrons: mean photoelectrons of a pixel, with
    Poisson photons.
    """
    if arm not in ARMS:
        raise UnknownName(f"no arm is called {arm!r}. {nearest(arm, ARMS)}")
    config = configured(preset, arm, steps, electrons)
    wall, processor = time.monotonic(), time.process_time()
    play = _digital(config, environment, seed) if arm == "dqn" else playing(
        config, environment, seed
    )  # fmt: skip
    try:
        play.training.run()
        trained = {
            "wall_seconds": time.monotonic() - wall,
            "cpu_seconds": time.process_time() - processor,
        }
        greedy: Sequence[float] = play.greedy(fresh)
        return dataset(
            play.training, greedy, arm=arm, seed=seed, environment=environment,
            information_weight=config.loss.information_weight, **trained,
        )  # fmt: skip
    finally:
        play.close()


def configured(
    preset: str | Mapping[str, Any],
    arm: str,
    steps: int | None = None,
    electrons: float | None = None,
) -> AgentConfig:
    """The preset, or its content, as an arm has it: lambda is 0 in all but "pib"."""
    if isinstance(preset, str):
        config = load_agent(preset)
    else:
        config = build(AgentConfig, dict(preset), "agent")
    if arm != "pib":
        config = config.changed(loss={"information_weight": 0.0})
    if steps is not None:
        config = config.changed(schedule={"steps": steps})
    if electrons is None:
        return config
    light: dict[str, Any] = {"mean_electrons": electrons, "shot_noise": "poisson"}
    units = [u.model_copy(update={"options": u.options | light}) for u in config.unit]
    return config.model_copy(update={"unit": tuple(units)})


def _digital(config: AgentConfig, environment: str, seed: int) -> Playing:
    key, room = Key(seed), Gymnasium(environment)
    scale, _ = calibration(room, key)
    follow = config.loss.follow
    agent = DigitalAgent(room.state_size, room.actions, key=key.child("digital"), follow=follow)
    return begun(agent, config, room, scale, key)
