"""Whether the state of a device can still be told from the calls that it answered."""

from __future__ import annotations

from twin.calls import Call
from twin.errors import DataError

REFUSED = frozenset(
    {
        "ConfigError", "DeviceUnavailable", "DialError", "DriveError", "SettingError",
        "SnapshotError", "UnknownName", "Unsupported",
    }
)  # fmt: skip
"""Errors after which the device has not acted; after any other one it may have."""

HARMLESS = ("forward", "snapshot")
"""Calls that leave the state as it is, whatever became of them."""


class Doubts:
    """What calls of unknown outcome may have changed, until a later call settles it."""

    def __init__(self) -> None:
        self._open: dict[str, str] = {}

    def follow(self, call: Call) -> None:
        """Go on to after `call`, which failed or not."""
        if call.error is None:
            self._settle(call)
        elif call.kind not in HARMLESS and call.error[0] not in REFUSED:
            self._open[_subject(call)] = call.error[0]

    def require_none(self, device_id: str) -> None:
        """DataError if a call may, or may not, have changed what is read now."""
        for subject, error in self._open.items():
            raise DataError(
                f"{device_id}: expected to know the state behind each reading, got readings after "
                f"a call of {subject} that ended in {error}: the device may have done it or not. "
                f"Record again, and repeat a {subject} that ends so before the next reading."
            )

    def _settle(self, call: Call) -> None:
        # A whole new write makes up for what was written, rested or ranged before it, but
        # a dial stays where it is, and what a snapshot brought back reaches further still.
        settled = [_subject(call)]
        settled += ["wait", "set_range"] if call.kind == "program" else []
        for subject in settled:
            self._open.pop(subject, None)


def _subject(call: Call) -> str:
    return f"adjust of {call.inputs.get('dial')!r}" if call.kind == "adjust" else call.kind
