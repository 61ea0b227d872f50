"""The optical rig against the closed forms of speckle, photon and coding statistics."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from substrates.optics.camera import GAUSSIAN_FLOOR_ELECTRONS, Camera
from substrates.optics.config import RigConfig
from substrates.optics.medium import GaussianMedium, gaussian_matrix, with_unmodulated
from substrates.optics.modulator import PhaseModulator, flickered, require_injective
from substrates.optics.point import OperatingPoint
from substrates.optics.presets import PRESETS, configured
from substrates.optics.rig import OpticalRig, make
from twin.backend import Backend, Reading
from twin.errors import (
    ConfigError,
    DeviceUnavailable,
    DialError,
    DriveError,
    SnapshotError,
    UnknownName,
    Unsupported,
)
from twin.fence import Fence
from twin.key import SAMPLE_BLOCK, Key

SEEDS = st.integers(0, 2**32 - 1)
NOISELESS = {"shot_noise": "none", "read_noise_electrons": 0.0, "dark_electrons_per_s": 0.0}


def uniform(seed: int, batch: int, width: int) -> Tensor:
    """A drive (batch, width) in [0, 1]."""
    return torch.rand((batch, width), generator=Key(seed).child("drive").torch())


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation along the last axis, float64."""
    return torch.linalg.vecdot(*(_standardised(v.to(torch.float64)) for v in (a, b)))


def _standardised(values: Tensor) -> Tensor:
    centred = values - values.mean(-1, keepdim=True)
    return centred / centred.norm(dim=-1, keepdim=True)


def mean_and_error(groups: Tensor) -> tuple[float, float]:
    """Mean of independent groups and its standard error."""
    return groups.mean().item(), groups.std().item() / math.sqrt(groups.numel())


def decoded(rig: OpticalRig, reading: Reading) -> Tensor:
    return rig.capabilities.readings[0].decode(reading.codes, reading.ratio)


# ---------------------------------------------------------------- medium


def speckle(matrix: Tensor) -> Tensor:
    """Intensities (pixels,) behind `matrix` for one random pattern of phases."""
    light = PhaseModulator(matrix.shape[1], 256, Key(0)).light(uniform(1, 1, matrix.shape[1]))
    return (matrix @ light[0]).abs().square().to(torch.float64)


def has_unit_contrast(intensity: Tensor) -> bool:
    """Contrast of exponential intensities: 1, standard error 1 / sqrt(n) (delta method)."""
    contrast = (intensity.std() / intensity.mean()).item()
    return abs(contrast - 1) < 5 / math.sqrt(intensity.numel())


def test_speckle_behind_a_gaussian_medium_has_contrast_one_and_mean_one() -> None:
    intensity = speckle(gaussian_matrix(200_000, 16, Key(3)))
    assert has_unit_contrast(intensity)
    assert abs(intensity.mean().item() - 1) < 5 / math.sqrt(200_000)


def test_a_medium_with_a_uniform_imaginary_part_is_caught_by_its_contrast() -> None:
    real, _ = torch.randn((2, 20_000, 128), generator=Key(3).torch())
    imaginary = torch.rand((20_000, 128), generator=Key(4).torch())
    assert not has_unit_contrast(speckle(torch.complex(real, imaginary)))


@pytest.mark.parametrize("threshold", [1.0, 3.0, 6.0])
def test_the_tail_of_the_intensities_is_exponential(threshold: float) -> None:
    intensity = speckle(gaussian_matrix(200_000, 16, Key(5)))
    expected = math.exp(-threshold)
    error = math.sqrt(expected * (1 - expected) / 200_000)
    assert abs((intensity > threshold).double().mean().item() - expected) < 5 * error


@pytest.mark.parametrize("fraction", [0.05, 0.35, 0.9])
def test_unmodulated_light_takes_its_share_and_keeps_the_power(fraction: float) -> None:
    light = PhaseModulator(16, 256, Key(0)).light(uniform(1, 1, 16))
    mixed = with_unmodulated(light, fraction)
    power = mixed.abs().square().sum().item()
    assert power == pytest.approx(17, rel=1e-5)
    assert mixed[0, -1].abs().square().item() / power == pytest.approx(fraction, rel=1e-5)


def test_only_unmodulated_light_makes_different_drives_look_alike() -> None:
    rig = make(key=Key(1), inputs=16, pixels=512, unmodulated_fraction=0.999, **NOISELESS)
    codes = rig.forward(uniform(2, 2, 16), key=Key(0)).codes.float()
    assert pearson(codes[0], codes[1]).item() > 0.99


class Rotating:
    """A planted medium that turns: transmission depends on the time of the frame."""

    static = False

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels

    def transmit(self, light: Tensor, clock_s: float, frame_s: float) -> Tensor:
        times = clock_s + frame_s * torch.arange(len(light), dtype=torch.float64)
        return torch.sqrt(times)[:, None].expand(-1, self.pixels).to(torch.complex64)


@pytest.mark.parametrize("shots", [None, 3])
def test_a_moving_medium_sees_every_frame_at_its_own_time(shots: int | None) -> None:
    config = configured(
        {"preset": "ideal", "inputs": 4, "pixels": 2, "frame_rate_hz": 100.0, "exposure_s": 0.01}
    )
    rig = OpticalRig(config, Key(0), Rotating(2))
    rig.wait(0.5)
    reading = rig.forward(uniform(1, 150, 4), key=Key(0), shots=shots, first_sample=7)
    seen = decoded(rig, reading)[..., 0] * config.full_scale_over_mean
    frames = 0.5 + 0.01 * torch.arange(150 * (shots or 1))
    assert torch.allclose(seen.flatten(), frames, atol=1e-3)


# ---------------------------------------------------------------- modulator


@given(levels=st.integers(2, 4096), seed=SEEDS)
@settings(max_examples=50, deadline=None)
@example(levels=2, seed=0)
def test_no_two_levels_of_the_modulator_give_the_same_light(levels: int, seed: int) -> None:
    modulator = PhaseModulator(levels, levels, Key(seed))
    every = torch.arange(levels) / (levels - 1)
    light = modulator.light(every[None])[0].to(torch.complex128)
    assert torch.equal(modulator.encode(every), torch.arange(levels))
    assert (light.real.diff() < 0).all()  # cos falls all the way from 0 to pi
    assert torch.allclose(light.abs(), torch.ones(levels, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(light.angle().abs(), every.double() * math.pi, atol=1e-6)


@given(seed=SEEDS, levels=st.integers(2, 300))
@settings(max_examples=25, deadline=None)
def test_a_brighter_drive_never_gets_a_lower_level(seed: int, levels: int) -> None:
    drive = uniform(seed, 1, 200).sort().values
    assert (PhaseModulator(200, levels, Key(0)).encode(drive).diff() >= 0).all()


@pytest.mark.parametrize(("low", "high"), [(-math.pi, math.pi), (0, 2 * math.pi), (0, 3 * math.pi)])
def test_an_encoding_onto_a_full_turn_is_refused(low: float, high: float) -> None:
    with pytest.raises(ConfigError, match="same light"):
        require_injective(torch.linspace(low, high, 257, dtype=torch.float64))


def test_encodings_below_a_full_turn_are_accepted() -> None:
    require_injective(torch.linspace(0, 1.99 * math.pi, 256))
    require_injective(torch.linspace(-0.5 * math.pi, 0.5 * math.pi, 65536, dtype=torch.float64))


@pytest.mark.parametrize("levels", [3, 5, 9])
def test_coarse_phases_decorrelate_the_speckle_as_sinc_squared(levels: int) -> None:
    """2 (levels - 1) levels per turn: 4, 8, 16. 256 inputs, 4096 pixels, 64 patterns."""
    drive = uniform(7, 64, 256)
    medium = GaussianMedium(256, 4096, Key(2))

    def pattern(count: int) -> Tensor:
        light = PhaseModulator(256, count, Key(0)).light(drive)
        return medium.transmit(light, 0.0, 0.0).abs().square()

    found, error = mean_and_error(pearson(pattern(levels), pattern(65536)))
    assert 5 * error < 0.01
    per_turn = 1 / (2 * (levels - 1))
    expected = (math.sin(math.pi * per_turn) / (math.pi * per_turn)) ** 2
    assert abs(found - expected) < 5 * error


@pytest.mark.parametrize("rms_rad", [0.05 * math.pi, 0.1 * math.pi, 0.3 * math.pi])
def test_flicker_decorrelates_the_speckle_as_exp_minus_variance(rms_rad: float) -> None:
    light = PhaseModulator(256, 256, Key(0)).light(uniform(7, 64, 256))
    medium = GaussianMedium(256, 4096, Key(2))
    moved = flickered(light, rms_rad, Key(9), 0)
    still, jittered = (medium.transmit(v, 0.0, 0.0).abs().square() for v in (light, moved))
    found, error = mean_and_error(pearson(still, jittered))
    assert 5 * error < 0.025
    assert abs(found - math.exp(-(rms_rad**2))) < 5 * error


# ---------------------------------------------------------------- camera


def flat_frames(
    exposure_ratio: float, shape: tuple[int, int] = (64, 2000), **options: object
) -> Tensor:
    """Codes (float64) of a camera under even light of intensity 1."""
    config = RigConfig(pixels=shape[1], **options)  # type: ignore[arg-type]
    at = OperatingPoint.of(config)
    at = OperatingPoint(**{**vars(at), "exposure_ratio": exposure_ratio})
    codes = Camera(config, Key(1)).frames(torch.ones(shape), at, Key(2), 0)
    return codes.to(torch.float64)


@pytest.mark.parametrize("exposure_ratio", [0.01, 0.1, 1.0, 4.0])
def test_photon_noise_variance_equals_its_mean(exposure_ratio: float) -> None:
    """Photon transfer: var / mean = gain. 128 000 frames of a pixel; relative error sqrt(2/n)."""
    gain = 65535 / 10_000
    codes = flat_frames(
        exposure_ratio, camera_bits=16, read_noise_electrons=0, dark_electrons_per_s=0
    )
    slope = (codes.var() / codes.mean()).item() / gain
    assert abs(slope - 1) < 5 * math.sqrt(2 / codes.numel())
    error = math.sqrt(1000 * exposure_ratio / codes.numel())
    assert abs(codes.mean().item() / gain - 1000 * exposure_ratio) < 5 * error


@pytest.mark.parametrize("shot_noise", ["poisson", "gaussian"])
@pytest.mark.parametrize("bits", [8, 12])
def test_the_variance_of_a_frame_adds_photons_reading_and_rounding(
    shot_noise: str, bits: int
) -> None:
    gain = (2**bits - 1) / 10_000
    codes = flat_frames(
        1.0, shot_noise=shot_noise, camera_bits=bits, read_noise_electrons=50.0
    )  # dark current adds 0.05 electrons
    expected = gain**2 * (1000.05 + 50.0**2) + 1 / 12
    assert abs(codes.var().item() / expected - 1) < 5 * math.sqrt(2 / codes.numel())


def test_poisson_frames_are_skewed_as_poisson_and_gaussian_ones_are_not() -> None:
    for law, expected in {"poisson": 1 / math.sqrt(100), "gaussian": 0.0}.items():
        codes = flat_frames(
            0.1, shot_noise=law, camera_bits=16, read_noise_electrons=0, mean_electrons=1000.0
        )
        skew = ((codes - codes.mean()) / codes.std()).pow(3).mean().item()
        assert abs(skew - expected) < 5 * math.sqrt(6 / codes.numel()) * 1.1


def test_gaussian_photon_noise_is_refused_for_dim_light() -> None:
    dim = GAUSSIAN_FLOOR_ELECTRONS / 2
    with pytest.raises(ConfigError, match="needs a mean of"):
        make(key=Key(0), shot_noise="gaussian", mean_electrons=dim)
    rig = make(key=Key(0), shot_noise="gaussian")
    before = rig.snapshot()
    with pytest.raises(DialError, match="poisson"):
        rig.adjust("mean_electrons", dim, key=Key(0))
    assert rig.snapshot() == before


def test_the_saturated_fraction_is_exponential_in_full_scale_over_mean() -> None:
    """2**20 independent pixels; the top code starts half a code below full scale."""
    n = 2**20
    rig = make(key=Key(1), inputs=4, pixels=n, full_scale_over_mean=4.0, dark_electrons_per_s=0)
    saturated = rig.forward(uniform(1, 1, 4), key=Key(0)).saturated
    # Shot noise of variance 4 / 1000 lifts an exponential tail by half its variance.
    expected = math.exp(-4 * (1 - 0.5 / 255) + 0.002)
    assert abs(saturated - expected) < 5 * math.sqrt(expected / n)


@pytest.mark.parametrize(
    ("electrons", "read_noise"), [(1000.0, 6.83), (100.0, 2.4), (100.0, 10.0), (10.0, 0.0)]
)
def test_photons_and_reading_limit_the_correlation_as_predicted(
    electrons: float, read_noise: float
) -> None:
    """[1 + 1/N + (read noise / N)^2]^(-1/2), n = 32 x 8192 independent pixels."""
    options = {"inputs": 8, "pixels": 2**18, "camera_bits": 16, "full_scale_over_mean": 20.0}
    drive = uniform(1, 1, 8)
    clean = make(key=Key(3), **{**options, **NOISELESS}).forward(drive, key=Key(0)).codes
    rig = make(
        key=Key(3),
        **options,
        mean_electrons=electrons,
        read_noise_electrons=read_noise,
        dark_electrons_per_s=0,
    )
    noisy = rig.forward(drive, key=Key(0)).codes
    found, error = mean_and_error(pearson(clean.view(32, -1), noisy.view(32, -1)))
    expected = (1 + 1 / electrons + (read_noise / electrons) ** 2) ** -0.5
    # Clipping at zero halves the noise of pixels darker than the read noise.
    clipped = (read_noise / electrons) ** 3
    assert abs(found - expected) < 5 * error + clipped


# ---------------------------------------------------------------- rig


@st.composite
def rigs(draw: st.DrawFn) -> OpticalRig:
    return make(
        key=Key(draw(SEEDS)),
        inputs=draw(st.integers(1, 20)),
        pixels=draw(st.integers(1, 30)),
        modulator_levels=draw(st.sampled_from([2, 16, 256])),
        unmodulated_fraction=draw(st.sampled_from([0.0, 0.1])),
        phase_flicker_rad=draw(st.sampled_from([0.0, 0.2])),
        mean_electrons=draw(st.sampled_from([1.0, 50.0, 1e6])),
        full_scale_over_mean=draw(st.sampled_from([0.5, 4.0, 10.0])),
        read_noise_electrons=draw(st.sampled_from([0.0, 6.83, 1000.0])),
        camera_bits=draw(st.sampled_from([1, 8, 12, 16])),
        stuck_pixel_fraction=draw(st.sampled_from([0.0, 0.5, 1.0])),
        dead_macropixel_fraction=draw(st.sampled_from([0.0, 0.5, 1.0])),
        shot_noise=draw(st.sampled_from(["poisson", "none"])),
    )


def drive_for(rig: OpticalRig, seed: int, batch: int) -> Tensor:
    return uniform(seed, batch, rig.capabilities.drives[0].shape[0])


@given(rig=rigs(), seed=SEEDS, batch=st.integers(1, 70), shots=st.sampled_from([None, 1, 3]))
@settings(max_examples=40, deadline=None)
def test_frames_are_integers_inside_their_port(
    rig: OpticalRig, seed: int, batch: int, shots: int | None
) -> None:
    drive = drive_for(rig, seed, batch)
    Fence(rig, name="rig").forward(drive, key=Key(seed), shots=shots)
    reading = rig.forward(drive, key=Key(seed), shots=shots)
    port = rig.capabilities.readings[0]
    assert reading.codes.dtype == port.torch_dtype
    assert not reading.codes.dtype.is_floating_point
    assert reading.codes.shape == (*((shots,) if shots else ()), batch, *port.shape)
    assert reading.codes.min() >= 0 and reading.codes.max() <= port.levels - 1
    top = (reading.codes == port.levels - 1).float().mean().item()
    assert reading.saturated == pytest.approx(top, abs=1e-6)


@given(rig=rigs(), seed=SEEDS, batch=st.integers(1, 70))
@settings(max_examples=25, deadline=None)
def test_the_same_state_drive_and_key_give_the_same_frame_whatever_ran_before(
    rig: OpticalRig, seed: int, batch: int
) -> None:
    drive = drive_for(rig, seed, batch)
    first = rig.forward(drive, key=Key(seed)).codes
    rig.wait(10.0)
    rig.forward(drive_for(rig, seed + 1, 3), key=Key(seed + 1))
    shots = rig.forward(drive, key=Key(seed), shots=2).codes
    assert torch.equal(first, rig.forward(drive, key=Key(seed)).codes)
    assert torch.equal(first, shots[0])


def test_another_key_gives_another_frame_and_other_shots_differ() -> None:
    rig = make(key=Key(0))
    drive = uniform(0, 4, 64)
    codes = rig.forward(drive, key=Key(1), shots=2).codes
    assert not torch.equal(codes[0], codes[1])
    assert not torch.equal(codes[0], rig.forward(drive, key=Key(2)).codes)


@given(
    rig=rigs(),
    seed=SEEDS,
    batch=st.integers(SAMPLE_BLOCK + 1, 3 * SAMPLE_BLOCK + 1),
    cut=st.sampled_from([SAMPLE_BLOCK, 2 * SAMPLE_BLOCK]),
    start=st.sampled_from([0, SAMPLE_BLOCK]),
    shots=st.sampled_from([None, 2]),
)
@settings(max_examples=25, deadline=None)
def test_aligned_chunks_change_nothing(
    rig: OpticalRig, seed: int, batch: int, cut: int, start: int, shots: int | None
) -> None:
    cut = min(cut, SAMPLE_BLOCK * ((batch - 1) // SAMPLE_BLOCK))
    drive = drive_for(rig, seed, batch)
    key = Key(seed)
    whole = rig.forward(drive, key=key, first_sample=start, shots=shots).codes
    head = rig.forward(drive[:cut], key=key, first_sample=start, shots=shots).codes
    tail = rig.forward(drive[cut:], key=key, first_sample=start + cut, shots=shots).codes
    assert torch.equal(whole, torch.cat([head, tail], dim=1 if shots else 0))


def test_the_end_of_a_chunk_changes_nothing_at_full_size() -> None:
    """A product of one row rounds differently from one of many; the frames must not.

    16 bits without noise show a float32 rounding error in about 1 of 1000 pixels.
    """
    rig = make(key=Key(0), preset="ideal", inputs=784, pixels=16384, phase_flicker_rad=0.1)
    drive = uniform(0, SAMPLE_BLOCK, 784)
    whole = rig.forward(drive, key=Key(1)).codes
    for stop in (1, 2, 7, 63):
        assert torch.equal(rig.forward(drive[:stop], key=Key(1)).codes, whole[:stop])


def test_the_drive_is_not_changed() -> None:
    drive = uniform(0, 5, 64)
    kept = drive.clone()
    make(key=Key(0), dead_macropixel_fraction=0.5, phase_flicker_rad=0.2).forward(drive, key=Key(1))
    assert torch.equal(drive, kept)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("forward"), st.integers(1, 5)),
        st.tuples(st.just("range"), st.integers(1, 5)),
        st.tuples(st.just("wait"), st.floats(0, 1e4)),
        st.tuples(st.just("read_noise_electrons"), st.floats(0, 100)),
        st.tuples(st.just("mean_electrons"), st.floats(1, 1e5)),
        st.tuples(st.just("exposure_ratio"), st.floats(1e-3, 1e3)),
        st.tuples(st.just("stuck_pixel_fraction"), st.floats(0, 1)),
        st.tuples(st.just("dead_macropixel_fraction"), st.floats(0, 1)),
        st.tuples(st.just("phase_flicker_rad"), st.floats(0, 1)),
    ),
    max_size=5,
)


def perform(rig: OpticalRig, operations: list[tuple[str, float]]) -> None:
    for name, value in operations:
        if name == "forward":
            rig.forward(uniform(0, int(value), 6), key=Key(5))
        elif name == "range":
            rig.set_range(uniform(0, int(value), 6), key=Key(6))
        elif name == "wait":
            rig.wait(value)
        else:
            rig.adjust(name, value, key=Key(7))


@given(before=OPERATIONS, after=OPERATIONS, seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_a_restored_rig_behaves_as_when_the_snapshot_was_taken(
    before: list[tuple[str, float]], after: list[tuple[str, float]], seed: int
) -> None:
    rig = make(key=Key(seed), inputs=6, pixels=40)
    drive = uniform(seed, 3, 6)
    perform(rig, before)
    saved = rig.snapshot()
    expected = rig.forward(drive, key=Key(8))
    perform(rig, after)
    rig.restore(saved)
    assert rig.snapshot() == saved
    again = rig.forward(drive, key=Key(8))
    assert torch.equal(again.codes, expected.codes)
    assert (again.clock_s, again.ratio, again.state_version) == (
        expected.clock_s,
        expected.ratio,
        expected.state_version,
    )


def test_a_rig_made_alike_takes_over_a_snapshot_and_another_refuses_it() -> None:
    rig, twin, other = (make(key=Key(k), inputs=6, pixels=9) for k in (1, 1, 2))
    rig.adjust("mean_electrons", 20.0, key=Key(0))
    twin.restore(rig.snapshot())
    drive = uniform(0, 3, 6)
    assert torch.equal(rig.forward(drive, key=Key(3)).codes, twin.forward(drive, key=Key(3)).codes)
    with pytest.raises(SnapshotError, match="snapshot is of"):
        other.restore(rig.snapshot())


# ---------------------------------------------------------------- exposure


def test_doubling_the_exposure_halves_the_ratio_and_doubles_the_codes() -> None:
    rig = make(key=Key(0), preset="ideal", inputs=16, pixels=200)
    drive = uniform(0, 3, 16)
    once = rig.forward(drive, key=Key(1))
    rig.adjust("exposure_ratio", 2.0, key=Key(1))
    twice = rig.forward(drive, key=Key(1))
    assert twice.ratio == once.ratio / 2
    assert (twice.codes - 2 * once.codes).abs().max() <= 1


@pytest.mark.parametrize("exposure_ratio", [0.25, 0.5, 2.0])
def test_what_is_decoded_keeps_its_scale_at_any_exposure(exposure_ratio: float) -> None:
    """Means over 400 shots agree pixel by pixel within 6 standard errors (64 000 pairs)."""
    rig = make(key=Key(0), inputs=16, pixels=320, camera_bits=12)
    drive = uniform(0, 2, 16)
    nominal = decoded(rig, rig.forward(drive, key=Key(1), shots=400))
    rig.adjust("exposure_ratio", exposure_ratio, key=Key(1))
    other = decoded(rig, rig.forward(drive, key=Key(2), shots=400))
    error = ((nominal.var(0) + other.var(0)) / 400).sqrt()
    unclipped = (nominal.mean(0) < 0.35) & (nominal.mean(0) > 0.005)
    apart = ((nominal.mean(0) - other.mean(0)).abs() / error)[unclipped]
    assert apart.max() < 5
    assert unclipped.float().mean() > 0.8


@pytest.mark.parametrize("start", [1e-3, 0.05, 1.0, 30.0, 1e3])
def test_auto_exposure_puts_the_mean_where_it_should_be_from_anywhere(start: float) -> None:
    """100 x 256 readings: standard error of the mean about 6 % / 16 of it; 3 % allowed."""
    rig = make(key=Key(0))
    fence = Fence(rig, name="rig")
    fence.adjust("exposure_ratio", start, key=Key(0))
    drive = uniform(0, 100, 64)
    ranged = fence.set_range(drive, key=Key(1))
    reading = rig.forward(drive, key=Key(2))
    assert reading.ratio == ranged.ratio
    assert reading.codes.float().mean().item() == pytest.approx(25.5, rel=0.03)
    assert ranged.passes % 100 == 0 and ranged.passes >= 100
    assert fence.ledger.total().ranging_passes == ranged.passes
    assert ranged.device_seconds > 0 and ranged.joules > 0


@pytest.mark.parametrize("start", [0.05, 1.0, 30.0])
def test_stuck_pixels_do_not_drag_the_exposure(start: float) -> None:
    """1000 pixels, 100 frames: live pixels average a tenth of full scale within 10 %."""
    rig = make(key=Key(0), pixels=1000)
    rig.adjust("exposure_ratio", start, key=Key(0))
    rig.adjust("stuck_pixel_fraction", 0.5, key=Key(0))
    drive = uniform(0, 100, 64)
    ratio = rig.set_range(drive, key=Key(1)).ratio
    rig.adjust("stuck_pixel_fraction", 0.0, key=Key(0))
    assert rig.forward(drive, key=Key(2)).codes.float().mean().item() == pytest.approx(
        25.5, rel=0.1
    )
    assert ratio == pytest.approx(1.0, rel=0.1)


def test_auto_exposure_comes_to_an_end_when_every_pixel_is_stuck_at_full_scale() -> None:
    rig = make(key=Key(0), inputs=4, pixels=1, camera_bits=1, stuck_pixel_fraction=1.0)
    ranged = rig.set_range(uniform(0, 3, 4), key=Key(1))
    assert ranged.passes <= 30
    assert 1e-3 <= ranged.ratio <= 1e3


def test_a_forward_pass_never_changes_the_range() -> None:
    rig = make(key=Key(0), full_scale_over_mean=0.5)
    drive = uniform(0, 3, 64)
    first = rig.forward(drive, key=Key(1))
    assert first.saturated > 0.5
    assert rig.forward(drive, key=Key(1)).ratio == first.ratio == 1.0


def test_fewer_photons_change_the_noise_and_not_the_brightness() -> None:
    rig = make(key=Key(0), inputs=16, pixels=2000, read_noise_electrons=0.0)
    drive = uniform(0, 1, 16)
    bright = decoded(rig, rig.forward(drive, key=Key(1), shots=50))
    rig.adjust("mean_electrons", 100.0, key=Key(1))
    dim = decoded(rig, rig.forward(drive, key=Key(1), shots=50))
    error = math.sqrt((dim.var(0).mean().item()) / (50 * 2000))
    assert abs(dim.mean().item() - bright.mean().item()) < 5 * 1.1 * error
    assert dim.var(0).mean() > 5 * bright.var(0).mean()


# ---------------------------------------------------------------- faults


@given(small=st.floats(0, 1), large=st.floats(0, 1), seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_stuck_pixels_of_a_small_fraction_stay_stuck_in_a_larger_one(
    small: float, large: float, seed: int
) -> None:
    small, large = sorted([small, large])
    rig = make(key=Key(seed), inputs=4, pixels=60, camera_bits=16)
    drive = uniform(seed, 4, 4)

    def stuck(fraction: float) -> Tensor:
        rig.adjust("stuck_pixel_fraction", fraction, key=Key(0))
        codes = rig.forward(drive, key=Key(1)).codes
        return (codes == codes[0]).all(0)

    few, many = stuck(small), stuck(large)
    assert (many | ~few).all()


def test_half_the_pixels_are_stuck_at_uniform_codes() -> None:
    """4000 pixels; the stuck share and the mean stuck code within five standard errors."""
    rig = make(key=Key(0), inputs=4, pixels=4000, stuck_pixel_fraction=0.5, full_scale_over_mean=4)
    codes = rig.forward(uniform(0, 6, 4), key=Key(1)).codes.float()
    stuck = (codes == codes[0]).all(0) & (codes[0] > 0) & (codes[0] < 255)
    share, mean = stuck.float().mean().item(), codes[0][stuck].mean().item()
    assert abs(share - 0.5 * 254 / 256) < 5 * math.sqrt(0.25 / 4000)
    assert abs(mean - 127.5) < 5 * 73.9 / math.sqrt(2000)


def test_dead_macropixels_ignore_the_drive() -> None:
    rig = make(key=Key(0), inputs=32, pixels=50, dead_macropixel_fraction=1.0, **NOISELESS)
    codes = rig.forward(uniform(0, 3, 32), key=Key(1)).codes
    assert torch.equal(codes[0], codes[1])
    alive = make(key=Key(0), inputs=32, pixels=50, **NOISELESS)
    at_zero = alive.forward(torch.zeros(1, 32), key=Key(1)).codes
    assert torch.equal(codes[:1], at_zero)


# ---------------------------------------------------------------- time and cost


def test_time_and_energy_follow_from_the_frames_taken() -> None:
    rig = make(key=Key(0), frame_rate_hz=50.0, exposure_s=0.01, electrical_power_w=10.0)
    reading = rig.forward(uniform(0, 5, 64), key=Key(0), shots=4)
    assert reading.device_seconds == pytest.approx(20 / 50)
    assert reading.joules == pytest.approx(4.0)
    rig.wait(1.5)
    assert rig.forward(uniform(0, 1, 64), key=Key(0)).clock_s == pytest.approx(1.92)
    rig.adjust("exposure_ratio", 10.0, key=Key(0))  # 0.1 s no longer fits into a frame
    assert rig.forward(uniform(0, 3, 64), key=Key(0)).device_seconds == pytest.approx(0.3)


# ---------------------------------------------------------------- contract and errors


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_makes_a_backend_with_default_dials(preset: str) -> None:
    rig = make(key=Key(0), preset=preset, inputs=4, pixels=5)
    assert isinstance(rig, Backend)
    point = rig.snapshot().values
    for dial in rig.capabilities.dials:
        assert dial.low <= min(dial.ideal, dial.default, dial.severe)
        assert max(dial.ideal, dial.default, dial.severe) <= dial.high
        assert point[dial.name] == dial.default
    Fence(rig, name="rig").forward(uniform(0, 2, 4), key=Key(0))


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"inputz": 4}, "inputs"),
        ({"pixels": 0}, "pixels"),
        ({"camera_bits": 17}, "camera_bits"),
        ({"modulator_levels": 1}, "modulator_levels"),
        ({"mean_electrons": float("nan")}, "mean_electrons"),
        ({"exposure_s": -1.0}, "exposure_s"),
        ({"shot_noise": "binomial"}, "shot_noise"),
        ({"compute_device": "abacus"}, "compute_device"),
        ({"preset": "scmoss"}, "scmos"),
    ],
)
def test_a_bad_configuration_names_the_field(options: dict[str, object], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        make(key=Key(0), **options)


@pytest.mark.parametrize(
    "drive",
    [
        torch.zeros(2, 5),
        torch.zeros(0, 4),
        torch.full((2, 4), 1.5),
        torch.full((2, 4), -0.1),
        torch.full((2, 4), float("nan")),
        torch.zeros(4),
    ],
)
def test_a_bad_drive_is_refused_and_changes_nothing(drive: Tensor) -> None:
    rig = make(key=Key(0), inputs=4, pixels=5)
    before = rig.snapshot()
    for act in (rig.forward, rig.set_range):
        with pytest.raises(DriveError, match="drive"):
            act(drive, key=Key(0))
    assert rig.snapshot() == before


@pytest.mark.parametrize(
    ("dial", "value"),
    [("exposure_ratio", -1.0), ("exposure_ratio", math.nan), ("stuck_pixel_fraction", 1.1)],
)
def test_a_dial_out_of_its_range_is_refused_and_changes_nothing(dial: str, value: float) -> None:
    rig = make(key=Key(0), inputs=4, pixels=5)
    before = rig.snapshot()
    with pytest.raises(DialError, match=dial):
        rig.adjust(dial, value, key=Key(0))
    assert rig.snapshot() == before


def test_what_a_rig_cannot_do_it_refuses_by_name() -> None:
    rig = make(key=Key(0), inputs=4, pixels=5)
    with pytest.raises(Unsupported, match="cannot be programmed"):
        rig.program(torch.zeros(1), key=Key(0))
    with pytest.raises(UnknownName, match="read_noise_electrons"):
        rig.adjust("read_noise", 1.0, key=Key(0))
    with pytest.raises(UnknownName, match="phases"):
        rig.forward({"phase": torch.zeros(1, 4)}, key=Key(0))
    with pytest.raises(DialError, match="wait"):
        rig.wait(-1.0)
    rig.close()
    rig.close()
    with pytest.raises(DeviceUnavailable, match="closed"):
        rig.forward(torch.zeros(1, 4), key=Key(0))


@pytest.mark.parametrize("frames", [1, 3])
def test_a_single_frame_is_enough_to_find_the_exposure(frames: int) -> None:
    """256 pixels of speckle: the mean of one frame is known to 1/16, so 30 % is five sigma."""
    rig = make(key=Key(0))
    ratio = rig.set_range(uniform(0, frames, 64), key=Key(1)).ratio
    assert ratio == pytest.approx(1.0, rel=0.31)
