"""Agents in gymnasium's environments, from a configuration to a run folder."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from pib.reinforcement.playing import evaluate
from pib.reinforcement.training import Training
from tests.pib.test_reinforcement import SCALE, Corridor
from twin.errors import CheckpointError, ConfigError, UnknownName
from twin.key import Key
from validation.rl.arms import configured, played
from validation.rl.build import playing
from validation.rl.config import AgentConfig, load_agent, presets
from validation.rl.dqn import DigitalAgent
from validation.rl.environments import Gymnasium, facts
from validation.rl.live import HEIGHT, WIDTH, curve
from validation.rl.main import main
from validation.rl.outcome import running_mean, steps_until
from validation.rl.run import Job, run
from validation.summary import read

pytest.importorskip("gymnasium")

SMALL = """
[schedule]
steps = 160
warm_up = 40
batch = 16
replay = 1000
epsilon_steps = 100

[[unit]]
outputs = 10
options = { inputs = 12, pixels = 20, drift = "slow" }

[[unit]]
outputs = 8
options = { pixels = 16, drift = "slow" }
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    """A configuration of two small optical units."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return str(path)


def test_without_gymnasium_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ConfigError, match=r"pib-twin\[reinforcement\]"):
        Gymnasium("CartPole-v1")


def test_continuous_actions_are_refused() -> None:
    with pytest.raises(ConfigError, match="discrete actions"):
        Gymnasium("MountainCarContinuous-v0")


def test_states_that_are_no_vector_are_refused() -> None:
    with pytest.raises(ConfigError, match="a vector of numbers"):
        Gymnasium("CliffWalking-v1")


def test_an_unknown_environment_is_refused_by_name() -> None:
    with pytest.raises(UnknownName, match="CartPool"):
        Gymnasium("CartPool-v1")


def test_the_same_seed_and_actions_give_the_same_episode() -> None:
    first, second = Gymnasium("CartPole-v1"), Gymnasium("CartPole-v1")
    for seed in (3, 4):
        assert torch.equal(first.reset(seed), second.reset(seed))
        for action in (0, 1, 1, 0):
            assert torch.equal(first.step(action).state, second.step(action).state)
    assert not torch.equal(first.reset(3), second.reset(4))


def test_the_shipped_presets_can_be_built() -> None:
    assert "cartpole-optics" in presets()
    for name in presets():
        play = playing(load_agent(name), "CartPole-v1", 0)
        assert [u.width for u in play.training.player.network.units] == [64, 64]  # type: ignore[attr-defined]
        play.close()


def test_a_misspelt_setting_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(SMALL.replace("warm_up", "warmup"))
    with pytest.raises(ConfigError, match="warm_up"):
        load_agent(str(path))


def test_a_chip_whose_setting_learns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "chip.toml"
    path.write_text('[[unit]]\nbackend = "memristor"\noptions = { inputs = 8, outputs = 8 }\n')
    with pytest.raises(ConfigError, match="fixed"):
        playing(load_agent(str(path)), "CartPole-v1", 0)


def test_a_run_leaves_its_folder_behind(small: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = main(small, seed=2, out=out, quiet=True, command="typed")
    assert {"config.json", "curve.png", "episodes.nc", "summary.json"} <= set(os.listdir(out))
    assert read(out).command == "typed"
    names = {figure.name for figure in summary.figures}
    assert {"greedy score", "environment steps", "wall time"} <= names
    spent = {(row["unit"], row["phase"]) for row in summary.extra["ledger"]}
    assert ("unit 2", "learn") in spent and ("unit 1", "learn") in spent


@pytest.mark.parametrize("environment", ["Acrobot-v1", "MountainCar-v0"])
def test_other_environments_run_with_the_same_command(
    small: str, tmp_path: Path, environment: str
) -> None:
    summary = main(small, environment, steps=90, out=tmp_path / "run", quiet=True)
    assert summary.extra["environment"] == environment
    data = xr.load_dataset(tmp_path / "run" / "episodes.nc", engine="h5netcdf")
    assert data.attrs["steps"] == 90


def job(small: str, out: Path, resume: bool = False, seed: int = 1) -> Job:
    return Job(
        config=load_agent(small), environment="CartPole-v1", seed=seed, out=out, resume=resume
    )


def same_runs(a: Training, b: Training) -> bool:
    arrays, others = a.state()[0], b.state()[0]
    alike = all(torch.equal(arrays[name], others[name]) for name in arrays)
    return alike and str(a.episodes) == str(b.episodes)


def test_a_run_stopped_by_ctrl_c_goes_on_bit_for_bit(small: str, tmp_path: Path) -> None:
    def interrupted(training: Training) -> None:
        if len(training.episodes) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(job(small, tmp_path / "a"), interrupted)
    finally:
        signal.signal(signal.SIGINT, previous)
    data, resumed = run(job(small, tmp_path / "a", resume=True))
    whole, plain = run(job(small, tmp_path / "b"))
    assert same_runs(resumed.training, plain.training)
    assert data["greedy"].identical(whole["greedy"])
    rows = [play.training.player.ledger.rows() for play in (resumed, plain)]  # type: ignore[attr-defined]
    assert rows[0] == rows[1]


def test_another_thread_count_is_told_in_the_summary(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(resume: bool) -> dict[str, Any]:
        out = tmp_path / "run"
        return main(small, seed=1, out=out, resume=resume, quiet=True).extra

    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 7)
        assert "threads_changed" not in told(resume=False)
    now = torch.get_num_threads()
    assert told(resume=True)["threads_changed"] == f"checkpoint: 7, now: {now}"


def test_a_folder_of_another_run_is_not_resumed(small: str, tmp_path: Path) -> None:
    run(job(small, tmp_path / "a"))
    with pytest.raises(ConfigError, match="another configuration"):
        run(job(small, tmp_path / "a", resume=True, seed=2))
    with pytest.raises(CheckpointError, match="no run to resume"):
        run(job(small, tmp_path / "b", resume=True))


def test_the_arms_differ_in_lambda_or_light_and_in_nothing_else() -> None:
    pib, td = configured("cartpole-optics", "pib"), configured("cartpole-optics", "td")
    assert pib.loss.information_weight == 0.05 and td.loss.information_weight == 0
    assert td.changed(loss={"information_weight": 0.05}) == pib
    # The digital rival has no PIB: none is to be told of it.
    assert configured("cartpole-optics", "dqn").loss.information_weight == 0
    dim = configured("cartpole-optics", "pib", electrons=10.0)
    assert [unit.options["mean_electrons"] for unit in dim.unit] == [10.0, 10.0]
    assert isinstance(dim, AgentConfig) and dim.loss == pib.loss


def test_the_digital_rival_walks_down_a_corridor() -> None:
    from dataclasses import replace

    from tests.pib.test_reinforcement import FAST

    agent = DigitalAgent(2, 2, key=Key(1), follow=0.05)
    schedule = replace(FAST, steps=700, epsilon_steps=300, epsilon_end=0.05, batch=32)
    training = Training(agent, Corridor(), SCALE, schedule, Key(1).child("train"))
    training.run()
    assert min(evaluate(agent, [Corridor() for _ in range(8)], SCALE, key=Key(9))) >= -6
    other = DigitalAgent(2, 2, key=Key(2))
    other.load(agent.state())
    assert all(torch.equal(other.state()[n], t) for n, t in agent.state().items())


@pytest.mark.parametrize("arm", ["pib", "dqn"])
def test_an_arm_leaves_its_episodes_and_its_cost(small: str, arm: str) -> None:
    data = played(arm, 1, preset=small, fresh=3)
    assert data["greedy"].size == 3 and data.attrs["arm"] == arm
    assert data["score"].sum() <= data.attrs["steps"] == 160
    assert data.attrs["cpu_seconds"] > 0


def test_a_running_mean_starts_with_its_first_whole_window() -> None:
    assert np.isnan(running_mean([1.0, 2.0, 3.0], 4)).all()
    np.testing.assert_allclose(running_mean([1.0, 2.0, 3.0, 6.0], 2)[1:], [1.5, 2.5, 4.5])
    data = xr.Dataset({"score": ("episode", [1.0, 3.0, 5.0]), "step": ("episode", [1.0, 4.0, 9.0])})
    assert steps_until(data, 4.0, 2) == 9.0
    assert np.isnan(steps_until(data, 5.0, 2))


@pytest.mark.parametrize(
    ("steps", "values"),
    [([10.0], [5.0]), ([1.0, 50.0, 90.0], [0.0, 100.0, 500.0]), ([1.0, 2.0], [-500.0, -80.0])],
)
def test_the_live_curve_keeps_its_size(steps: list[float], values: list[float]) -> None:
    lines = curve(steps, values)
    assert len(lines) == HEIGHT + 2
    assert {len(line) for line in lines[:HEIGHT]} == {WIDTH + 8}
    assert lines[0].startswith(f"{max(0, *values):>6.0f}") and f"{min(0, *values):.0f}" in lines[7]


def test_thresholds_are_gymnasiums() -> None:
    import gymnasium

    for name in ("CartPole-v1", "Acrobot-v1", "MountainCar-v0"):
        spec: Any = gymnasium.spec(name)
        assert facts(name).good == spec.reward_threshold


@pytest.mark.slow
def test_acrobot_is_learnt_by_the_same_agent() -> None:
    """Random play scores -500 as a rule; gymnasium's threshold is -100."""
    data = played("pib", 0, environment="Acrobot-v1", steps=12_000)
    assert float(data["greedy"].mean()) > -150


@pytest.mark.slow
def test_cartpole_is_balanced_within_twelve_thousand_steps() -> None:
    data = played("pib", 0, steps=12_000)
    assert steps_until(data, 195.0, 20) <= 12_000
    assert float(data["greedy"].mean()) >= 400
