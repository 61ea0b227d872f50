"""The local loss: its values, its gradient, what it is blind to, what it refuses."""

from __future__ import annotations

from typing import Any

import mpmath  # type: ignore[import-untyped]
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pib.entropy import entropy
from pib.kernel import gaussian_gram
from pib.objective import InformationBottleneck
from twin.errors import ConfigError, ObjectiveError
from twin.key import Key

seeds = st.integers(0, 2**32)
alphas = st.sampled_from([0.5, 1.0, 1.01, 2.0, 3.0])
betas = st.sampled_from([0.0, 0.3, 2.0])
KINDS = {
    "sorted": [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2],
    "unsorted": [2, 0, 1, 0, 2, 1, 1, 0, 2, 0, 2, 1],
    "unbalanced": [1, 0, 0, 2, 0, 0, 1, 0, 0, 1, 0, 0],
    "a class of one": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    "an empty class": [3, 3, 0, 0, 3, 0, 0, 3, 3, 0, 3, 0],
}
labels = st.sampled_from(sorted(KINDS)).map(lambda kind: torch.tensor(KINDS[kind]))


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=Key(seed).torch(), dtype=torch.float64)


def loss(objective: InformationBottleneck, z: Tensor, y: Tensor, x: Tensor | None) -> float:
    return objective.verdict(z, y, x).loss


def slopes(objective: InformationBottleneck, z: Tensor, y: Tensor, x: Tensor | None) -> Tensor:
    """Central differences of the loss, step 1e-5, error of the order of its square."""
    found, step = torch.zeros_like(z), 1e-5
    for at in range(z.numel()):
        move = torch.zeros_like(z).flatten()
        move[at] = step
        up, down = (loss(objective, z + s * move.view_as(z), y, x) for s in (1, -1))
        found.view(-1)[at] = (up - down) / (2 * step)
    return found


@settings(max_examples=25, deadline=None)
@given(seed=seeds, y=labels, alpha=alphas, beta=betas, sigma=st.floats(0.4, 1.5))
@example(seed=0, y=torch.tensor(KINDS["sorted"]), alpha=1.01, beta=0.3, sigma=1.4)
@example(seed=1, y=torch.tensor(KINDS["unbalanced"]), alpha=0.5, beta=0.0, sigma=1.4)
@example(seed=6, y=torch.tensor(KINDS["a class of one"]), alpha=1.01, beta=0.0, sigma=0.5)
def test_the_gradient_is_the_slope_of_the_loss(
    seed: int, y: Tensor, alpha: float, beta: float, sigma: float
) -> None:
    """To 1e-5 of its norm. Features of 9 dimensions keep eigenvalues off the floor.

    At alpha = 1.01 rounding in a loss is 1e-15 / 0.01, in a quotient of differences 5e-9.
    """
    z, x = drawn(seed, len(y), 9), drawn(seed + 1, len(y), 6)
    objective = InformationBottleneck(alpha=alpha, beta=beta, sigma=sigma)
    got = objective.verdict(z, y, x).gradient
    expected = slopes(objective, z, y, x)
    assert float((got - expected).norm()) <= 1e-5 * float(expected.norm()) + 1e-7


@given(seed=seeds, y=labels, alpha=alphas, beta=betas)
def test_the_loss_is_made_of_the_two_informations(
    seed: int, y: Tensor, alpha: float, beta: float
) -> None:
    z, x = drawn(seed, len(y), 5), drawn(seed + 1, len(y), 5)
    verdict = InformationBottleneck(alpha=alpha, beta=beta).verdict(z, y, x)
    assert verdict.information_yz is not None and verdict.information_xz is not None
    assert verdict.loss == pytest.approx(-verdict.information_yz + beta * verdict.information_xz)


@given(seed=seeds, y=labels, alpha=alphas, sigma=st.floats(0.4, 3))
def test_information_is_that_of_the_definition(
    seed: int, y: Tensor, alpha: float, sigma: float
) -> None:
    """Written out with full matrices: no blocks, no class counts, no sorting."""
    n = len(y)
    z, x = drawn(seed, n, 9), drawn(seed + 1, n, 9)

    def matrix(v: Tensor, width: float) -> Tensor:
        centred = v - v.mean(0)
        return gaussian_gram(centred / centred.square().sum(1).mean().sqrt(), width) / n

    def information(a: Tensor, b: Tensor) -> float:
        joint = a * b / (a * b).diagonal().sum()
        return entropy(a, alpha) + entropy(b, alpha) - entropy(joint, alpha)

    k_y = (y[:, None] == y[None, :]).double() / n
    verdict = InformationBottleneck(alpha=alpha, sigma=sigma, sigma_input=0.9).verdict(z, y, x)
    # At 0.5 the zero eigenvalues of the full label matrix are seen through a root.
    slack = 5e-3 if alpha == 0.5 else 1e-6
    k_z = matrix(z, sigma)
    assert verdict.information_yz == pytest.approx(information(k_z, k_y), abs=slack)
    assert verdict.information_xz == pytest.approx(information(k_z, matrix(x, 0.9)), abs=1e-8)
    off = k_z.sum() * n - n
    assert verdict.kernel_mean == pytest.approx(float(off / (n * (n - 1))), abs=1e-9)


@given(seed=seeds, y=labels, alpha=alphas, sigma=st.floats(0.4, 3))
def test_information_never_exceeds_what_the_labels_hold(
    seed: int, y: Tensor, alpha: float, sigma: float
) -> None:
    verdict = InformationBottleneck(alpha=alpha, sigma=sigma).verdict(
        drawn(seed, len(y), 4), y, None
    )
    shares = torch.bincount(y)[torch.bincount(y) > 0].double() / len(y)
    most = (
        float(-(shares * shares.log2()).sum())
        if alpha == 1
        else float((shares**alpha).sum().log2()) / (1 - alpha)
    )
    assert verdict.information_yz is not None
    assert verdict.information_yz <= most + 1e-6


@given(seed=seeds, y=labels, alpha=alphas, beta=betas)
def test_the_order_of_the_batch_does_not_matter(
    seed: int, y: Tensor, alpha: float, beta: float
) -> None:
    z, x = drawn(seed, len(y), 6), drawn(seed + 1, len(y), 6)
    order = torch.randperm(len(y), generator=Key(seed).child("order").torch())
    objective = InformationBottleneck(alpha=alpha, beta=beta)
    one, other = objective.verdict(z, y, x), objective.verdict(z[order], y[order], x[order])
    assert one.loss == pytest.approx(other.loss, abs=1e-9)
    torch.testing.assert_close(one.gradient[order], other.gradient, atol=1e-8, rtol=1e-6)


@given(seed=seeds, y=labels, alpha=alphas, size=st.floats(1e-3, 1e3), beta=betas)
def test_moving_or_scaling_all_features_changes_no_information(
    seed: int, y: Tensor, alpha: float, size: float, beta: float
) -> None:
    """And the gradient shrinks as the features grow: it lives in their unit."""
    z, x = drawn(seed, len(y), 6), drawn(seed + 1, len(y), 6)
    objective = InformationBottleneck(alpha=alpha, beta=beta)
    one, other = objective.verdict(z, y, x), objective.verdict(z * size + 3 * size, y, 7 - 2 * x)
    assert one.loss == pytest.approx(other.loss, abs=1e-8)
    torch.testing.assert_close(one.gradient, other.gradient * size, atol=1e-8, rtol=1e-5)


@given(seed=seeds, y=labels, alpha=alphas, code=st.floats(-100, 100))
def test_a_column_stuck_at_any_code_drops_out(
    seed: int, y: Tensor, alpha: float, code: float
) -> None:
    """Why blind training meets stuck columns well: centring removes them."""
    z = drawn(seed, len(y), 6)
    stuck = torch.full((len(y), 2), code, dtype=torch.float64)
    objective = InformationBottleneck(alpha=alpha)
    whole, hit = objective.verdict(z, y, None), objective.verdict(torch.cat([z, stuck], 1), y, None)
    assert whole.loss == pytest.approx(hit.loss, abs=1e-9)
    torch.testing.assert_close(hit.gradient[:, :6], whole.gradient, atol=1e-8, rtol=1e-6)
    assert float(hit.gradient[:, 6:].abs().max()) < 1e-8


@given(seed=seeds, y=labels, alpha=alphas)
def test_a_small_step_against_the_gradient_lowers_the_loss(
    seed: int, y: Tensor, alpha: float
) -> None:
    z = drawn(seed, len(y), 6)
    objective = InformationBottleneck(alpha=alpha, sigma=1.0)
    verdict = objective.verdict(z, y, None)
    step = 1e-4 / float(verdict.gradient.norm())
    assert loss(objective, z - step * verdict.gradient, y, None) < verdict.loss


def test_features_that_are_all_alike_ask_for_nothing() -> None:
    y = torch.tensor(KINDS["sorted"])
    verdict = InformationBottleneck(alpha=0.5).verdict(torch.ones(len(y), 4), y, None)
    assert bool(torch.isfinite(verdict.gradient).all())
    assert float(verdict.gradient.abs().max()) < 1e-6
    assert verdict.kernel_mean == pytest.approx(1)


def exact_gradient(z: Tensor, y: Tensor, alpha: float, sigma: float) -> Tensor:
    """The gradient with 60 digits and no floor, at features standardised already.

    Follows training.md's equations on full matrices; the part along the
    features and their common part is projected away, as standardising does.
    """
    mpmath.mp.dps = 60
    n = len(z)
    u = mpmath.matrix(z.tolist())
    a, width = mpmath.mpf(alpha), mpmath.mpf(sigma)

    def squared(i: int, j: int) -> Any:
        return sum((u[i, k] - u[j, k]) ** 2 for k in range(u.cols))

    gram = mpmath.matrix(n, n)
    for i in range(n):
        for j in range(n):
            gram[i, j] = mpmath.exp(-squared(i, j) / (2 * width**2))

    def slope(matrix: Any) -> Any:
        values, vectors = mpmath.eigsy(matrix)
        kept = [max(v, mpmath.mpf(10) ** -45) for v in values]
        trace = sum(v**a for v in kept)
        powers = [a / ((1 - a) * mpmath.log(2)) * v ** (a - 1) / trace for v in kept]
        return vectors * mpmath.diag(powers) * vectors.T

    joint = mpmath.matrix(n, n)
    for i in range(n):
        for j in range(n):
            joint[i, j] = gram[i, j] / n if int(y[i]) == int(y[j]) else mpmath.mpf(0)
    whole, by_class = slope(gram / n), slope(joint)
    weighted = torch.zeros((n, n), dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            same = by_class[i, j] if int(y[i]) == int(y[j]) else 0
            weighted[i, j] = float((same - whole[i, j]) * gram[i, j] / n)
    at_u = -2 / sigma**2 * (weighted.sum(1, keepdim=True) * z - weighted @ z)
    at_u = at_u - z * (at_u * z).sum() / n
    return at_u - at_u.mean(0)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_clamped_eigenvalues_keep_their_gradient(seed: int, dtype: torch.dtype) -> None:
    """Rank-poor features: 20 points on a line under a wide kernel, a third of the
    eigenvalues under the floor. The direction must be the true one."""
    n = 20
    z = drawn(seed, n, 1)
    z = z - z.mean(0)
    z = z / z.square().sum(1).mean().sqrt()
    y = torch.arange(n) % 4
    gram = gaussian_gram(z, 1.4) / n
    assert int((torch.linalg.eigvalsh(gram) < 1e-10).sum()) >= 6
    exact = exact_gradient(z, y, 1.01, 1.4)
    got = InformationBottleneck(alpha=1.01).verdict(z.to(dtype), y, None).gradient
    cosine = torch.nn.functional.cosine_similarity(got.double().flatten(), exact.flatten(), 0)
    assert float(cosine) > 0.99


GOOD = {"features": torch.rand(6, 3, generator=Key(0).torch()), "labels": torch.arange(6) % 2}
NAN = torch.full((6, 3), float("nan"))
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "one sample": ({"features": torch.rand(1, 3, generator=Key(0).torch()),
                    "labels": torch.tensor([0])}, "at least 2 samples, got 1"),
    "one class": ({"labels": torch.full((6,), 4)}, "all 6 samples have the label 4"),
    "NaN": ({"features": NAN}, "NaN or infinite"),
    "infinite": ({"features": GOOD["features"] / 0.0}, "NaN or infinite"),
    "too few labels": ({"labels": torch.arange(5) % 2}, r"got \(6, 3\) and \(5,\)"),
    "labels in a column": ({"labels": GOOD["labels"][:, None]}, "labels"),
    "features without width": ({"features": torch.ones(6)}, "features"),
    "float labels": ({"labels": GOOD["labels"].float()}, "integers"),
    "true or false as labels": ({"labels": GOOD["labels"] > 0}, "integers"),
    "negative labels": ({"labels": GOOD["labels"] - 1}, ">= 0"),
    "beta without inputs": ({"beta": 0.1}, "beta > 0 needs the inputs"),
    "too few inputs": ({"inputs": torch.ones(5, 2)}, "5 inputs for 6 features"),
    "NaN in the inputs": ({"inputs": NAN, "beta": 0.1}, "inputs hold a NaN"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_batch_without_a_loss_is_refused_by_name(kind: str) -> None:
    change, message = REFUSED[kind]
    given_ = {**GOOD, "inputs": None, **change}
    objective = InformationBottleneck(beta=given_.pop("beta", 0.0))
    with pytest.raises(ObjectiveError, match=message):
        objective.verdict(**given_)


@pytest.mark.parametrize("name", ["alpha", "sigma", "sigma_input"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_an_objective_of_no_width_or_order_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        InformationBottleneck(**{name: value})
