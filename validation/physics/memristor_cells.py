"""Laws of single cells by technology: write error, drift, read noise, temperature."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, stats
from torch import Tensor

from substrates.memristor import technology
from substrates.memristor.tails import scattered
from substrates.memristor.technology import Technology
from twin.errors import SettingError
from twin.key import Key
from validation.physics import estimates, published
from validation.physics.law import Check, Effort, Outcome, Skipped, held, sampled

CELL = 23.4
"""uS; the cell whose histogram is asked for."""

DAY_S = 86_400.0
CMO = "cmo-hfox-2"
PCM = "pcm-nandakumar"


def programming(effort: Effort) -> Iterator[Outcome]:
    """The spread after write-verify of each technology, at 23.4 uS or in mid-range."""
    for name in technology.names():
        if name not in published.SIGMA:
            yield Skipped(f"programming sigma, {name}", "no published fit is written down for it")
            continue
        found = technology.load(name)
        low, high = published.RANGE[name]
        inside = low <= CELL <= high
        target = CELL if inside else (low + high) / 2
        for after_s, fit in published.SIGMA[name].items():
            spread = _spread(
                effort.of(name).key.child(int(after_s)), effort, found, target, after_s
            )
            text = f"{name}, {target:g} uS" + (f", {_time(after_s)}" if after_s > 0 else "")
            name_of_row, source = f"programming sigma, {text}", published.SOURCE[name]
            yield sampled(name_of_row, spread, fit(target), source, "uS")
        if not inside:
            text = f"{CELL} uS refused by {name}, valid {low:g} to {high:g} uS"
            yield held(text, _refused(found), "outside the measured range")


def _spread(
    key: Key, effort: Effort, found: Technology, target: float, age_s: float
) -> estimates.Estimate:
    """Spread of written cells about their target at this age, uS; to 1.8 % or better."""
    n = effort.n(200_000, 40_000)
    targets = _cells(target, n)
    cells = found.programmed(targets, _normals(key.child("write"), n))
    if found.relaxation is not None and found.relaxation.kind == "tables":
        cells = found.relaxed(cells, targets, _normals(key.child("relax"), n), age_s)
    return estimates.standard_deviation((cells - targets) * 1e6)


def _refused(found: Technology) -> bool:
    try:
        found.sigma(_cells(CELL, 1))
    except SettingError:
        return True
    return False


def cmo_drift(effort: Effort) -> Iterator[Outcome]:
    """Loss and broadening per unit of ln t, each cell on one line."""
    n = effort.n(100_000, 20_000)
    found, targets = technology.load(CMO), _cells(CELL, n)
    normals = _normals(effort.key, n)
    ages = (1.0, 10.0, DAY_S)
    at = {t: found.relaxed(targets, targets, normals, t) * 1e6 for t in ages}
    slopes = (at[DAY_S] - at[10.0]) / math.log(DAY_S / 10.0)
    mean, spread = estimates.mean(slopes), estimates.standard_deviation(slopes)
    unit = "uS/ln t"
    yield sampled("CMO drift slope", mean, -published.CMO_LOSS, published.SOURCE[CMO], unit)
    yield sampled("CMO broadening", spread, published.CMO_BROADENING, published.SOURCE[CMO], unit)
    for age_s in (10.0, DAY_S):
        log_t = math.log(age_s)
        name = f"CMO at {CELL} uS after {_time(age_s)}"
        law = CELL - published.CMO_LOSS * log_t
        yield sampled(f"{name}, mean", estimates.mean(at[age_s]), law, published.SOURCE[CMO], "uS")
        law = published.CMO_SPREAD + published.CMO_BROADENING * log_t
        deviation = estimates.standard_deviation(at[age_s])
        yield sampled(f"{name}, spread", deviation, law, published.SOURCE[CMO], "uS")
    bent = (at[10.0] - at[1.0]) / math.log(10.0) - slopes
    yield _exact("CMO, one line per cell in ln t", bent, published.SOURCE[CMO], "uS/ln t")
    yield from _before_the_first_time(found, targets, normals)


def _before_the_first_time(
    found: Technology, targets: Tensor, normals: Tensor
) -> Iterator[Outcome]:
    """No cell moves, and the mean does not rise, before the first measured time."""
    first = found.relaxed(targets, targets, normals, 1.0) * 1e6
    for age_s in (0.0, 1e-6, 0.01):
        early = found.relaxed(targets, targets, normals, age_s) * 1e6
        name = f"CMO at {age_s:g} s as at the first time, 1 s"
        yield _exact(name, early - first, "no data before it", "uS")


def pcm_drift(effort: Effort) -> Iterator[Outcome]:
    """Power law with an exponent of each cell's own."""
    n = effort.n(100_000, 20_000)
    found = technology.load(PCM)
    # At 5 uS both clamps of the exponent's mean and spread are open or nearly so.
    for target in (CELL, 5.0):
        targets, normals = _cells(target, n), _normals(effort.key.child(int(target)), n)
        start, end = (found.relaxed(targets, targets, normals, t) for t in (20.0, 20.0 * 1e4))
        nu = -(end / start).log() / math.log(1e4)
        mean, spread = published.pcm_exponent(target)
        name = f"PCM drift exponent at {target:g} uS"
        yield sampled(f"{name}, mean", estimates.mean(nu), mean, published.SOURCE[PCM])
        yield sampled(
            f"{name}, spread", estimates.standard_deviation(nu), spread, published.SOURCE[PCM]
        )
        middle = found.relaxed(targets, targets, normals, 20.0 * 1e2)
        yield _exact(
            f"PCM, one exponent per cell at {target:g} uS",
            (middle / start).log() / math.log(1e2) + nu,
            "power law",
            "1",
        )


def read_noise(effort: Effort) -> Iterator[Outcome]:
    """Shot-to-shot sigma of a 23.4 uS cell, and its log-normal spread over cells."""
    n = effort.n(400_000, 100_000)
    for name, law, age_s, text in (
        (CMO, published.cmo_read_noise, 1.0, published.SOURCE[CMO]),
        (CMO, published.cmo_read_noise, DAY_S, published.SOURCE[CMO]),
        (PCM, published.pcm_read_noise, 3600.0, published.SOURCE[PCM]),
    ):
        found = technology.load(name)
        g = _cells(CELL, n)
        levels = found.read_sigma(g, age_s, _normals(effort.key.child(name, "levels"), n))
        shots = levels * _normals(effort.key.child(name, "shots"), n)
        yield sampled(
            f"read noise, {name}, {CELL} uS, {_time(age_s)}",
            estimates.standard_deviation(shots * 1e6, 0.0),
            law(CELL, age_s),
            text,
            "uS",
        )
    found = technology.load(CMO)
    assert found.read_noise is not None
    levels = found.read_sigma(_cells(CELL, n), 1.0, _normals(effort.key.child("spread"), n))
    spread = estimates.standard_deviation(levels.log())
    source = "log-normal, as in the device's table"
    yield sampled("read noise over cells, ln sigma", spread, found.read_noise.spread_ln, source)


def log_logistic(effort: Effort) -> Iterator[Outcome]:
    """The heavy-tailed option has the mean and sigma asked for, and the named law."""
    n = effort.n(200_000, 40_000)
    mean, sigma = CELL, 2.0
    drawn = scattered(
        torch.full((n,), mean, dtype=torch.float64), sigma, _normals(effort.key, n), "log-logistic"
    )
    name = "log-logistic tails"
    yield sampled(f"{name}, mean", estimates.mean(drawn), mean, "as asked for", "uS")
    found = estimates.standard_deviation(drawn)
    yield sampled(f"{name}, sigma", found, sigma, "as asked for", "uS")
    other = _fisk(mean, sigma, n, effort.key.child("fisk"))
    gap, bound = estimates.largest_gap(drawn, other)
    yield Check(
        name=f"{name} against Fisk's law: KS",
        measured=gap,
        expected=0.0,
        tolerance=bound,
        source="Maldonado et al. 2025 (form); scipy's fisk",
        n=2 * n,
    )


def _fisk(mean: float, sigma: float, n: int, key: Key) -> NDArray[np.float64]:
    """n draws of scipy's log-logistic law with these moments, its shape by bisection."""

    def excess(shape: float) -> float:
        return float(stats.fisk.std(shape) / stats.fisk.mean(shape)) - sigma / mean

    shape = float(optimize.brentq(excess, 2.5, 1e3))
    scale = mean / float(stats.fisk.mean(shape))
    return np.asarray(stats.fisk.rvs(shape, scale=scale, size=n, random_state=key.numpy()))


def arrhenius(effort: Effort) -> Iterator[Outcome]:
    """Temperature acts as exp[(Ea / k) (1 / T0 - 1 / T)] on time."""
    found, kelvin = technology.load(CMO), 350.0
    assert found.relaxation is not None and found.relaxation.activation_ev is not None
    electronvolts, measured = found.relaxation.activation_ev, found.relaxation.temperature_k
    # k in eV/K as CODATA prints it.
    law = electronvolts / 8.617333262e-5 * (1 / measured - 1 / kelvin)
    yield Check(
        name=f"Arrhenius, ln acceleration at {kelvin:g} K",
        measured=math.log(found.acceleration(kelvin)),
        expected=law,
        tolerance=1e-8 * law,
        source=f"Ea = {electronvolts:g} eV, {measured:g} K",
    )
    n = 1_000
    targets, normals = _cells(CELL, n), _normals(effort.key, n)
    hot = found.relaxed(targets, targets, normals, 100.0, kelvin)
    later = found.relaxed(targets, targets, normals, 100.0 * math.exp(law))
    yield _exact("Arrhenius, 100 s hot as longer cold", (hot - later) * 1e6, "law of time", "uS")


def _cells(microsiemens: float, n: int) -> Tensor:
    return torch.full((n,), microsiemens * 1e-6, dtype=torch.float64)


def _normals(key: Key, n: int) -> Tensor:
    return torch.randn(n, generator=key.torch(), dtype=torch.float64)


def _time(seconds: float) -> str:
    if seconds >= DAY_S:
        days = seconds / DAY_S
        return f"{days:g} day" + ("s" if days > 1 else "")
    return f"{seconds:g} s"


def _exact(name: str, difference: Tensor, source: str, unit: str) -> Check:
    """The largest of many differences that should all be nothing but rounding."""
    return Check(
        name=name,
        measured=float(difference.abs().max()),
        expected=0.0,
        tolerance=1e-6,
        source=source,
        unit=unit,
        n=difference.numel(),
    )
