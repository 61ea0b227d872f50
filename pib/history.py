"""What a training run recorded, as plain lists that a checkpoint can hold."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


class History:
    """Rows by unit: steps (losses, bits), probes (accuracies), weights.

    A step row has iteration, loss, i_yz, i_xz, kernel_mean, saturated,
    clipped; NaN where a value was not computed.
    """

    def __init__(self, units: int) -> None:
        self.steps: list[list[dict[str, float]]] = [[] for _ in range(units)]
        self.probes: list[list[dict[str, float]]] = [[] for _ in range(units)]
        self.weights: list[list[dict[str, Any]]] = [[] for _ in range(units)]

    def weight_row(self, unit: int, iteration: int, weight: Tensor, start: Tensor) -> None:
        """Quantiles of a weight matrix and its relative change from the start."""
        flat = weight.flatten().sort().values
        ranks = [round(q * (len(flat) - 1)) for q in QUANTILES]
        change = float((weight - start).norm() / start.norm().clamp_min(1e-12))
        row = {"iteration": iteration, "quantiles": flat[ranks].tolist(), "change": change}
        self.weights[unit].append(row)

    def dump(self) -> str:
        """JSON text; NaN travels as null."""
        rows = {"steps": self.steps, "probes": self.probes, "weights": self.weights}
        return json.dumps(_replace(rows, lambda v: None if math.isnan(v) else v))

    def load(self, text: str) -> None:
        rows = json.loads(text)
        self.steps = [
            [{n: math.nan if v is None else v for n, v in r.items()} for r in unit]
            for unit in rows["steps"]
        ]
        self.probes, self.weights = rows["probes"], rows["weights"]


def _replace(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {n: _replace(v, change) for n, v in value.items()}
    if isinstance(value, list):
        return [_replace(v, change) for v in value]
    return change(value) if isinstance(value, float) else value


def ridge_probe(
    features: Tensor, labels: Tensor, test_features: Tensor, test_labels: Tensor
) -> float:
    """Accuracy of a ridge classifier: quick, deterministic, no tuning.

    Trained on (n, d) features with integer labels, tested on the other pair.
    The penalty is 1 % of the mean feature variance times n.
    """
    mean = features.mean(0)
    z, test = (features - mean).double(), (test_features - mean).double()
    onehot = torch.nn.functional.one_hot(labels).double()
    gram = z.T @ z
    penalty = 1e-2 * float(gram.diagonal().mean()) + 1e-12
    gram.diagonal().add_(penalty)
    weight = torch.linalg.solve(gram, z.T @ (onehot - onehot.mean(0)))
    guess = (test @ weight + onehot.mean(0)).argmax(1)
    return float((guess == test_labels).double().mean())
