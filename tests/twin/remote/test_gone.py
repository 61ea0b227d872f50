"""Peers that are many, slow or gone: nobody is held longer than stated."""

from __future__ import annotations

import io
import json
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.planted import INPUTS, Healthy
from tests.twin.remote.sockets import (
    GET,
    LONGEST_S,
    ROOT,
    Served,
    answers,
    in_s,
    message,
    post,
    ready,
    talk,
    told,
)
from tests.twin.remote.support import Counting, Direct, local
from tests.twin.remote.test_deadlines import answering
from twin.backend import Reading
from twin.errors import DeviceUnavailable
from twin.key import Key
from twin.plain import differs
from twin.remote import stream
from twin.remote.client import connect
from twin.remote.server import serve
from twin.remote.transport import Answer, Dropped, Http


def test_one_byte_now_and_then_is_given_up_for_head_and_body(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEAD_S", 0.6)
    chip, address = served
    sent = post(message(1), declared=200 * 2**20)
    head = sent.find(b"\r\n\r\n") + 4
    for begun in (sent[:9], sent[: head + 9]):
        with socket.create_connection(address, timeout=LONGEST_S) as slow:
            slow.sendall(begun)
            since = time.monotonic()
            slow.settimeout(0.05)
            while time.monotonic() - since < LONGEST_S:
                try:
                    slow.sendall(b"x")
                    if not slow.recv(2**16):
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
            assert time.monotonic() - since < 0.6 + stream.FAREWELL_S + 1.0
        ready(address)
    assert not chip.acted


def test_who_does_not_read_the_answer_holds_neither_device_nor_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "HEAD_S", 0.5)
    monkeypatch.setattr(stream, "SLOWEST", 1e8)
    chip = Counting(Key(3))
    drive = {"name": "in", "shape": [256, INPUTS], "datatype": "FP32", "data": [0.5] * 256 * INPUTS}
    # 8 MB, more than any buffer on the way takes.
    more = {"shots": 2000, "binary_data_output": True}
    sent = post(json.dumps({"inputs": [drive], "parameters": more}).encode())
    with serve({"chip": chip}) as server, ExitStack() as stack:
        host, port = server.url.removeprefix("http://").split(":")
        threads = server._http.requests
        everyone = threads.idle
        for number in range(3):
            taken = stack.enter_context(socket.socket())
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            taken.connect((host, int(port)))
            taken.sendall(sent)
            while len(chip.acted) == number:
                time.sleep(0.01)
        assert threads.idle <= everyone - 3
        assert answers(talk((host, int(port)), post(message(1)))) == [200]
        end_s = in_s(0.5 + 8.2e6 / 1e8 + stream.FAREWELL_S + 0.5)
        while threads.idle < everyone and time.monotonic() < end_s:
            time.sleep(0.02)
        assert threads.idle == everyone


def first_answer(taken: socket.socket) -> list[int]:
    """The statuses of what comes over a connection that stays open, once it is whole."""
    heard = b""
    while True:
        piece = taken.recv(2**16)
        assert piece, heard
        heard += piece
        with suppress(AssertionError):
            return answers(heard)


def test_more_connections_than_threads_wait_and_are_served(served: Served) -> None:
    """150 clients that begin a request at once and end it later, and 300 that say nothing."""
    chip, address = served
    with ExitStack() as stack:
        begun = [stack.enter_context(socket.create_connection(address)) for _ in range(150)]
        for number, taken in enumerate(begun):
            taken.settimeout(LONGEST_S)
            taken.sendall(post(message(number))[:30])
        time.sleep(0.2)
        silent = [stack.enter_context(socket.create_connection(address)) for _ in range(300)]
        for number, taken in enumerate(begun):
            taken.sendall(post(message(number))[30:])
        # The queue of the device is shorter: some are told to come again.
        statuses = [first_answer(taken) for taken in begun]
        assert {s for told_ in statuses for s in told_} <= {200, 503}
        assert len(chip.acted) == statuses.count([200]) > 8
        ready(address)
        # Who has been silent longest had to go.
        silent[0].settimeout(LONGEST_S)
        assert silent[0].recv(1) == b""


def test_a_server_without_file_handles_lets_silent_connections_go(served: Served) -> None:
    _, address = served
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.socket()) for _ in range(60)]
        asking = stack.enter_context(socket.socket())
        asking.settimeout(LONGEST_S)
        resource.setrlimit(resource.RLIMIT_NOFILE, (asking.fileno() + 20, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for taken in silent:
            taken.settimeout(LONGEST_S)
            taken.connect(address)
        asking.connect(address)
        asking.sendall(GET + b"\r\n")
        assert first_answer(asking) == [200]


class Stuck(Counting):
    """A chip whose pass lasts until it is let go."""

    def __init__(self, go: threading.Event) -> None:
        super().__init__(Key(3))
        self.go = go

    def forward(self, *args: Any, **options: Any) -> Reading:
        self.go.wait(20)
        return super().forward(*args, **options)


def test_devices_that_are_all_busy_do_not_keep_out_who_asks_for_the_server() -> None:
    """Four stuck devices, all places in their queues taken, and one request repeated 60 times."""
    go = threading.Event()
    chips = {name: Stuck(go) for name in ("a", "b", "c", "d")}
    with serve(chips) as server, ExitStack() as stack:
        host, port = server.url.removeprefix("http://").split(":")
        address = (host, int(port))

        def ask(name: str, number: int) -> socket.socket:
            taken = stack.enter_context(socket.create_connection(address, timeout=LONGEST_S))
            taken.sendall(post(message(number)).replace(b"chip", name.encode()))
            return taken

        taken = [ask(name, 10 * at + n) for at, name in enumerate(chips) for n in range(9)]
        repeats = [ask("a", 0) for _ in range(60)]
        ready(address)
        # Older ones were told to ask again; later ones get the answer that there is one of.
        # Which are older is for the threads to say: on busy cores they overtake each other.
        told_so, _, _ = select.select(repeats, [], [], LONGEST_S)
        assert told_so and all(first_answer(one) == [504] for one in told_so)
        go.set()
        answers = [first_answer(one) for one in (taken[0], *repeats) if one not in told_so]
        assert [200] in answers and all(answer in ([200], [504]) for answer in answers)
        assert all(first_answer(one) == [200] for one in taken[1:])
        assert all(len(chip.acted) == 9 for chip in chips.values())


def test_a_peer_that_never_reads_ends_in_an_error_within_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        carrier = Http("127.0.0.1", listening.getsockname()[1])
        begun = time.monotonic()
        with pytest.raises(Dropped):
            carrier.exchange("POST", "/", bytes(2**26), None, in_s(0.6), told)
        assert time.monotonic() - begun < 0.6 + 0.5


def test_a_full_backlog_ends_in_an_error_within_the_deadline_for_all_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ExitStack() as stack:
        found = []
        for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            listening = stack.enter_context(socket.socket())
            listening.bind((host, 0))
            listening.listen(0)
            for _ in range(4):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(listening.getsockname())
            found.append((socket.AF_INET, socket.SOCK_STREAM, 6, "", listening.getsockname()))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        begun = time.monotonic()
        with pytest.raises(DeviceUnavailable):
            connect("http://rig:1/chip", deadline_s=0.6, patience_s=0.6)
        assert time.monotonic() - begun < 0.6 + 0.5


def test_a_name_whose_first_address_is_dead_is_reached_by_its_second(
    monkeypatch: pytest.MonkeyPatch, served: Served
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        dead = reserved.getsockname()
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", where) for where in (dead, served[1])]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    unit = connect("http://rig:1/chip", deadline_s=LONGEST_S)
    unit.forward(torch.zeros(1, INPUTS), key=Key(1))
    unit.close()


class Mixing(Direct):
    """Gives the answer before once more, in place of the first one to `id`."""

    def exchange(self, method: str, path: str, content: bytes, *rest: Any) -> Any:
        read = rest[-1]

        def mixed(answer: Answer) -> Any:
            heard = bytes(answer.take(answer.length))
            if b'"id": "b"' in content and not self.mixed:
                self.mixed, heard, behind = True, *self.before
            else:
                behind = answer.header_length
            self.before = heard, behind
            taken = io.BytesIO(heard)
            return read(Answer(200, len(heard), behind, lambda n: bytearray(taken.read(n))))

        return super().exchange(method, path, content, *rest[:-1], mixed)

    mixed = False
    before: tuple[bytes, int | None] = (b"", None)


def test_an_answer_to_another_request_is_not_taken_for_ones_own() -> None:
    chip, near = Counting(Key(3)), Healthy(Key(3))
    unit, device, carrier = local(chip, Mixing)
    assert isinstance(carrier, Mixing)
    for label, value in (("a", 0.5), ("b", 0.25)):
        key, drive = Key(1).for_call(label), torch.full((1, INPUTS), value)
        assert not differs(unit.forward(drive, key=key), near.forward(drive, key=key))
    assert carrier.mixed and len(chip.acted) == 2
    device.close()


def drip_of_headers(taken: socket.socket) -> None:
    taken.recv(2**16)
    taken.sendall(b"HTTP/1.1 200 OK\r\nA: ")
    while True:
        taken.sendall(b"b")
        time.sleep(0.05)


def asked_to_go_on_for_ever(taken: socket.socket) -> None:
    taken.recv(2**16)
    while True:
        taken.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.01)


@pytest.mark.parametrize("behave", [drip_of_headers, asked_to_go_on_for_ever])
def test_an_answer_that_never_begins_ends_in_an_error_within_the_deadline(
    behave: Callable[[socket.socket], None],
) -> None:
    with answering(behave) as port:
        carrier = Http("127.0.0.1", port)
        begun = time.monotonic()
        with pytest.raises(Dropped):
            carrier.exchange("GET", "/", b"", None, in_s(0.6), told)
        assert time.monotonic() - begun < 0.6 + 0.5


def test_a_server_that_is_stopped_and_goes_on_acts_once_for_what_was_asked_meanwhile(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "tests.twin.remote.chip_server", str(tmp_path), "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        unit = connect(process.stdout.readline().strip() + "/chip", deadline_s=0.6)
        near, drive = Healthy(Key(3)), torch.full((2, INPUTS), 0.5)
        process.send_signal(signal.SIGSTOP)
        for _ in range(3):
            begun = time.monotonic()
            with pytest.raises(DeviceUnavailable):
                unit.forward(drive, key=Key(1).for_call("a"))
            assert time.monotonic() - begun < 0.6 + 0.5
        process.send_signal(signal.SIGCONT)
        unit._deadline_s = 20.0
        far = unit.forward(drive, key=Key(1).for_call("a"))
        assert not differs(far, near.forward(drive, key=Key(1).for_call("a")))
        assert not differs(unit.snapshot(), near.snapshot())
        unit.close()
    finally:
        process.kill()
        process.communicate()
