"""Each figure of fidelity against a closed form: Gaussian devices of known noise and bias."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from substrates.ideal import Ideal, IdealConfig
from substrates.memristor.twinmodel import twin
from tests.twin.chips import chip, fitted_chip
from twin.backend import MinimalBackend
from twin.errors import ConfigError, Unsupported
from twin.fence import Fence
from twin.fidelity import compare, fidelity
from twin.key import Key
from twin.registry import open_backend
from validation import fidelity as command
from validation.taskgap import digits, task_gap

SEEDS = st.integers(0, 2**32)
REPEATS, DRIVES, OUTPUTS = 8, 128, 6


def normal(key: Key, *shape: int) -> Tensor:
    return torch.from_numpy(key.numpy().standard_normal(shape))


def shots(key: Key, sigma: float, bias: float = 0.0, drives: int = DRIVES) -> Tensor:
    """Repeats of fixed values in [0, 1], read with noise `sigma` and off by `bias`."""
    values = torch.linspace(0, 1, drives * OUTPUTS, dtype=torch.float64).view(drives, OUTPUTS)
    return values + bias + sigma * normal(key, REPEATS, drives, OUTPUTS)


def ideal(noise_v: float) -> Fence:
    return Fence(Ideal(IdealConfig(inputs=8, outputs=OUTPUTS, noise_v=noise_v)), name="chip")


def drives(count: int = 64) -> Tensor:
    return torch.rand((count, 8), generator=Key(1).torch())


def weights() -> Tensor:
    return 2 * torch.rand((8, OUTPUTS), generator=Key(2).torch()) - 1


def test_a_twin_with_the_noise_of_its_device_is_as_close_as_the_device_is_to_itself() -> None:
    # 64 drives x 16 repeats x 6 outputs; bound: five standard errors.
    found = fidelity(ideal(0.05), ideal(0.05), drives(), key=Key(0), setting=weights())
    assert found.ratio == pytest.approx(1.0, abs=5 * found.ratio_error)
    assert 0 < found.ratio_error < 0.01
    assert found.repeatability == pytest.approx(0.05, rel=5 / math.sqrt(2 * 64 * 15 * OUTPUTS))


@given(seed=SEEDS, twin=st.floats(0, 2), device=st.floats(0.5, 2), bias=st.floats(0, 3))
def test_the_ratio_is_that_of_the_closed_form(
    seed: int, twin: float, device: float, bias: float
) -> None:
    key = Key(seed)
    found = compare(shots(key.child(0), twin, bias), shots(key.child(1), device))
    expected = math.sqrt((twin**2 + device**2 + bias**2) / (2 * device**2))
    assert found.ratio == pytest.approx(expected, abs=5.5 * found.ratio_error)


def test_the_standard_error_of_the_ratio_is_the_spread_of_the_ratio() -> None:
    # 400 devices: the r.m.s. of ratio in standard errors is 1 +- 5 / sqrt(2 * 400).
    expected = math.sqrt((2 + 0.5**2) / 2)
    z = []
    for n in range(400):
        key = Key(3).child(n)
        found = compare(shots(key.child(0), 1.0, 0.5), shots(key.child(1), 1.0))
        z.append((found.ratio - expected) / found.ratio_error)
    assert np.sqrt(np.mean(np.square(z))) == pytest.approx(1, abs=5 / math.sqrt(800))


@pytest.mark.parametrize("bias", [0.05, 0.3])
def test_the_mean_error_is_the_bias_whatever_the_noise(bias: float) -> None:
    # 200 devices whose noise is up to 20 times the bias; without the subtraction it
    # would be sqrt(bias^2 + 2 / 8). Bound: five standard errors of the mean square.
    squares = []
    for n in range(200):
        key = Key(4).child(n)
        found = compare(shots(key.child(0), 1.0, bias), shots(key.child(1), 1.0))
        squares.append(found.mean_error**2)
    if bias == 0.3:
        error = np.std(squares) / math.sqrt(len(squares))
        assert np.mean(squares) == pytest.approx(bias**2, abs=5 * error)
    else:
        # Below what these passes resolve, as the resolution says.
        assert found.mean_error_resolution > 2 * bias
        assert max(squares) < 5 * found.mean_error_resolution**2


@given(seed=SEEDS, spread=st.booleans())
@settings(max_examples=6)
def test_the_standard_error_of_the_mean_error_is_its_spread(seed: int, spread: bool) -> None:
    # 60 devices, bias ten times the noise: the spread is known to 1 / sqrt(120), 9 %.
    key = Key(seed)
    bias = 0.1 * (1 + spread * normal(key.child("bias"), DRIVES, OUTPUTS))
    found = [
        compare(shots(key.child(n, 0), 0.01) + bias, shots(key.child(n, 1), 0.01))
        for n in range(60)
    ]
    scatter = np.std([f.mean_error for f in found])
    # The drives' own biases are part of it, though one set of them was drawn here.
    error = float(np.mean([f.mean_error_error for f in found]))
    assert error > scatter * (1 - 5 * 0.09)
    if not spread:
        assert error == pytest.approx(scatter, rel=5 * 0.09)
        assert error < 0.1 * found[0].mean_error_resolution


@pytest.mark.parametrize("width", [0.5, 1.5, 2.0])
def test_a_noise_of_another_width_is_at_its_wasserstein_distance(width: float) -> None:
    # 2048 drives x 4 repeats a half, 6 outputs: the distance of two samples of 8192 of one
    # law is about 0.02, of which little is left beside a real one; bound 0.02.
    key = Key(5)
    found = compare(
        shots(key.child(0), 0.1 * width, 0.7, drives=2048),
        shots(key.child(1), 0.1, drives=2048),
    )
    expected = abs(width - 1) * math.sqrt(2 / math.pi)
    assert found.noise_distance == pytest.approx(expected, abs=0.02)
    assert found.noise_distance_self < 0.025


@given(seed=SEEDS)
def test_a_noise_of_the_same_law_is_no_further_than_the_device_is_from_itself(seed: int) -> None:
    key = Key(seed)
    found = compare(shots(key.child(0), 0.1, 0.4), shots(key.child(1), 0.1))
    # Each is a mean over 6 outputs of a distance of 512 shots, 0.07 +- 0.025: five
    # standard errors of the difference.
    assert abs(found.noise_distance - found.noise_distance_self) < 5 * 0.025 * math.sqrt(1.5 / 6)


def test_another_shape_of_the_noise_is_seen_at_equal_width() -> None:
    device = shots(Key(6).child(0), 0.1, drives=1024)
    skewed = torch.from_numpy(Key(6).numpy().exponential(0.1, device.shape))
    found = compare(device.mean(0) + skewed, device)
    assert found.noise_distance > 5 * found.noise_distance_self


def test_an_output_that_moved_once_does_not_hide_the_others() -> None:
    """One code in 1,024 shots: the distance stays what it is without that output."""
    t, d = shots(Key(11).child(0), 0.1), shots(Key(11).child(1), 0.1)
    whole = compare(t[..., 1:], d[..., 1:]).noise_distance
    t[..., 0], d[..., 0] = 0.1 * normal(Key(11), *t.shape[:2]), 0.0
    d[0, 0, 0] = 0.004
    found = compare(t, d)
    # The twin's own noise there, sqrt(2 / pi) of a width as the others', over 5 of them.
    assert found.silent_outputs == 0
    assert found.noise_distance == pytest.approx(whole + math.sqrt(2 / math.pi) / 5, abs=0.05)


@given(seed=SEEDS, step=st.floats(1.0, 3.0), together=st.booleans())
def test_a_device_that_moves_between_repeats_is_told(
    seed: int, step: float, together: bool
) -> None:
    key = Key(seed)
    still = shots(key.child(0), 0.1)
    calm = compare(shots(key.child(1), 0.1), still)
    assert calm.device_walk == pytest.approx(1, abs=5.5 * calm.device_walk_error)
    steps = normal(key.child(2), REPEATS, 1 if together else DRIVES, 1 if together else OUTPUTS)
    ramp = 0.1 * step * torch.arange(REPEATS, dtype=torch.float64)[:, None, None]
    moved = compare(
        shots(key.child(1), 0.1), still + (ramp if together else 0.1 * step * steps.cumsum(0))
    )
    assert moved.device_walk > 1 + 5 * moved.device_walk_error
    # var D of 8 places of a ramp, over half a step squared and the noise: 6 and 1/2.
    if together:
        expected = (1 + 6 * step**2) / (1 + step**2 / 2)
        assert moved.device_walk == pytest.approx(expected, rel=0.25)


def test_correlation_falls_with_the_noise_left_in_the_means() -> None:
    # Signal variance 1/12 (uniform drives); 4096 drives x 6 outputs: 5 / sqrt(n).
    n = 4096
    signal = torch.rand((n, OUTPUTS), generator=Key(7).torch(), dtype=torch.float64)
    t, d = (
        signal + i * 2.0 + sigma * normal(Key(8).child(i), REPEATS, n, OUTPUTS)
        for i, sigma in enumerate((0.5, 1.0))
    )
    own = 1 / 12
    expected = own / math.sqrt((own + 0.25 / REPEATS) * (own + 1 / REPEATS))
    found = compare(t, d).correlation
    assert found == pytest.approx(expected, abs=5 / math.sqrt(n * OUTPUTS))
    assert compare(torch.zeros_like(d), d).correlation is None


def test_passes_are_reported_and_in_the_ledgers() -> None:
    twin, device = ideal(0.02), ideal(0.05)
    found = fidelity(twin, device, drives(10), key=Key(0), repeats=5)
    for fence, said in ((twin, found.twin_passes), (device, found.device_passes)):
        assert said == 50 == fence.ledger.total("chip", "fidelity").passes


def test_the_same_key_gives_the_same_figures() -> None:
    one, two = (
        fidelity(ideal(0.1), ideal(0.05), drives(), key=Key(3), setting=weights()) for _ in range(2)
    )
    assert one == two


def test_outputs_that_never_scatter_are_counted_and_left_out_of_the_noise() -> None:
    key = Key(9)
    t, d = shots(key.child(0), 0.1), shots(key.child(1), 0.1)
    t[..., 2] = d[..., 2] = 0.5
    found = compare(t, d)
    assert found.silent_outputs == 1
    assert math.isfinite(found.noise_distance)


def test_a_device_that_repeats_itself_is_refused() -> None:
    with pytest.raises(Unsupported, match="repeatability is zero"):
        fidelity(ideal(0.05), ideal(0.0), drives(), key=Key(0))
    d = shots(Key(0), 0.0)
    with pytest.raises(Unsupported, match="noise on"):
        compare(shots(Key(1), 0.1), d)


def test_a_twin_without_noise_is_no_error() -> None:
    # sqrt((0 + s^2) / (2 s^2)): a twin that gives the mean beats a repeat of the device.
    found = fidelity(ideal(0.0), ideal(0.05), drives(), key=Key(0), setting=weights())
    assert found.ratio == pytest.approx(math.sqrt(0.5), abs=5 * found.ratio_error)


def test_what_cannot_be_compared_is_refused() -> None:
    other = Ideal(IdealConfig(inputs=8, outputs=OUTPUTS + 1, noise_v=0.1))
    with pytest.raises(ConfigError, match="no twin of"):
        fidelity(other, ideal(0.1), drives(), key=Key(0))
    with pytest.raises(ConfigError, match="repeats"):
        fidelity(ideal(0.1), ideal(0.1), drives(), key=Key(0), repeats=3)
    with pytest.raises(ConfigError, match="2 drives"):
        fidelity(ideal(0.1), ideal(0.1), drives(1), key=Key(0))
    with pytest.raises(ConfigError, match="equal shapes"):
        compare(torch.zeros(4, 3, 2), torch.zeros(4, 2, 2))


@settings(max_examples=5)
@given(seed=SEEDS)
def test_a_reading_of_one_number_needs_no_output_axis(seed: int) -> None:
    t, d = (normal(Key(seed).child(i), 4, 6) for i in range(2))
    assert compare(t, d) == compare(t[..., None], d[..., None])


# ---- the command ---------------------------------------------------------------


def test_the_command_ranges_both_and_leaves_a_summary(tmp_path: Path) -> None:
    options = ["inputs=16", "outputs=8"]
    found = command.main("memristor", "memristor", options, 0, tmp_path, "pib-twin fidelity")
    figures = {figure.name: figure for figure in found.figures}
    # Two chips of one make differ by more than their noise.
    assert figures["fidelity/ratio"].value > 1 + 5 * figures["fidelity/ratio"].standard_error
    assert figures["fidelity/device_passes"].value == 64 * 16
    # Two chips are far apart: their error is known far better than what one could miss.
    error = figures["fidelity/mean_error"].standard_error
    value = figures["fidelity/mean_error"].value
    assert error is not None and value is not None and error < 0.1 * value
    assert figures["fidelity/device_walk"].standard_error is not None
    assert not any(name.endswith(("_error_error", "walk_error")) for name in figures)
    assert (tmp_path / "summary.json").exists()


def test_a_chip_that_is_not_written_again_is_as_close_as_its_twin_can_be() -> None:
    """1 % of the window per write here: writing anew costs more than the read noise."""
    device = chip(8)
    made = fitted_chip(device)
    device.close = lambda: None  # type: ignore[method-assign]  # one chip, opened twice
    held, anew = (
        command.measured(lambda: twin(made), lambda: device, key=Key(1), as_it_stands=stands)
        for stands in (True, False)
    )
    assert held.ratio < 1.2 < 1.5 < anew.ratio


def test_a_task_gap_has_its_device_open_once_at_a_time() -> None:
    """Of hardware there is one: a second driver beside the first is an error."""
    open_now, most = 0, 0

    class Only(Ideal):
        def close(self) -> None:
            nonlocal open_now
            open_now -= 1

    def make() -> MinimalBackend:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        return Only(IdealConfig(inputs=64, outputs=32))

    def other() -> MinimalBackend:
        return Ideal(IdealConfig(inputs=64, outputs=32, noise_v=0.02))

    task_gap(other, make, digits(0), key=Key(0), epochs=1)
    assert (open_now, most) == (0, 1)


@pytest.mark.slow
def test_a_network_trained_on_a_faithful_twin_loses_nothing_on_the_device() -> None:
    # 360 test images; bound: five standard errors of the paired difference.
    def chip(options: dict[str, float]) -> Callable[[], MinimalBackend]:
        return lambda: open_backend("ideal", key=Key(0), inputs=64, outputs=32, **options)

    data = digits(0)
    same = task_gap(chip({"noise_v": 0.05}), chip({"noise_v": 0.05}), data, key=Key(0), epochs=5)
    # The same training with the same keys: nothing differs at all.
    assert same.gap == 0.0 and same.trained_on_device > 0.8
    other = task_gap(chip({"noise_v": 0.01}), chip({"noise_v": 0.05}), data, key=Key(0), epochs=5)
    assert abs(other.gap) < 5 * other.standard_error + 1e-9
