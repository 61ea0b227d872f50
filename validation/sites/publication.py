"""What one site lets the next one know: its features of the training images, as codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from twin.errors import ConfigError, DataError

Code = Literal["uint8", "float16"]
TOP = 255


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Measured features of all training images at one moment of a site's training.

    version: counts up, a function of the step, so that a site that was killed
    and repeats its steps publishes the same again. step: of the publishing
    site. last: its training is over. codes: (n, width), features as a fraction
    of a full drive: uint8 in 255ths, or float16. scale: the feature value that
    is a full drive.

    uint8 is the choice (ours): it is the grid of an 8-bit converter, which is
    where the next unit's drive ends up anyway, at half the bytes of float16.
    """

    version: int
    step: int
    last: bool
    scale: float
    codes: Tensor

    def fractions(self) -> Tensor:
        """The features as a fraction of a full drive, (n, width) float32 in [0, 1]."""
        plain = self.codes.to(torch.float32)
        return plain / TOP if self.codes.dtype == torch.uint8 else plain


def coded(features: Tensor, scale: float, code: Code) -> Tensor:
    """Features (n, width) >= 0 as codes; beyond a full drive they are clipped."""
    fractions = (features / scale).clamp(0.0, 1.0)
    if code == "uint8":
        return fractions.mul_(TOP).round_().to(torch.uint8)
    if code == "float16":
        return fractions.to(torch.float16)
    raise ConfigError(f"publication: code must be uint8 or float16, got {code!r}.")


def packed(publication: Publication) -> bytes:
    """The publication as a safetensors block; equal ones give equal bytes."""
    numbers = (publication.version, publication.step, int(publication.last))
    return save(
        {
            "codes": publication.codes.contiguous(),
            "numbers": torch.tensor(numbers, dtype=torch.int64),
            "scale": torch.tensor(publication.scale, dtype=torch.float64),
        }
    )


def unpacked(content: bytes) -> Publication:
    """From :func:`packed`; DataError if it is something else."""
    try:
        found: Mapping[str, Tensor] = load(content)
        version, step, last = found["numbers"].tolist()
        codes, scale = found["codes"], float(found["scale"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"a publication: expected codes, numbers and scale: {error}.") from None
    if codes.dtype not in (torch.uint8, torch.float16) or codes.ndim != 2:
        got = f"{codes.dtype} {tuple(codes.shape)}"
        raise DataError(f"a publication: expected (n, width) codes, uint8 or float16, got {got}.")
    return Publication(version=version, step=step, last=bool(last), scale=scale, codes=codes)
