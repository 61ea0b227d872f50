"""A training run on disk: safetensors blocks and a manifest of SHA-256 digests.

The manifest is replaced last and in one step, so a kill at any moment leaves
the previous or the new checkpoint. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import ref

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from pib.network import Network
from pib.train import Trainer
from twin.backend import Snapshot
from twin.errors import CheckpointError, PibTwinError
from twin.files import digest, write_atomic

FORMAT = 1
MANIFEST = "manifest.json"
BULKY = ("trainer.measured.", "trainer.unit.readings", "trainer.unit.before")
"""Tensors that change once per unit: their blocks are not written again."""


@dataclass(frozen=True)
class Loaded:
    """What was in a checkpoint: tensors and texts by name."""

    arrays: Mapping[str, Tensor]
    text: Mapping[str, str]


def save(folder: Path, arrays: Mapping[str, Tensor], text: Mapping[str, str]) -> None:
    """Write a checkpoint into `folder`, replacing the one that is there."""
    blocks = {"state": {n: t for n, t in arrays.items() if not n.startswith(BULKY)}}
    for name, tensor in arrays.items():
        if name.startswith(BULKY):
            blocks[name.replace("/", "_")] = {name: tensor}
    known = _known_blocks(folder)
    entries = {b: _write_block(folder, b, tensors, known.get(b)) for b, tensors in blocks.items()}
    manifest = {"format": FORMAT, "blocks": entries, "text": dict(text)}
    body = json.dumps(manifest, indent=1, sort_keys=True)
    sealed = json.dumps({"digest": digest(body.encode()), "manifest": body})
    write_atomic(folder / MANIFEST, sealed.encode())
    keep = {entry["file"] for entry in entries.values()}
    for path in folder.glob("*.safetensors"):
        if path.name not in keep:
            path.unlink()


def _known_blocks(folder: Path) -> dict:
    """Blocks of the checkpoint in `folder`; none if it is absent or damaged."""
    try:
        return _manifest(folder)["blocks"]
    except CheckpointError:
        return {}


def _write_block(
    folder: Path, name: str, tensors: Mapping[str, Tensor], known: Mapping[str, str] | None
) -> dict[str, str]:
    """Write one block, unless it is bulky and the file is there already."""
    bulky = name != "state"
    written = known if bulky and known and (folder / known["file"]).exists() else None
    if written and _SEALS.of(tensors) == written["digest"]:
        return dict(written)
    plain = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    content = save_tensors(plain)
    seal = digest(content)
    if bulky:
        _SEALS.keep(tensors, seal)
    file = f"{name}-{seal[:16]}.safetensors"
    if not (written and written["digest"] == seal):
        write_atomic(folder / file, content)
    return {"file": file, "digest": seal}


class _Seals:
    """Digests of the bulky blocks this process has written or found.

    By identity of the tensor and torch's count of in-place changes, so that an
    unchanged block is neither read nor written; another object is hashed anew.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[ref[Tensor], int, str]] = {}

    def of(self, tensors: Mapping[str, Tensor]) -> str | None:
        """The digest of the block of one bulky tensor, where it is known."""
        ((name, tensor),) = tensors.items()
        found, version, seal = self._known.get((name, id(tensor)), (None, 0, None))
        same = found is not None and found() is tensor and version == tensor._version
        return seal if same else None

    def keep(self, tensors: Mapping[str, Tensor], seal: str) -> None:
        ((name, tensor),) = tensors.items()
        self._known = {k: v for k, v in self._known.items() if v[0]() is not None}
        self._known[name, id(tensor)] = (ref(tensor), tensor._version, seal)


_SEALS = _Seals()


def load(folder: Path) -> Loaded:
    """Read the checkpoint in `folder`; CheckpointError if damaged or missing."""
    manifest = _manifest(folder)
    arrays: dict[str, Tensor] = {}
    for entry in manifest["blocks"].values():
        path = folder / entry["file"]
        try:
            content = path.read_bytes()
            if digest(content) != entry["digest"]:
                raise CheckpointError(
                    f"{path}: the file does not match its SHA-256 digest; the checkpoint is "
                    "damaged. Start the run again."
                )
            arrays |= load_tensors(content)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: cannot be read: {error}.") from None
    return Loaded(arrays, manifest["text"])


def _manifest(folder: Path) -> dict:
    path = folder / MANIFEST
    try:
        sealed = json.loads(path.read_bytes())
        if digest(sealed["manifest"].encode()) != sealed["digest"]:
            raise ValueError("its digest does not match")
        manifest = json.loads(sealed["manifest"])
        if manifest["format"] != FORMAT:
            raise ValueError(f"its format is {manifest['format']}, this version reads {FORMAT}")
        return manifest
    except OSError as error:
        raise CheckpointError(f"{path}: no checkpoint here ({error.strerror}).") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged checkpoint: {error}.") from None


def device_state(network: Network) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Snapshots of every device that can be restored, as tensors and text."""
    arrays: dict[str, Tensor] = {}
    text: dict[str, str] = {}
    for unit in network.units:
        if not unit.fence.capabilities.restorable:
            continue
        snapshot = unit.fence.snapshot()
        arrays |= {f"device.{unit.name}.{n}": t for n, t in snapshot.arrays.items()}
        text[f"device.{unit.name}"] = json.dumps(
            {"id": snapshot.device_id, "values": dict(snapshot.values)}
        )
    return arrays, text


def restore_devices(network: Network, loaded: Loaded) -> None:
    """Put every restorable device back into its saved state."""
    for unit in network.units:
        head = f"device.{unit.name}"
        if head not in loaded.text:
            continue
        saved = json.loads(loaded.text[head])
        arrays = {
            n[len(head) + 1 :]: t for n, t in loaded.arrays.items() if n.startswith(head + ".")
        }
        unit.fence.restore(Snapshot(saved["id"], arrays, saved["values"]))


def save_training(folder: Path, trainer: Trainer, notes: Mapping[str, str]) -> None:
    """Checkpoint a trainer, its network and its devices after a whole step."""
    arrays, text = trainer.state()
    arrays = {f"trainer.{n}": t for n, t in arrays.items()}
    devices, device_text = device_state(trainer.network)
    everything = {f"trainer.{n}": v for n, v in text.items()} | device_text
    everything |= {f"note.{n}": v for n, v in notes.items()}
    save(folder, arrays | devices, everything | {"threads": str(torch.get_num_threads())})


def load_training(folder: Path, trainer: Trainer) -> dict[str, str]:
    """Go on from `folder`; returns the notes, and "threads" it was made with."""
    loaded = load(folder)
    arrays = _under(loaded.arrays, "trainer.")
    trainer.load(arrays, _under(loaded.text, "trainer."))
    try:
        restore_devices(trainer.network, loaded)
        for index, unit in enumerate(trainer.network.units):
            if not unit.fence.capabilities.restorable:
                trainer.write_again(index)
    except (KeyError, ValueError) as error:
        if isinstance(error, PibTwinError):
            raise
        raise CheckpointError(f"{folder}: a device's state is incomplete: {error}.") from None
    return {**_under(loaded.text, "note."), "threads": loaded.text["threads"]}


def _under(entries: Mapping, head: str) -> dict:
    return {n[len(head) :]: v for n, v in entries.items() if n.startswith(head)}


def files(folder: Path) -> Sequence[Path]:
    """The files that make up the checkpoint in `folder`."""
    return sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".json"))
