"""Technologies as data: their laws in closed form, their files, their refusals."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import constants, optimize, stats

from substrates.memristor.curve import Curve
from substrates.memristor.tables import to_toml
from substrates.memristor.tails import log_logistic, logistic
from substrates.memristor.technology import (
    Endurance,
    Nonlinearity,
    ReadNoise,
    Relaxation,
    Rtn,
    Technology,
    load,
    names,
)
from twin.config import build
from twin.errors import ConfigError, DialError, SettingError, UnknownName
from twin.key import Key

US = 1e-6
DAY_S = 86400.0

# Sigma at 23.4 uS from the published formulas, worked out apart from the code, uS.
AT_23_4 = {
    "cmo-hfox-0.2": 0.00106879 * 23.4 + 0.00081,
    "cmo-hfox-2": 0.011290 * 23.4 + 0.011219,
    "neurram-hfox": 1.84,
    "neurram-hfox-cubic": 2.19,
    "pcm-joshi": 0.2864 + 0.07586 * 23.4 - 0.001788 * 23.4**2,
    "pcm-nandakumar": 1.07,
}
MID = {**dict.fromkeys(AT_23_4, 23.4), "hfo2-igvva100": 137.5}
SHIPPED = sorted(MID)
AGEING = ["cmo-hfox-0.2", "neurram-hfox", "pcm-joshi", "pcm-nandakumar"]


def normals(count: int, *path: str | int) -> torch.Tensor:
    return torch.randn(count, generator=Key(20, ("technology", *path)).torch())


def uniform(low: float, high: float, count: int, seed: int) -> torch.Tensor:
    """Conductances in [low, high] siemens."""
    return low + (high - low) * torch.rand(count, generator=Key(seed).torch())


def curve(**options: object) -> Curve:
    table = {"low_siemens": 1e-6, "high_siemens": 10e-6, "coefficients": [1e-7], **options}
    return build(Curve, {k: v for k, v in table.items() if v is not None}, "curve")


def heatable(name: str) -> Technology:
    """A shipped technology with 1.2 eV from 273 to 400 K, whatever its file says."""
    technology = load(name)
    known = {"activation_ev": 1.2, "low_temperature_k": 273.0, "high_temperature_k": 400.0}
    return replace(technology, relaxation=replace(technology.relaxation, **known))


def toml_of(name: str = "cmo-hfox-2") -> dict[str, object]:
    return tomllib.loads(to_toml(load(name)))


# ---- curves --------------------------------------------------------------


@given(
    seed=st.integers(0, 2**31),
    unit=st.floats(1e-6, 50e-6),
    coefficients=st.lists(st.floats(0, 5), min_size=1, max_size=5),
)
@settings(max_examples=30, deadline=None)
def test_a_polynomial_is_the_sum_of_its_powers(
    seed: int, unit: float, coefficients: list[float]
) -> None:
    law = curve(coefficients=coefficients, unit_siemens=unit)
    g = uniform(1e-6, 10e-6, 50, seed).double()
    expected = sum(c * (g / unit) ** k for k, c in enumerate(coefficients))
    torch.testing.assert_close(law(g), expected + torch.zeros_like(g), rtol=1e-12, atol=1e-12)


@given(seed=st.integers(0, 2**31), count=st.integers(4, 30))
@settings(max_examples=30, deadline=None)
def test_a_table_is_linear_between_its_points_and_exact_on_them(seed: int, count: int) -> None:
    generator = Key(seed).numpy()
    grid = np.linspace(1e-6, 10e-6, count)
    grid[1:-1] += generator.uniform(-0.3, 0.3, count - 2) * (grid[1] - grid[0])
    values = generator.uniform(0, 1e-6, count)
    law = curve(coefficients=None, points=list(zip(grid.tolist(), values.tolist(), strict=True)))
    g = uniform(1e-6, 10e-6, 50, seed).double()
    np.testing.assert_allclose(law(g), np.interp(g.numpy(), grid, values), rtol=1e-9, atol=1e-18)
    np.testing.assert_allclose(law(torch.from_numpy(grid)), values, rtol=1e-9, atol=1e-18)


def test_a_table_gives_float32_for_float32_of_any_shape() -> None:
    law = curve(coefficients=None, points=[(1e-6, 1e-7), (5e-6, 2e-7), (10e-6, 4e-7)])
    value = law(torch.full((2, 3, 4), 7.5e-6))
    assert value.dtype == torch.float32 and value.shape == (2, 3, 4)
    torch.testing.assert_close(value, torch.full((2, 3, 4), 3e-7))
    assert law(torch.tensor(3e-6)).shape == ()


def test_a_curve_takes_float32_rounding_at_its_ends_and_nothing_beyond() -> None:
    law = curve(coefficients=[0.0, 1e-7])
    torch.testing.assert_close(law(torch.tensor([1e-6, 10e-6])), torch.tensor([1e-7, 1e-6]))
    law(torch.tensor(10e-6 * (1 + 5e-7)))
    for outside in (0.99e-6, 10.01e-6, -1e-6, math.nan, math.inf):
        with pytest.raises(SettingError, match=r"1e-06 to 1e-05 S.*got .*S\. Choose a window"):
            law(torch.tensor([5e-6, outside]))


def test_limits_of_a_curve_hold_also_where_the_logarithm_diverges() -> None:
    law = load("pcm-nandakumar").relaxation.exponent
    x = torch.tensor([0.0, 1e-9, 1e-6, 25e-6])
    expected = [0.1, 0.1, min(max(-0.0155 * math.log(1 / 25) + 0.0244, 0.049), 0.1), 0.049]
    torch.testing.assert_close(law(x), torch.tensor(expected))


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        ({"points": [(1e-6, 1.0), (10e-6, 1.0)]}, "either coefficients or points"),
        ({"coefficients": []}, "either coefficients or points"),
        ({"coefficients": [math.nan]}, "finite"),
        ({"coefficients": [-1e-9]}, "never negative"),
        ({"coefficients": [1.0, -0.2]}, "never negative"),
        ({"low_siemens": 10e-6}, "must be below"),
        ({"least": 1.0, "most": 0.5}, "must not be below least"),
        ({"low_siemens": 0.0, "of_log": True, "least": 0.1}, "needs least and most"),
    ],
)
def test_a_curve_without_sense_is_refused(options: dict[str, object], finding: str) -> None:
    with pytest.raises(ConfigError, match=finding):
        curve(**options)


@pytest.mark.parametrize(
    ("points", "finding"),
    [
        ([(1e-6, 1.0), (6e-6, 1.0), (5e-6, 1.0), (10e-6, 1.0)], "ascend.*5e-06 S after 6e-06"),
        ([(1e-6, 1.0), (5e-6, 1.0), (5e-6, 2.0), (10e-6, 1.0)], "ascend.*average repeated"),
        ([(1e-6, 1.0), (5e-6, math.nan), (10e-6, 1.0)], "finite"),
        ([(1e-6, 1.0), (2e-6, 1.0), (9.9e-6, 1.0), (10e-6, 1.0)], "hole between 2e-06 and 9.9"),
        ([(1e-6, 1.0), (5e-6, 1.0), (9e-6, 1.0)], "points reach from 1e-06 to 9e-06 S"),
        ([(2e-6, 1.0), (5e-6, 1.0), (10e-6, 1.0)], "narrow the range"),
        ([(1e-6, 1.0), (5e-6, -1.0), (10e-6, 1.0)], "never negative"),
    ],
)
def test_a_table_with_a_hole_is_refused(points: list[tuple[float, float]], finding: str) -> None:
    with pytest.raises(ConfigError, match=finding):
        curve(coefficients=None, points=points)


def test_a_table_that_doubles_from_point_to_point_has_no_hole() -> None:
    grid = [1e-6, 2e-6, 4e-6, 8e-6, 16e-6]
    curve(coefficients=None, high_siemens=16e-6, points=[(g, 1.0) for g in grid])


# ---- writing -------------------------------------------------------------


def test_the_shipped_technologies_are_those_documented() -> None:
    assert names() == SHIPPED


@pytest.mark.parametrize("name", sorted(AT_23_4))
def test_sigma_at_23_4_microsiemens_is_the_published_one(name: str) -> None:
    sigma = load(name).sigma(torch.tensor(23.4 * US)).item()
    assert sigma == pytest.approx(AT_23_4[name] * US, rel=0.01)


def test_a_technology_measured_elsewhere_refuses_23_4_microsiemens() -> None:
    technology = load("hfo2-igvva100")
    with pytest.raises(SettingError, match=r"5e-05 to 0\.000225 S.*got 2\.34e-05 S"):
        technology.sigma(torch.tensor([137.5 * US, 23.4 * US]))
    assert technology.sigma(torch.tensor(137.5 * US)).item() == pytest.approx(
        (4.7823 - 0.009107 * 137.5) * US, rel=1e-5
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_written_cells_scatter_by_sigma_to_two_per_cent(name: str) -> None:
    # 200,000 cells: the standard error of a standard deviation is 0.16 %, so
    # five of them are 0.8 %. All of these are more than five sigma above zero.
    technology, count = load(name), 200_000
    target = torch.full((count,), MID[name] * US)
    g = technology.programmed(target, normals(count, "write", name)).double()
    sigma = technology.sigma(target[:1]).item()
    assert g.std().item() == pytest.approx(sigma, rel=5 / math.sqrt(2 * count))
    assert g.mean().item() == pytest.approx(
        MID[name] * US, abs=5 * sigma / math.sqrt(count) + 1e-11
    )
    if name in AT_23_4:
        assert g.std().item() == pytest.approx(AT_23_4[name] * US, rel=0.02)


def test_the_tables_of_one_chip_are_told_apart_by_name() -> None:
    technology, g = load("neurram-hfox"), torch.tensor(23.4 * US)
    assert technology.sigma(g, "1 s").equal(technology.sigma(g))
    assert technology.sigma(g, "1 day").item() == pytest.approx(3.75 * US, rel=0.002)
    assert technology.sigma(torch.tensor(40 * US), "2 days").item() == pytest.approx(
        (0.782 + 20.274 - 43.507 + 37.062 - 11.934) * US, rel=1e-3
    )
    later = technology.programmed(g[None], torch.ones(1), "1 day")
    torch.testing.assert_close(later, (g + technology.sigma(g, "1 day"))[None])
    with pytest.raises(UnknownName, match="'1 day'"):
        technology.sigma(g, "1 dya")


@given(name=st.sampled_from(SHIPPED), tails=st.sampled_from(["gaussian", "log-logistic"]))
@settings(max_examples=20, deadline=None)
def test_conductances_are_finite_and_never_negative(name: str, tails: str) -> None:
    technology = replace(load(name), tails=tails)
    targets = torch.linspace(technology.low_siemens, technology.high_siemens, 500).repeat(5)
    far = torch.linspace(-8, 8, 5).repeat_interleave(500)
    g = technology.programmed(targets, far)
    aged = technology.relaxed(g, targets, far, 1e5)
    noise = technology.read_sigma(aged, 1e5, far)
    for value in (g, aged, noise):
        assert bool((torch.isfinite(value) & (value >= 0)).all())


def test_cells_and_their_random_numbers_must_be_as_many() -> None:
    technology, g = load("cmo-hfox-2"), torch.full((3,), 20e-6)
    with pytest.raises(SettingError, match=r"shape \(3,\), got \(4,\)"):
        technology.programmed(g, torch.zeros(4))
    with pytest.raises(SettingError, match=r"shape \(3,\), got \(1,\)"):
        technology.relaxed(g, g, torch.zeros(1), 10.0)


# ---- tails ---------------------------------------------------------------


@pytest.mark.parametrize("ratio", [1e-9, 1e-4, 9.99e-4, 1.001e-3, 0.01, 0.1, 0.5, 1.0])
def test_log_logistic_cells_have_the_stated_moments_in_closed_form(ratio: float) -> None:
    # Read scale and shape back from two quantiles: Phi(n) = 1/2 and another.
    at = torch.tensor([0.0, 1.0], dtype=torch.float64)
    g = log_logistic(torch.ones(2).double(), torch.full((2,), ratio).double(), at).numpy()
    u = stats.norm.cdf(1.0)
    if ratio < 1e-6:  # ln g loses all digits to rounding: compare with a logistic
        step = ratio * math.sqrt(3) / math.pi * math.log(u / (1 - u))
        assert g[1] - 1 == pytest.approx(step, rel=1e-5)
        return
    shape = math.log(u / (1 - u)) / math.log(g[1] / g[0])
    q = math.pi / shape
    assert g[0] * q / math.sin(q) == pytest.approx(1.0, rel=1e-9)
    assert math.sqrt(math.tan(q) / q - 1) == pytest.approx(ratio, rel=1e-5)


@given(ratio=st.floats(2e-3, 1.0), n=st.floats(-6, 6))
@settings(max_examples=60, deadline=None)
def test_log_logistic_cells_are_quantiles_of_the_fisk_distribution(ratio: float, n: float) -> None:
    q = optimize.brentq(lambda q: math.tan(q) / q - 1 - ratio**2, 1e-6, 1.5, xtol=1e-14)
    law = stats.fisk(math.pi / q, scale=5e-6 * math.sin(q) / q)
    expected = law.ppf(stats.norm.cdf(n)) if n < 0 else law.isf(stats.norm.sf(n))
    mean = torch.tensor(5e-6, dtype=torch.float64)
    got = log_logistic(mean, ratio * mean, torch.tensor(n, dtype=torch.float64))
    assert got.item() == pytest.approx(expected, rel=1e-6)


def test_log_logistic_tails_keep_mean_and_sigma_and_are_heavier() -> None:
    # 400,000 cells. The variance of a sample standard deviation is
    # sigma^2 (kurtosis - 1) / 4n; the kurtosis of this law is about 4.5.
    count, target = 400_000, 20e-6
    technology = load("neurram-hfox")
    heavy = replace(technology, tails="log-logistic")
    n = normals(count, "tails")
    targets = torch.full((count,), target)
    sigma = technology.sigma(targets[:1]).item()
    g = heavy.programmed(targets, n).double()
    assert g.mean().item() == pytest.approx(target, abs=5 * sigma / math.sqrt(count))
    assert g.std().item() == pytest.approx(sigma, rel=5 * math.sqrt(3.5 / 4 / count))
    # Cells beyond four sigma, against both distribution functions.
    q = optimize.brentq(lambda q: math.tan(q) / q - 1 - (sigma / target) ** 2, 1e-6, 1.5)
    law = stats.fisk(math.pi / q, scale=target * math.sin(q) / q)
    rate = law.sf(target + 4 * sigma) + law.cdf(target - 4 * sigma)
    beyond = ((g - target).abs() > 4 * sigma).double().mean().item()
    assert beyond == pytest.approx(rate, abs=5 * math.sqrt(rate / count))
    assert rate > 20 * 2 * stats.norm.sf(4)


def test_a_cell_keeps_its_rank_whatever_the_tails() -> None:
    technology, n = load("neurram-hfox"), torch.linspace(-4, 4, 101)
    targets = torch.full_like(n, 20e-6)
    for tails in ("gaussian", "log-logistic"):
        g = replace(technology, tails=tails).programmed(targets, n)
        assert bool((g.diff() > 0).all())


def test_power_law_drift_with_logistic_exponents_is_log_logistic() -> None:
    technology = replace(load("pcm-nandakumar"), tails="log-logistic")
    targets = torch.full((7,), 20e-6)
    n = torch.linspace(-3, 3, 7)
    g = technology.relaxed(targets, targets, n, 20e3)
    law = technology.relaxation
    nu, spread = law.exponent(targets[:1]).item(), law.exponent_spread(targets[:1]).item()
    scale = 20e-6 * 1e3**-nu
    shape = math.pi / (math.sqrt(3) * spread * math.log(1e3))
    expected = stats.fisk(shape, scale=scale).isf(stats.norm.cdf(n.numpy()))
    np.testing.assert_allclose(g, expected, rtol=1e-5)


def test_logistic_numbers_have_unit_variance() -> None:
    # 200,000 numbers, kurtosis 4.2: five standard errors of the sigma.
    n = logistic(normals(200_000, "logistic"))
    assert n.std().item() == pytest.approx(1.0, rel=5 * math.sqrt(3.2 / 4 / 200_000))


# ---- ageing --------------------------------------------------------------


@given(seed=st.integers(0, 2**31), age_s=st.floats(1.0, 3e8), n=st.floats(-4, 4))
@settings(max_examples=40, deadline=None)
def test_log_relaxation_is_its_closed_form(seed: int, age_s: float, n: float) -> None:
    g = uniform(20e-6, 90e-6, 20, seed).double()
    aged = load("cmo-hfox-2").relaxed(g, g, torch.full_like(g, n), age_s)
    log_t = math.log(age_s)
    expected = g + US * (-0.089 * log_t + (0.4118 + 0.0420 * log_t) * n)
    torch.testing.assert_close(aged, expected, rtol=1e-9, atol=0)


def test_cmo_cells_lose_what_was_published() -> None:
    technology, g = load("cmo-hfox-0.2"), torch.full((1,), 23.4 * US)
    for age_s, mean, spread in ((10.0, 23.195, 0.5085), (DAY_S, 22.388, 0.8892)):
        middle = technology.relaxed(g, g, torch.zeros(1), age_s).item()
        assert middle == pytest.approx(mean * US, rel=1e-4)
        above = technology.relaxed(g, g, torch.ones(1), age_s).item()
        assert above - middle == pytest.approx(spread * US, rel=1e-3)


@given(seed=st.integers(0, 2**31), age_s=st.floats(20.0, 3e7), n=st.floats(-4, 4))
@settings(max_examples=40, deadline=None)
def test_drift_is_a_power_law_with_an_exponent_per_cell(seed: int, age_s: float, n: float) -> None:
    targets = uniform(0.1e-6, 25e-6, 20, seed).double()
    g = targets * 1.05
    aged = load("pcm-nandakumar").relaxed(g, targets, torch.full_like(g, n), age_s)
    log_x = (targets / 25e-6).log()
    mean = (-0.0155 * log_x + 0.0244).clamp(0.049, 0.1)
    spread = (-0.0125 * log_x - 0.0059).clamp(0.008, 0.045)
    expected = g * (age_s / 20) ** -(mean + spread * n).clamp(min=0)
    torch.testing.assert_close(aged, expected, rtol=1e-9, atol=0)


@given(seed=st.integers(0, 2**31), share=st.floats(0, 1), late=st.booleans())
@settings(max_examples=40, deadline=None)
def test_tables_are_interpolated_in_the_logarithm_of_time(
    seed: int, share: float, late: bool
) -> None:
    technology = load("neurram-hfox")
    a, b = ("1 day", "2 days") if late else ("1 s", "1 day")
    times = {p.name: p.after_s for p in technology.programming}
    age_s = math.exp((1 - share) * math.log(times[a]) + share * math.log(times[b]))
    targets = uniform(15e-6, 40e-6, 20, seed).double()
    sigma = (1 - share) * technology.sigma(targets, a) + share * technology.sigma(targets, b)
    added = (sigma**2 - technology.sigma(targets) ** 2).clamp(min=0).sqrt()
    aged = technology.relaxed(targets, targets, torch.ones_like(targets), age_s)
    # At the ends of a segment the root of a difference amplifies rounding.
    torch.testing.assert_close(aged - targets, added, rtol=1e-6, atol=1e-12)


def test_cells_written_and_relaxed_scatter_as_the_later_table_says() -> None:
    # 200,000 cells, five standard errors of a standard deviation: 0.8 %.
    technology, count = load("neurram-hfox"), 200_000
    targets = torch.full((count,), 23.4 * US)
    g = technology.programmed(targets, normals(count, "write"))
    for age_s, sigma in ((1.0, 1.836), (DAY_S, 3.746)):
        aged = technology.relaxed(g, targets, normals(count, "relax"), age_s)
        assert aged.double().std().item() == pytest.approx(
            sigma * US, rel=5 / math.sqrt(2 * count) + 1e-3
        )


def test_cells_written_by_a_later_table_do_not_broaden_before_its_time() -> None:
    technology, targets = load("neurram-hfox"), torch.full((1,), 23.4 * US)
    g = technology.programmed(targets, torch.ones(1), "1 day")
    n = torch.ones(1)
    for age_s in (1.0, 3600.0, DAY_S):
        aged = technology.relaxed(g, targets, n, age_s, table="1 day")
        torch.testing.assert_close(aged, g, rtol=1e-6, atol=0)


@given(
    name=st.sampled_from(AGEING),
    tails=st.sampled_from(["gaussian", "log-logistic"]),
    seed=st.integers(0, 2**31),
    early=st.floats(0, 1),
)
@settings(max_examples=40, deadline=None)
def test_before_the_first_measured_time_nothing_changes(
    name: str, tails: str, seed: int, early: float
) -> None:
    technology = replace(load(name), tails=tails)
    targets = uniform(15e-6, 25e-6, 20, seed)
    n = torch.randn(20, generator=Key(seed).child("n").torch())
    first_s = technology.relaxation.first_s
    at_first = technology.relaxed(targets, targets, n, first_s)
    assert technology.relaxed(targets, targets, n, early * first_s).equal(at_first)
    assert technology.read_sigma(targets, early * technology.read_noise.first_s).equal(
        technology.read_sigma(targets, technology.read_noise.first_s)
    )


@given(
    name=st.sampled_from(AGEING),
    tails=st.sampled_from(["gaussian", "log-logistic"]),
    log_a=st.floats(-5, 11.5),
    step=st.floats(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_the_mean_conductance_never_rises(name: str, tails: str, log_a: float, step: float) -> None:
    # The mean over the distribution by Gauss-Hermite quadrature, no sampling.
    technology = replace(load(name), tails=tails)
    at, weight = np.polynomial.hermite_e.hermegauss(31)
    weight = weight / weight.sum()
    n = torch.from_numpy(at)
    targets = torch.full_like(n, 20e-6)
    last_s = min(technology.relaxation.last_s, 1.7e5)
    ages = [min(math.exp(log), last_s) for log in (log_a, log_a + step)]
    a, b = (
        float((technology.relaxed(targets, targets, n, t).numpy() * weight).sum()) for t in ages
    )
    # Quadrature of the smooth but skewed log-logistic: 1e-4 of the spread.
    assert b <= a + 1e-10


@given(name=st.sampled_from(AGEING), seed=st.integers(0, 2**31), log_t=st.floats(-3, 12))
@settings(max_examples=60, deadline=None)
def test_trajectories_are_continuous_in_time(name: str, seed: int, log_t: float) -> None:
    technology = load(name)
    targets = uniform(15e-6, 25e-6, 20, seed).double()
    n = torch.randn(20, generator=Key(seed).child("n").torch()).double()
    t = min(math.exp(log_t), 1.7e5)
    a, b = (technology.relaxed(targets, targets, n, s) for s in (t, t * (1 + 1e-9)))
    # A root starts vertically: sqrt(1e-9 x 2 sigma dsigma/dln t) is 1e-4 uS.
    assert float((a - b).abs().max()) < 5e-4 * US


@given(
    name=st.sampled_from(["cmo-hfox-0.2", "neurram-hfox"]),
    seed=st.integers(0, 2**31),
    a=st.floats(0.1, 1e3),
    b=st.floats(0.1, 20),
    hot=st.floats(300, 330),
)
@settings(max_examples=40, deadline=None)
def test_splitting_a_wait_changes_nothing(
    name: str, seed: int, a: float, b: float, hot: float
) -> None:
    technology = heatable(name)
    targets = uniform(15e-6, 25e-6, 20, seed).double()
    n = torch.randn(20, generator=Key(seed).child("n").torch()).double()
    whole = technology.relaxed(targets, targets, n, a + b, hot)
    factor = technology.acceleration(hot)
    split = technology.relaxed(targets, targets, n, a * factor + b * factor)
    torch.testing.assert_close(whole, split, rtol=1e-9, atol=0)
    # The same in any order of computing: nothing is remembered.
    assert technology.relaxed(targets, targets, n, a + b, hot).equal(whole)


@given(kelvin=st.floats(273, 400))
@settings(max_examples=40, deadline=None)
def test_heat_speeds_relaxation_up_as_arrhenius_says(kelvin: float) -> None:
    joules = 1.2 * constants.elementary_charge
    expected = math.exp(joules / constants.Boltzmann * (1 / 300 - 1 / kelvin))
    assert heatable("cmo-hfox-2").acceleration(kelvin) == pytest.approx(expected, rel=1e-9)


def test_a_hot_hour_ages_like_a_long_cold_one() -> None:
    technology, g, n = heatable("cmo-hfox-2"), torch.full((1,), 50e-6), torch.ones(1)
    hot = technology.relaxed(g, g, n, 3600.0, 358.0)
    cold = technology.relaxed(g, g, n, 3600.0 * technology.acceleration(358.0))
    assert hot.equal(cold)
    assert technology.acceleration(300.0) == 1.0
    assert 1800 < technology.acceleration(358.0) < 1900


@pytest.mark.parametrize("age_s", [-1.0, math.nan, math.inf])
def test_an_impossible_age_is_refused(age_s: float) -> None:
    technology, g = load("cmo-hfox-2"), torch.full((1,), 50e-6)
    with pytest.raises(DialError, match="finite number of seconds >= 0"):
        technology.relaxed(g, g, g, age_s)
    with pytest.raises(DialError, match="finite number of seconds >= 0"):
        technology.read_sigma(g, age_s)


def test_later_than_measured_and_hotter_than_known_are_refused() -> None:
    technology, g = heatable("neurram-hfox"), torch.full((1,), 20e-6)
    technology.relaxed(g, g, g, 2 * DAY_S)
    with pytest.raises(DialError, match=r"up to 172800 s.*got 200000 s.*Program again"):
        technology.relaxed(g, g, g, 2e5)
    with pytest.raises(DialError, match="up to 172800 s"):
        technology.relaxed(g, g, g, DAY_S, 358.0)
    with pytest.raises(DialError, match=r"273 to 400 K, got 500 K"):
        technology.acceleration(500.0)
    with pytest.raises(DialError, match=r"no activation energy.*Set activation_ev"):
        load("pcm-joshi").acceleration(350.0)
    assert load("pcm-joshi").acceleration(300.0) == 1.0


def test_a_technology_without_tables_for_it_neither_ages_nor_makes_noise() -> None:
    technology = replace(load("hfo2-igvva100"), read_noise=None)
    g = torch.full((2,), 1e-4)
    assert technology.relaxed(g, g, g, 1e9, 400.0) is g
    assert technology.acceleration(400.0) == 1.0
    assert not technology.read_sigma(g, 1.0).any()


# ---- read noise ----------------------------------------------------------


@given(seed=st.integers(0, 2**31), age_s=st.floats(1.0, 1e8))
@settings(max_examples=30, deadline=None)
def test_read_noise_is_its_closed_form(seed: int, age_s: float) -> None:
    g = uniform(1e-6, 90e-6, 20, seed).double()
    growth = math.sqrt(math.log((age_s + 1e-6) / 2e-6))
    expected = 0.0277316 * US * (g / US).log10() * growth
    torch.testing.assert_close(load("cmo-hfox-2").read_sigma(g, age_s), expected)
    x, t = g / 25e-6, max(age_s, 20.0)
    growth = math.sqrt(math.log((t + 250e-9) / 500e-9))
    expected = g * (0.0088 / x**0.65).clamp(max=0.2) * growth
    torch.testing.assert_close(load("pcm-nandakumar").read_sigma(g, age_s), expected)
    torch.testing.assert_close(load("neurram-hfox").read_sigma(g, age_s), 0.006 * g)


def test_read_noise_at_23_4_microsiemens_is_the_published_one() -> None:
    g = torch.tensor(23.4 * US)
    for age_s, sigma in ((1.0, 0.138), (10.0, 0.149)):
        assert load("cmo-hfox-2").read_sigma(g, age_s).item() == pytest.approx(sigma * US, rel=0.01)
    # PCM after an hour: 4.4 % here, 6.6 % at 12.5 uS, 11.9 % at 5 uS.
    pcm = load("pcm-nandakumar")
    for us, relative in ((23.4, 0.044), (12.5, 0.066), (5.0, 0.119)):
        g = torch.tensor(us * US)
        assert (pcm.read_sigma(g, 3600.0) / g).item() == pytest.approx(relative, rel=0.01)


def test_a_cell_without_conductance_has_no_read_noise() -> None:
    for name in SHIPPED:
        assert load(name).read_sigma(torch.zeros(1), 100.0).item() == 0


def test_noise_levels_spread_log_normally_over_cells_at_equal_mean_power() -> None:
    # 200,000 cells; the factor squared has a coefficient of variation of
    # sqrt(exp(4 s^2) - 1) = 1.31 at s = 0.5.
    noise, n = load("cmo-hfox-2").read_noise, normals(200_000, "levels")
    factors = noise.factors(n).double()
    error = math.sqrt(math.expm1(4 * 0.5**2) / len(n))
    assert factors.square().mean().item() == pytest.approx(1.0, abs=5 * error)
    assert factors.log().std().item() == pytest.approx(0.5, rel=5 / math.sqrt(2 * len(n)))
    g = torch.full((len(n),), 20e-6)
    torch.testing.assert_close(noise.sigma(g, 1.0, n), noise.sigma(g, 1.0) * noise.factors(n))


# ---- files ---------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_a_technology_survives_the_round_trip_through_a_file(name: str, tmp_path: Path) -> None:
    technology = load(name)
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(technology), encoding="utf-8")
    assert load(path) == technology
    assert load(str(path)) == technology


def test_text_of_any_kind_survives_the_round_trip(tmp_path: Path) -> None:
    odd = 'quote " backslash \\ newline \n tab \t umlaut ü bell \x07 del \x7f [x] = "y" # z'
    technology = replace(load("cmo-hfox-2"), about=odd, source="")
    path = tmp_path / "odd.toml"
    path.write_text(to_toml(technology), encoding="utf-8")
    assert load(path).about == odd


MINE = """
name = "mine"
about = "one wafer"
source = "our lab, lot 7"
g_min_siemens = 2e-6
g_max_siemens = 10e-6
low_siemens = 1e-6
high_siemens = 10e-6
pulse_s = 1e-6
pulse_joules = 0
write_source = "our lab"

[[programming]]
name = "now"
after_s = 0
source = "our lab"
[programming.sigma]
low_siemens = 1e-6
high_siemens = 10e-6
"""


def test_a_users_own_file_takes_its_points_from_a_csv_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE + 'points_csv = "sigma.csv"\n')
    rows = "conductance_siemens,sigma_siemens\n1e-6,1e-7\n4e-6,2e-7\n\n10e-6,5e-7\n"
    (tmp_path / "sigma.csv").write_text(rows, encoding="utf-8-sig")
    technology = load(path)
    assert technology.name == "mine" and technology.window_siemens == pytest.approx(8e-6)
    sigma = technology.sigma(torch.tensor([2.5e-6, 7e-6]))
    torch.testing.assert_close(sigma, torch.tensor([1.5e-7, 3.5e-7]))
    assert load(path) == technology


@pytest.mark.parametrize(
    ("rows", "finding"),
    [
        ("conductance_siemens,s\n1e-6,1e-7\n4e-6,\n10e-6,5e-7\n", "line 3: two finite numbers"),
        ("conductance_siemens,s\n1e-6,1e-7\n4e-6,nan\n10e-6,5e-7\n", "line 3.*remove the line"),
        ("conductance_siemens,s\n1e-6,1e-7\n4e-6\n10e-6,5e-7\n", "line 3: two finite"),
        ("conductance_siemens,s\n1e-6,1e-7,3\n", "line 2: two finite"),
        ("conductance_siemens,s\n4e-6,1e-7\n1e-6,1e-7\n10e-6,5e-7\n", "must ascend"),
        ("conductance_siemens,s\n1e-6,1e-7\n10e-6,5e-7\n", "hole between"),
        ("conductance_siemens,s\n", "either coefficients or points"),
        ("", "the first line must be"),
        ("1e-6,1e-7\n4e-6,1e-7\n10e-6,5e-7\n", "the first line must be"),
        (None, "cannot read the points"),
    ],
)
def test_a_csv_with_a_hole_is_refused(rows: str | None, finding: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE + 'points_csv = "sigma.csv"\n')
    if rows is not None:
        (tmp_path / "sigma.csv").write_text(rows)
    with pytest.raises(ConfigError, match=finding):
        load(path)


def test_points_and_a_csv_of_points_exclude_each_other(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE + 'points_csv = "sigma.csv"\npoints = [[1e-6, 1e-7]]\n')
    with pytest.raises(ConfigError, match="both points and points_csv; keep one"):
        load(path)


@pytest.mark.parametrize("content", ["name = ", b"\xff\xfe\x00"])
def test_a_file_that_is_no_toml_is_refused(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=r"mine\.toml: not (valid TOML|a text file)"):
        load(path)


def test_a_name_or_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"'cmo-hfox-2'.*Known: cmo-hfox-0\.2, "):
        load("cmo-hfox")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)


def test_an_unknown_key_is_refused_wherever_it_stands() -> None:
    with pytest.raises(ConfigError, match=r"mine\.tails_: unknown key.*'tails'"):
        build(Technology, {**toml_of(), "tails_": "gaussian"}, "mine")
    for part in ("read_noise", "relaxation", "rtn", "endurance", "disturb", "nonlinearity"):
        table = toml_of()
        table[part] = {**table[part], "colour": 1}
        with pytest.raises(ConfigError, match=rf"mine\.{part}\.colour: unknown key"):
            build(Technology, table, "mine")


def altered(name: str = "cmo-hfox-2", **changes: object) -> dict[str, object]:
    """The table of a shipped technology with entries changed; dots lead inside."""
    table = toml_of(name)
    for path, value in changes.items():
        *above, key = path.split("__")
        inner = table
        for part in above:
            inner = inner[int(part) if part.isdigit() else part]
        inner[key] = value
        if value is None:
            del inner[key]
    return table


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"g_max_siemens": 95e-6}, "lie in the valid range"),
        ({"g_max_siemens": 8e-6}, "must rise and"),
        ({"low_siemens": 1e-6}, "is not all of 1e-06 to 9e-05 S"),
        ({"programming": []}, "at least one programming table"),
        ({"source": None}, "mine.source: Field required"),
        ({"tails": "cauchy"}, "mine.tails"),
        ({"read_noise__first_s": 1e-7}, "1/f noise is not defined"),
        ({"read_noise__exponent": 0.5}, "takes no exponent"),
        ({"read_noise__kind": "pcm"}, "needs most"),
        ({"relaxation__spread_siemens": None}, "needs spread_siemens"),
        ({"relaxation__kind": "power"}, "does not take mean_siemens_per_ln"),
        ({"relaxation__kind": "tables"}, "does not take mean_siemens_per_ln"),
        ({"relaxation__activation_ev": None}, "or none of them"),
        ({"relaxation__low_temperature_k": 310.0}, "must be from low_temperature_k"),
        ({"relaxation__last_s": 0.5}, "must not exceed last_s"),
        ({"relaxation__first_s": math.nan}, "mine.relaxation.first_s"),
        ({"rtn__fastest_s": 10.0}, "must not exceed slowest_s"),
        ({"rtn__active_fraction": 1.5}, "mine.rtn.active_fraction"),
        ({"endurance__spread_ln": 0.5}, "either weibull_shape or spread_ln"),
        ({"endurance__weibull_shape": None}, "either weibull_shape or spread_ln"),
        ({"endurance__fails_to": "middle"}, "mine.endurance.fails_to"),
        ({"nonlinearity__cubic_per_v2": -2.0}, "must rise with the voltage"),
        ({"disturb__first_reads": 0.0}, "mine.disturb.first_reads"),
    ],
)
def test_a_table_without_sense_is_refused(changes: dict[str, object], finding: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(finding)):
        build(Technology, altered(**changes), "mine")


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"programming__1__after_s": 0.5}, "ascending after_s"),
        ({"programming__1__name": "1 s"}, "different names"),
        ({"relaxation__last_s": 1e6}, "must be those of the tables"),
        ({"programming__1__sigma__high_siemens": 20e-6}, "narrow low_siemens and high_siemens"),
    ],
)
def test_tables_at_several_times_must_fit_together(
    changes: dict[str, object], finding: str
) -> None:
    with pytest.raises(ConfigError, match=finding):
        build(Technology, altered("neurram-hfox", **changes), "mine")


def test_every_shipped_table_names_its_source() -> None:
    for name in SHIPPED:
        technology = load(name)
        parts = [
            *technology.programming,
            technology.relaxation,
            technology.read_noise,
            technology.rtn,
            technology.nonlinearity,
            technology.endurance,
            technology.disturb,
        ]
        for part in filter(None, parts):
            assert part.source.strip(), f"{name}: {part}"
        assert technology.source and technology.write_source
        assert technology.name == name


@given(cubic=st.floats(-1, 1), quintic=st.floats(-1, 1), volts=st.floats(0.05, 2))
@settings(max_examples=80, deadline=None)
def test_an_accepted_nonlinearity_has_a_rising_current(
    cubic: float, quintic: float, volts: float
) -> None:
    options = {"cubic_per_v2": cubic, "quintic_per_v4": quintic, "v_max": volts, "source": "x"}
    v = np.linspace(0, volts, 2001)
    slope = 1 + 3 * cubic * v**2 + 5 * quintic * v**4
    if slope.min() < -1e-6:
        with pytest.raises(ConfigError, match="must rise"):
            build(Nonlinearity, options, "x")
    elif slope.min() > 1e-5:
        build(Nonlinearity, options, "x")


def test_the_laws_can_be_made_without_a_file() -> None:
    noise = ReadNoise(kind="relative", level=0.01, read_time_s=1e-6, first_s=1.0, source="me")
    assert noise.sigma(torch.tensor(10e-6), 5.0).item() == pytest.approx(1e-7)
    still = Relaxation(
        kind="log",
        first_s=1.0,
        last_s=1e6,
        source="me",
        temperature_k=300.0,
        mean_siemens_per_ln=0.0,
        spread_siemens_per_ln=0.0,
        spread_siemens=0.0,
    )
    g = torch.full((3,), 20e-6)
    assert replace(load("cmo-hfox-2"), relaxation=still).relaxed(g, g, g, 1e5).equal(g)
    Rtn(active_fraction=0.1, amplitude=0.1, fastest_s=1.0, slowest_s=1.0, source="me")
    Endurance(median_cycles=1e6, spread_ln=1.0, fails_to="high", source="me")


@pytest.mark.parametrize("name", ["cmo-hfox-2", "pcm-nandakumar", "neurram-hfox"])
def test_cells_of_different_ages_are_those_of_each_age_by_itself(name):
    technology = load(name)
    times = [0.0, 0.5, 1.0, 30.0, 4e4, 8.64e4, 1e5, 1.7e5]
    g = uniform(technology.g_min_siemens + US, technology.g_max_siemens, 50, 3)
    g = g.repeat(len(times), 1)
    n = normals(50, "mixed").repeat(len(times), 1)
    each = torch.tensor(times, dtype=torch.float64)[:, None].expand(g.shape)
    relaxed, sigma = technology.relaxed(g, g, n, each), technology.read_sigma(g, each, n)
    assert relaxed.dtype == sigma.dtype == torch.float32
    for row, age_s in enumerate(times):
        alone = technology.relaxed(g[row], g[row], n[row], age_s)
        assert torch.allclose(relaxed[row], alone, rtol=1e-5, atol=1e-12)
        assert torch.allclose(sigma[row], technology.read_sigma(g[row], age_s, n[row]), rtol=1e-5)
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(DialError, match="age must be a finite"):
            technology.relaxed(g, g, n, torch.where(g < g.max(), each, bad))
    with pytest.raises(DialError, match="holds up to"):
        technology.relaxed(g, g, n, each + technology.relaxation.last_s)


def test_what_a_verify_accepts_is_stated_as_a_share_of_the_target_or_not_at_all():
    stated = {name: load(name).table().accept_relative for name in names()}
    known = {name: share for name, share in stated.items() if share is not None}
    assert known == {"cmo-hfox-2": 0.02, "cmo-hfox-0.2": 0.002}
    given = tomllib.loads(to_toml(load("cmo-hfox-2")))
    given["programming"][0]["accept_relative"] = 0.0
    with pytest.raises(ConfigError, match="accept_relative"):
        build(Technology, given, "own.toml")
