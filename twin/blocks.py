"""A recording on disk: a folder with one durable, sealed block per call.

recording.json: what the device can do and who recorded (sealed). calls/NUMBER.block:
one call each, a safetensors file whose metadata hold the structure as JSON, the seal
of the block before and its own. closed.json: how many there are, and the last seal.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from twin.backend import Capabilities
from twin.calls import Call, packed, parsed
from twin.errors import DataError
from twin.files import sync_folder, write_atomic
from twin.plain import pack
from twin.seal import BLANK, checked_seal, read, read_sealed_json, sealed, sealed_json

FORMAT = 2
HEADER, CALLS, CLOSED = "recording.json", "calls", "closed.json"
_NAME = re.compile(r"\d{9,}\.block")


def block_path(folder: Path, number: int) -> Path:
    """Where call `number` (from 0) lies."""
    return folder / CALLS / f"{number:09d}.block"


class Writer:
    """Appends calls to a new recording; each is on the disk when append returns.

    Refuses a folder that exists. After a call could not be written nothing more
    is taken: a recording has no gaps.
    """

    def __init__(
        self,
        folder: Path,
        capabilities: Capabilities,
        *,
        versions: Mapping[str, str],
        created_unix_s: float | None,
    ) -> None:
        if folder.exists():
            raise DataError(f"{folder} exists already. Give the recording another name.")
        header = {
            "format": FORMAT,
            "capabilities": pack(capabilities, {}),
            "versions": dict(versions),
            "created_unix_s": created_unix_s,
        }
        content, self._last = sealed_json(header)
        _make_folder(folder, content)
        self._folder, self._count, self._refusal = folder, 0, ""

    @property
    def count(self) -> int:
        """How many calls are on the disk."""
        return self._count

    def require_open(self) -> None:
        """DataError if no further call can be recorded; ask before the device acts."""
        if self._refusal:
            raise DataError(f"{self._folder}: {self._refusal}. Begin another recording.")

    def append(self, call: Call) -> None:
        """Write one call; DataError if that fails (the device has acted by then)."""
        self.require_open()
        # Set first: an interrupt here leaves a call that happened and is not written.
        self._refusal = f"call {self._count} was not recorded"
        try:
            content, seal = _block(call, self._count, self._last)
            write_atomic(block_path(self._folder, self._count), content)
        except (OSError, DataError, SafetensorError, ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{self._folder}: call {self._count} ({call.kind}) could not be recorded: {error}. "
                "The device has acted. Free space or mend the driver, and begin another recording."
            ) from error
        self._last, self._refusal = seal, ""
        self._count += 1

    def close(self) -> None:
        """Say that the recording is whole. Harmless when repeated or after a failure."""
        if self._refusal:
            return
        end = {"count": self._count, "last": self._last, "closed_unix_s": time.time()}
        write_atomic(self._folder / CLOSED, sealed_json(end)[0])
        self._refusal = "the recording is closed"


def _make_folder(target: Path, header: bytes) -> None:
    """The folder with its header, there as a whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        (draft / CALLS).mkdir()
        write_atomic(draft / HEADER, header)
        os.rename(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync_folder(target.parent)


def _block(call: Call, number: int, previous: str) -> tuple[bytes, str]:
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(packed(call, tensors), allow_nan=False)
    link = {"format": str(FORMAT), "number": str(number), "previous": previous, "seal": BLANK}
    return sealed(save_tensors(tensors, metadata={**link, "call": structure}))


class Blocks(Sequence[Call]):
    """The calls of a recording on disk, read one by one when asked for.

    Opening reads and compares the links of all blocks (their headers only);
    the content of a block is checked against its digest whenever it is read.
    DataError names the file that is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        header, seal = read_sealed_json(folder / HEADER)
        self.header: Mapping[str, Any] = header
        self._seals = _linked_seals(folder, seal)
        self.end = _end(folder, self._seals, seal)

    def __len__(self) -> int:
        return len(self._seals)

    @overload
    def __getitem__(self, index: int) -> Call: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Call, ...]: ...
    def __getitem__(self, index: int | slice) -> Call | tuple[Call, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        number = range(len(self))[index]
        path = block_path(self._folder, number)
        data = self._intact(number)
        try:
            return parsed(json.loads(_metadata(data, path)["call"]), load_tensors(data))
        except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
            raise DataError(f"{path}: not a recorded call: {error}.") from None

    def verify(self) -> None:
        """Read every block once; DataError naming the first that is not intact."""
        for number in range(len(self)):
            self._intact(number)

    def _intact(self, number: int) -> bytes:
        path = block_path(self._folder, number)
        data = read(path)
        if checked_seal(data, path) != self._seals[number]:
            raise DataError(f"{path}: the file was exchanged. Copy the recording again.")
        return data


def _linked_seals(folder: Path, previous: str) -> list[str]:
    """The seal that each block claims, once the chain of links is unbroken."""
    seals: list[str] = []
    for path in _block_files(folder):
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            # The bound refuses a forged length before anything that long is read.
            start = stream.read(min(size, path.stat().st_size))
        link = _metadata(size.to_bytes(8, "little") + start, path)
        if (link.get("number"), link.get("previous")) != (str(len(seals)), previous):
            raise DataError(
                f"{path}: the block does not follow the one before it (damaged, or of another "
                "recording). Copy it again from its source."
            )
        previous = str(link.get("seal"))
        seals.append(previous)
    return seals


def _block_files(folder: Path) -> Iterator[Path]:
    if not (folder / CALLS).is_dir():
        raise DataError(f"{folder}: expected a recording with a folder {CALLS}, got none.")
    # Drafts of a call that a kill interrupted have other names.
    found = {name for name in os.listdir(folder / CALLS) if _NAME.fullmatch(name)}
    for number in range(len(found)):
        path = block_path(folder, number)
        if path.name not in found or not path.is_file():
            raise DataError(f"{path}: the block is missing. Copy it again from its source.")
        yield path


def _metadata(data: bytes, path: Path) -> dict[str, Any]:
    """The metadata of a safetensors file, which its own reader does not give."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header["__metadata__"]
        if isinstance(metadata, dict):
            return metadata
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise DataError(f"{path}: the file is damaged (no readable head). Copy it again.")


def _end(folder: Path, seals: Sequence[str], first: str) -> Mapping[str, Any] | None:
    """The content of closed.json, None if the recording was not closed."""
    path = folder / CLOSED
    if not path.exists():
        return None
    end, _ = read_sealed_json(path)
    count, last = end.get("count"), end.get("last")
    if not isinstance(count, int) or count < 0:
        raise DataError(f"{path}: expected a number of calls, got {count!r}.")
    if count > len(seals):
        missing = block_path(folder, len(seals))
        raise DataError(f"{missing}: the block is missing ({count} calls were recorded).")
    if count < len(seals) or last != (seals[-1] if seals else first):
        raise DataError(f"{path}: it closes another recording. Copy the whole folder again.")
    return end
