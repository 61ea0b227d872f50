"""Mirror arrays that switch light on and off.

Fields in units of the light on a macropixel with all mirrors on. They are never
negative, so a pattern has a non-zero mean: all speckle patterns share a common
part. Centre them, or use patterns of equal weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twin.errors import ConfigError


def mirror_light(mirrors: int, levels: int | None = None) -> Tensor:
    """Mean field of a macropixel at each level, (levels,), complex128, in [0, 1].

    mirrors: that are switched separately; level l turns on the nearest whole
    number to its share l / (levels - 1) of them. Where they lie within the
    macropixel does not matter to optics that do not resolve it. levels: mirrors
    + 1 by default; more would show the same light twice: ConfigError.
    Source: Popoff et al., arXiv 2311.17496.
    """
    count = levels or mirrors + 1
    if count > mirrors + 1:
        raise ConfigError(
            f"modulator: {count} levels, but a macropixel of {mirrors} separate mirrors shows "
            f"{mirrors + 1}, so that two drives would give the same light. Leave levels out, or "
            "use binarise = 'area' with more pixels_per_side."
        )
    share = torch.arange(count, dtype=torch.float64) / (count - 1)
    on = (share * mirrors).round() / mirrors
    return on.to(torch.complex128)
