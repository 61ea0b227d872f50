"""Camera parameters from frames: against synthetic cameras whose parameters are known."""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from substrates.optics.camerafit import CameraFit, fitted
from substrates.optics.camerapreset import document, options, predicted
from substrates.optics.frameset import FrameSet, recorded
from substrates.optics.sensor import SensorTable
from tests.substrates.cameras import Stack, camera, exposed
from twin.backend import Capabilities, Port, Reading
from twin.config import build
from twin.errors import DataError
from twin.key import Key
from twin.recording import Call, Recording
from validation import camerafit

EXPOSURES_S = (0.01, 0.1, 0.3, 0.5, 0.8, 1.0)
SIDE = 60


def drawn_truth(key: Key) -> dict[str, float]:
    """Parameters of a plausible camera of 12 bits."""
    g = key.numpy()
    gain = math.exp(g.uniform(math.log(0.1), math.log(2)))
    read = max(math.exp(g.uniform(math.log(1.5), math.log(12))), 0.7 / gain)
    return {
        "gain": gain,
        "read_noise": read,
        "offset": float(g.uniform(8 * gain * read + 5, 200)),
        "dark_current": float(g.uniform(5, 300)),
        "prnu": float(g.uniform(0.003, 0.02)),
        "dsnu": float(g.uniform(0.5, 3)),
        "read_noise_spread": float(g.uniform(0.05, 0.4)),
    }


TYPICAL = {
    "gain": 0.5, "read_noise": 6.0, "offset": 100.0, "dark_current": 60.0, "prnu": 0.01,
    "dsnu": 2.0, "read_noise_spread": 0.25,
}  # fmt: skip


def stacks_of(
    truth: dict[str, float],
    key: Key,
    sensor: dict[str, Any] | None = None,
    pattern: NDArray[np.float64] | None = None,
    fill: float = 0.75,
    shape: tuple[int, int] = (SIDE, SIDE),
    **given: Any,
) -> list[Stack]:
    """Pairs of bright frames and eight dark ones per exposure, the brightest at `fill`."""
    table = {
        "shape": shape, "gain_dn_per_electron": truth["gain"], "offset_dn": truth["offset"],
        "prnu": truth["prnu"], "dsnu_electrons": truth["dsnu"],
        "read_noise_spread": truth["read_noise_spread"], **(sensor or {}),
    }  # fmt: skip
    made, at = camera(
        key.child("camera"), math.prod(shape), table, exposure_s=1.0, **given,
        read_noise_electrons=truth["read_noise"], dark_electrons_per_s=truth["dark_current"],
    )  # fmt: skip
    electrons = fill * (made.top - truth["offset"]) / truth["gain"]
    stacks = exposed(made, at, key, EXPOSURES_S, electrons, 2, 8, pattern)
    return [(lit, t, codes.reshape(len(codes), *shape)) for lit, t, codes in stacks]


def fit_of(truth: dict[str, float], key: Key, **changes: Any) -> CameraFit:
    return fitted(FrameSet.of(stacks_of(truth, key, **changes)))


# ---------------------------------------------------------------- coverage


def covered(cameras: int) -> tuple[Counter[str], Counter[str]]:
    hits: Counter[str] = Counter()
    tries: Counter[str] = Counter()
    for number in range(cameras):
        truth = drawn_truth(Key(number).child("truth"))
        fit = fit_of(truth, Key(number))
        for name, estimate in fit.estimates.items():
            hits[name] += estimate.low <= truth[name] <= estimate.high
            tries[name] += 1
    return hits, tries


def test_95_percent_intervals_of_40_cameras_cover_the_truth() -> None:
    """More misses than once in a million, and no miss in 250 tries, would be binomial luck."""
    hits, tries = covered(40)
    assert set(tries) == set(TYPICAL)
    for name, count in tries.items():
        assert count >= 15  # the spread needs a dark noise above 1.4 DN
        assert count - hits[name] <= stats.binom.isf(1e-6, count, 0.05), name
    assert hits.total() < tries.total()


@pytest.mark.slow
def test_95_percent_intervals_of_200_cameras_cover_in_90_to_99_percent() -> None:
    hits, tries = covered(200)
    for name, count in tries.items():
        assert 0.90 <= hits[name] / count <= 0.99, name


# ---------------------------------------------------------------- estimates


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_every_estimate_is_within_five_standard_errors(seed: int) -> None:
    truth = drawn_truth(Key(seed).child("truth"))
    fit = fit_of(truth, Key(seed))
    for name, estimate in fit.estimates.items():
        # Student's t of 39 degrees of freedom: six of its errors for five of a normal law.
        assert abs(estimate.value - truth[name]) < 6 * estimate.standard_error, name
        assert estimate.low <= estimate.value <= estimate.high


def test_maps_follow_the_pixels_of_the_camera() -> None:
    """Fitted black levels and responses against the camera's own: correlation as predicted."""
    truth = {**TYPICAL, "dsnu": 4.0}
    fit = fit_of(truth, Key(1))
    table = {"gain_dn_per_electron": 0.5, "prnu": 0.01, "dsnu_electrons": 4.0,
             "read_noise_spread": 0.25, "shape": (SIDE, SIDE)}  # fmt: skip
    made, _ = camera(Key(1).child("camera"), SIDE**2, table)
    for name in ("dsnu_electrons", "response", "read_noise_ratio"):
        true = getattr(made._maps, name).double().numpy()
        error = fit.map_errors[name]
        if name == "read_noise_ratio":
            true, error = np.log(true), error / fit.maps[name]
        seen = np.log(fit.maps[name]) if name == "read_noise_ratio" else fit.maps[name]
        rest = (seen - seen.mean()) - (true - true.mean())
        assert rest.std() == pytest.approx(error.mean(), rel=0.1)
        assert rest.std() < 0.8 * true.std()


def test_left_justified_frames_give_the_same_camera() -> None:
    right = fit_of(TYPICAL, Key(2))
    left = fit_of(TYPICAL, Key(2), sensor={"justification": "left"})
    assert left.frames.step == 16 and left.frames.bits == 12
    assert left.estimates == right.estimates
    assert options(left)["sensor"]["justification"] == "left"


def test_faulty_pixels_are_found_and_left_out() -> None:
    faults = {"hot_pixel_fraction": 0.005, "dead_pixel_fraction": 0.004, "hot_pixel_ratio": 100.0}
    fit = fit_of(TYPICAL, Key(3), sensor=faults, stuck_pixel_fraction=0.003)
    made, _ = camera(
        Key(3).child("camera"), SIDE**2, {"shape": (SIDE, SIDE)}, stuck_pixel_fraction=0.003
    )
    stuck = made._rank < 0.003
    hot, dead = (made._maps.hot < 0.005) & ~stuck, (made._maps.dead < 0.004) & ~stuck
    found = {name: int(which.sum()) for name, which in (("stuck", stuck), ("hot", hot))}
    assert fit.moments.counts == {**found, "dead": int((dead & ~hot).sum())}
    for name, estimate in fit.estimates.items():
        assert abs(estimate.value - TYPICAL[name]) < 6 * estimate.standard_error, name
    assert (fit.maps["dark_ratio"][hot.numpy()] == pytest.approx(100, rel=0.1)) and (
        fit.maps["response"][(dead & ~hot).numpy()] == 0
    ).all()


def test_shading_of_the_lamp_is_no_non_uniformity_of_the_sensor() -> None:
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    lamp = 1 - 0.1 * x**2 - 0.05 * x * y + 0.04 * y
    fit = fit_of(TYPICAL, Key(4), pattern=(lamp / lamp.mean()).ravel())
    prnu = fit.estimates["prnu"]
    assert abs(prnu.value - 0.01) < 6 * prnu.standard_error


def test_under_speckle_all_but_the_response_is_known() -> None:
    speckle = np.minimum(Key(9).numpy().exponential(size=SIDE**2), 4.0)
    fit = fit_of(TYPICAL, Key(5), pattern=speckle / speckle.mean(), fill=0.3)
    assert "prnu" not in fit.estimates and "response" not in fit.maps
    for name, estimate in fit.estimates.items():
        assert abs(estimate.value - TYPICAL[name]) < 6 * estimate.standard_error, name


def test_a_full_well_below_the_code_range_is_seen_and_does_not_bend_the_line() -> None:
    fit = fit_of(TYPICAL, Key(6), sensor={"full_well_electrons": 4000.0})
    gain = fit.estimates["gain"]
    error = gain.standard_error / gain.value
    assert fit.full_well_electrons == pytest.approx(4000, rel=6 * error) and error < 0.02
    assert abs(gain.value - 0.5) < 6 * gain.standard_error
    assert not fit.moments.used[-1]


def test_saturated_exposures_are_left_out() -> None:
    fit = fit_of(TYPICAL, Key(7), fill=1.6)
    assert fit.moments.used.sum() < len(fit.moments.used)
    gain = fit.estimates["gain"]
    assert abs(gain.value - 0.5) < 6 * gain.standard_error


# ---------------------------------------------------------------- predictive check


def test_frames_of_the_model_pass_the_predictive_check_and_others_do_not() -> None:
    fit = fit_of(TYPICAL, Key(8))
    assert np.abs(predicted(fit, Key(0)).distance).max() < 5
    stacks = stacks_of(TYPICAL, Key(8))
    # Every other column brighter in every second frame: variance that is not the photons'.
    bent = [
        (lit, t, codes + (np.arange(SIDE) % 2 * (np.arange(len(codes)) % 2)[:, None] * 70)[:, None])
        if lit and t > 0.4 else (lit, t, codes)
        for lit, t, codes in stacks
    ]  # fmt: skip
    check = predicted(fitted(FrameSet.of(bent)), Key(0))
    assert np.abs(check.distance).max() > 5


# ---------------------------------------------------------------- bad input


def spoilt(kind: str) -> list[Stack]:
    """Frames with one thing wrong."""
    stacks = stacks_of(TYPICAL, Key(1), fill=4e3 if kind == "saturated" else 0.75)
    dark, bright = [s for s in stacks if not s[0]], [s for s in stacks if s[0]]
    lit, t, codes = bright[2]
    changes: dict[str, list[Stack]] = {
        "few exposures": dark + bright[:2],
        "one dark": dark[:1] + bright,
        "no pair": [*dark, *bright[:2], (lit, t, codes[:1]), *bright[3:]],
        "saturated": stacks,
        "nan": [*dark, *bright[:2], (lit, t, np.where(codes > 0, np.nan, codes)), *bright[3:]],
        "between": [*dark, *bright[:2], (lit, t, codes + 0.5), *bright[3:]],
        "negative": [(k, s, c.astype(np.int64) - 500) for k, s, c in stacks],
        "scaled": [(k, s, 3 * c) for k, s, c in stacks],
        "shape": [*dark, *bright[:2], (lit, t, codes[:, :-1]), *bright[3:]],
        "exposure": [*dark, *bright, (True, -0.1, codes)],
        "small": [(k, s, c[:, :10, :10]) for k, s, c in stacks],
        "black level": [(k, s, np.maximum(c.astype(int) - 100, 0)) for k, s, c in stacks],
        "rounding": [(k, s, c // 8) for k, s, c in stacks],
        "none": [],
    }
    return changes[kind]


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("few exposures", "bright frames at 2 exposure"),
        ("one dark", "dark frames at 1 exposure"),
        ("no pair", "Take a pair"),
        ("saturated", "Take shorter exposures"),
        ("nan", "NaN"),
        ("between", "raw codes"),
        ("negative", "Subtract no background"),
        ("scaled", "multiple of 3"),
        ("shape", "shapes differ"),
        ("exposure", "not negative"),
        ("small", "larger region"),
        ("black level", "Raise the camera's black level"),
        ("rounding", "rounding hides the noise"),
        ("none", "none given"),
    ],
)
def test_unfit_frames_are_refused_with_a_remedy(kind: str, hint: str) -> None:
    with pytest.raises(DataError, match=hint):
        fitted(FrameSet.of(spoilt(kind), 12 if kind == "saturated" else None))


# ---------------------------------------------------------------- files and command


def write(folder: Path, stacks: list[Stack]) -> None:
    """Dark frames as one .npy stack per exposure, bright ones as single 16-bit .tif."""
    folder.mkdir()
    for lit, t, codes in stacks:
        codes16 = codes.astype(np.uint16)
        if not lit:
            np.save(folder / f"dark_{t:g}s_all.npy", codes16)
        for n, frame in enumerate(codes16 if lit else ()):
            Image.fromarray(frame).save(folder / f"bright_{t:g}s_{n}.tif")


def test_the_command_writes_a_preset_that_makes_the_camera_again(tmp_path: Path) -> None:
    write(tmp_path / "lab", stacks_of(TYPICAL, Key(1)))
    summary = camerafit.main(tmp_path / "lab", tmp_path / "out", "fit-camera lab")
    assert summary.holds
    made = tomllib.loads((tmp_path / "out" / "camera.toml").read_text())
    table = made.pop("sensor")
    assert build(SensorTable, table, "sensor").shape == (SIDE, SIDE)
    assert (tmp_path / "out" / "photon-transfer.png").read_bytes()[:4] == b"\x89PNG"
    copy, at = camera(Key(77), made["pixels"], table, camera_bits=made["camera_bits"],
                      exposure_s=1.0, read_noise_electrons=made["read_noise_electrons"],
                      dark_electrons_per_s=made["dark_electrons_per_s"])  # fmt: skip
    electrons = 0.75 * (4095 - 100) / 0.5
    again = fitted(FrameSet.of(exposed(copy, at, Key(78), EXPOSURES_S, electrons, 2, 8)))
    for name in ("gain", "read_noise", "offset", "dark_current"):
        assert abs(again.value(name) - TYPICAL[name]) < 9 * again.estimates[name].standard_error


def test_arrays_and_files_give_the_same_fit(tmp_path: Path) -> None:
    stacks = stacks_of(TYPICAL, Key(1))
    write(tmp_path / "lab", stacks)
    assert (
        fitted(FrameSet.read(tmp_path / "lab")).estimates == fitted(FrameSet.of(stacks)).estimates
    )


def test_a_recording_with_a_shutter_gives_the_same_fit(tmp_path: Path) -> None:
    stacks = stacks_of(TYPICAL, Key(1))
    port = Port(name="frame", shape=(SIDE**2,), levels=4096, dtype="int32")
    drive = Port(name="phases", shape=(1,))
    calls = []
    for lit, t, codes in stacks:
        calls.append(Call("adjust", {"dial": "shutter", "value": float(lit)}, Key(0)))
        answer = Reading(
            codes=torch.from_numpy(codes.reshape(len(codes), 1, -1)).to(torch.int32), ratio=1 / t,
            saturated=0.0, state_version=0, device_seconds=1.0, joules=1.0, clock_s=1.0,
        )  # fmt: skip
        calls.append(Call("forward", {"shots": len(codes)}, Key(0), answer))
    made = Recording(Capabilities(device_id="lab", drives=(drive,), readings=(port,)), tuple(calls))
    found = FrameSet.of(recorded(made))
    flat = FrameSet.of([(k, s, c.reshape(len(c), -1)) for k, s, c in stacks])
    assert fitted(found).value("gain") == pytest.approx(fitted(flat).value("gain"), rel=1e-9)
    made.save(tmp_path / "recording")
    assert FrameSet.read(tmp_path / "recording").shape == (SIDE**2,)
    with pytest.raises(DataError, match="shutter"):
        recorded(Recording(made.capabilities, ()))


@pytest.mark.parametrize("kind", ["empty", "name", "damaged", "colour", "number"])
def test_a_bad_folder_is_refused_and_nothing_is_written(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    frame = np.zeros((8, 8), np.uint16)
    if kind == "name":
        np.save(folder / "frame1.npy", frame)
    elif kind == "damaged":
        (folder / "dark_0.1s_1.npy").write_bytes(b"\x93NUMPY broken")
    elif kind == "colour":
        Image.new("RGB", (8, 8)).save(folder / "dark_0.1s_1.tif")
    elif kind == "number":
        np.save(folder / "dark_0.1.2s_1.npy", frame)
    with pytest.raises(DataError, match=r"lab|Expected"):
        camerafit.main(folder, tmp_path / "out", "fit-camera lab")
    assert not (tmp_path / "out").exists()


def test_the_preset_says_what_it_rests_on() -> None:
    text = document(fit_of(TYPICAL, Key(1)), 'fitted to "lab"')
    assert "gain 0.5" in text or "gain 0.49" in text
    assert "95 % interval" in text and tomllib.loads(text)["camera_bits"] == 12
