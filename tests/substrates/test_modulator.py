"""Modulators: curves and tables, mirrors, holograms, settling, cross-talk, faults."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from substrates.optics.dmd import mirror_light
from substrates.optics.lee import IDEAL_FIRST_ORDER, first_order, lee_light
from substrates.optics.medium import GaussianMedium
from substrates.optics.modulator import LevelModulator, PhaseModulator, require_injective
from substrates.optics.modulatortable import ModulatorTable, make_modulator
from substrates.optics.slm import (
    PhaseSlm,
    Settling,
    blurred,
    driven_phases,
    neighbours,
    settled,
    true_curve,
)
from twin.config import build
from twin.errors import ConfigError
from twin.key import Key

SEEDS = st.integers(0, 2**32 - 1)


def uniform(seed: int, batch: int, width: int) -> Tensor:
    """A drive (batch, width) in [0, 1]."""
    return torch.rand((batch, width), generator=Key(seed).child("drive").torch())


def made(inputs: int = 6, seed: int = 0, **options: object) -> LevelModulator | PhaseSlm:
    return make_modulator(build(ModulatorTable, options, "modulator"), inputs, Key(seed))


def slow(**options: object) -> PhaseSlm:
    modulator = made(**options)
    assert isinstance(modulator, PhaseSlm)
    return modulator


def every_level(modulator: LevelModulator | PhaseSlm) -> Tensor:
    return torch.arange(modulator.levels) / (modulator.levels - 1)


# ---------------------------------------------------------------- the default


@given(seed=SEEDS, levels=st.integers(2, 300), dead=st.sampled_from([0.0, 0.3]))
@settings(max_examples=25, deadline=None)
def test_the_default_table_is_the_perfect_phase_modulator_bit_for_bit(
    seed: int, levels: int, dead: float
) -> None:
    """Also against the law written out: the rounded phase, dead macropixels at 0."""
    drive = uniform(seed, 3, 17)
    table = ModulatorTable(levels=levels)
    light = make_modulator(table, 17, Key(seed)).light(drive, dead)
    assert torch.equal(light, PhaseModulator(17, levels, Key(seed)).light(drive, dead))
    level = (drive * (levels - 1)).round()
    level[:, torch.rand(17, generator=Key(seed).child("dead").torch()) < dead] = 0
    phase = math.pi * level.double() / (levels - 1)
    law = torch.polar(torch.ones_like(phase), phase).to(torch.complex64)
    assert torch.equal(light, law)


def test_a_default_modulator_has_256_levels() -> None:
    assert made().levels == 256


# ---------------------------------------------------------------- truth and belief


def test_a_calibrated_driver_of_142_greys_per_turn_reaches_pi_in_72_levels() -> None:
    modulator = made(turn_grey=142)
    assert modulator.levels == 72
    angles = modulator.shown.angle()
    assert torch.allclose(angles, math.pi * torch.arange(72, dtype=torch.float64) / 71)


def test_a_driver_that_believes_in_256_greys_overshoots_a_modulator_of_142() -> None:
    """It sends 128 for pi, which is 128 / 142 of a turn in truth."""
    modulator = made(turn_grey=142, believed_turn_grey=256)
    top = modulator.shown[-1].angle().remainder(2 * math.pi).item()
    assert top == pytest.approx(2 * math.pi * 128 / 142)


@given(
    points=st.lists(st.floats(0.05, 1.0), min_size=3, max_size=12),
    span=st.floats(3.3, 12.0),
    bits=st.integers(7, 10),
)
@settings(max_examples=40, deadline=None)
def test_a_calibrated_driver_hits_every_phase_within_half_a_grey_step(
    points: list[float], span: float, bits: int
) -> None:
    measured = torch.tensor(points).double().cumsum(0)
    measured = (measured - measured[0]) / (measured[-1] - measured[0]) * span
    curve = true_curve(2**bits, curve_rad=measured.tolist())
    phases = driven_phases(curve)
    wanted = math.pi * torch.arange(len(phases), dtype=torch.float64) / (len(phases) - 1)
    assert (phases - wanted).abs().max() <= curve.diff().max() / 2 + 1e-9
    require_injective(phases)


def test_a_table_is_used_as_it_stands() -> None:
    modulator = made(turn_grey=142, table=(0, 10, 30, 60))
    angles = modulator.shown.angle()
    expected = torch.tensor([0, 10, 30, 60], dtype=torch.float64) * (2 * math.pi / 142)
    assert torch.allclose(angles, expected)


@given(
    turn=st.floats(60, 600),
    believed=st.floats(60, 510),
    levels=st.integers(2, 200),
    drives=st.lists(st.integers(0, 199), min_size=2, max_size=2, unique=True),
)
@settings(max_examples=100, deadline=None)
def test_every_curve_and_table_that_is_accepted_tells_all_levels_apart(
    turn: float, believed: float, levels: int, drives: list[int]
) -> None:
    try:
        modulator = made(turn_grey=turn, believed_turn_grey=believed, levels=levels)
    except ConfigError:
        assume(False)
    light = modulator.light(every_level(modulator)[:, None].expand(-1, 6))[:, 0]
    first, second = (d % levels for d in drives)
    if first != second:
        assert (light[first] - light[second]).abs() > 1e-7


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"turn_grey": 142.0, "levels": 256}, "72 different grey"),
        ({"turn_grey": 142.0, "table": tuple(range(256))}, "same light"),
        ({"turn_grey": 100.0, "believed_turn_grey": 256.0}, "full turn|same light"),
        ({"curve_rad": (0.0, 1.6, 0.9, 3.0), "table": (0, 85, 171, 255)}, "fold back"),
        ({"curve_rad": (0.0, 2.0), "levels": 200}, "rises through pi in more steps"),
        ({"turn_grey": 142.0, "table": (0, 300)}, "only 256"),
        ({"turn_grey": 142.0, "table": (0, 30), "levels": 3}, "one grey value per level"),
        ({"kind": "dmd", "levels": 256}, "same light"),
        ({"kind": "dmd", "binarise": "area", "pixels_per_side": 4, "levels": 18}, "shows 17"),
        ({"kind": "lee", "pixels_per_side": 4, "levels": 8}, "same light"),
    ],
)
def test_an_encoding_that_aliases_is_refused(options: dict[str, object], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        made(**options)


@given(start=st.floats(-7, 7), turns=st.floats(1.0, 4.0), levels=st.integers(3, 400))
@settings(max_examples=100, deadline=None)
def test_no_ramp_of_a_full_turn_or_more_is_accepted(
    start: float, turns: float, levels: int
) -> None:
    """[-pi, pi] among them. A turn shared out evenly without its end would be fine."""
    assume(levels > 3 * turns)
    with pytest.raises(ConfigError, match="drives far apart"):
        require_injective(
            torch.linspace(start, start + 2 * math.pi * turns, levels, dtype=torch.float64)
        )


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"curve_rad": (0.0, 6.0), "turn_grey": 142.0}, "Give one"),
        ({"table": (0, 9), "believed_turn_grey": 142.0}, "Give one"),
        ({"curve_rad": (1.0,)}, "two grey values"),
        ({"kind": "dmd", "settling_s": 0.01}, "settling_s"),
        ({"kind": "lee", "pixels_per_side": 6, "lee_period": 4}, "multiple of lee_period"),
        ({"crosstalk": 1.5}, "crosstalk"),
        ({"settling_s": -1.0}, "settling_s"),
        ({"threshold": 0.0}, "threshold"),
        ({"kind": "lcos"}, "kind"),
        ({"curve": (0.0, 6.0)}, "curve_rad"),
    ],
)
def test_a_table_that_contradicts_itself_names_the_field(
    options: dict[str, object], hint: str
) -> None:
    with pytest.raises(ConfigError, match=hint):
        made(**options)


# ---------------------------------------------------------------- mirrors


@given(seed=SEEDS, threshold=st.floats(0.01, 1.0))
@settings(max_examples=25, deadline=None)
def test_a_mirror_is_on_from_its_threshold(seed: int, threshold: float) -> None:
    drive = uniform(seed, 4, 6)
    modulator = made(kind="dmd", threshold=threshold)
    assert isinstance(modulator, LevelModulator)
    assert modulator.real
    expected = (drive >= threshold).to(torch.float32)
    assert torch.equal(modulator.amplitude(drive), expected)
    assert torch.equal(modulator.light(drive), expected.to(torch.complex64))


@given(side=st.integers(1, 12), seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_a_share_of_the_mirrors_follows_the_drive(side: int, seed: int) -> None:
    modulator = made(kind="dmd", binarise="area", pixels_per_side=side)
    drive = uniform(seed, 5, 6)
    light = modulator.light(drive)
    assert modulator.levels == side**2 + 1
    assert (light.real - drive).abs().max() <= 0.5 / side**2 + 1e-6
    mirrors = light.real * side**2
    assert torch.allclose(mirrors, mirrors.round(), atol=1e-4)


def test_mirrors_give_all_patterns_a_common_part_and_phases_over_a_turn_do_not() -> None:
    """Half of 400 mirrors: field overlap of two patterns 1/4 / 1/2, of pi-phases |2/pi|^2."""
    first, second = (uniform(s, 1, 100_000) for s in (1, 2))
    for options, expected in (({"kind": "dmd"}, 0.5), ({}, (2 / math.pi) ** 2)):
        a, b = (made(100_000, **options).light(d)[0].to(torch.complex128) for d in (first, second))
        overlap = (torch.vdot(a, b).abs() / (a.norm() * b.norm())).item()
        assert abs(overlap - expected) < 5 / math.sqrt(100_000)


def test_mirrors_take_one_real_product_instead_of_a_complex_one() -> None:
    modulator = made(kind="dmd")
    assert isinstance(modulator, LevelModulator)
    drive = uniform(3, 5, 6)
    matrix = GaussianMedium(6, 9, Key(1)).matrix
    parts = modulator.amplitude(drive) @ torch.cat([matrix.real, matrix.imag]).t()
    field = modulator.light(drive) @ matrix.t()
    assert torch.allclose(torch.complex(*parts.chunk(2, dim=1)), field, atol=1e-6)
    assert not made().real


def test_levels_of_mirrors_are_whole_mirrors() -> None:
    assert torch.equal(
        mirror_light(4).real, torch.tensor([0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    )
    with pytest.raises(ConfigError, match="same light"):
        mirror_light(4, 6)


# ---------------------------------------------------------------- Lee holograms


def by_fft(mask: Tensor, period: int) -> complex:
    """First order of a mask (side, side) with upright fringes, from its spectrum."""
    side = len(mask)
    spectrum = torch.fft.fft2(mask.to(torch.complex128)) / side**2
    return complex(spectrum[0, -(side // period) % side]) / IDEAL_FIRST_ORDER


@pytest.mark.parametrize(("side", "period"), [(4, 4), (8, 4), (8, 8), (12, 3)])
def test_the_first_order_is_that_of_the_mask_s_spectrum(side: int, period: int) -> None:
    for shift in range(period):
        phase = torch.tensor(2 * math.pi * shift / period)
        place = torch.arange(side) % period
        ours = first_order(torch.tensor(1.0), phase, side, period)
        on = ((place / period - shift / period + 0.25 + 1e-7) % 1) < 0.5
        assert abs(complex(ours) - by_fft(on.double().expand(side, side), period)) < 1e-8


@pytest.mark.parametrize("period", [4, 6, 8, 16])
def test_whole_mirrors_quantise_phase_and_modulus_of_a_hologram(period: int) -> None:
    """Steps 2 pi / period; |c1| = sin(pi k / period) / (period sin(pi / period))."""
    phases = torch.linspace(0, 2 * math.pi, 1001, dtype=torch.float64)
    field = first_order(torch.ones_like(phases), phases, period, period)
    half_wide = math.sin(math.pi * (period // 2) / period)
    expected = half_wide / (period * math.sin(math.pi / period)) / IDEAL_FIRST_ORDER
    assert torch.allclose(field.abs(), torch.full_like(phases, expected))
    steps = torch.view_as_real(field).mul(1e6).round().unique(dim=0)
    assert len(steps) == period
    widths = torch.linspace(0, 1, 501, dtype=torch.float64)
    moduli = first_order(widths, torch.zeros_like(widths), period, period).abs()
    allowed = [math.sin(math.pi * k / period) for k in range(period // 2 + 1)]
    scale = period * math.sin(math.pi / period) * IDEAL_FIRST_ORDER
    nearest = (moduli[:, None] - torch.tensor(allowed).double() / scale).abs().min(1).values
    assert nearest.max() < 1e-6


@given(
    amplitude=st.floats(0.0, 1.0),
    phase=st.floats(-7.0, 7.0),
    period=st.sampled_from([8, 16, 64]),
    slanted=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_finer_grating_comes_nearer_to_the_wanted_field(
    amplitude: float, phase: float, period: int, slanted: bool
) -> None:
    """Either rim of a fringe is off by at most one mirror, 1 / period of a fringe."""
    a, p = torch.tensor(amplitude).double(), torch.tensor(phase).double()
    slant = 1 / period if slanted else 0.0
    field = first_order(a, p, period, period, slant)
    wanted = torch.polar(a, p)
    assert (field - wanted).abs() <= 2 / period / IDEAL_FIRST_ORDER + 1e-5


@pytest.mark.parametrize(("slant", "levels"), [(0.0, 3), (1 / 8, 17)])
def test_slanted_fringes_give_a_hologram_more_phases(slant: float, levels: int) -> None:
    field = lee_light(8, 4, slant)
    assert len(field) == levels
    assert torch.allclose(
        field.angle().abs(), math.pi * torch.arange(levels).double() / (levels - 1), atol=1e-6
    )
    assert field.abs().min() > 0.95 and field.abs().max() < 1.15


# ---------------------------------------------------------------- settling


@given(seed=SEEDS, wait=st.floats(0, 0.03), cut=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_cutting_a_batch_in_two_changes_nothing_on_a_slow_modulator(
    seed: int, wait: float, cut: int
) -> None:
    modulator = slow(settling_s=0.01, settling_wait_s=wait)
    drive = uniform(seed, 10, 6)
    whole, end = modulator.light_in_order(drive, None, 1 / 60)
    first, middle = modulator.light_in_order(drive[:cut], None, 1 / 60)
    second, last = modulator.light_in_order(drive[cut:], middle, 1 / 60)
    assert torch.equal(whole, torch.cat([first, second]))
    assert torch.equal(end, last)


def test_a_frame_before_settling_mixes_the_old_phase_and_the_new() -> None:
    """One time constant after sending, 1 / e of the way is left; the order matters."""
    modulator = slow(inputs=2, settling_s=0.01, settling_wait_s=0.01, levels=3)
    drive = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    light, end = modulator.light_in_order(drive, None, 1000.0)
    left = math.exp(-1)
    expected = math.pi * torch.tensor([[1 - left, 0], [left, 1 - left]])
    assert torch.allclose(light.angle(), expected, atol=1e-6)
    assert torch.allclose(end, math.pi * drive[1], atol=1e-6)
    swapped, _ = modulator.light_in_order(drive.flip(0), None, 1000.0)
    assert not torch.allclose(swapped.flip(0), light)


def test_a_modulator_that_has_settled_shows_what_it_was_sent() -> None:
    modulator = slow(settling_s=0.01, settling_wait_s=0.3)
    drive = uniform(1, 20, 6)
    light, _ = modulator.light_in_order(drive, None, 0.5)
    assert torch.allclose(light, modulator.light(drive), atol=1e-5)
    assert modulator.settles and not made().settles


@given(a=st.floats(0, 0.1), b=st.floats(0, 0.1))
@settings(max_examples=25, deadline=None)
def test_splitting_a_rest_changes_nothing(a: float, b: float) -> None:
    modulator = slow(settling_s=0.02)
    last, target = torch.rand(2, 6, generator=Key(1).torch(), dtype=torch.float64)
    twice = modulator.relaxed(modulator.relaxed(last, target, a), target, b)
    assert torch.allclose(twice, modulator.relaxed(last, target, a + b), atol=1e-12)


def test_settling_follows_the_exponential_sum_over_all_frames_before() -> None:
    """A slower second way: end = sum_j (1 - k) k^j target[-j] + k^n start."""
    target = torch.rand(12, 5, generator=Key(4).torch(), dtype=torch.float64)
    start = torch.rand(5, generator=Key(5).torch(), dtype=torch.float64)
    seen, kept = Settling(0.02, 0.004).left(0.004), Settling(0.02, 0.004).left(0.03)
    shown, end = settled(target, start, seen, kept)
    past = kept**12 * start + sum((1 - kept) * kept**j * target[11 - j] for j in range(12))
    assert torch.allclose(end, past)
    before_last = kept**11 * start
    before_last = before_last + sum((1 - kept) * kept**j * target[10 - j] for j in range(11))
    assert torch.allclose(shown[11], target[11] + seen * (before_last - target[11]))


# ---------------------------------------------------------------- macropixels


def pixel_by_pixel(phases: Tensor, columns: int, crosstalk: float, side: int) -> Tensor:
    """The blur done on the full grid of physical pixels; phases (inputs,) fill the grid."""
    grid = phases.view(-1, columns).repeat_interleave(side, 0).repeat_interleave(side, 1)
    edged = torch.nn.functional.pad(grid[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    beside = edged[1:-1, :-2] + edged[1:-1, 2:] + edged[:-2, 1:-1] + edged[2:, 1:-1]
    shown = (1 - crosstalk) * grid + crosstalk / 4 * beside
    field = torch.complex(shown.cos(), shown.sin())
    rows = len(grid) // side
    return field.view(rows, side, columns, side).mean((1, 3)).flatten()


@given(seed=SEEDS, side=st.integers(1, 6), crosstalk=st.floats(0.0, 1.0))
@settings(max_examples=40, deadline=None)
def test_crosstalk_is_that_of_the_physical_pixels(seed: int, side: int, crosstalk: float) -> None:
    phases = math.pi * uniform(seed, 1, 12)
    ours = blurred(phases, neighbours(12, 4), crosstalk, side)[0]
    assert torch.allclose(ours, pixel_by_pixel(phases[0], 4, crosstalk, side), atol=1e-5)


def test_crosstalk_matters_less_to_larger_macropixels_and_not_to_even_patterns() -> None:
    drive = uniform(1, 8, 30)
    clean = made(30).light(drive)
    errors = [
        (slow(inputs=30, crosstalk=0.3, pixels_per_side=p).light(drive) - clean).abs().mean()
        for p in (1, 2, 4, 16)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] > 0
    even = torch.full((1, 30), 0.4)
    assert torch.allclose(slow(inputs=30, crosstalk=1.0).light(even), made(30).light(even))


# ---------------------------------------------------------------- faults


@given(small=st.floats(0, 1), large=st.floats(0, 1), seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_stuck_macropixels_of_a_small_fraction_stay_stuck_in_a_larger_one(
    small: float, large: float, seed: int
) -> None:
    small, large = sorted([small, large])
    modulator = PhaseModulator(50, 4096, Key(seed))
    drives = torch.stack([torch.full((50,), v) for v in (0.0, 0.3, 1.0)])

    def still(fraction: float) -> Tensor:
        light = modulator.light(drives, stuck_fraction=fraction)
        return (light == light[0]).all(0)

    assert (still(large) | ~still(small)).all()


def test_stuck_levels_are_uniform_and_dead_macropixels_are_at_level_zero() -> None:
    """20 000 macropixels: share and mean level within five standard errors."""
    n = 20_000
    modulator = made(n, levels=11, stuck_fraction=0.4)
    assert isinstance(modulator, LevelModulator)
    held = modulator.held(torch.ones(1, n))[0].double()
    stuck = held < 10
    expected = 0.4 * 10 / 11
    assert abs(stuck.double().mean().item() - expected) < 5 * math.sqrt(0.25 / n)
    assert abs(held[stuck].mean().item() - 4.5) < 5 * 2.88 / math.sqrt(0.36 * n)
    assert (modulator.held(torch.ones(1, n), dead_fraction=1.0) == 0).all()


def test_another_key_gives_another_map_of_faults() -> None:
    drive = torch.ones(1, 400)
    maps = [made(400, seed=s, stuck_fraction=0.5).light(drive) for s in (1, 1, 2)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])
