"""The state that recorded calls leave a device in, as far as their inputs tell it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from twin.backend import Capabilities
from twin.calls import Call
from twin.plain import pack
from twin.samples import by_port

State = dict[str, str]


class Track:
    """Follows calls and names the state they leave a device in."""

    def __init__(
        self, capabilities: Capabilities, snapshots: Mapping[str, State] | None = None
    ) -> None:
        self._capabilities = capabilities
        self._state: State = {}
        self.snapshots = dict(snapshots or {})

    def copy(self) -> Track:
        other = Track(self._capabilities, self.snapshots)
        other._state = dict(self._state)
        return other

    @property
    def name(self) -> str:
        """Equal for equal states."""
        return json.dumps(self._state, sort_keys=True)

    @property
    def told(self) -> str:
        parts = (f"{what} {value[:12]}" for what, value in sorted(self._state.items()))
        return ", ".join(parts) or "as it was when recording began"

    def follow(self, call: Call) -> None:
        """Go on to the state after `call`."""
        if call.error is not None:
            if call.error[0] == "OutcomeUnknown" and call.kind != "forward":
                self._state["outcome unknown"] = fingerprint(call.error[1])
            return
        if call.kind == "program":
            setting = by_port(call.inputs["setting"], self._capabilities.settings)
            self._state = {k: v for k, v in self._state.items() if k != "waited"}
            self._state["setting"] = fingerprint(setting)
        elif call.kind == "adjust":
            self._state[f"dial {call.inputs['dial']!r}"] = fingerprint(call.inputs["value"])
        elif call.kind == "set_range":
            drive = by_port(call.inputs["drive"], self._capabilities.drives)
            self._state["range"] = fingerprint(drive)
        elif call.kind == "wait" and call.inputs["seconds"]:
            # Since the last write: a device relaxes from there.
            waited = float(self._state.get("waited", 0.0)) + call.inputs["seconds"]
            self._state["waited"] = repr(waited)
        elif call.kind == "snapshot" and call.answer is not None:
            self.snapshots.setdefault(fingerprint(call.answer), dict(self._state))
        elif call.kind == "restore":
            which = fingerprint(call.inputs["snapshot"])
            self._state = dict(self.snapshots.get(which, {"restored": which}))


def fingerprint(value: Any) -> str:
    """A digest that is equal for equal plain data (a number is one of any type)."""
    tensors: dict[str, Tensor] = {}
    number = isinstance(value, int | float)
    structure = pack(float(value) if number else value, tensors)
    hashed = hashlib.sha256(json.dumps(structure, sort_keys=True).encode())
    for name, tensor in tensors.items():
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()
