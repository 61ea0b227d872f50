"""Files from elsewhere are data: a malicious pickle under any name is refused and never runs."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from pib import checkpoint
from substrates.memristor import technology
from twin.calibration import Calibration
from twin.errors import PibTwinError
from twin.key import Key
from twin.recording import Recording
from twin.registry import open_backend
from validation import datasets
from validation.config import load_config


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def under_every_name(folder: Path, payload: bytes, names: list[str]) -> Path:
    """A folder in which each of these files is the payload."""
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(payload)
    return folder


READERS: dict[str, tuple[list[str], Callable[[Path], object]]] = {
    "recording": (
        ["recording.json", "tensors.safetensors", "manifest.json", "closed.json",
         "calls/000000000.block", "calls/000000001.block"],
        Recording.load,
    ),
    "replay URI": (["recording.json"], lambda f: open_backend(f"replay:{f}", key=Key(0))),
    "calibration": (
        ["calibration.json", "tensors.safetensors", "manifest.json", "arrays.safetensors"],
        Calibration.load,
    ),
    "twin URI": (["calibration.json"], lambda f: open_backend(f"twin:{f}", key=Key(0))),
    "checkpoint": (
        ["checkpoint.json", "tensors.safetensors", "manifest.json", "state.json"],
        checkpoint.load,
    ),
    "configuration": (["network.toml"], lambda f: load_config(str(f / "network.toml"))),
    "technology": (["cell.toml"], lambda f: technology.load(f / "cell.toml")),
    "data set": (["data.npz"], lambda f: datasets.load(str(f / "data.npz"))),
    "measured matrix": (
        ["matrix.npy"],
        lambda f: open_backend(
            "optics", key=Key(0), inputs=4, pixels=4,
            medium={"kind": "file", "path": str(f / "matrix.npy")},
        ),
    ),
    "fault map": (
        ["faults.npz"],
        lambda f: open_backend(
            "memristor", key=Key(0), inputs=4, outputs=4, fault_map=str(f / "faults.npz")
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", READERS)
def test_a_pickle_offered_as_a_file_is_refused_and_never_runs(what: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    payload = pickle.dumps(Malicious(canary))
    names, read = READERS[what]
    folder = under_every_name(tmp_path / "offered", payload, names)
    with pytest.raises(PibTwinError):
        read(folder)
    assert not canary.exists()


def test_the_payload_is_malicious(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Malicious(tmp_path / "canary")))
    assert (tmp_path / "canary").is_dir()
