"""Where a request ends: the head of a request by the letter, so that all read it alike.

cheroot forgives blanks, bare line ends and odd numbers that another program on
the way may read in another way, and stumbles over some. Nothing is forgiven here.
Source: RFC 9112, 2 to 6.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

from cheroot import server as cheroot_server

LINE = re.compile(rb"([A-Z]{1,32}) ((/[!-\"$->@-~]*)(?:\?([!-\"$-~]*))?) (HTTP/[0-9]\.[0-9])\r\n")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t -~\x80-\xff]*)\r\n")


def read_headers(rfile: Any, found: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Headers by name, each once: two lengths are two readings of one request."""
    while (line := rfile.readline()) != b"\r\n":
        field = FIELD.fullmatch(line)
        if field is None:
            raise ValueError("a header is not NAME: VALUE on one line that ends with CR LF")
        name = field[1].title()
        if b"_" in name:
            # It would pass for one with a dash.
            continue
        if name in found:
            raise ValueError("a header comes twice")
        found[name] = field[2].strip(b" \t")
    return found


def refusal(status: str, text: str) -> bytes:
    """A whole answer of the protocol's form, the last one of its connection."""
    kind = "TooLarge" if status.startswith("413") else "Malformed"
    content = json.dumps({"error": text, "kind": kind}).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n"
        "Content-Type: application/json\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + content


class Request(cheroot_server.HTTPRequest):
    """A request whose framing is plain: a length in digits, never chunks."""

    header_reader = staticmethod(read_headers)

    def read_request_line(self) -> bool:
        line = self.rfile.readline()
        self.started_request = True
        if line == b"\r\n":
            # One empty line before a request is allowed.
            line = self.rfile.readline()
        if not line:
            return False
        found = LINE.fullmatch(line)
        if found is None:
            self.simple_response("400 Bad Request", "expected METHOD /path HTTP/1.1 and CR LF")
            return False
        self.method, self.uri, self.path = found[1], found[2], found[3]
        self.qs, self.authority = found[4] or b"", b""
        self.request_protocol = found[5]
        if self.request_protocol not in (b"HTTP/1.0", b"HTTP/1.1"):
            self.simple_response("505 HTTP Version Not Supported", "use HTTP/1.1")
            return False
        self.response_protocol = self.request_protocol.decode()
        return True

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
        self.conn.timed.allow()
        return True

    def send_headers(self) -> None:
        if (b"Connection", b"close") in self.outheaders:
            self.close_connection = True
        self.conn.timed.allow()
        super().send_headers()

    def simple_response(self, status: Any, msg: str = "") -> None:
        """What cheroot itself answers, in the protocol's form."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.conn.timed.allow()
            self.conn.wfile.write(refusal(str(status), msg or str(status)))
