"""The ladder of media against random-matrix theory and the statistics of speckle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic.dataclasses import dataclass
from torch import Tensor

from substrates.optics.grains import effective_outputs, field_correlation
from substrates.optics.matrixfile import measured_matrix
from substrates.optics.media import (
    BimodalTable,
    FileTable,
    GaussianTable,
    GrainsTable,
    MarchenkoPasturTable,
    MediumTable,
    SlabTable,
    contrast_of,
    effective_outputs_of,
    grains_of,
    make_medium,
    swapped_medium,
)
from substrates.optics.medium import (
    GaussianMedium,
    MatrixMedium,
    gaussian_matrix,
    summed_intensity,
)
from substrates.optics.spectra import (
    _unitary,
    between_unitaries,
    bimodal,
    bimodal_above,
    marchenko_pastur,
    marchenko_pastur_cdf,
)
from substrates.optics.white import sign_noise, white_noise
from twin.config import STRICT, build
from twin.errors import ConfigError, DataError
from twin.key import Key

SEEDS = st.integers(0, 2**32 - 1)
THIN: dict[str, Any] = {
    "grid_points": 64,
    "slices": 4,
    "slice_distance_m": 0.01,
    "camera_distance_m": 0.01,
}
"""A slab that a small grid can carry."""


def phases(seed: int, batch: int, channels: int) -> Tensor:
    """Light of independent random phases, (batch, channels), modulus 1."""
    turns = torch.rand((batch, channels), generator=Key(seed).child("light").torch())
    return torch.polar(torch.ones_like(turns), 2 * math.pi * turns)


def matrix_of(table: Any, channels: int, pixels: int, seed: int = 1) -> Tensor:
    medium = make_medium(table, channels, pixels, Key(seed))
    assert isinstance(medium, MatrixMedium)
    return medium.matrix


def speckle(table: Any, channels: int, pixels: int, batch: int, seed: int = 1) -> Tensor:
    """Intensities (batch, pixels) of random light behind a medium."""
    medium = make_medium(table, channels, pixels, Key(seed))
    return summed_intensity(medium.transmit(phases(seed, batch, channels), 0.0, 0.0))


def contrast(intensity: Tensor) -> float:
    return (intensity.std() / intensity.mean()).item()


# ---------------------------------------------------------------- Gaussian


@given(seed=SEEDS, channels=st.integers(1, 20), pixels=st.integers(1, 20))
@settings(max_examples=10, deadline=None)
def test_the_default_table_is_the_medium_there_always_was(
    seed: int, channels: int, pixels: int
) -> None:
    medium = make_medium(GaussianTable(), channels, pixels, Key(seed))
    light = phases(seed, 3, channels)
    before = GaussianMedium(channels, pixels, Key(seed)).transmit(light, 0.0, 0.0)
    assert torch.equal(medium.transmit(light, 5.0, 1.0), before)
    assert torch.equal(before, light @ gaussian_matrix(pixels, channels, Key(seed)).t())


def test_the_speckle_of_a_gaussian_medium_has_contrast_one_and_an_exponential_tail() -> None:
    """64 patterns x 4096 pixels, 784 channels: sd of the tail 0.0005, of the contrast 0.003."""
    intensity = speckle(GaussianTable(), 784, 4096, 64)
    assert abs(contrast(intensity) - 1) < 0.02
    tail = (intensity > 3 * intensity.mean()).float().mean().item()
    assert abs(tail / math.exp(-3) - 1) < 0.05


@pytest.mark.parametrize("patterns", [2, 4, 9])
def test_patterns_that_do_not_interfere_lower_the_contrast_as_the_root(patterns: int) -> None:
    """16 x 2048 pixels; relative standard error of the contrast near 0.8 / sqrt(n) = 0.004."""
    table = GaussianTable(patterns=patterns)
    intensity = speckle(table, 128, 2048, 16)
    assert intensity.shape == (16, 2048)
    assert abs(intensity.mean().item() - 1) < 5 / math.sqrt(patterns * 2048)
    assert abs(contrast(intensity) * math.sqrt(patterns) - 1) < 0.025
    assert contrast_of(table, 2048) == pytest.approx(1 / math.sqrt(patterns))


def test_a_medium_of_patterns_gives_the_field_of_each() -> None:
    medium = make_medium(GaussianTable(patterns=3), 8, 5, Key(1))
    assert isinstance(medium, MatrixMedium)
    light = phases(1, 4, 8)
    fields = medium.transmit(light, 0.0, 0.0)
    assert fields.shape == (4, 3, 5)
    for n in range(3):
        assert torch.allclose(fields[:, n], light @ medium.matrix[n].t(), atol=1e-6)
    assert torch.allclose(summed_intensity(fields), fields.abs().square().mean(1), atol=1e-6)


# ---------------------------------------------------------------- singular values


def distance(table: Any, seed: int) -> float:
    """Kolmogorov distance to Marchenko-Pastur of squared singular values at 144 x 966."""
    squared = torch.linalg.svdvals(matrix_of(table, 966, 144, seed)).double().square()
    ranks = marchenko_pastur_cdf(np.sort((squared / squared.mean()).numpy()), 144 / 966)
    levels = np.arange(145) / 144
    return max(np.abs(ranks - levels[1:]).max(), np.abs(ranks - levels[:-1]).max())


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("table", [GaussianTable(), MarchenkoPasturTable()])
def test_singular_values_follow_marchenko_pastur(table: Any, seed: int) -> None:
    assert distance(table, seed) < 0.02


def test_singular_values_of_another_shape_of_spectrum_do_not() -> None:
    assert distance(BimodalTable(), 1) > 0.2


@pytest.mark.parametrize("ratio", [0.01, 0.149, 0.5, 1.0])
def test_the_quantiles_of_marchenko_pastur_have_its_moments(ratio: float) -> None:
    """Mean 1, variance ratio, and third moment 1 + 3 ratio + ratio^2."""
    squared = marchenko_pastur(20_000, ratio)
    assert (np.diff(squared) < 0).all()
    for power, moment in [(1, 1.0), (2, 1 + ratio), (3, 1 + 3 * ratio + ratio**2)]:
        assert (squared**power).mean() == pytest.approx(moment, rel=1e-3)
    levels = (np.arange(20_000, 0, -1) - 0.5) / 20_000
    assert np.abs(marchenko_pastur_cdf(squared, ratio) - levels).max() < 1e-6


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (40, 40)])
def test_prescribed_singular_values_come_back_from_the_matrix(shape: tuple[int, int]) -> None:
    pixels, channels = shape
    singular = np.sqrt(marchenko_pastur(min(shape), min(shape) / max(shape)))
    matrix = between_unitaries(singular, pixels, channels, Key(1))
    assert matrix.shape == shape
    found = torch.linalg.svdvals(matrix).numpy()
    assert np.allclose(found, singular, atol=1e-5)


def test_the_unitaries_favour_no_phase() -> None:
    """400 of 6 modes. The first entry, variance 1 / 6: a bare QR makes its real part negative."""
    singular = np.array([1.0, 0, 0, 0, 0, 0])
    drawn = [_unitary(6, 6, Key(n))[0, 0] for n in range(400)]
    assert abs(torch.stack(drawn).mean().item()) < 5 * math.sqrt(1 / 6 / 400)
    assert torch.linalg.matrix_rank(between_unitaries(singular, 6, 6, Key(1))).item() == 1


def test_a_fully_controlled_slab_has_the_fraction_of_open_channels_that_the_law_gives() -> None:
    found = torch.linalg.svdvals(
        between_unitaries(np.sqrt(bimodal(400, 0.1)), 400, 400, Key(1))
    ).square()
    assert found.mean().item() == pytest.approx(0.1, rel=1e-3)
    for level in (0.05, 0.5, 0.9):
        fraction = (found > level).float().mean().item()
        assert abs(fraction - bimodal_above(level, 0.1)) <= 1 / 400
    # Half of what passes at all is carried by channels that are nearly open.
    assert bimodal_above(0.5, 0.1) == pytest.approx(math.acosh(math.sqrt(2)) * 0.1, rel=1e-6)


@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.2])
def test_less_control_shrinks_the_spread_of_transmissions_as_free_compression(
    fraction: float,
) -> None:
    """Keeping a fraction f of the inputs leaves the mean and f times the variance.

    500 modes, all outputs; the cumulants fluctuate by order 1 / (500 f).
    """
    law = bimodal(500, 0.2)
    cut = between_unitaries(np.sqrt(law), 500, round(500 * fraction), Key(2))
    found = torch.linalg.svdvals(cut).double().square().numpy()
    assert found.mean() == pytest.approx(law.mean(), rel=0.02)
    assert found.var() == pytest.approx(fraction * law.var(), rel=0.04)
    assert found.max() <= 1 + 1e-5


def test_a_slab_of_which_little_is_controlled_looks_like_a_gaussian_medium() -> None:
    table = BimodalTable(mean_transmission=0.5, controlled_fraction=0.06)
    squared = torch.linalg.svdvals(matrix_of(table, 60, 60)).double().square()
    ranks = marchenko_pastur_cdf(np.sort((squared / squared.mean()).numpy()), 1.0)
    assert np.abs(ranks - (np.arange(60) + 0.5) / 60).max() < 0.06


@pytest.mark.parametrize(
    "table",
    [
        GaussianTable(patterns=2),
        MarchenkoPasturTable(),
        BimodalTable(),
        BimodalTable(controlled_fraction=0.25),
        GrainsTable(pixels_per_grain=1.5),
        GrainsTable(pixels_per_grain=0.5, points_per_pixel=4),
        SlabTable(**THIN, normalisation="unit"),
    ],
    ids=lambda t: t.kind,
)
def test_every_medium_transmits_mean_intensity_one(
    table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 x 100 entries, at worst correlated over 2 grains in a row: sd below 0.02."""
    monkeypatch.setenv("PIB_TWIN_CACHE", str(tmp_path))
    power = matrix_of(table, 100, 100).abs().square().mean().item()
    assert abs(power * 100 - 1) < 0.1


# ---------------------------------------------------------------- grains


@pytest.mark.parametrize("kernel", ["airy", "gaussian"])
@pytest.mark.parametrize(("grain", "rows"), [(2.0, 1), (5.0, 1), (3.0, 8)])
def test_neighbouring_pixels_are_correlated_as_the_aperture_says(
    kernel: Any, grain: float, rows: int
) -> None:
    """4000 channels are 4000 independent fields: standard error 1 / sqrt(4000) = 0.016."""
    table = GrainsTable(pixels_per_grain=grain, kernel=kernel, camera_rows=rows)
    columns = 32
    matrix = matrix_of(table, 4000, rows * columns).view(rows, columns, -1)
    for offset in range(0, 12, 2):
        found = torch.linalg.vecdot(matrix[0, 0], matrix[0, offset]).real.item()
        law = float(field_correlation(np.array(offset), grain, kernel))
        assert abs(found - law) < 5 / math.sqrt(4000) + 0.03 * (kernel == "airy")
    if rows > 1:
        found = torch.linalg.vecdot(matrix[0, 0], matrix[2, 3]).real.item()
        law = float(field_correlation(np.array(math.hypot(2, 3)), grain, kernel))
        assert abs(found - law) < 5 / math.sqrt(4000) + 0.03 * (kernel == "airy")


@pytest.mark.parametrize(
    "table",
    [
        GaussianTable(),
        GaussianTable(patterns=2),
        GrainsTable(pixels_per_grain=2.0),
        GrainsTable(pixels_per_grain=6.0, kernel="gaussian"),
        GrainsTable(pixels_per_grain=3.0, camera_rows=16),
        GrainsTable(pixels_per_grain=0.5, camera_rows=16, points_per_pixel=3),
    ],
    ids=repr,
)
def test_the_effective_number_of_outputs_is_as_predicted(table: Any) -> None:
    """4000 patterns of random light, 256 pixels, 128 channels; relative error below 5 %."""
    found = effective_outputs(speckle(table, 128, 256, 4000))
    assert found == pytest.approx(effective_outputs_of(table, 128, 256), rel=0.1)


def test_the_effective_number_of_outputs_counts_grains() -> None:
    """A line of pixels, mu^4 = exp(-(pi r / grain)^2 / 2): one output per 0.8 grains."""
    for grain in (4.0, 8.0, 16.0):
        table = GrainsTable(pixels_per_grain=grain, kernel="gaussian")
        area = grain * math.sqrt(2 / math.pi)
        assert grains_of(table, 4096).effective_outputs() == pytest.approx(4096 / area, rel=0.01)


@pytest.mark.parametrize(("grain", "points", "rows"), [(0.25, 8, 1), (0.5, 4, 16), (1.0, 4, 16)])
def test_a_pixel_that_averages_grains_sees_the_contrast_of_their_integral(
    grain: float, points: int, rows: int
) -> None:
    """400 patterns of 256 pixels. Closed form: the mean of |mu|^2 over pairs of places."""
    table = GrainsTable(pixels_per_grain=grain, points_per_pixel=points, camera_rows=rows)
    intensity = speckle(table, 256, 256, 400)
    predicted = contrast_of(table, 256)
    assert predicted is not None
    assert contrast(intensity) == pytest.approx(predicted, rel=0.03)
    fine = np.linspace(-1, 1, 801)
    weights = 1 - np.abs(fine)
    if rows == 1:
        integral = np.trapezoid(weights * field_correlation(fine, grain, "airy") ** 2, fine)
    else:
        apart = np.hypot(fine[:, None], fine[None])
        each = np.outer(weights, weights) * field_correlation(apart, grain, "airy") ** 2
        integral = np.trapezoid(np.trapezoid(each, fine), fine)
    assert predicted == pytest.approx(math.sqrt(integral), rel=0.05)


@given(seed=SEEDS)
@settings(max_examples=5, deadline=None)
def test_points_of_a_pixel_land_in_that_pixel(seed: int) -> None:
    """Points of one pixel are neighbours on the fine grid: near-equal for huge grains."""
    table = GrainsTable(pixels_per_grain=8.0, points_per_pixel=2, camera_rows=4)
    matrix = matrix_of(table, 16, 32, seed)
    assert matrix.shape == (4, 32, 16)
    apart = (matrix - matrix[:1]).abs().square().mean().item() * 16
    assert apart < 0.1
    assert (matrix[:, 1:] - matrix[:, :-1]).abs().square().mean().item() * 16 < 0.6


def test_a_camera_whose_rows_do_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="camera_rows"):
        make_medium(GrainsTable(camera_rows=3), 4, 256, Key(1))


# ---------------------------------------------------------------- files


def stored(tmp_path: Path, kind: str, values: np.ndarray) -> Path:
    path = tmp_path / f"matrix.{kind}"
    if kind == "npy":
        np.save(path, values)
    elif kind == "npz":
        np.savez(path, matrix=values)
    elif np.iscomplexobj(values):
        dims = ("pattern", "pixel", "channel")[-values.ndim :]
        parts = {"matrix_real": (dims, values.real), "matrix_imag": (dims, values.imag)}
        xarray.Dataset(parts).to_netcdf(path, engine="h5netcdf")
    else:
        dims = ("pattern", "pixel", "channel")[-values.ndim :]
        xarray.Dataset({"matrix": (dims, values)}).to_netcdf(path, engine="h5netcdf")
    return path


KINDS = ["npy", "npz", "nc"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4)])
def test_a_measured_matrix_comes_back_from_its_file(
    tmp_path: Path, kind: str, shape: tuple[int, ...]
) -> None:
    values = 7 * gaussian_matrix(math.prod(shape) // 4, 4, Key(1)).numpy().reshape(shape)
    path = str(stored(tmp_path, kind, values))
    raw = make_medium(FileTable(path=path, normalise=False), 4, 5, Key(9))
    assert isinstance(raw, MatrixMedium)
    assert np.array_equal(raw.matrix.numpy(), values)
    scaled = matrix_of(FileTable(path=path), 4, 5)
    assert scaled.abs().square().mean().item() == pytest.approx(1 / 4, rel=1e-5)
    assert torch.allclose(scaled / scaled.flatten()[0], raw.matrix / raw.matrix.flatten()[0])


def test_a_complex_netcdf_variable_is_read(tmp_path: Path) -> None:
    values = gaussian_matrix(5, 4, Key(1)).numpy()
    path = tmp_path / "matrix.nc"
    held = xarray.Dataset({"t": (("pixel", "channel"), values)})
    with pytest.warns(UserWarning, match="invalid netcdf"):
        held.to_netcdf(path, engine="h5netcdf", invalid_netcdf=True)
    assert np.array_equal(measured_matrix(path, 4, 5, normalise=False).numpy(), values)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_holds_no_matrix_of_this_rig_is_refused(tmp_path: Path, kind: str) -> None:
    good = gaussian_matrix(5, 4, Key(1)).numpy()
    broken = good.copy()
    broken[2, 3] = np.nan
    wrong = {
        "not finite": broken,
        "complex": good.real.copy(),
        "Transpose": good.T.copy(),
        "expected shape": good[:4],
        "above 0": 0 * good,
    }
    for message, values in wrong.items():
        with pytest.raises(DataError, match=message):
            measured_matrix(stored(tmp_path, kind, values), 4, 5)


def test_objects_text_and_missing_files_are_refused(tmp_path: Path) -> None:
    hostile = tmp_path / "matrix.npy"
    np.save(hostile, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    archive = tmp_path / "several.npz"
    np.savez(archive, a=np.ones((5, 4), complex), b=np.ones((5, 4), complex))
    files = {hostile: "cannot be read", archive: "several arrays", tmp_path / "no.npy": "no such"}
    for kind in KINDS:
        text = tmp_path / f"text.{kind}"
        text.write_text("not a matrix")
        files[text] = "cannot be read"
    files[tmp_path / "matrix.mat"] = "expected a file named"
    for path, message in files.items():
        with pytest.raises(DataError, match=message):
            measured_matrix(path, 4, 5)
    assert measured_matrix(archive, 4, 5, "b").shape == (5, 4)
    with pytest.raises(DataError, match="no array 'c'"):
        measured_matrix(archive, 4, 5, "c")


# ---------------------------------------------------------------- tables


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Nest:
    """As a rig would hold it."""

    medium: MediumTable = GaussianTable()


def test_a_table_is_chosen_by_its_kind_and_checked() -> None:
    built = build(Nest, {"medium": {"kind": "grains", "pixels_per_grain": 3.0}}, "optics")
    assert built.medium == GrainsTable(pixels_per_grain=3.0)
    assert build(Nest, {}, "optics").medium == GaussianTable()
    for wrong in (
        {"kind": "granite"},
        {"kind": "grains", "pixels": 3.0},
        {"kind": "bimodal", "mean_transmission": 1.5},
        {"kind": "file"},
        {},
    ):
        with pytest.raises(ConfigError, match="optics"):
            build(Nest, {"medium": wrong}, "optics")


def test_a_slab_with_fewer_modes_than_pixels_is_refused() -> None:
    with pytest.raises(ConfigError, match="controlled_fraction <= 0\\.25"):
        make_medium(BimodalTable(controlled_fraction=0.5), 16, 64, Key(1))
    with pytest.raises(ConfigError, match="exceed"):
        make_medium(BimodalTable(controlled_fraction=0.001), 16, 64, Key(1))


def test_a_swapped_medium_is_another_device_of_the_same_law(tmp_path: Path) -> None:
    own = matrix_of(GaussianTable(), 64, 128)
    same, other, third = (
        swapped_medium(GaussianTable(), 64, 128, Key(1), other=n) for n in (0, 1, 2)
    )
    assert isinstance(same, MatrixMedium) and isinstance(other, MatrixMedium)
    assert isinstance(third, MatrixMedium)
    assert torch.equal(same.matrix, own)
    for a, b in ((own, other.matrix), (own, third.matrix), (other.matrix, third.matrix)):
        assert (a * b.conj()).mean().abs().item() * 64 < 5 / math.sqrt(64 * 128)
    path = str(stored(tmp_path, "npy", own.numpy()))
    with pytest.raises(ConfigError, match="other device's file"):
        swapped_medium(FileTable(path=path), 64, 128, Key(1))


def test_a_slab_is_the_matrix_of_its_screens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIB_TWIN_CACHE", str(tmp_path))
    table = SlabTable(**THIN)
    first, again = (matrix_of(table, 16, 64) for _ in range(2))
    assert torch.equal(first, again)
    assert matrix_of(SlabTable(**THIN, patterns=2), 16, 64).shape == (2, 64, 16)
    steady = make_medium(table, 17, 64, Key(1), steady=True)
    assert isinstance(steady, MatrixMedium)
    expected = first.sum(1) / math.sqrt(17)
    assert torch.allclose(steady.matrix[:, -1], expected, atol=1e-6)


# ---------------------------------------------------------------- noise to draw from


@pytest.mark.parametrize("source", [white_noise, sign_noise])
def test_white_noise_is_white(source: Any) -> None:
    """2^18 entries: standard error of a mean 1 / 512."""
    key = Key(5)
    drawn = source(key)((512, 512), 2.0)
    assert drawn.abs().square().mean().item() == pytest.approx(4, rel=5 / 512)
    for mean in (drawn.mean(), drawn.square().mean() / 4, (drawn[1:] * drawn[:-1].conj()).mean()):
        assert mean.abs().item() < 10 / 512
    again = source(key, torch.empty((512, 512), dtype=torch.complex64))((512, 512), 2.0)
    assert torch.equal(drawn, again)
