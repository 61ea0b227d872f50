"""The error budget against closed forms, sampled laws, and the simulated rig."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from substrates.optics.budget import Budget, budget
from substrates.optics.budgetcamera import Clipped, Floor, gain_spread, noise, stuck_pixels
from substrates.optics.budgetlight import (
    amplitude_overlap,
    drift,
    faulty_overlap,
    few_inputs,
    full_turn,
    half_turn,
    phase_overlap,
)
from substrates.optics.conditions import Conditions, conditions_of
from substrates.optics.medium import gaussian_matrix, with_unmodulated
from substrates.optics.modulator import even_phases, flickered, phase_light
from substrates.optics.modulatortable import ModulatorTable, make_modulator
from substrates.optics.parametershift import shift_derivative
from substrates.optics.presets import configured
from substrates.optics.rig import make
from substrates.optics.slm import PhaseSlm
from twin.config import build
from twin.errors import ConfigError
from twin.key import Key

SEEDS = st.integers(0, 2**32 - 1)
GROUPS, FRAMES, PIXELS = 12, 16, 2048
"""Independent media, drives behind each, pixels."""


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation along the last axis, float64."""
    a, b = (v.double() - v.double().mean(-1, keepdim=True) for v in (a, b))
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))


def mean_and_error(groups: list[float]) -> tuple[float, float]:
    """Mean of independent groups and its standard error."""
    found = torch.tensor(groups, dtype=torch.float64)
    return found.mean().item(), found.std().item() / math.sqrt(len(found))


def drives(group: int, inputs: int, frames: int = FRAMES) -> Tensor:
    return torch.rand((frames, inputs), generator=Key(group).child("drive").torch())


def intensity(light: Tensor, group: int, pixels: int = PIXELS) -> Tensor:
    """|T E|^2 (frames, pixels) behind the medium of a group."""
    matrix = gaussian_matrix(pixels, light.shape[1], Key(group).child("medium"))
    return (light.to(torch.complex64) @ matrix.t()).abs().square()


def conditions(**options: object) -> Conditions:
    return build(Conditions, options, "budget")


def correlation(**options: object) -> float:
    return budget(conditions(**options)).correlation


# ---------------------------------------------------------------- against the rig

RIGS: list[dict[str, object]] = [
    {},
    {"modulator_levels": 3},
    {"modulator_levels": 2, "inputs": 8},
    {"phase_flicker_rad": 0.3},
    {"dead_macropixel_fraction": 0.3},
    {"mean_electrons": 10.0, "read_noise_electrons": 0.0},
    {"mean_electrons": 20.0, "read_noise_electrons": 5.0},
    {"mean_electrons": 100.0, "full_scale_over_mean": 4.0},
    {"full_scale_over_mean": 2.0, "shot_noise": "none"},
    {"camera_bits": 5},
    {"stuck_pixel_fraction": 0.2},
    {"shot_noise": "gaussian", "mean_electrons": 200.0, "dark_electrons_per_s": 5000.0},
    {
        "modulator_levels": 4,
        "phase_flicker_rad": 0.2,
        "dead_macropixel_fraction": 0.05,
        "mean_electrons": 50.0,
        "full_scale_over_mean": 5.0,
        "stuck_pixel_fraction": 0.02,
        "camera_bits": 6,
    },
]


def simulated(options: dict[str, object]) -> tuple[float, float]:
    """Pearson of a rig with a perfect one of the same key: mean over media, standard error."""
    groups = []
    for group in range(GROUPS):
        size = {"inputs": options.get("inputs", 64), "pixels": PIXELS}
        drive = drives(group, int(str(size["inputs"])))
        perfect = make(key=Key(group), preset="ideal", **size).forward(drive, key=Key(0))
        rig = make(key=Key(group), **{**options, **size})
        frames = rig.forward(drive, key=Key(group).child("call"))
        groups.append(pearson(perfect.codes, frames.codes).mean().item())
    return mean_and_error(groups)


@pytest.mark.parametrize("options", RIGS, ids=str)
def test_the_budget_of_a_configuration_is_what_its_simulation_shows(
    options: dict[str, object],
) -> None:
    """12 media x 16 drives x 2048 pixels, within five standard errors.

    1e-5 is allowed for the perfect rig's own 16 bits.
    """
    predicted = budget(conditions_of(configured(options)))
    found, error = simulated(options)
    assert predicted.holds
    assert error < 0.02
    assert abs(found - predicted.correlation) < 5 * error + 1e-5


def test_a_budget_without_the_worst_defect_would_be_caught() -> None:
    """The comparison can fail: leave out the largest factor of the rig with all defects."""
    predicted = budget(conditions_of(configured(RIGS[-1])))
    found, error = simulated(RIGS[-1])
    assert abs(found - predicted.correlation / predicted.worst.value) > 5 * error + 1e-5


# ---------------------------------------------------------------- light


@pytest.mark.parametrize("levels", [2, 3, 4, 8, 16])
def test_phases_rounded_on_a_full_turn_decorrelate_as_sinc_squared(levels: int) -> None:
    """sinc^2(1/L): 12 media x 16 drives of 128 inputs."""
    groups = []
    for group in range(GROUPS):
        wanted = drives(group, 128)
        shown = (wanted * levels).round() / levels
        a, b = (torch.polar(torch.ones_like(p), 2 * math.pi * p) for p in (wanted, shown))
        groups.append(pearson(intensity(a, group), intensity(b, group)).mean().item())
    found, error = mean_and_error(groups)
    assert abs(found - few_inputs(full_turn(levels), 128)) < 5 * error
    assert 5 * error < 0.1


@given(levels=st.integers(2, 500))
@settings(max_examples=50, deadline=None)
def test_the_overlap_of_even_phases_on_half_a_turn_is_sinc_squared(levels: int) -> None:
    exact = phase_overlap(phase_light(even_phases(levels))).pearson
    assert exact == pytest.approx(half_turn(levels), rel=1e-12)
    assert half_turn(levels) == pytest.approx(full_turn(2 * (levels - 1)), rel=1e-12)


def with_modulator(table: dict[str, object], wanted: str, inputs: int = 128) -> list[float]:
    """Pearson per medium of a modulator with perfect phases or grey amplitudes."""
    groups = []
    for group in range(GROUPS):
        drive = drives(group, inputs)
        made = make_modulator(build(ModulatorTable, table, "modulator"), inputs, Key(group))
        phase = torch.polar(torch.ones_like(drive), math.pi * drive)
        target = drive.to(torch.complex64) if wanted == "drive" else phase
        shown = made.light(drive)
        groups.append(pearson(intensity(target, group), intensity(shown, group)).mean().item())
    return groups


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ({"turn_grey": 142.0}, "phase"),
        ({"turn_grey": 142.0, "believed_turn_grey": 256.0}, "phase"),
        ({"curve_rad": (0.0, 1.0, 3.5, 5.0), "believed_turn_grey": 250.0}, "phase"),
        ({"levels": 9, "stuck_fraction": 0.2}, "phase"),
        ({"kind": "lee", "pixels_per_side": 8, "lee_period": 4}, "phase"),
        ({"kind": "lee", "pixels_per_side": 8, "lee_period": 4, "lee_slant": 0.125}, "phase"),
        ({"kind": "dmd", "threshold": 0.4}, "drive"),
        ({"kind": "dmd", "binarise": "area", "pixels_per_side": 2}, "drive"),
    ],
    ids=str,
)
def test_curves_holograms_and_mirrors_cost_what_their_overlap_says(
    table: dict[str, object], wanted: str
) -> None:
    """12 media x 16 drives; 2 / inputs is allowed where the modulus is not constant."""
    found, error = mean_and_error(with_modulator(table, wanted))
    predicted = correlation(inputs=128, modulator=table)
    assert abs(found - predicted) < 5 * error + (2 / 128 * (1 - predicted) * (wanted == "drive"))
    assert 5 * error < 0.1


def test_a_macropixel_both_dead_and_stuck_is_dead() -> None:
    shown = phase_light(even_phases(5))
    good = phase_overlap(shown)
    dead = faulty_overlap(shown, good, 1.0, 1.0)
    assert dead.pearson == pytest.approx((2 / math.pi) ** 2)
    both = faulty_overlap(shown, good, 0.25, 0.5)
    mean = 0.375 * good.mean - 2j / math.pi * (0.25 + 0.375 * shown.mean().item())
    assert both.mean == pytest.approx(mean)


def test_a_driver_with_a_wrong_table_costs_more_than_a_calibrated_one() -> None:
    wrong = correlation(modulator={"turn_grey": 142.0, "believed_turn_grey": 256.0})
    right = correlation(modulator={"turn_grey": 142.0})
    assert right > 0.999 and wrong < 0.9


@pytest.mark.parametrize("fraction", [0.05, 0.35])
def test_unmodulated_light_costs_its_share(fraction: float) -> None:
    """Against the pattern without it: one more channel carries it. 12 media x 16 drives."""
    groups = []
    for group in range(GROUPS):
        drive = drives(group, 128)
        clean = torch.polar(torch.ones_like(drive), math.pi * drive)
        without = torch.cat([clean, torch.zeros(FRAMES, 1)], dim=1)
        patterns = (intensity(e, group) for e in (without, with_unmodulated(clean, fraction)))
        groups.append(pearson(*patterns).mean().item())
    found, error = mean_and_error(groups)
    predicted = budget(conditions(unmodulated_fraction=fraction)).factor("unmodulated light")
    assert predicted.value == 1 - fraction
    assert abs(found - predicted.value) < 5 * error


@pytest.mark.parametrize("rho", [0.99, 0.9, 0.5])
def test_a_drifted_medium_correlates_as_rho_squared(rho: float) -> None:
    """T' = rho T + sqrt(1 - rho^2) T'': 12 media x 16 drives."""
    groups = []
    for group in range(GROUPS):
        light = torch.polar(torch.ones(FRAMES, 64), math.pi * drives(group, 64))
        first, fresh = (gaussian_matrix(PIXELS, 64, Key(group).child(s)) for s in ("a", "b"))
        drifted = rho * first + math.sqrt(1 - rho**2) * fresh
        patterns = ((light @ t.t()).abs().square() for t in (first, drifted))
        groups.append(pearson(*patterns).mean().item())
    found, error = mean_and_error(groups)
    assert abs(found - drift(rho)) < 5 * error
    assert correlation(field_correlation=rho) == pytest.approx(correlation() * rho**2)


@pytest.mark.parametrize("inputs", [2, 5, 20])
def test_few_inputs_average_little(inputs: int) -> None:
    """p + (1 - p) / inputs exactly, for flicker: 100 000 patterns of phasors."""
    steady = torch.ones((100_000, inputs), dtype=torch.complex64)
    overlap = flickered(steady, 1.0, Key(1), 0).mean(1).abs().square().double()
    error = overlap.std().item() / math.sqrt(len(overlap))
    assert abs(overlap.mean().item() - few_inputs(math.exp(-1), inputs)) < 5 * error


@pytest.mark.parametrize(("wait_s", "frame_s"), [(0.0, 1.0), (0.01, 0.02), (0.02, 0.02)])
def test_an_unsettled_modulator_costs_what_the_law_says(wait_s: float, frame_s: float) -> None:
    """Time constant 20 ms: 12 media x 48 frames of a long run."""
    table = {"settling_s": 0.02, "settling_wait_s": wait_s}
    groups = []
    for group in range(GROUPS):
        made = make_modulator(build(ModulatorTable, table, "modulator"), 64, Key(group))
        assert isinstance(made, PhaseSlm)
        run = drives(group, 64, 60)
        shown = made.light_in_order(run, None, frame_s)[0][12:]
        wanted = torch.polar(torch.ones(48, 64), math.pi * run[12:])
        pair = (intensity(light, group, 1024) for light in (wanted, shown))
        groups.append(pearson(*pair).mean().item())
    found, error = mean_and_error(groups)
    predicted = correlation(inputs=64, modulator=table, frame_s=frame_s)
    assert abs(found - predicted) < 5 * error
    assert 5 * error < 0.06


# ---------------------------------------------------------------- camera


def speckle(patterns: int, count: int = 2**20) -> Tensor:
    """Sampled intensities (32, count / 32) of mean 1."""
    draws = torch.rand((patterns, count), generator=Key(patterns).torch(), dtype=torch.float64)
    return -(1 - draws).log().mean(0).view(32, -1)


def measured(intensities: Tensor, codes: Tensor) -> tuple[float, float]:
    return mean_and_error(pearson(intensities, codes).tolist())


def test_full_scale_at_four_times_the_mean_caps_the_correlation_at_0_983() -> None:
    assert Clipped(4.0).pearson == pytest.approx(0.9835, abs=5e-5)
    a = 4.0
    law = (1 - (1 + a) * math.exp(-a)) / math.sqrt(1 - 2 * a * math.exp(-a) - math.exp(-2 * a))
    assert Clipped(a).pearson == pytest.approx(law, rel=1e-12)
    assert correlation(full_scale_electrons=4e6, mean_electrons=1e6) < 0.9836


@pytest.mark.parametrize("patterns", [1, 2, 5])
@pytest.mark.parametrize("top", [0.3, 1.0, 2.0, 4.0, 8.0])
def test_clipped_speckle_has_the_moments_of_a_clipped_gamma_law(top: float, patterns: int) -> None:
    """2**20 pixels; Pearson, mean and fraction below full scale."""
    intensities = speckle(patterns)
    shown = intensities.clamp(max=top)
    law = Clipped(top, patterns)
    found, error = measured(intensities, shown)
    assert abs(found - law.pearson) < 5 * error + 1e-5
    mean, error = mean_and_error(shown.mean(1).tolist())
    assert abs(mean - law.mean) < 5 * error
    inside = (intensities < top).double().mean().item()
    assert abs(inside - law.inside) < 5 * math.sqrt(law.inside * (1 - law.inside) / 2**20) + 1e-9


@pytest.mark.parametrize("patterns", [1, 2, 4])
@pytest.mark.parametrize(("electrons", "read", "top"), [(10, 0, 10), (100, 20, 3), (30, 6, 5)])
def test_noise_on_clipped_speckle_costs_what_the_law_says(
    patterns: int, electrons: float, read: float, top: float
) -> None:
    """2**20 pixels, Poisson and Gaussian; a black level, so nothing is cut at zero."""
    intensities = speckle(patterns)
    generator = Key(5).torch()
    charge = torch.poisson(intensities * electrons, generator=generator)
    charge += read * torch.randn(charge.shape, generator=generator, dtype=torch.float64)
    law = Clipped(top, patterns)
    predicted = law.pearson * noise(law, 1 / electrons, (read / electrons) ** 2)
    found, error = measured(intensities, (charge / electrons).clamp(max=top))
    assert error < 1e-3
    assert abs(found - predicted) < 5 * error


def test_unclipped_noise_is_the_well_known_law() -> None:
    for electrons, read in ((10.0, 2.4), (100.0, 2.4), (1000.0, 6.83)):
        found = noise(Clipped(60.0), 1 / electrons, (read / electrons) ** 2)
        known = (1 + 1 / electrons + (read / electrons) ** 2) ** -0.5
        assert found == pytest.approx(known, rel=1e-9)


@pytest.mark.parametrize("read", [0.1, 0.3, 1.0, 5.0])
def test_codes_cut_at_zero_follow_their_closed_form(read: float) -> None:
    """2**20 pixels of speckle with Gaussian noise, cut at zero."""
    intensities = speckle(1)
    shown = intensities + read * torch.randn(
        intensities.shape, generator=Key(6).torch(), dtype=torch.float64
    )
    found, error = measured(intensities, shown.clamp(min=0))
    law = Floor(read)
    assert abs(found - law.gain / math.sqrt(1 + read**2)) < 5 * error
    mean, error = mean_and_error(shown.clamp(min=0).mean(1).tolist())
    assert abs(mean - law.mean) < 5 * error
    assert Floor(0.05).gain == pytest.approx(1 + math.sqrt(2 / math.pi) / 3 * 0.05**3, rel=1e-5)


@pytest.mark.parametrize("patterns", [1, 3])
def test_pixels_of_uneven_gain_and_stuck_ones_follow_their_laws(patterns: int) -> None:
    """2**20 pixels; gains spread by 20 %, then 30 % stuck at uniform 8-bit codes."""
    intensities, generator = speckle(patterns), Key(7).torch()
    law = Clipped(12.0, patterns)
    gains = 1 + 0.2 * torch.randn(intensities.shape, generator=generator, dtype=torch.float64)
    found, error = measured(intensities, intensities * gains)
    assert abs(found - gain_spread(law, law.variance, 0.2)) < 5 * error
    codes = torch.randint(256, intensities.shape, generator=generator) / 255 * 12
    stuck = torch.rand(intensities.shape, generator=generator) < 0.3
    found, error = measured(intensities, torch.where(stuck, codes, intensities))
    predicted = stuck_pixels(0.3, 256, 12.0, law.mean, law.variance)
    assert abs(found - predicted) < 5 * error


def test_more_patterns_leave_less_contrast_to_the_same_noise() -> None:
    light = {"mean_electrons": 100.0, "full_scale_electrons": 3000.0}
    found = [correlation(patterns=m, **light) for m in (1, 2, 4, 8)]
    assert found == sorted(found, reverse=True)
    assert found[1] == pytest.approx((1 + 2 / 100) ** -0.5, rel=1e-3)


# ---------------------------------------------------------------- properties


@st.composite
def rigs(draw: st.DrawFn) -> Conditions:
    """Any rig whose exposure follows the light: full scale is a multiple of the mean."""
    return conditions(
        inputs=draw(st.integers(1, 1000)),
        modulator={"levels": draw(st.integers(2, 256))},
        dead_fraction=draw(st.floats(0, 0.9)),
        flicker_rad=draw(st.floats(0, 1)),
        field_correlation=draw(st.floats(0, 1)),
        patterns=draw(st.integers(1, 6)),
        read_noise_electrons=draw(st.floats(0, 100)),
        shot_noise=draw(st.booleans()),
        bits=draw(st.integers(4, 16)),
        stuck_pixel_fraction=draw(st.floats(0, 0.9)),
        pixel_gain_spread=draw(st.floats(0, 0.1)),
        black_level=draw(st.booleans()),
    )


def exposed(rig: Conditions, electrons: float, over_mean: float) -> Budget:
    """Budget after auto-exposure: full scale at `over_mean` times the mean signal."""
    light = {"mean_electrons": electrons, "full_scale_electrons": over_mean * electrons}
    return budget(dataclasses.replace(rig, **light))


@given(
    rig=rigs(),
    dim=st.floats(1, 1e5),
    more=st.floats(1.0, 1e3),
    over_mean=st.floats(2, 30),
)
@settings(max_examples=150, deadline=None)
def test_with_auto_exposure_more_photons_never_lower_the_correlation(
    rig: Conditions, dim: float, more: float, over_mean: float
) -> None:
    few, many = (exposed(rig, n, over_mean).correlation for n in (dim, dim * more))
    assert many >= few - 1e-12


@given(rig=rigs(), electrons=st.floats(1, 1e6), over_mean=st.floats(0.3, 30))
@settings(max_examples=100, deadline=None)
def test_a_correlation_lies_between_nought_and_one(
    rig: Conditions, electrons: float, over_mean: float
) -> None:
    found = exposed(rig, electrons, over_mean)
    assert 0 <= found.correlation <= 1 + 1e-12
    assert all(math.isfinite(f.value) and f.law and f.source and f.valid for f in found.factors)
    assert found.correlation == pytest.approx(math.prod(f.value for f in found.factors))


@given(levels=st.integers(2, 255))
@settings(max_examples=50, deadline=None)
def test_more_levels_never_lower_the_correlation(levels: int) -> None:
    assert half_turn(levels + 1) > half_turn(levels)
    assert full_turn(levels + 1) > full_turn(levels)


def test_a_perfect_rig_has_a_perfect_budget() -> None:
    assert correlation() == pytest.approx(1.0, abs=1e-4)
    assert budget(conditions()).holds


def test_a_budget_says_where_it_does_not_hold() -> None:
    assert not budget(conditions(mean_electrons=1.0, full_scale_electrons=10.0)).holds
    noisy = {"mean_electrons": 100.0, "full_scale_electrons": 1000.0, "read_noise_electrons": 50.0}
    assert not budget(conditions(**noisy)).factor("codes cut at zero").holds
    assert budget(conditions(**noisy, black_level=True)).holds


def test_the_grey_a_mirror_cannot_show_costs_a_threshold_most_at_the_ends() -> None:
    """3 (1 - t^2)^2 / (4 (1 - t)) for a threshold t."""
    shown = torch.tensor([0, 1], dtype=torch.complex128)
    for t in (0.1, 0.5, 0.9):
        expected = 3 * (1 - t**2) ** 2 / (4 * (1 - t))
        assert amplitude_overlap(shown, t).pearson == pytest.approx(expected)


@pytest.mark.parametrize(
    "options",
    [{"mean_electrons": 0.0}, {"patterns": 0}, {"field_correlation": 1.1}, {"electrons": 3.0}],
)
def test_bad_conditions_name_the_field(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        conditions(**options)


def test_a_budget_without_room_for_light_or_an_unknown_factor_is_refused() -> None:
    with pytest.raises(ConfigError, match="fills the full scale"):
        budget(conditions(dark_electrons=1e9))
    with pytest.raises(ConfigError, match="clipping"):
        budget(conditions()).factor("cliping")


# ---------------------------------------------------------------- parameter shift


@given(seed=SEEDS, inputs=st.integers(1, 9), shift=st.floats(0.3, 2.8))
@settings(max_examples=50, deadline=None)
def test_two_shifted_patterns_give_the_derivative_of_every_intensity(
    seed: int, inputs: int, shift: float
) -> None:
    """float64, against the derivative 2 Im(conj(T_n e^(i phi_n)) field), and autograd."""
    generator = Key(seed).torch()
    parts = torch.randn((2, 7, inputs), generator=generator, dtype=torch.float64)
    matrix = torch.complex(parts[0], parts[1])
    phases = math.pi * torch.rand(inputs, generator=generator, dtype=torch.float64)

    def shown(at: Tensor) -> Tensor:
        return (torch.polar(torch.ones_like(at), at) @ matrix.t()).abs().square()

    found = shift_derivative(shown, phases, shift)
    waves = matrix * torch.polar(torch.ones_like(phases), phases)
    law = 2 * (waves.conj() * waves.sum(1, keepdim=True)).imag.t()
    assert torch.allclose(found, law, atol=1e-11)
    autograd = torch.autograd.functional.jacobian(lambda p: shown(p[None])[0], phases).t()
    assert torch.allclose(found, autograd, atol=1e-11)


def test_a_shift_by_half_a_turn_tells_nothing_and_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of pi"):
        shift_derivative(lambda p: p, torch.zeros(2), math.pi)
