"""A device with its twin running beside it, which can stand in while the device is away."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from twin.backend import (
    Backend,
    Capabilities,
    MinimalBackend,
    Ranged,
    Reading,
    Snapshot,
    Values,
    Written,
)
from twin.complete import complete
from twin.errors import ConfigError, DeviceUnavailable, PibTwinError, SnapshotError
from twin.fence import Fence
from twin.fidelity import require_alike
from twin.key import Key
from twin.plain import owned
from twin.shadowlog import Entry, encoded, gap

Answer = TypeVar("Answer")
OnLoss = Literal["twin", "raise"]


class Shadow:
    """`device`, with `twin` doing the same beside it: same drive, same key.

    To the outside it is the device: its capabilities, state version and readings. The
    gap of each call stands in `log` (the latest `keep` calls).

    on_loss: when the device stays away (DeviceUnavailable) for `retries` repeats of a
    call, "raise" passes the error on, and "twin" lets the twin answer from this call on,
    at no device time. Every `try_every`-th call then asks for the device: the dials
    turned meanwhile and the setting are written to it, it is ranged again if it was to
    be, and it answers from this very call on. A virtual clock is moved by the waits
    missed. While the device is away, its last version is counted on, and a snapshot is
    refused. OutcomeUnknown is always passed on: nobody knows what such a device holds.

    The ports of both must mean the same; their levels may differ. A twin that fails
    beside a working device is noted and does no harm.
    """

    def __init__(
        self,
        device: MinimalBackend,
        twin: MinimalBackend,
        *,
        on_loss: OnLoss = "raise",
        retries: int = 2,
        try_every: int = 10,
        keep: int = 100_000,
    ) -> None:
        if on_loss not in ("twin", "raise") or retries < 0 or try_every < 1 or keep < 1:
            raise ConfigError(
                "shadow: expected on_loss 'twin' or 'raise', retries >= 0, try_every >= 1 and "
                f"keep >= 1, got {on_loss!r}, {retries}, {try_every} and {keep}."
            )
        self._device: Backend = complete(device)
        self.twin = Fence(twin, name=f"twin of {device.capabilities.device_id}", retries=0)
        require_alike(self.twin, Fence(device, name=device.capabilities.device_id))
        self.log: deque[Entry] = deque(maxlen=keep)
        self.away = False
        self._on_loss, self._retries, self._try_every = on_loss, retries, try_every
        self._calls = self._calls_away = self._version = 0
        self._clock_s, self._missed_s, self._closed = 0.0, 0.0, False
        # What the device has to be told on its return.
        self._setting: Values | None = None
        self._dials: dict[str, Any] = {}
        self._ranging: Values | None = None

    @property
    def capabilities(self) -> Capabilities:
        return self._device.capabilities

    # ---- the contract ----------------------------------------------------

    def program(self, setting: Values, *, key: Key) -> Written:
        """Write to both."""
        self._setting = owned(setting)
        written, entry = self._asked(
            "program", key, lambda: self._device.program(owned(setting), key=key)
        )
        _, error = self._beside(lambda: self.twin.program(setting, key=key), entry)
        self._note(entry, twin_error=error)
        if written is None:
            return Written(state_version=self._next_version())
        self._version = written.state_version
        return written

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        """One pass of both; the device's reading, or the twin's while it is away."""
        act = self._device.forward
        reading, entry = self._asked(
            "forward",
            key,
            lambda: act(owned(drive), key=key, first_sample=first_sample, shots=shots),
        )
        shown, error = self._beside(
            lambda: self.twin.forward(drive, key=key, first_sample=first_sample, shots=shots), entry
        )
        if reading is None:
            assert shown is not None
            self._note(entry)
            return encoded(shown, self.capabilities.readings, self._version, self._clock_s)
        self._version, self._clock_s = reading.state_version, reading.clock_s
        between = None if shown is None else gap(reading, shown, self.capabilities.readings[0])
        self._note(entry, gap=between, twin_error=error)
        return reading

    def set_range(self, drive: Values, *, key: Key) -> Ranged:
        """Range both on `drive`, a twin that can."""
        ranged, entry = self._asked(
            "set_range", key, lambda: self._device.set_range(owned(drive), key=key)
        )
        error, found = "", None
        if self.twin.capabilities.rangeable:
            found, error = self._beside(lambda: self.twin.set_range(drive, key=key), entry)
        self._note(entry, twin_error=error)
        if ranged is not None:
            self._version = ranged.state_version
            return ranged
        self._ranging = owned(drive)
        ratio = 1.0 if found is None else found.ratio
        return Ranged(state_version=self._next_version(), ratio=ratio, passes=0)

    def adjust(self, dial: str, value: Any, *, key: Key) -> int:
        """Turn a dial on both, on a twin that has it."""
        version, entry = self._asked(
            "adjust", key, lambda: self._device.adjust(dial, owned(value), key=key)
        )
        error = ""
        if any(d.name == dial and not d.read_only for d in self.twin.capabilities.dials):
            _, error = self._beside(lambda: self.twin.adjust(dial, value, key=key), entry)
        self._note(entry, twin_error=error)
        if version is not None:
            self._version = version
            return version
        self._dials[dial] = owned(value)
        return self._next_version()

    def wait(self, seconds: float) -> None:
        """Let time pass for both."""
        _, entry = self._asked("wait", None, lambda: self._device.wait(seconds))
        if entry["answered_by"] == "twin":
            self._missed_s += seconds
        _, error = self._beside(lambda: self.twin.wait(seconds), entry)
        self._note(entry, twin_error=error)

    def snapshot(self) -> Snapshot:
        """The device's, and the twin's and the setting under "shadow ..." names."""
        self._require_device("a snapshot")
        own = self._device.snapshot()
        arrays, values = dict(own.arrays), dict(own.values)
        if self.twin.capabilities.restorable:
            twin = self.twin.snapshot()
            arrays |= {f"shadow twin {name}": array for name, array in twin.arrays.items()}
            values |= {f"shadow twin {name}": value for name, value in twin.values.items()}
        if self._setting is not None:
            ports, setting = self.capabilities.settings, self._setting
            by_name = setting if isinstance(setting, Mapping) else {ports[0].name: setting}
            arrays |= {f"shadow setting {name}": owned(v) for name, v in by_name.items()}
        return Snapshot(own.device_id, arrays, values)

    def restore(self, snapshot: Snapshot) -> None:
        """Both, where the twin can; SnapshotError for one taken without a shadow."""
        self._require_device("a restore")
        (arrays, twin_arrays), (values, twin_values) = (
            _parted(part, "shadow twin ") for part in (snapshot.arrays, snapshot.values)
        )
        arrays, setting = _parted(arrays, "shadow setting ")
        restorable = self.twin.capabilities.restorable
        if restorable and not (twin_arrays or twin_values):
            raise SnapshotError(
                f"shadow of {self.capabilities.device_id}: the snapshot lacks the twin's state. "
                "Take it from this device inside the same wrapper."
            )
        self._device.restore(Snapshot(snapshot.device_id, arrays, values))
        if restorable:
            twin_id = self.twin.capabilities.device_id
            self.twin.restore(Snapshot(twin_id, twin_arrays, twin_values))
        self._setting = owned(setting) or None

    def close(self) -> None:
        """Close device and twin, once each, also a device that went away."""
        if self._closed:
            return
        self._closed = True
        try:
            self._device.close()
        finally:
            self.twin.close()

    # ---- who answers -------------------------------------------------------

    def _asked(
        self, kind: str, key: Key | None, act: Callable[[], Answer]
    ) -> tuple[Answer | None, dict[str, Any]]:
        """The device's answer, None where the twin is to give it; and the entry so far.

        Without a key there is none to write with, and the device is not asked to return.
        """
        self._calls += 1
        entry: dict[str, Any] = {"call": self._calls, "kind": kind, "answered_by": "device"}
        if self.away:
            self._calls_away += 1
            due = key is not None and self._calls_away % self._try_every == 0
            if key is None or not due or not self._returned(key):
                return None, entry | {"answered_by": "twin"}
            entry["event"] = "back"
        try:
            return self._tried(act), entry
        except DeviceUnavailable:
            if self._on_loss == "raise":
                raise
            self.away, self._calls_away = True, 0
            return None, entry | {"answered_by": "twin", "event": "lost"}

    def _tried(self, act: Callable[[], Answer]) -> Answer:
        for _ in range(self._retries):
            try:
                return act()
            except DeviceUnavailable:
                continue
        return act()

    def _returned(self, key: Key) -> bool:
        """Whether the device is there again, and holds what it should."""

        def labelled(name: str) -> Key:
            return key.child("return", name).for_call(f"{key.call_id}-return-{name}")

        try:
            for name in list(self._dials):
                self._device.adjust(name, owned(self._dials[name]), key=labelled(name))
                del self._dials[name]
            if self.capabilities.clock == "virtual" and self._missed_s:
                self._device.wait(self._missed_s)
            self._missed_s = 0.0
            # Also without a write meanwhile: what went away may have lost its setting.
            if self._setting is not None:
                self._device.program(owned(self._setting), key=labelled("setting"))
            if self._ranging is not None:
                self._device.set_range(owned(self._ranging), key=labelled("range"))
                self._ranging = None
        except DeviceUnavailable:
            return False
        self.away = False
        return True

    def _beside(
        self, act: Callable[[], Answer], entry: Mapping[str, Any]
    ) -> tuple[Answer | None, str]:
        """The twin's answer, or why there is none; an error if it is the one to answer."""
        try:
            return act(), ""
        except PibTwinError as error:
            if entry["answered_by"] == "twin":
                raise
            return None, str(error)

    def _note(self, entry: dict[str, Any], **more: Any) -> None:
        self.log.append(Entry(**entry, **more))

    def _next_version(self) -> int:
        self._version += 1
        return self._version

    def _require_device(self, what: str) -> None:
        if self.away:
            raise DeviceUnavailable(
                f"shadow of {self.capabilities.device_id}: {what} needs the device, which is away. "
                "Wait until it answers again."
            )


def _parted(items: Mapping[str, Any], head: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those whose name does not begin with `head`, and those that do, without it."""
    rest = {name: item for name, item in items.items() if not name.startswith(head)}
    under = {name[len(head) :]: item for name, item in items.items() if name.startswith(head)}
    return rest, under
