"""What an optical rig refuses: by a typed error with its number, and nothing has changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from substrates.optics.rig import OpticalRig
from tests.substrates.rigs import REACTING, SLAB, make_rig, matrix_file, uniform
from twin.backend import Snapshot
from twin.errors import ConfigError, DataError, DialError, DriveError, SnapshotError, UnknownName
from twin.fence import Fence
from twin.key import Key

SMALL: dict[str, Any] = {"inputs": 9, "pixels": 16}
SETTLED: dict[str, Any] = {**SMALL, "modulator": {"settling_s": 0.05}, "drift": "tissue-like"}


def same(a: Snapshot, b: Snapshot) -> bool:
    return (
        a.values == b.values
        and a.arrays.keys() == b.arrays.keys()
        and all(torch.equal(a.arrays[n], b.arrays[n]) for n in a.arrays)
    )


def used() -> OpticalRig:
    """A rig with something in every part of its state."""
    rig = make_rig(SETTLED)
    rig.adjust("shutter", 0.7, key=Key(0))
    rig.forward(uniform(1, 3), key=Key(0))
    rig.wait(0.1)
    return rig


# ---------------------------------------------------------------- makeup


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"preset": "industral"}, UnknownName, "Did you mean 'industrial'"),
        ({"drift": "tissue"}, UnknownName, "Did you mean 'tissue-like'"),
        ({"sensor": "imx17"}, UnknownName, "Did you mean 'imx174'"),
        ({"medium": "gausian"}, ConfigError, "'gausian'.*'gaussian'"),
        ({"medium": {"kind": "multislise"}}, ConfigError, "'multislice'"),
        ({"modulator": {"kind": "dnd"}}, ConfigError, "'dmd'"),
        ({"modulater": {}}, ConfigError, "modulater"),
        ({"medium": {"kind": "gaussian", "paterns": 2}}, ConfigError, "paterns"),
        ({"exposure_s": -0.01}, ConfigError, r"exposure_s.*-0\.01"),
        ({"mean_electrons": float("nan")}, ConfigError, "mean_electrons.*nan"),
        ({"frame_rate_hz": float("inf")}, ConfigError, "frame_rate_hz.*inf"),
        ({"sensor": {"temperature_c": 200.0}}, ConfigError, "temperature_c.*200"),
        ({"sensor": {"shape": (4, 5)}}, ConfigError, "20 codes, but pixels = 16"),
        ({"sensor": {"shape": (4, 4), "roi": (3, 0, 2, 4)}}, ConfigError, "leave the sensor"),
        ({"sensor": {"shape": (5, 5), "binning": 2}}, ConfigError, "5 x 5"),
        ({"sensor": {"binning": 2}}, ConfigError, "need a sensor with rows"),
        ({"sensor": {"offset_dn": 255.0}}, ConfigError, "255"),
        ({"medium": {"kind": "grains", "camera_rows": 7}}, ConfigError, "16 pixels.*7 rows"),
        ({"medium": {"kind": "bimodal"}}, ConfigError, "9 modes.*16 pixels"),
        ({"modulator": {"kind": "dmd", "levels": 3}}, ConfigError, "3 levels"),
        ({"modulator": {"turn_grey": 100.0, "table": (0, 100)}}, ConfigError, "same light"),
        ({"modulator": {"turn_grey": 142.0, "table": (0, 300)}}, ConfigError, "grey value 300"),
        ({"modulator": {"curve_rad": (0.0, float("nan"))}}, ConfigError, "curve_rad"),
        ({"drift": {"tau_s": 1.0, "warmup_tau_s": 2.0}}, ConfigError, "2 s exceeds tau_s = 1"),
        ({"medium": REACTING, "drift": "slow"}, ConfigError, "no matrix to drift"),
        ({"medium": REACTING, "unmodulated_fraction": 0.1}, ConfigError, "unmodulated"),
        ({"shot_noise": "gaussian", "mean_electrons": 5.0}, ConfigError, "got 5 "),
        ({"compute_device": "abacus"}, ConfigError, "abacus"),
    ],
)
def test_a_bad_makeup_is_refused_with_what_is_wrong(
    options: dict[str, Any], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        make_rig({**SMALL, **options})


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        # Light of NA lambda / 2 pitch spans half a grid of 32 x 8 um after 7.7 mm.
        ({"slice_distance_m": 0.05, "correlation_length_m": 0.0}, r"travels 1[0-9.]* times half"),
        ({"pitch_m": 3e-7, "correlation_length_m": 0.0}, r"NA|aperture|paraxial"),
        ({"pitch_m": 6e-5, "correlation_length_m": 2e-5}, r"NA|sampl"),
    ],
)
def test_a_slab_that_its_grid_cannot_carry_is_refused_with_the_number(
    changed: dict[str, float], told: str
) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        make_rig({**SMALL, "medium": {**SLAB, **changed}})
    assert any(letter.isdigit() for letter in str(caught.value))


def planted(folder: Path, values: Any, name: str = "matrix.npy") -> dict[str, Any]:
    np.save(folder / name, values, allow_pickle=True)
    return {"kind": "file", "path": str(folder / name)}


def test_a_matrix_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    good = np.load(matrix_file(16, 9))
    broken = good.copy()
    broken[3, 4] = np.nan
    for values, told in (
        (broken, "1 of 144 entries are not finite"),
        (good.T, "Transpose it"),
        (good[:, :8], r"\(16, 9\).*got \(16, 8\)"),
        (good.real, "expected complex"),
        (np.zeros((16, 9), complex), "above 0"),
        (np.array([{"a": 1}], dtype=object), "cannot be read"),
    ):
        with pytest.raises(DataError, match=told):
            make_rig({**SMALL, "medium": planted(tmp_path, values)})
    with pytest.raises(DataError, match="no such file"):
        make_rig({**SMALL, "medium": {"kind": "file", "path": str(tmp_path / "none.npy")}})
    (tmp_path / "torn.npy").write_bytes((tmp_path / "matrix.npy").read_bytes()[:40])
    with pytest.raises(DataError, match="cannot be read"):
        make_rig({**SMALL, "medium": {"kind": "file", "path": str(tmp_path / "torn.npy")}})


# ---------------------------------------------------------------- drives, dials, waits


@pytest.mark.parametrize(
    "drive",
    [
        torch.full((2, 9), float("nan")), torch.full((2, 9), 1.01), torch.full((2, 9), -1e-3),
        torch.full((2, 9), float("inf")), torch.zeros(2, 8), torch.zeros(9), torch.zeros(0, 9),
        torch.zeros(2, 9, 1),
    ],
)  # fmt: skip
def test_a_bad_drive_is_refused_and_changes_nothing(drive: Tensor) -> None:
    rig = used()
    before = rig.snapshot()
    with pytest.raises(DriveError):
        rig.forward(drive, key=Key(0))
    with pytest.raises(DriveError):
        rig.set_range(drive, key=Key(0))
    with pytest.raises(DriveError):
        Fence(rig, name="rig").forward(drive, key=Key(0))
    assert same(rig.snapshot(), before)


def test_a_bad_drive_of_mirrors_is_not_told_in_radians() -> None:
    with pytest.raises(DriveError, match="mirrors on"):
        make_rig({**SMALL, "modulator": {"kind": "dmd"}}).forward(
            torch.full((1, 9), 2.0), key=Key(0)
        )


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -1e-9, 1.1, 10**400, "much", None, [1.0], 1j]
)
def test_a_dial_refuses_what_is_no_number_in_its_range(value: Any) -> None:
    rig = used()
    before = rig.snapshot()
    with pytest.raises(DialError, match="shutter"):
        rig.adjust("shutter", value, key=Key(0))
    assert same(rig.snapshot(), before)


def test_an_unknown_dial_gets_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'temperature_c'"):
        make_rig(SMALL).adjust("temperature", 1.0, key=Key(0))


def test_a_slab_that_reacts_to_light_has_no_dial_to_drift() -> None:
    rig = make_rig({**SMALL, "medium": REACTING})
    with pytest.raises(UnknownName):
        rig.adjust("drift_scale", 1.0, key=Key(0))
    rig.wait(10.0)
    rig.forward(uniform(1, 2), key=Key(0))


def test_a_dial_that_would_leave_gaussian_noise_without_light_is_refused() -> None:
    rig = make_rig({**SMALL, "shot_noise": "gaussian"})
    before = rig.snapshot()
    with pytest.raises(DialError, match="100"):
        rig.adjust("mean_electrons", 50.0, key=Key(0))
    assert same(rig.snapshot(), before)


@pytest.mark.parametrize("seconds", [-1e-9, float("nan"), float("inf"), 1e306])
def test_a_bad_wait_is_refused_and_changes_nothing(seconds: float) -> None:
    rig = used()
    rig.adjust("drift_scale", 1e4, key=Key(0))
    before = rig.snapshot()
    with pytest.raises(DialError, match="wait"):
        rig.wait(seconds)
    assert same(rig.snapshot(), before)


def test_a_medium_too_old_for_its_clock_is_refused_with_its_age() -> None:
    rig = used()
    rig.wait(1e18)
    before = rig.snapshot()
    with pytest.raises(DriveError, match=r"1e\+18 s"):
        rig.forward(uniform(1, 2), key=Key(0))
    assert same(rig.snapshot(), before)


def test_random_jumps_of_years_are_counted_at_once() -> None:
    """5e15 jumps: a clock that counted them one by one would not come back."""
    drift = {"jump_rate_hz": 5e6, "jump_fraction": 1e-9}
    rig = make_rig({**SMALL, "drift": drift})
    rig.wait(1e9)
    first = rig.forward(uniform(1, 2), key=Key(0)).codes
    again = make_rig({**SMALL, "drift": drift})
    again.forward(uniform(1, 2), key=Key(0))
    again.wait(1e9 - 2 / 60)
    assert torch.equal(again.forward(uniform(1, 2), key=Key(0)).codes, first)


# ---------------------------------------------------------------- snapshots


@pytest.mark.parametrize(
    "changed",
    [
        {"shutter": "x", "clock_s": 3.0}, {"state_version": "q", "clock_s": 3.0},
        {"clock_s": float("nan")}, {"drift_s": -1.0}, {"shutter": 7.0}, {"mean_electrons": 0.0},
        {"temperature_c": float("inf")}, {"surprise": 1.0},
    ],
)  # fmt: skip
def test_a_spoilt_snapshot_is_refused_and_changes_nothing(changed: dict[str, Any]) -> None:
    rig = used()
    saved = rig.snapshot()
    rig.wait(1.0)
    before = rig.snapshot()
    with pytest.raises(SnapshotError):
        rig.restore(dataclasses.replace(saved, values={**saved.values, **changed}))
    assert same(rig.snapshot(), before)


@pytest.mark.parametrize(
    "pattern", [torch.zeros(2, 8), torch.zeros(9), torch.full((2, 9), float("nan"))]
)
def test_a_spoilt_pattern_is_refused_and_changes_nothing(pattern: Tensor) -> None:
    rig = used()
    saved = rig.snapshot()
    with pytest.raises(SnapshotError):
        rig.restore(dataclasses.replace(saved, arrays={"pattern_rad": pattern}))
    assert same(rig.snapshot(), saved)


def test_another_rig_refuses_the_snapshot() -> None:
    with pytest.raises(SnapshotError, match="snapshot is of"):
        make_rig(SETTLED, 1).restore(used().snapshot())
