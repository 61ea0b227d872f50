"""The local loss of one unit: L = -I(Y;Z) + beta I(X;Z), in bits.

It looks at a unit's measured features only, and hands back a gradient with
respect to them. I(A;B) = H(A) + H(B) - H(A o B / tr), equations (ours, since
the paper's constants are not public) in docs/pib.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pib.entropy import class_entropy, entropy, entropy_and_gradient
from pib.kernel import gaussian_gram, standardised, through_gram
from twin.errors import ConfigError, ObjectiveError
from twin.key import Key


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What an objective says of one batch.

    loss; gradient: d loss / d features, (n, d). information_yz,
    information_xz: bits, None where not computed. kernel_mean: the mean
    off-diagonal kernel value; outside 0.05 to 0.9 the kernel sees nothing.
    """

    loss: float
    gradient: Tensor
    information_yz: float | None = None
    information_xz: float | None = None
    kernel_mean: float | None = None


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When in a unit's training: the learning rate now, progress 0 to 1."""

    rate: float = 0.0
    progress: float = 0.0


START = Moment()


class Objective(Protocol):
    """A local loss. Stateless ones leave begin, state and load empty.

    verdict: what to learn from a batch, at this moment of the training.
    measure: the same batch by a fixed yardstick, for the record; learns nothing.
    """

    def begin(self, width: int, classes: int, key: Key) -> None: ...

    def verdict(
        self, features: Tensor, labels: Tensor, inputs: Tensor | None, moment: Moment
    ) -> Verdict: ...

    def measure(self, features: Tensor, labels: Tensor, inputs: Tensor | None) -> Verdict: ...

    def state(self) -> dict[str, Tensor]: ...

    def load(self, state: Mapping[str, Tensor]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class InformationBottleneck:
    """Supervised PIB on features centred per batch with one global scale.

    alpha: order of the entropy (0.5 trains best, 2 is fastest, 1.01 shows
    compression), at least 0.3: below, rounding in float32 spectra is amplified
    until features of few dimensions give a wrong gradient. beta: weight of
    I(X;Z); it helps only with narrow kernels. sigma, sigma_input: kernel widths
    in units of the r.m.s. distance from the mean, so that squared distances
    average 2. sigma_end: the width of the features' kernel shrinks linearly to
    this during a unit's training, so that it ends on the pairs that are still
    close; None keeps it.
    """

    alpha: float = 0.5
    beta: float = 0.0
    sigma: float = 1.4
    sigma_end: float | None = None
    sigma_input: float = 1.4

    def __post_init__(self) -> None:
        for name in ("alpha", "sigma", "sigma_end", "sigma_input"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"objective.{name}: must be > 0, got {value}.")
        if self.alpha < 0.3:
            raise ConfigError(f"objective.alpha: must be at least 0.3, got {self.alpha}.")

    def begin(self, width: int, classes: int, key: Key) -> None:
        """Nothing to prepare."""

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to restore."""

    def verdict(
        self,
        features: Tensor,
        labels: Tensor,
        inputs: Tensor | None,
        moment: Moment = START,
    ) -> Verdict:
        """Loss and gradient for features (n, d) and labels (n,), integers.

        inputs: (n, p), the network's input; needed for beta > 0, and where
        given I(X;Z) is reported. Raises ObjectiveError for a batch smaller
        than two, of one class, with other lengths, or not finite.
        """
        sigma = self._width(moment)
        _check(features, labels, inputs, self.beta)
        order = _class_order(labels)
        points, undo = standardised(features)
        gram = gaussian_gram(points, sigma)
        n = len(gram)
        total, slope_total = entropy_and_gradient(gram / n, self.alpha)
        joint, slope_joint = _label_joint(gram, labels, order, self.alpha)
        label = class_entropy(torch.bincount(labels), self.alpha)
        slope = slope_joint - slope_total
        information_yz = label + total - joint
        information_xz = None
        if inputs is not None:
            information_xz, slope_xz = self._input_information(gram, inputs, total, slope_total)
            if self.beta:
                slope = slope + self.beta * slope_xz
        loss = -information_yz + self.beta * (information_xz or 0.0)
        at_points = through_gram(slope / n, gram, points, sigma)
        return Verdict(
            loss=loss,
            gradient=undo(at_points),
            information_yz=information_yz,
            information_xz=information_xz,
            kernel_mean=float((gram.sum() - n) / (n * (n - 1))),
        )

    def measure(self, features: Tensor, labels: Tensor, inputs: Tensor | None) -> Verdict:
        """The verdict at the width of the start, so that bits stay comparable."""
        return self.verdict(features, labels, inputs)

    def _width(self, moment: Moment) -> float:
        end = self.sigma if self.sigma_end is None else self.sigma_end
        return self.sigma + (end - self.sigma) * moment.progress

    def _input_information(
        self, gram: Tensor, inputs: Tensor, total: float, slope_total: Tensor
    ) -> tuple[float, Tensor]:
        """I(X;Z) and d I / d(K_Z / n); H(X) does not depend on the features."""
        gram_input = gaussian_gram(standardised(inputs.to(gram.dtype))[0], self.sigma_input)
        n = len(gram)
        both = gram * gram_input / n
        at_input = entropy(gram_input / n, self.alpha)
        if not self.beta:
            return at_input + total - entropy(both, self.alpha), torch.zeros_like(gram)
        joint, slope = entropy_and_gradient(both, self.alpha)
        return at_input + total - joint, slope_total - slope * gram_input


def _class_order(labels: Tensor) -> tuple[Tensor | None, list[int]]:
    """A permutation that sorts by class (None if sorted), and class sizes."""
    sizes = [int(c) for c in torch.bincount(labels) if c > 0]
    if bool((labels[1:] >= labels[:-1]).all()):
        return None, sizes
    return torch.argsort(labels, stable=True), sizes


def _label_joint(
    gram: Tensor, labels: Tensor, order: tuple[Tensor | None, list[int]], alpha: float
) -> tuple[float, Tensor]:
    """H(Y,Z) and its gradient: K_Y o K_Z / n is block-diagonal by class."""
    permutation, sizes = order
    n = len(gram)
    ordered = gram if permutation is None else gram[permutation][:, permutation]
    slope = torch.zeros_like(gram)
    if len(set(sizes)) == 1:
        classes, size = len(sizes), sizes[0]
        blocks = _diagonal(ordered, classes, size)
        value, at_blocks = entropy_and_gradient(blocks / n, alpha)
        _diagonal(slope, classes, size).copy_(at_blocks)
    else:
        same = labels if permutation is None else labels[permutation]
        mask = (same[:, None] == same[None, :]).to(gram.dtype)
        value, slope = entropy_and_gradient(ordered * mask / n, alpha)
        slope = slope * mask
    if permutation is not None:
        inverse = torch.argsort(permutation)
        slope = slope[inverse][:, inverse]
    return value, slope


def _diagonal(matrix: Tensor, classes: int, size: int) -> Tensor:
    """A view (classes, size, size) of the diagonal blocks."""
    rows = matrix.view(classes, size, classes, size)
    return rows.diagonal(dim1=0, dim2=2).permute(2, 0, 1)


def _check(features: Tensor, labels: Tensor, inputs: Tensor | None, beta: float) -> None:
    n = len(features)
    if features.ndim != 2 or labels.shape != (n,):
        raise ObjectiveError(
            f"objective: expected features (n, d) and labels (n,), got "
            f"{tuple(features.shape)} and {tuple(labels.shape)}."
        )
    if n < 2:
        raise ObjectiveError(f"objective: a batch needs at least 2 samples, got {n}.")
    if labels.dtype.is_floating_point or labels.dtype == torch.bool or int(labels.min()) < 0:
        raise ObjectiveError("objective: labels must be integers >= 0.")
    if bool((labels == labels[0]).all()):
        raise ObjectiveError(
            f"objective: all {n} samples have the label {int(labels[0])}; I(Y;Z) needs at "
            "least two classes in a batch. Draw class-balanced batches."
        )
    if not bool(torch.isfinite(features).all()):
        raise ObjectiveError("objective: the features hold a NaN or infinite value.")
    if inputs is not None and len(inputs) != n:
        raise ObjectiveError(f"objective: {len(inputs)} inputs for {n} features.")
    if inputs is not None and not bool(torch.isfinite(inputs).all()):
        raise ObjectiveError("objective: the inputs hold a NaN or infinite value.")
    if beta and inputs is None:
        raise ObjectiveError("objective: beta > 0 needs the inputs (I(X;Z)).")
