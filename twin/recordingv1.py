"""Recordings of format 1, which older versions wrote: read, never written.

A folder: recording.json (structure of all calls), tensors.safetensors and
manifest.json (a SHA-256 digest of each).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from twin.backend import Capabilities
from twin.calls import Call, parsed
from twin.errors import DataError
from twin.files import digest
from twin.plain import unpack
from twin.seal import read

STRUCTURE, TENSORS, MANIFEST = "recording.json", "tensors.safetensors", "manifest.json"


def load(folder: Path) -> tuple[Capabilities, tuple[Call, ...]]:
    """What the device can do, and its calls; DataError if the folder is damaged."""
    content = {name: read(folder / name) for name in (STRUCTURE, TENSORS)}
    expected = {name: digest(data) for name, data in content.items()}
    if read(folder / MANIFEST) != json.dumps(expected, indent=1).encode():
        raise DataError(
            f"{folder}: the recording is damaged (its files do not match the digests in "
            f"{MANIFEST}). Copy it again from its source."
        )
    try:
        return _parsed(json.loads(content[STRUCTURE]), load_tensors(content[TENSORS]))
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise DataError(f"{folder}: not a recording of format 1: {error}.") from None


def _parsed(structure: Any, tensors: Any) -> tuple[Capabilities, tuple[Call, ...]]:
    capabilities = unpack(structure["capabilities"], tensors)
    if not isinstance(capabilities, Capabilities):
        raise ValueError("it does not say what the device can do")
    return capabilities, tuple(parsed(call, tensors) for call in structure["calls"])
