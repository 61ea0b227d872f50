"""Which requests were answered, and how: the last replies, and older ids."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """One HTTP reply. header_length: of its JSON part, None if that is all."""

    status: int
    content: bytes
    header_length: int | None = None


@dataclass(frozen=True)
class Remembered:
    """fingerprint: of the request, "" if forgotten. reply: None if forgotten."""

    fingerprint: str
    reply: Reply | None


class Memory:
    """Replies by request id. The oldest are forgotten, their ids much later.

    replies, content_bytes: how many replies, and how many bytes of them, are
    kept (the newest always is). ids: how many older ids are known.
    """

    def __init__(
        self, replies: int = 256, content_bytes: int = 128 * 2**20, ids: int = 100_000
    ) -> None:
        self._replies: OrderedDict[str, Remembered] = OrderedDict()
        self._forgotten: OrderedDict[str, None] = OrderedDict()
        self._limits = (replies, content_bytes, ids)
        self._bytes = 0

    def find(self, request_id: str) -> Remembered | None:
        if request_id in self._forgotten:
            return Remembered("", None)
        return self._replies.get(request_id)

    def keep(self, request_id: str, fingerprint: str, reply: Reply | None) -> None:
        """reply: None for a request that began and whose answer is unknown."""
        self._replies[request_id] = Remembered(fingerprint, reply)
        self._bytes += _size(reply)
        most, most_bytes, ids = self._limits
        while len(self._replies) > most or (self._bytes > most_bytes and len(self._replies) > 1):
            oldest, gone = self._replies.popitem(last=False)
            self._bytes -= _size(gone.reply)
            self._forgotten[oldest] = None
        while len(self._forgotten) > ids:
            self._forgotten.popitem(last=False)


def _size(reply: Reply | None) -> int:
    return 0 if reply is None else len(reply.content)
