"""The bench of the remote door measures what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from validation.bench import remote


@pytest.mark.slow
@pytest.mark.parametrize("mutual", [False, True])
def test_round_trips_are_within_their_bounds(tmp_path: Path, mutual: bool) -> None:
    rows = remote._round_trips(1.0, remote.certificates(tmp_path) if mutual else None)
    assert rows[0].value > rows[1].value > 0
    assert rows[0].holds
