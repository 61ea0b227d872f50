"""Matrices that took long to make, kept on disk under a name of their content.

A file is whole, with a digest of its own, or is made again. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from twin.files import write_atomic

_SEAL = 32
"""Bytes of the digest in front of a file: safetensors has no checksum."""


def cache_folder() -> Path:
    """Where matrices are kept: PIB_TWIN_CACHE, else the user's cache folder."""
    import pooch

    return Path(os.environ.get("PIB_TWIN_CACHE") or pooch.os_cache("pib-twin")) / "media"


def content_key(question: str, sources: tuple[Path, ...]) -> str:
    """A blake2b digest of what is asked, of the code that answers, and of torch."""
    seal = hashlib.blake2b(digest_size=16)
    for part in (question.encode(), torch.__version__.encode(), *(p.read_bytes() for p in sources)):
        seal.update(len(part).to_bytes(8, "little"))
        seal.update(part)
    return seal.hexdigest()


def cached(name: str, make: Callable[[], Tensor], folder: Path | None = None) -> Tensor:
    """The tensor kept as `name`, or `make()`, which is then kept.

    A missing, torn or altered file is replaced. A folder that cannot be
    written (full, read-only) costs time, not the answer.
    """
    path = (folder or cache_folder()) / f"{name}.safetensors"
    kept = _read(path)
    if kept is not None:
        return kept
    made = make().contiguous()
    with contextlib.suppress(OSError):
        write_atomic(path, _packed(made))
    return made


def _packed(tensor: Tensor) -> bytes:
    """Digest of the rest, then safetensors."""
    content = save({"matrix": torch.view_as_real(tensor).contiguous()})
    return _seal(content) + content


def _read(path: Path) -> Tensor | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    seal, content = data[:_SEAL], data[_SEAL:]
    if _seal(content) != seal:
        return None
    try:
        return torch.view_as_complex(load(content)["matrix"])
    except (SafetensorError, KeyError, RuntimeError):
        return None


def _seal(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_SEAL).digest()


def told(**question: object) -> str:
    """The question as text that is the same for equal questions."""
    return json.dumps(question, sort_keys=True, default=str)
