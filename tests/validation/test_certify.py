"""Certificates: kept by an i.i.d. medium, missed by simulators with a known fault."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from substrates.ideal import make as make_ideal
from substrates.noise import standard_normal
from substrates.optics.drift import Drifting, DriftTable
from substrates.optics.medium import GaussianMedium, gaussian_matrix
from substrates.optics.presets import configured
from substrates.optics.rig import OpticalRig
from twin.errors import ConfigError
from twin.fence import Fence
from twin.key import Key
from validation import summary
from validation.certify import Certificate, Report, Scale, certified, main, memory, transmission
from validation.certify.certificate import around, jackknifed
from validation.certify.rig import Rig
from validation.certify.transmission import MOST_INPUTS
from validation.physics import randommatrix
from validation.physics.law import Skipped

DEVICE = Key(5)


class Still:
    """A medium that is one matrix."""

    static = True

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix.to(torch.complex64)

    def transmit(self, light: Tensor, clock_s: float, frame_s: float) -> Tensor:
        return light @ self.matrix.t()


class Dimming(Still):
    """The same behind a laser that loses a per cent of its field a second."""

    static = False

    def transmit(self, light: Tensor, clock_s: float, frame_s: float) -> Tensor:
        return super().transmit(light, clock_s, frame_s) * math.exp(-0.01 * clock_s)


class Flashing(Still):
    """The same behind a laser whose power jumps by 5 % r.m.s. from frame to frame."""

    static = False

    def transmit(self, light: Tensor, clock_s: float, frame_s: float) -> Tensor:
        first = round(clock_s / frame_s)
        gain = 1 + 0.025 * standard_normal(Key(7), first, len(light), (1,))
        return super().transmit(light, clock_s, frame_s) * gain


def uniform_imaginary(pixels: int, inputs: int) -> Tensor:
    """A public simulator's matrix: the imaginary part uniform on [0, 1], not normal."""
    generator = Key(11).torch()
    real = torch.randn((pixels, inputs), generator=generator)
    imaginary = torch.rand((pixels, inputs), generator=generator)
    return torch.complex(real, imaginary) / math.sqrt(inputs * 4 / 3)


def one_screen(span_rad: float, pixels: int = 1024, inputs: int = 64) -> Tensor:
    """50 mm behind one screen of phases uniform over `span_rad`: 64 x 64 samples of 8 um.

    A span of pi (+- pi/2) is the default of a well-known library.
    """
    grid, pitch_m, wavelength_m, distance_m = 64, 8e-6, 532e-9, 0.05
    across, side = math.isqrt(inputs), math.isqrt(pixels)
    phases = (torch.rand((grid, grid), generator=Key(12).torch()) - 0.5) * span_rad
    lit = torch.eye(inputs).view(inputs, across, across)
    lit = lit.repeat_interleave(grid // across, 1).repeat_interleave(grid // across, 2)
    f = torch.fft.fftfreq(grid, pitch_m)
    factor = torch.exp(-1j * math.pi * wavelength_m * distance_m * (f[:, None] ** 2 + f**2))
    behind = torch.fft.fft2(lit * torch.polar(torch.ones(()), phases))
    seen = torch.fft.ifft2(behind * factor)[:, :: grid // side, :: grid // side]
    matrix = seen.reshape(inputs, -1).T
    return matrix / matrix.abs().square().sum(1).mean().sqrt()


def fence(medium: Still, **options: Any) -> Fence:
    pixels, inputs = medium.matrix.shape
    config = configured({"pixels": pixels, "inputs": inputs, **options})
    return Fence(OpticalRig(config, DEVICE, medium), name="rig")


def good(pixels: int = 256, inputs: int = 64) -> Still:
    return Still(gaussian_matrix(pixels, inputs, Key(13)))


def failed(report: Report) -> set[str]:
    return {o.name for o in report.outcomes if isinstance(o, Certificate) and not o.passes}


def value(report: Report, name: str) -> float:
    (found,) = [o for o in report.outcomes if o.name.startswith(name)]
    assert isinstance(found, Certificate)
    return found.value


@cache
def report_of_a_good_rig() -> Report:
    return certified(fence(good()), Key(1))


# ---- what an i.i.d. medium gives ----------------------------------------------


def test_an_iid_medium_gets_every_certificate() -> None:
    report = report_of_a_good_rig()
    assert report.passes and failed(report) == set()
    assert not any(isinstance(o, Skipped) for o in report.outcomes)
    assert report.facts["live_pixels"] == 256
    assert report.facts["memory_range_macropixels"] == 0
    assert report.facts["unscattered_fraction"] == 0


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    pixels=st.sampled_from([64, 200, 256]),
    inputs=st.sampled_from([40, 64, 144]),
    electrons=st.sampled_from([200.0, 1000.0, 20_000.0]),
    bits=st.sampled_from([8, 12]),
)
def test_any_iid_medium_gets_every_certificate(
    seed: int, pixels: int, inputs: int, electrons: float, bits: int
) -> None:
    # Every bound is five standard errors or a wider tolerance.
    medium = Still(gaussian_matrix(pixels, inputs, Key(seed)))
    device = fence(medium, mean_electrons=electrons, camera_bits=bits)
    assert failed(certified(device, Key(seed), Scale.quick())) == set()


def test_noise_and_residual_light_are_not_blamed_on_the_medium() -> None:
    options = {"phase_flicker_rad": 0.1, "unmodulated_fraction": 0.02, "mean_electrons": 100.0}
    matrix = gaussian_matrix(256, 65, Key(13))
    config = configured({"pixels": 256, "inputs": 64, "read_noise_electrons": 2.0, **options})
    device = Fence(OpticalRig(config, DEVICE, Still(matrix)), name="rig")
    report = certified(device, Key(1))
    # Light that is not modulated is a mean field, of which random drives see 2 %.
    assert failed(report) == set()


def test_the_same_key_gives_the_same_certificates() -> None:
    first, second = (certified(fence(good()), Key(3), Scale.quick()) for _ in range(2))
    assert first.outcomes == second.outcomes


def test_a_black_level_is_taken_off_when_it_is_told() -> None:
    matrix, options = good().matrix, {"sensor": {"offset_dn": 20.0}}
    told = certified(fence(Still(matrix), **options), Key(1), dark=20 / 255)
    assert failed(told) == set()
    untold = certified(fence(Still(matrix), **options), Key(1))
    assert "speckle contrast, random drives" in failed(untold)


def test_binary_amplitudes_are_certified_without_a_matrix() -> None:
    config = configured({"modulator": {"kind": "dmd"}})
    report = certified(Fence(OpticalRig(config, DEVICE), name="rig"), Key(1))
    assert failed(report) == set() and report.spectrum is None


# ---- what is caught -----------------------------------------------------------


def test_a_uniform_imaginary_part_is_caught_by_the_contrast() -> None:
    report = certified(fence(Still(uniform_imaginary(256, 64))), Key(1))
    assert {
        "speckle contrast, smooth drives",
        "largest singular value over the law's edge",
        "singular values, KS distance from Marchenko-Pastur",
    } <= failed(report)
    assert value(report, "speckle contrast, smooth") < 0.5
    assert value(report, "largest singular value") > 1.5


def test_screens_of_half_a_circle_are_caught_by_the_memory_they_leave() -> None:
    report = certified(fence(Still(one_screen(math.pi))), Key(1))
    assert "memory, input shifted by one macropixel" in failed(report)
    # (2 / pi)^2 of the power passes such a screen unscattered.
    assert report.facts["unscattered_fraction"] == pytest.approx(4 / math.pi**2, rel=0.1)
    assert report.facts["memory_range_macropixels"] == 3


def test_screens_of_a_whole_circle_leave_no_memory() -> None:
    report = certified(fence(Still(one_screen(2 * math.pi))), Key(1))
    memory_of_it = [name for name in failed(report) if name.startswith("memory")]
    assert memory_of_it == [] and report.facts["unscattered_fraction"] == 0


def test_unpolarised_light_fails_as_polarised_and_passes_as_what_it_is() -> None:
    class Unpolarised(Still):
        """Twice the pixels in fields; pairs of intensities add up."""

        def transmit(self, light: Tensor, clock_s: float, frame_s: float) -> Tensor:
            fields = super().transmit(light, clock_s, frame_s)
            power = fields.abs().square().view(len(light), -1, 2).mean(2)
            return power.sqrt().to(torch.complex64)

    config = configured({"pixels": 256, "inputs": 64})
    medium = Unpolarised(gaussian_matrix(512, 64, Key(13)))
    reports = [
        certified(Fence(OpticalRig(config, DEVICE, medium), name="rig"), Key(1), patterns=n)
        for n in (1, 2)
    ]
    caught = {"speckle contrast, random drives", "P(I > 3 <I>)"}
    assert caught <= failed(reports[0])
    assert not {*caught, "speckle contrast, smooth drives"} & failed(reports[1])


def test_grains_of_many_pixels_are_counted_once() -> None:
    wide = good(64).matrix.repeat_interleave(8, 0)
    report = certified(fence(Still(wide)), Key(1))
    assert value(report, "effective independent outputs") == pytest.approx(
        value(certified(fence(good(64)), Key(1)), "effective independent outputs"), rel=0.15
    )
    assert "effective independent outputs" in failed(report)


def test_a_medium_that_moves_loses_frame_0() -> None:
    medium = Drifting(GaussianMedium(64, 1024, Key(13)), DriftTable(tau_s=20.0), Key(14))
    config = configured({"pixels": 1024, "inputs": 64})
    device = Fence(OpticalRig(config, DEVICE, medium), name="rig")
    report = certified(device, Key(1), Scale.quick())
    assert "correlation with frame 0 at the end" in failed(report)
    # Speckle follows the square of the field: eight drives on 1024 pixels.
    for seconds, correlation in report.drift:
        assert correlation == pytest.approx(math.exp(-2 * seconds / 20.0), abs=0.1)


def test_a_dimming_laser_is_caught() -> None:
    report = certified(fence(Dimming(good(1024).matrix)), Key(1))
    assert failed(report) == {"mean intensity, later over earlier half"}


def test_a_laser_that_jumps_from_frame_to_frame_is_caught() -> None:
    report = certified(fence(Flashing(good().matrix)), Key(1), Scale.quick())
    assert "mean intensity, r.m.s. from frame to frame" in failed(report)
    found = value(report, "mean intensity, r.m.s.")
    assert found == pytest.approx(0.05, rel=0.25)


def test_stuck_pixels_are_left_out_and_counted() -> None:
    report = certified(fence(good(), stuck_pixel_fraction=0.1), Key(1), Scale.quick())
    assert failed(report) == {"pixels that never change"}
    assert value(report, "pixels that never change") == pytest.approx(0.1, abs=0.06)


def test_clipped_frames_are_caught() -> None:
    report = certified(fence(good(), full_scale_over_mean=2.0), Key(1), Scale.quick())
    assert "saturated fraction" in failed(report)
    assert value(report, "saturated fraction") == pytest.approx(math.exp(-2), rel=0.15)


# ---- the transmission matrix --------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), inputs=st.sampled_from([32, 50, 64]))
def test_phase_stepping_measures_the_matrix_up_to_a_factor_per_pixel(
    seed: int, inputs: int
) -> None:
    matrix = gaussian_matrix(48, inputs, Key(seed))
    key = Key(seed).child("reference")
    device = fence(Still(matrix), **configured_ideal())
    found = transmission.measured(Rig(device, Key(seed)), key).to(torch.complex128)
    n = transmission.controlled(inputs)
    columns = torch.randperm(inputs, generator=key.torch())[1:n]
    true = matrix[:, columns].to(torch.complex128)
    overlap = (found.conj() * true).sum(1).abs()
    likeness = overlap / (found.norm(dim=1) * true.norm(dim=1))
    # A pixel whose reference is dark measures noise; few are.
    assert likeness.median() > 0.999 and likeness.min() > 0.9


def configured_ideal() -> dict[str, Any]:
    return {"preset": "ideal"}


def test_residual_light_does_not_enter_the_matrix() -> None:
    matrix = gaussian_matrix(256, 65, Key(2))
    config = configured(
        {"pixels": 256, "inputs": 64, "unmodulated_fraction": 0.3, **configured_ideal()}
    )
    device = Fence(OpticalRig(config, DEVICE, Still(matrix)), name="rig")
    found = transmission.spectrum(transmission.measured(Rig(device, Key(1)), Key(2)), Key(3))
    assert all(c.passes for c in transmission.singular_values(found, Key(4)))


@given(inputs=st.integers(2, 5000))
def test_the_stepped_macropixels_are_a_power_of_two_with_a_reference_left(inputs: int) -> None:
    n = transmission.controlled(inputs)
    assert n & (n - 1) == 0 and 1 <= n <= inputs // 2 and n <= MOST_INPUTS


@pytest.mark.parametrize("options", [{"modulator_levels": 2}, {"inputs": 8}])
def test_where_phases_cannot_be_stepped_the_spectrum_is_skipped(options: dict[str, int]) -> None:
    config = configured({"pixels": 128, "inputs": 64, **options})
    report = certified(Fence(OpticalRig(config, DEVICE), name="rig"), Key(1), Scale.quick())
    assert [o.name for o in report.outcomes if isinstance(o, Skipped)] == [
        "singular values against Marchenko-Pastur"
    ]
    assert report.spectrum is None


# ---- the estimators -----------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), columns=st.sampled_from([20, 60, 90]))
def test_singular_values_of_gaussian_matrices_follow_the_law(seed: int, columns: int) -> None:
    # Their Kolmogorov distance falls as 1 / columns; 4 / columns is far out.
    generator = Key(seed).numpy()
    matrix = generator.normal(size=(120, columns)) + 1j * generator.normal(size=(120, columns))
    found = randommatrix.singular_values(matrix)
    assert randommatrix.distance(found, columns / 120) < 4 / columns
    assert randommatrix.singular_values(matrix.T) == pytest.approx(found)


@given(ratio=st.floats(0.01, 1.0))
def test_the_law_of_marchenko_and_pastur_is_normalised(ratio: float) -> None:
    low, high = randommatrix.edges(ratio)
    s = np.linspace(low, high, 20_001)
    area = np.trapezoid(randommatrix.density(s, ratio), s)
    second = np.trapezoid(randommatrix.density(s, ratio) * s**2, s)
    # The trapezoid loses a little at the square-root edges.
    assert area == pytest.approx(1, abs=3e-4) and second == pytest.approx(1, abs=3e-4)
    law = randommatrix.distribution(np.array([low, high]), ratio)
    assert law == pytest.approx([0, 1], abs=1e-9)


def test_the_jackknife_gives_the_error_of_a_mean() -> None:
    # 400 repeats of n = 320: its own relative error 13 % each, 0.7 % of their mean.
    errors, means = [], []
    for seed in range(400):
        x = torch.randn(320, generator=Key(seed).torch(), dtype=torch.float64)
        mean, error = jackknifed(lambda kept, x=x: x[kept].mean().item(), 320)  # type: ignore[misc]
        errors.append(error)
        means.append(mean)
    assert np.mean(errors) == pytest.approx(1 / math.sqrt(320), rel=0.05)
    assert np.std(means) == pytest.approx(1 / math.sqrt(320), rel=0.2)


@given(seed=st.integers(0, 2**31), by=st.integers(1, 3), lag=st.integers(0, 15))
def test_a_picture_that_moves_along_is_remembered_whole(seed: int, by: int, lag: int) -> None:
    still = torch.randn((40, 16, 16), generator=Key(seed).torch(), dtype=torch.float64)
    still -= still.mean(0)
    moved = still.roll((by, lag), (1, 2))
    assert memory.peak(still.flatten(1), moved.flatten(1)) == pytest.approx(1)


@given(offset=st.floats(-4, 4).filter(lambda x: abs(abs(x) - 1) > 1e-9))
def test_a_certificate_allows_its_tolerance_or_five_errors(offset: float) -> None:
    for error, tolerance, allowed in ((0.01, 0.2, 0.2), (0.1, 0.2, 0.5)):
        made = around("x", (1 + offset * allowed, error), 1.0, tolerance, "law", 10)
        assert made.passes is (abs(offset) < 1)
    assert not around("x", (math.nan, 0.1), 1.0, 0.1, "law", 10).passes


# ---- bad input ----------------------------------------------------------------


def test_a_backend_that_is_not_optical_is_refused() -> None:
    device = Fence(make_ideal(key=Key(0)), name="chip")
    with pytest.raises(ConfigError, match="nothing to program"):
        certified(device, Key(1))


def test_a_rig_in_the_dark_is_refused() -> None:
    with pytest.raises(ConfigError, match="light on"):
        certified(fence(Still(torch.zeros(64, 64)), read_noise_electrons=0.0), Key(1))


def test_no_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 or more, got 0"):
        certified(fence(good()), Key(1), patterns=0)


# ---- the command --------------------------------------------------------------


def test_the_command_writes_table_summary_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main.main("optics", ["pixels=128"], 0, True, tmp_path, "pib-twin certify optics")
    shown = capsys.readouterr().out
    assert "12 of 12 certificates hold" in shown and "speckle contrast" in shown
    written = summary.read(tmp_path)
    assert written.holds and len(written.figures) == 12
    for name in written.extra["pictures"]:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert len(written.extra["pictures"]) == 5


def test_a_missed_certificate_ends_in_exit_code_1_with_everything_written(
    tmp_path: Path,
) -> None:
    options = ["pixels=128", "full_scale_over_mean=1.5"]
    with pytest.raises(typer.Exit) as stopped:
        main.main("optics", options, 0, True, tmp_path, "pib-twin certify optics")
    assert stopped.value.exit_code == 1
    assert "saturated fraction" in summary.read(tmp_path).failed
