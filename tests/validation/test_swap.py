"""The swap: one flag puts every unit on its twin, and a trained network moves to other devices."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from twin.errors import ConfigError, DataError, UnknownName
from twin.key import Key
from twin.recording import Recording
from twin.registry import open_backend
from validation.cli import app
from validation.config import RunConfig, load_config, parse_config, presets, simulated
from validation.evaluation import Place

RIG = """
[[unit]]
backend = "https://laboratory.example/unit-1"
outputs = 32
options = { token_env = "LABORATORY_TOKEN" }
twin = "memristor"
twin_options = { read_noise = 0.02 }

[[unit]]
backend = "my-rig"
outputs = 16
twin = "ideal"
"""


@pytest.fixture
def rig(tmp_path: Path) -> str:
    path = tmp_path / "rig.toml"
    path.write_text(RIG)
    return str(path)


def places(config: RunConfig) -> list[tuple[str, dict[str, object]]]:
    return [(unit.backend, unit.options) for unit in config.unit]


def test_one_flag_puts_every_unit_on_its_twin(rig: str) -> None:
    config = load_config(rig)
    assert places(simulated(config)) == [("memristor", {"read_noise": 0.02}), ("ideal", {})]
    assert places(config)[0][0].startswith("https")
    same = {"backend", "options"}
    for unit, twin in zip(config.unit, simulated(config).unit, strict=True):
        assert unit.model_dump(exclude=same) == twin.model_dump(exclude=same)


def test_a_unit_without_a_twin_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rig.toml"
    path.write_text(RIG.replace('twin = "ideal"\n', ""))
    with pytest.raises(ConfigError, match=r"no twin is named for unit 2 .my-rig."):
        simulated(load_config(str(path)))


def test_what_was_trained_on_twins_moves_to_the_devices_and_back(rig: str) -> None:
    config = load_config(rig)
    trained = simulated(config)
    assert places(Place(on=rig).applied(trained)) == places(config)
    assert places(Place(on=rig, simulated=True).applied(trained)) == places(trained)
    assert Place().applied(trained) == trained and not Place().elsewhere


def test_places_that_contradict_each_other_are_refused(rig: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--backend"):
        Place(backend="ideal", on=rig)
    one = tmp_path / "one.toml"
    one.write_text('[[unit]]\nbackend = "ideal"\n')
    with pytest.raises(ConfigError, match="1 units, the run has 2"):
        Place(on=str(one)).applied(load_config(rig))


@pytest.mark.parametrize("name", presets())
def test_a_preset_is_printed_as_a_configuration_to_start_from(name: str) -> None:
    told = CliRunner().invoke(app, ["presets", name])
    assert told.exit_code == 0
    assert parse_config(told.stdout, name) == load_config(name)


def test_a_check_of_a_recording_is_one_sentence_not_44_failures() -> None:
    told = CliRunner().invoke(app, ["check", "replay:somewhere"])
    assert told.exit_code == 2 and "pib-twin recording somewhere" in told.output


def test_a_folder_may_have_an_at_sign_in_its_name(tmp_path: Path) -> None:
    """Only what looks like a place on the network can hold a password there."""
    name = f"replay:{tmp_path / 'me@home'}"
    with pytest.raises(DataError, match="there is no folder"):
        open_backend(name, key=Key(0))
    assert parse_config(f'[[unit]]\nbackend = "{name}"\n', "my.toml").unit[0].backend == name


def test_a_name_that_is_a_file_or_folder_is_told_what_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "chip").touch()
    with pytest.raises(UnknownName, match=r"the backend twin:.*chip"):
        open_backend(str(tmp_path / "chip"), key=Key(0))
    with pytest.raises(UnknownName, match=r"the backend replay:"):
        open_backend(str(tmp_path), key=Key(0))
    with pytest.raises(UnknownName, match="pip install"):
        open_backend("no-such-rig", key=Key(0))
    with pytest.raises(DataError, match="there is no folder"):
        Recording.load(tmp_path / "nope")
