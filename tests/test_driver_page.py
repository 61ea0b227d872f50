"""docs/driver.md, followed literally: the driver is written, installed, checked and trained on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE, PAGE = ROOT / "examples" / "my-rig", ROOT / "docs" / "driver.md"
NAMED = re.compile(r"`([\w.]+)`:\n\n```\w+\n(.*?)```", re.DOTALL)


def listings() -> dict[str, str]:
    """The files that the page shows, by name."""
    return dict(NAMED.findall(PAGE.read_text()))


def commands() -> list[str]:
    return [line.strip() for line in PAGE.read_text().splitlines() if line.startswith("    p")]


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the page shows, installed beside it."""
    folder = tmp_path_factory.mktemp("laboratory")
    project = folder / "my-rig"
    project.mkdir()
    for name, text in listings().items():
        (folder if name == "network.toml" else project).joinpath(name).write_text(text)
    (project / "vendor_sdk.py").write_text((EXAMPLE / "vendor_sdk.py").read_text())
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation")
    where = ("--target", str(folder / "site"), str(project))
    done = subprocess.run([sys.executable, *install, *where], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def typed(line: str, laboratory: Path) -> subprocess.CompletedProcess[str]:
    """One command of the page, as typed in the folder."""
    _, *words = line.split()
    path = os.pathsep.join([str(laboratory / "site"), str(ROOT)])
    code = "import sys; sys.argv[0] = 'pib-twin'; from validation.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=laboratory, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_the_page_shows_the_example_itself_and_a_driver_of_50_lines() -> None:
    shown = listings()
    assert set(shown) == {"my_rig.py", "pyproject.toml", "network.toml"}
    for name, text in shown.items():
        assert text == (EXAMPLE / name).read_text(), name
    assert len(shown["my_rig.py"].splitlines()) <= 50


def test_the_page_has_the_commands_that_are_followed_here() -> None:
    verbs = [" ".join(line.split()[:2]) for line in commands()]
    train = ["pib-twin train"] * 2
    assert verbs == ["pip install", "pib-twin backends", "pib-twin check", *train,
                     "pib-twin evaluate"]  # fmt: skip


def test_an_installed_driver_has_a_name(laboratory: Path) -> None:
    found = typed("pib-twin backends", laboratory).stdout.split()
    assert "my-rig" in found and "memristor" in found


def test_the_driver_of_the_page_keeps_the_contract(laboratory: Path) -> None:
    done = typed("pib-twin check my-rig", laboratory)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_network_trains_on_the_twins_on_the_rig_and_is_taken_there(laboratory: Path) -> None:
    for line in commands()[3:]:
        done = typed(line, laboratory)
        assert done.returncode == 0, done.stdout + done.stderr
    for run in ("simulated", "real", "moved"):
        assert (laboratory / run / "summary.json").is_file()
