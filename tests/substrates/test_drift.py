"""Media in time against the closed forms of an Ornstein-Uhlenbeck process."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from substrates.optics.drift import (
    HOLDS,
    PRESETS,
    DriftClock,
    Drifting,
    DriftTable,
    drifting,
    shifted,
)
from substrates.optics.media import (
    BimodalTable,
    GaussianTable,
    GrainsTable,
    SlabTable,
    make_medium,
)
from substrates.optics.medium import MatrixMedium, Medium, summed_intensity
from substrates.optics.ornstein import EPOCH, Path, turning
from twin.config import build
from twin.errors import ConfigError, DriveError
from twin.key import Key

SEEDS = st.integers(0, 2**32 - 1)
TIMES = st.floats(0, 1e6, allow_nan=False)
GAUSSIAN = GaussianTable()
GRAINS = GrainsTable(pixels_per_grain=2.0)


def moving(
    drift: DriftTable | dict[str, Any],
    seed: int = 1,
    medium: Any = GAUSSIAN,
    channels: int = 8,
    pixels: int = 6,
    camera_rows: int = 1,
) -> Drifting:
    table = drift if isinstance(drift, DriftTable) else DriftTable(**drift)
    key = Key(seed)
    made = make_medium(medium, channels, pixels, key.child("medium"))
    found = drifting(made, table, key.child("drift"), camera_rows)
    assert isinstance(found, Drifting)
    return found


def phases(seed: int, batch: int, channels: int) -> Tensor:
    turns = torch.rand((batch, channels), generator=Key(seed).child("light").torch())
    return torch.polar(torch.ones_like(turns), 2 * math.pi * turns)


def overlap(a: Tensor, b: Tensor) -> float:
    """Correlation of two matrices, real part."""
    return (torch.vdot(a.flatten(), b.flatten()) / (a.norm() * b.norm())).real.item()


def pearson(a: Tensor, b: Tensor) -> float:
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1].item()


# ---------------------------------------------------------------- decorrelation


@pytest.mark.parametrize("start_s", [12.3456, 31.999, 1e5])
@pytest.mark.parametrize("lag", [0.0039, 0.0105, 0.105, 0.5])
def test_the_speckle_decorrelates_as_the_square_of_the_field(start_s: float, lag: float) -> None:
    """16 patterns x 8192 pixels behind 64 channels, tau = 1 s: standard error below 0.0025.

    One of the starts straddles two epochs.
    """
    medium = moving({"tau_s": 1.0}, channels=64, pixels=8192)
    light = phases(2, 16, 64)
    first, later = (
        summed_intensity(medium.transmit(light, t, 0.0)) for t in (start_s, start_s + lag)
    )
    rho = medium.correlation(start_s, start_s + lag)
    assert rho == pytest.approx(math.exp(-lag), rel=1e-6)
    assert abs(pearson(first, later) - rho**2) < 0.01


def test_the_path_of_steps_and_turns_has_the_stated_correlation() -> None:
    """Exact: the weights of all pairs of places in three cells against exp(-lag)."""
    steps, fine = 256, 16
    here, there = turning(np.arange(fine) / fine, steps)
    weights = np.zeros((3 * fine, 4))
    for cell in range(3):
        weights[fine * cell : fine * (cell + 1), cell] = here
        weights[fine * cell : fine * (cell + 1), cell + 1] = there
    law = np.exp(-np.abs(np.subtract.outer(np.arange(4), np.arange(4))) / steps)
    found = weights @ law @ weights.T
    places = np.arange(3 * fine) / fine / steps
    exact = np.exp(-np.abs(np.subtract.outer(places, places)))
    assert np.allclose(np.diag(found), 1)
    worst = np.abs(found - exact).max()
    assert 0.4 / steps < worst < 0.5 / steps
    # A frame sees the nearest place: a lag is off by one place at most.
    assert worst + 1 / (HOLDS * steps) < 0.75 / steps < 0.003


@pytest.mark.parametrize("name", ["slow", "tissue-like"])
def test_presets_decorrelate_the_speckle_in_the_time_they_promise(name: str) -> None:
    intensity_s = {"slow": 600.0, "tissue-like": 1.0}[name]
    medium = moving(PRESETS[name])
    assert medium.correlation(7.0, 7.0 + intensity_s) ** 2 == pytest.approx(math.exp(-1))


@pytest.mark.parametrize("medium", [GAUSSIAN, GRAINS, GaussianTable(patterns=2)], ids=repr)
def test_drift_keeps_the_power_and_the_law_of_the_medium(medium: Any) -> None:
    """150 draws 3 tau apart of 80 x 16 entries; standard error of the power below 0.005."""
    rig = moving({"tau_s": 1.0}, medium=medium, channels=16, pixels=80)
    seen = torch.stack([rig.matrix_at(3.0 * n + 0.013) for n in range(150)])
    assert abs(seen.abs().square().mean().item() * 16 - 1) < 0.02
    power = seen.abs().square() * 16
    # Gaussian entries: <|t|^4> = 2 <|t|^2>^2, also where the path was bridged by signs.
    assert abs(power.square().mean().item() - 2) < 0.15
    flat = seen.view(150, -1, 80, 16)
    neighbours = (flat[:, :, 1:] * flat[:, :, :-1].conj()).mean().real.item() * 16
    made = make_medium(medium, 4000, 80, Key(1))
    assert isinstance(made, MatrixMedium)
    first = made.matrix.view(-1, 80, 4000)
    expected = (first[:, 1:] * first[:, :-1].conj()).mean().real.item() * 4000
    assert abs(neighbours - expected) < 0.02


def test_prescribed_singular_values_fade_into_those_of_a_gaussian_medium() -> None:
    rig = moving({"tau_s": 1.0}, medium=BimodalTable(), channels=60, pixels=60)
    top = [torch.linalg.svdvals(rig.matrix_at(t)).max().item() for t in (0.0, 20.0)]
    start = torch.linalg.svdvals(rig.matrix_at(0.0)).square()
    assert (start > 0.5 * start.max()).sum().item() == 5  # 8.8 % of 60 channels are open
    assert top[0] == pytest.approx(math.sqrt(1 / 0.1), rel=0.02)
    assert top[1] == pytest.approx(2.0, rel=0.1)  # edge of Marchenko-Pastur


# ---------------------------------------------------------------- a function of time alone


@given(
    seed=SEEDS,
    times=st.lists(TIMES, min_size=1, max_size=6),
    tau_s=st.floats(1e-2, 1e4),
    table=st.sampled_from([GAUSSIAN, GRAINS, GaussianTable(patterns=2)]),
)
@settings(max_examples=25, deadline=None)
@example(seed=0, times=[0.0, 31.999, 32.0, 64.0, 31.999], tau_s=1.0, table=GAUSSIAN)
def test_the_matrix_is_a_function_of_time_whatever_was_asked_before(
    seed: int, times: list[float], tau_s: float, table: Any
) -> None:
    drift = {"tau_s": tau_s, "jump_rate_hz": 1e-4, "power_rms": 0.1}
    walked = moving(drift, seed, table)
    there = [walked.matrix_at(t) for t in times]
    back = [walked.matrix_at(t) for t in reversed(times)][::-1]
    fresh = [moving(drift, seed, table).matrix_at(t) for t in times]
    for a, b, c in zip(there, back, fresh, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@given(seed=SEEDS, cuts=st.lists(st.integers(1, 63), max_size=4), tau_s=st.floats(0.05, 1e4))
@settings(max_examples=25, deadline=None)
def test_how_a_run_of_frames_is_cut_changes_nothing(
    seed: int, cuts: list[int], tau_s: float
) -> None:
    """Fields to float32's rounding (products of fewer rows round differently), matrices exactly."""
    drift = {"tau_s": tau_s, "power_rms": 0.05, "pointing_rms_pixels": 0.3, "jump_rate_hz": 1.0}
    light, frame_s, start_s = phases(seed, 64, 8), 1 / 60, 17.3
    whole = moving(drift, seed).transmit(light, start_s, frame_s)
    parted = moving(drift, seed)
    edges = [0, *sorted(set(cuts)), 64]
    clock_s, parts = start_s, []
    for a, b in pairwise(edges):
        parts.append(parted.transmit(light[a:b], clock_s, frame_s))
        clock_s += (b - a) * frame_s  # adds up differently than start + n * frame
    assert torch.allclose(whole, torch.cat(parts), atol=2e-6)


def test_the_last_bit_of_a_time_does_not_decide_between_two_matrices() -> None:
    """Every other frame is half-way between two places; its time is added up in two ways."""
    rig, clock_s, differ = moving({"tau_s": 256 * HOLDS / 30}), 17.3, 0
    for n in range(200):
        differ += clock_s != 17.3 + n / 60
        assert torch.equal(rig.matrix_at(clock_s), rig.matrix_at(17.3 + n / 60))
        clock_s += 1 / 60
    assert differ > 100


@given(seed=SEEDS, start_s=TIMES, waits=st.lists(st.floats(0, 1e3), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_splitting_a_wait_changes_no_matrix(seed: int, start_s: float, waits: list[float]) -> None:
    clock_s = start_s
    split = moving(PRESETS["slow"], seed)
    for wait in waits:
        clock_s += wait
        split.matrix_at(clock_s)
    direct = moving(PRESETS["slow"], seed).matrix_at(start_s + math.fsum(waits))
    assert torch.equal(split.matrix_at(clock_s), direct)


@given(seed=SEEDS, frames=st.integers(1, 64), tau_s=st.floats(0.05, 1e3))
@settings(max_examples=15, deadline=None)
def test_every_frame_passes_the_matrix_of_its_time(seed: int, frames: int, tau_s: float) -> None:
    rig, light = moving({"tau_s": tau_s}, seed), phases(seed, frames, 8)
    fields = rig.transmit(light, 3.0, 1 / 60)
    for n in range(frames):
        expected = light[n : n + 1] @ rig.matrix_at(3.0 + n / 60).t()
        assert torch.allclose(fields[n : n + 1], expected, atol=2e-6)


def test_at_time_zero_nothing_has_moved_yet() -> None:
    made = make_medium(GAUSSIAN, 8, 6, Key(1).child("medium"))
    assert isinstance(made, MatrixMedium)
    assert torch.equal(moving({"tau_s": 1.0}).matrix_at(0.0), made.matrix)
    assert not torch.equal(moving({"tau_s": 1.0}).matrix_at(0.1), made.matrix)


def test_a_matrix_that_was_handed_out_stays_as_it_was() -> None:
    rig = moving({"tau_s": 1.0})
    held = [rig.matrix_at(n / 40) for n in range(50)]
    copies = [m.clone() for m in held]
    for n in range(200):
        rig.matrix_at(5 + n / 128)
    assert all(torch.equal(a, b) for a, b in zip(held, copies, strict=True))


def test_consecutive_frames_cost_about_one_draw_each() -> None:
    drawn: list[bool] = []

    def draw(key: Key, rms: float, fine: bool, spare: Tensor | None) -> Tensor:
        drawn.append(fine)
        return rms * torch.randn(1, generator=key.torch())

    path = Path(draw, Key(1))
    path.at(5000)
    assert len(drawn) <= 2 + math.log2(EPOCH * 256)
    drawn.clear()
    for step in range(5000, 6000):
        path.at(step, 0.25)
    assert len(drawn) <= 1005
    assert sum(drawn) / len(drawn) > 0.9  # nearly all of them the cheap ones


def test_a_path_has_the_law_of_its_process_between_any_two_grid_points() -> None:
    """20000 independent paths side by side; standard error 0.007."""

    def draw(key: Key, rms: float, fine: bool, spare: Tensor | None) -> Tensor:
        return rms * torch.randn(20_000, generator=key.torch())

    path = Path(draw, Key(3), steps_per_tau=16)
    values = {s: path.at(s).clone() for s in (500, 501, 504, 511, 512, 513, 520, 544)}
    for a, x in values.items():
        for b, y in values.items():
            found = (x * y).mean().item()
            assert abs(found - math.exp(-abs(a - b) / 16)) < 5 * math.sqrt(2 / 20_000)


# ---------------------------------------------------------------- clock


@given(
    warm_s=st.floats(1, 1e4),
    ratio=st.floats(1, 1e4),
    constant_s=st.floats(1, 1e5),
    time_s=TIMES,
)
@settings(max_examples=50, deadline=None)
def test_a_warm_up_slows_the_decorrelation_by_its_closed_form(
    warm_s: float, ratio: float, constant_s: float, time_s: float
) -> None:
    """The rate falls as an exponential: compared with its integral by Simpson's rule."""
    table = DriftTable(tau_s=warm_s * ratio, warmup_tau_s=warm_s, warmup_s=constant_s)
    clock = DriftClock(table, Key(0))
    # Sampled where the exponential changes: the axis is stretched by a cube.
    t = time_s * np.linspace(0, 1, 20_001) ** 3
    rate = 1 / table.tau_s + (1 / warm_s - 1 / table.tau_s) * np.exp(-t / constant_s)  # type: ignore[operator]
    integral = np.trapezoid(rate, t)
    assert clock.elapsed(np.array([time_s]))[0] == pytest.approx(integral, rel=1e-3, abs=1e-12)


def test_a_rig_that_warms_up_is_stable_after_some_hours() -> None:
    rig = moving(PRESETS["warm-up"])
    minutes = 60.0
    first = rig.correlation(0, 10 * minutes) ** 2
    after = rig.correlation(252 * minutes, 262 * minutes) ** 2  # stable after 4.2 h
    assert first < 0.75
    assert after > 0.99


def test_the_matrix_follows_the_warm_up() -> None:
    """Overlap of 200 x 200 entries: standard error 0.005."""
    rig = moving({"tau_s": 1000.0, "warmup_tau_s": 1.0, "warmup_s": 2.0}, channels=200, pixels=200)
    for a, b in [(0.0, 0.5), (1.0, 2.0), (3.0, 6.0), (20.0, 30.0)]:
        found = overlap(rig.matrix_at(a), rig.matrix_at(b))
        assert abs(found - rig.correlation(a, b)) < 0.03


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_a_jump_replaces_its_fraction_of_the_power(fraction: float) -> None:
    """Overlap of 200 x 200 entries: standard error 0.005; a jump is placed to 0.001 tau."""
    jump = {"jump_times_s": (5.0, 9.0), "jump_fraction": fraction}
    rig = moving(jump, channels=200, pixels=200)
    at = [rig.matrix_at(t) for t in (0.0, 4.999, 5.0, 8.0, 9.5)]
    assert torch.equal(at[0], at[1])
    assert torch.equal(at[2], at[3])
    for found, power in [(overlap(at[1], at[2]), 1), (overlap(at[0], at[4]), 2)]:
        assert abs(found - (1 - fraction) ** (power / 2)) < 0.03
    assert at[4].norm().item() == pytest.approx(at[0].norm().item(), rel=0.03)


def test_random_jumps_come_at_the_stated_rate_independently() -> None:
    """10000 intervals of mean 4 jumps: Poisson mean and variance to 5 standard errors."""
    clock = DriftClock(DriftTable(jump_rate_hz=0.1), Key(4))
    counts = np.diff(clock.jumps_before(np.arange(0, 400_040, 40.0)))
    n = len(counts)
    assert (counts >= 0).all()
    assert abs(counts.mean() - 4) < 5 * math.sqrt(4 / n)
    assert abs(counts.var() - 4) < 5 * math.sqrt((2 * 16 + 4) / n)
    late = DriftClock(DriftTable(jump_rate_hz=0.1), Key(4)).jumps_before(np.array([123_456.0]))
    assert clock.jumps_before(np.array([123_456.0])) == late


@given(seed=SEEDS, times=st.lists(TIMES, min_size=2, max_size=20))
@settings(max_examples=25, deadline=None)
def test_the_clock_of_a_medium_never_runs_backwards(seed: int, times: list[float]) -> None:
    table = DriftTable(
        tau_s=1e3, warmup_tau_s=10.0, jump_rate_hz=1e-3, jump_times_s=(5e5, 3.0), jump_fraction=0.2
    )
    assert (np.diff(DriftClock(table, Key(seed)).elapsed(np.sort(times))) >= 0).all()


# ---------------------------------------------------------------- power and pointing


def test_the_laser_drifts_by_its_rms_over_its_time() -> None:
    """2000 powers 3 correlation times apart; standard errors 0.02 of the rms."""
    rig = moving({"power_rms": 0.1, "power_tau_s": 2.0})
    power = rig.power(np.arange(2000) * 6.0)
    assert abs(power.mean() - 1) < 5 * 0.1 / math.sqrt(2000)
    assert power.std() == pytest.approx(0.1, rel=5 * 0.8 / math.sqrt(2000))
    later = rig.power(np.arange(2000) * 6.0 + 1.0)
    found = np.corrcoef(np.log(power), np.log(later))[0, 1]
    assert abs(found - math.exp(-0.5)) < 5 / math.sqrt(2000)


def test_laser_power_scales_the_intensity_of_each_frame() -> None:
    drift = {"power_rms": 0.2, "power_tau_s": 0.5}
    rig, light = moving(drift), phases(1, 64, 8)
    steady = make_medium(GAUSSIAN, 8, 6, Key(1).child("medium")).transmit(light, 0.0, 0.0)
    seen = summed_intensity(rig.transmit(light, 2.0, 0.1)) / summed_intensity(steady)
    expected = torch.from_numpy(rig.power(2.0 + 0.1 * np.arange(64))).float()
    assert torch.allclose(seen, expected[:, None].expand(-1, 6), rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 16])
@pytest.mark.parametrize("shift", [0.1, 0.5, 1.0])
def test_a_shift_decorrelates_independent_pixels_as_sinc_squared(shift: float, rows: int) -> None:
    """Field correlation sinc(shift) along the columns; 64 x 1024 pixels, standard error 0.004."""
    field = torch.view_as_complex(torch.randn((64, 1024, 2), generator=Key(1).torch()))
    moved = shifted(field, torch.tensor([[0.0, shift]]).expand(64, -1), rows)
    assert moved.norm().item() == pytest.approx(field.norm().item(), rel=1e-5)
    found = pearson(field.abs().square(), moved.abs().square())
    assert abs(found - np.sinc(shift) ** 2) < 0.025


def test_whole_shifts_move_the_image_by_whole_pixels() -> None:
    field = torch.view_as_complex(torch.randn((2, 3, 24, 2), generator=Key(1).torch()))
    moved = shifted(field, torch.tensor([[1.0, -2.0], [0.0, 0.0]]), 4).view(2, 3, 4, 6)
    expected = field.view(2, 3, 4, 6)[0].roll((1, -2), (1, 2))
    assert torch.allclose(moved[0], expected, atol=1e-5)
    assert torch.allclose(moved[1], field.view(2, 3, 4, 6)[1], atol=1e-5)


def test_pointing_moves_the_frames_of_a_drifting_rig() -> None:
    rig = moving({"pointing_rms_pixels": 0.4, "pointing_tau_s": 10.0}, pixels=64, camera_rows=8)
    walk = rig.shift_pixels(np.arange(1000) * 30.0)
    assert walk.shape == (1000, 2)
    assert np.allclose(walk.std(0), 0.4, rtol=5 * 0.8 / math.sqrt(1000))
    light = phases(1, 5, 8)
    steady = make_medium(GAUSSIAN, 8, 64, Key(1).child("medium")).transmit(light, 0.0, 0.0)
    shift = torch.from_numpy(rig.shift_pixels(7.0 + np.arange(5))).float()
    assert torch.allclose(rig.transmit(light, 7.0, 1.0), shifted(steady, shift, 8), atol=1e-5)


# ---------------------------------------------------------------- tables


def test_nothing_drifts_by_default() -> None:
    made: Medium = make_medium(GAUSSIAN, 8, 6, Key(1))
    assert drifting(made, DriftTable(), Key(2)) is made
    assert PRESETS["static"] == DriftTable()
    assert made.static
    assert not moving({"tau_s": 5.0}).static


@pytest.mark.parametrize(
    "wrong",
    [
        {"tau_s": 0.0},
        {"tau_s": float("nan")},
        {"tau_s": 1.0, "warmup_tau_s": 2.0},
        {"steps_per_tau": 100},
        {"jump_fraction": 1.5},
        {"jump_times_s": (-1.0,)},
        {"tau": 3.0},
    ],
)
def test_a_drift_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="drift"):
        build(DriftTable, wrong, "drift")


@pytest.mark.parametrize("time_s", [-1.0, math.nan, math.inf])
def test_times_that_are_none_are_refused(time_s: float) -> None:
    rig = moving({"tau_s": 1.0})
    before = rig.matrix_at(1.0)
    with pytest.raises(DriveError, match="device times"):
        rig.matrix_at(time_s)
    assert torch.equal(rig.matrix_at(1.0), before)


def test_a_medium_without_a_matrix_cannot_drift() -> None:
    table = SlabTable(grid_points=64, slices=2, slice_distance_m=0.01, kerr_rad=0.1)
    with pytest.raises(ConfigError, match="no matrix"):
        drifting(make_medium(table, 16, 16, Key(1)), PRESETS["slow"], Key(2))
