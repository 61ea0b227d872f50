"""Simultaneous perturbation estimates the true gradient, ever worse the more there is of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.validation.baselines.tiny import IDEAL, NOISY, RIG, config, counted, in_ledger, task
from twin.key import Key
from validation.baselines.spsa import METHOD, Gains, SPSATraining, estimate, signs


def flat(found: dict[str, Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in found.values()])


def draws(loss_gradient: str, count: int, size: float, parameters: int) -> tuple[Tensor, Tensor]:
    """Many estimates (count, parameters) of a smooth loss, and its exact gradient."""
    generator = Key(5).torch()
    theta = torch.randn(parameters, dtype=torch.float64, generator=generator)
    slope = torch.randn(parameters, dtype=torch.float64, generator=generator)
    root = torch.randn((parameters, parameters), dtype=torch.float64, generator=generator)
    bend = root @ root.T / parameters if loss_gradient == "bent" else 0 * root
    half = parameters // 2
    tensors = {"a": theta[:half].clone(), "b": theta[half:].clone().view(-1, 1)}

    def loss(side: int) -> float:
        x = flat(tensors)
        return float(slope @ x + x @ bend @ x / 2)

    exact = slope + bend @ theta
    found = [flat(estimate(loss, tensors, size, Key(6).child(i))) for i in range(count)]
    assert torch.equal(flat(tensors), theta)
    return torch.stack(found), exact


def test_the_mean_of_many_estimates_is_the_gradient() -> None:
    """4,000 draws, 8 parameters, every entry within five standard errors; exact for a
    quadratic loss at any size of the perturbation."""
    found, exact = draws("bent", 4000, 0.3, 8)
    error = found.std(0) / 4000**0.5
    assert bool(((found.mean(0) - exact).abs() < 5 * error).all())
    assert bool((error < 0.2 * exact.norm()).all())


def test_the_variance_grows_with_the_number_of_parameters() -> None:
    """Of a linear loss an entry's variance is the sum of all the other slopes squared:
    for 3,000 draws of +-1 signs its estimate within 5 standard errors."""
    sizes = []
    for parameters in (8, 64):
        found, exact = draws("linear", 3000, 0.1, parameters)
        expected = exact.square().sum() - exact.square()
        squares = (found - exact).square()
        error = squares.std(0) / 3000**0.5
        assert bool(((squares.mean(0) - expected).abs() < 5 * error).all())
        sizes.append(float(squares.mean()))
    assert 4 < sizes[1] / sizes[0] < 16


def test_signs_are_even_and_differ_between_tensors() -> None:
    """2 x 10,000 signs: mean and correlation within five standard errors."""
    found = signs({"a": torch.zeros(10_000), "b": torch.zeros(10_000)}, Key(1))
    assert {float(v) for v in found["a"].unique()} == {-1.0, 1.0}
    for values in (found["a"], found["b"], found["a"] * found["b"]):
        assert abs(float(values.mean())) < 5 / 10_000**0.5


def test_gains_start_at_the_rate_and_fall_as_published() -> None:
    gains = Gains(rate=0.1, steps=100, size=0.01)
    assert gains.at(0) == pytest.approx((0.1, 0.01))
    assert gains.at(22)[0] == pytest.approx(0.1 * (11 / 33) ** 0.602)
    assert gains.at(31)[1] == pytest.approx(0.01 * 32**-0.101)


def test_parameters_return_after_a_loss_that_fails() -> None:
    tensors = {"a": torch.ones(3)}

    def loss(side: int) -> float:
        raise RuntimeError("no light")

    with pytest.raises(RuntimeError, match="no light"):
        estimate(loss, tensors, 0.5, Key(0))
    assert torch.equal(tensors["a"], torch.ones(3))


def test_both_losses_of_a_step_are_measured_and_nothing_more() -> None:
    """Behind a stored first unit: two passes per sample and step."""
    made = task(config(RIG.format(n=6), RIG.format(n=5)), ceiling=60 + 60 + 20 * 30)
    learnt = METHOD.train(made)
    assert counted(made) == in_ledger(made) == 60 + 60 + 20 * 30
    assert learnt.notes["training_steps"] == 20


def test_noise_of_the_two_losses_is_not_the_same() -> None:
    made = SPSATraining(task(config(NOISY.format(n=6))))
    made._begin()
    rows = torch.arange(15)
    one, two = (made.forward(rows, Key(1), again=again) for again in (False, True))
    assert not torch.equal(one.records[0].values, two.records[0].values)


@pytest.mark.parametrize("units", [(IDEAL.format(n=4),), (RIG.format(n=4),)])
def test_the_loss_of_a_small_network_falls(units: tuple[str, ...]) -> None:
    """About 50 parameters, 300 steps."""
    made = task(config(*units, rate=0.1))
    training = SPSATraining(made)
    training._begin()

    def loss() -> float:
        passed = training.forward(torch.arange(60), Key(1), again=True)
        return float(torch.nn.functional.cross_entropy(training.logits(passed), training.labels))

    training.forward(torch.arange(60), Key(1))
    before = loss()
    for step in range(300):
        training._step(step, 300)
    assert loss() < 0.8 * before
