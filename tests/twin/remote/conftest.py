"""A served chip for tests of sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.twin.remote.sockets import watched
from tests.twin.remote.support import Counting


@pytest.fixture
def served(caplog: pytest.LogCaptureFixture) -> Iterator[tuple[Counting, tuple[str, int]]]:
    with watched(caplog) as given:
        yield given
