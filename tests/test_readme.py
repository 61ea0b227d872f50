"""The README's Python runs, and the commands it names exist."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from validation.cli import app
from validation.config import load_config, presets

README = Path(__file__).resolve().parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("source", blocks("python"))
def test_every_python_block_of_the_readme_runs(source: str) -> None:
    exec(compile(source, str(README), "exec"), {})


def test_the_script_in_the_readme_is_short() -> None:
    statements = blocks("python")[0].split("\n\n", 1)[1]
    assert len(statements.strip().splitlines()) <= 15


COMMANDS = [
    line.split("#")[0].strip()
    for block in blocks("")
    for line in block.splitlines()
    if line.startswith("pib-twin ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_of_the_readme_is_known(command: str) -> None:
    words = shlex.split(command)[1:]
    help_text = CliRunner().invoke(app, [words[0], "--help"], terminal_width=200).output
    assert "Usage" in help_text
    for word in words:
        if word.startswith("--"):
            assert word in help_text, command


def test_every_shipped_preset_is_a_valid_configuration() -> None:
    assert {"memristor-digits", "memristor-mnist", "memristor-fashion"} <= set(presets())
    assert {"optics-fashion", "hybrid-fashion"} <= set(presets())
    for name in presets():
        assert load_config(name).unit
