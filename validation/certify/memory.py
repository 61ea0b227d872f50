"""Memory: does the speckle move along when the input is shifted?

An i.i.d. medium has none. Thin screens, and any medium that leaves light
unscattered, have: then neighbouring inputs compute nearly the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from validation.certify.certificate import SIGMAS, Certificate
from validation.certify.rig import Rig, as_image

ALIKE = 0.05
SHIFTS = (1, 2, 3)
"""Macropixels by which the input is shifted."""


def shifted(patterns: Tensor, by: int) -> Tensor:
    """Patterns (batch, inputs) moved by `by` macropixels along the last axis, wrapping around.

    The inputs are taken as a square where their number is one.
    """
    return as_image(patterns).roll(by, -1).reshape(patterns.shape)


def peak(first: Tensor, second: Tensor) -> float:
    """Largest correlation of two sets of frames (drives, pixels) over shifts of the second.

    Frames are taken as squares where their number of pixels is one; each pixel
    is measured from its mean over the drives, and shifts wrap around.
    """
    a, b = (as_image(frames - frames.mean(0)) for frames in (first, second))
    spectra = torch.fft.fft2(a).conj() * torch.fft.fft2(b)
    lags = torch.fft.ifft2(spectra).real.sum(0)
    return (lags.max() / (a.square().sum() * b.square().sum()).sqrt()).item()


def correlations(rig: Rig, drives: int) -> list[float]:
    """The peak for each of SHIFTS."""
    patterns = rig.random(drives, "memory")
    still = rig.frames(patterns, "memory 0")
    return [
        peak(still, rig.frames(shifted(patterns, by), f"memory {by}"))
        for by in SHIFTS
        if by < as_image(patterns).shape[-1]
    ]


def certificate(found: list[float], drives: int, pixels: int, outputs: float) -> Certificate:
    """That a shift by one macropixel leaves no correlation.

    Bound: the largest of `pixels` lags of independent frames, about
    sqrt(2 ln pixels) standard errors, and five more; at least 0.05.
    """
    error = 1 / math.sqrt(drives * outputs)
    chance = (math.sqrt(2 * math.log(pixels)) + SIGMAS) * error
    return Certificate(
        name="memory, input shifted by one macropixel",
        value=found[0],
        standard_error=error,
        low=None,
        high=max(ALIKE, chance),
        law="none behind an i.i.d. medium",
        n=drives * pixels,
    )


def unscattered(found: Certificate) -> float:
    """Fraction of the power that passes a medium unscattered, 0 if none is seen.

    That part moves along whole: the correlation is the fraction squared.
    """
    return math.sqrt(found.value) if found.high is not None and found.value > found.high else 0.0


def reach(found: list[float], bound: float) -> int:
    """Largest shift, macropixels, up to which every correlation is above `bound`."""
    above = [value > bound for value in found]
    return above.index(False) if False in above else len(above)
