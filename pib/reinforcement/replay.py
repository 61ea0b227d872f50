"""What an agent remembers: measured frames of the first unit, never re-measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from twin.errors import CheckpointError, ConfigError
from twin.key import Key


@dataclass(frozen=True, kw_only=True)
class Batch:
    """n transitions over up to n_step steps.

    frames, next_frames: (n, pixels), as measured; where an episode was over before
    its n steps, the end is the last state in which something was done. states: (n, state_size),
    scaled. actions: (n,), int64. returns: discounted sum of the rewards on the
    way. discounts: of the value at the end, 0 where there is no future. least,
    most: bounds of any value, from the rewards seen so far.
    """

    frames: Tensor
    next_frames: Tensor
    states: Tensor
    actions: Tensor
    returns: Tensor
    discounts: Tensor
    least: float
    most: float


class Replay:
    """A ring of visited states; a row can be drawn once its n steps are over.

    capacity: states. The state in which an episode was cut has a row too, for
    its value is bootstrapped, but no action: it is never drawn.
    """

    def __init__(
        self, capacity: int, pixels: int, state_size: int, *, gamma: float, n_step: int
    ) -> None:
        if capacity < 2 * (n_step + 1):
            raise ConfigError(f"replay: capacity {capacity} is too small for {n_step} steps.")
        self._capacity, self._gamma, self._n_step = capacity, gamma, n_step
        self._rows = {
            "frames": torch.zeros((capacity, pixels)),
            "states": torch.zeros((capacity, state_size)),
            "actions": torch.zeros(capacity, dtype=torch.int64),
            "returns": torch.zeros(capacity),
            "discounts": torch.zeros(capacity),
            "ends": torch.zeros(capacity, dtype=torch.int64),
            "ready": torch.zeros(capacity, dtype=torch.bool),
        }
        self._written = 0
        self._pending: list[tuple[int, float]] = []
        self._ready: Tensor | None = None
        self._rewards: tuple[float, float] = (0.0, 0.0)

    @property
    def size(self) -> int:
        """States remembered."""
        return min(self._written, self._capacity)

    def add(self, frame: Tensor, state: Tensor, action: int, reward: float) -> None:
        """A state (measured frame and scaled state), the action there, its reward.

        The states of an episode come in order; then :meth:`end`.
        """
        if len(self._pending) == self._n_step:
            self._finish(self._written % self._capacity, bootstrapped=True)
        row = self._write(frame, state)
        self._rows["actions"][row] = action
        self._pending.append((row, reward))
        self._rewards = (min(self._rewards[0], reward), max(self._rewards[1], reward))

    def end(self, frame: Tensor | None = None, state: Tensor | None = None) -> None:
        """The episode is over; `frame` and `state` of where it was cut, if it was."""
        cut = frame is not None and state is not None
        # A terminal state is not measured: the one before it stands for it.
        last = self._pending[-1][0] if self._pending else 0
        if frame is not None and state is not None:
            last = self._write(frame, state)
        while self._pending:
            self._finish(last, bootstrapped=cut)

    def draw(self, n: int, key: Key) -> Batch:
        """n transitions, uniformly and with repetition."""
        if self._ready is None:
            self._ready = self._rows["ready"][: self.size].nonzero().squeeze(1)
        if len(self._ready) == 0:
            raise ConfigError("replay: nothing to draw from yet; raise warm_up.")
        which = torch.randint(len(self._ready), (n,), generator=key.torch())
        rows, kept = self._ready[which], self._rows
        bound = 1.0 / (1.0 - self._gamma)
        return Batch(
            frames=kept["frames"][rows],
            next_frames=kept["frames"][kept["ends"][rows]],
            states=kept["states"][rows],
            actions=kept["actions"][rows],
            returns=kept["returns"][rows],
            discounts=kept["discounts"][rows],
            least=self._rewards[0] * bound,
            most=self._rewards[1] * bound,
        )

    def state(self) -> dict[str, Tensor]:
        """What was written; between episodes only, when nothing is pending."""
        assert not self._pending, "a replay is saved between episodes"
        arrays = {name: rows[: self.size] for name, rows in self._rows.items()}
        return arrays | {
            "written": torch.tensor(self._written),
            "rewards": torch.tensor(self._rewards, dtype=torch.float64),
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave."""
        written = int(state["written"])
        size = min(written, self._capacity)
        for name, rows in self._rows.items():
            if state[name].shape != (size, *rows.shape[1:]):
                raise CheckpointError(
                    f"replay: {name} has shape {tuple(state[name].shape)} in the checkpoint, "
                    f"expected {(size, *rows.shape[1:])}; it is of another agent."
                )
            rows[:size] = state[name]
        self._written, self._pending, self._ready = written, [], None
        low, high = state["rewards"].tolist()
        self._rewards = (low, high)

    def _write(self, frame: Tensor, state: Tensor) -> int:
        row = self._written % self._capacity
        self._rows["frames"][row] = frame
        self._rows["states"][row] = state
        # What this row held is forgotten; it can be drawn when it is finished.
        self._rows["ready"][row] = False
        self._written += 1
        self._ready = None
        return row

    def _finish(self, end: int, *, bootstrapped: bool) -> None:
        """Close the oldest pending row, whose n steps end in row `end`."""
        rewards = [reward for _, reward in self._pending]
        row, _ = self._pending.pop(0)
        kept = self._rows
        kept["returns"][row] = sum(r * self._gamma**k for k, r in enumerate(rewards))
        kept["discounts"][row] = self._gamma ** len(rewards) if bootstrapped else 0.0
        kept["ends"][row] = end
        kept["ready"][row] = True
        self._ready = None
