"""Files that carry the SHA-256 digest of their own bytes.

A draft says ``"seal":"000..."`` once, in JSON without spaces; the digest of the
draft takes the place of the zeros. So every single bit of the file is covered.
A seal finds damage. It is no signature: whoever can write can also seal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twin.errors import DataError
from twin.files import digest

BLANK = "0" * 64
_MARK = b'"seal":"'


def sealed(draft: bytes) -> tuple[bytes, str]:
    """The draft with its seal in it, and the seal (64 hexadecimal digits)."""
    start = draft.index(_MARK) + len(_MARK)
    assert draft[start : start + 64] == BLANK.encode()
    seal = digest(draft)
    return b"".join((draft[:start], seal.encode(), draft[start + 64 :])), seal


def checked_seal(data: bytes, path: Path) -> str:
    """The seal of the file's content; DataError naming the file if it is not intact."""
    start = data.find(_MARK) + len(_MARK)
    seal = data[start : start + 64]
    draft = b"".join((data[:start], BLANK.encode(), data[start + 64 :]))
    if start < len(_MARK) or len(seal) < 64 or digest(draft).encode() != seal:
        raise DataError(
            f"{path}: the file is damaged (its content does not match the digest it carries). "
            "Copy it again from its source."
        )
    return seal.decode()


def sealed_json(content: dict[str, Any]) -> tuple[bytes, str]:
    """A JSON object with a seal, and the seal."""
    text = json.dumps({"seal": BLANK, **content}, allow_nan=False, separators=(",", ":"))
    return sealed(text.encode())


def read_sealed_json(path: Path) -> tuple[dict[str, Any], str]:
    """What :func:`sealed_json` wrote, and its seal; DataError if damaged or unreadable."""
    data = read(path)
    seal = checked_seal(data, path)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a JSON object, got: {error}.") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(content).__name__}.")
    return content, seal


def read(path: Path) -> bytes:
    """The content of a plain file; DataError naming it where there is none."""
    try:
        # A pipe or a device file would block for ever.
        if path.exists() and not path.is_file():
            raise OSError(0, "it is not a plain file")
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path.parent}: expected a recording with a file {path.name}, got: {error.strerror}."
        ) from None
