"""What a unit computes with its backend, and the bookkeeping of its scales."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pib.unit import DigitalLayerUnit, IsomorphicUnit, Record, feature, he_layer
from substrates.memristor.presets import IDEAL
from twin.errors import ConfigError
from twin.fence import Fence
from twin.key import Key
from twin.registry import open_backend

seeds = st.integers(0, 2**32)
SEVERAL = settings(max_examples=20, deadline=None)


def fenced(name: str, seed: int = 0, **options: Any) -> Fence:
    return Fence(open_backend(name, key=Key(seed), **options), name="unit 1")


def drives(seed: int, n: int, inputs: int) -> Tensor:
    return torch.rand((n, inputs), generator=Key(seed).child("x").torch())


def clipped(weight: Tensor, clip_rms: float) -> Tensor:
    """The weight as far as the window reaches, column by column."""
    limit = clip_rms * weight.square().mean(0).sqrt()
    return torch.maximum(torch.minimum(weight, limit), -limit)


@SEVERAL
@given(
    seed=seeds, inputs=st.integers(1, 12), outputs=st.integers(1, 8),
    clip=st.floats(0.3, 5), size=st.floats(1e-3, 1e3),
)  # fmt: skip
def test_on_an_ideal_backend_the_pre_activation_is_x_w_plus_b(
    seed: int, inputs: int, outputs: int, clip: float, size: float
) -> None:
    """To float32 precision, with W clipped at clip_rms; whatever its scale."""
    unit = IsomorphicUnit(
        fenced("ideal", inputs=inputs, outputs=outputs), key=Key(seed), clip_rms=clip
    )
    unit.parameters["weight"] *= size
    bias = torch.randn(outputs, generator=Key(seed).child("b").torch()) * size
    unit.parameters["bias"].copy_(bias)
    unit.deploy(Key(0))
    x = drives(seed, 5, inputs)
    got = unit.pre_activation(unit.capture(x, key=Key(1)))
    weight = clipped(unit.parameters["weight"], clip).double()
    expected = x.double() @ weight + bias.double()
    scale = float(weight.norm() + bias.norm())
    torch.testing.assert_close(got.double(), expected, atol=2e-6 * scale, rtol=0)


@SEVERAL
@given(seed=seeds, inputs=st.integers(2, 20), clip=st.floats(0.5, 4))
def test_on_a_chip_without_noise_the_gain_is_kept_through_volts_siemens_and_amperes(
    seed: int, inputs: int, clip: float
) -> None:
    """A converter code of each row tile rounds by half, a drive by half a DAC
    step; both at 16 bits. Unranged and ranged, tiled and not."""
    fence = fenced("memristor", seed, inputs=inputs, outputs=4, array_rows=7, **IDEAL)
    unit = IsomorphicUnit(fence, key=Key(seed), clip_rms=clip)
    unit.deploy(Key(0))
    x = drives(seed, 40, inputs)
    weight = clipped(unit.parameters["weight"], clip)
    expected = unit.fence.drive_port.on_grid(x).double() @ weight.double()
    unranged = unit.capture(x, key=Key(1))
    unit.calibrate(x, key=Key(2))
    ranged = unit.capture(x, key=Key(1))
    tiles = -(-inputs // 7)
    limits = clip * unit.parameters["weight"].square().mean(0).sqrt()
    volt_ampere = fence.reading_port.full_scale / (
        fence.drive_port.full_scale * fence.capabilities.settings[0].full_scale
    )
    level = limits * volt_ampere * fence.reading_port.step
    rounding = 1e-5 * float(weight.abs().sum(0).max())
    # The default full scale clips large currents, so only ranged ones are exact.
    assert ranged.saturated == 0
    error = (unit.pre_activation(ranged).double() - expected).abs()
    assert bool((error <= tiles * 0.51 * level * _ratio(unit, fence) + rounding).all())
    if unranged.saturated == 0:
        error = (unit.pre_activation(unranged).double() - expected).abs()
        assert bool((error <= tiles * 0.51 * level + rounding).all())


def _ratio(unit: IsomorphicUnit, fence: Fence) -> Tensor:
    return fence.snapshot().arrays["ratio"]


def test_a_weight_beyond_the_window_is_clipped_and_not_wrapped_or_scaled() -> None:
    unit = IsomorphicUnit(fenced("ideal", inputs=100, outputs=1), key=Key(0), clip_rms=4.0)
    weight = torch.full((100, 1), 0.1)
    weight[0] = 10.0
    unit.parameters["weight"].copy_(weight)
    unit.deploy(Key(0))
    eye = torch.eye(100)
    got = unit.pre_activation(unit.capture(eye, key=Key(1)))[:, 0]
    rms = float(weight.square().mean().sqrt())
    assert float(got[0]) == pytest.approx(4 * rms, rel=1e-5)
    assert float(got[1]) == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize("name", ["memristor", "ideal"])
def test_a_column_of_zeros_can_be_written(name: str) -> None:
    unit = IsomorphicUnit(fenced(name, inputs=5, outputs=3), key=Key(0))
    unit.parameters["weight"].zero_()
    unit.deploy(Key(0))
    got = unit.pre_activation(unit.capture(drives(0, 4, 5), key=Key(1)))
    assert float(got.abs().max()) < 1e-6


@SEVERAL
@given(seed=seeds, masks=st.booleans())
def test_stuck_columns_are_zeroed_only_by_a_unit_told_to_mask(seed: int, masks: bool) -> None:
    fence = fenced("memristor", seed, inputs=8, outputs=10, stuck_column_fraction=0.5)
    unit = IsomorphicUnit(fence, key=Key(seed), mask_constant=masks)
    unit.deploy(Key(0))
    unit.parameters["bias"].fill_(3.0)
    x = drives(seed, 60, 8)
    unit.calibrate(x, key=Key(1))
    record = unit.capture(x, key=Key(2))
    stuck = record.values.amax(0) == record.values.amin(0)
    a = unit.pre_activation(record)
    dead = (a == 0).all(0)
    assert torch.equal(dead, stuck) if masks else not bool(dead.any())
    gradient = torch.ones_like(a)
    found = unit.gradients(record, a, gradient)
    if masks:
        assert not found["weight"][:, stuck].any() and not found["bias"][stuck].any()
        assert bool(found["bias"][~stuck].all())


@SEVERAL
@given(seed=seeds)
def test_the_record_keeps_the_drive_as_the_converter_sent_it(seed: int) -> None:
    fence = fenced("memristor", inputs=6, outputs=3, dac_bits=3)
    unit = IsomorphicUnit(fence, key=Key(seed))
    unit.deploy(Key(0))
    record = unit.capture(drives(seed, 5, 6) * 1.2 - 0.1, key=Key(1))
    levels = record.drive * 7
    torch.testing.assert_close(levels, levels.round(), atol=1e-5, rtol=0)
    assert record.drive.min() >= 0 and record.drive.max() <= 1


@SEVERAL
@given(seed=seeds)
def test_constants_carry_a_units_meaning_to_another(seed: int) -> None:
    x = drives(seed, 20, 6)
    for kind in ("memristor", "optics"):
        units = [_unit(kind, seed) for _ in range(2)]
        units[0].deploy(Key(0))
        units[0].calibrate(x, key=Key(1))
        record = units[0].capture(x, key=Key(2))
        units[1].load_constants(units[0].constants())
        assert torch.equal(units[0].pre_activation(record), units[1].pre_activation(record))
        # And they are copies: what the caller does to them changes nothing.
        before = units[0].pre_activation(record)
        for value in units[0].constants().values():
            value.zero_()
        assert torch.equal(before, units[0].pre_activation(record))


def _unit(kind: str, seed: int) -> IsomorphicUnit | DigitalLayerUnit:
    if kind == "memristor":
        fence = fenced(kind, inputs=6, outputs=4)
        return IsomorphicUnit(fence, key=Key(seed), mask_constant=True)
    return DigitalLayerUnit(fenced(kind, inputs=6, pixels=9), outputs=4, key=Key(seed))


@SEVERAL
@given(seed=seeds, outputs=st.integers(1, 5))
def test_a_digital_layer_sees_pixels_centred_and_of_one_size(seed: int, outputs: int) -> None:
    unit = DigitalLayerUnit(fenced("optics", inputs=6, pixels=30), outputs=outputs, key=Key(seed))
    x = drives(seed, 200, 6)
    unit.calibrate(x, key=Key(1))
    record = unit.capture(x, key=Key(1))
    z = unit.standardised(record)
    torch.testing.assert_close(z.mean(0), torch.zeros(30), atol=1e-4, rtol=0)
    assert float(z.std(0).max()) <= 1 + 1e-4
    layer = unit.parameters
    expected = z.double() @ layer["weight"].double() + layer["bias"].double()
    torch.testing.assert_close(unit.pre_activation(record).double(), expected, atol=1e-4, rtol=0)
    assert torch.equal(feature(unit, record), unit.pre_activation(record).clamp_min(0))


def test_a_stuck_pixel_is_not_blown_up() -> None:
    fence = fenced("optics", inputs=6, pixels=20, stuck_pixel_fraction=0.3)
    unit = DigitalLayerUnit(fence, outputs=2, key=Key(0))
    x = drives(0, 100, 6)
    unit.calibrate(x, key=Key(1))
    record = unit.capture(x, key=Key(2))
    moved = Record(drive=record.drive, values=record.values + 1e-3 * record.values.abs().max())
    change = unit.standardised(moved) - unit.standardised(record)
    assert float(change.abs().max()) < 1.0


def test_first_weights_have_the_spread_that_keeps_signals_alive() -> None:
    """200 x 100 weights: the standard error of a standard deviation is s / sqrt(2 n)."""
    layer = he_layer(200, 100, Key(3))
    assert float(layer["weight"].std()) == pytest.approx(0.1, abs=5 * 0.1 / 40_000**0.5)
    assert not layer["bias"].any()


@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan")])
def test_a_window_of_no_width_is_refused(clip: float) -> None:
    with pytest.raises(ConfigError, match="clip_rms"):
        IsomorphicUnit(fenced("ideal"), key=Key(0), clip_rms=clip)


def test_fixed_physics_is_refused_as_an_isomorphic_unit() -> None:
    with pytest.raises(ConfigError, match="broken-isomorphism"):
        IsomorphicUnit(fenced("optics"), key=Key(0))
