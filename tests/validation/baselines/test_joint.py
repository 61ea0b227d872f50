"""What the joint trainer steps along is the gradient, and its steps are a function of the seed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.validation.baselines.tiny import (
    CHIP,
    IDEAL,
    NOISY,
    RIG,
    any_twins,
    config,
    counted,
    data,
    lift_ceiling,
    matrix_twins,
    task,
)
from twin.errors import ConfigError
from twin.key import Key
from validation.baselines.chain import ChainRule, ThroughTwin
from validation.baselines.dfa import METHOD as DFA
from validation.baselines.joint import JointTraining, softmax_error
from validation.baselines.method import Task
from validation.baselines.pat import METHOD as PAT

ROWS = torch.arange(15)


def begun(made: Task) -> JointTraining:
    training = JointTraining(made, ChainRule(ThroughTwin()))
    training._begin()
    return training


def found(training: JointTraining, rows: Tensor, key: Key) -> dict[str, Tensor]:
    """The gradients of one batch, as a step takes them."""
    passed = training.forward(rows, key)
    error = softmax_error(training.logits(passed), training.labels[rows])
    wanted = training.credit.at_features(passed, error, training.head["weight"], key)
    return training.gradients(passed, wanted, error)


def end_to_end(training: JointTraining, rows: Tensor) -> dict[str, Tensor]:
    """The same by autograd of the whole digital net, links held as they are."""
    leaves = {n: t.detach().clone().requires_grad_(True) for n, t in training._tensors().items()}
    images, features, before = training.images[rows], [], None
    with torch.enable_grad():
        for index, unit in enumerate(training.network.units):
            drive = images
            if before is not None:
                full = before / training.network.scales[index - 1]
                # A link's full drive is one of its features: on the kink rounding decides.
                assume(not ((full - 1).abs() < 1e-5).any())
                drive = full.clamp(0, 1)
                drive = torch.cat([drive, images], 1) if training.network.skip else drive
            weight, bias = leaves[f"{unit.name}.weight"], leaves[f"{unit.name}.bias"]
            before = torch.relu(drive @ weight + bias)
            features.append(before)
        logits = torch.cat(features, 1) @ leaves["head.weight"] + leaves["head.bias"]
        loss = torch.nn.functional.cross_entropy(logits, training.labels[rows])
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), skip=st.booleans(), units=st.integers(1, 4))
def test_with_a_true_twin_the_chain_rule_is_backpropagation(
    seed: int, skip: bool, units: int
) -> None:
    """Without noise and with a perfect twin, to rounding, through links that clip."""
    texts = [IDEAL.format(n=7 - i) for i in range(units)]
    training = begun(task(config(*texts, skip=skip), twins=matrix_twins, seed=seed))
    ours = found(training, ROWS, Key(seed))
    exact = end_to_end(training, ROWS)
    assert ours.keys() == exact.keys()
    for name, gradient in exact.items():
        error = float((ours[name] - gradient).norm())
        assert error <= 1e-4 * float(gradient.norm()) + 1e-7, name


def test_running_means_are_the_batch_at_the_first_step_and_follow_slowly_then() -> None:
    training = begun(task(config(RIG.format(n=6), RIG.format(n=5)), twins=any_twins))
    unit = training.network.units[1]
    first = training.forward(ROWS, Key(1)).records[1].values
    assert torch.allclose(unit.constants()["mean"], first.mean(0))
    second = training.forward(ROWS + 15, Key(2)).records[1].values
    expected = 0.9 * first.mean(0) + 0.1 * second.mean(0)
    assert torch.allclose(unit.constants()["mean"], expected, rtol=1e-5)


def test_what_goes_through_again_moves_no_constant() -> None:
    training = begun(task(config(RIG.format(n=6), RIG.format(n=5), dropout=0.3), twins=any_twins))
    one = training.forward(ROWS, Key(1))
    state = {n: t.clone() for n, t in training.network.state().items()}
    two = training.forward(ROWS, Key(1), again=True)
    assert all(torch.equal(t, state[n]) for n, t in training.network.state().items())
    assert all(
        a is not None and b is not None and torch.equal(a, b)
        for a, b in zip(one.kept, two.kept, strict=True)
    )


@pytest.mark.parametrize("method", [PAT, DFA])
@pytest.mark.parametrize(
    "units", [(NOISY.format(n=6), NOISY.format(n=5)), (RIG.format(n=6), RIG.format(n=5))]
)
def test_the_same_seed_learns_the_same_to_the_bit(method: object, units: tuple[str, ...]) -> None:
    def run(seed: int) -> tuple[dict[str, Tensor], Tensor]:
        twins = matrix_twins if "ideal" in units[0] else any_twins
        made = task(config(*units, dropout=0.1), seed=seed, twins=twins)
        learnt = method.train(made)  # type: ignore[attr-defined]
        return made.network.state(), learnt.head.weight

    (one, head), (two, again), (other, _) = run(3), run(3), run(4)
    assert torch.equal(head, again)
    assert all(torch.equal(one[n], two[n]) for n in one)
    assert any(not torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("method", [PAT, DFA])
def test_both_learn_blobs(method: object) -> None:
    """Above 0.8 of 60 new blobs of 3 classes by their own head."""
    made = task(config(IDEAL.format(n=10), IDEAL.format(n=8)), ceiling=60 * 60, twins=matrix_twins)
    learnt = method.train(made)  # type: ignore[attr-defined]
    images, labels = data().test
    lift_ceiling(made)
    features = torch.cat(made.network.features(images, key=Key(1)), 1)
    assert learnt.head.accuracy(features, labels) > 0.8


# ---- planning ---------------------------------------------------------------


def test_with_few_passes_the_head_answers_and_with_more_a_readout_may() -> None:
    units = RIG.format(n=6), RIG.format(n=5)
    for ceiling, measured in ((60 + 170, 0), (60 + 190, 2)):
        made = task(config(*units), ceiling=ceiling)
        learnt = DFA.train(made)
        assert len(learnt.measured) == measured
        assert learnt.head is not None
        assert ceiling - 15 < counted(made) <= ceiling


@pytest.mark.parametrize(
    ("units", "ceiling"),
    [
        ((RIG.format(n=6), RIG.format(n=5)), 60),
        ((IDEAL.format(n=6), IDEAL.format(n=5)), 15),
        ((CHIP.format(n=6), CHIP.format(n=5)), 75),
    ],
)
def test_a_ceiling_below_what_comes_first_is_refused_before_any_pass(
    units: tuple[str, ...], ceiling: int
) -> None:
    made = task(config(*units), ceiling=ceiling)
    with pytest.raises(ConfigError, match="ceiling"):
        DFA.train(made)
    assert counted(made) == 0


def test_one_stored_unit_needs_no_more_passes_and_steps_as_if_it_were_measured() -> None:
    made = task(config(RIG.format(n=6)), ceiling=500)
    learnt = DFA.train(made)
    assert counted(made) == 60
    assert learnt.notes["training_steps"] == (500 - 60) // 15
    free = DFA.train(task(config(RIG.format(n=6))))
    assert free.notes["training_steps"] == 3 * 4


def steps(make: Callable[[], Task]) -> float:
    return DFA.train(make()).notes["training_steps"]


def test_without_a_ceiling_it_trains_for_the_epochs_of_all_units() -> None:
    assert steps(lambda: task(config(IDEAL.format(n=6), IDEAL.format(n=5)))) == (2 + 2) * 4
