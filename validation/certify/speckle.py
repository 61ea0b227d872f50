"""Contrast, tail and number of independent outputs of speckle, from intensities alone.

All statistics take pairs of frames of the same drives: what is common to both
is speckle, what is not is noise of the camera. Flicker of the modulator and
drift within two frames count as noise.
"""

from __future__ import annotations

import math

import torch
from scipy.special import gammaincc
from torch import Tensor

from twin.key import Key
from validation.certify.certificate import Certificate, around, jackknifed
from validation.certify.rig import Pairs
from validation.physics.law import Skipped

THRESHOLD = 3.0
"""Multiples of the mean whose excess is counted."""

NOISY = 0.3
"""Noise variance at the threshold, in squared means, beyond which the first
order of its correction is not enough."""


def contrast(pairs: Pairs, outputs: float, patterns: int, name: str) -> Certificate:
    """Standard deviation over mean of the intensity, across pixels.

    outputs: effective number of independent pixels. patterns: independent
    speckle patterns that add up (2 for unpolarised light); the law is
    1 / sqrt(patterns) (Goodman 1976).
    """

    def statistic(kept: Tensor) -> float:
        left = outputs * len(kept) / pairs[0].shape[1]
        return _contrast(pairs[0][:, kept], pairs[1][:, kept], left)

    frames, pixels = pairs[0].shape
    found = jackknifed(statistic, pixels)
    law = "1 / sqrt(patterns that add up), Goodman 1976"
    return around(name, found, 1 / math.sqrt(patterns), 0.02, law, frames * pixels)


def _contrast(first: Tensor, second: Tensor, outputs: float) -> float:
    means = first.mean(1), second.mean(1)
    common = ((first - means[0][:, None]) * (second - means[1][:, None])).mean(1).sum()
    # Of few pixels the variance comes out too small and the squared mean too large.
    variance = common / (1 - 1 / outputs)
    squared = (means[0] * means[1]).sum() - variance / outputs
    return math.sqrt(max(0.0, (variance / squared).item()))


def tail(pairs: Pairs, outputs: float, patterns: int, key: Key) -> Certificate | Skipped:
    """Fraction of pixels brighter than three means of their frame.

    The law is exponential, of order `patterns` (gamma). Noise of variance v at
    the threshold lifts an exponential tail by exp(v / 2), which is taken off.
    """
    name = "P(I > 3 <I>)"
    both = torch.cat(pairs)
    relative = both / both.mean(1, keepdim=True)
    average = (relative[: len(pairs[0])] + relative[len(pairs[0]) :]) / 2
    near = (average - THRESHOLD).abs() < 0.5
    gaps = (relative[: len(pairs[0])] - relative[len(pairs[0]) :])[near]
    noise = gaps.square().mean().item() / 2 if len(gaps) else 0.0
    if noise > NOISY:
        return Skipped(name, f"noise of {math.sqrt(noise):.2g} means at the threshold: more light")
    bright = (_dithered(both, key) > THRESHOLD * both.mean(1, keepdim=True)).to(torch.float64)
    lift = math.exp(noise / 2)
    found = jackknifed(lambda kept: bright[:, kept].mean().item() / lift, bright.shape[1])
    expected = float(gammaincc(patterns, patterns * THRESHOLD))
    if patterns == 1:
        # Each frame is measured in its own mean: a beta law of few pixels.
        expected = (1 - THRESHOLD / outputs) ** (outputs - 1)
    return around(name, found, expected, 0.05 * expected, "exp(-3)", bright.numel())


def _dithered(values: Tensor, key: Key) -> Tensor:
    """Codes spread evenly over their step, so that a threshold between codes has a meaning."""
    levels = values.unique()
    if len(levels) < 2:
        return values
    step = levels.diff().min()
    noise = torch.rand(values.shape, generator=key.torch(), dtype=torch.float64)
    return values + (noise - 0.5) * step


def effective_outputs(pairs: Pairs) -> float:
    """Participation ratio (tr C)^2 / tr C^2 of the covariance over drives.

    C is estimated from two halves of the drives, so that tr C^2 has no bias
    from their number, and from pairs of frames, so that it has none from noise.
    """
    return _participation(*pairs)


def _participation(first: Tensor, second: Tensor) -> float:
    a, b = (_centred(f[0::2]) for f in (first, second))
    c, d = (_centred(f[1::2]) for f in (first, second))
    traces = (a * b).sum() * (c * d).sum()
    # tr(a'b c'd) without any matrix of pixels x pixels.
    squared = ((b @ c.T) * (a @ d.T)).sum()
    return (traces / squared).item() if squared > 0 else math.nan


def _centred(frames: Tensor) -> Tensor:
    return frames - frames.mean(0)


def independent_outputs(pairs: Pairs, inputs: int, phase: bool) -> Certificate:
    """Effective outputs; at least half of what an i.i.d. medium would give.

    Two-level phases behind `inputs` i.i.d. coefficients leave two pixels a
    squared correlation of 2 / inputs^2: pixels / (1 + 2 pixels / inputs^2).
    Two-level amplitudes (phase = False) have a mean field, beside which the
    intensities move along 2 inputs directions: about pixels / (1 + pixels / inputs).
    """
    frames, pixels = pairs[0].shape

    def statistic(kept: Tensor) -> float:
        return _participation(pairs[0][kept], pairs[1][kept])

    value, error = jackknifed(statistic, frames, groups=16)
    alike = 2 / inputs**2 if phase else 1 / inputs
    ideal = pixels / (1 + pixels * alike)
    return Certificate(
        name="effective independent outputs",
        value=value,
        standard_error=error,
        low=ideal / 2,
        high=None,
        law=f"half of {ideal:.4g}, which i.i.d. pixels give",
        n=frames,
        unit="pixels",
    )
