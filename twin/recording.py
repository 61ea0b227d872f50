"""A sequence of calls to a backend with their answers, as plain data.

On disk it is a folder of sealed blocks, one per call (``twin.blocks``); folders
of format 1 stay readable. Reading a recording never runs code.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twin import recordingv1
from twin.backend import Capabilities
from twin.blocks import FORMAT, HEADER, Blocks, Writer
from twin.calls import Call, Timing
from twin.errors import DataError
from twin.files import sync_folder
from twin.plain import unpack
from twin.seal import read

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Call", "Recording", "Timing", "dataset"]


@dataclass(frozen=True)
class Recording:
    """What a device can do, and the calls it answered, in order.

    calls: of a recording on disk they are read one by one when asked for.
    closed: whether it was ended on purpose; one that was not is whole up to
    the call that was under way. versions: of the software that recorded.
    created_unix_s: when it was begun, None if that is not known.
    """

    capabilities: Capabilities
    calls: Sequence[Call] = field(default=())
    closed: bool = True
    versions: Mapping[str, str] = field(default_factory=dict)
    created_unix_s: float | None = None

    @property
    def device_id(self) -> str:
        return self.capabilities.device_id

    def save(self, path: str | Path) -> None:
        """Write the folder `path`, whole or not at all; never overwrites."""
        target = Path(path)
        if target.exists():
            raise DataError(f"{target} exists already. Give the recording another name.")
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            self._write(draft / target.name)
            os.rename(draft / target.name, target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        sync_folder(target.parent)

    def _write(self, folder: Path) -> None:
        writer = Writer(
            folder, self.capabilities, versions=self.versions, created_unix_s=self.created_unix_s
        )
        for call in self.calls:
            writer.append(call)
        if self.closed:
            writer.close()

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> Recording:
        """Open a folder written by :meth:`save` or recorded into; DataError if damaged.

        verify: read every block once and check its digest, at about the speed
        of the disk. Without it a block is checked when its call is asked for.
        """
        folder = Path(path)
        if _format(folder) == 1:
            return cls(*recordingv1.load(folder))
        blocks = Blocks(folder)
        if verify:
            blocks.verify()
        return cls(
            _capabilities(blocks.header, folder),
            blocks,
            closed=blocks.end is not None,
            versions=_versions(blocks.header, folder),
            created_unix_s=blocks.header.get("created_unix_s"),
        )


def dataset(path: str | Path) -> xr.Dataset:
    """The recording at `path` as labelled arrays; see ``twin.recordingxarray``."""
    from twin.recordingxarray import as_dataset

    return as_dataset(Recording.load(path))


def _format(folder: Path) -> int:
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder}. Give the folder of a recording, as `pib-twin probe` or "
            "recorded+NAME (option record_to) made it."
        )
    try:
        header = json.loads(read(folder / HEADER))
        number = header["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError(
            f"{folder / HEADER}: the file is damaged, or not the head of a recording. "
            "Copy it again from its source."
        ) from None
    if number not in (1, FORMAT):
        raise DataError(
            f"{folder / HEADER}: expected a recording of format 1 or {FORMAT}, got {number!r}. "
            "Read it with the version that wrote it."
        )
    return int(number)


def _capabilities(header: Mapping[str, Any], folder: Path) -> Capabilities:
    try:
        capabilities = unpack(header["capabilities"], {})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{folder / HEADER}: not the head of a recording: {error}.") from None
    if not isinstance(capabilities, Capabilities):
        raise DataError(f"{folder / HEADER}: it does not say what the device can do.")
    return capabilities


def _versions(header: Mapping[str, Any], folder: Path) -> dict[str, str]:
    found, created = header.get("versions"), header.get("created_unix_s")
    plain = isinstance(found, dict) and all(isinstance(v, str) for v in found.values())
    if not (plain and isinstance(created, float | int | None)):
        raise DataError(f"{folder / HEADER}: expected versions by name and a time of creation.")
    assert isinstance(found, dict)
    return found
