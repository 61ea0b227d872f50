"""Bytes below the protocol: whatever comes over a socket, the server goes on and nothing acts."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack

import pytest

from tests.planted import INPUTS
from tests.twin.remote.sockets import (
    GET,
    GROWTH_BYTES,
    INFER,
    Served,
    answers,
    bombard,
    held_bytes,
    in_s,
    message,
    post,
    ready,
    talk,
    told,
    watched,
)
from twin.remote.errors import TooLarge
from twin.remote.transport import Http


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
