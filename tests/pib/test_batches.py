"""Batches show what they say they show, and their targets belong to what is shown."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pib.augment import Augment
from pib.batches import Classes, Clusters, Instances, Recipe
from pib.groups import clusters, neighbours
from pib.plan import TrainingData
from tests.pib import tiny
from twin.errors import ConfigError
from twin.key import Key

seeds = st.integers(0, 2**32)


def unlabelled(n: int = 24) -> TrainingData:
    x, _ = tiny.images(n)
    return TrainingData(images=x, shape=(3, 4), probe_images=x[:6])


@given(seed=seeds, n=st.integers(4, 40), instances=st.integers(2, 4), views=st.integers(1, 4))
def test_views_of_an_image_share_a_target_and_no_two_images_do(
    seed: int, n: int, instances: int, views: int
) -> None:
    source = Instances(instances=instances, views=views).of(unlabelled(n), 999, Key(0))
    epoch = source.rows(Key(seed), None)
    assert epoch.shape == (n // instances, instances * views) == (source.steps, instances * views)
    for rows in epoch:
        targets = source.targets(rows)
        pairs = set(zip(rows.tolist(), targets.tolist(), strict=True))
        assert len(pairs) == instances == len({r for r, _ in pairs}) == len({t for _, t in pairs})
        assert torch.equal(targets, targets.sort().values)
    # No image comes twice in an epoch.
    assert len(epoch.unique()) == source.steps * instances
    assert torch.equal(epoch, source.rows(Key(seed), None))


@settings(max_examples=20)
@given(seed=seeds, nearest=st.integers(1, 5))
def test_versions_of_a_neighbours_batch_are_the_image_and_its_neighbours(
    seed: int, nearest: int
) -> None:
    data = unlabelled(20)
    near = neighbours(data.images, data.shape, nearest)
    source = Instances(instances=4, views=3, nearest=nearest).of(data, 12, Key(0))
    for rows in source.rows(Key(seed), None).view(-1, 3):
        allowed = set(near[rows[0]].tolist())
        assert set(rows[1:].tolist()) <= allowed


@given(seed=seeds, n=st.integers(3, 30), count=st.integers(1, 2))
def test_neighbours_are_the_nearest_others(seed: int, n: int, count: int) -> None:
    """Against every angle, in float64; without a picture's shape nothing is blurred."""
    points = torch.rand((n, 5), generator=Key(seed).torch())
    near = neighbours(points, (5,), count)
    unit = points.double() / points.double().norm(dim=1, keepdim=True)
    angles = (unit @ unit.T).fill_diagonal_(-1.0)
    best = angles.topk(count, dim=1).values
    assert torch.allclose(angles.gather(1, near), best, atol=1e-6)
    assert not bool((near == torch.arange(n)[:, None]).any())


@given(seed=seeds, n=st.integers(4, 40), count=st.integers(2, 4))
def test_clusters_are_numbered_without_gaps_and_by_the_key(seed: int, n: int, count: int) -> None:
    points = torch.rand((n, 3), generator=Key(seed).torch())
    labels = clusters(points, count, Key(seed))
    assert labels.shape == (n,) and 1 <= int(labels.max()) + 1 <= count
    assert set(labels.tolist()) == set(range(int(labels.max()) + 1))
    assert torch.equal(labels, clusters(points, count, Key(seed)))


def test_images_that_coincide_make_fewer_clusters_or_none() -> None:
    two = torch.eye(3)[[0, 1] * 4]
    assert sorted(set(clusters(two, 4, Key(1)).tolist())) == [0, 1]
    with pytest.raises(ConfigError, match="all 8 images fell into one of 3 clusters"):
        clusters(torch.ones(8, 3), 3, Key(1))


def test_clusters_find_groups_that_are_far_apart() -> None:
    _, truth = tiny.images(60)
    points = 10.0 * torch.nn.functional.one_hot(truth, 3) + 0.1 * torch.rand(
        (60, 3), generator=Key(1).torch()
    )
    labels = clusters(points, 3, Key(2))
    assert len(set(zip(truth.tolist(), labels.tolist(), strict=True))) == 3


def test_balanced_batches_need_labels_and_the_others_do_not() -> None:
    with pytest.raises(ConfigError, match="need labels"):
        Classes().of(unlabelled(), 12, Key(0))
    for recipe in (Instances(instances=4, views=2), Clusters(count=3)):
        assert recipe.of(unlabelled(), 12, Key(0)).steps >= 1


@pytest.mark.parametrize(
    "bad", [{"instances": 1}, {"views": 0}, {"nearest": -1}, {"instances": 99}]
)
def test_batches_out_of_range_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="batches"):
        Instances(**bad).of(unlabelled(), 12, Key(0))


@pytest.mark.parametrize("recipe", [Clusters(count=3), Instances(instances=4, views=1)])
def test_examples_cannot_be_weighed_by_labels_where_there_are_none(recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match=r"hard_offset = 0\.1 weighs examples by their labels"):
        tiny.plan(batches=recipe, hard_offset=0.1)
    tiny.plan(batches=recipe)


def test_views_of_one_image_need_augmentation() -> None:
    with pytest.raises(ConfigError, match="differ by read noise only"):
        tiny.plan(batches=Instances(instances=4, views=2))
    tiny.plan(batches=Instances(instances=4, views=2), augment=Augment(shift_px=1))
    tiny.plan(batches=Instances(instances=4, views=2, nearest=3))
    tiny.plan(batches=Instances(instances=4, views=1))


def test_stored_images_cannot_have_versions() -> None:
    with pytest.raises(ConfigError, match="recapture"):
        tiny.plan(batches=Instances(instances=4, views=2), recapture="never")
    tiny.plan(batches=Instances(instances=4, views=1), recapture="never")
