"""Twins predict what devices read, are wrong by as much as is said, and count their probes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pib.network import Network
from tests.validation.baselines.tiny import CHIP, IDEAL, PIXELS, RIG, STEADY, config
from twin.errors import ConfigError, Unsupported
from twin.fence import Fence
from twin.key import Key
from twin.ledger import Ledger
from twin.registry import open_backend
from validation.baselines.backward import setting_of
from validation.baselines.budget import CappedLedger
from validation.baselines.chain import ThroughTwin
from validation.baselines.method import Task
from validation.baselines.twins import MatrixTwin, twins_for
from validation.baselines.twins_fitted import HELD_OUT, fit_matrix
from validation.baselines.twins_optics import OpticalTwin, optical_twin
from validation.config import RunConfig
from validation.experiment import build_network

seeds = st.integers(0, 2**32)
BIG = RIG.replace("pixels = 12", 'pixels = 40, preset = "ideal"')


def network_of(table: RunConfig, seed: int = 3, ledger: Ledger | None = None) -> Network:
    return build_network(table, PIXELS, key=Key(seed), ledger=ledger)


def optical(table: RunConfig, index: int = 0, seed: int = 3) -> OpticalTwin:
    found = twins_for(table, network_of(table, seed), Key(seed))(index)
    assert isinstance(found, OpticalTwin)
    return found


def drives(n: int, inputs: int, seed: int = 0) -> torch.Tensor:
    return torch.rand((n, inputs), generator=Key(seed).child("drive").torch())


# ---- known -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"unmodulated_fraction": 0.2},
        {"modulator": {"kind": "phase", "turn_grey": 200.0}},
        {"modulator": {"kind": "dmd", "binarise": "area", "pixels_per_side": 4}},
        {"modulator": {"kind": "dmd"}},
        {"modulator": {"kind": "lee", "pixels_per_side": 8}},
        {"medium": {"kind": "gaussian", "patterns": 2}},
        {"medium": {"kind": "grains", "pixels_per_grain": 2.0}},
        {"full_scale_over_mean": 1.0},
        {"sensor": {"offset_dn": 100.0, "prnu": 0.05}, "dark_electrons_per_s": 1000.0},
    ],
    ids=str,
)
def test_a_known_twin_predicts_a_noiseless_rig_to_a_converter_step(options: dict[str, Any]) -> None:
    options = {"preset": "ideal", "pixels": 24} | options
    key = Key(5).child("device", 1)
    fence = Fence(open_backend("optics", key=key, inputs=7, **options), name="rig")
    twin = optical_twin(options, 7, key)
    shown = fence.drive_port.on_grid(drives(40, 7))
    read = fence.forward(shown, key=Key(1)).values
    assert float((twin.predict(shown) - read).abs().max()) <= fence.reading_port.step
    assert twin.device_id == fence.capabilities.device_id
    made = Fence(twin.backend(), name="twin").forward(shown, key=Key(1)).values
    assert float((made - read).abs().max()) <= fence.reading_port.step


def test_a_twin_of_another_device_is_refused() -> None:
    table = config(RIG.format(n=4))
    with pytest.raises(ConfigError, match="own configuration and key"):
        twins_for(table, network_of(table), Key(4))(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("modulator = {{ settling_s = 0.01 }}", "settles"),
        ('modulator = {{ kind = "dmd", threshold = 0.3 }}', "threshold"),
    ],
)
def test_what_has_no_twin_says_so(options: str, message: str) -> None:
    table = config(RIG.replace("pixels = 12", f"pixels = 12, {options}").format(n=4))
    with pytest.raises(Unsupported, match=message):
        twins_for(table, network_of(table), Key(3))(0)


def test_a_twin_is_made_once_and_when_asked_for() -> None:
    table = config(RIG.format(n=4), RIG.format(n=4))
    twins = twins_for(table, network_of(table), Key(3))
    assert twins(1) is twins(1)


# ---- wrong ---------------------------------------------------------------------------


@settings(max_examples=4, deadline=None)
@given(seed=seeds, small=st.floats(0.05, 0.5), large=st.floats(0.5, 5))
def test_errors_of_different_sizes_are_the_same_error_more_or_less_of_it(
    seed: int, small: float, large: float
) -> None:
    exact = optical(config(BIG.format(n=4)), seed=seed).matrix
    found = []
    for error in (small, large):
        wrong = optical(config(BIG.format(n=4), twin_error=error), seed=seed).matrix
        found.append((wrong * math.sqrt(1 + error**2) - exact) / error)
    assert torch.allclose(found[0], found[1], atol=1e-5)


def overlap(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.conj() * other).sum().abs() / (one.norm() * other.norm()))


@pytest.mark.parametrize("error", [0.2, 0.5, 1.0])
def test_a_twin_is_wrong_by_as_much_as_is_said(error: float) -> None:
    """1,800 complex entries; an overlap of N of them has a standard error below N^-1/2."""
    table = config(BIG.replace("pixels = 40", "pixels = 200").format(n=4))
    exact = optical(table).matrix
    wrong = optical(config(BIG.replace("40", "200").format(n=4), twin_error=error)).matrix
    bound = 5 * exact.numel() ** -0.5
    assert overlap(exact, wrong) == pytest.approx(1 / math.sqrt(1 + error**2), abs=bound)
    assert float(wrong.norm() / exact.norm()) == pytest.approx(1, abs=bound)


def test_an_unknown_twin_has_the_size_of_the_device_and_nothing_else_of_it() -> None:
    exact = optical(config(BIG.format(n=4))).matrix
    other = optical(config(BIG.format(n=4), twin='"unknown"')).matrix
    bound = 5 * exact.numel() ** -0.5
    assert overlap(exact, other) < bound
    assert float(other.norm() / exact.norm()) == pytest.approx(1, abs=bound)


def test_units_and_seeds_have_errors_of_their_own() -> None:
    table = config(BIG.format(n=9), BIG.format(n=9), skip=False, twin_error=5.0)
    found = [optical(table, index, seed).matrix for index, seed in ((0, 3), (1, 3), (0, 4))]
    for one, other in ((0, 1), (0, 2)):
        assert overlap(found[one], found[other]) < 5 * found[0].numel() ** -0.5


# ---- fitted -----------------------------------------------------------------------


def test_a_fitted_twin_is_the_device_and_its_probes_are_counted() -> None:
    table = config(BIG.format(n=4), twin='"fitted"', twin_probes=600)
    ledger = Ledger()
    twins = twins_for(table, network_of(table, ledger=ledger), Key(3))
    assert ledger.total().passes == 0
    fitted, again = twins(0), twins(0)
    assert fitted is again and isinstance(fitted, OpticalTwin)
    assert ledger.total(phase="twin").passes == ledger.total().passes == 600 + HELD_OUT
    assert fitted.notes["twin_correlation"] > 0.97
    seen = drives(50, PIXELS, 7)
    exact = optical(config(BIG.format(n=4))).predict(seen)
    off = float((fitted.predict(seen) - exact).norm() / (exact - exact.mean(0)).norm())
    assert off < 0.25


def test_few_probes_make_a_worse_twin_and_it_says_so() -> None:
    found = [
        optical(config(BIG.format(n=4), twin='"fitted"', twin_probes=n)).notes["twin_correlation"]
        for n in (12, 600)
    ]
    assert found[0] < found[1] - 0.1


def test_rows_are_found_up_to_a_phase() -> None:
    light = torch.polar(torch.ones(500, 8), math.pi * drives(500, 8))
    rows = torch.randn(20, 8, dtype=torch.complex64, generator=Key(1).torch())
    found = fit_matrix(light, (light @ rows.t()).abs().square(), Key(2))
    same = (found.conj() * rows).sum(1).abs() / (found.norm(dim=1) * rows.norm(dim=1))
    assert float(same.median()) > 0.9999


def test_probes_that_the_budget_has_not_are_refused_before_the_first() -> None:
    table = config(RIG.format(n=4), twin='"fitted"', twin_probes=600)
    ledger = CappedLedger(799)
    twins = twins_for(table, network_of(table, ledger=ledger), Key(3))
    with pytest.raises(ConfigError, match="800 passes, but only 799"):
        twins(0)
    assert ledger.total().passes == 0


# ---- written matrices -----------------------------------------------------------------


@pytest.mark.parametrize(("unit", "close"), [(IDEAL, 1e-5), (CHIP, 0.25)])
def test_a_matrix_twin_predicts_what_a_written_device_reads(unit: str, close: float) -> None:
    table = config(unit.format(n=6))
    network = network_of(table)
    (only,) = network.units
    only.deploy(Key(1))
    only.calibrate(drives(50, PIXELS), key=Key(2))
    record = only.capture(drives(50, PIXELS), key=Key(2))
    twin = twins_for(table, network, Key(3))(0)
    predicted = twin.predict(record.drive, setting_of(only))
    assert float((predicted - record.values).norm() / record.values.norm()) < close


@settings(max_examples=15, deadline=None)
@given(seed=seeds, error=st.floats(0, 5))
def test_a_wrong_matrix_keeps_its_size_and_follows_what_is_written(seed: int, error: float) -> None:
    """A fixed error: twice the setting is twice the reading. 180 entries, five sigma."""
    backend = open_backend("ideal", key=Key(0), inputs=30, outputs=6)
    twin = MatrixTwin(backend.capabilities, Key(seed), error)
    setting = torch.rand((30, 6), generator=Key(seed).torch()) - 0.5
    eye = torch.eye(30)
    held = twin.predict(eye, setting)
    assert torch.allclose(twin.predict(eye, 2 * setting), 2 * held, atol=1e-5)
    assert float(held.norm() / setting.norm()) == pytest.approx(1, abs=5 / math.sqrt(180))
    if error == 0:
        assert torch.equal(held, setting)


def test_a_written_device_needs_no_fit() -> None:
    table = config(IDEAL.format(n=6), twin='"fitted"')
    with pytest.raises(Unsupported, match="twin_error"):
        twins_for(table, network_of(table), Key(3))(0)


# ---- derivatives -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit",
    [
        STEADY,
        BIG.replace("pixels = 40", "pixels = 40, unmodulated_fraction = 0.1"),
        BIG.replace("pixels = 40", 'pixels = 40, medium = {{ kind = "gaussian", patterns = 2 }}'),
        IDEAL,
        CHIP,
    ],
)
@pytest.mark.parametrize("error", [0.0, 0.5])
def test_through_a_twin_is_the_slope_of_its_prediction(unit: str, error: float) -> None:
    """Central differences of float32 predictions, step 0.01: within 0.3 % of the norm."""
    table = config(unit.format(n=5), unit.format(n=5), skip=False, twin_error=error)
    network = network_of(table)
    twins = twins_for(table, network, Key(3))
    data: Any = None
    through = ThroughTwin()
    through.begin(Task(config=table, network=network, data=data, key=Key(3), twins=twins))
    second, step = network.units[1], 0.01
    drive = 0.1 + 0.8 * drives(6, 5)
    (width,) = second.fence.reading_port.shape
    at_reading = torch.randn((6, width), generator=Key(4).torch())
    found = through.at_drive(1, second, drive, at_reading, Key(0))
    slopes = torch.zeros_like(drive)
    for column in range(5):
        move = torch.zeros(5)
        move[column] = step
        ends = [twins(1).predict(drive + s * move, setting_of(second)) for s in (1, -1)]
        slopes[:, column] = ((ends[0] - ends[1]) * at_reading).sum(1) / (2 * step)
    assert float((found - slopes).norm()) < 3e-3 * float(slopes.norm())
