"""Class-balanced batches, sorted by class, as a pure function of a key."""

from __future__ import annotations

import torch
from torch import Tensor

from twin.errors import ObjectiveError
from twin.key import Key


def balanced_epoch(labels: Tensor, batch: int, key: Key, weights: Tensor | None = None) -> Tensor:
    """Indices of one epoch's batches, (steps, classes x per_class), by class.

    labels: (n,) integers; batch: wished size, rounded down to equal shares.
    Without weights every sample of a class comes once before any comes again;
    with weights (n,), samples are drawn with replacement in proportion.
    """
    members = [(labels == c).nonzero()[:, 0] for c in torch.unique(labels)]
    share = batch // len(members)
    if share < 1 or len(members) < 2:
        raise ObjectiveError(
            f"a batch of {batch} cannot hold every one of {len(members)} classes; "
            "use at least two classes and a batch of at least that many samples."
        )
    steps = max(1, len(labels) // (share * len(members)))
    columns = []
    for which, rows in enumerate(members):
        generator = key.child("class", which).torch()
        need = steps * share
        if weights is None:
            rounds = [torch.randperm(len(rows), generator=generator)]
            while sum(map(len, rounds)) < need:
                rounds.append(torch.randperm(len(rows), generator=generator))
            picked = torch.cat(rounds)[:need]
        else:
            picked = torch.multinomial(weights[rows], need, replacement=True, generator=generator)
        columns.append(rows[picked].view(steps, share))
    return torch.cat(columns, 1)


def draw(total: int, count: int, key: Key) -> Tensor:
    """`count` of `total` rows (all if fewer), at random: data sets may be sorted."""
    return torch.randperm(total, generator=key.torch())[:count]


def steps_per_epoch(labels: Tensor, batch: int) -> int:
    """How many batches :func:`balanced_epoch` makes."""
    classes = len(torch.unique(labels))
    return max(1, len(labels) // max(1, (batch // classes) * classes))
