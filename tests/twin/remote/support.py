"""A served device without sockets, and a network that loses, repeats and delays."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tests.planted import Healthy
from twin.backend import MinimalBackend, Reading
from twin.key import Key
from twin.remote.app import App
from twin.remote.client import Remote
from twin.remote.device import Device
from twin.remote.transport import Answer, Dropped, NotSent

HEADER_LENGTH = "Inference-Header-Content-Length"


class Counting(Healthy):
    """The healthy chip, which writes down the key of every pass."""

    def __init__(self, key: Key) -> None:
        super().__init__(key)
        self.acted: list[Key] = []
        self.closed = 0

    def forward(self, *args: Any, key: Key, **options: Any) -> Reading:
        self.acted.append(key)
        return super().forward(*args, key=key, **options)

    def close(self) -> None:
        self.closed += 1


def environ(
    method: str, path: str, content: bytes = b"", header_length: int | None = None, **more: str
) -> dict[str, Any]:
    """What a WSGI server gives its application."""
    given: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "wsgi.input": io.BytesIO(content),
    }
    if method == "POST":
        given["CONTENT_LENGTH"] = str(len(content))
    if header_length is not None:
        given["HTTP_INFERENCE_HEADER_CONTENT_LENGTH"] = str(header_length)
    return given | more


def ask(
    app: Callable[..., Iterable[bytes]], request: Mapping[str, Any]
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer."""
    told: list[Any] = []
    body = b"".join(app(request, lambda status, headers: told.extend((status, dict(headers)))))
    return int(told[0][:3]), told[1], body


class Direct:
    """A transport straight into an application."""

    def __init__(self, app: App) -> None:
        self.app = app

    def exchange(
        self,
        method: str,
        path: str,
        content: bytes,
        header_length: int | None,
        deadline_s: float,
        read: Callable[[Answer], Any],
    ) -> Any:
        status, headers, body = ask(self.app, environ(method, path, content, header_length))
        behind = headers.get(HEADER_LENGTH)
        stream = io.BytesIO(body)
        return read(
            Answer(
                status,
                len(body),
                None if behind is None else int(behind),
                lambda count: bytearray(stream.read(count)),
            )
        )

    def close(self) -> None:
        pass


class Lossy(Direct):
    """Loses requests and answers, delivers twice, and late, as `chance` decides."""

    def __init__(self, app: App, chance: random.Random, rate: float) -> None:
        super().__init__(app)
        self.chance, self.rate = chance, rate
        self.late: list[tuple[Any, ...]] = []
        self.calm = True

    def exchange(self, method: str, path: str, *rest: Any) -> Any:
        if self.calm or method == "GET":
            return super().exchange(method, path, *rest)
        self.deliver_late()
        request = (method, path, *rest[:-1])
        fault = self.chance.random() / self.rate
        if fault < 0.15:
            raise NotSent("planted: refused")
        if fault < 0.4:  # the request is lost, or only late
            if self.chance.random() < 0.5:
                self.late.append(request)
            raise Dropped("planted: request lost")
        if fault < 0.7:  # the device acts, the answer is lost
            self._deliver(request)
            raise Dropped("planted: answer lost")
        if fault < 1.0:  # delivered twice, perhaps the second time late
            if self.chance.random() < 0.5:
                self._deliver(request)
            else:
                self.late.append(request)
        return super().exchange(method, path, *rest)

    def deliver_late(self, everything: bool = False) -> None:
        self.chance.shuffle(self.late)
        while self.late and (everything or self.chance.random() < 0.3):
            self._deliver(self.late.pop())

    def _deliver(self, request: tuple[Any, ...]) -> None:
        super().exchange(*request, lambda answer: None)


def local(
    backend: MinimalBackend, transport: Callable[[App], Direct] = Direct, **options: Any
) -> tuple[Remote, Device, Direct]:
    """A remote of a device served in this process without sockets."""
    device = Device("unit", backend)
    carried = transport(App({"unit": device}))
    return Remote(carried, "unit", pause=lambda _: None, **options), device, carried
