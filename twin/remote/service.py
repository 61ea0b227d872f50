"""What a served unit does with a call: the same checks as the fence, then the device.

Hardware limits are enforced here, whatever a client sends: ports, dials, the
largest batch, and the size of the answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from twin.backend import Backend, Capabilities, Values
from twin.checks import batch_of, checked, dial_value
from twin.errors import (
    DeviceUnavailable,
    DialError,
    DriveError,
    OutcomeUnknown,
    PibTwinError,
    ReadingError,
    SettingError,
    SnapshotError,
    Unsupported,
)
from twin.remote.errors import Malformed, named, status_of
from twin.remote.memory import Reply
from twin.remote.packing import Call, pack_answer
from twin.remote.wire import Limits, write_message

LONGEST = 2000
"""Characters of an error that travel."""
LONGEST_WAIT_S = {"virtual": 1e9, "wall": 3600.0}
"""A wait on the wall clock keeps everybody else waiting."""


def checked_call(call: Call, capabilities: Capabilities, limits: Limits) -> Call:
    """`call` with its arguments checked against the device; typed errors otherwise."""
    where, given = capabilities.device_id, dict(call.arguments)
    if call.kind in ("forward", "set_range"):
        given["drive"] = _drive(given["drive"], capabilities)
        if call.kind == "forward":
            _require_answerable(given, capabilities, limits)
    elif call.kind == "program":
        if not capabilities.programmable:
            raise Unsupported(f"{where}: this backend has nothing to program.")
        ports = capabilities.settings
        given["setting"] = checked(given["setting"], ports, where, "setting", SettingError)
    elif call.kind == "adjust":
        given["value"] = dial_value(capabilities.dial(given["dial"]), given["value"], where)
    elif call.kind == "wait" and not 0 <= given["seconds"] <= LONGEST_WAIT_S[capabilities.clock]:
        longest = LONGEST_WAIT_S[capabilities.clock]
        raise DialError(f"{where}: a wait must be 0 to {longest:g} s, got {given['seconds']}.")
    return Call(kind=call.kind, arguments=given, key=call.key)


def _drive(drive: Values, capabilities: Capabilities) -> Values:
    where = capabilities.device_id
    clean = checked(drive, capabilities.drives, where, "drive", DriveError, batched=True)
    batch, most = batch_of(clean), capabilities.max_batch
    if most is not None and batch > most:
        raise DriveError(f"{where}: one call takes at most {most} samples, got {batch}. Split it.")
    return clean


def _require_answerable(
    given: Mapping[str, Any], capabilities: Capabilities, limits: Limits
) -> None:
    samples = batch_of(given["drive"]) * (given["shots"] or 1)
    each = sum(math.prod(p.shape) * p.torch_dtype.itemsize for p in capabilities.readings)
    if samples * each > limits.body_bytes - limits.header_bytes:
        raise DriveError(
            f"{capabilities.device_id}: the reading of {samples} samples and shots would take "
            f"{samples * each} bytes, a reply at most {limits.body_bytes}. Ask in smaller batches."
        )


def performed(
    call: Call,
    backend: Backend,
    version: int | None,
    header: Mapping[str, Any],
    binary: bool,
) -> tuple[Reply, int | None]:
    """Make a checked call; the reply with the answer or the error, the new version.

    Only DeviceUnavailable is raised: the device did not act, and may be asked
    again under the same request id.
    """
    capabilities = backend.capabilities
    try:
        answer = _answer(call, backend)
        version = _version_after(call, answer, version)
        packed = pack_answer(answer, call, capabilities)
        part = {**header, "parameters": packed.parameters}
        written = write_message(part, packed.tensors, "outputs", binary)
    except DeviceUnavailable:
        raise
    except Malformed as error:
        return error_reply(ReadingError(f"{capabilities.device_id}: {error}")), version
    except PibTwinError as error:
        return error_reply(error), version
    except Exception as error:
        text = f"{capabilities.device_id}: its driver raised {type(error).__name__}: {error}"
        return error_reply(OutcomeUnknown(f"{text}. Look at the device.")), None
    return Reply(200, written.content, written.header_length), version


def _answer(call: Call, backend: Backend) -> Any:
    given = call.arguments
    match call.kind:
        case "wait":
            return backend.wait(given["seconds"])
        case "snapshot":
            return backend.snapshot()
        case "restore":
            return _restored(backend, given["snapshot"])
        case _:
            return getattr(backend, call.kind)(**given, key=call.key)


def _restored(backend: Backend, snapshot: Any) -> None:
    """Restore; a snapshot that breaks the driver is refused and the old state kept."""
    before = backend.snapshot() if backend.capabilities.restorable else None
    try:
        backend.restore(snapshot)
    except PibTwinError:
        raise
    except Exception as error:
        if before is None:
            raise
        backend.restore(before)
        raise SnapshotError(
            f"{backend.capabilities.device_id}: not a snapshot of this device "
            f"({type(error).__name__}). Its state is as before."
        ) from None


def _version_after(call: Call, answer: Any, version: int | None) -> int | None:
    if call.kind == "adjust":
        return int(answer)
    if call.kind in ("wait", "snapshot"):
        return version
    return None if call.kind == "restore" else int(answer.state_version)


def error_reply(error: PibTwinError) -> Reply:
    """An error as the protocol tells it; `kind` is its name among typed errors."""
    text = {"error": str(error)[:LONGEST], "kind": named(error)}
    return Reply(status_of(error), json.dumps(text).encode())
