#!/usr/bin/env python3
"""One file for a fresh machine: set everything up, then demo or test.

    python3 run.py demo          the main job: train a memristor network, write a report
    python3 run.py test          lint, types, the everyday tests (arguments go to pytest)
    python3 run.py test --all    the slow physics too
    python3 run.py setup         only set up

Uses the standard library only. The environment lives in .venv and is made
again when the pinned versions change.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
HOME = ROOT / ".venv"
BIN = HOME / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
STAMP = HOME / "pib-twin.stamp"


def wanted() -> str:
    """What the environment must have been made from."""
    seal = hashlib.sha256(sys.version.encode())
    for name in ("pyproject.toml", "constraints.txt"):
        seal.update((ROOT / name).read_bytes())
    return seal.hexdigest()


def set_up() -> None:
    """Make .venv with the pinned versions unless it is there already."""
    if sys.version_info < (3, 11):  # noqa: UP036 - the user may start it with any python3
        sys.exit(f"pib-twin needs Python 3.11 or newer, this is {sys.version.split()[0]}.")
    if STAMP.is_file() and STAMP.read_text() == wanted():
        return
    sys.stderr.write("setting up .venv (once, about two minutes) ...\n")
    STAMP.unlink(missing_ok=True)
    venv.create(HOME, with_pip=True, clear=not PYTHON.exists())
    install = [PYTHON, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    subprocess.run([*install, "-e", f"{ROOT}[test]"], check=True, cwd=ROOT)
    # The oracle of the wires; its plotting needs a library that has to be compiled.
    subprocess.run([*install, "--no-deps", "badcrossbar==1.1.0"], check=True, cwd=ROOT)
    STAMP.write_text(wanted())


def call(*command: str | Path) -> None:
    """Run a command of the environment; end with its code if it fails."""
    code = subprocess.run([str(part) for part in command], cwd=ROOT, check=False).returncode
    if code:
        sys.exit(code)


def main(arguments: list[str]) -> None:
    """Set up, then do what was asked."""
    what, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if what not in ("demo", "test", "setup"):
        sys.exit(__doc__)
    set_up()
    if what == "demo":
        call(BIN / "pib-twin", "train", "memristor-digits", "--out", "runs/demo", *rest)
    elif what == "test":
        everything = "--all" in rest
        rest = [part for part in rest if part != "--all"]
        call(PYTHON, "-m", "ruff", "check", "--quiet")
        call(PYTHON, "-m", "ruff", "format", "--check", "--quiet")
        call(PYTHON, "-m", "mypy", "--no-error-summary")
        markers = ["-m", "slow or not slow"] if everything else []
        # One process per core; a test computes on one thread.
        call(PYTHON, "-m", "pytest", "-n", "auto", *markers, *rest)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    except subprocess.CalledProcessError as error:
        sys.exit(f"setting up failed: {error}")
