"""A reservoir whose nonlinearity is a device: the task as published, honest passes, fair rivals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from twin.errors import ConfigError, DataError
from twin.fence import Fence
from twin.key import Key
from twin.registry import open_backend
from validation.baselines.reservoir import RANGING, ReservoirRecipe, run_reservoir
from validation.baselines.reservoirtasks import delayed, narma10, narma_targets, nrmse, read_out

BRIGHT = {
    "mean_electrons": 1e6,
    "camera_bits": 16,
    "shot_noise": "gaussian",
    "modulator_levels": 4096,
}


def rig(nodes: int, **options: Any) -> Fence:
    made = open_backend("optics", key=Key(2), inputs=nodes, pixels=nodes, **options)
    return Fence(made, name="rig")


def test_narma_10_begins_as_computed_by_hand() -> None:
    """Silence before the first input: 0.1, 0.3 x 0.1 + 0.05 x 0.1 x 0.1 + 0.1 = 0.1305, ...;
    the tenth target is the first that sees the product of two inputs."""
    targets = narma_targets(torch.full((12,), 0.4, dtype=torch.float64))
    third = 0.3 * 0.1305 + 0.05 * 0.1305 * (0.1 + 0.1305) + 0.1
    assert targets[:3].tolist() == pytest.approx([0.1, 0.1305, third])
    free = narma_targets(torch.zeros(12, dtype=torch.float64))
    assert torch.equal(targets[:9], free[:9])
    assert float(targets[9] - free[9]) == pytest.approx(1.5 * 0.4 * 0.4)


def test_narma_10_obeys_its_equation() -> None:
    u, y = narma10(300, Key(1))
    assert float(u.min()) >= 0 and float(u.max()) <= 0.5
    for t in range(20, 299):
        # y[t] is the target of u[t]: y(t + 1) of the equation.
        memory = 0.05 * y[t - 1] * y[t - 10 : t].sum()
        expected = 0.3 * y[t - 1] + memory + 1.5 * u[t - 9] * u[t] + 0.1
        assert float(y[t]) == pytest.approx(float(expected), rel=1e-12)


def test_inputs_that_make_it_diverge_are_refused() -> None:
    with pytest.raises(DataError, match="diverges"):
        narma_targets(torch.full((400,), 0.9, dtype=torch.float64))


def test_the_error_of_the_mean_is_one() -> None:
    _, y = narma10(200, Key(1))
    assert nrmse(y.mean().expand(200), y) == pytest.approx(1.0)
    assert nrmse(y, y) == 0.0


def test_delays_are_columns() -> None:
    found = delayed(torch.tensor([1.0, 2.0, 3.0]), 2)
    assert found.tolist() == [[1.0, 0.0], [2.0, 1.0], [3.0, 2.0]]


def test_a_readout_finds_what_is_linear_and_does_not_see_the_test_steps() -> None:
    states = torch.randn((200, 5), generator=Key(1).torch(), dtype=torch.float64)
    targets = states @ torch.arange(5.0, dtype=torch.float64) + 3.0
    error, penalty = read_out(states, targets, washout=10, train=150)
    assert error < 1e-6
    targets[150:] = torch.randn(50, generator=Key(2).torch(), dtype=torch.float64)
    worse, same = read_out(states, targets, washout=10, train=150)
    assert same == penalty and worse > 1


def test_every_step_is_one_counted_pass_and_the_result_follows_from_the_key() -> None:
    u, y = narma10(150, Key(1))
    recipe, found = ReservoirRecipe(washout=10, taps=10), []
    for key in (Key(3), Key(3), Key(4)):
        fence = rig(8)
        found.append(run_reservoir(fence, u, y, key=key, recipe=recipe))
        assert found[-1].passes == fence.ledger.total().passes == RANGING + 150
    assert found[0] == found[1] != found[2]
    assert 0.8 < found[0].shuffled < 1.5


def test_a_reservoir_needs_a_reading_for_every_node() -> None:
    made = open_backend("optics", key=Key(2), inputs=9, pixels=8)
    u, y = narma10(100, Key(1))
    with pytest.raises(ConfigError, match="as many readings"):
        run_reservoir(Fence(made, name="rig"), u, y, key=Key(3))
    with pytest.raises(ConfigError, match="leak"):
        replace(ReservoirRecipe(), leak=0.0)


@pytest.mark.slow
def test_in_bright_light_it_remembers_what_a_linear_memory_cannot() -> None:
    """200 nodes, 2,000 steps, one key: 0.29 against 0.40. With 1,000 electrons and 8 bits
    the noise in the loop eats the memory, and it is worse than linear (0.72)."""
    u, y = narma10(2000, Key(1))
    found = run_reservoir(rig(200, **BRIGHT), u, y, key=Key(3))
    assert found.nrmse < 0.9 * found.linear
    assert 0.9 < found.shuffled < 1.2
