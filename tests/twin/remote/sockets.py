"""Sockets that talk to a server below the protocol, and what they may hear."""

from __future__ import annotations

import json
import logging
import random
import re
import resource
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.planted import INPUTS
from tests.twin.remote.support import Counting
from twin.key import Key
from twin.remote.errors import rebuilt
from twin.remote.server import serve
from twin.remote.transport import Answer

ROOT = Path(__file__).parents[3]

Served = tuple[Counting, tuple[str, int]]
GET = b"GET /v2 HTTP/1.1\r\nHost: x\r\n"
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


def in_s(seconds: float) -> float:
    return time.monotonic() + seconds


def told(answer: Answer) -> None:
    said = json.loads(answer.take(answer.length))
    raise rebuilt(said["kind"], said["error"])
