"""How a crossbar holds signed weights and takes its drive: encodings, levels, phases."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from substrates.memristor.array import Scratch
from substrates.memristor.config import CrossbarConfig
from substrates.memristor.crossbar import make
from substrates.memristor.encoding import Encoding
from substrates.memristor.presets import IDEAL
from tests.substrates.crossbars import (
    amperes,
    code_amperes,
    codes,
    drive,
    uniform,
    weights,
    written,
)
from twin.errors import ConfigError
from twin.key import Key

EVERYDAY = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
WINDOW = 18e-6
SLICED = {"encoding": "sliced", "slices": 3, "slice_bits": 3}
KINDS = ({"encoding": "pair"}, {"encoding": "offset"}, SLICED)
kinds = st.sampled_from(KINDS)
sizes = {"inputs": 24, "outputs": 5, "array_rows": 10}
WIDE = 0.2 * WINDOW * 10  # amperes: no column of ten rows saturates


def encoding(**options: object) -> Encoding:
    return Encoding.of(CrossbarConfig(inputs=6, outputs=4, **options))  # type: ignore[arg-type]


# ---- what a write puts into the cells -----------------------------------------


@EVERYDAY
@given(
    seed=seeds,
    kind=kinds,
    levels=st.none() | st.integers(8, 300),
    low=st.floats(0, 1e-5),
    window=st.floats(1e-6, 1e-4),
    beyond=st.floats(1, 3),
)
def test_targets_never_leave_the_window(seed, kind, levels, low, window, beyond):
    if levels is not None and "slice_bits" in kind:
        digits = 2 ** kind["slice_bits"] - 1
        levels = 1 + digits * max(1, levels // digits)
    own = encoding(g_min_siemens=low, g_max_siemens=low + window, levels=levels, **kind)
    targets = own.targets(uniform(seed, 6, 4, low=-1.0) * beyond)
    assert tuple(targets.shape) == own.shape
    assert targets.min() >= low * (1 - 1e-6)
    assert targets.max() <= (low + window) * (1 + 1e-6)


@EVERYDAY
@given(seed=seeds, kind=st.sampled_from(KINDS[:2]))
def test_unsliced_weights_come_back_from_their_targets(seed, kind):
    w, own = uniform(seed, 6, 4, low=-1.0), encoding(**kind)
    assert torch.allclose(own.decode(own.targets(w)), w, atol=3e-6)


@EVERYDAY
@given(seed=seeds, shape=st.sampled_from([(2, 1), (2, 5), (3, 3), (4, 2), (5, 5), (8, 3)]))
@example(seed=0, shape=(5, 5))
def test_digits_of_a_sliced_weight_decode_to_the_weight_on_its_grid(seed, shape):
    slices, bits = shape
    own = encoding(encoding="sliced", slices=slices, slice_bits=bits)
    top = 2 ** (slices * bits) - 1
    w = uniform(seed, 6, 4, low=-1.0)
    w[0] = torch.tensor([1.0, -1.0, 0.0, 0.5])
    on_grid = ((w.double() * top).round() / top).float()
    found = own.decode(own.targets(w))
    assert torch.allclose(found, on_grid, atol=3e-6)
    assert (found - w).abs().max() <= 0.5 / top + 3e-6


@EVERYDAY
@given(seed=seeds, slices=st.integers(2, 4), bits=st.integers(1, 4))
def test_each_slice_of_a_weight_is_one_digit_and_one_sign(seed, slices, bits):
    own = encoding(encoding="sliced", slices=slices, slice_bits=bits, g_min_siemens=0.0)
    level = (own.targets(uniform(seed, 6, 4, low=-1.0)) / 20e-6).double()
    digits = level * (2**bits - 1)
    assert (digits - digits.round()).abs().max() < 1e-5
    plus, minus = level[0::2].amax(0), level[1::2].amax(0)
    assert not ((plus > 0) & (minus > 0)).any()


@EVERYDAY
@given(seed=seeds, levels=st.integers(2, 40))
def test_levels_are_evenly_spaced_with_both_ends_and_no_target_is_between(seed, levels):
    own = encoding(levels=levels)
    place = (own.targets(uniform(seed, 6, 4, low=-1.0)).double() - 2e-6) / WINDOW * (levels - 1)
    assert (place - place.round()).abs().max() < 1e-4
    exact = encoding().targets(uniform(seed, 6, 4, low=-1.0)).double()
    rounded = own.targets(uniform(seed, 6, 4, low=-1.0)).double()
    assert (exact - rounded).abs().max() <= WINDOW * (0.5 / (levels - 1) + 1e-6)


@EVERYDAY
@given(seed=seeds, levels=st.integers(2, 12))
@example(seed=0, levels=2)
def test_levels_cost_an_offset_weight_no_more_than_their_rounding(seed, levels):
    w = uniform(seed, 6, 4, low=-1.0)
    own = encoding(encoding="offset", levels=levels)
    found = own.decode(own.targets(w))
    assert (found - w).abs().max() <= 1 / (levels - 1) + 1e-5
    extremes = torch.tensor([1.0, -1.0]).repeat(6, 2)
    assert torch.allclose(own.decode(own.targets(extremes)), extremes, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"encoding": "sliced", "levels": 3},
            "3 levels cannot hold the digits of slices of 2 bits",
        ),
        ({"dac_bits": 8, "dac_phases": 3}, "use a divisor of dac_bits"),
        ({"dac_bits": 2, "dac_phases": 4}, "use a divisor of dac_bits"),
        ({"adc_bits": 16, "dac_bits": 12, "dac_phases": 12}, "fewer ADC bits, slices or phases"),
        ({"encoding": "sliced", "slices": 1}, "greater than or equal to 2"),
        ({"encoding": "ternary"}, "'pair', 'offset' or 'sliced'"),
    ],
)
def test_an_encoding_that_cannot_be_is_refused_when_built(options, words):
    with pytest.raises(ConfigError, match=words):
        make(key=Key(1), **options)


# ---- what a pass computes -----------------------------------------------------


def product(chip, w, x):
    """What the column currents should be, amperes, float64."""
    return x.double() @ w.double() * chip.capabilities.settings[0].full_scale * 0.2


@EVERYDAY
@given(seed=seeds, kind=st.sampled_from(KINDS[:2]), inputs=st.integers(1, 30))
def test_a_pass_is_a_product_within_half_a_code_of_each_converter(seed, kind, inputs):
    own = {**sizes, **kind, "inputs": inputs, "adc_full_scale_a": WIDE}
    chip = make(key=Key(seed), **IDEAL, **own)
    w, x = weights(chip, seed), drive(chip, seed=seed)
    chip.program(w, key=Key(1))
    slack = (0.5 * len(chip.layout.tiling.rows) + 0.5) * code_amperes(chip)
    assert ((amperes(chip, x) - product(chip, w, x)).abs() < slack).all()


@EVERYDAY
@given(seed=seeds, phases=st.sampled_from([1, 2]), rows=st.integers(3, 24))
def test_slices_and_phases_add_up_to_the_product_within_their_converters(seed, phases, rows):
    own = {**sizes, **SLICED, "array_rows": rows, "adc_full_scale_a": 0.2 * WINDOW * rows}
    options = {**IDEAL, **own, "adc_bits": 10, "dac_bits": 8, "dac_phases": phases}
    chip = make(key=Key(seed), **options)
    top = 2**9 - 1
    w = (weights(chip, seed) * top).round() / top
    chip.program(w, key=Key(1))
    x = drive(chip, seed=seed)
    # Each conversion is off by half a code at most, worth its power of two.
    total = chip.layout.total_weight * len(chip.layout.tiling.rows)
    slack = (0.5 * total + 1) * code_amperes(chip)
    assert ((amperes(chip, x) - product(chip, w, x)).abs() < slack).all()


@EVERYDAY
@given(seed=seeds, kind=st.sampled_from(KINDS[:2]))
def test_the_number_of_phases_changes_nothing_but_rounding(seed, kind):
    shown, step = [], []
    for phases in (1, 2, 4, 8):
        own = {**sizes, **kind, "dac_bits": 8, "dac_phases": phases, "adc_bits": 12}
        chip = make(key=Key(1), **{**IDEAL, **own}, adc_full_scale_a=WIDE)
        chip.program(weights(chip, seed), key=Key(2))
        shown.append(amperes(chip, drive(chip, seed=seed)))
        # In amperes at the input every conversion of the sum is off by half a code.
        step.append(WIDE / 2**11 * len(chip.layout.tiling.rows))
    for other, width in zip(shown[1:], step[1:], strict=True):
        assert (other - shown[0]).abs().max() <= 0.5 * (width + step[0]) * (1 + 1e-3)


@EVERYDAY
@given(seed=seeds, phases=st.sampled_from([1, 2, 4, 8]))
def test_the_groups_of_a_drive_add_up_to_its_code(seed, phases):
    chip = make(key=Key(1), dac_bits=8, dac_phases=phases, adc_bits=4)
    x = drive(chip, seed=seed)
    groups = chip.layout.phased(x, Scratch())
    place = torch.tensor([2.0 ** (8 // phases * p) for p in range(phases)])
    code = torch.einsum("bpi,p->bi", groups, place)
    assert torch.equal(code, (x * 255).round())
    assert groups.min() >= 0 and groups.max() <= 2 ** (8 // phases) - 1


def test_more_phases_take_more_time_and_conversions_but_one_phase_per_read_time():
    chip = written(dac_phases=4, encoding="sliced", **sizes)
    reading = chip.forward(drive(chip, 3), key=Key(1))
    assert reading.device_seconds == pytest.approx(3 * 4 * 1e-6)
    tiles = len(chip.layout.tiling.rows)
    assert chip.layout.banks == 4 * 2 * tiles
    at_least = 3 * 5 * 4 * 2 * tiles * 256 * 50e-15
    assert reading.joules > at_least


# ---- the reference column -------------------------------------------------------


def test_the_reference_column_correlates_all_outputs_by_its_own_variance():
    shots, noise = 8000, 0.05
    own = {"inputs": 16, "outputs": 4, "adc_bits": 16, "dac_bits": 8, "encoding": "offset"}
    chip = written(**own, read_noise=noise, programming_error=0.0)
    x = drive(chip, 1)
    seen = amperes(chip, x, shots=shots)[:, 0]
    power = x[0].double().square() * (0.2 * noise) ** 2
    g = chip.conductances()[0].double().square()
    shared, single = float(power @ g[:, -1]), power @ g[:, :-1]
    expected = torch.diag(single) + shared
    found = torch.cov(seen.T)
    size = torch.diag(expected)
    # Variance of a sample covariance of normals: (s_ii s_jj + s_ij^2) / n.
    error = ((size[:, None] * size + expected.square()) / shots).sqrt()
    assert ((found - expected).abs() < 5 * error).all()
    assert shared > 0.2 * float(single.mean())  # a correlation worth the name


def test_row_tiles_have_reference_columns_of_their_own():
    shots, noise = 8000, 0.05
    own = {"inputs": 16, "outputs": 3, "adc_bits": 14, "dac_bits": 8, "encoding": "offset"}
    chip = written(**own, array_rows=5, read_noise=noise, programming_error=0.0)
    x = drive(chip, 1)
    power = x[0].double().square() * (0.2 * noise) ** 2
    shared = float(power @ chip.conductances()[0, :, -1].double().square())
    found = torch.cov(amperes(chip, x, shots=shots)[:, 0].T)
    error = math.sqrt(2 / shots) * float(found.diag().max())
    assert abs(float(found[0, 1]) - shared) < 5 * error
    assert abs(float(found[1, 2]) - shared) < 5 * error


def test_pairs_share_no_noise():
    shots = 4000
    chip = written(inputs=16, outputs=4, adc_bits=16, read_noise=0.05)
    seen = amperes(chip, drive(chip, 1), shots=shots)[:, 0]
    apart = torch.corrcoef(seen.T) - torch.eye(4)
    assert apart.abs().max() < 5 / math.sqrt(shots)


@EVERYDAY
@given(seed=seeds, kind=kinds, row=st.integers(0, 23))
def test_a_row_without_drive_changes_nothing(seed, kind, row):
    options = {**IDEAL, **sizes, **kind, "adc_bits": 10}
    one, other = make(key=Key(1), **options), make(key=Key(1), **options)
    w = weights(one, seed)
    one.program(w, key=Key(2))
    w[row] = uniform(seed + 1, 5, low=-1.0)
    other.program(w, key=Key(2))
    x = drive(one, seed=seed)
    x[:, row] = 0
    assert torch.equal(codes(one, x), codes(other, x))
