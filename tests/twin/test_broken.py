"""Faults laid over a device from outside act as faults inside a simulated one do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from substrates.ideal import Ideal, IdealConfig
from substrates.memristor.crossbar import Crossbar, make
from substrates.memristor.faultmap import FaultMap, install
from substrates.memristor.presets import IDEAL
from tests.planted import Healthy
from tests.resistor import Resistor
from twin.backend import Backend, MinimalBackend, Port, Reading, Snapshot
from twin.broken import Broken
from twin.errors import (
    ConfigError,
    DialError,
    DriveError,
    SettingError,
    SnapshotError,
    UnknownName,
    Unsupported,
)
from twin.fence import Fence
from twin.key import Key
from twin.registry import open_backend
from validation.conformance import failed, run_checks

EVERYDAY = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
INPUTS, OUTPUTS = 9, 7
MAPS = ("dead_row", "column_gain", "dead_column", "stuck_column_code", "stuck_cell_level")
# Everything whose law is the same from outside; a gain acts after the converter here.
SAME = ("stuck_low", "stuck_high", "stuck_level", "dead_rows", "dead_columns")
CONVERTERS = ("dead_converters", "stuck_converters")
mixes = st.fixed_dictionaries(dict.fromkeys((*SAME, *CONVERTERS), st.floats(0, 0.3)))
EVERY_SORT = dict.fromkeys((*SAME, *CONVERTERS), 0.3)


def uniform(seed: int, *shape: int, low: float = 0.0) -> torch.Tensor:
    return torch.rand(shape, generator=Key(seed).torch()) * (1 - low) + low


class Real:
    """A healthy chip as a laboratory has it: no dial for any fault."""

    def __init__(self, backend: Any) -> None:
        own = backend.capabilities
        self._backend = backend
        self.capabilities = replace(own, dials=tuple(d for d in own.dials if not d.shape))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def crossbar(inputs: int = INPUTS, outputs: int = OUTPUTS, **options: object) -> Crossbar:
    """A chip without imperfections whose converters never saturate."""
    rows = min(inputs, int(options.get("array_rows", inputs)))
    full_scale_a = 0.2 * 18e-6 * rows * 1.01
    sizes = {"inputs": inputs, "outputs": outputs, "adc_full_scale_a": full_scale_a}
    return make(key=Key(1), **{**IDEAL, **sizes, **options})


def broken(backend: MinimalBackend | None = None) -> Broken:
    return Broken(Real(crossbar()) if backend is None else backend)


def read(device: Backend, x: torch.Tensor, weights: torch.Tensor | None = None) -> Reading:
    if weights is not None:
        device.program(weights, key=Key(2))
    return device.forward(x, key=Key(3))


def ramp(inputs: int = INPUTS, outputs: int = OUTPUTS) -> Ideal:
    """Floats instead of codes; every weight 1, so that each output is the drive's sum."""
    device = Ideal(IdealConfig(inputs=inputs, outputs=outputs))
    device.program(torch.ones(inputs, outputs), key=Key(0))
    return device


def turned(device: Broken, dial: str, at: int, value: float) -> None:
    """Turn one element of a map, the others healthy."""
    declared = device.capabilities.dial(dial)
    filled = torch.full(declared.shape, float(declared.ideal))
    filled.view(-1)[at] = value
    device.adjust(dial, filled, key=Key(0))


# ---- one map, two chips ----------------------------------------------------


@EVERYDAY
@given(seed=seeds, inputs=st.integers(1, 12), outputs=st.integers(1, 9), mix=mixes)
@example(seed=3, inputs=12, outputs=9, mix=EVERY_SORT)
def test_a_map_makes_a_simulated_and_a_real_chip_read_the_same(seed, inputs, outputs, mix):
    faults = FaultMap.drawn(Key(seed), inputs, outputs, adc_bits=16, **mix)
    simulated = crossbar(inputs, outputs)
    real = Broken(Real(crossbar(inputs, outputs)))
    x, w = uniform(seed, 6, inputs), uniform(seed + 1, inputs, outputs, low=-1.0)
    for chip in (simulated, real):
        install(chip, faults, Key(4))
    a, b = (read(chip, x, w).codes for chip in (simulated, real))
    assert (a - b).abs().max() <= 1


@EVERYDAY
@given(seed=seeds, bits=st.sampled_from([4, 8, 16]))
def test_a_mis_ranged_column_reads_the_same_up_to_the_enlarged_steps(seed, bits):
    faults = FaultMap.drawn(Key(seed), INPUTS, OUTPUTS, adc_bits=bits, misranged=1.0)
    chips = crossbar(adc_bits=bits), Broken(Real(crossbar(adc_bits=bits)))
    x, w = uniform(seed, 6, INPUTS), uniform(seed + 1, INPUTS, OUTPUTS, low=-1.0)
    for chip in chips:
        install(chip, faults, Key(4))
    a, b = (read(chip, x, w).codes for chip in chips)
    assert ((a - b).abs() <= 1.001 + faults.column_gain / 2).all()
    healthy = read(crossbar(adc_bits=bits), x, w).codes
    assert not torch.equal(b, healthy)


def test_with_several_converters_a_column_sticks_at_the_code_of_all_of_them():
    faults = FaultMap.drawn(
        Key(8), INPUTS, OUTPUTS, adc_bits=8, stuck_converters=0.5, dead_rows=0.2
    )
    tiled = {"array_rows": 3, "adc_bits": 8}
    simulated, real = crossbar(**tiled), Broken(Real(crossbar(**tiled)), code_weight=3)
    dial = simulated.capabilities.dial("stuck_column_code")
    own = real.capabilities.dial("stuck_column_code")
    assert (own.low, own.high, own.ideal) == (dial.low, dial.high, dial.ideal)
    x, w = uniform(5, 6, INPUTS), uniform(6, INPUTS, OUTPUTS, low=-1.0)
    for chip in (simulated, real):
        install(chip, faults, Key(4))
    a, b = (read(chip, x, w).codes for chip in (simulated, real))
    stuck = faults.faulty()["stuck_converters"]
    assert stuck.any() and torch.equal(a[:, stuck], b[:, stuck])
    # Three converters, each rounding for itself.
    assert (a - b).abs().max() <= 3


def test_a_map_goes_on_through_a_fence_and_a_healthy_one_takes_it_off():
    device = broken()
    fence = Fence(device, name="chip")
    x, w = uniform(1, 4, INPUTS), uniform(2, INPUTS, OUTPUTS, low=-1.0)
    fence.program(w, key=Key(2))
    before = fence.forward(x, key=Key(3)).values
    faults = FaultMap.drawn(Key(3), INPUTS, OUTPUTS, adc_bits=16, **EVERY_SORT)
    for worn in (faults, FaultMap.none(INPUTS, OUTPUTS, adc_bits=16)):
        install(fence, worn, Key(4))
        fence.program(w, key=Key(2))
        same = torch.equal(fence.forward(x, key=Key(3)).values, before)
        assert same == (worn != faults)


def test_a_map_of_another_shape_is_refused_and_the_state_is_as_before():
    device = broken()
    install(device, FaultMap.drawn(Key(3), INPUTS, OUTPUTS, dead_rows=0.5), Key(4))
    before = device.snapshot()
    larger = FaultMap.drawn(Key(3), INPUTS + 1, OUTPUTS, **EVERY_SORT)
    with pytest.raises(DialError, match="shape"):
        install(device, larger, Key(4))
    with pytest.raises(DialError, match=r"'dead_row'.*shape \(9,\), got \(10,\)"):
        device.adjust("dead_row", torch.zeros(INPUTS + 1), key=Key(0))
    assert_same(device.snapshot(), before)


def test_cells_that_never_verify_cannot_be_emulated_and_are_refused():
    device = broken()
    with pytest.raises(Unsupported, match="never_verifies"):
        install(device, FaultMap.drawn(Key(3), INPUTS, OUTPUTS, never_verifies=0.5), Key(4))


# ---- the contract ------------------------------------------------------------


def worn(backend: MinimalBackend) -> Broken:
    """With a few faults of every sort on it."""
    device = Broken(backend)
    for dial in device.capabilities.dials:
        if dial.name in MAPS:
            turned(device, dial.name, 0, dial.severe)
    return device


SOUND: dict[str, Callable[[], MinimalBackend]] = {
    "ideal": lambda: open_backend("broken+ideal", key=Key(5)),
    "ideal-noisy": lambda: Broken(Ideal(IdealConfig(noise_v=0.03))),
    "memristor": lambda: open_backend("broken+memristor", key=Key(5), inputs=12, outputs=6),
    "real": lambda: broken(Real(make(key=Key(5), inputs=12, outputs=6))),
    "worn": lambda: worn(Real(make(key=Key(5), inputs=12, outputs=6))),
    "worn-ideal": lambda: worn(Ideal(IdealConfig(noise_v=0.03))),
    "twice": lambda: Broken(worn(Real(make(key=Key(5), inputs=12, outputs=6)))),
    "healthy": lambda: Broken(Healthy(Key(3))),
    "two-ports": lambda: Broken(Resistor()),
}


@pytest.mark.parametrize("backend", SOUND)
def test_a_broken_backend_keeps_the_whole_contract(backend: str) -> None:
    assert {o.check: o.reason for o in failed(run_checks(SOUND[backend]))} == {}


def test_without_faults_nothing_changes_but_the_name() -> None:
    plain, device = crossbar(), broken()
    x, w = uniform(1, 5, INPUTS), uniform(2, INPUTS, OUTPUTS, low=-1.0)
    a, b = read(plain, x, w), read(device, x, w)
    assert torch.equal(a.codes, b.codes) and a.clock_s == b.clock_s
    assert device.capabilities.device_id == f"broken+{plain.capabilities.device_id}"
    assert {d.name for d in device.capabilities.dials} >= set(MAPS)


def test_a_backend_with_fault_dials_keeps_its_own() -> None:
    chip = crossbar()
    device = Broken(chip)
    assert device.capabilities.dials == chip.capabilities.dials
    turned(device, "dead_row", 2, 1.0)
    assert torch.equal(chip.snapshot().arrays["map dead_row"], torch.eye(INPUTS)[2])


def test_dials_of_the_device_are_passed_on() -> None:
    chip = crossbar()
    device = broken(Real(chip))
    device.adjust("read_noise", 0.1, key=Key(0))
    assert chip.snapshot().values["read_noise"] == pytest.approx(0.1)
    device.wait(7.0)
    assert device.forward(torch.zeros(1, INPUTS), key=Key(0)).clock_s >= 7.0


def test_a_column_dial_of_the_device_leaves_all_columns_to_it() -> None:
    chip = crossbar()
    own = tuple(d for d in chip.capabilities.dials if d.name == "stuck_column_code")
    chip.capabilities = replace(chip.capabilities, dials=own)
    names = [d.name for d in Broken(chip).capabilities.dials]
    assert names == ["stuck_column_code", "dead_row", "stuck_cell_level"]


def test_an_unknown_dial_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"broken\+memristor.*Did you mean 'dead_row'"):
        broken().adjust("ded_row", 1.0, key=Key(0))


@pytest.mark.parametrize(
    ("dial", "value"),
    [
        ("dead_row", 0.5),
        ("dead_column", float("nan")),
        ("stuck_column_code", 0.5),
        ("stuck_column_code", 2.0**15),
        ("column_gain", -1.0),
        ("stuck_cell_level", 1.5),
    ],
)
def test_a_value_that_no_fault_has_is_refused_and_the_state_is_as_before(dial, value) -> None:
    device = broken()
    before = device.snapshot()
    with pytest.raises(DialError, match=dial):
        turned(device, dial, 1, value)
    assert_same(device.snapshot(), before)


def test_every_answer_tells_the_version_of_device_and_maps_together() -> None:
    device, x = broken(), torch.zeros(1, INPUTS)
    told = [device.program(torch.zeros(INPUTS, OUTPUTS), key=Key(1)).state_version]
    told.append(device.adjust("dead_row", torch.ones(INPUTS), key=Key(0)))
    told.append(read(device, x).state_version)
    told.append(device.adjust("read_noise", 0.0, key=Key(0)))
    told.append(device.set_range(uniform(1, 5, INPUTS), key=Key(1)).state_version)
    told.append(read(device, x).state_version)
    assert told == [1, 2, 2, 3, 4, 4]


# ---- snapshots -----------------------------------------------------------------


def assert_same(a: Snapshot, b: Snapshot) -> None:
    assert a.device_id == b.device_id and dict(a.values) == dict(b.values)
    assert set(a.arrays) == set(b.arrays)
    assert all(torch.equal(a.arrays[n], b.arrays[n]) for n in a.arrays)


def test_a_snapshot_brings_the_maps_back() -> None:
    device = broken()
    x, w = uniform(1, 5, INPUTS), uniform(2, INPUTS, OUTPUTS, low=-1.0)
    faults = FaultMap.drawn(Key(3), INPUTS, OUTPUTS, adc_bits=16, misranged=0.3, **EVERY_SORT)
    install(device, faults, Key(4))
    before = read(device, x, w)
    kept = device.snapshot()
    install(device, FaultMap.none(INPUTS, OUTPUTS, adc_bits=16), Key(4))
    assert not torch.equal(read(device, x, w).codes, before.codes)
    device.restore(kept)
    assert_same(device.snapshot(), kept)
    again = read(device, x)
    assert torch.equal(again.codes, before.codes)
    assert again.state_version == before.state_version
    # Written anew, the cells are still stuck.
    assert torch.equal(read(device, x, w).codes, before.codes)


def test_only_a_whole_snapshot_of_the_same_wrapped_device_is_taken() -> None:
    device, chip = broken(), crossbar()
    kept = device.snapshot()
    lacking = {n: a for n, a in kept.arrays.items() if n != "fault dead_row"}
    larger = {**kept.arrays, "fault dead_row": torch.zeros(INPUTS + 1)}
    own = {n: a for n, a in kept.arrays.items() if n != "ratio"}
    turned(device, "dead_row", 1, 1.0)
    before = device.snapshot()
    for wrong, words in (
        (chip.snapshot(), "the snapshot is of"),
        (replace(kept, arrays=lacking), "fault dead_row"),
        (replace(kept, arrays=larger), "fault dead_row"),
        (replace(kept, arrays=own), "ratio"),
        (replace(kept, values={}), "fault version"),
    ):
        with pytest.raises(SnapshotError, match=words):
            device.restore(wrong)
        assert_same(device.snapshot(), before)
    with pytest.raises(SnapshotError, match="the snapshot is of"):
        chip.restore(kept)


def test_a_device_that_cannot_be_saved_cannot_be_saved_broken() -> None:
    with pytest.raises(Unsupported, match="restorable"):
        Broken(ramp()).snapshot()


# ---- what each fault does --------------------------------------------------------


def test_on_a_port_of_floats_nothing_is_rounded() -> None:
    device, x = Broken(ramp(4, 3)), torch.full((2, 4), 0.3)
    turned(device, "column_gain", 0, 0.5)
    turned(device, "stuck_column_code", 1, -1.25)
    expected = torch.tensor([0.6, -1.25, 1.2]).expand(2, -1)
    torch.testing.assert_close(read(device, x).codes, expected)


def test_codes_that_the_gain_clips_are_counted_as_saturated_once() -> None:
    # Each output is 2 of at most 4; a gain of 8 reaches the end.
    device, x = Broken(ramp(4, 5)), torch.full((3, 4), 0.5)
    device.adjust("column_gain", torch.tensor([8.0, 1.0, 8.0, 1.5, 2.0]), key=Key(0))
    turned(device, "dead_column", 2, 1.0)
    reading = read(device, x)
    assert reading.codes.tolist() == [[4.0, 2.0, 0.0, 3.0, 4.0]] * 3
    assert reading.saturated == pytest.approx(2 / 5)
    shots = device.forward(x, key=Key(3), shots=2)
    assert shots.codes.shape == (2, 3, 5) and shots.saturated == pytest.approx(2 / 5)


def test_what_the_device_saturated_itself_is_not_counted_again() -> None:
    chip, x = (
        make(key=Key(1), **IDEAL, inputs=2, outputs=4, adc_full_scale_a=2e-6),
        torch.ones(3, 2),
    )
    device = Broken(Real(chip))
    device.adjust("column_gain", torch.full((4,), 2.0), key=Key(0))
    weights = torch.tensor([[1.0, 0.4, 0.01, -1.0], [1.0, 0.0, 0.0, -1.0]])
    # The second column is at 0.72 of full scale: the gain alone clips it.
    assert read(device, x, weights).saturated == pytest.approx(3 / 4)
    assert read(chip, x).saturated == pytest.approx(2 / 4)


def test_ranging_sees_dead_rows_as_a_simulated_chip_does() -> None:
    faults = FaultMap.drawn(Key(3), INPUTS, OUTPUTS, adc_bits=16, dead_rows=0.6)
    x, w = uniform(1, 20, INPUTS), uniform(2, INPUTS, OUTPUTS, low=-1.0)
    ratios = []
    for chip in (crossbar(), broken()):
        install(chip, faults, Key(4))
        chip.program(w, key=Key(2))
        ratios.append(chip.set_range(x, key=Key(5)).ratio)
    torch.testing.assert_close(*ratios, rtol=1e-4, atol=0)
    assert faults.dead_row.any() and not faults.dead_row.all()


@EVERYDAY
@given(noise_v=st.floats(0, 1), weight=st.integers(1, 9))
@example(noise_v=0.02, weight=1)
def test_a_map_fits_a_port_of_any_range(noise_v: float, weight: int) -> None:
    device = Broken(Ideal(IdealConfig(inputs=3, outputs=2, noise_v=noise_v)), code_weight=weight)
    install(device, FaultMap.drawn(Key(1), 3, 2, adc_bits=2, dead_converters=0.5), Key(0))
    for dial in device.capabilities.dials:
        for value in (dial.low, dial.ideal, dial.high, dial.severe):
            given = torch.full(dial.shape, value)
            assert given.dtype == torch.float32
            device.adjust(dial.name, given, key=Key(0))
    install(device, FaultMap.none(3, 2, adc_bits=2), Key(0))
    device.adjust("dead_column", torch.tensor([0.0, 1.0]), key=Key(0))
    quiet = read(device, torch.zeros(1, 3)).codes
    assert quiet.abs().max() <= 5 * noise_v  # of two readings, one of them dead
    turned(device, "stuck_column_code", 0, device.capabilities.dial("stuck_column_code").high)
    port = device.capabilities.readings[0]
    assert read(device, torch.zeros(1, 3)).codes[0, 0] == pytest.approx(port.high)


def test_no_stuck_code_leaves_the_port() -> None:
    device = Broken(Real(crossbar(adc_bits=8)), code_weight=3)
    turned(device, "stuck_column_code", 0, -43.0)
    assert read(device, torch.zeros(1, INPUTS)).codes[0].tolist() == [-128, *[0] * (OUTPUTS - 1)]


def test_a_dead_column_goes_before_a_gain_and_a_stuck_code_before_both() -> None:
    device = Broken(ramp(4, 3))
    for dial in ("dead_column", "column_gain"):
        device.adjust(dial, torch.tensor([1.0, 1.0, 1.0]), key=Key(0))
    turned(device, "stuck_column_code", 2, 1.5)
    assert read(device, torch.ones(1, 4)).codes.tolist() == [[0.0, 0.0, 1.5]]


def test_a_cell_sticks_with_the_next_write() -> None:
    device, x = Broken(ramp(2, 1)), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    device.adjust("stuck_cell_level", torch.tensor([[[1.0], [0.25]], [[-1.0], [-1.0]]]), key=Key(0))
    assert read(device, x).codes.flatten().tolist() == [1.0, 1.0]
    # G+ stays where it is, G- follows the weight.
    written = read(device, x, torch.tensor([[-0.5], [-1.0]])).codes.flatten()
    torch.testing.assert_close(written, torch.tensor([0.5, -0.75]))


def test_a_setting_of_positive_weights_has_no_pairs_to_stick() -> None:
    device = ramp(2, 1)
    port = Port(name="weights", shape=(2, 1))
    device.capabilities = replace(device.capabilities, settings=(port,))
    assert "stuck_cell_level" not in {d.name for d in Broken(device).capabilities.dials}


def test_a_port_without_zero_has_no_dead_rows_or_columns() -> None:
    device = ramp(2, 1)
    ports = {kind: (Port(name=kind, shape=(2,), low=0.5),) for kind in ("drives", "readings")}
    device.capabilities = replace(device.capabilities, **ports)
    assert [d.name for d in Broken(device).capabilities.dials] == ["stuck_cell_level"]


@pytest.mark.parametrize("shape", [(3, 1), (3, 5), (4,)])
def test_wrong_shapes_are_refused_and_never_broadcast(shape: tuple[int, ...]) -> None:
    device = Broken(ramp(4, 3))
    turned(device, "dead_row", 0, 1.0)
    turned(device, "stuck_cell_level", 0, 1.0)
    with pytest.raises(DriveError, match=r"broken\+ideal-4x3.*shape"):
        device.forward(torch.zeros(shape), key=Key(0))
    with pytest.raises(SettingError, match=r"broken\+ideal-4x3.*shape"):
        device.program(torch.zeros(shape), key=Key(0))


def test_codes_of_a_wrong_shape_are_left_for_the_fence_to_refuse() -> None:
    class Squeezed(Ideal):
        def forward(self, drive: Any, **more: Any) -> Reading:
            reading = super().forward(drive, **more)
            return replace(reading, codes=reading.codes[:, :1])

    device = Broken(Squeezed(IdealConfig(inputs=4, outputs=3)))
    turned(device, "dead_column", 1, 1.0)
    assert read(device, torch.zeros(2, 4)).codes.shape == (2, 1)


def test_codes_out_of_their_port_are_not_hidden_in_healthy_columns() -> None:
    class Loud(Ideal):
        def forward(self, drive: Any, **more: Any) -> Reading:
            reading = super().forward(drive, **more)
            return replace(reading, codes=reading.codes + 99)

    device = Broken(Loud(IdealConfig(inputs=4, outputs=3)))
    turned(device, "column_gain", 1, 0.5)
    assert read(device, torch.zeros(1, 4)).codes.tolist() == [[99.0, 4.0, 99.0]]


# ---- by name -----------------------------------------------------------------------


def test_a_prefix_lays_faults_over_any_backend() -> None:
    device = open_backend("broken+ideal", key=Key(0), inputs=3, outputs=2, code_weight=2)
    assert isinstance(device, Broken) and device.capabilities.device_id == "broken+ideal-3x2"
    assert device.capabilities.dial("stuck_column_code").high == 1.5
    with pytest.raises(UnknownName, match="Did you mean 'ideal'"):
        open_backend("broken+ideel", key=Key(0))
    both = open_backend("faulty+broken+ideal", key=Key(0), fault_rate=0.0, inputs=3)
    assert both.capabilities.device_id == "broken+ideal-3x8"


@pytest.mark.parametrize("weight", [0, 1.5, True, "3"])
def test_a_code_weight_is_a_whole_number(weight: object) -> None:
    with pytest.raises(ConfigError, match="code_weight"):
        open_backend("broken+ideal", key=Key(0), code_weight=weight)
