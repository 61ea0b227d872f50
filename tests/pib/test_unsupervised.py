"""Learning without labels: gradients, blindness to labels, and that it learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pib import checkpoint
from pib.augment import Augment
from pib.objective import Objective, Verdict
from pib.plan import Plan, TrainingData
from pib.target import Target
from pib.train import Trainer
from pib.unsupervised import Agreement, Preservation, Spread, Unsupervised
from tests.pib import tiny
from twin.errors import ConfigError, ObjectiveError
from twin.key import Key

seeds = st.integers(0, 2**32)
VIEWS = Augment(shift_px=1, rotate_degrees=10.0, noise=0.1)
LOSSES: dict[str, Callable[[float], Objective]] = {
    "spread": lambda alpha: Spread(alpha=alpha),
    "input": lambda alpha: Preservation(alpha=alpha),
    "two views": lambda alpha: Agreement(alpha=alpha),
    "instances": lambda alpha: Unsupervised(alpha=alpha, beta=0.3).objective(),
}


def small(target: Target) -> Unsupervised:
    return Unsupervised(target=target, instances=4, views=3, nearest=3, clusters=3)


def plan(target: Target) -> Plan:
    how = small(target)
    # Neighbours and clusters too may be augmented.
    return tiny.plan(how.objective(), batches=how.batches, batch=how.batch, augment=VIEWS, steps=5)


def trainer(target: Target, data: TrainingData, names: tuple[str, ...] = ("memristor",)) -> Trainer:
    network = tiny.network(names, skip=False)
    return Trainer(network, [plan(target) for _ in names], data, key=Key(5))


def labelled(labels: Tensor | None) -> TrainingData:
    x, y = tiny.images(24)
    bare = TrainingData(images=x, shape=(3, 4), probe_images=x[:6])
    return bare if labels is None else replace(bare, labels=labels, probe_labels=y[:6])


@settings(max_examples=15, deadline=None)
@given(
    seed=seeds, name=st.sampled_from(sorted(LOSSES)), alpha=st.sampled_from([0.5, 1.0, 1.01, 2.0])
)
def test_the_gradient_is_that_of_finite_differences(seed: int, name: str, alpha: float) -> None:
    """12 features of 3 in float64: relative error below 1e-5 along a random direction."""
    generator = Key(seed).torch()
    z = torch.rand((12, 3), generator=generator, dtype=torch.float64)
    x = torch.rand((12, 4), generator=generator, dtype=torch.float64)
    along = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    objective, targets = LOSSES[name](alpha), torch.arange(12) // 3

    def verdict(features: Tensor) -> Verdict:
        return objective.measure(features, targets, x)

    # Of fourth order, so that the step may be large against rounding.
    h = 1e-3
    by = {k: verdict(z + k * h * along).loss for k in (-2, -1, 1, 2)}
    slope = (by[-2] - 8 * by[-1] + 8 * by[1] - by[2]) / (12 * h)
    gradient = verdict(z).gradient
    told = float((gradient * along).sum())
    assert told == pytest.approx(slope, rel=1e-5, abs=1e-6 * float(gradient.norm()))


@pytest.mark.parametrize("target", list(Target))
def test_no_label_reaches_a_weight(target: Target) -> None:
    """True, permuted and absent labels: the same weights, features and history of steps."""
    _, y = tiny.images(24)
    permuted = y[torch.randperm(24, generator=Key(1).torch())]
    assert not torch.equal(y, permuted)
    found = []
    for labels in (y, permuted, y.flip(0), None):
        run = trainer(target, labelled(labels), ("memristor", "memristor"))
        run.run()
        found.append(run)
    states = [r.network.state() for r in found]
    assert all(tiny.same_tensors(states[0], other) for other in states[1:])
    assert all(str(r.history.steps) == str(found[0].history.steps) for r in found)
    # Only what is recorded of labels differs.
    assert found[0].history.probes[0] and not found[-1].history.probes[0]


@pytest.mark.parametrize("target", list(Target))
@pytest.mark.parametrize("stop", [1, 5, 8])
def test_unlabelled_training_goes_on_from_a_checkpoint(
    target: Target, stop: int, tmp_path: Path
) -> None:
    whole, part, again = (
        trainer(target, labelled(None), ("memristor", "memristor")) for _ in range(3)
    )
    whole.run()
    for _ in range(stop):
        part.advance()
    checkpoint.save_training(tmp_path, part, {})
    checkpoint.load_training(tmp_path, again)
    again.run()
    assert tiny.same_tensors(whole.network.state(), again.network.state())
    assert whole.history.dump() == again.history.dump()


def test_every_target_trains_for_the_steps_it_is_told() -> None:
    for target in Target:
        run = trainer(target, labelled(None))
        run.run()
        assert run.steps_of(0) == 5
        assert len(run.history.steps[0]) == 5


def test_information_about_which_image_it_is_grows_in_training() -> None:
    """Views of 12 of 48 images, 80 steps, fixed keys: by a fifth of a bit."""
    x, _ = tiny.images(48)
    how = Unsupervised(instances=12, views=6)
    made = tiny.plan(
        how.objective(), batches=how.batches, batch=how.batch, steps=80, rate=0.02,
        augment=Augment(noise=0.15, dropout=0.2),
    )  # fmt: skip
    data = TrainingData(images=x, shape=(3, 4), probe_images=x[:6])
    run = Trainer(tiny.network(("memristor",)), [made], data, key=Key(5))
    run.run()
    bits = [row["i_yz"] for row in run.history.steps[0]]
    assert sum(bits[-5:]) / 5 > sum(bits[:5]) / 5 + 0.2


def test_views_that_agree_share_more_information_than_strangers() -> None:
    z = torch.rand((16, 4), generator=Key(1).torch(), dtype=torch.float64)
    twice = z.repeat_interleave(2, 0)
    strangers = torch.rand((32, 4), generator=Key(2).torch(), dtype=torch.float64)
    objective, nothing = Agreement(), torch.zeros(32, dtype=torch.int64)
    shared, other = (objective.verdict(f, nothing, None).loss for f in (twice, strangers))
    assert shared < other - 0.1


@pytest.mark.parametrize("bad", [{"alpha": 0.1}, {"sigma": 0.0}, {"views": 1}, {"instances": 1}])
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    for target in Target:
        with pytest.raises(ConfigError, match=next(iter(bad))):
            Unsupervised(**bad, target=target).objective()


def test_more_clusters_than_a_batch_holds_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"views = 12 cannot hold every one of 13 clusters"):
        Unsupervised(target=Target.CLUSTERS, instances=4, views=3, clusters=13)
    Unsupervised(target=Target.CLUSTERS, instances=4, views=3, clusters=12)
    Unsupervised(instances=4, views=3, clusters=13)  # of no effect there


def test_a_loss_refuses_what_it_cannot_judge() -> None:
    z, none = torch.rand((6, 2), generator=Key(0).torch()), torch.zeros(6, dtype=torch.int64)
    with pytest.raises(ObjectiveError, match="NaN"):
        Spread().verdict(z * float("nan"), none, None)
    with pytest.raises(ObjectiveError, match="needs one input"):
        Preservation().verdict(z, none, None)
    with pytest.raises(ObjectiveError, match="pairs"):
        Agreement().verdict(z[:5], none[:5], None)
