"""Names lead to backends, and wrong names to the nearest right one."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from substrates.ideal import Ideal
from twin import registry
from twin.errors import ConfigError, DataError, DeviceUnavailable, UnknownName
from twin.key import Key
from twin.registry import names, one_of_a_kind, open_backend
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
    with pytest.raises(ConfigError, match="configured where it runs"):
        open_backend(f"replay:{tmp_path}", key=Key(0), noise_v=3)
    with pytest.raises(DataError, match=r"recording\.json"):
        open_backend(f"replay:{tmp_path}", key=Key(0))


def test_a_prefix_makes_any_backend_faulty() -> None:
    device = open_backend("faulty+ideal", key=Key(0), fault_rate=1.0, inputs=3, outputs=2)
    assert device.capabilities.device_id == "ideal-3x2"
    with pytest.raises(DeviceUnavailable, match="did not act"):
        device.forward(torch.zeros(1, 3), key=Key(0))
    with pytest.raises(UnknownName, match="Did you mean 'ideal'"):
        open_backend("faulty+ideel", key=Key(0))


def test_prefixes_wrap_in_the_order_they_are_written(tmp_path: Path) -> None:
    name = "recorded+slow+faulty+ideal"
    options = {"inputs": 3, "fault_rate": 1.0, "delay_s": 0.0, "record_to": str(tmp_path / "run")}
    device = open_backend(name, key=Key(0), **options)
    with pytest.raises(DeviceUnavailable, match="planted"):
        device.forward(torch.zeros(1, 3), key=Key(1))
    device.close()
    assert (tmp_path / "run").is_dir()


def test_a_slow_device_takes_its_time_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("twin.slow.time.sleep", slept.append)
    plain, slow = (
        open_backend(name, key=Key(0), inputs=3, noise_v=0.1, **options)
        for name, options in (("ideal", {}), ("slow+ideal", {"delay_s": 0.25}))
    )
    drive = torch.full((2, 3), 0.5)
    assert torch.equal(
        slow.forward(drive, key=Key(1)).codes, plain.forward(drive, key=Key(1)).codes
    )
    assert slept == [0.25] and slow.capabilities == plain.capabilities


@pytest.mark.parametrize("delay_s", [-1.0, float("nan"), float("inf"), "soon"])
def test_a_delay_that_is_no_time_is_refused(delay_s: object) -> None:
    with pytest.raises(ConfigError, match="delay_s must be seconds"):
        open_backend("slow+ideal", key=Key(0), inputs=3, delay_s=delay_s)


def test_what_is_behind_a_uri_is_not_configured_here(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="configured where it runs"):
        open_backend(f"replay:{tmp_path}", key=Key(0), noise_v=0.1)
    with pytest.raises(ConfigError, match=r"no option 'token'.*Did you mean 'token_env'"):
        open_backend("http://127.0.0.1:1/unit", key=Key(0), token="secret")


def test_a_token_comes_from_the_environment_and_its_variable_must_be_set() -> None:
    with pytest.raises(ConfigError, match=r"'NO_SUCH_TOKEN' .token_env. is not set"):
        open_backend("http://127.0.0.1:1/unit", key=Key(0), token_env="NO_SUCH_TOKEN")


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 2), (3, 5)])
def test_a_recording_of_another_size_is_refused(tmp_path: Path, inputs: int, outputs: int) -> None:
    device = Recorded(open_backend("ideal", key=Key(0), inputs=3, outputs=2))
    device.recording.save(tmp_path / "run")
    with pytest.raises(ConfigError, match="the network wants"):
        open_backend(f"replay:{tmp_path / 'run'}", key=Key(0), inputs=inputs, outputs=outputs)
    open_backend(f"replay:{tmp_path / 'run'}", key=Key(0), inputs=3, outputs=2).close()


@pytest.mark.parametrize(
    ("name", "single"),
    [("ideal", False), ("faulty+memristor", False), ("recorded+ideal", True),
     ("slow+recorded+ideal", True), ("replay:run", True), ("slow+https://there/unit", True)],
)  # fmt: skip
def test_what_is_recorded_replayed_or_elsewhere_is_not_opened_twice(
    name: str, single: bool
) -> None:
    capabilities = open_backend("ideal", key=Key(0), inputs=3).capabilities
    assert one_of_a_kind(name, capabilities) is single
    # A device without a seed is a real one.
    assert one_of_a_kind(name, replace(capabilities, seedable=False))
