"""What rounding to codes does to the noise of repeated readings.

Source: the characteristic function of a uniform quantiser, B. Widrow, I. Kollar and
M.-C. Liu, Statistical theory of quantization, IEEE Trans. Instrum. Meas. 45 (1996) 353.
"""

from __future__ import annotations

import numpy as np

from twin.twinmodel import Floats

HARMONICS = 200
MEDIAN_SQUARE = 0.4549
"""Median of the square of a standard normal number."""


def hidden(sigma2: Floats) -> Floats:
    """Variance, codes squared, that repeats of one drive do not show: all of rounding's twelfth
    at no noise, none of it from one code of noise on.

    sigma2: (k,), >= 0, of the normal noise before rounding, codes squared. The mean over where
    between two codes a reading lies: sum_k exp(-4 pi^2 k^2 sigma^2) / (2 pi^2 k^2).
    """
    k2 = np.arange(1, HARMONICS + 1)[:, None] ** 2 * np.pi**2
    return np.asarray((np.exp(-4 * k2 * sigma2) / (2 * k2)).sum(0))
