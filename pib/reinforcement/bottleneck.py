"""The PIB part of a reinforced unit's loss, and what stands for Y there.

With values of actions instead of labels Y is a kernel, and which one is our
choice: the paper's is not public.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from pib.entropy import entropy, entropy_and_gradient
from pib.kernel import gaussian_gram, standardised, through_gram
from pib.objective import Verdict


class Relevance(StrEnum):
    """What of a state should be told apart, as a kernel over a batch.

    ADV: the same greedy action, times a Gaussian of its mean value. TQ: a
    Gaussian of the target network's values of all actions. NEXT: a Gaussian of
    the first unit's camera frame n steps later, or of the last state before a
    terminal one that comes earlier.
    """

    ADV = "adv"
    TQ = "tq"
    NEXT = "next"


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """-I(Y; Z) + input_weight I(X; Z), of order alpha, kernels of width sigma.

    Points are centred per batch and scaled to a mean square of 1, so sigma is
    in units of the r.m.s. distance from the mean. alpha = 2 needs no spectrum;
    as an addition to a temporal difference it is enough.
    """

    relevance: Relevance = Relevance.ADV
    input_weight: float = 0.2
    alpha: float = 2.0
    sigma: float = 1.0

    def gram(self, points: Tensor) -> Tensor:
        """The kernel matrix (n, n) of points (n, d)."""
        return gaussian_gram(standardised(points)[0], self.sigma)

    def by_action(self, values: Tensor) -> Tensor:
        """The kernel ADV of action values (n, actions): plain numbers."""
        best = values.argmax(1)
        same = (best[:, None] == best[None, :]).to(values.dtype)
        return self.gram(values.mean(1, keepdim=True)) * same

    def verdict(self, features: Tensor, relevant: Tensor, inputs: Tensor) -> Verdict:
        """Loss in bits and its gradient at the features (n, d).

        relevant, inputs: kernel matrices (n, n) of Y and X, with no gradient.
        """
        points, undo = standardised(features)
        gram = gaussian_gram(points, self.sigma)
        n = len(gram)
        total, at_total = entropy_and_gradient(gram / n, self.alpha)
        yz, at_yz = self._information(gram, relevant, total, at_total)
        xz, at_xz = self._information(gram, inputs, total, at_total)
        slope = (self.input_weight * at_xz - at_yz) / n
        return Verdict(
            loss=self.input_weight * xz - yz,
            gradient=undo(through_gram(slope, gram, points, self.sigma)),
            information_yz=yz,
            information_xz=xz,
            kernel_mean=float((gram.sum() - n) / (n * (n - 1))),
        )

    def _information(
        self, gram: Tensor, other: Tensor, total: float, at_total: Tensor
    ) -> tuple[float, Tensor]:
        """I(other; Z) and its slope with respect to gram / n."""
        n = len(gram)
        joint, at_joint = entropy_and_gradient(gram * other / n, self.alpha)
        return entropy(other / n, self.alpha) + total - joint, at_total - at_joint * other
