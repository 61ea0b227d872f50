"""The WSGI application: routes of the Open Inference Protocol v2 to served devices.

It answers everything: what is malformed with 400, what a device or driver does
with 502 to 504; never with 500.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from twin.backend import Port
from twin.errors import PibTwinError
from twin.remote.device import Device, Request
from twin.remote.errors import Malformed, Unauthorised, UnknownModel
from twin.remote.fingerprint import fingerprint
from twin.remote.memory import Reply
from twin.remote.packing import pack_capabilities, unpack_call
from twin.remote.secret import Secret
from twin.remote.service import checked_call, error_reply, performed
from twin.remote.wire import NAMES, Buffer, Limits, Message, read_message

Environ = Mapping[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]

EXTENSIONS = ("binary_tensor_data", "model_configuration", "pib_twin_units")
PLATFORM = "pib_twin"
MODELS = ("forward", "program", "state")
HEADER_LENGTH = "Inference-Header-Content-Length"
LONGEST_CALL_S = 3600.0
DRAINED_BYTES = 4 * 2**20
_PAGE = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|infer))?")
_DIGITS = re.compile(r"[0-9]{1,12}")
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    411: "Length Required",
    413: "Request Entity Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class App:
    """The application. deadline_s: of a call that names none."""

    def __init__(
        self,
        devices: Mapping[str, Device],
        *,
        token: Secret | None = None,
        limits: Limits | None = None,
        deadline_s: float = 30.0,
    ) -> None:
        self._devices = dict(devices)
        self._token = token
        self.limits = limits if limits is not None else Limits()
        self._deadline_s = deadline_s

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body = _Body(environ)
        try:
            reply = self._answered(environ, body)
        except _Status as told:
            reply = told.reply
        except PibTwinError as error:
            reply = error_reply(error)
        except RecursionError:
            reply = error_reply(Malformed("the request is nested too deeply."))
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(reply.content))),
        ]
        if reply.header_length is not None:
            headers[0] = ("Content-Type", "application/octet-stream")
            headers.append((HEADER_LENGTH, str(reply.header_length)))
        if reply.status == 401:
            headers.append(("WWW-Authenticate", "Bearer"))
        if reply.status == 503:
            headers.append(("Retry-After", "1"))
        if not body.drained():
            headers.append(("Connection", "close"))
        start_response(f"{reply.status} {REASONS[reply.status]}", headers)
        # What follows the head of an answer to HEAD would be taken for the next answer.
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [reply.content]

    def _answered(self, environ: Environ, body: _Body) -> Reply:
        self._require_token(environ)
        if "HTTP_ORIGIN" in environ:
            # A page in somebody's browser must not reach a device on this machine.
            raise _Status(403, "requests of web pages are not served.")
        method, path = str(environ.get("REQUEST_METHOD")), str(environ.get("PATH_INFO", ""))
        page = _PAGE.fullmatch(path)
        if page is not None and page[3] == "infer":
            if method != "POST":
                raise _Status(405, "infer takes POST.")
            device, model = self._model(page[1], page[2])
            return self._infer(device, model, environ, body)
        if method != "GET":
            raise _Status(405, "this page takes GET.")
        return self._page(path, page)

    def _require_token(self, environ: Environ) -> None:
        shown = str(environ.get("HTTP_AUTHORIZATION", ""))
        if self._token is None or self._token.matches(shown):
            return
        came = "another one came" if shown else "none came"
        raise Unauthorised(
            f"this server wants its bearer token, and {came}. Put it into an environment variable "
            "and name that: token_env = VARIABLE in the options of the unit."
        )

    def _page(self, path: str, page: re.Match[str] | None) -> Reply:
        if path == "/v2":
            return _json({"name": PLATFORM, "version": "2", "extensions": list(EXTENSIONS)})
        if path in ("/v2/health/live", "/v2/health/ready"):
            ready = all(device.ready for device in self._devices.values())
            return _json(
                {"live" if path.endswith("live") else "ready": True}, 200 if ready else 503
            )
        if page is None:
            raise UnknownModel("no such page; try /v2 or /v2/models/NAME.forward.")
        device, model = self._model(page[1], page[2])
        if page[3] == "ready":
            return _json({"name": f"{device.name}.{model}", "ready": True})
        return _json(_metadata(device, model))

    def _model(self, quoted: str, version: str | None) -> tuple[Device, str]:
        unit, _, model = unquote(quoted).rpartition(".")
        if unit not in self._devices or model not in MODELS or version not in (None, "1"):
            raise UnknownModel(
                f"no model {quoted[:80]!r} of that version is served here. Units are "
                f"{', '.join(sorted(self._devices))}, each with .{', .'.join(MODELS)}."
            )
        return self._devices[unit], model

    def _infer(self, device: Device, model: str, environ: Environ, body: _Body) -> Reply:
        arrived_s = time.monotonic()
        behind = environ.get("HTTP_" + HEADER_LENGTH.upper().replace("-", "_"))
        length, header_length = body.length(), None if behind is None else _whole(behind)
        message = read_message(body.take, length, header_length, "inputs", self.limits)
        request_id = message.header.get("id") or uuid.uuid4().hex
        if not isinstance(request_id, str) or len(request_id) > 256:
            raise Malformed("id: expected text of at most 256 characters.")
        given = message.parameters
        call = unpack_call(message, model, request_id)
        call = checked_call(call, device.capabilities, self.limits)
        header = {"model_name": f"{device.name}.{model}", "model_version": "1", "id": request_id}
        binary = _wants_binary(message)
        return device.call(
            Request(
                request_id=request_id,
                fingerprint=fingerprint(message, model),
                deadline_s=arrived_s + self._seconds(given.get("timeout")),
                act=lambda backend, version: performed(call, backend, version, header, binary),
                reads_only=call.kind == "snapshot",
                expect_version=_expected(given.get("expect_version")),
                instance=_instance(given.get("instance")),
            )
        )

    def _seconds(self, timeout_us: Any) -> float:
        if timeout_us is None:
            return self._deadline_s
        if type(timeout_us) is not int or timeout_us < 1:
            raise Malformed("parameter 'timeout': expected a whole number of microseconds.")
        return min(timeout_us * 1e-6, LONGEST_CALL_S)


class _Status(Exception):
    """An HTTP status that stands for no typed error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.reply = _json({"error": text}, status)


class _Body:
    """The body of one request, read piece by piece."""

    def __init__(self, environ: Environ) -> None:
        self._environ = environ
        self._left: int | None = None

    def length(self) -> int:
        """Its declared length, bytes; 411 or Malformed where it is not declared well."""
        if "HTTP_TRANSFER_ENCODING" in self._environ or "CONTENT_LENGTH" not in self._environ:
            raise _Status(411, "a request needs a Content-Length; chunked bodies are refused.")
        self._left = _whole(self._environ["CONTENT_LENGTH"])
        return self._left

    def take(self, count: int) -> Buffer:
        """The next `count` bytes; never more than were declared."""
        if self._left is None or count > self._left:
            raise Malformed("the message is shorter than it says.")
        content = self._environ["wsgi.input"].read(count)
        if len(content) != count:
            self._left = None
            raise Malformed("the connection ended before the message did.")
        self._left -= count
        # A server may give bytes; tensors need a buffer of their own.
        return bytearray(content) if isinstance(content, bytes) else content

    def drained(self) -> bool:
        """Read what is left, within reason; False if the connection cannot go on."""
        if self._left is None:
            try:
                self.length()
            except (_Status, Malformed):
                return self._environ.get("REQUEST_METHOD") == "GET" and not (
                    "HTTP_TRANSFER_ENCODING" in self._environ or "CONTENT_LENGTH" in self._environ
                )
        left = self._left or 0
        if left > DRAINED_BYTES:
            return False
        while left > 0:
            piece = len(self._environ["wsgi.input"].read(min(left, 2**16)))
            if piece == 0:
                return False
            left -= piece
        self._left = 0
        return True


def _whole(text: Any) -> int:
    if not isinstance(text, str) or not _DIGITS.fullmatch(text):
        raise Malformed("a length header is not a plain whole number.")
    return int(text)


def _expected(version: Any) -> int | None:
    if version is not None and type(version) is not int:
        raise Malformed("parameter 'expect_version': expected a whole number.")
    return version


def _instance(text: Any) -> str | None:
    if text is not None and not isinstance(text, str):
        raise Malformed("parameter 'instance': expected text.")
    return text


def _wants_binary(message: Message) -> bool:
    wanted = bool(message.parameters.get("binary_data_output", False))
    outputs = message.header.get("outputs", [])
    if not isinstance(outputs, list) or not all(isinstance(o, dict) for o in outputs):
        raise Malformed("outputs: expected a list of objects.")
    for output in outputs:
        parameters = output.get("parameters", {})
        if not isinstance(parameters, dict):
            raise Malformed("outputs: parameters must be an object.")
        wanted = wanted or parameters.get("binary_data") is True
    return wanted


def _metadata(device: Device, model: str) -> dict[str, Any]:
    capabilities = device.capabilities
    forward = model == "forward"
    given = capabilities.drives if forward else capabilities.settings
    told = capabilities.readings if forward else capabilities.settings
    if model == "state":
        given = told = ()
    return {
        "name": f"{device.name}.{model}",
        "versions": ["1"],
        "platform": PLATFORM,
        "inputs": [_port(port, forward) for port in given],
        "outputs": [_port(port, forward) for port in told],
        "parameters": {
            "capabilities": pack_capabilities(capabilities),
            "instance": device.instance,
            "durable": device.durable,
        },
    }


def _port(port: Port, batched: bool) -> dict[str, Any]:
    shape = [-1, *port.shape] if batched else list(port.shape)
    return {"name": port.name, "datatype": NAMES.get(port.torch_dtype, "FP32"), "shape": shape}


def _json(data: Mapping[str, Any], status: int = 200) -> Reply:
    return Reply(status, json.dumps(data).encode())
