"""A program for tests: serve one noisy chip with a journal until killed."""

from __future__ import annotations

import sys

from tests.planted import Healthy
from twin.key import Key
from twin.remote.server import run

if __name__ == "__main__":
    folder, port = sys.argv[1], int(sys.argv[2])
    run(
        lambda: {"chip": Healthy(Key(3))},
        lambda server: sys.stdout.write(server.url + "\n") and sys.stdout.flush(),
        journal=folder,
        port=port,
    )
