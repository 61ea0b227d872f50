"""One torch thread, one small Hypothesis profile, and no trace in the home folder."""

import os

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("local", max_examples=25, deadline=None)
settings.register_profile("thorough", max_examples=300, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "local"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """References trained in tests are cached for the session only."""
    monkeypatch.setenv("PIB_TWIN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
