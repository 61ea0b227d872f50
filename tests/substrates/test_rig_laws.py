"""The whole optical rig against the laws of speckle, of drift and of its own error budget."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from substrates.optics.budget import budget
from substrates.optics.conditions import conditions_of
from substrates.optics.point import OperatingPoint
from substrates.optics.presets import configured
from tests.substrates.rigs import NOISELESS, make_rig, mean_and_error, pearson, uniform
from twin.errors import ConfigError
from twin.key import Key

GROUPS, FRAMES, PIXELS = 12, 8, 2048
"""Independent rigs, drives of each, pixels."""

SHARP: dict[str, Any] = {
    **NOISELESS, "camera_bits": 16, "full_scale_over_mean": 30.0, "modulator_levels": 65536
}  # fmt: skip
MIRRORS: dict[str, Any] = {"kind": "dmd", "binarise": "area", "pixels_per_side": 64}
"""As good as any amplitude."""


# ---------------------------------------------------------------- speckle


@pytest.mark.parametrize("patterns", [1, 2, 9, 25])
def test_the_contrast_behind_many_patterns_is_one_over_the_root_of_their_number(
    patterns: int,
) -> None:
    """12 rigs x 2048 pixels, five standard errors; the bias is of order 1 / 2048."""
    found = []
    for group in range(GROUPS):
        medium = {"kind": "gaussian", "patterns": patterns}
        rig = make_rig({**SHARP, "pixels": PIXELS, "inputs": 8, "medium": medium}, group)
        codes = rig.forward(uniform(group, 1, 8), key=Key(0)).codes.double()
        found.append((codes.std() / codes.mean()).item())
    contrast, error = mean_and_error(found)
    assert abs(contrast - patterns**-0.5) < 5 * error + 1 / PIXELS


DAY = 86_400.0


@pytest.mark.parametrize(
    ("preset", "begin_s", "after_s", "tau_s"),
    [
        ("static", 0.0, DAY, math.inf),
        ("slow", 0.0, 60.0, 1200.0),
        ("slow", 500.0, 600.0, 1200.0),
        ("tissue-like", 0.0, 0.1, 2.0),
        ("tissue-like", 1e4, 1.0, 2.0),
        # At switch-on its rate is 1 / 3600 s; ten days later 1 / 360 000 s.
        ("warm-up", 0.0, 60.0, 3600.0 / (1 - 30 / 3600)),
        ("warm-up", 10 * DAY, 36_000.0, 360_000.0),
    ],
)
def test_the_speckle_of_a_drift_preset_decays_as_exp_minus_two_t_over_tau(
    preset: str, begin_s: float, after_s: float, tau_s: float
) -> None:
    """12 rigs x 2048 pixels, five standard errors, and 0.75 / 256 of the field that the
    grid of the path allows (twice for the speckle); the budget says the same."""
    found = []
    options = {**SHARP, "pixels": PIXELS, "inputs": 16, "drift": preset}
    quick = {**options, "frame_rate_hz": 1e6, "exposure_s": 1e-6}
    for group in range(GROUPS):
        rig, drive = make_rig(quick, group), uniform(group, 1, 16)
        rig.wait(begin_s)
        before = rig.forward(drive, key=Key(0)).codes
        rig.wait(after_s)
        found.append(pearson(before, rig.forward(drive, key=Key(0)).codes).item())
    correlation, error = mean_and_error(found)
    law = math.exp(-2 * after_s / tau_s)
    assert error < 0.02
    assert abs(correlation - law) < 5 * error + (1e-12 if preset == "static" else 2 * 0.75 / 256)
    if begin_s == 0:
        predicted = conditions_of(configured(options), after_s=after_s).field_correlation ** 2
        assert predicted == pytest.approx(law, rel=1e-3)


def test_jumps_at_random_times_cost_what_the_budget_expects_of_them() -> None:
    """60 rigs x 1024 pixels, five standard errors, and the grid's 2 * 0.75 / 256."""
    drift = {"jump_rate_hz": 0.5, "jump_fraction": 0.3}
    options = {**SHARP, "pixels": 1024, "inputs": 8, "drift": drift}
    found = []
    for group in range(60):
        rig, drive = make_rig(options, group), uniform(group, 1, 8)
        before = rig.forward(drive, key=Key(0)).codes
        rig.wait(4.0)
        found.append(pearson(before, rig.forward(drive, key=Key(0)).codes).item())
    correlation, error = mean_and_error(found)
    predicted = conditions_of(configured(options), after_s=4.0).field_correlation ** 2
    assert predicted == pytest.approx(math.exp(-0.5 * 4 * 0.3))
    assert abs(correlation - predicted) < 5 * error + 2 * 0.75 / 256


# ---------------------------------------------------------------- the budget

FEW: dict[str, Any] = {"mean_electrons": 20.0, "read_noise_electrons": 3.0}
BINNED: dict[str, Any] = {"shape": (64, 64), "binning": 2}
COARSE: dict[str, Any] = {"kind": "grains", "pixels_per_grain": 3.0, "camera_rows": 64}
CASES: list[tuple[dict[str, Any], dict[str, float]]] = [
    ({**FEW, "sensor": {"quantum_efficiency": 0.5}}, {}),
    ({**FEW, "sensor": {**BINNED, "quantum_efficiency": 0.5}}, {}),
    ({"full_scale_over_mean": 2.0, "sensor": BINNED}, {}),
    ({"sensor": {**BINNED, "prnu": 0.3, "dsnu_electrons": 200.0, "offset_dn": 20.0}}, {}),
    (
        {**FEW, "sensor": BINNED, "medium": COARSE},
        {},
    ),
    ({"camera_bits": 4, "full_scale_over_mean": 3.0, "sensor": {"offset_dn": 8.0}}, {}),
    ({"stuck_pixel_fraction": 0.03, "dark_electrons_per_s": 2e5}, {}),
    ({"stuck_pixel_fraction": 0.03, "sensor": {"offset_dn": 128.0}}, {}),
    ({**FEW, "mean_electrons": 300.0, "camera_bits": 12, "sensor": "emva1288"}, {}),
    ({**FEW, "sensor": "imx174"}, {}),
    ({"preset": "scmos", "mean_electrons": 20.0, "sensor": "scmos"}, {}),
    ({**FEW, "medium": {"kind": "gaussian", "patterns": 4}}, {}),
    ({**FEW, "modulator": {"kind": "dmd"}}, {}),
    ({**FEW, "modulator": {"kind": "dmd", "binarise": "area", "pixels_per_side": 4}}, {}),
    ({**FEW, "modulator": {"kind": "lee", "pixels_per_side": 8}}, {}),
    ({"modulator": {"kind": "dmd", "threshold": 0.8}, "unmodulated_fraction": 0.3}, {}),
    ({"modulator": {"turn_grey": 142.0, "believed_turn_grey": 200.0}}, {}),
    ({"modulator": {"stuck_fraction": 0.3}}, {}),
    ({"mean_electrons": 200.0}, {"shutter": 0.3}),
    ({}, {"stuck_macropixel_fraction": 0.4}),
    ({"mean_electrons": 100.0, "dark_electrons_per_s": 500.0}, {"temperature_c": 41.0}),
    ({"mean_electrons": 100.0}, {"exposure_ratio": 2.5}),
]  # fmt: skip
"""Makes of rigs, and the dials that are turned."""


def simulated(options: dict[str, Any], dials: dict[str, float]) -> tuple[float, float]:
    """Pearson of a rig with a perfect one of the same key, and its standard error."""
    sensor = options.get("sensor", {})
    binned = isinstance(sensor, dict) and "binning" in sensor
    size = {"pixels": 1024 if binned else PIXELS, "inputs": 64}
    perfect = {**SHARP, **size, "sensor": BINNED if binned else {}}
    perfect["medium"] = options.get("medium", "gaussian")
    if "unmodulated_fraction" in options:
        perfect["unmodulated_fraction"] = 1e-12  # the same medium, one channel more
    if options.get("modulator", {}).get("kind") == "dmd":
        perfect["modulator"] = MIRRORS
    groups = []
    for group in range(GROUPS):
        drive, rig = uniform(group, FRAMES, 64), make_rig({**options, **size}, group)
        for name, value in dials.items():
            rig.adjust(name, value, key=Key(0))
        ideal = make_rig(perfect, group).forward(drive, key=Key(0)).codes
        frames = rig.forward(drive, key=Key(group).child("call")).codes
        groups.append(pearson(ideal, frames).mean().item())
    return mean_and_error(groups)


@pytest.mark.parametrize(("options", "dials"), CASES, ids=str)
def test_a_rig_is_as_good_as_its_budget_says(
    options: dict[str, Any], dials: dict[str, float]
) -> None:
    """12 rigs x 8 drives x 2048 (binned: 1024) pixels, within five standard errors.

    2e-4 is for the first-order terms that the budget leaves out.
    """
    sensor = options.get("sensor", {})
    pixels = 1024 if isinstance(sensor, dict) and "binning" in sensor else PIXELS
    config = configured({**options, "pixels": pixels})
    predicted = budget(conditions_of(config, replace(OperatingPoint.of(config), **dials)))
    found, error = simulated(options, dials)
    assert error < 0.02
    assert abs(found - predicted.correlation) < 5 * error + 2e-4


@pytest.mark.parametrize("electrons", [20.0, 200.0, 5000.0])
@pytest.mark.parametrize("kind", ["phase", "dmd"])
def test_after_auto_exposure_a_rig_is_as_good_as_its_budget_says(
    electrons: float, kind: str
) -> None:
    """12 rigs x 8 drives x 2048 pixels, within five standard errors and 2e-4."""
    options: dict[str, Any] = {
        "mean_electrons": electrons,
        "full_scale_over_mean": 4.0,
        "pixels": PIXELS,
    }
    options = {**options, "modulator": {"kind": kind}, "read_noise_electrons": 3.0}
    rig = make_rig(options)
    ratio = 1 / float(rig.set_range(uniform(9, 64, 64), key=Key(0)).ratio)
    config = configured(options)
    at = replace(OperatingPoint.of(config), exposure_ratio=ratio)
    found, error = simulated(options, {"exposure_ratio": ratio})
    predicted = budget(conditions_of(config, at)).correlation
    assert abs(found - predicted) < 5 * error + 2e-4


@given(
    few=st.floats(1, 1e5), more=st.floats(1, 10), full_scale=st.floats(2, 30),
    read=st.floats(0, 50), dark=st.sampled_from([0.0, 100.0]), bits=st.integers(1, 16),
    stuck=st.floats(0, 1), dial=st.floats(0.01, 10),
    sensor=st.sampled_from(
        [{}, {"quantum_efficiency": 0.4, "prnu": 0.1}, {"offset_dn": 0.5},
         {"shape": (32, 16), "binning": 2, "dsnu_electrons": 5.0}]
    ),
    modulator=st.sampled_from([{}, {"kind": "dmd"}, {"kind": "lee", "pixels_per_side": 8}]),
    patterns=st.sampled_from([1, 3]),
)  # fmt: skip
@example(
    few=1.0, more=2.0, full_scale=2.0, read=0.0, dark=0.0, bits=8, stuck=0.0, dial=1.0,
    sensor={}, modulator={}, patterns=1,
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_more_photons_never_lower_the_predicted_correlation(
    few: float, more: float, full_scale: float, read: float, dark: float, bits: int,
    stuck: float, dial: float, sensor: dict[str, Any], modulator: dict[str, Any], patterns: int,
) -> None:  # fmt: skip
    """With full scale at twice the mean or more, following it as auto-exposure does.

    Stuck pixels without dark charge, which lifts the others to where they are.
    """
    stuck *= dark == 0
    config = configured(
        {
            "pixels": 128, "full_scale_over_mean": full_scale, "read_noise_electrons": read,
            "dark_electrons_per_s": dark, "camera_bits": bits, "stuck_pixel_fraction": stuck,
            "sensor": sensor, "modulator": modulator,
            "medium": {"kind": "gaussian", "patterns": patterns},
        }
    )  # fmt: skip
    # Auto-exposure makes up for what the modulator lets through.
    nominal = conditions_of(config).mean_electrons / (
        config.mean_electrons * config.sensor.quantum_efficiency * config.sensor.binning**2
    )
    ratio = min(dial, 1.0) / nominal
    dim, bright = (
        replace(OperatingPoint.of(config), mean_electrons=n, exposure_ratio=ratio)
        for n in (few, few * more)
    )
    assume(conditions_of(config, dim).dark_electrons < few * full_scale / 2)
    low = budget(conditions_of(config, dim)).correlation
    assert budget(conditions_of(config, bright)).correlation >= low - 1e-9


def test_a_rig_without_light_has_no_budget() -> None:
    config = configured({})
    with pytest.raises(ConfigError, match="shutter"):
        conditions_of(config, replace(OperatingPoint.of(config), shutter=0.0))
