"""The floor: one pass per image, one linear solve, nothing seen but the training images."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.validation.baselines.tiny import (
    CHIP,
    IDEAL,
    RIG,
    config,
    counted,
    data,
    in_ledger,
    lift_ceiling,
    task,
)
from twin.errors import ConfigError
from twin.key import Key
from validation.baselines.elm import METHOD, fit_ridge, ridge_classifier


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(3, 30), width=st.integers(1, 12))
def test_the_ridge_solves_its_equations(seed: int, n: int, width: int) -> None:
    """(Z'Z + lambda I) W = Z'Y about the means, by another road."""
    z = torch.randn((n, width), generator=Key(seed).torch(), dtype=torch.float64)
    y = torch.randn((n, 2), generator=Key(seed).child("y").torch(), dtype=torch.float64)
    for penalty, (weight, bias) in zip((0.01, 1.0), fit_ridge(z, y, (0.01, 1.0)), strict=True):
        c = z - z.mean(0)
        gram = c.T @ c
        size = penalty * gram.trace() / width
        expected = torch.linalg.solve(
            gram + size * torch.eye(width, dtype=torch.float64), c.T @ (y - y.mean(0))
        )
        assert torch.allclose(weight, expected, rtol=1e-8, atol=1e-10)
        assert torch.allclose((z @ weight + bias).mean(0), y.mean(0))


def test_the_penalty_grows_where_features_are_noise() -> None:
    labels = torch.arange(200) % 2
    noise = torch.randn((200, 100), generator=Key(1).torch())
    signal = noise.clone()
    signal[:, 0] += 100.0 * labels
    _, for_noise = ridge_classifier(noise, labels, 2, Key(2))
    readout, for_signal = ridge_classifier(signal, labels, 2, Key(2))
    assert for_signal <= for_noise
    assert readout.accuracy(signal, labels) == 1.0


def test_raw_readings_are_judged_after_one_pass_per_image() -> None:
    """Neither the validation images (not numbers here) nor a second unit are touched."""
    made = task(config(RIG.format(n=4), RIG.format(n=4)), n=90, ceiling=90)
    learnt = METHOD.train(made)
    assert counted(made) == in_ledger(made) == 90
    assert learnt.judge is not None and not learnt.measured
    images, labels = data().test
    lift_ceiling(made)
    guess = learnt.judge(images, key=Key(1), phase="inference")
    assert float((guess == labels).double().mean()) > 0.6
    assert counted(made) == 90 + len(images)


@pytest.mark.parametrize("unit", [IDEAL, CHIP])
def test_features_of_written_units_are_read_by_its_own_head(unit: str) -> None:
    made = task(config(unit.format(n=12), unit.format(n=8)), n=90, ceiling=1000)
    learnt = METHOD.train(made)
    assert [z.shape for z in learnt.measured] == [(90, 12), (90, 8)]
    assert counted(made) == in_ledger(made)
    images, labels = data().test
    lift_ceiling(made)
    features = torch.cat(made.network.features(images, key=Key(1)), 1)
    assert learnt.head is not None and learnt.head.accuracy(features, labels) > 0.6


@pytest.mark.parametrize(
    ("unit", "needed"), [(RIG, 90), (IDEAL, 180 + 270), (CHIP, 180 + 270 + 360)]
)
def test_it_says_beforehand_when_the_ceiling_is_too_low(unit: str, needed: int) -> None:
    made = task(config(unit.format(n=6), unit.format(n=5)), n=90, ceiling=needed - 1)
    with pytest.raises(ConfigError, match="ceiling"):
        METHOD.train(made)
    assert counted(made) == 0
    made = task(config(unit.format(n=6), unit.format(n=5)), n=90, ceiling=needed)
    METHOD.train(made)
    assert counted(made) == needed
