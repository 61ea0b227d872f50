"""The camera against the linear model of EMVA 1288 and the statistics of its patterns."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from substrates.optics.camera import Camera
from substrates.optics.pixelmaps import moved
from substrates.optics.sensor import SENSORS, SensorTable, dark_factor, missing_skew
from tests.substrates.cameras import camera
from twin.config import build
from twin.errors import ConfigError, DataError, DeviceUnavailable
from twin.key import SAMPLE_BLOCK, Key

SEEDS = st.integers(0, 2**32 - 1)
QUIET = {"shot_noise": "none", "read_noise_electrons": 0.0, "dark_electrons_per_s": 0.0}


def flat(level: float, frames: int, sensor: Camera) -> Tensor:
    return torch.full((frames, sensor.sensor_pixels), level)


def codes_of(
    sensor: Camera, at: Any, level: float, frames: int = 64, seed: int = 0, **dials: Any
) -> Tensor:
    """Codes of even light of `level` mean intensities, float64, with `dials` turned."""
    here = dataclasses.replace(at, **dials)
    return sensor.frames(flat(level, frames, sensor), here, Key(seed), 0).double()


# ---------------------------------------------------------------- linear model


@pytest.mark.parametrize("law", ["poisson", "gaussian"])
def test_variance_is_gain_times_mean_plus_dark_noise_plus_rounding(law: str) -> None:
    """64 x 4000 codes per level; a variance is known to sqrt(2 / n), 5 standard errors."""
    gain, read, offset = 0.5, 4.0, 30.0
    sensor, at = camera(
        Key(1), 4000, {"gain_dn_per_electron": gain, "offset_dn": offset},
        read_noise_electrons=read, dark_electrons_per_s=1000.0, shot_noise=law,
    )  # fmt: skip
    n = 64 * 4000
    dark = codes_of(sensor, at, 0.0)
    for level in (0.0, 0.1, 0.5, 1.0, 4.0):
        codes = codes_of(sensor, at, level)
        mean, variance = codes.mean().item(), codes.var().item()
        expected = (gain * read) ** 2 + 1 / 12 + gain * (dark.mean().item() - offset)
        expected += gain * (mean - dark.mean().item())
        # The kurtosis of Poisson counts adds 1 / electrons to 2.
        error = math.sqrt((2 + 1 / max(1000 * level, 10)) / n) * expected
        assert abs(variance - expected) < 5 * error + 5 * gain * math.sqrt(expected / n)


def test_the_photon_transfer_slope_is_the_gain() -> None:
    """Two levels, 64 x 10 000 codes each: the slope is known to 0.2 %; 1 % allowed."""
    sensor, at = camera(Key(1), 10_000, {"gain_dn_per_electron": 0.8, "offset_dn": 40.0})
    dim, bright = (codes_of(sensor, at, level) for level in (0.2, 4.0))
    slope = (bright.var() - dim.var()) / (bright.mean() - dim.mean())
    assert slope.item() == pytest.approx(0.8, rel=0.01)


def test_gain_and_black_level_give_the_mean_code() -> None:
    sensor, at = camera(Key(0), 2000, {"gain_dn_per_electron": 0.25, "offset_dn": 100.0})
    codes = codes_of(sensor, at, 2.0)
    expected = 100 + 0.25 * (2000 + 0.05)  # 5 electrons/s of dark current for 0.01 s
    assert abs(codes.mean().item() - expected) < 5 * math.sqrt(codes.var().item() / codes.numel())


def test_saturated_fraction_of_speckle_is_exponential_in_the_full_scale() -> None:
    """10^6 exponential intensities, full scale at four times the mean; 10 % allowed (13 s.e.)."""
    sensor, at = camera(Key(0), 15_625, full_scale_over_mean=4.0, mean_electrons=1000.0)
    draws = torch.empty(64, 15_625).exponential_(generator=Key(5).torch())
    codes = sensor.frames(draws, at, Key(1), 0)
    assert sensor.clipped(codes, at) == pytest.approx(math.exp(-4), rel=0.1)


@pytest.mark.parametrize("electrons", [100.0, 1000.0])
def test_gaussian_and_poisson_light_agree_in_mean_and_variance_and_not_in_skew(
    electrons: float,
) -> None:
    """64 x 10 000 codes each, gain 1: five standard errors of each moment."""
    n = 64 * 10_000
    moments = []
    for law in ("poisson", "gaussian"):
        sensor, at = camera(
            Key(1), 10_000, {"gain_dn_per_electron": 1.0}, mean_electrons=electrons,
            shot_noise=law, read_noise_electrons=5.0, dark_electrons_per_s=0.0,
        )  # fmt: skip
        codes = codes_of(sensor, at, 1.0)
        rest = codes - codes.mean()
        skew = (rest**3).mean() / rest.var() ** 1.5
        moments.append((codes.mean().item(), codes.var().item(), skew.item()))
    (mean_p, var_p, skew_p), (mean_g, var_g, skew_g) = moments
    assert abs(mean_p - mean_g) < 5 * math.sqrt(2 * var_p / n)
    assert abs(var_p - var_g) < 5 * var_p * math.sqrt(2 * 2.02 / n)
    assert abs(skew_g) < 5 * math.sqrt(6 / n)
    assert abs(skew_p - missing_skew(electrons, 5.0)) < 5 * math.sqrt(6 / n)
    assert sensor.gaussian_skew(at) == pytest.approx(missing_skew(electrons, 5.0))


def test_gaussian_light_is_refused_where_it_is_dim_and_says_how_wrong_it_would_be() -> None:
    camera(Key(0), shot_noise="gaussian", mean_electrons=200.0)
    with pytest.raises(ConfigError, match=r"100 electrons or more.*skewness"):
        camera(Key(0), shot_noise="gaussian", mean_electrons=99.0)
    with pytest.raises(ConfigError, match="100 electrons"):  # 200 photons, 80 electrons
        camera(Key(0), 16, {"quantum_efficiency": 0.4}, shot_noise="gaussian", mean_electrons=200.0)


def test_quantum_efficiency_scales_the_charge_and_the_matched_gain_follows() -> None:
    """64 x 4000 codes; the signal-to-noise ratio squared is the number of electrons."""
    sensor, at = camera(Key(0), 4000, {"quantum_efficiency": 0.25}, read_noise_electrons=0.0)
    codes = codes_of(sensor, at, 1.0)
    assert sensor.full_scale_electrons(at) == pytest.approx(2500)
    assert codes.mean().item() == pytest.approx(409.5, rel=0.002)
    assert (codes.mean() ** 2 / codes.var()).item() == pytest.approx(250, rel=0.02)


@given(warm=st.floats(-40, 60), reference=st.floats(-20, 40), doubling=st.floats(4, 12))
@settings(max_examples=50, deadline=None)
def test_every_doubling_temperature_doubles_the_dark_current(
    warm: float, reference: float, doubling: float
) -> None:
    ratio = dark_factor(warm + doubling, reference, doubling) / dark_factor(
        warm, reference, doubling
    )
    assert ratio == pytest.approx(2)
    sensor, at = camera(
        Key(0), 4, {"temperature_c": warm, "reference_temperature_c": reference,
                    "dark_doubling_c": doubling},
    )  # fmt: skip
    charge = sensor.mean_charge(torch.zeros(1, 4), at)
    expected = 5.0 * 0.01 * dark_factor(warm, reference, doubling)
    assert charge[0, 0].item() == pytest.approx(expected, rel=1e-5)


def test_no_pixel_holds_more_than_the_full_well() -> None:
    table = {"gain_dn_per_electron": 0.1, "full_well_electrons": 5000.0, "offset_dn": 20.0}
    sensor, at = camera(Key(0), 500, table)
    codes = codes_of(sensor, at, 20.0)
    assert codes.max().item() == 20 + 500
    assert sensor.clipped(codes, at) == 1.0
    assert sensor.clipped(codes) == 0.0  # without the point, only the highest code counts
    assert sensor.clipped(codes_of(sensor, at, 3.0), at) == 0.0


def test_auto_exposure_sees_a_full_well_below_the_code_range() -> None:
    sensor, at = camera(Key(0), 500, {"gain_dn_per_electron": 0.1, "full_well_electrons": 5000.0})
    codes = sensor.frames(flat(20.0, 10, sensor), at, Key(0), 0)
    ratio, found = sensor.better_exposure(codes, at)
    assert not found and ratio < 0.2
    dimmer = dataclasses.replace(at, exposure_ratio=1 / 40)
    codes = sensor.frames(flat(20.0, 10, sensor), dimmer, Key(0), 0)
    ratio, found = sensor.better_exposure(codes, dimmer)
    assert found and ratio == pytest.approx(1 / 40, rel=0.05)  # a tenth of the well


def test_a_black_level_does_not_drag_the_exposure() -> None:
    sensor, at = camera(Key(0), 2000, {"offset_dn": 400.0})
    codes = sensor.frames(flat(1.0, 20, sensor), at, Key(0), 0)
    ratio, found = sensor.better_exposure(codes, at)
    assert found and ratio == pytest.approx(1.0, rel=0.01)


# ---------------------------------------------------------------- patterns


def test_maps_have_the_spread_that_the_table_says() -> None:
    """40 000 pixels: a spread is known to 1 / sqrt(2 n) = 0.35 %, five standard errors 1.8 %."""
    table = {"prnu": 0.02, "dsnu_electrons": 8.0, "read_noise_spread": 0.3}
    table |= {"gain_dn_per_electron": 1.0, "offset_dn": 500.0}
    sensor, at = camera(Key(3), 40_000, table, **QUIET)
    dark, bright = codes_of(sensor, at, 0.0, 1)[0], codes_of(sensor, at, 3.0, 1)[0]
    assert dark.var().item() == pytest.approx(8.0**2 + 1 / 12, rel=0.036)
    response = (bright - dark) / 3000
    assert response.mean().item() == pytest.approx(1, abs=5 * 0.02 / 200)
    assert response.std().item() == pytest.approx(0.02, rel=0.018)


def test_read_noise_is_log_normal_between_pixels_with_a_hot_tail() -> None:
    """20 000 pixels x 192 frames: ln s^2 has variance 4 spread^2 + 2 / 191."""
    body = {"gain_dn_per_electron": 10.0, "offset_dn": 500.0, "read_noise_spread": 0.3}
    options = {"shot_noise": "none", "read_noise_electrons": 5.0, "dark_electrons_per_s": 0.0}
    sensor, at = camera(Key(3), 20_000, body, **options)
    frames = torch.cat([codes_of(sensor, at, 0.0, 64, seed) for seed in range(3)])
    variance = frames.var(0)
    ln = variance.log()
    # The mean square over pixels has a relative error of sqrt((e^(4 s^2) - 1) / n) = 0.5 %.
    assert variance.mean().item() == pytest.approx(50.0**2, rel=0.025)
    expected = 4 * 0.3**2 + 2 / 191
    assert ln.var().item() == pytest.approx(expected, rel=5 * math.sqrt(2 / 20_000))
    tailed, at = camera(Key(3), 20_000, {**body, "read_noise_tail_fraction": 0.1}, **options)
    noisy = codes_of(tailed, at, 0.0, 64).var(0) > codes_of(sensor, at, 0.0, 64).var(0)
    assert torch.equal(
        codes_of(tailed, at, 0.0, 1)[0][~noisy], codes_of(sensor, at, 0.0, 1)[0][~noisy]
    )
    assert abs(noisy.double().mean().item() - 0.1) < 5 * math.sqrt(0.09 / 20_000)


@given(small=st.floats(0, 1), large=st.floats(0, 1), seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_few_faulty_pixels_are_among_many(small: float, large: float, seed: int) -> None:
    small, large = sorted([small, large])
    sensor, at = camera(Key(seed), 60, **{**QUIET, "dark_electrons_per_s": 1e3})

    def faulty(dial: str, value: float) -> Tensor:
        return codes_of(sensor, at, 1.0, 1, **{dial: value})[0] != codes_of(sensor, at, 1.0, 1)[0]

    for dial in ("hot_pixel_fraction", "dead_pixel_fraction", "saturated_fraction"):
        assert (faulty(dial, large) | ~faulty(dial, small)).all()


def test_dead_pixels_see_no_light_and_hot_ones_have_more_dark_current() -> None:
    """10 000 pixels: shares within five binomial standard errors."""
    table = {"dead_pixel_fraction": 0.1, "hot_pixel_fraction": 0.05, "hot_pixel_ratio": 1000.0}
    table |= {"gain_dn_per_electron": 1.0}
    sensor, at = camera(Key(0), 10_000, table, **{**QUIET, "dark_electrons_per_s": 50.0})
    dark, bright = codes_of(sensor, at, 0.0, 1)[0], codes_of(sensor, at, 1.0, 1)[0]
    dead, hot = bright - dark == 0, dark == 500
    assert abs(dead.double().mean().item() - 0.1) < 5 * math.sqrt(0.09 / 10_000)
    assert abs(hot.double().mean().item() - 0.05) < 5 * math.sqrt(0.0475 / 10_000)
    assert set(dark.tolist()) <= {0.0, 500.0}


def test_the_saturated_region_is_one_piece_of_the_stated_size() -> None:
    sensor, at = camera(Key(7), 32 * 32, {"shape": (32, 32), "saturated_fraction": 0.1}, **QUIET)
    full = (codes_of(sensor, at, 1.0, 1)[0] == sensor.end).reshape(32, 32)
    assert int(full.sum()) == math.ceil(0.1 * 1024)
    for line in (*full, *full.T):  # a disc meets every row and column in one run
        assert int(line.int().diff().clamp(min=0).sum() + line[0]) <= 1


# ---------------------------------------------------------------- geometry


def test_binning_adds_electrons_and_reads_once() -> None:
    """64 x 2500 groups of 2 x 2: four times the charge, one read noise; five standard errors."""
    table = {"gain_dn_per_electron": 1.0, "offset_dn": 100.0, "shape": (100, 100)}
    options = {"read_noise_electrons": 20.0, "mean_electrons": 100.0, "dark_electrons_per_s": 0.0}
    single, at = camera(Key(0), 10_000, table, **options)
    binned, at4 = camera(Key(0), 2500, {**table, "binning": 2}, **options)
    one, four = codes_of(single, at, 1.0), codes_of(binned, at4, 1.0)
    n = four.numel()
    assert four.shape == (64, 2500)
    assert abs(four.mean().item() - 500) < 5 * math.sqrt(800 / n)
    expected = 400 + 400 + 1 / 12  # adding codes would give 4 x (100 + 400)
    assert abs(four.var().item() - expected) < 5 * expected * math.sqrt(2 / n)
    assert abs(one.var().item() - 500) < 5 * 500 * math.sqrt(2 / one.numel())
    assert binned.signal_electrons(at4) == 4 * single.signal_electrons(at)


@given(
    seed=SEEDS, top=st.integers(0, 3), left=st.integers(0, 3),
    rows=st.integers(1, 4), columns=st.integers(1, 4), binning=st.integers(1, 3),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_region_and_binning_sum_the_pixels_they_name(
    seed: int, top: int, left: int, rows: int, columns: int, binning: int
) -> None:
    table = {"shape": (16, 16), "binning": binning, "gain_dn_per_electron": 1.0}
    table["roi"] = (top, left, rows * binning, columns * binning)
    sensor, at = camera(Key(0), rows * columns, table, camera_bits=16, **QUIET)
    light = torch.randint(9, (2, 16, 16), generator=Key(seed).torch()).float()
    codes = sensor.frames(light.flatten(1) / 1000, at, Key(0), 0).reshape(2, rows, columns)
    for r in range(rows):
        for c in range(columns):
            y, x = top + r * binning, left + c * binning
            wanted = light[:, y : y + binning, x : x + binning].sum((1, 2))
            assert torch.equal(codes[:, r, c], wanted.int())


@given(seed=SEEDS, rows=st.integers(-3, 3), columns=st.integers(-3, 3))
@settings(max_examples=25, deadline=None)
def test_a_shift_by_whole_pixels_moves_the_picture(seed: int, rows: int, columns: int) -> None:
    picture = torch.rand((2, 9, 11), generator=Key(seed).torch())
    inside = torch.roll(picture, (rows, columns), (1, 2))[:, 3:-3, 3:-3]
    assert torch.equal(moved(picture, rows, columns)[:, 3:-3, 3:-3], inside)


@given(part=st.floats(-1, 1), seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_a_shift_by_part_of_a_pixel_moves_a_ramp_by_that_part(part: float, seed: int) -> None:
    ramp = torch.arange(12.0).expand(1, 12, 12)
    assert torch.allclose(moved(ramp, 0.0, part)[0, :, 2:-2], ramp[0, :, 2:-2] - part, atol=1e-5)
    assert torch.allclose(moved(ramp, part, 0.0), ramp, atol=1e-5)


def test_misregistration_lowers_the_correlation_of_speckle_with_itself() -> None:
    """Independent pixels, shift s: correlation (1 - s) / sqrt(1 - 2 s + 2 s^2); 40 000 pixels."""
    table = {"shape": (200, 200), "gain_dn_per_electron": 1.0}
    sensor, at = camera(Key(0), 40_000, table, camera_bits=16, **QUIET)
    light = torch.empty(1, 40_000).exponential_(generator=Key(1).torch())
    straight = sensor.frames(light, at, Key(0), 0)[0].double()
    for shift in (0.1, 0.3, 0.5):
        turned = dataclasses.replace(at, shift_columns_px=shift)
        askew = sensor.frames(light, turned, Key(0), 0)[0].double()
        seen = torch.corrcoef(torch.stack([straight, askew]))[0, 1].item()
        expected = (1 - shift) / math.sqrt(1 - 2 * shift + 2 * shift**2)
        assert seen == pytest.approx(expected, abs=5 / math.sqrt(40_000) * 1.5)


# ---------------------------------------------------------------- codes


@given(bits=st.integers(1, 16), seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_left_justified_codes_are_right_justified_ones_shifted(bits: int, seed: int) -> None:
    light = torch.rand((3, 50), generator=Key(seed).torch()) * 20
    right, at = camera(Key(seed), 50, camera_bits=bits, stuck_pixel_fraction=0.2)
    left, _ = camera(
        Key(seed), 50, {"justification": "left"}, camera_bits=bits, stuck_pixel_fraction=0.2
    )
    plain, shifted = (s.frames(light, at, Key(1), 0) for s in (right, left))
    assert torch.equal(shifted.int(), plain.int() << ((8 if bits <= 8 else 16) - bits))
    assert shifted.dtype == plain.dtype == (torch.uint8 if bits <= 8 else torch.int32)
    assert left.clipped(shifted) == right.clipped(plain)
    assert left.better_exposure(shifted, at) == right.better_exposure(plain, at)


@given(
    seed=SEEDS, cut=st.integers(1, 2), law=st.sampled_from(["poisson", "gaussian"]),
    preset=st.sampled_from(sorted(SENSORS)),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_codes_are_in_range_and_chunks_change_nothing(
    seed: int, cut: int, law: str, preset: str
) -> None:
    sensor, at = camera(Key(seed), 33, dict(SENSORS[preset]), shot_noise=law)
    light = torch.empty(150, 33).exponential_(generator=Key(seed).child("light").torch())
    whole = sensor.frames(light, at, Key(seed), 0)
    assert whole.min() >= 0 and whole.max() <= sensor.end
    parts = [
        sensor.frames(light[rows], at, Key(seed), rows.start or 0)
        for rows in (slice(0, cut * SAMPLE_BLOCK), slice(cut * SAMPLE_BLOCK, 150))
    ]
    assert torch.equal(whole, torch.cat(parts))


# ---------------------------------------------------------------- lost frames


def test_lost_frames_are_an_error_of_the_stated_probability() -> None:
    """2000 calls of 8 frames: lost with 1 - 0.99^8, within five standard errors."""
    sensor, at = camera(Key(0), 4, {"lost_frame_probability": 0.01})
    lost = 0
    for call in range(2000):
        try:
            sensor.require_delivered(at, Key(call), 0, 8, 0.0, 1 / 60)
        except DeviceUnavailable:
            lost += 1
    expected = 1 - 0.99**8
    assert abs(lost / 2000 - expected) < 5 * math.sqrt(expected * (1 - expected) / 2000)


def test_a_lost_frame_stays_lost_at_its_time_and_not_for_ever() -> None:
    sensor, at = camera(Key(0), 4, {"lost_frame_probability": 0.5})

    def arrives(clock_s: float) -> bool:
        try:
            sensor.require_delivered(at, Key(1), 0, 1, clock_s, 0.01)
        except DeviceUnavailable:
            return False
        return True

    with pytest.raises(DeviceUnavailable, match=r"sample \d+ was lost.*Make the call again"):
        sensor.require_delivered(at, Key(1), 7, 64, 0.0, 0.01)
    seen = [arrives(0.01 * n) for n in range(200)]
    assert seen == [arrives(0.01 * n) for n in range(200)]
    assert abs(sum(seen) / 200 - 0.5) < 5 * 0.5 / math.sqrt(200)


def test_aligned_chunks_lose_the_same_frames() -> None:
    sensor, at = camera(Key(0), 4, {"lost_frame_probability": 0.004})
    for seed in range(40):
        outcomes = []
        for starts in ((0,), (0, 64)):
            try:
                for start in starts:
                    size = 128 if len(starts) == 1 else 64
                    sensor.require_delivered(at, Key(seed), start, size, start * 0.01, 0.01)
                outcomes.append("all")
            except DeviceUnavailable as error:
                outcomes.append(str(error).split(" was lost")[0])
        assert outcomes[0] == outcomes[1]


# ---------------------------------------------------------------- tables and maps


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"quantum_efficiency": 0.0}, "quantum_efficiency"),
        ({"gain_dn_per_electron": -1.0}, "gain_dn_per_electron"),
        ({"offset_dn": float("nan")}, "offset_dn"),
        ({"prnuu": 0.1}, "prnu"),
        ({"justification": "centre"}, "justification"),
        ({"shape": (4, 0)}, "rows and columns"),
        ({"binning": 2}, "sensor.shape"),
        ({"shift_rows_px": 0.5}, "sensor.shape"),
        ({"shape": (20, 20), "binning": 3}, "multiples"),
        ({"shape": (20, 20), "roi": (10, 0, 11, 20)}, "leave the sensor"),
        ({"shape": (10, 10)}, "pixels = 100"),
        ({"offset_dn": 4095.0}, "highest code 4095"),
    ],
)
def test_a_bad_sensor_names_the_field(options: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        camera(Key(0), 400, options)


def test_every_named_sensor_makes_a_camera() -> None:
    for table in SENSORS.values():
        sensor, at = camera(Key(0), 16, dict(table))
        assert sensor.frames(torch.ones(2, 16), at, Key(0), 0).shape == (2, 16)
    assert build(SensorTable, {}, "sensor") == SensorTable()


def test_measured_maps_are_used_pixel_by_pixel(tmp_path: Path) -> None:
    response = np.linspace(0, 2, 16).astype(np.float32)
    dark = np.r_[np.ones(15), 50].astype(np.float32)
    np.savez(tmp_path / "m.npz", response=response, dark_ratio=dark, response_error=dark)
    table = {"maps": str(tmp_path / "m.npz"), "gain_dn_per_electron": 1.0}
    sensor, at = camera(Key(0), 16, table, **{**QUIET, "dark_electrons_per_s": 1000.0})
    wanted = torch.from_numpy(np.round(1000.0 * response.astype(np.float64) + 10 * dark))
    assert (codes_of(sensor, at, 1.0, 1)[0] - wanted).abs().max() <= 1


@pytest.mark.parametrize("kind", ["missing", "size", "nan", "name", "text"])
def test_bad_maps_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.npz"
    values = np.ones(15 if kind == "size" else 16)
    values[0] = np.nan if kind == "nan" else 1
    if kind == "text":
        path.write_text("no maps")
    elif kind != "missing":
        np.savez(path, **{"respons" if kind == "name" else "response": values})
    with pytest.raises(DataError, match=r"sensor\.maps"):
        camera(Key(0), 16, {"maps": str(path)})
