"""A multislice medium: its screens, its matrix, and light that it reacts to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from substrates.optics import matrixcache, multislice
from substrates.optics.medium import with_unmodulated
from substrates.optics.multislice import (
    MultisliceMedium,
    transmission_matrix,
    with_steady,
)
from substrates.optics.propagation import Allowed
from substrates.optics.reacting import ReactingMedium, in_parts
from substrates.optics.screens import (
    MultisliceTable,
    camera_samples,
    grains_per_pixel_step,
    grid_of,
    macropixels,
    phase_screens,
    require_valid_medium,
)
from twin.config import build
from twin.errors import ConfigError, DriveError
from twin.key import Key

SMALL = MultisliceTable(grid_points=64, slices=4, slice_distance_m=8e-3, camera_distance_m=8e-3)
FREE = dataclasses.replace(SMALL, slices=1, slice_distance_m=0.0, camera_distance_m=0.0)
seeds = st.integers(0, 2**32)


def lit(batch: int, channels: int, seed: int) -> Tensor:
    """(batch, channels), complex64: unit light with independent phases over the circle."""
    rad = torch.rand((batch, channels), generator=Key(seed).torch()) * 2 * math.pi
    return torch.polar(torch.ones_like(rad), rad)


def contrast(intensity: Tensor) -> float:
    intensity = intensity.double()
    return float(intensity.std() / intensity.mean())


def test_screens_have_the_rms_and_the_correlation_they_were_asked_for() -> None:
    # 64 screens; each gives one independent estimate; five standard errors.
    table = dataclasses.replace(
        SMALL, grid_points=128, slices=64, phase_rms_rad=1.3, correlation_length_m=40e-6
    )
    rad = phase_screens(table, Key(1))
    for lag in (0, 2, 5, 8):
        found = (rad * rad.roll(lag, -1)).mean((-2, -1))
        expected = 1.3**2 * math.exp(-((lag * 8e-6 / 40e-6) ** 2))
        bound = 5 * float(found.std()) / 8
        assert bound < 0.12
        assert abs(float(found.mean()) - expected) < bound


def test_a_screen_of_no_correlation_length_is_white() -> None:
    # 64 screens of 4096 samples; the estimate of a correlation has error rms^2 / 512.
    table = dataclasses.replace(SMALL, slices=64, phase_rms_rad=1.0, correlation_length_m=0.0)
    rad = phase_screens(table, Key(2))
    assert abs(float(rad.square().mean()) - 1) < 5 * math.sqrt(2) / 512
    assert abs(float((rad * rad.roll(1, -1)).mean())) < 5 / 512
    assert abs(float((rad[1:] * rad[:-1]).mean())) < 5 / 512


def test_a_screen_depends_on_key_and_number_only() -> None:
    few = phase_screens(SMALL, Key(3))
    many = phase_screens(dataclasses.replace(SMALL, slices=6), Key(3))
    assert torch.equal(few, many[:4])
    assert not torch.equal(few, phase_screens(SMALL, Key(4)))


@settings(max_examples=15)
@given(channels=st.integers(1, 300), fraction=st.floats(0.3, 1.0))
def test_macropixels_are_equal_squares_side_by_side(channels: int, fraction: float) -> None:
    table = dataclasses.replace(SMALL, modulator_fraction=fraction)
    owner = macropixels(table, channels)
    sizes = torch.bincount(owner[owner >= 0], minlength=channels)
    assert len(sizes) == channels and sizes.min() == sizes.max() > 0
    rows, cols = (owner == 0).nonzero().unbind(1)
    side = math.isqrt(int(sizes[0]))
    assert len(rows.unique()) == len(cols.unique()) == side


@given(pixels=st.integers(1, 4096))
def test_camera_pixels_are_different_samples_of_the_grid(pixels: int) -> None:
    at = camera_samples(SMALL, pixels)
    assert len(at) == pixels == len(at.unique())
    assert int(at.min()) >= 0 and int(at.max()) < 64 * 64


@settings(max_examples=6)
@given(seed=seeds, channels=st.sampled_from([1, 7, 16]))
def test_nothing_is_lost_between_modulator_and_camera(seed: int, channels: int) -> None:
    # The camera sees every sample of the grid: columns are orthogonal and keep the energy.
    matrix = transmission_matrix(
        SMALL, channels, 64 * 64, Key(seed), dtype=torch.complex128, cache=False
    )
    gram = matrix.mH @ matrix * (channels / 64**2)
    assert float((gram - torch.eye(channels)).abs().max()) < 1e-10
    single = transmission_matrix(SMALL, channels, 64 * 64, Key(seed), cache=False)
    assert abs(float(single.abs().double().square().mean()) * channels - 1) < 1e-6


def test_light_that_leaves_a_padded_medium_is_lost() -> None:
    table = dataclasses.replace(SMALL, padding=2)
    power = transmission_matrix(table, 4, 64 * 64, Key(1), cache=False).abs().square().mean() * 4
    assert 0.2 < float(power) < 0.98


def test_a_unit_matrix_has_the_mean_power_it_says() -> None:
    table = dataclasses.replace(SMALL, padding=2, normalisation="unit")
    matrix = transmission_matrix(table, 9, 100, Key(1), cache=False)
    assert float(matrix.abs().double().square().mean()) == pytest.approx(1 / 9, rel=1e-5)


@settings(max_examples=6)
@given(seed=seeds, batch=st.integers(1, 9))
def test_a_matrix_does_what_walking_through_the_slices_does(seed: int, batch: int) -> None:
    light = lit(batch, 9, seed)
    medium = MultisliceMedium(SMALL, 9, 100, Key(seed))
    walked = ReactingMedium(SMALL, 9, 100, Key(seed)).transmit(light, 0.0, 0.0)
    product = medium.transmit(light, 0.0, 0.0)
    assert product.dtype == walked.dtype == torch.complex64
    assert float((product - walked).norm() / walked.norm()) < 3e-6
    assert medium.matrix_at(7.0).shape == (100, 9)


@pytest.mark.parametrize("batch", [1, 3, 7, 64])
def test_a_sample_walks_alike_whatever_stands_beside_it(batch: int) -> None:
    # Bit for bit: one different bit would shift the whole stream of a Poisson sampler.
    for table in (SMALL, dataclasses.replace(SMALL, padding=2, kerr_rad=0.3)):
        medium = ReactingMedium(table, 9, 100, Key(1))
        block = torch.cat([lit(7, 9, 1), torch.ones((57, 9), dtype=torch.complex64)])
        whole = medium.transmit(block, 0.0, 0.0)
        assert whole.shape == (64, 100)
        for start in range(0, 64 - batch + 1, batch):
            part = medium.transmit(block[start : start + batch], 0.0, 0.0)
            assert torch.equal(part, whole[start : start + batch])


def test_equal_rows_that_fill_up_a_block_are_walked_once() -> None:
    walked: list[int] = []

    def few(light: Tensor) -> Tensor:
        walked.append(len(light))
        return light

    block = torch.cat([lit(3, 9, 1), torch.ones((61, 9), dtype=torch.complex64)])
    assert torch.equal(in_parts(block, few), block)
    assert sum(walked) == 4


def test_speckle_of_the_default_medium_is_fully_developed() -> None:
    # 4096 pixels, three grains apart, times 32 frames; the pixels are independent.
    matrix = transmission_matrix(MultisliceTable(), 64, 4096, Key(1))
    intensity = (lit(32, 64, 2) @ matrix.t()).abs().square().double()
    assert grains_per_pixel_step(MultisliceTable(), 4096) > 2
    mean = intensity.mean()
    # Slope of the contrast with respect to the second and the first moment.
    each = (intensity.square() / (2 * mean**2) - 2 * intensity / mean).mean(0)
    bound = 5 * float(each.std()) / math.sqrt(4096)
    assert bound < 0.04
    assert abs(contrast(intensity) - 1) < max(bound, 0.02)
    tail = float((intensity > 3 * mean).double().mean())
    assert tail == pytest.approx(math.exp(-3), rel=0.05)
    assert float(mean) == pytest.approx(1, abs=0.05)


def test_singular_values_of_the_default_medium_follow_marchenko_and_pastur() -> None:
    # 144 x 961 as in the literature of measured matrices; the largest distance of the
    # cumulative distributions, for which 144 values of a perfect sample are rigid (< 0.01).
    matrix = transmission_matrix(MultisliceTable(), 144, 961, Key(1))
    found = torch.linalg.svdvals(matrix.t()).double().flip(0).numpy()
    found /= math.sqrt((found**2).mean())
    gamma = 144 / 961
    low, high = 1 - math.sqrt(gamma), 1 + math.sqrt(gamma)
    s = np.linspace(low, high, 20001)
    density = np.sqrt(np.clip((high**2 - s**2) * (s**2 - low**2), 0, None)) / s
    cumulative = np.cumsum(density) / density.sum()
    at = np.interp(found, s, cumulative)
    ranks = np.arange(144)
    assert max(np.abs(at - ranks / 144).max(), np.abs(at - (ranks + 1) / 144).max()) < 0.03


@pytest.mark.parametrize(("span_rad", "expected"), [(math.pi, 0.914), (2 * math.pi, 1.0)])
def test_screens_that_span_half_the_circle_give_low_contrast(
    span_rad: float, expected: float
) -> None:
    # The law of LightPipes' RandomPhase at its defaults, uniform over +-pi/2: a part
    # (2/pi)^2 of the power stays in the plane wave, the contrast is sqrt(1 - (2/pi)^4).
    table = MultisliceTable(
        slices=1, slice_distance_m=0.0, camera_distance_m=50e-3,
        correlation_length_m=0.0, phase_rms_rad=1.0, allow=("aliasing",),
    )  # fmt: skip
    rad = torch.rand((1, 256, 256), generator=Key(5).torch(), dtype=torch.float64) - 0.5
    one = transmission_matrix(table, 1, 256**2, Key(1), screens_rad=rad * span_rad, cache=False)
    # 65536 samples, all of them independent as the field is white: 5 / 256.
    assert abs(contrast(one.abs().square()) - expected) < 5 / 256


def test_unmodulated_light_is_a_plane_wave_on_all_macropixels() -> None:
    matrix = transmission_matrix(SMALL, 16, 64 * 64, Key(1), cache=False)
    wider = with_steady(matrix)
    assert wider.shape == (64 * 64, 17)
    assert float(wider.abs().square().mean()) == pytest.approx(1 / 17, rel=1e-5)
    medium = MultisliceMedium(SMALL, 17, 64 * 64, Key(1), steady=True)
    assert torch.equal(medium.matrix, wider)
    light = with_unmodulated(lit(1, 16, 1), 0.999999)
    flat = matrix.sum(1)
    field = medium.transmit(light, 0.0, 0.0)[0]
    assert float((field - flat).norm() / flat.norm()) < 3e-3
    light = with_unmodulated(lit(3, 16, 1), 0.2)
    walked = ReactingMedium(SMALL, 17, 64 * 64, Key(1), steady=True).transmit(light, 0.0, 0.0)
    product = medium.transmit(light, 0.0, 0.0)
    assert float((walked - product).norm() / product.norm()) < 3e-6


@settings(max_examples=10)
@given(kerr_rad=st.floats(-2, 2), seed=seeds)
def test_a_kerr_slice_turns_the_phase_by_the_intensity(kerr_rad: float, seed: int) -> None:
    table = dataclasses.replace(FREE, kerr_rad=kerr_rad, slice_distance_m=2e-3)
    still = dataclasses.replace(table, kerr_rad=0.0)
    screens, light = torch.zeros((1, 64, 64)), lit(1, 16, seed)
    make = partial(ReactingMedium, dtype=torch.complex128, screens_rad=screens)
    before = make(still, 16, 4096, Key(1)).transmit(light, 0, 0)
    after = make(table, 16, 4096, Key(1)).transmit(light, 0, 0)
    expected = before * torch.exp(1j * kerr_rad * before.abs().square())
    assert float((after - expected).abs().max()) < 1e-12


def test_a_medium_that_reacts_is_not_linear_and_keeps_the_energy() -> None:
    table = dataclasses.replace(SMALL, kerr_rad=0.5)
    medium = ReactingMedium(table, 9, 64 * 64, Key(1))
    light = lit(6, 9, 1)
    field = medium.transmit(light, 0.0, 0.0)
    assert float(field.abs().square().mean()) == pytest.approx(1, abs=2e-6)
    linear = MultisliceMedium(SMALL, 9, 64 * 64, Key(1)).transmit(light, 0.0, 0.0)
    assert float((field - linear).norm() / linear.norm()) > 0.3
    assert torch.allclose(medium.transmit(light[4:], 0.0, 0.0), field[4:], atol=1e-5)
    with pytest.raises(ConfigError, match="ReactingMedium"):
        transmission_matrix(table, 9, 100, Key(1))
    with pytest.raises(ConfigError, match="energy"):
        ReactingMedium(dataclasses.replace(table, normalisation="unit"), 9, 100, Key(1))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """An empty cache; the list grows by one with each matrix that is computed."""
    monkeypatch.setenv("PIB_TWIN_CACHE", str(tmp_path))
    count: list[int] = []
    inner = multislice._made

    def counted(*args: object) -> Tensor:
        count.append(1)
        return inner(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(multislice, "_made", counted)
    return count


def test_a_matrix_is_made_once_and_then_read(made: list[int], tmp_path: Path) -> None:
    first = transmission_matrix(SMALL, 9, 100, Key(1))
    assert torch.equal(transmission_matrix(SMALL, 9, 100, Key(1)), first)
    assert len(made) == 1
    (kept,) = (tmp_path / "media").iterdir()
    assert kept.suffix == ".safetensors"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"\x80\x04" + data,
    ],
)
def test_a_torn_or_altered_file_is_made_again(
    spoil: Callable[[bytes], bytes], made: list[int], tmp_path: Path
) -> None:
    first = transmission_matrix(SMALL, 9, 100, Key(1))
    (kept,) = (tmp_path / "media").iterdir()
    good = kept.read_bytes()
    kept.write_bytes(spoil(good))
    assert torch.equal(transmission_matrix(SMALL, 9, 100, Key(1)), first)
    assert len(made) == 2 and kept.read_bytes() == good


def test_a_cache_that_cannot_be_written_costs_time_only(
    made: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PIB_TWIN_CACHE", str(tmp_path / "file"))
    first = transmission_matrix(SMALL, 9, 100, Key(1))
    assert torch.equal(transmission_matrix(SMALL, 9, 100, Key(1)), first)
    assert len(made) == 2


def test_what_changes_the_matrix_changes_its_name(tmp_path: Path) -> None:
    c64, other = torch.complex64, dataclasses.replace(SMALL, phase_rms_rad=1.6)
    names = {
        multislice.matrix_name(SMALL, 9, 100, Key(1), c64, "cpu"),
        multislice.matrix_name(SMALL, 10, 100, Key(1), c64, "cpu"),
        multislice.matrix_name(SMALL, 9, 101, Key(1), c64, "cpu"),
        multislice.matrix_name(SMALL, 9, 100, Key(2), c64, "cpu"),
        multislice.matrix_name(SMALL, 9, 100, Key(1).child("a"), c64, "cpu"),
        multislice.matrix_name(other, 9, 100, Key(1), c64, "cpu"),
        multislice.matrix_name(SMALL, 9, 100, Key(1), torch.complex128, "cpu"),
    }
    assert len(names) == 7
    source = tmp_path / "code.py"
    source.write_text("a = 1")
    before = matrixcache.content_key("q", (source,))
    source.write_text("a = 2")
    assert matrixcache.content_key("q", (source,)) != before


def test_given_screens_are_not_kept(made: list[int], tmp_path: Path) -> None:
    transmission_matrix(SMALL, 9, 100, Key(1), screens_rad=torch.zeros((4, 64, 64)))
    assert len(made) == 1 and not (tmp_path / "media").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"phase_rms_rad": 4.0}, r"wavelength / \(2 NA\)"),
        ({"grid_points": 64, "slice_distance_m": 0.05}, "half the grid"),
        ({"slice_distance_m": 0.04}, r"k z theta\^4 / 8 = 0\.2\d+ rad"),
        ({"phase_rms_rad": 4.0, "allow": ("paraxial",)}, "sampling"),
    ],
)
def test_a_medium_its_grid_cannot_carry_is_refused(changes: dict[str, object], said: str) -> None:
    table = build(MultisliceTable, changes, "medium")
    with pytest.raises(ConfigError, match=said):
        require_valid_medium(table)
    everything: tuple[Allowed, ...] = ("sampling", "aliasing", "paraxial")
    require_valid_medium(dataclasses.replace(table, allow=everything))


def test_the_default_medium_is_valid_and_says_its_aperture() -> None:
    require_valid_medium(MultisliceTable())
    # Measured angles: 95 % of the light within the aperture, to each axis.
    matrix = transmission_matrix(MultisliceTable(), 1, 256**2, Key(1), cache=False)
    spectrum = torch.fft.fft2(matrix.view(256, 256)).abs().double().square().sum(0)
    sines = torch.fft.fftfreq(256, 8e-6, dtype=torch.float64).abs() * 532e-9
    inside = spectrum[sines <= grid_of(MultisliceTable()).sine].sum() / spectrum.sum()
    assert float(inside) == pytest.approx(0.954, abs=0.02)


@pytest.mark.parametrize(
    "options",
    [{"pitch_m": -1.0}, {"slices": 0}, {"law": "ray"}, {"allow": ("all",)}, {"pich_m": 1}],
)
def test_a_table_that_makes_no_sense_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"medium.{next(iter(options))}"):
        build(MultisliceTable, options, "medium")


def test_what_does_not_fit_the_grid_is_refused() -> None:
    with pytest.raises(ConfigError, match="5000 macropixels"):
        transmission_matrix(SMALL, 5000, 100, Key(1), cache=False)
    with pytest.raises(ConfigError, match="5000 camera pixels"):
        transmission_matrix(SMALL, 9, 5000, Key(1), cache=False)
    with pytest.raises(ConfigError, match="screens"):
        transmission_matrix(SMALL, 9, 10, Key(1), screens_rad=torch.zeros((1, 64, 64)))
    with pytest.raises(DriveError, match="expected"):
        ReactingMedium(SMALL, 9, 10, Key(1)).transmit(lit(2, 8, 1), 0.0, 0.0)
