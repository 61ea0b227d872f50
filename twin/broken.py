"""A backend with faults laid over it in software, for hardware that has no dial for them.

The dials have the names and meanings of those of the simulated crossbar, so one
fault map drives a simulated chip and a healthy real one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from twin.backend import (
    Backend,
    Capabilities,
    Dial,
    MinimalBackend,
    Port,
    Ranged,
    Reading,
    Snapshot,
    Values,
    Written,
)
from twin.checks import checked, dial_value
from twin.complete import complete
from twin.errors import (
    ConfigError,
    DialError,
    DriveError,
    SettingError,
    SnapshotError,
    Unsupported,
)
from twin.faultdials import COLUMNS, lacking
from twin.key import Key

Answer = TypeVar("Answer", Written, Reading, Ranged)
VERSIONS = ("fault version", "fault device_version")
"""What a snapshot holds besides the device's own values."""


class Broken:
    """`backend` with the fault dials that it lacks, emulated outside of it.

    dead_row: drive 0. dead_column: code 0. stuck_column_code: that code, x
    code_weight. column_gain: on the code. stuck_cell_level: the setting written
    is what the pair (max(w, 0), max(-w, 0)) would then hold, plus - minus,
    clipped to [-1, 1]. `saturated` also counts codes that the gain clips.

    Where this differs from a fault inside the device:
    - a gain acts after the converter: it undoes no saturation, enlarges the
      steps (a code is off by up to 1 + gain / 2), clips the sum of a column's
      converters instead of each, and escapes set_range, which also sees
      columns that are dead or stuck here;
    - a dead column also loses its noise and the offset of its converter;
    - a stuck cell holds from the next program() on, with that write's errors
      and drift; turning the dial writes nothing.

    Not emulated: faults of further ports; cells where the setting is not one
    port of [-1, 1]; a row or column whose port has no 0; columns of a backend
    that has one of the three column dials, since their order matters; and
    never_verifies. These dials are not declared.

    code_weight: what one code of every converter behind a column adds up to,
    1 unless a device adds up the codes of several (tiles, bit slices).
    The device_id is that of the backend after "broken+".
    """

    def __init__(self, backend: MinimalBackend, *, code_weight: int = 1) -> None:
        if isinstance(code_weight, bool) or not isinstance(code_weight, int) or code_weight < 1:
            raise ConfigError(
                f"broken: code_weight must be a whole number >= 1, got {code_weight!r}."
            )
        self._backend: Backend = complete(backend)
        self._weight = code_weight
        own = backend.capabilities
        self._added = {dial.name: dial for dial in lacking(own, code_weight)}
        # Float64 holds every code, and the value that means healthy, exactly.
        self._maps = {
            name: torch.full(dial.shape, dial.ideal, dtype=torch.float64)
            for name, dial in self._added.items()
        }
        self.capabilities: Capabilities = replace(
            own,
            device_id=f"broken+{own.device_id}",
            dials=(*own.dials, *self._added.values()),
        )
        # With no dial here, all of the state is the backend's, be it another Broken.
        self._versions = VERSIONS if self._added else ()
        # Turns of the dials here, and the device's version when it last told it.
        self._turns = self._told_version = 0

    # ---- the contract ----------------------------------------------------

    def program(self, setting: Values, *, key: Key) -> Written:
        """Write `setting` as pairs with the stuck cells of the map would hold it."""
        return self._told(self._backend.program(self._held(setting), key=key))

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        """One pass with dead rows at drive 0; column faults act on its codes."""
        reading = self._backend.forward(
            self._driven(drive), key=key, first_sample=first_sample, shots=shots
        )
        return self._told(self._coded(reading))

    def set_range(self, drive: Values, *, key: Key) -> Ranged:
        """The device's own ranging: it sees dead rows, but no emulated column fault."""
        return self._told(self._backend.set_range(self._driven(drive), key=key))

    def adjust(self, dial: str, value: Any, *, key: Key) -> int:
        """Turn a dial, here or of the device. Emulated faults draw nothing."""
        declared = self.capabilities.dial(dial)
        if dial in self._added:
            self._maps[dial] = self._map(declared, value)
            self._turns += 1
        else:
            self._told_version = self._backend.adjust(dial, value, key=key)
        return self._told_version + self._turns

    def wait(self, seconds: float) -> None:
        """Let `seconds` pass on the device."""
        self._backend.wait(seconds)

    def snapshot(self) -> Snapshot:
        """The device's own snapshot, and each emulated map as array 'fault NAME'."""
        inner = self._backend.snapshot()
        maps = {f"fault {name}": value.clone() for name, value in self._maps.items()}
        versions = dict(zip(self._versions, (self._turns, self._told_version), strict=False))
        return Snapshot(
            self.capabilities.device_id, {**inner.arrays, **maps}, {**inner.values, **versions}
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Return device and maps to a state they had; SnapshotError otherwise."""
        self._require_own(snapshot)
        arrays, values = dict(snapshot.arrays), dict(snapshot.values)
        maps = {name: arrays.pop(f"fault {name}") for name in self._maps}
        versions = [int(values.pop(name)) for name in self._versions] or [0, 0]
        self._backend.restore(Snapshot(self._backend.capabilities.device_id, arrays, values))
        self._maps = {
            name: value.to("cpu", torch.float64, copy=True) for name, value in maps.items()
        }
        self._turns, self._told_version = versions

    def close(self) -> None:
        """Leave the device safe."""
        self._backend.close()

    # ---- the faults ------------------------------------------------------

    def _held(self, setting: Values) -> Values:
        """What is written instead of `setting`."""
        level = self._maps.get("stuck_cell_level")
        if level is None or not bool((level >= 0).any()):
            return setting
        ports = self.capabilities.settings
        given = checked(setting, ports, self.capabilities.device_id, "setting", SettingError)
        port = ports[0]
        weights = given[port.name] if isinstance(given, Mapping) else given
        level = level.to(weights)
        pair = torch.stack([weights.clamp(min=0), (-weights).clamp(min=0)])
        plus, minus = torch.where(level >= 0, level, pair)
        held = (plus - minus).clamp_(port.low, port.high)
        return {port.name: held} if isinstance(given, Mapping) else held

    def _driven(self, drive: Values) -> Values:
        """`drive` with nothing on dead rows."""
        dead = self._maps.get("dead_row")
        if dead is None or not bool(dead.any()):
            return drive
        ports = self.capabilities.drives
        given = checked(
            drive, ports, self.capabilities.device_id, "drive", DriveError, batched=True
        )
        name = ports[0].name
        first = given[name] if isinstance(given, Mapping) else given
        first = first.masked_fill(dead.to(first.device) > 0, 0.0)
        return {**given, name: first} if isinstance(given, Mapping) else first

    def _coded(self, reading: Reading) -> Reading:
        """The reading as it would come from broken columns."""
        port, maps = self.capabilities.readings[0], self._maps
        given = torch.as_tensor(reading.codes).detach()
        broken = [n for n in COLUMNS if n in maps and bool((maps[n] != self._added[n].ideal).any())]
        # Codes of a wrong shape stay so: broadcasting would hide a driver's defect.
        if not broken or given.shape[given.ndim - len(port.shape) :] != port.shape:
            return reading
        gain, dead, stuck = (maps[name].to(given.device) for name in COLUMNS)
        codes = given.double()
        gained = torch.where(gain == 1, codes, self._gained(codes, gain))
        clipped = _at_end(gained, port) & ~_at_end(codes, port) & (dead <= 0)
        codes = gained.masked_fill(dead > 0, 0.0)
        fixed = (stuck * self._weight).clamp(port.code_low, port.code_high)
        codes = torch.where(stuck > self._added[COLUMNS[2]].low, fixed, codes)
        more = float(clipped.double().mean()) if clipped.numel() else 0.0
        return replace(
            reading, codes=codes.to(given.dtype), saturated=min(1.0, reading.saturated + more)
        )

    def _gained(self, codes: Tensor, gain: Tensor) -> Tensor:
        port = self.capabilities.readings[0]
        codes = codes * gain
        return (codes.round() if port.is_coded else codes).clamp(port.code_low, port.code_high)

    # ---- what it checks ----------------------------------------------------

    def _map(self, dial: Dial, value: Any) -> Tensor:
        """A copy of `value` as the map of an emulated dial; DialError otherwise."""
        where = self.capabilities.device_id
        shown = torch.as_tensor(dial_value(dial, value, where)).to("cpu", torch.float64)
        coded = dial.name == "stuck_column_code" and self.capabilities.readings[0].is_coded
        bad = shown != shown.round()
        if (coded or dial.name in ("dead_row", "dead_column")) and bool(bad.any()):
            raise DialError(
                f"{where}: dial {dial.name!r} must be whole, from {dial.low:g} to {dial.high:g}, "
                f"got {shown[bad].flatten()[0].item()}. Round it."
            )
        return shown

    def _require_own(self, snapshot: Snapshot) -> None:
        where = self.capabilities.device_id
        if not self.capabilities.restorable:
            raise Unsupported(f"{where} cannot restore a snapshot (restorable is False).")
        if snapshot.device_id != where:
            raise SnapshotError(
                f"{where}: the snapshot is of {snapshot.device_id!r}. Take it from this device, "
                "inside the same wrapper."
            )
        shapes = {f"fault {name}": dial.shape for name, dial in self._added.items()}
        wrong = [
            name
            for name, shape in shapes.items()
            if name not in snapshot.arrays or tuple(snapshot.arrays[name].shape) != shape
        ]
        wrong += [name for name in self._versions if name not in snapshot.values]
        if wrong:
            raise SnapshotError(
                f"{where}: the snapshot lacks, or has in another shape: {', '.join(wrong)}. "
                "Take it from this device, inside the same wrapper."
            )

    def _told(self, answer: Answer) -> Answer:
        self._told_version = answer.state_version
        return replace(answer, state_version=answer.state_version + self._turns)


def _at_end(codes: Tensor, port: Port) -> Tensor:
    return (codes <= port.code_low) | (codes >= port.code_high)
