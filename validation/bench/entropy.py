"""`pib-twin bench entropy`: our loss and gradient beside representation-itl's.

The rival's way: tiled distances, one eigendecomposition per Gram matrix
(features, labels, joint), gradient by automatic differentiation. Its package
is used if it can be imported; the release on the package index (1.0.7) holds
no module, so else the same calculation is done here and the table says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pib.objective import InformationBottleneck
from twin.key import Key
from validation.bench.clock import paired
from validation.summary import Figure

WIDTH, CLASSES, SIGMA = 256, 10, 1.4
BOUNDS = {1.01: ">= 5", 2.0: ">= 20"}
Information = Callable[[Tensor, Tensor, float], Tensor]


def figures(seconds: float = 2.0) -> tuple[list[Figure], dict[str, Any]]:
    """Speed-ups and disagreements for n in 128, 256, 512 and alpha 1.01 and 2."""
    information, source = _rival()
    rows: list[Figure] = []
    for alpha, bound in BOUNDS.items():
        for n in (128, 256, 512):
            features, labels = _batch(n)
            ours = InformationBottleneck(alpha=alpha, sigma=SIGMA)
            points = _standardised(features)

            def mine(
                ours: InformationBottleneck = ours, z: Tensor = features, y: Tensor = labels
            ) -> Any:
                return ours.verdict(z, y, None)

            def theirs(z: Tensor = features, y: Tensor = labels, a: float = alpha) -> Any:
                return _by_autograd(information, z, y, a)

            timing = paired(mine, theirs, seconds)
            loss, gradient = theirs()
            verdict = mine()
            worst = max(
                abs(loss - verdict.loss) / abs(loss),
                float((gradient - verdict.gradient).norm() / gradient.norm()),
            )
            assert len(points) == n
            name = f"alpha_{alpha:g}_n_{n}"
            rows += [
                Figure(f"speedup_{name}", timing.ratio, "x", bound, n=timing.runs),
                Figure(f"milliseconds_{name}", 1e3 * timing.ours_s, "ms", n=timing.runs),
                Figure(f"disagreement_{name}", worst, "1", "<= 1e-9"),
            ]
    return rows, {"rival": source, "dtype": "float64", "width": WIDTH, "threads": 1}


def _batch(n: int) -> tuple[Tensor, Tensor]:
    """Rectified normal features (n, 256) in float64, balanced sorted labels."""
    features = torch.randn(n, WIDTH, generator=Key(0).child("bench", n).torch()).double().relu()
    labels = (torch.arange(n) * CLASSES) // n
    return features, labels


def _standardised(features: Tensor) -> Tensor:
    centred = features - features.mean(0)
    return centred / centred.square().sum(1).mean().sqrt()


def _by_autograd(
    information: Information, features: Tensor, labels: Tensor, alpha: float
) -> tuple[float, Tensor]:
    """-I(Y;Z) in bits and its gradient at the features, by autograd."""
    leaf = features.clone().requires_grad_(True)
    with torch.enable_grad():
        same = (labels[:, None] == labels[None, :]).to(leaf.dtype)
        loss = -information(_standardised(leaf), same, alpha)
        (gradient,) = torch.autograd.grad(loss, leaf)
    return float(loss.detach()), gradient


def _rival() -> tuple[Information, str]:
    try:
        from repitl.kernel_utils import gaussianKernel
        from repitl.matrix_itl import matrixAlphaMutualInformation
    except ImportError:
        return _same_calculation, "the same calculation done here (its release holds no module)"

    def package(points: Tensor, same: Tensor, alpha: float) -> Tensor:
        gram = gaussianKernel(points, points, SIGMA)
        nats = matrixAlphaMutualInformation(gram, same, alpha)
        return nats / torch.log(torch.tensor(2.0, dtype=points.dtype))

    return package, "the package representation-itl"


def _same_calculation(points: Tensor, same: Tensor, alpha: float) -> Tensor:
    tiled = (points[:, None, :] - points[None, :, :]).pow(2).sum(2)
    gram = torch.exp(-tiled / (2 * SIGMA**2))

    def entropy(matrix: Tensor) -> Tensor:
        values, _ = torch.linalg.eigh(matrix)
        values = values[values > 0]
        values = values / values.sum()
        return (values**alpha).sum().log2() / (1 - alpha)

    return entropy(gram) + entropy(same) - entropy(gram * same)
