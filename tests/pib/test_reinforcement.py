"""Reinforcement learning: what is remembered, what is learnt from, what is never asked for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pib.reinforcement.agent import Agent, Recipe
from pib.reinforcement.bottleneck import Bottleneck, Relevance
from pib.reinforcement.checkpoint import load_training, save_training
from pib.reinforcement.encoding import PhaseEncoding, StateScale, relative
from pib.reinforcement.environment import Step
from pib.reinforcement.learner import LocalLearner, huber
from pib.reinforcement.playing import evaluate, wandered
from pib.reinforcement.replay import Batch, Replay
from pib.reinforcement.training import Schedule, Training
from pib.unit import DigitalLayerUnit, IsomorphicUnit, Record
from tests.backends import MACHINERIES, Machinery, Made, Physics, physics
from twin.errors import CheckpointError, ConfigError
from twin.fence import Fence
from twin.key import Key
from twin.ledger import Ledger
from twin.registry import open_backend

SEVERAL = settings(max_examples=5, deadline=None)
seeds = st.integers(0, 2**32)


class Corridor:
    """Walk to the right end: 0 is left, 1 is right; -1 per step, cut after `patience`.

    The state is (place, whether it is the start); the seed sets the first place.
    """

    state_size, actions = 2, 2

    def __init__(self, length: int = 6, patience: int = 15) -> None:
        self.length, self.patience = length, patience

    def reset(self, seed: int) -> Tensor:
        self.place, self.steps = seed % 3, 0
        return self._state()

    def step(self, action: int) -> Step:
        self.place = max(0, self.place + (1 if action else -1))
        self.steps += 1
        there = self.place == self.length
        return Step(self._state(), -1.0, there, not there and self.steps == self.patience)

    def _state(self) -> Tensor:
        return torch.tensor([self.place / self.length, float(self.steps == 0)])


SCALE = StateScale(torch.zeros(2), torch.ones(2))
FAST = Schedule(
    steps=48, batch=6, warm_up=16, replay=200, rate=0.01, rate_end=0.01, epsilon_steps=40,
    update_every=1,
)  # fmt: skip


def laws(law: Physics) -> list[Physics]:
    """Fixed physics, and a second unit behind it, driven by its 5 features."""
    first = replace(law, programmable=False)
    return [first, replace(first, inputs=5, seed=law.seed + 1)]


def agent_of(backends: list[Any], seed: int, **recipe: Any) -> Agent:
    ledger = Ledger()
    units = [
        DigitalLayerUnit(
            Fence(backend, name=f"unit {i + 1}", ledger=ledger, run_id="r"), outputs=5,
            key=Key(seed).child("weights", i),
        )
        for i, backend in enumerate(backends)
    ]  # fmt: skip
    agent = Agent(units, SCALE, Corridor.actions, key=Key(seed).child("agent"),
                  recipe=Recipe(**recipe))  # fmt: skip
    agent.calibrate(torch.rand((12, 2), generator=Key(seed).torch()), key=Key(seed).child("range"))
    return agent


def made(law: Physics, machinery: Machinery = "numpy") -> list[Any]:
    return [Made(each, machinery) for each in laws(law)]


def training_of(agent: Agent, seed: int, schedule: Schedule = FAST) -> Training:
    return Training(agent, Corridor(), SCALE, schedule, Key(seed).child("train"))


def trained(backends: list[Any], seed: int, **recipe: Any) -> list[dict[str, Tensor]]:
    """Everything the agent is made of, after every episode of a short training."""
    training = training_of(agent_of(backends, seed, **recipe), seed)
    states: list[dict[str, Tensor]] = []
    training.run(lambda t: states.append(t.player.state()))
    assert training.updates > 20
    return states


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


PLAIN = Physics(
    inputs=4, outputs=6, curve="tanh", gain=1.0, disturb=0.0, noise=0.0, seed=5, programmable=False
)  # fmt: skip


# ---- no gradient of a backend ----------------------------------------------


@SEVERAL
@given(law=physics(), seed=seeds, relevance=st.sampled_from(list(Relevance)))
def test_the_same_numbers_teach_an_agent_the_same_whatever_made_them(
    law: Physics, seed: int, relevance: Relevance
) -> None:
    told = {"information_weight": 0.1, "bottleneck": Bottleneck(relevance=relevance)}
    plain = trained(made(law), seed, **told)
    for machinery in MACHINERIES[1:]:
        backends = made(law, machinery)
        other = trained(backends, seed, **told)
        assert all(equal(a, b) for a, b in zip(plain, other, strict=True)), machinery
        assert not any(tensor.requires_grad for state in other for tensor in state.values())
        assert not any(mode for backend in backends for mode in backend.grad_modes)


def a_batch(agent: Agent, n: int = 8) -> Batch:
    draw = Key(3).torch()
    states = torch.rand((2 * n, 2), generator=draw)
    frames = agent.look(states, key=Key(4))
    return Batch(
        frames=frames[:n], next_frames=frames[n:], states=states[:n],
        actions=torch.arange(n) % 2, returns=torch.rand(n, generator=draw),
        discounts=torch.full((n,), 0.9), least=-10.0, most=10.0,
    )  # fmt: skip


class TrueGradient(DigitalLayerUnit):
    """A cheat: also learns the gradient that its own error has at the drive."""

    def gradients(
        self, record: Record, pre_activation: Tensor, gradient: Tensor
    ) -> dict[str, Tensor]:
        found = super().gradients(record, pre_activation, gradient)
        device = self.fence._backend  # type: ignore[attr-defined]
        with torch.enable_grad():
            drive = record.drive.clone().requires_grad_(True)
            try:
                codes = device.forward(drive, key=Key(0)).codes
                (true,) = torch.autograd.grad(codes.sum(), drive)
            except RuntimeError:
                return found
        found["weight"] = found["weight"] + 1e-3 * true.sum()
        return found


def test_a_cheat_that_asks_the_device_is_caught_by_same_numbers_same_learning() -> None:
    def cheated(machinery: Machinery) -> dict[str, Tensor]:
        agent = agent_of(made(PLAIN, machinery), 1)
        agent.learners[1].unit.__class__ = TrueGradient
        agent.learn(a_batch(agent), rate=0.01, key=Key(5))
        return agent.state()

    assert not equal(cheated("numpy"), cheated("graph"))


def test_unit_one_learns_the_same_whatever_the_loss_of_unit_two_is() -> None:
    """d loss 2 / d weights of unit 1 is absent: with the same target y, another
    head, layer and information in unit 2 leave unit 1's update bit for bit."""

    def first_after(change: Callable[[Agent], None]) -> dict[str, Tensor]:
        agent = agent_of(made(PLAIN), 1, information_weight=0.3)
        batch = replace(a_batch(agent), discounts=torch.zeros(8))  # y is the return alone
        before = agent.learners[1].weights.parameters["weight"].clone()
        change(agent)
        agent.learn(batch, rate=0.01, key=Key(5))
        assert not torch.equal(before, agent.learners[1].weights.parameters["weight"])
        return agent.learners[0].state()

    def other_unit_two(agent: Agent) -> None:
        for parameter in agent.learners[1].weights.parameters.values():
            parameter.mul_(-0.7).add_(0.3)

    def same_bottleneck(agent: Agent) -> None:
        object.__setattr__(agent.recipe.bottleneck, "relevance", Relevance.NEXT)

    def both(agent: Agent) -> None:
        same_bottleneck(agent)
        other_unit_two(agent)

    assert equal(first_after(same_bottleneck), first_after(both))


def test_frames_of_the_first_unit_are_never_measured_again() -> None:
    agent = agent_of(made(PLAIN), 2)
    training = training_of(agent, 2)
    training.run()
    cut = sum(row["score"] == -Corridor().patience for row in training.episodes)
    own = agent.ledger.total("unit 1")
    assert agent.ledger.total("unit 1", "learn").passes == 0
    # One frame per step, one for each state in which an episode was cut.
    assert agent.ledger.total("unit 1", "act").passes in (FAST.steps + cut, FAST.steps + cut + 1)
    assert own.passes > 0
    # The states and the ends by the present units, the ends by the slow copies.
    assert agent.ledger.total("unit 2", "learn").passes == 3 * FAST.batch * training.updates


# ---- the local loss ----------------------------------------------------------


def numeric(loss: Callable[[], float], parameter: Tensor, step: float) -> Tensor:
    found = torch.zeros_like(parameter)
    flat, out = parameter.view(-1), found.view(-1)
    for i in range(flat.numel()):
        kept, ends = float(flat[i]), []
        for sign in (1, -1):
            flat[i] = kept + sign * step
            ends.append(loss())
        flat[i] = kept
        out[i] = (ends[0] - ends[1]) / (2 * step)
    return found


@settings(max_examples=6, deadline=None)
@given(seed=seeds, weight=st.sampled_from([0.0, 0.5]))
def test_a_unit_descends_its_own_loss_of_td_and_pib(seed: int, weight: float) -> None:
    agent = agent_of(made(PLAIN), seed)
    learner, draw = agent.learners[0], Key(seed).child("d").torch()
    unit, n = learner.unit, 12
    double = {name: p.double() for name, p in unit.parameters.items()}
    double |= {n: learner.weights.parameters[n].double() for n in ("head.weight", "head.bias")}
    values = torch.randn((n, 6), generator=draw).double()
    actions = torch.arange(n) % 2
    wanted = torch.randn(n, generator=draw).double() * 2
    bottleneck = Bottleneck(relevance=Relevance.ADV)
    relevant = bottleneck.by_action(torch.randn((n, 2), generator=draw).double())
    inputs = bottleneck.gram(torch.randn((n, 2), generator=draw).double())

    unit.parameters = {"weight": double["weight"], "bias": double["bias"]}
    learner.weights.parameters = double
    unit.load_constants({"mean": torch.zeros(6).double(), "scale": torch.ones(6).double()})
    record = Record(drive=values, values=values)
    taken: dict[str, Tensor] = {}
    learner.weights.step = lambda g, rate: taken.update(g)  # type: ignore[method-assign]

    def loss() -> float:
        z = unit.pre_activation(record).clamp_min(0)
        chosen = (z @ double["head.weight"] + double["head.bias"])[torch.arange(n), actions]
        return huber(chosen - wanted)[0] + weight * bottleneck.verdict(z, relevant, inputs).loss

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        pre = unit.pre_activation(record)
        learner.learn(
            record, pre, actions, wanted, lambda z: bottleneck.verdict(z, relevant, inputs), weight,
            0.0,
        )  # fmt: skip
    finally:
        torch.set_default_dtype(before)
    for name in double:
        expected = numeric(loss, double[name], 1e-6)
        torch.testing.assert_close(taken[name], expected, atol=2e-5, rtol=2e-3)


def test_the_slow_copies_move_by_their_share_of_the_distance() -> None:
    agent = agent_of(made(PLAIN), 1)
    learner: LocalLearner = agent.learners[0]
    learner.weights.parameters["head.bias"].add_(1.0)
    for _ in range(3):
        learner.weights.follow(0.1)
    torch.testing.assert_close(learner.weights.targets["head.bias"], torch.full((2,), 1 - 0.9**3))


def test_isomorphic_units_are_refused_with_the_reason() -> None:
    law = replace(PLAIN, programmable=True)
    unit = IsomorphicUnit(Fence(Made(law, "numpy"), name="chip"), key=Key(0))
    with pytest.raises(ConfigError, match="fixed physics"):
        Agent([unit], SCALE, 2, key=Key(0))  # type: ignore[list-item]


def test_units_that_do_not_fit_each_other_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"unit 2: takes a drive of shape \(4,\)"):
        agent_of([Made(PLAIN, "numpy"), Made(PLAIN, "numpy")], 1)


def test_units_with_ledgers_of_their_own_are_refused() -> None:
    units = [
        DigitalLayerUnit(Fence(device, name=f"unit {i}"), outputs=5, key=Key(i))
        for i, device in enumerate(made(PLAIN))
    ]
    with pytest.raises(ConfigError, match="unit 1: another ledger than unit 0's"):
        Agent(units, SCALE, 2, key=Key(0))


@pytest.mark.parametrize(
    ("relevance", "alpha", "weight", "passes", "cubes"),
    [
        (Relevance.ADV, 2.0, 0.1, 4, 0),
        (Relevance.TQ, 2.0, 0.1, 5, 0),
        (Relevance.TQ, 2.0, 0.0, 4, 0),
        (Relevance.NEXT, 1.01, 0.1, 4, 3),
    ],
)
def test_digital_work_is_passes_of_layers_and_heads_kernels_and_spectra(
    relevance: Relevance, alpha: float, weight: float, passes: int, cubes: int
) -> None:
    bottleneck = Bottleneck(relevance=relevance, alpha=alpha)
    agent = agent_of(made(PLAIN), 1, information_weight=weight, bottleneck=bottleneck)
    batch, layer = a_batch(agent), 6 * 5 + 5 + 5 * 2 + 2
    agent.learn(batch, rate=0.01, key=Key(5))
    agent.values(batch.frames[:3], key=Key(6), phase="act")
    kernel = 2 * 8 * 8 * 5 if weight else 0
    for unit in ("unit 1", "unit 2"):
        learnt, acted = (agent.ledger.total(unit, p).digital_operations for p in ("learn", "act"))
        assert learnt == passes * 8 * layer + kernel + cubes * 8**3
        assert acted == 3 * layer


# ---- memory ------------------------------------------------------------------


def remembered(
    rewards: list[float], cut: bool, gamma: float = 0.5, n_step: int = 3
) -> dict[int, tuple[float, float, int]]:
    """By step of one episode: return, discount, step whose frame is the end."""
    replay = Replay(50, 1, 1, gamma=gamma, n_step=n_step)
    for t, reward in enumerate(rewards):
        replay.add(torch.tensor([float(t)]), torch.tensor([float(t)]), 0, reward)
    end = torch.tensor([float(len(rewards))])
    replay.end(*((end, end) if cut else ()))
    batch = replay.draw(400, Key(1))
    return {
        int(batch.frames[i]): (
            float(batch.returns[i]), float(batch.discounts[i]), int(batch.next_frames[i])
        )
        for i in range(400)
    }  # fmt: skip


@given(
    rewards=st.lists(st.sampled_from([-1.0, 0.0, 2.0]), min_size=1, max_size=9),
    n_step=st.integers(1, 4),
    cut=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_returns_are_those_of_n_steps_and_only_a_cut_episode_has_a_future(
    rewards: list[float], n_step: int, cut: bool
) -> None:
    found = remembered(rewards, cut, n_step=n_step)
    assert set(found) == set(range(len(rewards)))
    for t, (value, discount, end) in found.items():
        ahead = rewards[t : t + n_step]
        assert value == pytest.approx(sum(r * 0.5**k for k, r in enumerate(ahead)))
        goes_on = t + n_step < len(rewards) or cut
        assert discount == (0.5 ** len(ahead) if goes_on else 0.0)
        # A terminal state has no frame: the last one before it stands there.
        assert end == (t + len(ahead) if goes_on else len(rewards) - 1)


@given(episodes=st.lists(st.integers(1, 7), min_size=1, max_size=12), seed=seeds)
@settings(max_examples=30, deadline=None)
def test_a_full_memory_never_mixes_old_states_with_new_ends(episodes: list[int], seed: int) -> None:
    replay = Replay(12, 1, 1, gamma=0.9, n_step=3)
    clock = itertools.count()
    ends: dict[int, int] = {}
    for number, length in enumerate(episodes):
        first = next(clock)
        for t in range(length):
            now = torch.tensor([float(first + t)])
            replay.add(now, now, 0, 1.0)
            ends[first + t] = min(t + 3, length) + first
        if number % 2:
            replay.end()
            last = first + length - 1
            ends |= {first + t: last for t in range(length) if t + 3 >= length}
        else:
            replay.end(torch.tensor([float(first + length)]), torch.tensor([0.0]))
        for _ in range(length):
            next(clock)
    batch = replay.draw(100, Key(seed))
    for frame, end in zip(batch.frames.tolist(), batch.next_frames.tolist(), strict=True):
        assert end[0] == ends[int(frame[0])]


# ---- encodings ---------------------------------------------------------------


@given(seed=seeds, size=st.integers(1, 6), other=seeds)
@settings(max_examples=25, deadline=None)
def test_the_encoding_tells_every_two_states_apart(seed: int, size: int, other: int) -> None:
    """Inside the scale, by more than the levels of an 8-bit modulator if they
    differ by a tenth of it."""
    encode = PhaseEncoding(size, 64, key=Key(seed))
    draw = Key(other).torch()
    state = torch.rand((1, size), generator=draw) * 1.8 - 0.9
    towards = torch.randn((1, size), generator=draw)
    moved = state + 0.1 * towards / towards.abs().max()
    a, b = encode(state), encode(moved)
    assert bool(((a > 0) & (a < 1)).all())
    assert float((a - b).abs().max()) > 1 / 255


def test_a_later_unit_is_driven_within_its_range_whatever_the_scale() -> None:
    z = torch.rand((5, 8), generator=Key(1).torch()) * 3
    torch.testing.assert_close(relative(z), relative(40 * z))
    assert float(relative(z).max()) < 1 and float(relative(torch.zeros(2, 3)).max()) == 0


# ---- playing -----------------------------------------------------------------


@settings(max_examples=3, deadline=None)
@given(seed=seeds, stop=st.integers(1, 3))
def test_a_resumed_training_is_bit_for_bit_the_one_that_was_not_stopped(
    tmp_path_factory: pytest.TempPathFactory, seed: int, stop: int
) -> None:
    folder = tmp_path_factory.mktemp("run")

    def fresh() -> Training:
        devices = [
            open_backend(
                "optics", key=Key(seed).child("device", i), inputs=n, pixels=12, drift="slow"
            )
            for i, n in enumerate((6, 5))
        ]  # fmt: skip
        return training_of(agent_of(devices, seed), seed)

    whole, first = fresh(), fresh()
    whole.run()
    for _ in range(stop):
        first.episode()
    save_training(folder, first, {"seconds": "3"})
    again = fresh()
    threads = str(torch.get_num_threads())
    assert load_training(folder, again) == {"seconds": "3", "threads": threads}
    again.run()
    assert (again.step, again.updates) == (whole.step, whole.updates)
    assert str(again.episodes) == str(whole.episodes)
    assert equal(again.state()[0], whole.state()[0])
    assert again.player.ledger.rows() == whole.player.ledger.rows()  # type: ignore[attr-defined]


def test_a_checkpoint_of_another_agent_is_refused(tmp_path: Path) -> None:
    save_training(tmp_path, training_of(agent_of(made(PLAIN), 1), 1), {})
    other = replace(PLAIN, outputs=5)
    with pytest.raises(CheckpointError, match="another agent"):
        load_training(tmp_path, training_of(agent_of(made(other), 1), 1))


def test_a_training_scales_states_as_its_agent_was_made_for(tmp_path: Path) -> None:
    other = StateScale(torch.full((2,), 0.1), torch.full((2,), 2.0))
    agent = agent_of(made(PLAIN), 1)
    with pytest.raises(ConfigError, match="another state scale"):
        Training(agent, Corridor(), other, FAST, Key(1))
    saved = training_of(agent, 1)
    agent.scale = saved.scale = other
    save_training(tmp_path, saved, {})
    again = training_of(agent_of(made(PLAIN), 1), 1)
    load_training(tmp_path, again)
    for found in (again.scale, again.player.scale):  # type: ignore[attr-defined]
        assert torch.equal(found.centre, other.centre) and torch.equal(found.width, other.width)


@contextmanager
def counting(training: Training) -> Iterator[list[int]]:
    updates: list[int] = []
    learn = training.player.learn

    def counted(*given: Any, **named: Any) -> Any:
        updates.append(len(training.episodes))
        return learn(*given, **named)

    training.player.learn = counted  # type: ignore[method-assign]
    yield updates


def test_nothing_is_learnt_or_tried_while_the_score_is_good_enough() -> None:
    schedule = replace(FAST, steps=300, freeze_at=-100.0, epsilon_end=1.0)
    training = training_of(agent_of(made(PLAIN), 1), 1, schedule)
    with counting(training) as updates:
        training.run()
    # Frozen after the tenth episode, since every score is above -100.
    assert updates and max(updates) < 10 < len(training.episodes)
    assert {row["frozen"] for row in training.episodes[10:]} == {1.0}
    # No random action either: the same start gives the same score.
    scores = {row["score"] for row in training.episodes[10:]}
    assert len(scores) <= 3


def test_training_ends_once_a_hundred_episodes_are_good_enough() -> None:
    schedule = replace(FAST, steps=5000, solved_at=-100.0, freeze_at=-100.0)
    training = training_of(agent_of(made(PLAIN), 1), 1, schedule)
    training.run()
    assert training.solved and len(training.episodes) == 100


def test_an_agent_learns_to_walk_down_a_corridor() -> None:
    """Random play takes about 13 steps with a cut at 15, the best 6 minus the start."""
    schedule = replace(FAST, steps=900, epsilon_steps=400, epsilon_end=0.05, batch=32)
    quiet = replace(PLAIN, inputs=8, outputs=24)
    training = training_of(agent_of(made(quiet), 3, follow=0.05), 3, schedule)
    training.run()
    rooms = [Corridor() for _ in range(12)]
    scores = evaluate(training.player, rooms, SCALE, key=Key(9))
    assert min(scores) >= -6
    untrained = agent_of(made(quiet), 3)
    assert sum(evaluate(untrained, rooms, SCALE, key=Key(9))) < sum(scores)


def test_a_random_walk_gives_as_many_states_as_asked() -> None:
    states = wandered(Corridor(), 101, key=Key(1))
    assert states.shape == (101, 2)
    assert torch.equal(states, wandered(Corridor(), 101, key=Key(1)))
    assert not torch.equal(states, wandered(Corridor(), 101, key=Key(2)))
