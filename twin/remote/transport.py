"""One HTTP exchange with a server, under a deadline for all of it.

http.client with keep-alive. The socket's time-out is set anew before every
piece, so that a server which sends a byte now and then cannot hold the caller.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from twin.errors import ConfigError, PibTwinError
from twin.remote.errors import Malformed, TooLarge, Unauthorised
from twin.remote.secret import Secret
from twin.remote.wire import Take

HEADER_LENGTH = "Inference-Header-Content-Length"
CERTIFICATE_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "ACCESS_DENIED")
"""Words of the alerts by which a server says that it does not know its client."""


class NotSent(Exception):
    """Nothing of the request can have reached a server."""


class Dropped(Exception):
    """The request, or a part of it, was sent and no whole answer came."""


@dataclass(frozen=True)
class Answer:
    """An HTTP reply whose body is still to be read by `take`, `length` bytes of it."""

    status: int
    length: int
    header_length: int | None
    take: Take


class Transport(Protocol):
    """What carries a request; raises NotSent or Dropped."""

    def exchange(
        self,
        method: str,
        path: str,
        content: bytes,
        header_length: int | None,
        deadline_s: float,
        read: Callable[[Answer], Any],
    ) -> Any: ...

    def close(self) -> None: ...


class Http:
    """A connection to host:port, made when needed and kept.

    context: of TLS, None for plain HTTP. most_bytes: of a reply.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        context: ssl.SSLContext | None = None,
        token: Secret | None = None,
        most_bytes: int = 2**30,
    ) -> None:
        self._where = (host, port)
        self._context = context
        self._token = token
        self._most_bytes = most_bytes
        self._connection: http.client.HTTPConnection | None = None

    def exchange(
        self,
        method: str,
        path: str,
        content: bytes,
        header_length: int | None,
        deadline_s: float,
        read: Callable[[Answer], Any],
    ) -> Any:
        """Send, and let `read` make something of the answer before the deadline.

        deadline_s: on time.monotonic(). Raises NotSent, Dropped, or what `read` does.
        """
        connection = self._connected(deadline_s)
        done = False
        try:
            connection.sock.deadline_s = deadline_s  # type: ignore[union-attr]
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                # A server may refuse, and say why, before it has read everything.
                self._send(connection, method, path, content, header_length)
            with connection.getresponse() as response:
                answer = read(self._answer(response))
                done = response.isclosed() and not response.will_close
            return answer
        except PibTwinError:
            # Some typed errors are an OSError too; they are answers.
            raise
        except (OSError, http.client.HTTPException) as error:
            self._raise_if_refused(error)
            raise Dropped(f"{self.where}: {type(error).__name__}: {error}") from None
        finally:
            if not done:
                self.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self, deadline_s: float) -> http.client.HTTPConnection:
        if self._connection is not None:
            return self._connection
        if deadline_s <= time.monotonic():
            raise NotSent("no time is left")
        sock = None
        try:
            sock = self._opened(deadline_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                sock.settimeout(max(1e-3, deadline_s - time.monotonic()))
                sock = self._context.wrap_socket(sock, server_hostname=self._where[0])
        except OSError as error:
            if sock is not None:
                sock.close()
            self._raise_if_refused(error)
            raise NotSent(self._away(error)) from None
        connection = http.client.HTTPConnection(*self._where)
        # Its type is a socket's; ours has the members that http.client uses.
        connection.sock = Deadlined(sock, deadline_s)
        self._connection = connection
        return connection

    def _opened(self, deadline_s: float) -> socket.socket:
        """A socket to the first address of the host that answers, all under one deadline."""
        failed = OSError("the host has no address")
        found = socket.getaddrinfo(*self._where, type=socket.SOCK_STREAM)
        for left, (family, kind, protocol, _, address) in zip(
            range(len(found), 0, -1), found, strict=True
        ):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(max(1e-3, (deadline_s - time.monotonic()) / left))
                sock.connect(address)
            except OSError as error:
                sock.close()
                failed = error
            else:
                return sock
        raise failed

    @property
    def where(self) -> str:
        """HOST:PORT."""
        return f"{self._where[0]}:{self._where[1]}"

    def _away(self, error: OSError) -> str:
        if isinstance(error, ConnectionRefusedError):
            return (
                f"nobody listens at {self.where}; start `pib-twin serve` there, or look at the port"
            )
        return f"{self.where}: {type(error).__name__}: {error}"

    def _raise_if_refused(self, error: Exception) -> None:
        """A typed error where TLS failed in a way that no second attempt mends."""
        where, reason = self.where, getattr(error, "reason", None)
        if isinstance(error, ssl.SSLCertVerificationError):
            raise ConfigError(
                f"connect: the certificate of {where} is not accepted ({error.verify_message}). "
                "Give the file of who signed it as ca, and call the server by a name in it."
            ) from None
        if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError) or not reason:
            return
        if "ALERT" in reason and any(word in reason for word in CERTIFICATE_ALERTS):
            raise Unauthorised(
                f"{where} wants a certificate of this client that it trusts ({reason}). "
                "Give certificate and private_key, signed by the client_ca of the server."
            ) from None
        raise ConfigError(
            f"connect: no TLS conversation with {where} ({reason}). If the server has no "
            "certificate, use http://; otherwise it must speak TLS 1.2 or later."
        ) from None

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        content: bytes,
        header_length: int | None,
    ) -> None:
        connection.putrequest(method, path, skip_accept_encoding=True)
        if self._token is not None:
            # Unnamed, so that no traceback with local variables shows it.
            connection.putheader("Authorization", self._token.header)
        if method == "POST":
            binary = header_length is not None
            kind = "application/octet-stream" if binary else "application/json"
            connection.putheader("Content-Type", kind)
            connection.putheader("Content-Length", str(len(content)))
        if header_length is not None:
            connection.putheader(HEADER_LENGTH, str(header_length))
        connection.endheaders(content or None)

    def _answer(self, response: http.client.HTTPResponse) -> Answer:
        behind = response.getheader(HEADER_LENGTH)
        if response.length is None or response.chunked or (behind and not behind.isdigit()):
            raise Malformed("the reply has no plain length. Is it a pib-twin server?")
        if response.length > self._most_bytes:
            raise TooLarge(f"the reply has {response.length} bytes, at most {self._most_bytes}.")

        def take(count: int) -> bytearray:
            buffer = bytearray(count)
            view, filled = memoryview(buffer), 0
            while filled < count:
                got = response.readinto(view[filled:])
                if got == 0:
                    raise ConnectionResetError("the reply ended early")
                filled += got
            return buffer

        header_length = int(behind) if behind else None
        return Answer(response.status, response.length, header_length, take)


class Deadlined:
    """A socket all of whose waiting ends at `deadline_s`, for http.client."""

    def __init__(self, sock: socket.socket, deadline_s: float) -> None:
        self._sock = sock
        self.deadline_s = deadline_s

    def arm(self) -> socket.socket:
        left = self.deadline_s - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        self._sock.settimeout(left)
        return self._sock

    def sendall(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            view = view[self.arm().send(view) :]

    def makefile(self, _mode: str = "rb", _buffering: int = -1) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self), 2**16)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.close()


class _Incoming(io.RawIOBase):
    def __init__(self, socket_: Deadlined) -> None:
        self._socket = socket_

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._socket.arm().recv_into(buffer)


def tls_context(
    ca: str | Path | None, certificate: str | Path | None, private_key: str | Path | None
) -> ssl.SSLContext:
    """A context that checks the server, and shows a certificate if one is given."""
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            key = None if private_key is None else str(private_key)
            context.load_cert_chain(str(certificate), key)
    except (OSError, ValueError) as error:
        raise ConfigError(f"connect: certificate files cannot be used ({error}).") from None
    return context
