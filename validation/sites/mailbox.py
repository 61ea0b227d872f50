"""The door between sites: publish, and look what was published last. Nothing waits.

A :class:`Post` may be a folder (here), or one day a server; a site knows only the
protocol. What a site consumed, and when, is a schedule: :class:`Scheduled` hands
the same publications out again, and the site repeats its trajectory bit for bit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from twin.errors import DataError
from twin.files import digest, write_atomic
from validation.sites.publication import Publication, packed, unpacked

LATEST = "latest.json"


@dataclass
class Traffic:
    """What a site's side of a door has seen.

    published, bytes_out: publications and their bytes, each counted once however
    often its step is repeated. newest: the highest version among them. read, bytes_in: of
    publications taken. looks: times it was asked for news. refused: damaged
    publications, passed over. seconds: spent at the door, of this site's own time.
    There is no count of waits because no call can wait.
    """

    published: int = 0
    bytes_out: int = 0
    looks: int = 0
    read: int = 0
    bytes_in: int = 0
    refused: int = 0
    seconds: float = 0.0
    newest: int = 0

    def plain(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, float]) -> Traffic:
        return cls(**plain)  # type: ignore[arg-type]


class Sent(NamedTuple):
    """When a publication went out (seconds since 1970), and its bytes."""

    time_s: float
    size: int


class Post(Protocol):
    """What a site needs of a door. Neither call may wait for anyone."""

    traffic: Traffic

    def publish(self, publication: Publication) -> Sent:
        """Make it the latest one, durably, in one step; if it is out already, say since when."""
        ...

    def latest(self, after: int, step: int) -> Publication | None:
        """The latest publication if its version is above `after`, else None.

        step: of the site that asks; a live door does not care.
        """
        ...


@dataclass
class FilePost:
    """A folder: one file per publication and a pointer to the latest, replaced last.

    keep: so many publications stay, None keeps all (for a replay). The time of a
    publication is that of its file.
    """

    folder: Path
    keep: int | None = 2
    traffic: Traffic = field(default_factory=Traffic)
    _refused: int = 0

    def publish(self, publication: Publication) -> Sent:
        begun = time.perf_counter()
        # A site that was killed repeats steps, and publications that are out already.
        if int(self._pointer().get("version", 0)) < publication.version:
            self._put(publication)
        sent = self._sent(publication.version)
        # What went out after the last checkpoint is not in the traffic restored from it.
        if publication.version > self.traffic.newest:
            self.traffic.newest = publication.version
            self.traffic.published += 1
            self.traffic.bytes_out += sent.size
        self.traffic.seconds += time.perf_counter() - begun
        return sent

    def latest(self, after: int, step: int) -> Publication | None:  # noqa: ARG002
        begun = time.perf_counter()
        self.traffic.looks += 1
        try:
            pointer = self._pointer()
            if int(pointer.get("version", 0)) <= max(after, self._refused):
                return None
            return self._taken(pointer)
        finally:
            self.traffic.seconds += time.perf_counter() - begun

    def _put(self, publication: Publication) -> None:
        content = packed(publication)
        name = file_name(publication.version)
        write_atomic(self.folder / name, content)
        pointer = {"version": publication.version, "file": name, "digest": digest(content)}
        write_atomic(self.folder / LATEST, json.dumps(pointer).encode())
        self._prune(name)

    def _sent(self, version: int) -> Sent:
        name = file_name(version)
        # One that was pruned since is as large as the next one, and went out no later.
        kept = [p for p in self.folder.glob("publication-*") if p.name >= name]
        if not kept:
            raise DataError(
                f"{self.folder / name}: {LATEST} says that it is out, but it is gone, and so is "
                "every later one. Somebody emptied the folder: begin the run anew."
            )
        found = min(kept).stat()
        return Sent(found.st_mtime, found.st_size)

    def _taken(self, pointer: Mapping[str, str]) -> Publication | None:
        try:
            content = (self.folder / pointer["file"]).read_bytes()
        except FileNotFoundError:
            return None  # replaced and pruned between two reads: look again next step
        try:
            if digest(content) != pointer["digest"]:
                raise DataError("it does not match its digest")
            found = unpacked(content)
        except DataError:
            self._refused = int(pointer["version"])
            self.traffic.refused += 1
            return None
        self.traffic.read += 1
        self.traffic.bytes_in += len(content)
        return found

    def _pointer(self) -> dict:
        try:
            pointer = json.loads((self.folder / LATEST).read_bytes())
            return pointer if isinstance(pointer, dict) else {}
        except (OSError, ValueError):
            return {}

    def _prune(self, newest: str) -> None:
        if self.keep is None:
            return
        older = sorted(p for p in self.folder.glob("publication-*") if p.name < newest)
        for path in older[: max(0, len(older) - self.keep + 1)]:
            path.unlink(missing_ok=True)


@dataclass
class Scheduled:
    """Hands out kept publications by a schedule: step of the asker to version.

    folder: of a FilePost that kept everything.
    """

    folder: Path
    schedule: Mapping[int, int]
    traffic: Traffic = field(default_factory=Traffic)

    def publish(self, publication: Publication) -> Sent:  # noqa: ARG002
        """Nobody listens to a replay."""
        return Sent(time.time(), 0)

    def latest(self, after: int, step: int) -> Publication | None:
        version = self.schedule.get(step, 0)
        if version <= after:
            return None
        path = self.folder / file_name(version)
        try:
            return unpacked(path.read_bytes())
        except FileNotFoundError:
            raise DataError(
                f"{path}: the schedule asks for version {version} at step {step}, which was not "
                "kept. Record the run with keep = None."
            ) from None


def file_name(version: int) -> str:
    """Of a publication in its folder; sorts by version."""
    return f"publication-{version:06d}.safetensors"
