"""Sequence tasks for a reservoir, and what a linear memory without any physics makes of them."""

from __future__ import annotations

import torch
from torch import Tensor

from twin.errors import DataError
from twin.key import Key
from validation.baselines.elm import fit_ridge

ORDER = 10
HIGHEST = 0.5
"""Inputs are uniform in [0, 0.5]."""

PENALTIES = tuple(10.0**power for power in range(-9, 2))


def narma10(steps: int, key: Key) -> tuple[Tensor, Tensor]:
    """Inputs u (steps,) and targets y (steps,), float64.

    y(t+1) = 0.3 y(t) + 0.05 y(t) sum_i=0..9 y(t-i) + 1.5 u(t-9) u(t) + 0.1: Atiya and
    Parlos, IEEE Trans. Neural Networks 11, 697 (2000). The target of u(t) is y(t+1), from
    u(t) and before. Few inputs make the recursion diverge: DataError, take another key.
    """
    inputs = HIGHEST * torch.rand(steps, dtype=torch.float64, generator=key.torch())
    return inputs, narma_targets(inputs)


def narma_targets(inputs: Tensor) -> Tensor:
    """y(t+1) for every u(t), (steps,); nothing and silence before the first."""
    u, y = [0.0] * (ORDER - 1) + inputs.tolist(), [0.0] * ORDER
    for t in range(len(inputs)):
        last = y[-ORDER:]
        y.append(0.3 * y[-1] + 0.05 * y[-1] * sum(last) + 1.5 * u[t] * u[t + ORDER - 1] + 0.1)
    if not max(y) < 10.0:
        raise DataError("narma10: the recursion diverges for these inputs. Use another key.")
    return torch.tensor(y[ORDER:], dtype=torch.float64)


def nrmse(guess: Tensor, truth: Tensor) -> float:
    """Root mean square error over the standard deviation of the truth; 1 for its mean."""
    return float((guess - truth).square().mean().sqrt() / truth.std(correction=0))


def delayed(inputs: Tensor, taps: int) -> Tensor:
    """u(t), u(t-1), ... as columns, (steps, taps); zero before the first."""
    padded = torch.cat([inputs.new_zeros(taps - 1), inputs])
    return padded.unfold(0, taps, 1).flip(1)


def read_out(states: Tensor, targets: Tensor, *, washout: int, train: int) -> tuple[float, float]:
    """NRMSE of a ridge readout on the steps after the first `train`, and its penalty.

    states: (steps, width); targets: (steps,). The first `washout` steps are left
    out; the penalty is chosen on the last fifth of the training steps.
    """
    cut = train - (train - washout) // 5
    z, y = states.double(), targets.double()[:, None]
    tried = fit_ridge(z[washout:cut], y[washout:cut], PENALTIES)
    errors = [nrmse(z[cut:train] @ w + b, y[cut:train]) for w, b in tried]
    best = min(range(len(PENALTIES)), key=errors.__getitem__)
    ((weight, bias),) = fit_ridge(z[washout:train], y[washout:train], [PENALTIES[best]])
    return nrmse(z[train:] @ weight + bias, y[train:]), PENALTIES[best]
