"""A backend on another machine, behind the same contract as one in this process.

Every request has an id, and the server acts once for each: a lost answer is
asked for again under the same id until the deadline.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from twin.backend import Capabilities, Ranged, Reading, Snapshot, Values, Written
from twin.errors import ConfigError, DeviceUnavailable, OutcomeUnknown
from twin.key import Key
from twin.remote.errors import Busy, Malformed, rebuilt
from twin.remote.packing import (
    Call,
    model_of,
    pack_call,
    unpack_answer,
    unpack_capabilities,
)
from twin.remote.secret import Secret, secret
from twin.remote.server import NAME, is_loopback
from twin.remote.transport import Answer, Dropped, Http, NotSent, Transport, tls_context
from twin.remote.wire import Limits, parsed_json, read_message, write_message
from twin.remote.wire import Written as Message_

REPLY_LIMITS = Limits(body_bytes=2**30, header_bytes=2**24)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.01, 0.5


class Remote:
    """A unit of a server. Made by :func:`connect`.

    optimistic: refuse to program a device that somebody else has changed.
    patience_s: how long a server that is away or busy is tried again before
    DeviceUnavailable. Threads may share it; their calls go one by one.
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        *,
        deadline_s: float = 30.0,
        optimistic: bool = False,
        patience_s: float = 0.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self._transport = transport
        self._deadline_s = deadline_s
        self._optimistic = optimistic
        self._patience_s = patience_s
        self._pause = pause
        self._turn = threading.RLock()
        self._closed = False
        self._version: int | None = None
        self._capabilities, self._instance = self._described()

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def program(self, setting: Values, *, key: Key) -> Written:
        written: Written = self._call("program", key, setting=setting)
        return written

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        reading: Reading = self._call(
            "forward", key, drive=drive, first_sample=first_sample, shots=shots
        )
        return reading

    def set_range(self, drive: Values, *, key: Key) -> Ranged:
        ranged: Ranged = self._call("set_range", key, drive=drive)
        return ranged

    def adjust(self, dial: str, value: Any, *, key: Key) -> int:
        self.capabilities.dial(dial)
        plain = value if isinstance(value, int | float) else torch.as_tensor(value)
        version: int = self._call("adjust", key, dial=dial, value=plain)
        return version

    def wait(self, seconds: float) -> None:
        self._call("wait", None, seconds=float(seconds))

    def snapshot(self) -> Snapshot:
        snapshot: Snapshot = self._call("snapshot", None)
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        self._call("restore", None, snapshot=snapshot)

    def close(self) -> None:
        """Hang up. The device belongs to the server, which closes it at its own end."""
        with self._turn:
            self._closed = True
            self._transport.close()

    # ---- one call -------------------------------------------------------------

    def _call(self, kind: str, key: Key | None, **arguments: Any) -> Any:
        call = Call(kind=kind, arguments=arguments, key=key)
        named = key is not None and key.call_id is not None
        request_id = key.call_id if key is not None and key.call_id else uuid.uuid4().hex
        deadline_s = time.monotonic() + self._seconds(call)
        if not self._turn.acquire(timeout=max(0.0, deadline_s - time.monotonic())):
            raise DeviceUnavailable(f"{self.name}: another thread's call took the whole deadline.")
        try:
            if self._closed:
                raise DeviceUnavailable(f"{self.name}: this connection was closed. Connect again.")
            message = self._message(call, request_id)
            path = f"/v2/models/{self.name}.{model_of(kind)}/infer"
            answer = self._persistently(
                "POST", path, message, deadline_s, self._reader(kind, request_id), named
            )
            self._note_version(kind, answer)
        finally:
            self._turn.release()
        return answer

    def _seconds(self, call: Call) -> float:
        waits = call.kind == "wait" and self.capabilities.clock == "wall"
        return self._deadline_s + (max(0.0, call.arguments["seconds"]) if waits else 0.0)

    def _message(self, call: Call, request_id: str) -> Message_:
        packed = pack_call(call, self.capabilities)
        parameters = {
            **packed.parameters,
            "instance": self._instance,
            "timeout": max(1, round(self._seconds(call) * 1e6)),
            "binary_data_output": True,
        }
        if self._optimistic and call.kind == "program" and self._version is not None:
            parameters["expect_version"] = self._version
        header = {"id": request_id, "parameters": parameters}
        return write_message(header, packed.tensors, "inputs")

    def _reader(self, kind: str, request_id: str) -> Callable[[Answer], Any]:
        def read(answer: Answer) -> Any:
            if answer.status != 200:
                raise _told(answer)
            message = read_message(
                answer.take, answer.length, answer.header_length, "outputs", REPLY_LIMITS
            )
            if message.header.get("id", request_id) != request_id:
                # Something on the way mixes up answers; ask again, on a new connection.
                raise Dropped("an answer to another request came")
            return unpack_answer(message, kind, self.capabilities)

        return read

    def _note_version(self, kind: str, answer: Any) -> None:
        if kind == "restore":
            self._version = None
        elif kind == "adjust":
            self._version = answer
        elif kind not in ("wait", "snapshot"):
            self._version = answer.state_version

    def _persistently(
        self,
        method: str,
        path: str,
        message: Message_,
        deadline_s: float,
        read: Callable[[Answer], Any],
        named: bool,
    ) -> Any:
        """The answer, asked for again under the same id where that is safe."""
        patient_s = min(deadline_s, time.monotonic() + self._patience_s)
        pause_s, sent = FIRST_PAUSE_S, False
        while True:
            try:
                return self._transport.exchange(
                    method, path, message.content, message.header_length, deadline_s, read
                )
            except Dropped as error:
                sent, last_s, why = True, deadline_s, str(error)
            except NotSent as error:
                last_s, why = (deadline_s if sent else patient_s), str(error)
            except Busy as error:
                last_s, why = patient_s, str(error)
                if time.monotonic() >= patient_s:
                    raise
            left = last_s - time.monotonic()
            if left <= 0:
                raise self._gone(sent and not named, why)
            self._pause(min(pause_s, left))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _gone(self, unknown: bool, why: str) -> DeviceUnavailable | OutcomeUnknown:
        if unknown:
            return OutcomeUnknown(
                f"{self.name}: the call was sent and no answer came ({why}). It had no call id, "
                "so it cannot be asked for again; look at the device."
            )
        return DeviceUnavailable(
            f"{self.name}: no answer ({why}). The same call may be tried again; "
            "the server acts once for each call id."
        )

    def _described(self) -> tuple[Capabilities, str]:
        deadline_s = time.monotonic() + self._deadline_s

        def read(answer: Answer) -> dict[str, Any]:
            if answer.status != 200:
                raise _told(answer)
            if not 0 < answer.length <= REPLY_LIMITS.header_bytes:
                raise Malformed("the server's description has an unlikely length.")
            return parsed_json(answer.take(answer.length))

        path = f"/v2/models/{self.name}.forward"
        told = self._persistently("GET", path, Message_(None, b""), deadline_s, read, True)
        parameters = told.get("parameters")
        if not isinstance(parameters, dict) or not isinstance(parameters.get("instance"), str):
            raise Malformed(f"{self.name}: the server describes no unit. Is it a pib-twin server?")
        return unpack_capabilities(parameters.get("capabilities")), parameters["instance"]


def _told(answer: Answer) -> Exception:
    if not 0 < answer.length <= REPLY_LIMITS.header_bytes:
        return Malformed(f"the server answered with HTTP status {answer.status}.")
    told = parsed_json(answer.take(answer.length))
    return rebuilt(told.get("kind"), told.get("error", f"HTTP status {answer.status}"))


def connect(
    url: str,
    *,
    token: str | Secret | None = None,
    ca: str | Path | None = None,
    certificate: str | Path | None = None,
    private_key: str | Path | None = None,
    deadline_s: float = 30.0,
    optimistic: bool = False,
    patience_s: float = 0.0,
) -> Remote:
    """The unit at `url`, http(s)://HOST:PORT/NAME, as a backend.

    token: sent with every request, over TLS or to this machine only. ca: PEM
    file of whom to trust instead of the system's list; certificate,
    private_key: of this client, for mutual TLS. deadline_s: for each call, all
    of it. optimistic, patience_s: see Remote. Raises ConfigError for a bad URL,
    DeviceUnavailable if nobody answers.
    """
    token = secret(token)
    if not deadline_s > 0:
        raise ConfigError(f"connect: deadline_s must be above 0, got {deadline_s}.")
    scheme, host, port, name = _parts(url)
    if token is not None and scheme == "http" and not is_loopback(host):
        raise ConfigError(
            f"connect: a token for {host} would travel readable by everybody. Use https."
        )
    context = tls_context(ca, certificate, private_key) if scheme == "https" else None
    transport = Http(host, port, context=context, token=token)
    try:
        return Remote(
            transport,
            name,
            deadline_s=deadline_s,
            optimistic=optimistic,
            patience_s=patience_s,
        )
    except BaseException:
        transport.close()
        raise


def _parts(url: str) -> tuple[str, str, int, str]:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise ConfigError("connect: expected http(s)://HOST:PORT/UNIT.") from None
    name = parts.path.removeprefix("/")
    # A URL may hold a password; it is not quoted.
    if parts.username is not None or parts.password is not None:
        raise ConfigError("connect: a URL holds no user or password. Give token=...")
    plain = parts.scheme in ("http", "https") and parts.hostname and NAME.fullmatch(name)
    if not plain or parts.query or parts.fragment:
        shown = "something else" if set(url) & set("@?#;") else repr(url[:100])
        raise ConfigError(f"connect: expected http(s)://HOST:PORT/UNIT, got {shown}.")
    assert parts.hostname is not None
    return parts.scheme, parts.hostname, port, name
