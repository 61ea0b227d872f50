"""Laws of writing pulse by pulse, with a check after each."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from substrates.memristor.verify import Verified, write_verify
from twin.key import Key
from validation.physics import estimates
from validation.physics.law import Effort, Outcome, sampled

TARGET, START = 23.4e-6, 2e-6
PULSE, TOLERANCE, READ = 1e-6, 0.3e-6, 0.2e-6
MOST = 4


def write_verify_yield(effort: Effort) -> Iterator[Outcome]:
    """Cells verified after at most k pulses: 1 - (1 - p)^k, binomial."""
    n = effort.n(200_000, 50_000)
    for name, read in (("", 0.0), (", noisy checks", READ)):
        done = _written(effort.key.child(name), n, read)
        # An interval of a normal law, written out here on its own.
        p = math.erf(TOLERANCE / math.sqrt(2 * (PULSE**2 + read**2)))
        missed = (1 - p) ** MOST
        found = estimates.fraction(int(done.verified.sum()), n, 1 - missed)
        yield sampled(
            f"write-verify yield, {MOST} pulses{name}", found, 1 - missed, "1 - (1 - p)^k"
        )
        yield sampled(
            f"write-verify pulses per cell{name}",
            estimates.mean(done.pulses),
            (1 - missed) / p,
            "geometric number cut at k",
        )


def write_verify_spread(effort: Effort) -> Iterator[Outcome]:
    """Verified cells scatter as a normal law cut at the tolerance."""
    n = effort.n(200_000, 50_000)
    done = _written(effort.key, n, 0.0)
    left = done.conductances.double()[done.verified] - TARGET
    # Second moment of the cut normal law, by Simpson's rule: no closed form shared.
    x = torch.linspace(-TOLERANCE, TOLERANCE, 2001, dtype=torch.float64)
    weight = torch.full_like(x, 2.0)
    weight[1::2], weight[0], weight[-1] = 4.0, 1.0, 1.0
    density = weight * torch.exp(-((x / PULSE) ** 2) / 2)
    expected = math.sqrt(float((density * x**2).sum() / density.sum()))
    yield sampled(
        "write-verify spread of verified cells",
        estimates.standard_deviation(left, 0.0).times(1e6),
        expected * 1e6,
        "normal law cut at the tolerance",
        "uS",
    )


def _written(key: Key, n: int, read: float) -> Verified:
    targets = torch.full((1, n), TARGET)
    return write_verify(
        targets,
        torch.full_like(targets, START),
        pulse_sigma=PULSE,
        tolerance=TOLERANCE,
        max_pulses=MOST,
        read_sigma=read,
        generator=key.torch(),
    )
