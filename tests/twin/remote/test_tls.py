"""TLS at the remote door: who is let in, who is told why not, and that nobody is kept waiting."""

from __future__ import annotations

import datetime
import logging
import os
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import trustme

from tests.planted import INPUTS, OUTPUTS, Healthy
from tests.twin.remote.support import Counting
from twin.errors import ConfigError, DeviceUnavailable, PibTwinError
from twin.key import Key
from twin.plain import differs
from twin.remote import stream
from twin.remote.client import Remote, connect
from twin.remote.errors import Malformed, Unauthorised
from twin.remote.server import Server, serve

DRIVE = torch.full((2, INPUTS), 0.5)
SOON_S = 2.0
"""A refusal comes at once; without one the deadline would pass."""
DEADLINE_S = 6.0


@dataclass(frozen=True)
class Papers:
    """PEM files: an authority, what it signed, and what another one signed."""

    ca: str
    server: tuple[str, str]
    client: tuple[str, str]
    other_ca: str
    other_client: tuple[str, str]
    expired: tuple[str, str]
    elsewhere: tuple[str, str]


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")
    ours, theirs = trustme.CA(), trustme.CA()

    def written(name: str, made: trustme.LeafCert) -> tuple[str, str]:
        both = str(folder / f"{name}.pem"), str(folder / f"{name}.key")
        made.cert_chain_pems[0].write_to_path(both[0])
        made.private_key_pem.write_to_path(both[1])
        return both

    def authority(name: str, ca: trustme.CA) -> str:
        ca.cert_pem.write_to_path(str(folder / name))
        return str(folder / name)

    day = datetime.timedelta(days=1)
    past = datetime.datetime.now(datetime.UTC) - 2 * day
    return Papers(
        authority("ca.pem", ours),
        written("server", ours.issue_cert("127.0.0.1")),
        written("client", ours.issue_cert("someone@example.org")),
        authority("other.pem", theirs),
        written("stranger", theirs.issue_cert("someone@example.org")),
        written("expired", ours.issue_cert("127.0.0.1", not_before=past, not_after=past + day)),
        written("elsewhere", ours.issue_cert("rig.example.org")),
    )


@pytest.fixture
def calm(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a client does is an error of the server."""
    caplog.set_level(logging.INFO)
    yield
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING or r.exc_info]


def mutual(papers: Papers, chip: Any, **more: Any) -> Server:
    certificate, key = papers.server
    return serve(
        {"chip": chip}, certificate=certificate, private_key=key, client_ca=papers.ca, **more
    )


def known(papers: Papers, url: str, **more: Any) -> Remote:
    certificate, key = papers.client
    options = {"ca": papers.ca, "certificate": certificate, "private_key": key}
    return connect(url, **{"deadline_s": DEADLINE_S, **options, **more})


def still_serves(papers: Papers, server: Server) -> None:
    client = known(papers, server.units["chip"])
    client.forward(DRIVE, key=Key(1))
    client.close()


def refused(kind: type[PibTwinError], match: str, url: str, **options: Any) -> None:
    """connect(url) is refused at once, and says what to do about it."""
    begun = time.monotonic()
    with pytest.raises(kind, match=match):
        connect(url, **{"deadline_s": DEADLINE_S, **options})
    assert time.monotonic() - begun < SOON_S


def test_both_sides_show_certificates_and_the_device_answers_as_beside_it(
    papers: Papers, calm: None
) -> None:
    near = Healthy(Key(3))
    with mutual(papers, Healthy(Key(3))) as server:
        assert server.url.startswith("https://")
        far = known(papers, server.units["chip"])
        for device in (near, far):
            device.program(torch.full((INPUTS, OUTPUTS), 0.25), key=Key(1))
        pair = [device.forward(DRIVE, key=Key(2)) for device in (near, far)]
        assert not differs(*pair)
        far.close()


def test_a_server_signed_by_somebody_else_is_not_spoken_to(papers: Papers, calm: None) -> None:
    with mutual(papers, Healthy(Key(3))) as server:
        url = server.units["chip"]
        refused(ConfigError, "who signed it as ca", url, ca=papers.other_ca)
        refused(ConfigError, "who signed it as ca", url)
        still_serves(papers, server)


@pytest.mark.parametrize(("which", "why"), [("expired", "expired"), ("elsewhere", "not valid for")])
def test_a_certificate_out_of_date_or_of_another_host_is_not_believed(
    papers: Papers, calm: None, which: str, why: str
) -> None:
    certificate, key = getattr(papers, which)
    chip = Counting(Key(3))
    with serve({"chip": chip}, certificate=certificate, private_key=key) as server:
        refused(ConfigError, why, server.units["chip"], ca=papers.ca)
    assert not chip.acted


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("shown", ["none", "stranger"])
def test_a_client_without_a_certificate_is_told_to_give_one(
    papers: Papers, calm: None, monkeypatch: pytest.MonkeyPatch, shown: str, version: ssl.TLSVersion
) -> None:
    default = ssl.create_default_context

    def at_most(*args: Any, **options: Any) -> ssl.SSLContext:
        context = default(*args, **options)
        context.maximum_version = version
        return context

    monkeypatch.setattr(ssl, "create_default_context", at_most)
    options = {"ca": papers.ca}
    if shown == "stranger":
        options |= dict(zip(("certificate", "private_key"), papers.other_client, strict=True))
    chip = Counting(Key(3))
    with mutual(papers, chip) as server:
        for _ in range(5):
            refused(
                Unauthorised, "Give certificate and private_key", server.units["chip"], **options
            )
        assert not chip.acted
        still_serves(papers, server)


def test_plain_http_to_a_port_of_tls_is_told_so(papers: Papers, calm: None) -> None:
    with mutual(papers, Healthy(Key(3))) as server:
        url = server.units["chip"].replace("https", "http")
        for _ in range(5):
            refused(Malformed, "use https://", url)
        still_serves(papers, server)


def test_tls_to_a_plain_port_is_told_so(papers: Papers, calm: None) -> None:
    with serve({"chip": Healthy(Key(3))}) as server:
        url = server.units["chip"]
        for _ in range(5):
            refused(ConfigError, "use http://", url.replace("http", "https"), ca=papers.ca)
        connect(url).close()


def address_of(server: Server) -> tuple[str, int]:
    host, port = server.url.removeprefix("https://").split(":")
    return host, int(port)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_tls_older_than_twelve_is_refused(papers: Papers, calm: None) -> None:
    with mutual(papers, Healthy(Key(3))) as server:
        context = ssl.create_default_context(cafile=papers.ca)
        context.load_cert_chain(*papers.client)
        # Else the client's own rules refuse before the server does.
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection(address_of(server), timeout=DEADLINE_S) as plain,
            pytest.raises(ssl.SSLError) as caught,
        ):
            context.wrap_socket(plain, server_hostname="127.0.0.1")
        assert caught.value.reason == "TLSV1_ALERT_PROTOCOL_VERSION"
        still_serves(papers, server)


def test_broken_conversations_in_tls_trouble_nobody_else(papers: Papers, calm: None) -> None:
    """A reset before the first byte, half a handshake, rubbish for a record, a lost end."""
    reset = struct.pack("ii", 1, 0)
    with mutual(papers, Healthy(Key(3))) as server:
        context = ssl.create_default_context(cafile=papers.ca)
        context.load_cert_chain(*papers.client)
        for number in range(20):
            raw = socket.create_connection(address_of(server), timeout=DEADLINE_S)
            if number % 4 == 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            elif number % 4 == 1:
                raw.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + bytes(40))
            else:
                spoken = context.wrap_socket(raw, server_hostname="127.0.0.1")
                spoken.sendall(b"POST /v2/models/chip.forward/infer HTTP/1.1\r\nContent-")
                # Below the encryption: a record that nobody can have made.
                raw = socket.socket(fileno=os.dup(spoken.fileno()))
                if number % 4 == 2:
                    raw.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))
                spoken.close()
            raw.close()
        still_serves(papers, server)


def test_a_handshake_byte_by_byte_is_given_up(
    papers: Papers, calm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEAD_S", 0.6)
    with mutual(papers, Healthy(Key(3))) as server:
        begun = time.monotonic()
        with socket.create_connection(address_of(server)) as slow, suppress(OSError):
            slow.sendall(b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc")
            while time.monotonic() - begun < DEADLINE_S:
                slow.sendall(b"\0")
                time.sleep(0.05)
        assert time.monotonic() - begun < 0.6 + stream.FAREWELL_S + 1.0
        still_serves(papers, server)


def test_a_port_open_to_others_is_not_bound_without_tls_and_proof(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound: list[Any] = []
    bind = socket.socket.bind
    monkeypatch.setattr(
        socket.socket, "bind", lambda s, where: bound.append(where) or bind(s, where)
    )
    certificate, key = papers.server
    for options in (
        {},
        {"token": "a-long-enough-token-1"},
        {"certificate": certificate, "private_key": key},
        {"certificate": certificate, "private_key": key, "token": "short"},
        {"certificate": certificate},
        {"client_ca": papers.ca},
    ):
        chip = Counting(Key(3))
        with pytest.raises(ConfigError):
            serve({"chip": chip}, host="0.0.0.0", **options)  # type: ignore[arg-type]
        assert chip.closed == 1
    assert not bound
    serve({"chip": Counting(Key(3))}, host="127.0.0.1").close()
    assert len(bound) == 1


def test_files_that_are_no_certificates_are_named_and_devices_closed(
    papers: Papers, tmp_path: Path
) -> None:
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for options in (
        {"certificate": rubbish, "private_key": papers.server[1]},
        {"certificate": papers.server[0], "private_key": papers.client[1]},
        {"certificate": tmp_path / "none.pem", "private_key": papers.server[1]},
    ):
        chip = Counting(Key(3))
        with pytest.raises(ConfigError, match="certificate files cannot be used"):
            serve({"chip": chip}, **options)
        assert chip.closed == 1


def test_a_server_of_tls_that_never_answers_ends_at_the_deadline(papers: Papers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        begun = time.monotonic()
        with pytest.raises(DeviceUnavailable):
            connect(
                f"https://127.0.0.1:{listening.getsockname()[1]}/u", ca=papers.ca, deadline_s=0.5
            )
        assert time.monotonic() - begun < 0.5 + 0.5
