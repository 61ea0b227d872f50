"""Playing and learning: one episode after another, resumable between episodes.

Every random choice is a function of (key, step), (key, update) or (key,
episode); the environment's own follow from the episode's seed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pib.local import under
from pib.reinforcement.agent import Agent, Player
from pib.reinforcement.encoding import StateScale
from pib.reinforcement.environment import Environment
from pib.reinforcement.learner import Lesson
from pib.reinforcement.playing import seed_of
from pib.reinforcement.replay import Replay
from twin.errors import CheckpointError, ConfigError
from twin.key import Key

FREEZE_EPISODES, SOLVED_EPISODES = 10, 100


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast; steps are steps of the environment.

    rate falls linearly to rate_end over rate_steps (None: over `steps`), the
    share of random actions from 1 to epsilon_end over epsilon_steps. One
    update per update_every steps after warm_up. freeze_at: while the last 10
    episodes score this on average, nothing is learnt and nothing random done.
    solved_at: training ends once the last 100 do. replay: states remembered.
    """

    steps: int = 70_000
    gamma: float = 0.99
    n_step: int = 3
    batch: int = 64
    rate: float = 1e-3
    rate_end: float = 1e-4
    rate_steps: int | None = None
    update_every: int = 2
    warm_up: int = 500
    replay: int = 50_000
    epsilon_end: float = 0.02
    epsilon_steps: int = 2_500
    freeze_at: float | None = None
    solved_at: float | None = None

    def epsilon(self, step: int) -> float:
        """Share of random actions at a step."""
        return 1.0 - (1.0 - self.epsilon_end) * min(1.0, step / self.epsilon_steps)

    def rate_at(self, step: int) -> float:
        """Learning rate at a step."""
        done = min(1.0, step / (self.rate_steps or self.steps))
        return self.rate + (self.rate_end - self.rate) * done


@dataclass
class Training:
    """A player in an environment; :meth:`episode` until :attr:`finished`.

    step, updates: so far. episodes: one row each with score, step (at its
    end), frozen, and means of temporal, i_yz, i_xz over the last unit's
    updates (NaN where there were none).
    """

    player: Player
    environment: Environment
    scale: StateScale
    schedule: Schedule
    key: Key

    def __post_init__(self) -> None:
        plan, size = self.schedule, self.environment.state_size
        if len(self.scale.centre) != size:
            raise ConfigError(
                f"the state scale has {len(self.scale.centre)} entries, the environment's state "
                f"has {size}."
            )
        own = self.player.scale if isinstance(self.player, Agent) else self.scale
        if not (own.centre.equal(self.scale.centre) and own.width.equal(self.scale.width)):
            raise ConfigError(
                "the agent was made for another state scale than the training's; give both the "
                "same one."
            )
        self.replay = Replay(
            plan.replay, self.player.frame_size, size, gamma=plan.gamma, n_step=plan.n_step
        )
        self.step = self.updates = 0
        self.episodes: list[dict[str, float]] = []

    @property
    def finished(self) -> bool:
        """No steps left, or solved."""
        return self.step >= self.schedule.steps or self.solved

    @property
    def solved(self) -> bool:
        """Whether the last 100 episodes score solved_at on average."""
        at = self.schedule.solved_at
        return at is not None and self.mean_score(SOLVED_EPISODES) >= at

    @property
    def frozen(self) -> bool:
        """Whether the last 10 episodes were good enough to leave the weights alone."""
        at = self.schedule.freeze_at
        return at is not None and self.mean_score(FREEZE_EPISODES) >= at

    def mean_score(self, episodes: int) -> float:
        """Of the last so many; minus infinity before there are as many."""
        if len(self.episodes) < episodes:
            return -math.inf
        return sum(row["score"] for row in self.episodes[-episodes:]) / episodes

    def run(self, after_episode: Callable[[Training], None] | None = None) -> None:
        """Play to the end; after_episode may raise to stop between two episodes."""
        while not self.finished:
            self.episode()
            if after_episode is not None:
                after_episode(self)

    def episode(self) -> None:
        """Play one episode, learning on the way; the last one may run out of steps."""
        frozen, number = self.frozen, len(self.episodes)
        state = self.environment.reset(seed_of(self.key.child("episode", number)))
        lessons: list[Lesson] = []
        score, over = 0.0, False
        while not over and self.step < self.schedule.steps:
            here = self.key.child("step", self.step)
            scaled = self.scale(state[None])
            frame = self.player.look(scaled, key=here, phase="act")
            action = self._action(frame, 0.0 if frozen else self.schedule.epsilon(self.step), here)
            led = self.environment.step(action)
            self.replay.add(frame[0], scaled[0], action, led.reward)
            state, score, over = led.state, score + led.reward, led.terminated or led.truncated
            self.step += 1
            if not frozen:
                self._maybe_learn(lessons)
        # A run that ends here must not teach that the state had no future.
        self._end(state, terminated=over and led.terminated)
        self._note(score, frozen, over, lessons)

    def _action(self, frame: Tensor, epsilon: float, key: Key) -> int:
        actions = self.environment.actions
        if epsilon > 0:
            chance = torch.rand(2, generator=key.child("explore").torch()).tolist()
            if chance[0] < epsilon:
                return min(int(chance[1] * actions), actions - 1)
        return int(self.player.values(frame, key=key, phase="act").argmax())

    def _maybe_learn(self, lessons: list[Lesson]) -> None:
        plan = self.schedule
        if self.step < plan.warm_up or self.step % plan.update_every:
            return
        here = self.key.child("update", self.updates)
        batch = self.replay.draw(plan.batch, here.child("draw"))
        rate = plan.rate_at(self.step)
        lessons.append(self.player.learn(batch, rate=rate, key=here.child("read"))[-1])
        self.updates += 1

    def _end(self, state: Tensor, terminated: bool) -> None:
        if terminated:
            self.replay.end()
            return
        scaled = self.scale(state[None])
        key = self.key.child("cut", len(self.episodes))
        self.replay.end(self.player.look(scaled, key=key, phase="act")[0], scaled[0])

    def _note(self, score: float, frozen: bool, whole: bool, lessons: Sequence[Lesson]) -> None:
        """A row; none for an episode that the run's end cut short."""
        if not whole:
            return
        told = [lesson.information for lesson in lessons if lesson.information is not None]
        self.episodes.append(
            {
                "score": score,
                "step": float(self.step),
                "frozen": float(frozen),
                "temporal": _mean([lesson.temporal for lesson in lessons]),
                "i_yz": _mean([v.information_yz or 0.0 for v in told]),
                "i_xz": _mean([v.information_xz or 0.0 for v in told]),
            }
        )

    # -- stop and go on -----------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Everything, between two episodes (an environment's own state cannot be kept)."""
        arrays = {f"player.{n}": t for n, t in self.player.state().items()}
        arrays |= {f"replay.{n}": t for n, t in self.replay.state().items()}
        rows = [{n: None if math.isnan(v) else v for n, v in r.items()} for r in self.episodes]
        text = {"step": self.step, "updates": self.updates, "episodes": rows}
        return arrays, {"training": json.dumps(text)}

    def load(self, arrays: Mapping[str, Tensor], text: Mapping[str, str]) -> None:
        """Put back what :meth:`state` gave; CheckpointError if it is of another run."""
        try:
            told = json.loads(text["training"])
            self.player.load(under(arrays, "player."))
            if isinstance(self.player, Agent):
                self.scale = self.player.scale
            self.replay.load(under(arrays, "replay."))
            self.step, self.updates = int(told["step"]), int(told["updates"])
            self.episodes = [
                {n: math.nan if v is None else float(v) for n, v in row.items()}
                for row in told["episodes"]
            ]
        except KeyError as error:
            raise CheckpointError(f"the checkpoint lacks {error}; it is of another run.") from None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
