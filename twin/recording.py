"""A sequence of calls to a backend with their answers, as plain data.

On disk it is a folder: recording.json (structure), tensors.safetensors and
manifest.json (a SHA-256 digest of each). Reading it never runs code.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from twin.backend import Capabilities
from twin.errors import DataError
from twin.files import digest, sync_folder
from twin.key import Key
from twin.plain import pack, unpack

FORMAT = 1
STRUCTURE, TENSORS, MANIFEST = "recording.json", "tensors.safetensors", "manifest.json"


@dataclass(frozen=True)
class Call:
    """One call and what came of it.

    kind: the member that was called. inputs: its arguments by name. key: as
    given, None where the member takes none. answer: what was returned.
    error: (type, message) if a typed error was raised instead.
    """

    kind: str
    inputs: Mapping[str, Any]
    key: Key | None = None
    answer: Any = None
    error: tuple[str, str] | None = None


@dataclass(frozen=True)
class Recording:
    """What a device can do, and the calls it answered, in order."""

    capabilities: Capabilities
    calls: tuple[Call, ...] = field(default=())

    @property
    def device_id(self) -> str:
        return self.capabilities.device_id

    def save(self, path: str | Path) -> None:
        """Write the folder `path`, whole or not at all; never overwrites."""
        target = Path(path)
        if target.exists():
            raise DataError(f"{target} exists already. Give the recording another name.")
        tensors: dict[str, Tensor] = {}
        structure = {
            "format": FORMAT,
            "capabilities": pack(self.capabilities, tensors),
            "calls": [_packed(call, tensors) for call in self.calls],
        }
        content = {STRUCTURE: _json(structure), TENSORS: save_tensors(tensors)}
        content[MANIFEST] = _json({name: digest(data) for name, data in content.items()})
        _write_folder(target, content)

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Read a folder written by :meth:`save`; DataError if damaged."""
        folder = Path(path)
        content = {name: _read(folder, name) for name in (STRUCTURE, TENSORS)}
        expected = _json({name: digest(data) for name, data in content.items()})
        if _read(folder, MANIFEST) != expected:
            raise DataError(
                f"{folder}: the recording is damaged (its files do not match the digests in "
                f"{MANIFEST}). Copy it again from its source."
            )
        try:
            structure = json.loads(content[STRUCTURE])
            tensors = load_tensors(content[TENSORS])
            return _parsed(cls, structure, tensors)
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            raise DataError(f"{folder}: not a recording of format {FORMAT}: {error}.") from None


def _packed(call: Call, tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {
        "kind": call.kind,
        "inputs": pack(dict(call.inputs), tensors),
        "key": pack(call.key, tensors),
        "answer": pack(call.answer, tensors),
        "error": pack(call.error, tensors),
    }


def _parsed(cls: type[Recording], structure: Any, tensors: Mapping[str, Tensor]) -> Recording:
    if structure["format"] != FORMAT:
        raise ValueError(f"its format is {structure['format']!r}")
    names = ("kind", "inputs", "key", "answer", "error")
    calls = [Call(**{n: unpack(call[n], tensors) for n in names}) for call in structure["calls"]]
    capabilities = unpack(structure["capabilities"], tensors)
    fit = all(isinstance(c.inputs, dict) and isinstance(c.key, Key | None) for c in calls)
    if not (fit and isinstance(capabilities, Capabilities)):
        raise ValueError("a call is not made of inputs and a key")
    return cls(capabilities, tuple(calls))


def _json(data: Any) -> bytes:
    return json.dumps(data, allow_nan=False, indent=1).encode()


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise DataError(
            f"{folder}: expected a recording with a file {name}, got: {error.strerror}."
        ) from None


def _write_folder(target: Path, content: Mapping[str, bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for name, data in content.items():
            with (draft / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        os.rename(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync_folder(target.parent)
