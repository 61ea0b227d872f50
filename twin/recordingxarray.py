"""A recording as an xarray Dataset, and the engine that xarray finds it by.

Dimensions: call (all calls in order); sample (one row of a forward call); pass
(one shot of a sample); write (one program call). Samples of all shapes of batch
stand one below the other: sample_call and pass_sample say where they belong, so
nothing is padded. Values are dimensionless; attributes give the SI full scale.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from xarray.backends import BackendEntrypoint

from twin.backend import Port
from twin.blocks import HEADER
from twin.calls import Call
from twin.recording import Recording
from twin.samples import by_port, samples_of

UNKNOWN_VERSION = -1

Variable = tuple[tuple[str, ...], Any, dict[str, Any]]


class RecordingEntrypoint(BackendEntrypoint):
    """``xarray.open_dataset(folder, engine="pib-twin")``."""

    description = "Recordings of pib-twin"
    open_dataset_parameters = ("filename_or_obj", "drop_variables")

    def open_dataset(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None
    ) -> xr.Dataset:
        """The whole recording, in memory; DataError if it is damaged."""
        opened = as_dataset(Recording.load(os.fspath(filename_or_obj)))
        dropped = [drop_variables] if isinstance(drop_variables, str) else drop_variables
        return opened.drop_vars(list(dropped or ()), errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        return (Path(filename_or_obj) / HEADER).is_file()


def as_dataset(recording: Recording) -> xr.Dataset:
    """All calls by number; drives, codes and settings stacked (see the module).

    A forward or program call that failed, or was not answered as the ports
    declare, is among the calls and not among samples or writes.
    """
    stacks = _Stacks()
    rows = []
    for call in recording.calls:
        rows.append({name: read(call) for name, (read, _, _) in COLUMNS.items()})
        stacks.add(call, recording)
    variables: dict[str, Variable] = {
        name: (("call",), np.array([row[name] for row in rows], dtype), attributes)
        for name, (_, dtype, attributes) in COLUMNS.items()
    }
    variables |= stacks.variables(recording)
    variables |= _ratios(recording, stacks.ratios)
    attributes = {
        "device_id": recording.device_id,
        "closed": int(recording.closed),
        **{f"version_of_{name}": number for name, number in recording.versions.items()},
    }
    if recording.created_unix_s is not None:
        attributes["created_unix_s"] = recording.created_unix_s
    return xr.Dataset(variables, {"call": np.arange(len(rows))}, attributes)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _known(version: int | None) -> int:
    return UNKNOWN_VERSION if version is None else version


def _time(name: str) -> Callable[[Call], float]:
    return lambda call: _number(getattr(call.timing, name, None))


def _date(name: str) -> Callable[[Call], np.datetime64]:
    def date(call: Call) -> np.datetime64:
        seconds = getattr(call.timing, name, None)
        return np.datetime64("NaT" if seconds is None else round(seconds * 1e9), "ns")

    return date


_VERSION = {"long_name": "state version", "unknown": UNKNOWN_VERSION}
_SECONDS = {"units": "s"}
_MONOTONIC = {"units": "s", "comment": "of a clock that is never set; only differences mean a time"}

COLUMNS: Mapping[str, tuple[Callable[[Call], Any], Any, dict[str, Any]]] = {
    "kind": (lambda c: c.kind, object, {}),
    "id": (lambda c: _text(c.id), object, {"long_name": "call id, the same when repeated"}),
    "seed": (lambda c: _text(c.key and c.key.seed), object, {"long_name": "seed of the key"}),
    "key": (lambda c: "/".join(map(str, c.key.path)) if c.key else "", object, {}),
    "began": (_date("began_unix_s"), "datetime64[ns]", {}),
    "ended": (_date("ended_unix_s"), "datetime64[ns]", {}),
    "began_monotonic": (_time("began_monotonic_s"), float, _MONOTONIC),
    "ended_monotonic": (_time("ended_monotonic_s"), float, _MONOTONIC),
    "version_before": (lambda c: _known(c.version_before), np.int64, _VERSION),
    "version_after": (lambda c: _known(c.version_after), np.int64, _VERSION),
    "device_seconds": (lambda c: c.device_seconds, float, _SECONDS),
    "joules": (lambda c: c.joules, float, {"units": "J"}),
    "passes": (lambda c: c.passes, np.int64, {"long_name": "samples x shots"}),
    "saturated": (lambda c: _number(getattr(c.answer, "saturated", None)), float, {"units": "1"}),
    "clock": (lambda c: _number(getattr(c.answer, "clock_s", None)), float, _SECONDS),
    "wait": (lambda c: _number(c.inputs.get("seconds")), float, _SECONDS),
    "dial": (lambda c: _text(c.inputs.get("dial")), object, {}),
    "value": (lambda c: _number(c.inputs.get("value")), float, {"comment": "maps are left out"}),
    "error": (lambda c: c.error[0] if c.error else "", object, {}),
    "message": (lambda c: c.error[1] if c.error else "", object, {}),
}


@dataclass
class _Stacks:
    """What is collected in one walk over the calls."""

    calls: int = 0
    samples: int = 0
    parts: dict[str, list[np.ndarray]] = field(default_factory=dict)
    ratios: dict[int, Any] = field(default_factory=dict)

    def add(self, call: Call, recording: Recording) -> None:
        """Collect from the next call."""
        capabilities = recording.capabilities
        if hasattr(call.answer, "ratio"):
            self.ratios[self.calls] = call.answer.ratio
        samples = samples_of(call, capabilities)
        if samples is not None:
            batch, shots = samples.batch, samples.shots
            first = int(call.inputs.get("first_sample") or 0)
            self._put("sample_call", np.full(batch, self.calls))
            self._put("sample_number", first + np.arange(batch))
            self._put("pass_sample", np.tile(self.samples + np.arange(batch), shots))
            self._put("pass_shot", np.repeat(np.arange(shots), batch))
            for name, drive in samples.drives.items():
                self._put(f"drive_{name}", _array(drive))
            for name, codes in samples.codes.items():
                self._put(f"codes_{name}", _array(codes.flatten(0, 1)))
            self.samples += batch
        if call.kind == "program" and call.error is None:
            setting = by_port(call.inputs.get("setting"), capabilities.settings)
            if all(_is(setting.get(p.name), p) for p in capabilities.settings):
                self._put("write_call", np.full(1, self.calls))
                for port in capabilities.settings:
                    self._put(f"setting_{port.name}", _array(setting[port.name])[None])
        self.calls += 1

    def _put(self, name: str, values: np.ndarray) -> None:
        self.parts.setdefault(name, []).append(values)

    def variables(self, recording: Recording) -> dict[str, Variable]:
        capabilities = recording.capabilities
        made: dict[str, Variable] = {}
        for name, dimension, about in (
            ("sample_call", "sample", "number of the call that the sample was part of"),
            ("sample_number", "sample", "first_sample + row: what names the sample's noise"),
            ("pass_sample", "pass", "position along the dimension sample"),
            ("pass_shot", "pass", "number of the shot, from 0"),
            ("write_call", "write", "number of the call that wrote the setting"),
        ):
            made[name] = ((dimension,), self._joined(name, np.int64, ()), {"long_name": about})
        for kind, dimension, ports in (
            ("drive", "sample", capabilities.drives),
            ("codes", "pass", capabilities.readings),
            ("setting", "write", capabilities.settings),
        ):
            for port in ports:
                name = f"{kind}_{port.name}"
                axes = tuple(f"{name}_{axis}" for axis in range(len(port.shape)))
                dtype = str(port.dtype) if kind == "codes" else "float32"
                values = self._joined(name, dtype, port.shape)
                made[name] = ((dimension, *axes), values, _about(port, kind))
        return made

    def _joined(self, name: str, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        # Taken out part by part: two copies of a long recording would not fit.
        parts = self.parts.pop(name, None)
        return np.concatenate(parts) if parts else np.zeros((0, *shape), dtype)


def _array(values: Tensor) -> np.ndarray:
    # numpy has no bfloat16.
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _is(value: Any, port: Port) -> bool:
    return isinstance(value, Tensor) and tuple(value.shape) == port.shape


def _about(port: Port, kind: str) -> dict[str, Any]:
    """units belong to value x full_scale; a code is worth `step` values."""
    about: dict[str, Any] = {
        "units": "1",
        "full_scale": port.full_scale,
        "full_scale_units": port.unit,
        "low": port.low,
        "high": port.high,
    }
    return {**about, "step": port.step} if kind == "codes" else about


def _ratios(recording: Recording, ratios: Mapping[int, Any]) -> dict[str, Variable]:
    """The range in force / nominal range of each call that told one, NaN elsewhere."""
    count, main = len(recording.calls), recording.capabilities.readings[:1]
    about = {"units": "1", "long_name": "range in force / nominal range"}
    if not any(isinstance(ratio, Tensor) and ratio.numel() > 1 for ratio in ratios.values()):
        values = np.full(count, np.nan)
        for number, ratio in ratios.items():
            values[number] = float(ratio)
        return {"ratio": (("call",), values, about)}
    shape = main[0].shape
    values = np.full((count, *shape), np.nan)
    for number, ratio in ratios.items():
        if _broadcasts(ratio, shape):
            values[number] = np.broadcast_to(np.asarray(ratio, float), shape)
    axes = tuple(f"codes_{main[0].name}_{axis}" for axis in range(len(shape)))
    return {"ratio": (("call", *axes), values, about)}


def _broadcasts(ratio: Any, shape: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(np.shape(ratio), shape) == shape
    except ValueError:
        return False
