"""However a run ends, every device that was opened is closed once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHILD = Path(__file__).with_name("closing_child.py")
ROOT = CHILD.parents[2]
CODES = {"SIGINT": 130, "SIGTERM": 143, "error": 1}
WHERE = [
    "make 1", "make 2", "program 1", "program 5", "forward 1", "forward 6", "forward 11",
    "forward 15", "close 1", "close 2",
]  # fmt: skip
CASES = [(what, where) for what in CODES for where in WHERE] + [("nothing", "nowhere")]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("endings")
    done = subprocess.run(
        [sys.executable, str(CHILD), str(folder), json.dumps(CASES)],
        capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


def test_a_run_that_nothing_ends_passes_every_phase(
    told: dict[tuple[str, str], dict[str, Any]],
) -> None:
    whole = told["nothing", "nowhere"]
    assert whole["code"] == 0 and set(whole["closes"]) == {1}
    for where in WHERE:
        phase, number = where.split()
        assert whole["passed"][phase] >= int(number), where


@pytest.mark.parametrize(("what", "where"), CASES[:-1])
def test_every_device_that_was_opened_is_closed_once(
    told: dict[tuple[str, str], dict[str, Any]], what: str, where: str
) -> None:
    found = told[what, where]
    assert found["code"] == CODES[what], found
    # Where the first device is being made, an error leaves none, a signal waits for both.
    opened = {"make 1": 0, "make 2": 1}.get(where, 2) if what == "error" else 2
    assert found["closes"][:2] == [1] * opened
    assert set(found["closes"]) <= {1}
