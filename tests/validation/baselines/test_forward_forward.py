"""Forward-forward on physical units, and the digital controls."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.validation.baselines.test_phyll import (
    CLASSES,
    SEEDS,
    blobs,
    gradient_error_behind_fixed_physics,
    gradient_error_of_a_written_unit,
    task,
    trained,
)
from twin.key import Key
from validation.baselines import controls
from validation.baselines.forward_forward import METHOD, SquareGoodness, length_normalised


@given(seed=SEEDS, threshold=st.floats(0.5, 10))
@settings(max_examples=5, deadline=None)
def test_the_gradient_of_forward_forward_is_that_of_its_loss(seed: int, threshold: float) -> None:
    goodness = SquareGoodness(threshold)
    assert gradient_error_behind_fixed_physics(seed, goodness, True) < 1e-5
    assert gradient_error_of_a_written_unit(seed, goodness) < 1e-5


@given(seed=SEEDS, size=st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_a_later_unit_does_not_see_the_goodness_of_the_one_before(seed: int, size: float) -> None:
    y = torch.randn(6, 30, generator=Key(seed).torch())
    goodness = SquareGoodness(30.0)
    passed = goodness.passed_on(y, 1.0)
    torch.testing.assert_close(goodness.passed_on(size * y, 1.0), passed)
    assert ((passed >= 0) & (passed < 1)).all()
    torch.testing.assert_close(length_normalised(y).square().mean(1), torch.ones(6))


def test_a_positive_above_the_threshold_costs_little_and_so_does_a_negative_below() -> None:
    goodness = SquareGoodness(1.0, sharpness=10.0)
    low, high = torch.tensor([2.0]), torch.tensor([18.0])
    right, *_ = goodness.loss(high, low)
    wrong, by_positive, by_negative = goodness.loss(low, high)
    assert right < 1e-3 < wrong
    assert by_positive < 0 < by_negative


@pytest.mark.parametrize("network", ["rig", "chip", "rig and chip"])
def test_forward_forward_learns_three_blots(network: str) -> None:
    """40 test images: guessing 1/3 of them right has a standard error of 0.075."""
    assert trained(METHOD, network) > 1 / 3 + 5 * 0.075


def test_the_first_of_several_units_has_no_say() -> None:
    one, two = (METHOD.train(task(n)).judge for n in ("rig", "rig and chip"))
    assert list(one.counted) == [0] and list(two.counted) == [1]  # type: ignore[union-attr]


# ---- digital controls ---------------------------------------------------------------


@pytest.mark.parametrize("hard", [True, False])
def test_the_digital_control_learns_three_blots(hard: bool) -> None:
    """300 test images: guessing has a standard error of 0.027."""
    images, labels = blobs(1, 600)
    found = controls.forward_forward_digital(
        images, labels, blobs(2, 300), key=Key(1), epochs=6, classes=CLASSES, widths=(40, 40),
        batch=20, rate=3e-3, hard=hard, report=(1,),
    )  # fmt: skip
    assert set(found) == {1, 6}
    assert found[6] < 2 / 3 - 5 * 0.027


def test_hard_labels_are_wrong_and_those_of_most_goodness() -> None:
    net = controls.Contrasted(16, (30, 30), CLASSES, 1.0, 1e-3, Key(4))
    images, labels = blobs(3, 60)
    hard = net.hard_labels(images, labels, Key(5))
    assert not (hard == labels).any()
    # Sharpened, a draw is the largest of the wrong ones.
    net.layers[0]["weight"] *= 100
    net.layers = net.layers[:1]
    net.goodness = net.goodness[:1]
    scores = net.scores(images)
    scores[torch.arange(60), labels] = -torch.inf
    assert torch.equal(net.hard_labels(images, labels, Key(5)), scores.argmax(1))


def loss(layers: controls.Layers, images: Tensor, labels: Tensor) -> Tensor:
    logits = controls.forward(layers, images)[-1]
    return torch.nn.functional.cross_entropy(logits, labels)


def test_without_feedback_the_dense_gradient_is_backpropagation_and_with_it_only_at_the_end() -> (
    None
):
    images, labels = blobs(6, 30)
    layers = controls.dense([16, 12, 9, CLASSES], Key(2))
    for layer in layers:
        for tensor in layer.values():
            tensor.requires_grad_()
    loss(layers, images, labels).backward()
    plain = [{n: t.detach() for n, t in layer.items()} for layer in layers]
    exact = controls.dense_gradients(plain, images, labels, None)
    feedback = torch.randn(12, CLASSES, generator=Key(3).torch())
    aligned = controls.dense_gradients(plain, images, labels, feedback)
    for layer, own in zip(layers, exact, strict=True):
        for name, tensor in layer.items():
            torch.testing.assert_close(own[name], tensor.grad, rtol=1e-4, atol=1e-6)
    assert torch.equal(aligned[-1]["weight"], exact[-1]["weight"])
    assert not torch.allclose(aligned[0]["weight"], exact[0]["weight"])
