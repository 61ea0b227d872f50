"""Unsupervised PIB: the same trainer, with targets that no label entered.

The paper's unsupervised objective is not public: every variant here is ours. What
differs is the target (`pib.batches`) or the loss (below); both go into a Plan. The
gain of the first comes from what augmentation is told to be irrelevant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pib.batches import Clusters, Instances, Recipe
from pib.entropy import entropy, entropy_and_gradient
from pib.kernel import gaussian_gram, standardised, through_gram
from pib.objective import (
    START,
    InformationBottleneck,
    Moment,
    Objective,
    Verdict,
)
from pib.target import Target
from twin.errors import ConfigError, ObjectiveError
from twin.key import Key


@dataclass(frozen=True, kw_only=True)
class Unsupervised:
    """Batches of instances x views and a loss.

    instances, views: of a batch; TWO_VIEWS has two, INPUT and SPREAD show
    instances x views different images, CLUSTERS as many in equal shares. nearest:
    neighbours to draw from. clusters: pseudo-labels. alpha, beta, sigma,
    sigma_input: see `InformationBottleneck`; a wide kernel and alpha near 1 matter.
    """

    target: Target = Target.INSTANCES
    instances: int = 32
    views: int = 8
    nearest: int = 10
    clusters: int = 100
    alpha: float = 1.01
    beta: float = 0.0
    sigma: float = 1.4
    sigma_input: float = 1.4

    def __post_init__(self) -> None:
        if self.views < 2 or self.instances < 2:
            raise ConfigError(f"unsupervised: expected instances >= 2 and views >= 2: {self}.")
        if self.target is Target.CLUSTERS and self.clusters > self.batch:
            raise ConfigError(
                f"unsupervised: a batch of instances x views = {self.batch} cannot hold every "
                f"one of {self.clusters} clusters. Lower clusters, or raise instances or views."
            )

    @property
    def batch(self) -> int:
        """Samples in a batch (at most)."""
        return self.instances * self.views

    @property
    def batches(self) -> Recipe:
        """How batches are drawn."""
        match self.target:
            case Target.INSTANCES:
                return Instances(instances=self.instances, views=self.views)
            case Target.NEIGHBOURS:
                near = self.nearest
                return Instances(instances=self.instances, views=self.views, nearest=near)
            case Target.CLUSTERS:
                return Clusters(count=self.clusters)
            case Target.TWO_VIEWS:
                return Instances(instances=self.batch // 2, views=2)
        return Instances(instances=self.batch, views=1)

    def objective(self) -> Objective:
        """A fresh loss."""
        kernel = {"alpha": self.alpha, "sigma": self.sigma}
        match self.target:
            case Target.TWO_VIEWS:
                return Agreement(**kernel)
            case Target.INPUT:
                return Preservation(**kernel, sigma_input=self.sigma_input)
            case Target.SPREAD:
                return Spread(**kernel)
        return InformationBottleneck(**kernel, beta=self.beta, sigma_input=self.sigma_input)


@dataclass(frozen=True, kw_only=True)
class _Unlabelled:
    """What the losses without targets share; features as in InformationBottleneck."""

    alpha: float = 1.01
    sigma: float = 1.4

    def __post_init__(self) -> None:
        InformationBottleneck(alpha=self.alpha, sigma=self.sigma)  # checks them

    def begin(self, width: int, classes: int, key: Key) -> None:
        """Nothing to prepare."""

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to restore."""

    def _finite(self, features: Tensor) -> None:
        if features.ndim != 2 or len(features) < 4:
            got = tuple(features.shape)
            raise ObjectiveError(f"objective: expected features (n >= 4, d), got {got}.")
        if not bool(torch.isfinite(features).all()):
            raise ObjectiveError("objective: the features hold a NaN or infinite value.")


@dataclass(frozen=True, kw_only=True)
class Spread(_Unlabelled):
    """L = -H(Z): features as far from each other as the kernel can see."""

    def verdict(
        self,
        features: Tensor,
        labels: Tensor,  # noqa: ARG002
        inputs: Tensor | None,  # noqa: ARG002
        moment: Moment = START,  # noqa: ARG002
    ) -> Verdict:
        """Loss and gradient for features (n, d)."""
        self._finite(features)
        points, undo = standardised(features)
        gram = gaussian_gram(points, self.sigma)
        n = len(gram)
        value, slope = entropy_and_gradient(gram / n, self.alpha)
        gradient = undo(through_gram(-slope / n, gram, points, self.sigma))
        return Verdict(loss=-value, gradient=gradient, kernel_mean=_mean(gram))

    def measure(self, features: Tensor, labels: Tensor, inputs: Tensor | None) -> Verdict:
        return self.verdict(features, labels, inputs)


@dataclass(frozen=True, kw_only=True)
class Preservation(_Unlabelled):
    """L = -I(X;Z): as much as can be kept of the network's input."""

    sigma_input: float = 1.4

    @property
    def beta(self) -> float:
        """The trainer hands inputs to losses with beta > 0."""
        return 1.0

    def verdict(
        self,
        features: Tensor,
        labels: Tensor,  # noqa: ARG002
        inputs: Tensor | None,
        moment: Moment = START,  # noqa: ARG002
    ) -> Verdict:
        """Loss and gradient for features (n, d) and inputs (n, p)."""
        self._finite(features)
        if inputs is None or len(inputs) != len(features):
            raise ObjectiveError("objective: I(X;Z) needs one input for each feature.")
        points, undo = standardised(features)
        gram = gaussian_gram(points, self.sigma)
        seen = gaussian_gram(standardised(inputs.to(gram.dtype))[0], self.sigma_input)
        n = len(gram)
        own, slope_own = entropy_and_gradient(gram / n, self.alpha)
        both, slope_both = entropy_and_gradient(gram * seen / n, self.alpha)
        kept = entropy(seen / n, self.alpha) + own - both
        slope = (slope_both * seen - slope_own) / n
        return Verdict(
            loss=-kept,
            gradient=undo(through_gram(slope, gram, points, self.sigma)),
            information_xz=kept,
            kernel_mean=_mean(gram),
        )

    def measure(self, features: Tensor, labels: Tensor, inputs: Tensor | None) -> Verdict:
        return self.verdict(features, labels, inputs)


@dataclass(frozen=True, kw_only=True)
class Agreement(_Unlabelled):
    """L = -I(Z;Z') between two views that stand in turn: rows 0 and 1 of one image,
    2 and 3 of the next. Both are standardised as one batch."""

    def verdict(
        self,
        features: Tensor,
        labels: Tensor,  # noqa: ARG002
        inputs: Tensor | None,  # noqa: ARG002
        moment: Moment = START,  # noqa: ARG002
    ) -> Verdict:
        """Loss and gradient for features (2 m, d)."""
        self._finite(features)
        if len(features) % 2:
            raise ObjectiveError(f"objective: {len(features)} features are not pairs of views.")
        points, undo = standardised(features)
        grams = [gaussian_gram(points[view::2], self.sigma) for view in (0, 1)]
        m = len(grams[0])
        both, slope_both = entropy_and_gradient(grams[0] * grams[1] / m, self.alpha)
        shared, at_points = -both, torch.zeros_like(points)
        for view, (gram, other) in enumerate((grams, grams[::-1])):
            value, slope = entropy_and_gradient(gram / m, self.alpha)
            shared += value
            pull = (slope_both * other - slope) / m
            at_points[view::2] = through_gram(pull, gram, points[view::2], self.sigma)
        mean = (_mean(grams[0]) + _mean(grams[1])) / 2
        return Verdict(
            loss=-shared, gradient=undo(at_points), information_yz=shared, kernel_mean=mean
        )

    def measure(self, features: Tensor, labels: Tensor, inputs: Tensor | None) -> Verdict:
        return self.verdict(features, labels, inputs)


def _mean(gram: Tensor) -> float:
    """Mean off the diagonal."""
    n = len(gram)
    return float((gram.sum() - n) / (n * (n - 1)))
