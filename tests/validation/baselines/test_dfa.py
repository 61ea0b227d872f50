"""Feedback alignment: the last unit by the true gradient, the others by one fixed matrix."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.validation.baselines.tiny import IDEAL, RIG, config, counted, matrix_twins, task
from twin.key import Key
from validation.baselines.chain import ChainRule, ThroughTwin
from validation.baselines.dfa import Feedback, alignment
from validation.baselines.joint import JointTraining, Passed, softmax_error

ROWS = torch.arange(15)


def one_batch(training: JointTraining) -> tuple[Passed, Tensor, list[Tensor]]:
    passed = training.forward(ROWS, Key(1))
    error = softmax_error(training.logits(passed), training.labels[ROWS])
    wanted = training.credit.at_features(passed, error, training.head["weight"], Key(2))
    return passed, error, wanted


def rigs(*widths: int) -> JointTraining:
    training = JointTraining(task(config(*(RIG.format(n=n) for n in widths))), Feedback())
    training._begin()
    return training


def test_the_last_unit_and_the_head_follow_the_true_gradient() -> None:
    """Autograd of the digital part, at the readings that were measured."""
    training = rigs(7, 5)
    passed, error, wanted = one_batch(training)
    ours = training.gradients(passed, wanted, error)
    unit = training.network.units[1]
    leaves = [
        t.detach().clone().requires_grad_(True)
        for t in (*unit.parameters.values(), *training.head.values())
    ]
    weight, bias, head, head_bias = leaves
    constants, values = unit.constants(), passed.records[1].values
    with torch.enable_grad():
        standardised = (values - constants["mean"]) / constants["scale"]
        last = torch.relu(standardised @ weight + bias)
        logits = torch.cat([passed.features[0], last], 1) @ head + head_bias
        loss = torch.nn.functional.cross_entropy(logits, training.labels[ROWS])
    names = ("unit 2.weight", "unit 2.bias", "head.weight", "head.bias")
    for name, exact in zip(names, torch.autograd.grad(loss, leaves), strict=True):
        assert torch.allclose(ours[name], exact, rtol=1e-4, atol=1e-6), name


def test_one_matrix_serves_all_units_sliced_to_their_widths_and_never_changes() -> None:
    training = rigs(4, 7, 5)
    for _ in range(2):
        _, error, wanted = one_batch(training)
        widest = wanted[1]
        assert wanted[0].shape[1] == 4
        assert torch.allclose(wanted[0], widest[:, :4], atol=1e-7)
        assert torch.linalg.matrix_rank(torch.cat([error, widest], 1)) <= 2
        training.head["weight"].mul_(-1)  # does not enter


def test_the_size_of_the_matrix_is_that_of_the_widest_unit() -> None:
    """200 x 3 entries: variance 1 / 200 within five standard errors, (2 / 600)^0.5 each."""
    shared = Feedback()
    shared.begin(task(config(IDEAL.format(n=200), IDEAL.format(n=5))), Key(7))
    variance = float(shared._shared.square().mean()) * 200
    assert abs(variance - 1) < 5 * (2 / 600) ** 0.5


def test_what_is_the_true_credit_stands_at_no_angle() -> None:
    made = task(config(IDEAL.format(n=8), IDEAL.format(n=6)), twins=matrix_twins)
    training = JointTraining(made, ChainRule(ThroughTwin()))
    training._begin()
    assert alignment(training, matrix_twins, ROWS, Key(1)) == pytest.approx([0.0], abs=0.1)


def test_training_brings_the_credit_nearer_to_the_true_one() -> None:
    """Below 90 degrees; no twin is needed to train, and its batch is counted."""
    before, after = [], []
    for seed in range(4):
        made = task(
            config(IDEAL.format(n=16), IDEAL.format(n=12), rate=0.01), ceiling=6000, seed=seed
        )
        training = JointTraining(replace(made), Feedback())
        training._begin()
        before += alignment(training, matrix_twins, torch.arange(60), Key(1))
        for step in range(150):
            training._step(step, 150)
        spent = counted(made)
        after += alignment(training, matrix_twins, torch.arange(60), Key(1))
        assert counted(made) == spent + 2 * 60
    assert all(angle < 90 for angle in after)
    assert sum(after) < sum(before)
