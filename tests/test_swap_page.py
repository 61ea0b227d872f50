"""docs/swap.md, followed to the letter: a laboratory's devices, their twins, and back."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "swap.md"
PROGRAM = "import sys; sys.argv[0] = 'pib-twin'; from validation.cli import main; main()"
FILES = ("laboratory.toml", "network.toml")


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def started(command: str, folder: Path) -> subprocess.Popen[str]:
    words = shlex.split(command)[1:]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def accuracy(folder: Path) -> float:
    figures = json.loads((folder / "summary.json").read_text())["figures"]
    return float(next(f["value"] for f in figures if f["name"] == "accuracy"))


@pytest.mark.slow
def test_a_network_moves_between_twins_and_devices_as_the_page_says(tmp_path: Path) -> None:
    text = PAGE.read_text().replace("8321", free_port())
    for name, content in zip(FILES, re.findall(r"```toml\n(.*?)```", text, re.S), strict=True):
        assert f"`{name}`" in text
        (tmp_path / name).write_text(content)
    commands = re.findall(r"^    (pib-twin .*)$", text, re.M)
    assert len(commands) == 10 and commands[0].startswith("pib-twin serve")
    server = started(commands[0], tmp_path)
    try:
        assert server.stdout is not None
        assert "unit-1: http" in server.stdout.readline()
        for command in commands[1:]:
            process = started(command, tmp_path)
            told, _ = process.communicate(timeout=600)
            assert process.returncode == 0, f"{command}\n{told}"
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=20)
    on_twins, moved, on_devices = (
        accuracy(tmp_path / name) for name in ("on-twins", "moved", "on-devices")
    )
    # 360 test images at 98.5 %: one standard error of a difference is 0.9 points at most.
    assert min(on_twins, moved, on_devices) > 0.96
    assert abs(moved - on_devices) < 5 * 0.009
