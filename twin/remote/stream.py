"""Connections of the HTTP server: whole-request deadlines, few copies, late handshakes.

cheroot's own streams give every read its own time-out, so that a client which
sends a byte now and then holds a thread for ever; and its TLS handshake runs in
the thread that accepts everybody. Both are replaced here.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from cheroot import connections, wsgi
from cheroot import server as cheroot_server
from cheroot.ssl.builtin import BuiltinSSLAdapter

from twin.remote.framing import Request, refusal

CHUNK = 2**16
HEAD_S = 10.0
"""Time for a handshake, for the head of a request, and for the smallest body."""
SLOWEST = 1e6
"""Bytes a second below which a body, or the reading of a reply, is given up."""
FAREWELL_S = 0.3
"""How long a refused client may go on sending: a reset could overtake the answer."""
HANDSHAKE = b"\x16"
"""How every conversation in TLS begins."""
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

    def allow(self) -> None:
        """Begin a new part of the conversation; every byte that passes earns it more time."""
        self.deadline_s = time.monotonic() + HEAD_S

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
            piece = self._in_time(self._sock.recv, CHUNK)
            if not piece:
                return bytes(self._cut(len(self._buffer)))
            self._buffer += piece

    def read(self, size: int | None = None) -> memoryview:
        """Exactly `size` bytes, fewer only at the end of the connection."""
        assert size is not None and size >= 0
        # Not a bytearray: its zeros would be memory taken for bytes that may never come.
        view = np.empty(size, np.uint8).data
        ready = self._cut(min(size, len(self._buffer)))
        view[: len(ready)] = ready
        filled = len(ready)
        while filled < size:
            count = self._in_time(self._sock.recv_into, view[filled:])
            if count == 0:
                return view[:filled]
            filled += count
            self.deadline_s += count / SLOWEST
        return view

    def write(self, content: bytes) -> int:
        """Send all of `content`."""
        view = memoryview(content)
        while view:
            count = self._in_time(self._sock.send, view)
            view = view[count:]
            self.deadline_s += count / SLOWEST
        return len(content)

    def close(self) -> None:
        """The connection closes the socket itself."""
        self.closed = True

    def _cut(self, count: int) -> bytearray:
        piece = self._buffer[:count]
        del self._buffer[:count]
        return piece

    def _in_time(self, act: Callable[[Any], Any], argument: Any) -> Any:
        """One act of the socket before the deadline; it fails in one of two ways.

        cheroot takes what it does not know, as an alert of TLS, for its own error.
        """
        left = self.deadline_s - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(left)
            return act(argument)
        except TimeoutError:
            raise TimeoutError("timed out") from None
        except OSError as error:
            raise ConnectionResetError(errno.ECONNRESET, str(error)) from None


class Connection(cheroot_server.HTTPConnection):
    """A connection that shakes hands in the worker's thread."""

    RequestHandlerClass = Request

    def __init__(self, server: Any, sock: socket.socket, _makefile: Any = None) -> None:
        super().__init__(server, sock, lambda *_: None)
        self.timed = Timed(sock)
        self.rfile = self.wfile = self.timed
        self._fresh = True

    def communicate(self) -> bool:
        self.timed.allow()
        kept = self._greeted() and self._served()
        if not kept:
            self._farewell()
        return kept

    def _served(self) -> bool:
        while super().communicate():
            if not (self.server.ready and self._another()):
                return True
            self.timed.allow()
        return False

    def _greeted(self) -> bool:
        """Whether the client speaks as this port does, TLS or not; it is told if not."""
        if not self._fresh:
            return True
        self._fresh = False
        tls = isinstance(self.socket, ssl.SSLSocket)
        try:
            self.socket.settimeout(HEAD_S)
            # The plain socket's own: that of TLS knows no flags.
            first = socket.socket.recv(self.socket, 1, socket.MSG_PEEK)
            if first and tls != (first == HANDSHAKE):
                socket.socket.sendall(self.socket, _wrong_door(tls))
                return False
            if tls:
                self.socket.do_handshake()
        except OSError as error:
            log.debug("no conversation with %s: %s", self.remote_addr, error)
            return False
        return True

    def _farewell(self) -> None:
        """End our half, and let the client finish, so that it can read what we said last."""
        end_s = time.monotonic() + FAREWELL_S
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_WR)
            while (left := end_s - time.monotonic()) > 0:
                self.socket.settimeout(left)
                if not socket.socket.recv(self.socket, CHUNK):
                    return

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


def _wrong_door(tls: bool) -> bytes:
    speaks, scheme = ("TLS", "https") if tls else ("plain HTTP", "http")
    return refusal("400 Bad Request", f"this port speaks {speaks}; use {scheme}://")


class Adapter(BuiltinSSLAdapter):
    """TLS whose handshake is left to the worker's thread."""

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, Any]]:
        try:
            sock.getpeername()
        except OSError:
            # The module ssl would leave it open.
            sock.close()
            raise
        wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return wrapped, {"wsgi.url_scheme": "https", "HTTPS": "on"}


class Accepting(connections.ConnectionManager):
    """Takes connections in, up to a limit: who has been silent longest goes first."""

    _selector: Any

    def make_room(self, most: int) -> bool:
        """Let the longest silent go if there are `most`; False if there are twice as many."""
        if len(self._selector) <= most:
            return True
        waiting = [conn for _, conn in self._selector.connections if conn is not self.server]
        if len(waiting) >= most:
            # Not closed here: it may be among those that were just found to have sent something.
            min(waiting, key=lambda conn: conn.last_used or time.time()).last_used = 0.0
        return len(waiting) < 2 * most

    def _from_server_socket(self, server_socket: socket.socket) -> Any:
        try:
            return super()._from_server_socket(server_socket)  # type: ignore[misc]
        except OSError as error:
            # Gone before the first byte, or no file handle is left. Left to cheroot,
            # its loop would begin anew each time and never let a silent connection go.
            log.debug("a connection could not be taken: %s", error)
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self.make_room(1)
                time.sleep(0.01)
            return None


class HttpServer(wsgi.Server):
    """cheroot's server; a new connection takes a thread only once it has sent something."""

    ConnectionClass = Connection
    _connections: Any

    def prepare(self) -> None:
        super().prepare()
        self._connections._selector.close()
        self._connections = Accepting(self)

    def process_conn(self, conn: Connection) -> None:
        if conn.last_used is not None:
            super().process_conn(conn)
        elif self._connections.make_room(self.keep_alive_conn_limit):
            self._connections.put(conn)
        else:
            conn.close()

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        log.log(level, "%s", msg, exc_info=traceback)
