"""`pib-twin budget`: what is printed is the product of what is explained."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from substrates.optics.presets import PRESETS
from twin.errors import ConfigError, UnknownName
from validation import budgeting
from validation.summary import Summary


def found(
    *options: str, after: float = 0.0, name: str = "industrial", out: Path | None = None
) -> Summary:
    return budgeting.main(list(options), after, out, "pib-twin budget", name)


def values(summary: Summary) -> dict[str, float]:
    return {f.name: f.value for f in summary.figures if f.value is not None}


@settings(max_examples=15, deadline=None)
@given(
    electrons=st.floats(5, 1e5),
    noise=st.floats(0, 10),
    bits=st.integers(4, 16),
    seconds=st.floats(0, 3000),
)
def test_the_predicted_correlation_is_the_product_of_its_factors(
    electrons: float, noise: float, bits: int, seconds: float
) -> None:
    factors = values(
        found(
            f"mean_electrons={electrons}", f"read_noise_electrons={noise}", f"camera_bits={bits}",
            "drift=slow", after=seconds,
        )
    )  # fmt: skip
    total = factors.pop("predicted correlation")
    assert total == pytest.approx(math.prod(factors.values()))
    assert factors["drift"] == pytest.approx(math.exp(-seconds / 600))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_rig_has_a_budget(preset: str) -> None:
    assert 0 < values(found(name=preset))["predicted correlation"] <= 1


def test_a_still_medium_forgets_nothing() -> None:
    assert values(found(after=1e9))["drift"] == 1.0


def test_a_training_preset_has_a_budget_for_each_optical_unit() -> None:
    summary = found(name="optics-fashion")
    assert summary.extra["rigs"].keys() == {"unit 1", "unit 2"}
    assert summary.extra["rigs"]["unit 1"]["options"]["inputs"] == 784
    assert summary.extra["rigs"]["unit 2"]["options"]["inputs"] == 3 * 256 + 784


def test_the_inputs_are_those_that_the_training_gives_its_rigs() -> None:
    """Against the network as it is built for Fashion-MNIST's 784 pixels."""
    from twin.key import Key
    from validation.config import load_config
    from validation.experiment import build_network

    config = load_config("optics-fashion")
    network = build_network(config, 784, key=Key(0))
    built = [unit.fence.drive_port.shape[0] for unit in network.units]
    network.close()
    rigs = found(name="optics-fashion").extra["rigs"].values()
    assert [rig["options"]["inputs"] for rig in rigs] == built


def test_an_entry_of_a_table_is_given_with_a_dot() -> None:
    spread = values(found("sensor.prnu=0.2"))["gain of pixels"]
    assert spread == pytest.approx((1 + 2 * 0.2**2) ** -0.5, rel=1e-3)


def test_the_table_shows_laws_in_square_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    found()
    assert "[1 - (1 + a) e^-a]" in capsys.readouterr().out


def test_what_is_outside_its_validity_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    summary = found("mean_electrons=2")
    assert "NOT HERE" in capsys.readouterr().out
    assert not summary.extra["rigs"]["industrial"]["holds"]


def test_the_summary_keeps_law_source_and_validity(tmp_path: Path) -> None:
    found("drift=slow", after=60.0, out=tmp_path)
    kept = json.loads((tmp_path / "summary.json").read_text())
    factors = kept["extra"]["rigs"]["industrial"]["factors"]
    assert all(f["law"] and f["source"] and f["valid"] for f in factors)
    assert kept["extra"]["after_seconds"] == 60.0


@pytest.mark.parametrize("after", [-1.0, math.nan, math.inf])
def test_a_time_that_is_none_is_refused(after: float) -> None:
    with pytest.raises(ConfigError, match="--after"):
        found(after=after)


def test_unknown_rigs_and_options_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="scmos"):
        found(name="scmoss")
    with pytest.raises(ConfigError, match="mean_electrons"):
        found("mean_electron=10")
    with pytest.raises(ConfigError, match="no optical unit"):
        found(name="memristor-digits")
    with pytest.raises(ConfigError, match="sensor"):
        found("sensor=3", "sensor.prnu=0.1")
