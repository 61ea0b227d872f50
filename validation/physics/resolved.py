"""Checks of sampled quantities against a stated tolerance that the sample can resolve."""

from __future__ import annotations

import math

from validation.physics.estimates import Estimate
from validation.physics.law import SIGMAS, Check


def resolved(
    name: str, found: Estimate, expected: float, tolerance: float, source: str, unit: str = "1"
) -> Check:
    """Within `tolerance`, provided that this is five standard errors or more.

    A sample too small to tell fails, and its source says by how much.
    """
    error = found.standard_error
    sigmas = tolerance / error if error > 0 else math.inf
    enough = sigmas >= SIGMAS
    said = f"bound {sigmas:.2g} s.e." if sigmas < 100 else "bound > 100 s.e."
    return Check(
        name=name,
        measured=found.value if enough else math.nan,
        expected=expected,
        tolerance=tolerance,
        source=f"{source}; {said}" if enough else f"{source}; sample too small: {said}",
        unit=unit,
        n=found.n,
    )
