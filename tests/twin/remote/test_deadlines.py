"""No call waits for ever: hangs, slow clients, half-open sockets, queues."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tests.planted import INPUTS, Healthy
from tests.twin.remote.support import local
from twin.backend import Reading
from twin.errors import DeviceUnavailable, OutcomeUnknown
from twin.key import Key
from twin.remote import stream
from twin.remote.client import Remote, connect
from twin.remote.errors import Busy, PastDeadline
from twin.remote.server import serve
from twin.remote.transport import Http

DRIVE = torch.full((2, INPUTS), 0.5)
DEADLINE_S, SLACK_S = 0.6, 0.5


@contextmanager
def answering(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that accepts connections and does what `behave` does with them."""
    listening = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                taken, _ = listening.accept()
            except OSError:
                return
            held.append(taken)
            threading.Thread(target=quietly, args=(taken,), daemon=True).start()

    def quietly(taken: socket.socket) -> None:
        try:
            behave(taken)
        except OSError:
            return

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for taken in held:
            taken.close()


def never(taken: socket.socket) -> None:
    taken.recv(1)


def half_an_answer(taken: socket.socket) -> None:
    taken.recv(2**16)
    taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")


def drip(taken: socket.socket) -> None:
    taken.recv(2**16)
    taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    while True:
        taken.sendall(b" ")
        time.sleep(0.05)


def hang_up(taken: socket.socket) -> None:
    taken.recv(2**16)
    taken.close()


@pytest.mark.parametrize("behave", [never, half_an_answer, drip, hang_up])
def test_a_server_that_hangs_ends_in_an_error_within_the_deadline(
    behave: Callable[[socket.socket], None],
) -> None:
    remote, device, _ = local(Healthy(Key(3)))
    with answering(behave) as port:
        remote._transport = Http("127.0.0.1", port)  # type: ignore[assignment]
        remote._deadline_s = DEADLINE_S
        remote._pause = time.sleep
        for key, kind in ((Key(1).for_call("a"), DeviceUnavailable), (Key(1), OutcomeUnknown)):
            begun = time.monotonic()
            with pytest.raises(kind):
                remote.forward(DRIVE, key=key)
            assert time.monotonic() - begun < DEADLINE_S + SLACK_S
        remote.close()
    device.close()


def test_nobody_there_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with pytest.raises(DeviceUnavailable):
        connect(f"http://127.0.0.1:{port}/u")


class Stuck(Healthy):
    """A chip whose pass lasts until it is let go."""

    def __init__(self, key: Key) -> None:
        super().__init__(key)
        self.go, self.entered, self.passes = threading.Event(), threading.Event(), 0

    def forward(self, *args: Any, **options: Any) -> Reading:
        self.passes += 1
        self.entered.set()
        self.go.wait(10)
        return super().forward(*args, **options)


def test_calls_behind_a_stuck_one_are_refused_in_time_and_never_act() -> None:
    chip = Stuck(Key(3))
    with serve({"chip": chip}, queue=1) as server:
        url = server.units["chip"]
        clients = [connect(url, deadline_s=d) for d in (8.0, DEADLINE_S, DEADLINE_S)]
        answers: list[Any] = []
        key = Key(1).for_call("long")
        first = threading.Thread(target=lambda: answers.append(clients[0].forward(DRIVE, key=key)))
        first.start()
        assert chip.entered.wait(5)
        begun = time.monotonic()
        second = threading.Thread(target=lambda: answers.append(_error(clients[1], "b")))
        second.start()
        time.sleep(0.2)
        assert isinstance(_error(clients[2], "c"), Busy)
        second.join()
        assert time.monotonic() - begun < DEADLINE_S + SLACK_S
        chip.go.set()
        first.join()
        kinds = [type(answer) for answer in answers]
        assert kinds[0] in (PastDeadline, DeviceUnavailable) and kinds[1] is Reading
        assert chip.passes == 1
        for client in clients:
            client.close()


def _error(remote: Remote, label: str) -> BaseException:
    with pytest.raises(DeviceUnavailable) as caught:
        remote.forward(DRIVE, key=Key(2).for_call(label))
    return caught.value


def test_slow_and_silent_clients_are_dropped_and_others_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "HEAD_S", 1.0)
    with serve({"chip": Healthy(Key(3))}) as server:
        host, port = server.url.removeprefix("http://").split(":")
        sockets = [socket.create_connection((host, int(port))) for _ in range(40)]
        for slow in sockets[:20]:
            slow.sendall(b"POST /v2/models/chip.forward/infer HTTP/1.1\r\nContent-")
        remote = connect(server.units["chip"], deadline_s=5.0)
        remote.forward(DRIVE, key=Key(1))
        begun = time.monotonic()
        sockets[0].settimeout(5.0)
        while sockets[0].recv(1000):
            pass
        assert time.monotonic() - begun < 1.0 + 2.0
        remote.forward(DRIVE, key=Key(2))
        remote.close()
        for slow in sockets:
            slow.close()
