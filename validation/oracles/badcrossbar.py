"""badcrossbar 1.1 (Joksas & Mehonic 2020) as a judge of the wires.

It runs in a process of its own, because importing it sets up the logging and
warnings of the whole process. Run as a script, this file is that process.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from twin.errors import DataError, Unsupported

Floats = npt.NDArray[np.float64]
PACKAGES = ("badcrossbar", "pathvalidate", "sigfig")


def missing() -> str:
    """What is not installed for it, as a sentence with the remedy; empty if nothing."""
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if not absent:
        return ""
    return (
        f"badcrossbar needs {', '.join(absent)}, not installed here. "
        f"Run: pip install --no-deps badcrossbar==1.1.0 pathvalidate sigfig"
    )


def currents(
    volts: npt.ArrayLike,
    g: npt.ArrayLike,
    word_ohm: float,
    bit_ohm: float,
    repeats: int = 1,
) -> tuple[Floats, float]:
    """Bit-line currents (batch, n), A, and the median seconds of one solve.

    volts: (batch, m), on the first word-line segments; g: (m, n), siemens, > 0.
    Sensed behind the last bit-line segments, amplifiers ideal. One thread; the
    seconds are those of `compute` for the whole batch with the output currents
    alone, not of starting the process. Raises Unsupported if not installed.
    """
    if missing():
        raise Unsupported(f"badcrossbar oracle: {missing()}")
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder, "asked.npz"), Path(folder, "answer.npz")
        wires = np.array([word_ohm, bit_ohm])
        np.savez(asked, volts=volts, g=g, wires=wires, repeats=np.array(repeats))
        done = subprocess.run(
            # -P: this file's own folder would make it import itself.
            [sys.executable, "-W", "ignore", "-P", __file__, str(asked), str(answer)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        if done.returncode != 0:
            raise DataError(
                f"badcrossbar oracle: its process ended with code {done.returncode}; "
                f"check shapes and that g > 0. It said: {done.stderr[-500:]}"
            )
        with np.load(answer, allow_pickle=False) as found:
            return found["currents"], float(found["seconds"])


def _answer(asked: str, answer: str) -> None:
    badcrossbar = importlib.import_module("badcrossbar")

    with np.load(asked, allow_pickle=False) as given:
        volts, resistances = given["volts"].T, 1 / given["g"]
        word_ohm, bit_ohm = (float(r) for r in given["wires"])
        repeats = int(given["repeats"])
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        solution = badcrossbar.compute(
            volts,
            resistances,
            r_i_word_line=word_ohm,
            r_i_bit_line=bit_ohm,
            node_voltages=False,
            all_currents=False,
        )
        seconds.append(time.perf_counter() - begun)
    found = np.atleast_2d(solution.currents.output)
    np.savez(answer, currents=found, seconds=np.array(np.median(seconds)))


if __name__ == "__main__":
    _answer(*sys.argv[1:])
