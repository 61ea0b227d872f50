"""A linear softmax classifier on measured features, trained in the computer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pib.rule import warmed_cosine
from twin.errors import DataError
from twin.key import Key


@dataclass(frozen=True, kw_only=True)
class ReadoutRecipe:
    """How a readout is trained: zero start, Adam, cosine, few epochs.

    Longer or hotter readouts lose 0.1 to 0.3 points (measured by us on MNIST).
    scale_floor: smallest divisor of a feature, as a fraction of the r.m.s.
    standard deviation over all features. min_steps: small data sets get more
    epochs, so that the classifier arrives.
    """

    epochs: int = 8
    min_steps: int = 500
    rate: float = 2e-3
    batch: int = 250
    weight_decay: float = 1e-5
    scale_floor: float = 0.1


@dataclass(frozen=True)
class Readout:
    """logits = ((z - mean) / scale) W + b."""

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(n, classes) for features (n, width)."""
        return torch.addmm(self.bias, (features - self.mean) / self.scale, self.weight)

    def probability_correct(self, features: Tensor, labels: Tensor) -> Tensor:
        """The softmax probability of the true class, (n,)."""
        return self.logits(features).softmax(1).gather(1, labels[:, None])[:, 0]

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Fraction of correct answers, in [0, 1]."""
        return float((self.logits(features).argmax(1) == labels).double().mean())

    def state(self) -> dict[str, Tensor]:
        return {n: getattr(self, n) for n in ("mean", "scale", "weight", "bias")}


def train_readout(
    features: Tensor,
    labels: Tensor,
    classes: int,
    *,
    key: Key,
    recipe: ReadoutRecipe | None = None,
    after_epoch: Callable[[int, Readout], None] | None = None,
) -> Readout:
    """Fit a readout to features (n, width) and labels (n,).

    after_epoch(epoch, readout) is called with the state after each epoch, for
    learning curves. Raises DataError if there are more or fewer labels than features.
    """
    if len(labels) != len(features):
        raise DataError(
            f"a readout needs one label per measured feature, got {len(labels)} labels and "
            f"{len(features)} rows of features. Were features measured on other images?"
        )
    recipe = recipe or ReadoutRecipe()
    spread = features.std(0)
    floor = float(recipe.scale_floor * spread.square().mean().sqrt()) + 1e-12
    mean, scale = features.mean(0), spread.clamp_min(floor)
    weight, bias = torch.zeros(features.shape[1], classes), torch.zeros(classes)
    optimiser = torch.optim.Adam(
        [weight, bias], lr=recipe.rate, weight_decay=recipe.weight_decay, fused=True
    )
    onehot = torch.nn.functional.one_hot(labels, classes).to(torch.float32)
    batch = min(recipe.batch, len(features))
    per_epoch = len(features) // batch
    epochs = max(recipe.epochs, -(-recipe.min_steps // per_epoch))
    for epoch in range(epochs):
        order = torch.randperm(len(features), generator=key.child("epoch", epoch).torch())
        for i in range(per_epoch):
            rows = order[i * batch : (i + 1) * batch]
            z = (features[rows] - mean) / scale
            error = (torch.addmm(bias, z, weight).softmax(1) - onehot[rows]) / batch
            weight.grad, bias.grad = z.T @ error, error.sum(0)
            step = epoch * per_epoch + i
            optimiser.param_groups[0]["lr"] = warmed_cosine(
                step, epochs * per_epoch, recipe.rate, 1
            )
            optimiser.step()
        if after_epoch is not None:
            after_epoch(epoch, Readout(mean, scale, weight.clone(), bias.clone()))
    return Readout(mean, scale, weight.detach().clone(), bias.detach().clone())


def hard_example_weights(
    readout: Readout, features: Tensor, labels: Tensor, offset: float
) -> Tensor:
    """Sampling weight 1 - p(correct) + offset of each sample, (n,)."""
    return 1.0 - readout.probability_correct(features, labels) + offset
