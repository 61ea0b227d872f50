"""Probes see what is there, and whoever looks changes nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pib.train import Trainer
from tests.pib import tiny
from twin.key import Key
from validation.probes import (
    Labelled,
    Probes,
    knn_probe,
    linear_probe,
    probed,
    spread_over,
    undisturbed,
)

seeds = st.integers(0, 2**32)


def labelled(n: int = 60) -> Labelled:
    x, y = tiny.images(n, seed=2)
    return Labelled(images=x[:40], labels=y[:40], test_images=x[40:], test_labels=y[40:])


@given(seed=seeds, k=st.integers(1, 7))
def test_the_vote_is_of_the_nearest_by_angle(seed: int, k: int) -> None:
    """Against a plain loop in float64."""
    draw = Key(seed).torch()
    train, test = torch.randn((9, 4), generator=draw), torch.randn((6, 4), generator=draw)
    labels, truth = torch.arange(9) % 3, torch.arange(6) % 3
    right = 0
    for z, answer in zip(test.double(), truth, strict=True):
        angles = [
            float(torch.nn.functional.cosine_similarity(z, row, dim=0)) for row in train.double()
        ]
        nearest = sorted(range(9), key=lambda i: -angles[i])[:k]
        votes = [sum(int(labels[i]) == c for i in nearest) for c in range(3)]
        right += votes.index(max(votes)) == int(answer)
    assert knn_probe(train, labels, test, truth, k) == pytest.approx(right / 6)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, stretch=st.floats(0.01, 100))
def test_the_vote_does_not_depend_on_how_long_features_are(seed: int, stretch: float) -> None:
    draw = Key(seed).torch()
    train, test = torch.randn((30, 4), generator=draw), torch.randn((9, 4), generator=draw)
    labels, truth = torch.arange(30) % 3, torch.arange(9) % 3
    one = knn_probe(train, labels, test, truth)
    assert one == knn_probe(train * stretch, labels, test * stretch, truth)


def test_both_probes_find_classes_that_are_there_and_none_in_noise() -> None:
    """2,000 test points of 4 classes: chance is 1/4 within five standard errors."""
    draw, n = Key(3).torch(), 2000
    labels, truth = torch.arange(4000) % 4, torch.arange(n) % 4
    noise = torch.randn((4000, 8), generator=draw), torch.randn((n, 8), generator=draw)
    apart = [z + 6 * torch.nn.functional.one_hot(y, 8)
             for z, y in zip(noise, (labels, truth), strict=True)]  # fmt: skip
    error = 5 * (0.25 * 0.75 / n) ** 0.5
    for (train, test), expected, within in ((noise, 0.25, error), (apart, 1.0, 0.01)):
        linear = linear_probe(train, labels, test, truth, key=Key(0))
        assert linear == pytest.approx(expected, abs=within)
        assert knn_probe(train, labels, test, truth) == pytest.approx(expected, abs=within)


@pytest.mark.parametrize("shared_clock", [False, True])
def test_training_that_is_looked_at_learns_the_same_to_the_last_bit(shared_clock: bool) -> None:
    found, rows = [], []
    for looked in (False, True):
        network = tiny.network(("memristor", "memristor"))
        network.shared_clock = shared_clock
        trainer = Trainer(network, [tiny.plan(), tiny.plan()], tiny.data(), key=Key(5))
        probes = Probes(labelled(), frozenset({1, 2, 4}), Key(9))
        trainer.run(probes if looked else None)
        found.append(trainer)
        rows.append(probes.rows)
    assert tiny.same_tensors(found[0].network.state(), found[1].network.state())
    assert found[0].history.dump() == found[1].history.dump()
    ledgers = [t.network.units[0].fence.ledger.rows() for t in found]
    assert ledgers[0] == ledgers[1]
    assert rows[0] == []
    assert [(r["unit"], r["iteration"]) for r in rows[1]] == [
        (unit, step) for unit in (0, 1) for step in (1, 2, 4)
    ]
    assert all(0 <= r[name] <= 1 for r in rows[1] for name in ("linear", "knn"))


def test_passes_through_a_device_that_cannot_be_put_back_are_counted() -> None:
    network = tiny.network(("ideal", "memristor"))
    before = network.units[0].fence.ledger.total().passes
    with undisturbed(network):
        network.features(labelled().images, key=Key(0), phase="probe")
    assert network.units[0].fence.ledger.total(phase="probe").passes == before + 2 * 40


def test_every_unit_is_probed_up_to_the_one_asked_for() -> None:
    network = tiny.network(("memristor", "memristor"))
    assert len(probed(network, labelled(), key=Key(1))) == 2
    assert len(probed(network, labelled(), key=Key(1), until=1)) == 1


@given(steps=st.integers(1, 2000), times=st.integers(1, 20))
def test_looks_end_with_the_last_step(steps: int, times: int) -> None:
    at = spread_over(steps, times)
    assert max(at) == steps and min(at) >= 1 and len(at) <= times
