"""A folder of results, one file per point, named by the point's content.

A file is canonical JSON and a line with its SHA-256; it is written aside,
fsynced and renamed. A damaged file counts as not there. Two machines may work
in one folder: they rarely compute a point twice, and never harm each other.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from twin.errors import DataError, PibTwinError
from twin.files import digest, write_atomic
from validation.studies.points import Point, canonical

Status = Literal["done", "failed"]
POINTS, CLAIMS = "points", "claims"
CLAIM_HOLDS_S = 3600.0
"""A claim older than this is a dead process's."""


@dataclass(frozen=True)
class Result:
    """What came of a point.

    figures: by name, in the units of `points.UNITS`. error: kind and message
    of a failure. volatile: seconds, host; never compared. versions: of the
    packages behind the figures.
    """

    point: Point
    status: Status
    figures: dict[str, float] = field(default_factory=dict)
    error: dict[str, str] | None = None
    volatile: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Why it failed, in one line; "" if it did not."""
        return "" if self.error is None else f"{self.error['kind']}: {self.error['message']}"


class Store:
    """The results in `folder`; it is made if it is not there."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._points, self._claims = self.folder / POINTS, self.folder / CLAIMS
        self._points.mkdir(parents=True, exist_ok=True)
        self._claims.mkdir(exist_ok=True)
        self._owner = f"{platform.node()} {os.getpid()}"

    def path(self, key: str) -> Path:
        """Where the result of that key is."""
        return self._points / f"{key}.json"

    def read(self, key: str) -> Result | None:
        """The result of that key; None if it is not there, torn or of another key."""
        try:
            return parsed(self.path(key).read_bytes(), key)
        except (OSError, DataError):
            return None

    def write(self, key: str, result: Result) -> None:
        """Keep a result, durably; it replaces a failed or damaged one."""
        write_atomic(self.path(key), packed(key, result))
        (self._claims / key).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        """Keys of all files, sound or not, in order."""
        yield from sorted(path.stem for path in self._points.glob("*.json"))

    def results(self) -> Iterator[Result]:
        """All sound results, whatever study they belong to."""
        found = (self.read(key) for key in self.names())
        yield from (result for result in found if result is not None)

    def absorb(self, other: Store) -> int:
        """Take over results that are not here (or failed here); returns how many."""
        taken = 0
        for key in other.names():
            theirs, ours = other.read(key), self.read(key)
            if theirs and (ours is None or (ours.status, theirs.status) == ("failed", "done")):
                self.write(key, theirs)
                taken += 1
        return taken

    # ---- who is at it -------------------------------------------------------

    def claim(self, key: str) -> None:
        """Say that this process computes the point. Nobody ever waits for a claim."""
        (self._claims / key).write_text(self._owner)

    def release(self, key: str) -> None:
        """Take this process's word back."""
        (self._claims / key).unlink(missing_ok=True)

    def claimed_elsewhere(self, key: str) -> bool:
        """Whether another process said so, lately; it may be dead all the same."""
        path = self._claims / key
        try:
            fresh = time.time() - path.stat().st_mtime < CLAIM_HOLDS_S
            return fresh and path.read_text() != self._owner
        except OSError:
            return False


def packed(key: str, result: Result) -> bytes:
    """The file of a result."""
    content = asdict(result) | {"point": result.point.plain(), "key": key}
    content["figures"] = {name: _told(value) for name, value in result.figures.items()}
    body = canonical(content)
    return body + b"\n" + digest(body).encode() + b"\n"


def parsed(content: bytes, key: str) -> Result:
    """The result in a file; DataError if it is torn, altered or of another key."""
    body, _, rest = content.partition(b"\n")
    if rest != digest(body).encode() + b"\n":
        raise DataError(f"result {key}: the file is damaged. It is computed again by a next run.")
    try:
        table = json.loads(body)
        if table["key"] != key:
            raise DataError(f"result {key}: the file belongs to {table['key']}. Remove it.")
        return Result(
            point=Point.parsed(table["point"]),
            status=table["status"],
            figures={name: float(value) for name, value in table["figures"].items()},
            error=table["error"],
            volatile=table["volatile"],
            versions=table["versions"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, PibTwinError):
            raise
        raise DataError(f"result {key}: not a result ({error}). Remove the file.") from None


def _told(value: float) -> float | str:
    """JSON has no words for what is not finite."""
    return value if math.isfinite(value) else repr(float(value))
