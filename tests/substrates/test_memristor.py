"""The crossbar against the laws it states."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, kstest

from substrates.converter import half_span
from substrates.memristor import device
from substrates.memristor.array import Tiling, split_evenly
from substrates.memristor.crossbar import FINEST_RANGE, Crossbar, make
from substrates.memristor.presets import IDEAL
from twin.errors import ConfigError, DialError, DriveError, SettingError, SnapshotError, UnknownName
from twin.fence import Fence
from twin.key import Key

EVERYDAY = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
HOUR_S, DAY_S = 3600.0, 86400.0


def uniform(seed: int, *shape: int, low: float = 0.0) -> torch.Tensor:
    return torch.rand(shape, generator=Key(seed).torch()) * (1 - low) + low


def weights(chip: Crossbar, seed: int = 5) -> torch.Tensor:
    return uniform(seed, *chip.capabilities.settings[0].shape, low=-1.0)


def drive(chip: Crossbar, batch: int = 6, seed: int = 9) -> torch.Tensor:
    return uniform(seed, batch, *chip.capabilities.drives[0].shape)


def written(seed: int = 1, **options: object) -> Crossbar:
    """A chip that holds random weights."""
    chip = make(key=Key(seed), **options)
    chip.program(weights(chip), key=Key(2))
    return chip


def codes(chip: Crossbar, x: torch.Tensor, seed: int = 3, **more: int) -> torch.Tensor:
    return chip.forward(x, key=Key(seed), **more).codes


def amperes(chip: Crossbar, x: torch.Tensor, seed: int = 3, **more: int) -> torch.Tensor:
    """Readings in amperes, float64."""
    port, reading = chip.capabilities.readings[0], chip.forward(x, key=Key(seed), **more)
    return reading.codes.double() * port.step * port.full_scale * reading.ratio


def same_state(one: Crossbar, other: Crossbar) -> bool:
    a, b = one.snapshot(), other.snapshot()
    return a.values == b.values and all(torch.equal(a.arrays[n], b.arrays[n]) for n in a.arrays)


# ---- what it computes ------------------------------------------------------


@EVERYDAY
@given(seed=seeds, inputs=st.integers(1, 40), outputs=st.integers(1, 9), rows=st.integers(1, 40))
def test_an_ideal_crossbar_is_a_product_within_half_a_level_per_tile(seed, inputs, outputs, rows):
    sizes = {"inputs": inputs, "outputs": outputs, "array_rows": rows}
    full_scale_a = 0.2 * 18e-6 * min(rows, inputs) * 1.01
    chip = make(key=Key(seed), **IDEAL, adc_full_scale_a=full_scale_a, **sizes)
    w, x = weights(chip, seed), drive(chip, seed=seed)
    chip.program(w, key=Key(1))
    x = torch.round(x * 65535) / 65535
    expected = (x.double() @ w.double()) * 0.2 * 18e-6
    level = full_scale_a / 2**15
    # Half a level per tile's converter, and float32 products.
    slack = (0.5 * len(chip.layout.tiling.rows) + 0.5) * level
    assert (amperes(chip, x) - expected).abs().max() < slack


@EVERYDAY
@given(seed=seeds, rows=st.integers(3, 30), cols=st.integers(1, 8))
def test_tiling_changes_nothing_but_rounding(seed, rows, cols):
    sizes = {"inputs": 30, "outputs": 8, "adc_full_scale_a": 2e-4}
    whole, tiled = (
        make(key=Key(1), **IDEAL, **sizes),
        make(key=Key(1), **IDEAL, **sizes, array_rows=rows, array_cols=cols),
    )
    for chip in (whole, tiled):
        chip.program(weights(chip, seed), key=Key(2))
    x = drive(whole, seed=seed)
    assert tiled.layout.tiling.arrays == len(tiled.layout.tiling.rows) * len(
        tiled.layout.tiling.cols
    )
    apart = (codes(whole, x) - codes(tiled, x)).abs().max()
    assert apart <= 0.5 * (len(tiled.layout.tiling.rows) + 1) + 0.1


@given(count=st.integers(1, 2000), limit=st.integers(1, 300))
def test_tiles_are_even_cover_everything_and_fit(count, limit):
    parts = split_evenly(count, limit)
    sizes = [p.stop - p.start for p in parts]
    assert sum(sizes) == count and max(sizes) <= limit and max(sizes) - min(sizes) <= 1
    assert len(parts) == math.ceil(count / limit)
    assert all(a.stop == b.start for a, b in pairwise(parts))


def test_a_784_by_256_matrix_takes_seven_row_tiles_and_two_column_tiles():
    tiling = Tiling.of(784, 256, 128, 128)
    assert (len(tiling.rows), len(tiling.cols), tiling.tallest) == (7, 2, 112)


def test_a_drive_is_rounded_to_the_dac():
    chip = written(**IDEAL | {"dac_bits": 3})
    x = torch.round(drive(chip) * 7) / 7
    assert torch.equal(codes(chip, x), codes(chip, (x + 0.07 / 2).clamp(max=1)))


def test_an_unwritten_chip_reads_zero():
    chip = make(key=Key(1), read_noise=0.0)
    assert not codes(chip, drive(chip)).any()


# ---- write error -----------------------------------------------------------


@pytest.mark.parametrize("error", [0.005, 0.02])
def test_write_error_is_gaussian_with_the_stated_sigma(error):
    chip = make(key=Key(4), inputs=200, outputs=200, programming_error=error)
    w = weights(chip)
    chip.program(w, key=Key(2))
    targets = chip.parts.encoding.targets(w)
    z = ((chip.conductances() - targets) / (error * 18e-6)).double()
    # 80,000 cells; no cell is within five sigma of zero conductance.
    n = z.numel()
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs(z.square().mean() - 1) < 5 * math.sqrt(2 / n)
    assert kstest(z.flatten()[:20_000].numpy(), "norm").pvalue > 1e-6


@EVERYDAY
@given(seed=seeds)
def test_targets_stay_in_the_window_and_their_difference_is_the_weight(seed):
    w = uniform(seed, 6, 4, low=-1.0)
    targets = make(key=Key(0), inputs=6, outputs=4).parts.encoding.targets(w)
    assert targets.min() >= 2e-6 * (1 - 1e-6) and targets.max() <= 20e-6 * (1 + 1e-6)
    assert torch.allclose((targets[0] - targets[1]) / 18e-6, w, atol=1e-6)
    assert torch.allclose(targets.amin(0), torch.tensor(2e-6), rtol=1e-6)


def test_no_write_however_bad_leaves_a_negative_conductance():
    g = written(programming_error=1.0).conductances()
    assert g.min() == 0 and (g == 0).double().mean() < 0.5


def test_what_a_write_reports_is_what_the_cells_hold():
    chip = make(key=Key(1))
    achieved = chip.program(weights(chip), key=Key(2)).achieved["weights"]
    g = chip.conductances()
    assert torch.allclose(achieved, (g[0] - g[1]) / 18e-6, atol=1e-6)


# ---- read noise ------------------------------------------------------------


def test_column_noise_has_the_mean_and_the_variance_of_its_cells():
    shots = 4000
    chip = written(inputs=30, outputs=12, adc_bits=16, dac_bits=16, read_noise=0.05)
    x = torch.round(drive(chip, 2) * 65535) / 65535
    g = chip.conductances().double()
    mean = (x.double() @ (g[0] - g[1])) * 0.2
    variance = x.double().square() @ g.square().sum(0) * (0.2 * 0.05) ** 2
    seen = amperes(chip, x, shots=shots)
    assert ((seen.mean(0) - mean).abs() < 5 * (variance / shots).sqrt() + 1e-9).all()
    relative = seen.var(0) / variance
    assert ((relative - 1).abs() < 5 * math.sqrt(2 / shots)).all()


def test_column_noise_is_distributed_as_if_every_cell_were_redrawn():
    shots, noise = 5000, 0.05
    chip = written(inputs=20, outputs=6, adc_bits=16, dac_bits=16, read_noise=noise)
    x = torch.round(drive(chip, 1) * 65535) / 65535
    fast = amperes(chip, x, shots=shots)[:, 0]
    volts = (x * 0.2).double().expand(shots, -1)
    slow = device.per_cell_currents(volts, chip.conductances().double(), noise, Key(8).torch())
    spread = slow.std(0)
    assert ((fast.mean(0) - slow.mean(0)).abs() < 5 * spread * math.sqrt(2 / shots)).all()
    assert ((fast.var(0) / slow.var(0) - 1).abs() < 5 * math.sqrt(4 / shots)).all()
    # Six two-sample tests at 1e-6: a five-sigma event.
    assert min(ks_2samp(fast[:, c], slow[:, c]).pvalue for c in range(6)) > 1e-6


def test_noise_of_samples_shots_tiles_and_columns_is_independent():
    shots = 3000
    chip = written(inputs=40, outputs=3, array_rows=20, adc_bits=16, read_noise=0.05)
    x = drive(chip, 1).expand(2, -1)
    seen = amperes(chip, x, shots=shots).reshape(shots, 6)
    apart = torch.corrcoef(seen.T) - torch.eye(6)
    assert apart.abs().max() < 5 / math.sqrt(shots)
    lag = torch.corrcoef(torch.stack([seen[:-1, 0], seen[1:, 0]]))[0, 1]
    assert abs(lag) < 5 / math.sqrt(shots)


@EVERYDAY
@given(seed=seeds, shots=st.sampled_from([None, 1, 3]))
def test_same_state_drive_and_key_give_the_same_reading(seed, shots):
    chip, other = written(seed), written(seed)
    x = drive(chip, seed=seed)
    first = chip.forward(x, key=Key(7), shots=shots)
    again = chip.forward(x, key=Key(7), shots=shots)
    assert torch.equal(first.codes, again.codes)
    assert torch.equal(first.codes, other.forward(x, key=Key(7), shots=shots).codes)
    assert not torch.equal(first.codes, chip.forward(x, key=Key(8), shots=shots).codes)


def test_aligned_chunks_change_nothing_beyond_the_last_bit_of_a_product():
    chip = written(inputs=20, outputs=8)
    x = drive(chip, 600)
    whole = codes(chip, x)
    for cut in (64, 256, 320):
        parts = [codes(chip, part, first_sample=i * cut) for i, part in enumerate(x.split(cut))]
        apart = (torch.cat(parts) - whole).abs()
        assert apart.max() <= 1 and (apart > 0).float().mean() < 1e-3


def test_a_sample_in_mid_block_gets_its_own_noise():
    chip = written(inputs=20, outputs=8)
    x = drive(chip, 300)
    alone = codes(chip, x[77:78], first_sample=77)
    assert (alone - codes(chip, x)[77]).abs().max() <= 1


# ---- time ------------------------------------------------------------------


@EVERYDAY
@given(a=st.floats(0, 1e6), b=st.floats(0, 1e6), looking=st.booleans())
@example(a=0.1, b=0.2, looking=True)
@example(a=0.7, b=HOUR_S, looking=False)
def test_splitting_a_wait_changes_nothing(a, b, looking):
    once, twice = written(inputs=12, outputs=5), written(inputs=12, outputs=5)
    x = drive(once)
    if looking:  # a look disturbs nothing but the clock, wherever it falls
        codes(once, x)
    once.wait(a + b)
    twice.wait(a)
    if looking:
        codes(twice, x)
    twice.wait(b)
    assert torch.equal(codes(once, x), codes(twice, x))


def test_relaxation_follows_the_log_law_in_mean_and_spread():
    mean, spread = 0.002, 0.001
    options = {"relaxation_mean": mean, "relaxation_spread": spread, "programming_error": 0.0}
    chip = written(inputs=200, outputs=100, g_min_siemens=5e-6, **options)
    before = chip.conductances().double()
    for age_s in (10.0, HOUR_S, DAY_S):
        chip.wait(age_s - chip.age_s)
        change = (chip.conductances().double() - before) / 15e-6
        log_t, n = math.log(age_s), change.numel()
        tolerance = device.LOG_STEP * (mean + 5 * spread)
        assert abs(change.mean() + mean * log_t) < 5 * spread * log_t / math.sqrt(n) + tolerance
        assert abs(change.std() / (spread * log_t) - 1) < 5 / math.sqrt(2 * n) + 1e-3


def test_the_mean_never_rises_and_before_t0_nothing_moves():
    chip = written(relaxation_spread=0.0)
    start, last = chip.conductances(), chip.conductances()
    for age_s in (1e-6, 0.01, 0.5, 1.0):
        chip.wait(age_s - chip.age_s)
        assert torch.equal(chip.conductances(), start)
    for age_s in (1.5, 10.0, DAY_S):
        chip.wait(age_s - chip.age_s)
        now = chip.conductances()
        assert (now <= last).all() and now.mean() < last.mean()
        last = now


@EVERYDAY
@given(a=st.floats(0, 1e9), b=st.floats(0, 1e9))
def test_the_grid_of_ages_is_monotone_within_one_step_and_starts_at_t0(a, b):
    early, late = sorted((a, b))
    assert device.T0_S <= device.age_on_grid(early) <= device.age_on_grid(late)
    exact = math.log(max(late, device.T0_S))
    assert -1e-8 <= exact - math.log(device.age_on_grid(late)) <= device.LOG_STEP * (1 + 1e-6)


def test_each_cell_keeps_one_slope_until_it_is_written_again():
    chip = written(programming_error=0.0, relaxation_mean=0.0, relaxation_spread=0.001)
    start = chip.conductances().double()
    chip.wait(10.0)
    slope = (chip.conductances() - start) / math.log(10.0)
    chip.wait(DAY_S - 10.0)
    later = (chip.conductances() - start) / math.log(DAY_S)
    assert torch.allclose(slope, later, atol=18e-6 * 1e-5)
    chip.program(weights(chip), key=Key(2))
    assert torch.equal(chip.conductances().double(), start)
    chip.wait(10.0)
    again = ((chip.conductances() - start) / math.log(10.0)).flatten()
    n = again.numel()
    assert abs(torch.corrcoef(torch.stack([again, slope.flatten()]))[0, 1]) < 5 / math.sqrt(n)


def test_passes_take_time_and_energy():
    chip = written(inputs=10, outputs=4, read_noise=0.0, programming_error=0.0)
    clock_s, x = chip.forward(drive(chip), key=Key(1)).clock_s, torch.ones(5, 10)
    reading = chip.forward(x, key=Key(1), shots=3)
    assert reading.device_seconds == pytest.approx(15e-6)
    assert reading.clock_s == pytest.approx(clock_s + 15e-6)
    array_joules = 15 * 0.2**2 * chip.conductances().double().sum().item() * 1e-6
    assert reading.joules == pytest.approx(array_joules + 15 * 4 * 256 * 50e-15, rel=1e-5)
    cost = chip.program(weights(chip), key=Key(1))
    assert cost.cells == 80
    assert cost.joules == pytest.approx(80 * 10 * 1e-12)
    assert cost.device_seconds == pytest.approx(80 * 10 * 1e-6)


# ---- range -----------------------------------------------------------------


def test_ranging_fits_each_column_and_is_no_side_effect_of_a_pass():
    chip = written(inputs=300, outputs=20)
    x = drive(chip, 400) * 0.1
    before = chip.forward(x, key=Key(1)).ratio
    assert torch.equal(before, torch.ones(20))
    ranged = chip.set_range(x, key=Key(6))
    reading = chip.forward(x, key=Key(1))
    assert torch.equal(reading.ratio, ranged.ratio) and ranged.passes == 400
    assert reading.saturated < 0.002
    # In force: 1.1 x the largest tile current, so the codes use the range.
    volts = x.split([s.stop - s.start for s in chip.layout.tiling.rows], dim=1)
    g = chip.conductances()
    difference = (g[0] - g[1]).split([v.shape[1] for v in volts])
    tiles = torch.cat([0.2 * v @ d for v, d in zip(volts, difference, strict=True)])
    wanted = 1.1 * tiles.abs().quantile(0.9995, dim=0)
    in_force = ranged.ratio * chip.capabilities.readings[0].full_scale
    assert ((in_force / wanted - 1).abs() < 0.1).all()  # read noise and the DAC are in it


def test_ranging_again_on_the_same_drive_finds_the_same_range():
    chip = written(inputs=300, outputs=20)
    x = drive(chip, 100) * 0.1
    once, again = (chip.set_range(x, key=Key(6)).ratio for _ in range(2))
    assert torch.allclose(once, again, rtol=1e-4)
    # ... and a weaker drive needs a smaller one.
    weaker = chip.set_range(drive(chip, 100) * 0.05, key=Key(6)).ratio
    assert ((weaker / once - 0.5).abs() < 0.1).all()


def test_a_column_without_current_gets_the_finest_range():
    chip = make(key=Key(1), read_noise=0.0, programming_error=0.0)
    w = weights(chip)
    w[:, 3] = 0
    chip.program(w, key=Key(2))
    ratio = chip.set_range(drive(chip, 50), key=Key(3)).ratio
    assert ratio[3] == pytest.approx(FINEST_RANGE)
    assert torch.isfinite(ratio).all()


def test_a_broken_column_gets_the_median_range_of_the_others():
    chip = written(stuck_column_fraction=0.5, outputs=40)
    ratio = chip.set_range(drive(chip, 50), key=Key(3)).ratio
    mask = chip._stuck_columns().mask
    assert torch.equal(ratio[mask], ratio[~mask].median().expand(int(mask.sum())))


def test_saturation_is_counted_over_all_conversions():
    chip = written(inputs=256, outputs=8, adc_full_scale_a=1e-7)
    chip.program(torch.ones(256, 8), key=Key(2))
    reading = chip.forward(torch.ones(3, 256), key=Key(3))
    assert reading.saturated == 1.0
    assert (reading.codes == 2 * 127).all()


# ---- faults and dials ------------------------------------------------------


def broken_columns(chip: Crossbar, dial: str, fraction: float) -> set[int]:
    chip.adjust(dial, fraction, key=Key(1))
    stuck = chip._stuck_columns()
    return set(stuck.mask.nonzero().flatten().tolist()) if stuck else set()


@EVERYDAY
@given(seed=seeds, a=st.floats(0, 1), b=st.floats(0, 1))
def test_more_broken_columns_contain_fewer(seed, a, b):
    chip = make(key=Key(seed), inputs=4, outputs=50)
    for dial in ("stuck_column_fraction", "dead_column_fraction"):
        fewer, more = (broken_columns(chip, dial, f) for f in sorted((a, b)))
        assert fewer <= more
        assert len(broken_columns(chip, dial, 1.0)) == 50
        assert not broken_columns(chip, dial, 0.0)


def test_stuck_columns_ignore_the_drive_the_weights_and_the_range():
    chip = written(inputs=200, outputs=400, stuck_column_fraction=0.5)
    first = codes(chip, drive(chip, 20))
    mask = chip._stuck_columns().mask
    assert abs(mask.double().mean() - 0.5) < 5 * 0.5 / math.sqrt(400)
    assert (first[:, mask] == first[0, mask]).all()
    assert (first[:, ~mask] != first[0, ~mask]).any(0).all()
    per_tile = first[0, mask].double() / 2
    half = half_span(8)
    assert per_tile.min() >= -half and per_tile.max() <= half - 1
    n = len(per_tile)  # uniform over the range: sigma 2 half / sqrt(12)
    assert abs(per_tile.mean() + 0.5) < 5 * 2 * half / math.sqrt(12 * n)
    chip.program(weights(chip, 77), key=Key(5))
    chip.set_range(drive(chip, 20), key=Key(5))
    assert torch.equal(codes(chip, drive(chip, 20, seed=6))[:, mask], first[:, mask])


def test_a_dead_column_reads_zero_and_heals_when_the_dial_goes_back():
    chip = written(inputs=30, outputs=40)
    x = drive(chip)
    healthy = codes(chip, x)
    chip.adjust("dead_column_fraction", 0.4, key=Key(1))
    mask = chip._stuck_columns().mask
    dead = codes(chip, x)
    assert not dead[:, mask].any() and torch.equal(dead[:, ~mask], healthy[:, ~mask])
    chip.adjust("dead_column_fraction", 0.0, key=Key(1))
    assert torch.equal(codes(chip, x), healthy)


def test_a_fault_map_sets_each_column_to_its_own_code():
    chip = written(inputs=300, outputs=4)
    x = drive(chip)
    healthy, low = codes(chip, x), chip.capabilities.dial("stuck_column_code").low
    chip.adjust("stuck_column_code", torch.tensor([low, 5.0, -128.0, low]), key=Key(1))
    seen = codes(chip, x)
    assert (seen[:, 1] == 3 * 5).all() and (seen[:, 2] == 3 * -128).all()
    assert torch.equal(seen[:, [0, 3]], healthy[:, [0, 3]])


def test_stuck_cells_are_nested_uniform_over_the_window_and_deaf_to_writes():
    chip = written(inputs=100, outputs=100, programming_error=0.0)
    healthy, masks = chip.conductances(), []
    for fraction in (0.05, 0.2):
        chip.adjust("stuck_cell_fraction", fraction, key=Key(1))
        masks.append(chip.conductances() != healthy)
        n = healthy.numel()
        sigma = math.sqrt(fraction * (1 - fraction) / n)
        # A stuck level cannot equal a target but by one float in millions.
        assert abs(masks[-1].double().mean() - fraction) < 5 * sigma + 1e-4
    assert (masks[1] | ~masks[0]).all()
    stuck = chip.conductances()[masks[1]]
    place = (stuck.double() - 2e-6) / 18e-6
    assert kstest(place.numpy(), "uniform").pvalue > 1e-6
    chip.program(weights(chip, 99), key=Key(2))
    chip.wait(DAY_S)
    assert torch.equal(chip.conductances()[masks[1]], stuck)


scalar_dials = st.sampled_from([d for d in make(key=Key(0)).capabilities.dials if not d.shape])
actions = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.floats(0, 1e7)),
        st.tuples(st.just("program"), seeds),
        st.tuples(st.just("range"), seeds),
        st.tuples(st.just("read"), seeds),
        st.tuples(scalar_dials, st.floats(0, 1)),
    ),
    max_size=8,
)


def act(chip: Crossbar, action: tuple) -> None:
    what, value = action
    if what == "wait":
        chip.wait(value)
    elif what == "program":
        chip.program(weights(chip, value), key=Key(value))
    elif what == "range":
        chip.set_range(drive(chip, seed=value), key=Key(value))
    elif what == "read":
        chip.forward(drive(chip, seed=value), key=Key(value))
    else:
        chip.adjust(what.name, what.low + value * (what.high - what.low), key=Key(1))


@EVERYDAY
@given(seed=seeds, before=actions, after=actions)
def test_whatever_happens_conductances_are_physical_and_a_snapshot_returns(seed, before, after):
    chip = make(key=Key(seed), inputs=10, outputs=6, array_rows=4)
    for action in before:
        act(chip, action)
    saved, x = chip.snapshot(), drive(chip)
    reading = chip.forward(x, key=Key(3))
    for action in after:
        act(chip, action)
        g = chip.conductances()
        assert torch.isfinite(g).all() and (g >= 0).all()
        Fence(chip, name="c").forward(x, key=Key(1))  # inside its own port
    twin = make(key=Key(seed), inputs=10, outputs=6, array_rows=4)
    for other in (chip, twin):
        other.restore(saved)
        again = other.forward(x, key=Key(3))
        assert torch.equal(again.codes, reading.codes)
        assert (again.clock_s, again.joules) == (reading.clock_s, reading.joules)
    for action in after:
        act(chip, action)
        act(twin, action)
    assert same_state(chip, twin)


def test_a_snapshot_is_never_shared_with_the_chip():
    chip = written()
    saved = chip.snapshot()
    kept = {n: a.clone() for n, a in saved.arrays.items()}
    chip.restore(saved)
    chip.program(weights(chip, 8), key=Key(9))
    chip.set_range(drive(chip), key=Key(1))
    for array in chip.snapshot().arrays.values():
        array.zero_()
    chip.forward(drive(chip), key=Key(2)).ratio.zero_()
    assert all(torch.equal(saved.arrays[n], kept[n]) for n in kept)
    assert chip.forward(drive(chip), key=Key(2)).ratio.min() > 0


def test_a_chip_keeps_nothing_of_the_snapshot_it_was_restored_from():
    chip = written()
    lent = chip.snapshot()
    chip.restore(lent)
    kept = chip.snapshot()
    for array in lent.arrays.values():
        array += 1
    assert all(torch.equal(a, kept.arrays[n]) for n, a in chip.snapshot().arrays.items())


# ---- what is refused -------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adc_bit": 8}, "Did you mean 'adc_bits'"),
        ({"g_min_siemens": 3e-5}, "must be below g_max_siemens"),
        ({"read_noise": -0.1}, "greater than or equal to 0"),
        ({"read_voltage_v": float("nan")}, "finite"),
        ({"inputs": 0}, "greater than or equal to 1"),
        ({"compute_device": "abacus"}, "no torch device"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        make(key=Key(1), **options)


@pytest.mark.parametrize(
    ("dial", "value"),
    [
        ("read_noise", 1.5),
        ("read_noise", float("nan")),
        ("stuck_column_fraction", -0.1),
        ("read_noise", torch.zeros(3)),
        ("stuck_column_code", torch.zeros(3)),
        ("stuck_column_code", torch.full((32,), 0.5)),
        ("stuck_column_code", torch.full((32,), 128.0)),
    ],
)
def test_a_dial_refuses_values_out_of_its_range_and_stays(dial, value):
    chip = written()
    before = chip.snapshot()
    with pytest.raises(DialError, match=dial):
        chip.adjust(dial, value, key=Key(1))
    assert chip.snapshot().values == before.values


def test_misuse_is_a_typed_error():
    chip, other = written(), written(2)
    with pytest.raises(UnknownName, match="Did you mean 'read_noise'"):
        chip.adjust("read_noize", 0.1, key=Key(1))
    with pytest.raises(DialError, match=">= 0 s"):
        chip.wait(-1.0)
    with pytest.raises(DriveError, match=r"expected batch x \(64,\)"):
        chip.forward(torch.zeros(64), key=Key(1))
    with pytest.raises(SettingError, match="Transpose"):
        chip.program(torch.zeros(32, 64), key=Key(1))
    with pytest.raises(SnapshotError, match="same options and key"):
        chip.restore(other.snapshot())


def test_memory_does_not_grow_with_cells_times_samples():
    """No tensor of a pass is as large as rows x columns x batch, or near it."""
    chip = written(inputs=256, outputs=128)
    largest = 0
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        chip.forward(drive(chip, 2000), key=Key(1))
    for event in profile.function_events:
        largest = max(largest, event.cpu_memory_usage)
    cells_times_batch = 256 * 128 * 2000 * 4
    assert 0 < largest < cells_times_batch / 50
