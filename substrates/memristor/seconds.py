"""Ages: one number for all cells, or a tensor with one for each. Seconds."""

from __future__ import annotations

import math

from torch import Tensor

from twin.errors import DialError

Seconds = float | Tensor


def checked_age(age_s: Seconds) -> Seconds:
    """The age itself; DialError unless finite and >= 0 throughout."""
    # NaN fails both comparisons, and min and max hand it on.
    ends = (float(age_s.min()), float(age_s.max())) if isinstance(age_s, Tensor) else (age_s,)
    if not all(math.isfinite(end) and end >= 0 for end in ends):
        shown = " to ".join(str(end) for end in ends)
        raise DialError(f"age must be a finite number of seconds >= 0, got {shown} s.")
    return age_s


def at_least(age_s: Seconds, least_s: float) -> Seconds:
    """The age, or least_s where that is more."""
    return age_s.clamp(min=least_s) if isinstance(age_s, Tensor) else max(age_s, least_s)


def log_ratio(age_s: Seconds, unit_s: float, like: Tensor) -> Seconds:
    """ln(age / unit); for ages of cells in the type and on the device of `like`."""
    if isinstance(age_s, Tensor):
        # In double first: float32 has no room for years counted in microseconds.
        return (age_s.double() / unit_s).log().to(like)
    return math.log(age_s / unit_s)
