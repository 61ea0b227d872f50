"""Errors of the remote door, and how every typed error travels as (status, name).

Imports twin.errors only.
"""

from __future__ import annotations

from twin import errors
from twin.errors import PibTwinError


class Malformed(PibTwinError, ValueError):
    """A message that is not of the protocol, or breaks one of its limits (400)."""


class Unauthorised(PibTwinError, PermissionError):
    """The server wants a token, or another one (401)."""


class UnknownModel(PibTwinError, LookupError):
    """The server has no such model or page (404)."""


class Outdated(PibTwinError, RuntimeError):
    """The device is not in the state the caller expects; nothing was done (409)."""


class Repeated(PibTwinError, RuntimeError):
    """A request id was used again for another request; nothing was done (409)."""


class PastDeadline(errors.DeviceUnavailable):
    """The call did not begin before its deadline; nothing was done (504)."""


class StillRunning(errors.DeviceUnavailable):
    """The answer is not ready; ask again with the same request id (504)."""


class Busy(errors.DeviceUnavailable):
    """Too many calls wait for the device; nothing was done (503)."""


class TooLarge(PibTwinError, ValueError):
    """A message is longer than the server's limit (413)."""


OWN = (
    Malformed,
    Unauthorised,
    UnknownModel,
    Outdated,
    Repeated,
    PastDeadline,
    StillRunning,
    Busy,
    TooLarge,
)

STATUS: dict[type[PibTwinError], int] = {
    Unauthorised: 401,
    UnknownModel: 404,
    Outdated: 409,
    Repeated: 409,
    TooLarge: 413,
    PastDeadline: 504,
    StillRunning: 504,
    errors.OutcomeUnknown: 502,
    errors.ReadingError: 502,
    errors.ProcessStateError: 502,
    errors.DeviceUnavailable: 503,
}
"""HTTP status of an error, first match; all others are the caller's and travel as 400."""


def status_of(error: PibTwinError) -> int:
    """The HTTP status under which an error is told."""
    return next((code for kind, code in STATUS.items() if isinstance(error, kind)), 400)


def named(error: PibTwinError) -> str:
    """The name under which an error travels: its own, or its nearest known parent's."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in KNOWN)


KNOWN: dict[str, type[PibTwinError]] = {kind.__name__: kind for kind in OWN} | {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, PibTwinError)
}
"""Names that may come over the network, and what they stand for."""


def rebuilt(name: object, message: object) -> PibTwinError:
    """The error that a server told of; Malformed if it has no known name."""
    kind = KNOWN.get(name) if isinstance(name, str) else None
    if kind is None:
        return Malformed(f"the server refused the request: {str(message)[:500]}")
    return kind(str(message)[:4000])
