"""Images that belong together, found without labels: neighbours and clusters."""

from __future__ import annotations

import torch
from torch import Tensor

from twin.errors import ConfigError
from twin.key import Key

CHUNK = 1024


def neighbours(images: Tensor, shape: tuple[int, ...], count: int) -> Tensor:
    """The `count` nearest others of each image, (n, count), nearest first.

    images: (n, pixels). By the angle between images blurred over 3 x 3 pixels, where
    `shape` is (rows, columns): blurring forgives a shift of a pixel.
    """
    n = len(images)
    if not 1 <= count < n:
        raise ConfigError(f"neighbours: expected between 1 and {n - 1} of them, got {count}.")
    points = _unit_length(_blurred(images, shape))
    found = []
    for start in range(0, n, CHUNK):
        near = points[start : start + CHUNK] @ points.T
        mine = torch.arange(start, start + len(near))
        near[torch.arange(len(near)), mine] = -torch.inf
        found.append(near.topk(count, dim=1).indices)
    return torch.cat(found)


def clusters(images: Tensor, count: int, key: Key, rounds: int = 25) -> Tensor:
    """Pseudo-labels (n,), integers below `count`, by k-means from k-means++ seeds.

    Lloyd's rounds on images (n, pixels); an empty cluster begins anew at the image
    that is worst off. Numbers without gaps from 0, fewer than `count` where images
    coincide; ConfigError if only one is left.
    """
    if not 2 <= count <= len(images):
        raise ConfigError(f"clusters: expected between 2 and {len(images)}, got {count}.")
    generator = key.torch()
    centres = _seeds(images, count, generator)
    for _ in range(rounds):
        nearest, distance = _assigned(images, centres)
        sizes = torch.bincount(nearest, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, nearest, images)
        centres = sums / sizes.clamp_min(1)[:, None]
        for empty in (sizes == 0).nonzero()[:, 0].tolist():
            worst = int(distance.argmax())
            centres[empty], distance[worst] = images[worst], 0.0
    labels, _ = _assigned(images, centres)
    found, labels = torch.unique(labels, return_inverse=True)
    if len(found) < 2:
        raise ConfigError(
            f"clusters: all {len(images)} images fell into one of {count} clusters; they are "
            "(nearly) alike. Give images that differ."
        )
    return labels


def _seeds(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """k-means++: each seed drawn in proportion to the squared distance from the others."""
    first = int(torch.randint(len(images), (1,), generator=generator))
    chosen, distance = [first], (images - images[first]).square().sum(1)
    while len(chosen) < count:
        chance = distance.clamp_min(1e-12)
        nxt = int(torch.multinomial(chance, 1, generator=generator))
        chosen.append(nxt)
        distance = torch.minimum(distance, (images - images[nxt]).square().sum(1))
    return images[chosen].clone()


def _assigned(images: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centre of each image and the squared distance to it."""
    parts = []
    for some in images.split(CHUNK):
        squares = centres.square().sum(1) - 2 * some @ centres.T
        parts.append((squares + some.square().sum(1, keepdim=True)).min(1))
    return torch.cat([p.indices for p in parts]), torch.cat([p.values for p in parts])


def _blurred(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    if len(shape) != 2 or min(shape) < 3:
        return images
    pictures = torch.nn.functional.pad(images.view(-1, 1, *shape), (1, 1, 1, 1))
    return torch.nn.functional.avg_pool2d(pictures, 3, stride=1).flatten(1)


def _unit_length(points: Tensor) -> Tensor:
    return points / points.norm(dim=1, keepdim=True).clamp_min(1e-12)
