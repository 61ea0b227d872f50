"""Bytes below the protocol: whatever comes over a socket, the server goes on and nothing acts."""

from __future__ import annotations

import io
import json
import logging
import random
import re
import resource
import signal
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.planted import INPUTS, Healthy
from tests.twin.remote.support import Counting, Direct, local
from tests.twin.remote.test_deadlines import answering
from twin.backend import Reading
from twin.errors import DeviceUnavailable
from twin.key import Key
from twin.plain import differs
from twin.remote import stream
from twin.remote.client import connect
from twin.remote.errors import TooLarge, rebuilt
from twin.remote.server import serve
from twin.remote.transport import Answer, Dropped, Http

ROOT = Path(__file__).parents[3]

INFER = b"/v2/models/chip.forward/infer"
LONGEST_S = 5.0
GROWTH_BYTES = 32 * 2**20
"""Of this process, server and attacker together, over a whole bombardment."""
REFUSALS = {400, 403, 404, 405, 408, 409, 411, 413, 414, 501, 505}

NASTY = (
    b"\r", b"\n", b"\0", b"\r\n", b" ", b"\t", b":", b"\r\n\r\n", b"\xff" * 9, b"%00",
    b"%2f", b"//[",
    b"A" * 5_000, b"B" * 40_000, b"\r\n folded", b"\r\nX_Y: 1", b"\r\nContent-Length: 5",
    b"\r\nContent-Length: 0x10", b"\r\nContent-Length: -1", b"\r\nContent-Length: 1, 1",
    b"\r\nContent-Length : 9", b"\r\nTransfer-Encoding: chunked", b"\r\nTransfer-Encoding: gzip",
    b"\r\nTransfer-Encoding : chunked", b"\r\nTransfer-Encoding: chunked, identity",
    b"\r\nExpect: 100-continue", b"\r\nConnection: close", b"\r\nConnection: keep-alive, x",
    b"\r\nUpgrade: h2c", b"\r\n" + b"a: b\r\n" * 600, b"\r\nHost: a\r\nHost: b",
)  # fmt: skip
LINES = (
    b"", b"\r\n", b"GET", b"GET /v2", b"GET /v2 HTTP/0.9", b"GET /v2 HTTP/1.0", b"GET /v2 HTTP/2.0",
    b"GET /v2 HTTP/1.1.1", b"GET /v2 HTTP/1.-1", b"GET /v2 http/1.1", b"get /v2 HTTP/1.1",
    b"GET  /v2 HTTP/1.1", b"GET //[ HTTP/1.1", b"GET http://[::1 HTTP/1.1", b"GET * HTTP/1.1",
    b"OPTIONS * HTTP/1.1", b"CONNECT a:1 HTTP/1.1", b"CONNECT [:1 HTTP/1.1",
    b"CONNECT a:99999999 HTTP/1.1", b"PRI * HTTP/2.0", b"TRACE /v2 HTTP/1.1",
    b"BREW /v2 HTTP/1.1",
    b"M" * 40_000 + b" /v2 HTTP/1.1", b"GET /" + b"v" * 40_000 + b" HTTP/1.1",
    b"GET /v2/models/%FF.forward HTTP/1.1", b"GET /v2/models/\xff.forward HTTP/1.1",
    b"GET /v2#x HTTP/1.1", b"GET /v2?a=b HTTP/1.1", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    b"POST " + INFER + b" HTTP/1.0", b"DELETE " + INFER + b" HTTP/1.1", b"\0" * 100,
    b"GET /v2 HTTP/" + b"1" * 9_000 + b".1", b"GET /v2 HTTP/1." + b"1" * 5_000,
)  # fmt: skip


@contextmanager
def watched(
    caplog: pytest.LogCaptureFixture,
) -> Iterator[tuple[Counting, tuple[str, int]]]:
    """A served chip and where; at the end nothing was logged that asks for attention."""
    caplog.set_level(logging.INFO)
    chip = Counting(Key(3))
    with serve({"chip": chip}) as server:
        host, port = server.url.removeprefix("http://").split(":")
        yield chip, (host, int(port))
    told = [r for r in caplog.records if r.levelno >= logging.WARNING or r.exc_info]
    assert not told, caplog.text


def message(number: int) -> bytes:
    """The body of a valid pass with an id of its own; always of the same length."""
    drive = {"name": "in", "shape": [1, INPUTS], "datatype": "FP32", "data": [0.5] * INPUTS}
    return json.dumps({"id": f"raw-{number:09d}", "inputs": [drive]}).encode()


def post(body: bytes, *more: bytes, declared: int | None = None) -> bytes:
    length = len(body) if declared is None else declared
    lines = [b"POST " + INFER + b" HTTP/1.1", b"Host: x", b"Content-Length: %d" % length, *more]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def talk(address: tuple[str, int], *pieces: bytes, leave: str = "end") -> bytes:
    """Send pieces, then end our half ("end"), or vanish with a reset; everything that came back."""
    with socket.create_connection(address, timeout=LONGEST_S) as taken:
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        heard = bytearray()
        try:
            for piece in pieces:
                taken.sendall(piece)
            if leave == "reset":
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return b""
            taken.shutdown(socket.SHUT_WR)
            while piece := taken.recv(2**16):
                heard += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
        return bytes(heard)


def answers(heard: bytes) -> list[int]:
    """Statuses of well-formed answers, one after another; fails on a byte that belongs to none."""
    statuses = []
    while heard:
        head, found, rest = heard.partition(b"\r\n\r\n")
        line = re.match(rb"HTTP/1\.1 ([1-5][0-9]{2}) [A-Za-z -]+(\r\n|$)", head)
        assert found and line, heard[:200]
        length = re.search(rb"(?i)\r\ncontent-length: ([0-9]+)", head)
        size = 0 if int(line[1]) == 100 else int(length[1]) if length else -1
        assert 0 <= size <= len(rest), heard[:300]
        if size:
            told = json.loads(rest[:size])
            assert int(line[1]) < 400 or told["error"]
        statuses.append(int(line[1]))
        heard = rest[size:]
    return statuses


def ready(address: tuple[str, int]) -> None:
    page = b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    heard = talk(address, page)
    assert answers(heard) == [200] and b'{"ready": true}' in heard


def complete(sent: bytes) -> int:
    """How many requests to act stand in `sent`, by the letter of RFC 9112, until one is wrong."""
    line = re.compile(rb"(\r\n)?([A-Z]+) (/[!-~]*) HTTP/1\.[01]\r\n")
    field_ = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*\r\n")
    found, at = 0, 0
    while begun := line.match(sent, at):
        at, fields = begun.end(), {}
        while named := field_.match(sent, at):
            if named[1].lower() in fields:
                return found
            at = named.end()
            if b"_" not in named[1]:
                # Allowed, and dropped: it could pass for one with a dash.
                fields[named[1].lower()] = named[2]
        length = fields.get(b"content-length", b"0")
        if sent[at : at + 2] != b"\r\n" or b"transfer-encoding" in fields or not length.isdigit():
            return found
        at += 2 + int(length)
        if at > len(sent):
            return found
        found += begun[2] == b"POST"
    return found


def mutated(chance: random.Random, number: int) -> bytes:
    """Some valid requests in a row, and then what an attacker makes of them."""
    page = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    plan = chance.choice(["a", "a", "ag", "gag", "aa"])
    parts = [page if c == "g" else post(message(4 * number + n)) for n, c in enumerate(plan)]
    sent = bytearray(b"".join(parts))
    for _ in range(chance.randint(1, 3)):
        head = max(1, sent.find(b"\r\n\r\n"))
        at, kind = chance.randrange(head if chance.random() < 0.8 else len(sent)), chance.random()
        if kind < 0.2:
            sent[at] ^= 1 << chance.randrange(8)
        elif kind < 0.3:
            sent[at : at + chance.randrange(1, 20)] = b""
        elif kind < 0.5:
            sent[at:at] = chance.choice(NASTY)
        elif kind < 0.65:
            # As a header of its own, so that it is read and not only refused.
            ends = [m.start() for m in re.finditer(rb"\r\n", bytes(sent[: head + 2]))] or [at]
            where = chance.choice(ends)
            sent[where:where] = chance.choice(NASTY)
        elif kind < 0.75:
            sent[: max(0, sent.find(b"\r\n"))] = chance.choice(LINES)
        elif kind < 0.85:
            length = b"Content-Length: " + chance.choice([b"0", b"7", b"%d" % len(sent), b"1" * 13])
            sent = bytearray(re.sub(rb"Content-Length: [0-9]+", length, bytes(sent), count=1))
        elif kind < 0.95:
            del sent[chance.randrange(len(sent)) :]
        else:
            sent += chance.choice([page, b"\r\n", b"0\r\n\r\n", b"x" * 100])
        if not sent:
            break
    return bytes(sent)


def held_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def bombard(address: tuple[str, int], chip: Counting, count: int, seed: int) -> tuple[int, int]:
    """How many mutated conversations were refused, and how many passes were made."""
    chance, refused, late = random.Random(seed), 0, 0
    begun = acted = len(chip.acted)
    for number in range(count):
        if number == 200:
            before = held_bytes()
        sent = mutated(chance, number + 10_000 * seed)
        leave = "reset" if chance.random() < 0.1 else "end"
        cuts = sorted(chance.randrange(len(sent) + 1) for _ in range(chance.choice([0, 0, 1, 3])))
        pieces = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
        heard = talk(address, *(p for p in pieces if p), leave=leave)
        statuses = answers(heard)
        ready(address)
        assert set(statuses) <= {100, 200} | REFUSALS, (seed, number, statuses, sent[:500])
        passes, acted = len(chip.acted) - acted, len(chip.acted)
        asked = complete(sent)
        assert passes <= asked + late, (seed, number, statuses, sent[:3000])
        # Who hung up is perhaps served some conversations later.
        late = max(0, late + asked - passes) if leave == "reset" else late - max(0, passes - asked)
        refused += not statuses or statuses[-1] not in (100, 200)
    assert held_bytes() - before < GROWTH_BYTES
    return refused, acted - begun


@pytest.fixture
def served(caplog: pytest.LogCaptureFixture) -> Iterator[tuple[Counting, tuple[str, int]]]:
    with watched(caplog) as given:
        yield given


def test_two_thousand_mangled_conversations_leave_a_server_that_is_ready(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with watched(caplog) as (chip, address):
        refused, acted = bombard(address, chip, 2_000, seed=1)
    assert refused > 1_000 and acted > 100


@pytest.mark.slow
def test_twenty_thousand_mangled_conversations_leave_a_server_that_is_ready(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with watched(caplog) as (chip, address):
        for seed in range(2, 6):
            refused, acted = bombard(address, chip, 5_000, seed)
            assert refused > 2_500 and acted > 250


Served = tuple[Counting, tuple[str, int]]
GET = b"GET /v2 HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"GET /v2 HTTP/0.9\r\n\r\n", [505]),
        (b"GET /v2\r\n\r\n", [400]),
        (b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n", [404]),
        (b"GET /v2 HTTP/1.1\r\n folded\r\n\r\n", [400]),
        (b"GET /v2 HTTP/1.1\nHost: x\n\n", [400]),
        (b"GET /v2 HTTP/1.\r1\r\n\r\n", [400]),
        (GET + b"a: b\rc\r\n\r\n", [400]),
        (GET + b"a: b\0c\r\n\r\n", [400]),
        (GET + b"a : b\r\n\r\n", [400]),
        (GET + b"Host: y\r\n\r\n", [400]),
        (GET + b"a: " + b"b" * 40_000 + b"\r\n\r\n", [413]),
        (GET + b"".join(b"a%d: b\r\n" % n for n in range(10_000)) + b"\r\n", [413]),
        (b"\r\n" + GET + b"\r\n", [200]),
        (b"\r\n\r\n" + GET + b"\r\n", [400]),
        (post(message(1), b"Content-Length: 5"), [400]),
        (post(message(1)).replace(b"Content-Length: ", b"Content-Length: +"), [400]),
        (post(message(1)).replace(b"Content-Length", b"Content_Length"), [411]),
        (post(message(1)).replace(b"Content-Length", b"Content-Length "), [400]),
        (post(message(1)).replace(b"HTTP/1.1", b"HTTP/1.0"), [200]),
        (post(message(1), declared=2**40), [413]),
        (post(message(1), declared=len(message(1)) + 9), [400]),
        (post(message(1), declared=len(message(1)) - 9), [400, 400]),
        (post(message(1), CHUNKED), [411]),
        (post(b"5\r\nhello\r\n0\r\n\r\n", CHUNKED, declared=0), [411]),
        (post(b"zz\r\n", CHUNKED), [411]),
        (post(b"", CHUNKED) + b"ffff\r\n" + b"x" * 200_000, [411]),
        (post(b"", b"Transfer-Encoding : chunked") + post(message(1)), [400]),
        (post(message(1), b"Expect: 100-continue"), [100, 200]),
        (post(message(1), b"Expect: the-impossible"), [200]),
        (post(message(1)) + GET + b"\r\n" + post(message(2)), [200, 200, 200]),
        (post(message(1)) + b"rubbish\r\n" + post(message(2)), [200, 400]),
        # A second request in the body of the first is not one.
        (post(post(message(1)) + post(message(2))), [400]),
        (GET + b"Content-Length: 300\r\n\r\n" + post(message(1)).ljust(300), [200]),
    ],
)
def test_a_request_is_read_by_the_letter_or_refused(
    served: Served, sent: bytes, statuses: list[int]
) -> None:
    chip, address = served
    assert answers(talk(address, sent)) == statuses
    assert len(chip.acted) == (statuses.count(200) if sent.startswith(b"POST") else 0) - (
        GET in sent and sent.startswith(b"POST")
    )
    ready(address)


def test_nothing_follows_the_head_of_an_answer_to_head(served: Served) -> None:
    heard = talk(served[1], GET.replace(b"GET", b"HEAD") + b"\r\n" + GET + b"\r\n")
    first, _, rest = heard.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 405")
    assert not rest or answers(rest) == [200]


def test_a_request_cut_at_any_byte_never_acts(served: Served) -> None:
    """Every 7th place; ended, or reset."""
    chip, address = served
    sent = post(message(1))
    for cut in range(0, len(sent), 7):
        assert set(answers(talk(address, sent[:cut]))) <= {400, 408}
        talk(address, sent[:cut], leave="reset")
    ready(address)
    assert not chip.acted


def test_what_is_announced_and_not_sent_takes_no_memory(served: Served) -> None:
    """Twelve requests of 240 MiB each, of which a kilobyte comes."""
    _, address = served
    count = 60 * 2**20
    tensor = {"name": "in", "shape": [count // INPUTS, INPUTS], "datatype": "FP32"}
    size = 4 * INPUTS * (count // INPUTS)
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}).encode()
    behind = b"Inference-Header-Content-Length: %d" % len(head)
    before = held_bytes()
    with ExitStack() as stack:
        for _ in range(12):
            taken = stack.enter_context(socket.create_connection(address))
            taken.sendall(post(head + bytes(1000), behind, declared=len(head) + size))
        ready(address)
        time.sleep(0.3)
        assert held_bytes() - before < GROWTH_BYTES


def test_a_refusal_is_heard_though_much_more_was_to_be_sent(served: Served) -> None:
    carrier = Http(*served[1])
    for _ in range(3):
        with pytest.raises(TooLarge, match="maximum"):
            carrier.exchange("POST", INFER.decode(), bytes(2**28 + 1), None, in_s(9.0), told)
    carrier.close()


def in_s(seconds: float) -> float:
    return time.monotonic() + seconds


def told(answer: Answer) -> None:
    said = json.loads(answer.take(answer.length))
    raise rebuilt(said["kind"], said["error"])


# ---- many, slow, and gone -----------------------------------------------------


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
