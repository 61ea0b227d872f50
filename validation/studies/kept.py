"""A folder of tensors that can be computed again: kept under a name, or not.

One file per name, whole or not there, with its own SHA-256. What is damaged,
cannot be written or had to make room is simply absent. Nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from twin.files import digest, write_atomic

FACTS = "facts"
LIMIT_BYTES = 4 * 1024**3
SEAL = 64
"""Characters of a SHA-256 digest in hexadecimal: the head of every file."""


@dataclass(frozen=True)
class Kept:
    """Tensors by name and plain facts (JSON) under one name."""

    arrays: Mapping[str, Tensor]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Keeper:
    """A folder that several processes and machines may use at once.

    Two that keep the same name write equal bytes, so that it does not matter
    whose file stays. limit_bytes: above it the files longest unused go.
    """

    folder: Path
    limit_bytes: int = LIMIT_BYTES

    def get(self, name: str) -> Kept | None:
        """What was kept under `name`; None if nothing sound is there."""
        path = self._path(name)
        try:
            content = path.read_bytes()
            seal, body = content[:SEAL], content[SEAL:]
            if digest(body) != seal.decode():
                return None
            arrays = {n: t.clone() for n, t in load_tensors(body).items()}
            facts = json.loads(bytes(arrays.pop(FACTS).tolist()))
        except (OSError, SafetensorError, UnicodeDecodeError, ValueError, KeyError):
            return None
        with suppress(OSError):  # another process may have just removed it
            # To the nanosecond: what the system stamps by itself is a tick of its clock.
            now_ns = time.time_ns()
            os.utime(path, ns=(now_ns, now_ns))
        return Kept(arrays, facts)

    def put(self, name: str, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keep; where the disk refuses, nothing is kept and nothing raised."""
        text = json.dumps(facts, sort_keys=True).encode()
        plain = {n: t.detach().cpu().contiguous().clone() for n, t in arrays.items()}
        plain[FACTS] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        body = save_tensors(plain)
        path = self._path(name)
        # A name of its own: two threads of one process may keep the same thing.
        own = path.with_suffix(f".{uuid.uuid4().hex}")
        with suppress(OSError):
            write_atomic(own, digest(body).encode() + body)
            own.replace(path)
        with suppress(OSError):
            self._make_room(path)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.kept"

    def _make_room(self, but: Path) -> None:
        found = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):
                stat = path.stat()
                found.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit_bytes:
                return
            if path != but:
                path.unlink(missing_ok=True)
                total -= size
