"""Typed errors of the whole toolkit.

Every message says four things: what was expected, what came, in which unit,
and what to do about it. All errors derive from :class:`PibTwinError`, so a
laboratory script can catch the family and still tell its members apart.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PibTwinError(Exception):
    """Root of all errors raised on purpose by this toolkit."""


class ConfigError(PibTwinError, ValueError):
    """A configuration has an unknown key or a value outside its range."""


class UnknownName(ConfigError):
    """A backend, preset, data set or dial of that name does not exist."""


class DriveError(PibTwinError, ValueError):
    """What should go into a backend has a wrong shape, value or type."""


class SettingError(PibTwinError, ValueError):
    """What should be programmed has a wrong shape, value or type."""


class DialError(PibTwinError, ValueError):
    """A dial is unknown, read-only, or turned out of its range."""


class ReadingError(PibTwinError, ValueError):
    """A backend returned something its own ports do not allow."""


class SnapshotError(PibTwinError, ValueError):
    """A snapshot belongs to another device or is incomplete."""


class Unsupported(PibTwinError, NotImplementedError):
    """The backend declares that it cannot do this."""


class DeviceUnavailable(PibTwinError, ConnectionError):
    """The device did not act; the same call may be tried again."""


class OutcomeUnknown(PibTwinError, ConnectionError):
    """The device may or may not have acted; never retried automatically."""


class ProcessStateError(PibTwinError, RuntimeError):
    """A backend changed the state of the process (default dtype, threads)."""


class DataError(PibTwinError, ValueError):
    """A data file is missing, damaged or of the wrong kind."""


class ReplayError(PibTwinError, LookupError):
    """A replay was asked something else than what was recorded."""


class CheckpointError(PibTwinError, ValueError):
    """A checkpoint is missing, damaged or of another run."""


class ObjectiveError(PibTwinError, ValueError):
    """A batch on which a loss is not defined."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: the nearest known one, then all of them."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(options) if options else 'none'}."
