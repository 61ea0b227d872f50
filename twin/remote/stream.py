"""Connections of the HTTP server: whole-request deadlines, few copies, late handshakes.

cheroot's own streams give every read its own time-out, so that a client which
sends a byte now and then holds a thread for ever; and its TLS handshake runs in
the thread that accepts everybody. Both are replaced here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import select
import socket
import ssl
import threading
import time
from typing import Any

from cheroot import server as cheroot_server
from cheroot import wsgi
from cheroot.ssl.builtin import BuiltinSSLAdapter

CHUNK = 2**16
HEAD_S = 10.0
"""Time for a handshake, for the head of a request, and for the smallest body."""
SLOWEST = 1e6
"""Bytes a second below which a body, or the reading of a reply, is given up."""
LINGER_S = 0.1
LINGERING = threading.BoundedSemaphore(8)
"""How long, and how many, threads wait for the next request of their connection."""

log = logging.getLogger(__name__)


class Timed:
    """Both directions of one socket, under one deadline for each request."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self.deadline_s = time.monotonic() + HEAD_S
        self.bytes_read = self.bytes_written = 0
        self.closed = False

    def allow(self, seconds: float) -> None:
        """Everything until further notice must be done in `seconds`."""
        self.deadline_s = time.monotonic() + seconds

    def has_data(self) -> bool:
        pending = getattr(self._sock, "pending", int)
        return bool(self._buffer) or pending() > 0

    def readline(self, size: int | None = None) -> bytes:
        """A line with its end, or `size` bytes of it, or what came before the end."""
        most = CHUNK if size is None or size < 0 else size
        while True:
            at = self._buffer.find(b"\n", 0, most)
            if at >= 0 or len(self._buffer) >= most:
                return bytes(self._cut(at + 1 if at >= 0 else most))
            piece = self._received()
            if not piece:
                return bytes(self._cut(len(self._buffer)))
            self._buffer += piece

    def read(self, size: int | None = None) -> bytearray:
        """Exactly `size` bytes, fewer only at the end of the connection."""
        assert size is not None and size >= 0
        content = bytearray(size)
        ready = self._cut(min(size, len(self._buffer)))
        content[: len(ready)] = ready
        filled, view = len(ready), memoryview(content)
        while filled < size:
            self._arm()
            count = self._sock.recv_into(view[filled:])
            if count == 0:
                return content[:filled]
            filled += count
        return content

    def write(self, content: bytes) -> int:
        """Send all of `content`."""
        view = memoryview(content)
        while view:
            self._arm()
            view = view[self._sock.send(view) :]
        return len(content)

    def close(self) -> None:
        """The connection closes the socket itself."""
        self.closed = True

    def _cut(self, count: int) -> bytearray:
        piece = self._buffer[:count]
        del self._buffer[:count]
        return piece

    def _received(self) -> bytes:
        self._arm()
        return self._sock.recv(CHUNK)

    def _arm(self) -> None:
        left = self.deadline_s - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)


class _Once(dict[bytes, bytes]):
    """Headers of which each may come once: two lengths are two readings of one request."""

    def __setitem__(self, name: bytes, value: bytes) -> None:
        if name in self:
            raise ValueError("a header comes twice")
        super().__setitem__(name, value)


class Headers(cheroot_server.HeaderReader):
    """Reads headers; a name with an underscore would pass for one with a dash."""

    def __call__(self, rfile: Any, hdict: Any = None) -> Any:
        found = super().__call__(rfile, _Once())
        hdict.update(found)
        return hdict

    def _allow_header(self, key_name: bytes) -> bool:
        return b"_" not in key_name


class Request(cheroot_server.HTTPRequest):
    """A request whose framing is plain: a length in digits, never chunks."""

    header_reader = Headers()

    def read_request_headers(self) -> bool:
        if not super().read_request_headers():
            return False
        if b"Transfer-Encoding" in self.inheaders:
            self.simple_response("411 Length Required", "chunked bodies are refused")
            return False
        length = self.inheaders.get(b"Content-Length", b"0")
        if not re.fullmatch(rb"[0-9]{1,12}", length):
            self.simple_response("400 Bad Request", "Content-Length is not a plain whole number")
            return False
        self.conn.timed.allow(HEAD_S + int(length) / SLOWEST)
        return True

    def send_headers(self) -> None:
        if (b"Connection", b"close") in self.outheaders:
            self.close_connection = True
        length = dict(self.outheaders).get(b"Content-Length", b"0")
        self.conn.timed.allow(HEAD_S + int(length) / SLOWEST)
        super().send_headers()

    def simple_response(self, status: Any, msg: str = "") -> None:
        """What cheroot itself answers, in the protocol's form."""
        content = json.dumps({"error": msg or str(status)}).encode()
        head = (
            f"{self.server.protocol} {status}\r\nContent-Length: {len(content)}\r\n"
            "Content-Type: application/json\r\nConnection: close\r\n\r\n"
        )
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.conn.timed.allow(HEAD_S)
            self.conn.wfile.write(head.encode("latin-1") + content)


class Connection(cheroot_server.HTTPConnection):
    """A connection that shakes hands in the worker's thread."""

    RequestHandlerClass = Request

    def __init__(self, server: Any, sock: socket.socket, _makefile: Any = None) -> None:
        super().__init__(server, sock, lambda *_: None)
        self.timed = Timed(sock)
        self.rfile = self.wfile = self.timed
        self._shaken = not isinstance(sock, ssl.SSLSocket)

    def communicate(self) -> bool:
        self.timed.allow(HEAD_S)
        if not self._shaken:
            self.socket.settimeout(HEAD_S)
            try:
                self.socket.do_handshake()
            except OSError as error:
                log.debug("TLS handshake with %s failed: %s", self.remote_addr, error)
                return False
            self._shaken = True
        while super().communicate():
            if not (self.server.ready and self._another()):
                return True
            self.timed.allow(HEAD_S)
        return False

    def _another(self) -> bool:
        """Whether the next request comes at once: handing over costs two thread switches."""
        if self.timed.has_data():
            return True
        if not LINGERING.acquire(blocking=False):
            return False
        try:
            return bool(select.select([self.socket], [], [], LINGER_S)[0])
        except (OSError, ValueError):
            return False
        finally:
            LINGERING.release()


class Adapter(BuiltinSSLAdapter):
    """TLS whose handshake is left to the worker's thread."""

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, Any]]:
        wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return wrapped, {"wsgi.url_scheme": "https", "HTTPS": "on"}


class HttpServer(wsgi.Server):
    """cheroot's server; a new connection takes a thread only once it has sent something."""

    ConnectionClass = Connection

    def process_conn(self, conn: Connection) -> None:
        if conn.last_used is None:
            self._connections.put(conn)  # type: ignore[attr-defined]
        else:
            super().process_conn(conn)

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        log.log(level, "%s", msg, exc_info=traceback)
