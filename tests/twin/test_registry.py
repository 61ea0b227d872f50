"""Names lead to backends, and wrong names to the nearest right one."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from substrates.ideal import Ideal
from twin import registry
from twin.errors import ConfigError, DataError, DeviceUnavailable, UnknownName
from twin.key import Key
from twin.registry import names, open_backend
from twin.wrap import Recorded, Replayed


def test_our_own_substrates_come_through_the_public_door() -> None:
    assert {"ideal", "memristor", "optics"} <= set(names())
    assert isinstance(open_backend("ideal", key=Key(0), inputs=3), Ideal)


@pytest.mark.parametrize(
    ("wrong", "right"), [("ideel", "ideal"), ("memresistor", "memristor"), ("optic", "optics")]
)
def test_a_misspelt_name_is_answered_with_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(UnknownName, match=f"Did you mean '{right}'"):
        open_backend(wrong, key=Key(0))


def test_a_name_like_no_other_is_answered_with_all_of_them() -> None:
    with pytest.raises(UnknownName, match=r"Known: .*ideal.*memristor.*optics"):
        open_backend("qqqqqqqq", key=Key(0))


def test_a_wrong_option_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'noise_v'"):
        open_backend("ideal", key=Key(0), noise=0.1)


def test_a_plug_in_that_cannot_be_imported_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = EntryPoint("rig", "no_such_package_anywhere:make", registry.GROUP)
    monkeypatch.setattr(registry, "_installed", lambda: {"rig": rig})
    with pytest.raises(ConfigError, match="no_such_package_anywhere"):
        open_backend("rig", key=Key(0))


def test_a_recording_on_disk_is_a_backend(tmp_path: Path) -> None:
    device = Recorded(open_backend("ideal", key=Key(0), inputs=3, outputs=2, noise_v=0.1))
    device.program(torch.full((3, 2), 0.5), key=Key(1))
    reading = device.forward(torch.full((4, 3), 0.25), key=Key(2))
    device.recording.save(tmp_path / "run")
    replayed = open_backend(f"replay:{tmp_path / 'run'}", key=Key(99))
    assert isinstance(replayed, Replayed)
    assert replayed.capabilities == device.capabilities
    replayed.program(torch.full((3, 2), 0.5), key=Key(1))
    again = replayed.forward(torch.full((4, 3), 0.25), key=Key(2))
    assert torch.equal(again.codes, reading.codes)


def test_a_recording_takes_no_options_and_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes no options"):
        open_backend(f"replay:{tmp_path}", key=Key(0), inputs=3)
    with pytest.raises(DataError, match=r"recording\.json"):
        open_backend(f"replay:{tmp_path}", key=Key(0))


def test_a_prefix_makes_any_backend_faulty() -> None:
    device = open_backend("faulty+ideal", key=Key(0), fault_rate=1.0, inputs=3, outputs=2)
    assert device.capabilities.device_id == "ideal-3x2"
    with pytest.raises(DeviceUnavailable, match="did not act"):
        device.forward(torch.zeros(1, 3), key=Key(0))
    with pytest.raises(UnknownName, match="Did you mean 'ideal'"):
        open_backend("faulty+ideel", key=Key(0))
