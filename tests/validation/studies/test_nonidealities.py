"""Non-idealities of the shipped networks, and the scale of severity."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.backend import Dial
from twin.errors import ConfigError
from twin.key import Key
from validation.config import RunConfig, load_config
from validation.experiment import build_network, open_device
from validation.studies.nonidealities import inventory
from validation.studies.points import Point
from validation.studies.severity import NonIdeality, at
from validation.studies.work import run_config

NETWORKS = ("memristor-digits", "optics-digits", "memristor-severe", "memristor-mild")
SEVERITIES = st.floats(0, 1)
SCALES = (
    NonIdeality(name="a", paths=("dial.a",), unit="1", zero=0, severe=0.3),
    NonIdeality(name="b", paths=("dial.b",), unit="1", zero=1, severe=4, scale="log"),
    NonIdeality(name="c", paths=("dial.c",), unit="1", zero=1e6, severe=10, scale="photons"),
    NonIdeality(name="d", paths=("dial.d",), unit="s", zero=0, severe=86400, scale="time"),
    NonIdeality(name="e", paths=("x.e",), unit="bit", zero=16, severe=4, scale="bits"),
    NonIdeality(name="f", paths=("x.f",), unit="1", zero=4096, severe=4, scale="levels"),
    NonIdeality(name="g", paths=("dial.g",), unit="1", zero=1, severe=0.5),
)


def found(name: str) -> dict[str, NonIdeality]:
    return {one.name: one for one in inventory(load_config(name), 64).swept}


@pytest.mark.parametrize("one", SCALES, ids=lambda one: one.scale)
@settings(max_examples=60, deadline=None)
@given(low=SEVERITIES, high=SEVERITIES)
def test_values_go_one_way_from_zero_to_severe(one: NonIdeality, low: float, high: float) -> None:
    low, high = sorted((low, high))
    direction = math.copysign(1, one.severe - one.zero)
    assert direction * (one.value(high) - one.value(low)) >= -1e-9 * abs(one.severe)
    assert one.value(0) == one.zero and one.value(1) == one.severe
    ends = sorted((one.zero, one.severe))
    assert ends[0] * (1 - 1e-9) <= one.value(low) <= ends[1] * (1 + 1e-9)


@pytest.mark.parametrize("one", SCALES, ids=lambda one: one.scale)
@settings(max_examples=60, deadline=None)
@given(severity=SEVERITIES)
def test_the_severity_of_a_value_is_the_one_it_came_from(one: NonIdeality, severity: float) -> None:
    again = one.severity(one.value(severity))
    if one.scale in ("bits", "levels"):  # values are whole: a round trip through the value
        assert one.value(again) == pytest.approx(one.value(severity), abs=1)
    else:
        assert again == pytest.approx(severity, abs=1e-6)


def test_photon_severity_is_proportional_to_the_relative_shot_noise() -> None:
    light = SCALES[2]
    noise = [light.value(s) ** -0.5 for s in (0.2, 0.4, 0.6)]
    assert noise[1] - noise[0] == pytest.approx(noise[2] - noise[1])


def test_each_halving_of_a_converters_severity_is_about_a_bit() -> None:
    assert [SCALES[4].value(s) for s in (1, 0.5, 0.25, 0.125)] == [4, 5, 6, 7]


@pytest.mark.parametrize("severity", [-0.1, 1.1, math.nan])
def test_a_severity_outside_zero_to_one_is_refused(severity: float) -> None:
    with pytest.raises(ConfigError, match="from 0 to 1"):
        SCALES[0].value(severity)


def test_an_event_happens_at_severity_one_only() -> None:
    event = NonIdeality(
        name="x", paths=("unit.0.options.technology",), unit="1", zero=0, severe=1, scale="event",
        word="pcm", with_it=(("unit.0.options.linear_cells", True),),
    )  # fmt: skip
    assert at({event: 0.99}) == ()
    assert dict(at({event: 1.0})) == {
        "unit.0.options.technology": "pcm", "unit.0.options.linear_cells": True,
    }  # fmt: skip


def test_what_a_non_ideality_is_itself_comes_before_what_goes_with_another() -> None:
    rest = NonIdeality(name="r", paths=("test.wait_s",), unit="s", zero=0, severe=100)
    relaxes = replace(SCALES[0], always=(("test.wait_s", 9.0),))
    assert dict(at({rest: 0.5, relaxes: 1.0}))["test.wait_s"] == 50
    assert dict(at({relaxes: 0.0}))["test.wait_s"] == 9.0


@pytest.mark.parametrize("name", NETWORKS)
def test_every_dial_of_a_device_is_swept_or_left_out_with_a_reason(name: str) -> None:
    config = load_config(name)
    known = inventory(config, 64)
    network = build_network(config, 64, key=Key(0))
    dials = {d.name for unit in network.units for d in unit.fence.capabilities.dials}
    network.close()
    swept = {path.split(".")[-1] for one in known.swept for path in one.paths}
    left_out = dict(known.left_out)
    assert dials == (dials & swept) | (dials & set(left_out))
    assert not swept & set(left_out)
    assert all(left_out.values())


@pytest.mark.parametrize("name", ["memristor-digits", "optics-digits", "memristor-severe"])
@pytest.mark.parametrize("when", ["test", "training"])
def test_every_severity_can_be_built_and_turned(name: str, when: str) -> None:
    """Perfect, in between and severe."""
    dials = declared(load_config(name))
    built = set[str]()
    for one in inventory(load_config(name), 64).swept:
        for severity in (0.0, 0.5, 1.0) if when in one.whens else ():
            point = Point(name, "pib", 0, at({one: severity}, when), when)
            config = run_config(point)
            for path, value in point.settings:
                if path.startswith("dial."):
                    dial = dials[path.removeprefix("dial.")]
                    assert dial.low <= float(value) <= dial.high, (one.name, severity)
            seen = config.unit[0].model_dump_json()
            if seen not in built:  # opening a chip takes a tenth of a second
                declared(config)
                built.add(seen)


def declared(config: RunConfig) -> dict[str, Dial]:
    """All dials of the first unit's device, freshly made."""
    device = open_device(config.unit[0], 0, 64, Key(0))
    dials = {dial.name: dial for dial in device.capabilities.dials}
    device.close()
    return dials


def test_the_default_crossbar_stands_where_its_configuration_says() -> None:
    ones = found("memristor-digits")
    assert ones["read_noise"].delivered_severity == pytest.approx(0.2)
    assert ones["stuck_column_fraction"].delivered_severity == 0
    assert ones["adc_bits"].delivered == 8
    # A rest goes with it: the network as delivered has none.
    assert ones["relaxation_mean"].delivered_severity is None


def test_a_write_error_that_comes_after_training_has_the_weights_written_anew() -> None:
    error = found("memristor-digits")["programming_error"]
    assert dict(at({error: 1.0}, "test")) == {"unit.options.programming_error": 0.1}
    assert dict(at({error: 1.0}, "training")) == {"dial.programming_error": 0.1}


def test_a_chip_of_a_measured_technology_is_not_offered_another() -> None:
    assert not [name for name in found("memristor-mild") if name.startswith("technology")]
    assert "technology neurram-hfox" in found("memristor-digits")


def test_dim_light_is_severe_and_bright_light_is_perfect() -> None:
    light = found("optics-digits")["mean_electrons"]
    assert light.zero > light.value(0.25) > light.value(0.5) > light.severe


def test_two_kinds_of_units_get_their_own_options_only() -> None:
    table = load_config("memristor-digits").model_dump()
    optical = load_config("optics-digits").model_dump()["unit"][0]
    table["unit"] = [optical, table["unit"][1]]
    ones = {one.name: one for one in inventory(RunConfig(**table), 64).swept}
    assert ones["camera_bits"].paths == ("unit.0.options.camera_bits",)
    assert ones["adc_bits"].paths == ("unit.1.options.adc_bits",)


def test_a_name_that_is_no_non_ideality_is_refused_with_those_known() -> None:
    with pytest.raises(ConfigError, match=r"read_nois.*Known: read_noise"):
        inventory(load_config("memristor-digits"), 64).named(["read_nois"])
