"""Ctrl-C and SIGTERM: an orderly end, so that every device is closed once.

Importing this module must not import torch.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what Ctrl-C does, with another exit code."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises Terminated, so that whatever is open is closed; main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise Terminated

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


@contextmanager
def held() -> Iterator[Callable[[], None]]:
    """Hold both signals back until the yielded function is called, or until the end.

    Half a step in a checkpoint could not be repeated bit for bit, and a device half
    open has nobody to close it. A second signal acts at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    asked: list[type[KeyboardInterrupt]] = []

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        asked.append(kind)
        if len(asked) > 1:
            raise kind

    def check() -> None:
        if asked:
            raise asked[0]

    previous = {number: signal.signal(number, note) for number in STOPS}
    try:
        yield check
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
    check()
