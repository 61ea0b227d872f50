"""From a configuration, an environment and a seed to an agent in training."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import torch

from pib.reinforcement.agent import Agent, Player
from pib.reinforcement.encoding import StateScale
from pib.reinforcement.playing import evaluate, wandered
from pib.reinforcement.training import Training
from pib.unit import DigitalLayerUnit
from twin.errors import ConfigError
from twin.fence import Fence
from twin.key import Key
from twin.ledger import Ledger
from twin.registry import open_backend
from validation.rl.config import AgentConfig, UnitTable
from validation.rl.environments import Facts, Gymnasium, facts, fixed_scale, several

CALIBRATION_STATES = 1000


@dataclass(frozen=True, kw_only=True)
class Playing:
    """A training and what is around it."""

    training: Training
    facts: Facts
    environment: Gymnasium
    key: Key

    def greedy(self, episodes: int, *name: str | int) -> list[float]:
        """Scores of greedy play over fresh episodes; name: of their seeds."""
        training, key = self.training, self.key.child("evaluate", *name)
        rooms = several(self.environment.name, episodes)
        try:
            return evaluate(training.player, rooms, training.scale, key=key)
        finally:
            for room in rooms:
                room.close()

    def close(self) -> None:
        """Leave devices and environment."""
        if isinstance(self.training.player, Agent):
            self.training.player.close()
        self.environment.close()


def playing(config: AgentConfig, environment: str, seed: int) -> Playing:
    """An agent of `config`, calibrated, at the start of its training."""
    key, room = Key(seed), Gymnasium(environment)
    scale, states = calibration(room, key)
    agent = build_agent(config, scale, room.actions, key)
    agent.calibrate(states, key=key.child("calibrate"))
    return begun(agent, config, room, scale, key)


def begun(
    player: Player, config: AgentConfig, room: Gymnasium, scale: StateScale, key: Key
) -> Playing:
    """Any player at the start of its training."""
    known = facts(room.name)
    plan = config.plan(known.freeze, known.good)
    training = Training(player, room, scale, plan, key.child("train"))
    return Playing(training=training, facts=known, environment=room, key=key)


def calibration(room: Gymnasium, key: Key) -> tuple[StateScale, torch.Tensor]:
    """The scale of the states, and 1000 scaled states to standardise readings on.

    With a stated scale, uniform in its box (a random player of CartPole stays
    near the middle); else those that a random player comes by.
    """
    scale = fixed_scale(room.name)
    here = key.child("calibration")
    if scale is not None:
        draw = torch.rand((CALIBRATION_STATES, room.state_size), generator=here.torch())
        return scale, 2 * draw - 1
    states = wandered(room, CALIBRATION_STATES, key=here)
    scale = StateScale.of(states)
    return scale, scale(states)


def build_agent(config: AgentConfig, scale: StateScale, actions: int, key: Key) -> Agent:
    """Units as configured, each with its own device, and one ledger for all."""
    ledger, run_id = Ledger(), uuid.uuid4().hex
    units: list[DigitalLayerUnit] = []
    for index, table in enumerate(config.unit):
        inputs = {"inputs": units[-1].width} if units else {}
        units.append(_unit(table, index, inputs, key, ledger, run_id))
    return Agent(units, scale, actions, key=key.child("agent"), recipe=config.recipe())


def _unit(
    table: UnitTable,
    index: int,
    inputs: dict[str, int],
    key: Key,
    ledger: Ledger,
    run_id: str,
) -> DigitalLayerUnit:
    try:
        device = open_backend(
            table.backend, key=key.child("device", index), **(inputs | table.options)
        )
    except ConfigError as error:
        raise ConfigError(f"unit.{index} ({table.backend}): {error}") from None
    if device.capabilities.programmable:
        raise ConfigError(
            f"unit.{index} ({table.backend}): its setting is a matrix that learning would change, "
            "and remembered frames would then be of another chip. Give a backend with fixed "
            "physics, such as optics."
        )
    fence = Fence(device, name=f"unit {index + 1}", ledger=ledger, run_id=f"{run_id}-{index}")
    return DigitalLayerUnit(fence, outputs=table.outputs, key=key.child("weights", index))
