"""The result of a calibration: parameters of one device, and the file that holds them.

One safetensors file with JSON in its header and a SHA-256 digest over both. It is
written whole or not at all, never overwritten, and reading it never runs code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from twin.backend import Capabilities
from twin.errors import DataError, PibTwinError
from twin.files import digest, sync_folder
from twin.heldout import HeldOut
from twin.plain import pack, unpack
from twin.twinmodel import NORMAL_95, Arrays, Direction, Estimates, Floats, Parameter

FORMAT = 2
MOST_BYTES = 2**32
HEADER, DIGEST = "calibration", "sha256"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Parameters of the device `device_id`, with their uncertainty and held-out score.

    kind: of the twin model. step: (outputs,), value of one code. seconds_per_pass: of
    device time. fitted_passes: that the estimates rest on. recorded: key words to find
    the recording again. Cannot be made without a held-out score.
    """

    device_id: str
    kind: str
    capabilities: Capabilities
    parameters: tuple[Parameter, ...]
    estimates: Estimates
    held_out: HeldOut
    step: Floats
    seconds_per_pass: float
    fitted_passes: int
    recorded: Mapping[str, str]

    def __post_init__(self) -> None:
        if not isinstance(self.held_out, HeldOut):
            raise DataError(
                "a calibration needs a held-out score, got none. Keep a part of the recording "
                "out of the fit."
            )
        _require_fit(self.parameters, self.estimates)

    @property
    def values(self) -> Arrays:
        return self.estimates.values

    def interval(self, name: str) -> tuple[Floats, Floats]:
        """Ends of the 95 % interval of a parameter, of its shape; NaN where not measured."""
        value = self.values[name]
        error = self.estimates.errors.get(name, np.full_like(value, np.nan))
        return value - NORMAL_95 * error, value + NORMAL_95 * error

    def require_device(self, device_id: str) -> None:
        """DataError unless this is a calibration of that device."""
        if device_id != self.device_id:
            raise DataError(
                f"this calibration is of the device {self.device_id!r}, expected one of "
                f"{device_id!r}. Calibrate that device, or open the right file."
            )

    def save(self, path: str | Path) -> str:
        """Write the file `path`, which must not exist; returns its digest."""
        target, (content, checksum) = Path(path), _written(self)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}.{checksum[:8]}.tmp")
        try:
            with draft.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            # A link, since a rename would replace what is there.
            os.link(draft, target)
        except FileExistsError:
            raise DataError(
                f"{target} exists already. Give the calibration another name."
            ) from None
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(target.parent)
        return checksum

    @classmethod
    def load(cls, path: str | Path, *, device_id: str | None = None) -> Calibration:
        """Read a file written by :meth:`save`.

        DataError if it is missing, damaged, of another format, or not of `device_id`.
        """
        try:
            if Path(path).stat().st_size > MOST_BYTES:
                raise DataError(f"{path}: larger than {MOST_BYTES} bytes. Not a calibration.")
            content = Path(path).read_bytes()
        except OSError as error:
            raise DataError(f"{path}: expected a calibration, got: {error.strerror}.") from None
        try:
            found = _read(content)
        except (KeyError, ValueError, TypeError, RecursionError, SafetensorError) as error:
            told = str(error) if isinstance(error, PibTwinError) else type(error).__name__
            raise DataError(
                f"{path}: not a whole calibration of format {FORMAT} ({told}). Copy it again from "
                "its source, or calibrate again."
            ) from None
        if device_id is not None:
            found.require_device(device_id)
        return found


def _require_fit(parameters: tuple[Parameter, ...], found: Estimates) -> None:
    """DataError unless every parameter has a value of its shape inside its bounds."""
    names = {p.name for p in parameters}
    if set(found.values) != names or not set(found.errors) <= names:
        raise DataError(
            f"expected values of {', '.join(sorted(names))}, got {', '.join(sorted(found.values))}."
        )
    for p in parameters:
        value = found.values[p.name]
        shapes = {value.shape, found.errors.get(p.name, value).shape}
        inside = bool((np.isfinite(value) & (value >= p.low) & (value <= p.high)).all())
        if shapes != {p.shape} or not inside:
            raise DataError(
                f"parameter {p.name!r}: expected shape {p.shape} between {p.low:g} and {p.high:g} "
                f"{p.unit}, got shape {value.shape}"
                + (f" from {value.min():.4g} to {value.max():.4g}" if value.size else "")
                + ". The device is not what this twin describes, or the recording is too short."
            )


def _written(made: Calibration) -> tuple[bytes, str]:
    tensors: dict[str, Tensor] = {}
    found = made.estimates
    for part, arrays in (("value", found.values), ("error", found.errors)):
        tensors |= {f"{part} {n}": torch.from_numpy(np.array(a)) for n, a in arrays.items()}
    tensors["step"] = torch.from_numpy(np.array(made.step))
    for number, matrix in enumerate(found.covariance.values()):
        tensors[f"covariance {number}"] = torch.from_numpy(np.array(matrix))
    aside: dict[str, Tensor] = {}
    structure = {
        "format": FORMAT,
        "device_id": made.device_id,
        "kind": made.kind,
        "capabilities": pack(made.capabilities, aside),
        "parameters": [{f.name: getattr(p, f.name) for f in fields(p)} for p in made.parameters],
        "covariance": [list(names) for names in found.covariance],
        "unidentified": [{"weights": dict(d.weights), "why": d.why} for d in found.unidentified],
        "flags": {name: [int(i) for i in where] for name, where in found.flags.items()},
        "held_out": {f.name: getattr(made.held_out, f.name) for f in fields(made.held_out)},
        "seconds_per_pass": made.seconds_per_pass,
        "fitted_passes": made.fitted_passes,
        "recorded": dict(made.recorded),
    }
    text = json.dumps(structure, allow_nan=False, sort_keys=True)
    checksum = _checksum(text, tensors)
    return save_tensors(tensors, metadata={HEADER: text, DIGEST: checksum}), checksum


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    plain = save_tensors({name: tensors[name] for name in sorted(tensors)})
    return digest(text.encode() + b"\0" + plain)


def _read(content: bytes) -> Calibration:
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= len(content) - 8:
        raise ValueError("no header")
    # load() checks shapes against the bytes that are there, but gives no metadata.
    tensors = load_tensors(content)
    notes = json.loads(content[8 : 8 + length])["__metadata__"]
    text = notes[HEADER]
    if _checksum(text, tensors) != notes[DIGEST]:
        raise DataError("its content does not match its digest")
    structure = json.loads(text)
    if structure["format"] != FORMAT:
        raise DataError(f"its format is {structure['format']!r}")
    return _built(structure, {n: t.numpy().astype(np.float64) for n, t in tensors.items()})


def _built(data: Mapping[str, Any], arrays: Arrays) -> Calibration:
    capabilities = unpack(data["capabilities"], {})
    if not isinstance(capabilities, Capabilities):
        raise DataError("it does not say what its device can do")

    def of(part: str) -> dict[str, Floats]:
        start = f"{part} "
        return {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}

    estimates = Estimates(
        values=of("value"),
        errors=of("error"),
        covariance={
            tuple(names): arrays[f"covariance {i}"] for i, names in enumerate(data["covariance"])
        },
        unidentified=tuple(Direction(d["weights"], d["why"]) for d in data["unidentified"]),
        flags={name: tuple(where) for name, where in data["flags"].items()},
    )
    return Calibration(
        device_id=data["device_id"],
        kind=data["kind"],
        capabilities=capabilities,
        parameters=tuple(
            Parameter(**{**p, "shape": tuple(p["shape"])}) for p in data["parameters"]
        ),
        estimates=estimates,
        held_out=HeldOut(**data["held_out"]),
        step=arrays["step"],
        seconds_per_pass=data["seconds_per_pass"],
        fitted_passes=data["fitted_passes"],
        recorded=data["recorded"],
    )
