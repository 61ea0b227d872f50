"""State and last replies of a served device in a folder, written before the answer.

One file an entry, each with the digest of its content and whole or not there;
the newest gives the state, the last few the replies. Arrays of a state are in a
file of their own, written only when they changed. Reading never runs code.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from twin.backend import Snapshot
from twin.errors import DataError
from twin.files import digest, write_atomic
from twin.plain import differs, pack, unpack
from twin.remote.memory import Reply

REPLIES = 16
"""How many replies outlive the process."""
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Past:
    """What a journal holds. replies: (request id, fingerprint, reply), oldest
    first; the reply of a call that began and was not answered is None."""

    device_id: str
    state: Snapshot | None
    version: int | None
    replies: tuple[tuple[str, str, Reply | None], ...]


class Journal:
    """The journal of one device in `folder`; one process at a time.

    Raises DataError if another server holds it or an entry is damaged.
    """

    def __init__(self, folder: str | Path, device_id: str) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self._folder / "lock")
        self._device_id = device_id
        self._arrays: Mapping[str, Tensor] | None = None
        self._arrays_file = ""
        entries = self._entries()
        self._next = 1 + max((_number(path) for path in entries), default=0)
        self.instance = self._instance()

    def close(self) -> None:
        """Give the folder free for another process."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def begin(self, request_id: str, fingerprint: str) -> None:
        """Note that a device which cannot be restored is about to act."""
        begun = {"id": request_id, "fingerprint": fingerprint, "device": self._device_id}
        write_atomic(self._folder / "begun.json", _sealed({**begun, "entry": self._next}, b""))

    def commit(
        self,
        request_id: str,
        fingerprint: str,
        reply: Reply,
        version: int | None,
        state: Snapshot | None,
    ) -> None:
        """Make a reply, and the state behind it, outlive this process."""
        structure = None if state is None else self._stored_state(state)
        entry = {
            "format": FORMAT,
            "device": self._device_id,
            "id": request_id,
            "fingerprint": fingerprint,
            "status": reply.status,
            "header_length": reply.header_length,
            "version": version,
            "state": structure,
            "arrays": self._arrays_file if state is not None else "",
        }
        path = self._folder / f"entry-{self._next:012d}.bin"
        write_atomic(path, _sealed(entry, reply.content))
        self._next += 1
        self._tidy()

    def load(self) -> Past | None:
        """What the last process left; None if nothing."""
        entries = [_opened(path) for path in self._entries()]
        replies: list[tuple[str, str, Reply | None]] = [
            (e["id"], e["fingerprint"], Reply(e["status"], content, e["header_length"]))
            for e, content in entries
        ]
        begun = self._folder / "begun.json"
        last = entries[-1][0] if entries else None
        if begun.exists():
            note, _ = _opened(begun)
            if note["entry"] == self._next:
                replies.append((note["id"], note["fingerprint"], None))
                last = last or {"device": note["device"], "version": None, "state": None}
        if last is None:
            return None
        return Past(
            device_id=last["device"],
            state=self._loaded_state(last),
            version=last["version"],
            replies=tuple(replies),
        )

    def _instance(self) -> str:
        path = self._folder / "instance"
        if not path.exists():
            write_atomic(path, uuid.uuid4().hex.encode())
        return path.read_text().strip()

    def _entries(self) -> list[Path]:
        return sorted(self._folder.glob("entry-*.bin"))

    def _stored_state(self, state: Snapshot) -> Any:
        from safetensors.torch import save

        arrays = dict(state.arrays)
        if self._arrays is None or differs(self._arrays, arrays):
            content = save({name: a.detach().cpu().contiguous() for name, a in arrays.items()})
            self._arrays_file = f"arrays-{digest(content)}.safetensors"
            write_atomic(self._folder / self._arrays_file, content)
            self._arrays = {name: array.clone() for name, array in arrays.items()}
        return pack(replace(state, arrays={}), {})

    def _loaded_state(self, entry: Mapping[str, Any]) -> Snapshot | None:
        from safetensors import SafetensorError
        from safetensors.torch import load

        if entry["state"] is None:
            return None
        path = self._folder / Path(entry["arrays"]).name
        try:
            content = path.read_bytes()
            if path.name != f"arrays-{digest(content)}.safetensors":
                raise ValueError("its digest is wrong")
            state = unpack(entry["state"], {})
            if not isinstance(state, Snapshot):
                raise ValueError("the entry has no snapshot")
            return replace(state, arrays=load(content))
        except (OSError, ValueError, SafetensorError) as error:
            raise _damaged(path, error) from None

    def _tidy(self) -> None:
        for path in self._entries()[:-REPLIES]:
            path.unlink(missing_ok=True)
        for path in self._folder.glob("arrays-*.safetensors"):
            if path.name != self._arrays_file:
                path.unlink(missing_ok=True)


def _sealed(header: Mapping[str, Any], content: bytes) -> bytes:
    line = json.dumps(header, allow_nan=False).encode() + b"\n"
    return digest(line + content).encode() + b"\n" + line + content


def _opened(path: Path) -> tuple[dict[str, Any], bytes]:
    try:
        seal, _, sealed = path.read_bytes().partition(b"\n")
        if seal.decode("ascii", "replace") != digest(sealed):
            raise ValueError("its digest is wrong")
        line, _, content = sealed.partition(b"\n")
        return json.loads(line), content
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: the journal is damaged ({error}). Move the folder away to begin anew; "
        "the device then starts as delivered."
    )


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("entry-"))


def _locked(path: Path) -> int | None:
    """A lock that ends with the process, where the system has one."""
    try:
        import fcntl
    except ImportError:
        return None
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise DataError(
            f"{path.parent}: another server uses this journal. Stop it, or name another folder."
        ) from None
    return handle
