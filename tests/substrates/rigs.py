"""Optical rigs of every make, small enough to draw hundreds of."""

from __future__ import annotations

import math
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from substrates.optics.rig import OpticalRig, make
from twin.key import Key

SEEDS = st.integers(0, 2**32 - 1)
INPUTS, PIXELS = 9, 16
NOISELESS: dict[str, Any] = {
    "shot_noise": "none",
    "read_noise_electrons": 0.0,
    "dark_electrons_per_s": 0.0,
}
SLAB = {
    "kind": "multislice",
    "grid_points": 32,
    "slices": 1,
    "slice_distance_m": 1e-3,
    "camera_distance_m": 1e-3,
}
MODULATORS: list[dict[str, Any]] = [
    {},
    {"stuck_fraction": 0.3},
    {"kind": "dmd"},
    {"kind": "dmd", "threshold": 0.3, "stuck_fraction": 0.2},
    {"kind": "dmd", "binarise": "area", "pixels_per_side": 3},
    {"kind": "lee", "pixels_per_side": 8},
    {"kind": "lee", "pixels_per_side": 12, "lee_period": 6, "lee_slant": 1.0},
    {"turn_grey": 142.0},
    {"turn_grey": 142.0, "believed_turn_grey": 200.0},
    {"curve_rad": (0.0, 0.4, 1.5, 3.0, 5.0), "bits": 10},
    {"turn_grey": 256.0, "table": (0, 40, 90, 128)},
]
SETTLING: list[dict[str, Any]] = [
    {"settling_s": 0.02},
    {"settling_s": 0.02, "settling_wait_s": 0.01, "crosstalk": 0.1, "pixels_per_side": 3},
    {"settling_s": 0.5, "turn_grey": 142.0, "believed_turn_grey": 150.0},
]
UNSETTLED: list[dict[str, Any]] = [{"crosstalk": 0.2}, {"crosstalk": 1.0, "pixels_per_side": 2}]
MEDIA: list[dict[str, Any]] = [
    {"kind": "gaussian"},
    {"kind": "gaussian", "patterns": 3},
    {"kind": "grains", "camera_rows": 4},
    {"kind": "grains", "kernel": "gaussian", "pixels_per_grain": 0.5, "points_per_pixel": 2},
    {"kind": "marchenko-pastur", "patterns": 2},
    {"kind": "bimodal", "controlled_fraction": 0.1},
    dict(SLAB),
    {"kind": "file"},
]
REACTING = {**SLAB, "kerr_rad": 0.3}
DRIFTS: list[Any] = [
    "slow",
    "tissue-like",
    "warm-up",
    {"tau_s": 0.5, "jump_rate_hz": 5.0, "jump_fraction": 0.3},
    {"tau_s": 1.0, "power_rms": 0.1, "power_tau_s": 1.0},
    {"pointing_rms_pixels": 0.4, "pointing_tau_s": 0.3},
    {"jump_times_s": (0.05, 0.4), "jump_fraction": 1.0},
]
SENSORS: list[tuple[int, Any]] = [
    (PIXELS, {}),
    (PIXELS, "imx174"),
    (PIXELS, "scmos"),
    (PIXELS, "emva1288"),
    (PIXELS, {"justification": "left", "offset_dn": 0.4}),
    (PIXELS, {"full_well_electrons": 60.0, "prnu": 0.2, "dsnu_electrons": 9.0}),
    (PIXELS, {"shape": (4, 4), "shift_rows_px": 0.3, "shift_columns_px": -1.5}),
    (4, {"shape": (4, 4), "binning": 2, "read_noise_spread": 0.3, "dsnu_electrons": 2.0}),
    (4, {"shape": (4, 4), "roi": (1, 2, 2, 2), "saturated_fraction": 0.3}),
    (PIXELS, {"hot_pixel_fraction": 0.2, "dead_pixel_fraction": 0.2, "quantum_efficiency": 0.3}),
]


def make_rig(options: dict[str, Any], seed: int = 0) -> OpticalRig:
    return make(key=Key(seed), **options)


def uniform(seed: int, batch: int, width: int = INPUTS) -> Tensor:
    """A drive (batch, width) in [0, 1]."""
    return torch.rand((batch, width), generator=Key(seed).child("drive").torch())


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation along the last axis, float64."""
    a, b = (v.double() - v.double().mean(-1, keepdim=True) for v in (a, b))
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))


def mean_and_error(groups: list[float]) -> tuple[float, float]:
    """Mean of independent groups and its standard error."""
    found = torch.tensor(groups, dtype=torch.float64)
    return found.mean().item(), found.std().item() / math.sqrt(len(found))


def within_one_level(a: Tensor, b: Tensor, step: int = 1) -> bool:
    return bool(((a.long() - b.long()).abs() <= step).all())


_FOLDER = tempfile.TemporaryDirectory()


@cache
def matrix_file(pixels: int, channels: int) -> str:
    """A "measured" matrix of that shape, in the units of its camera."""
    path = Path(_FOLDER.name) / f"{pixels}x{channels}.npy"
    draw = Key(3).numpy().standard_normal((2, pixels, channels))
    np.save(path, 40 * (draw[0] + 1j * draw[1]))
    return str(path)


@st.composite
def still_rigs(draw: st.DrawFn, settles: bool = False) -> dict[str, Any]:
    """Options of any rig whose medium does not move; of any modulator, if settles."""
    pixels, sensor = draw(st.sampled_from(SENSORS))
    options: dict[str, Any] = {
        "inputs": INPUTS,
        "pixels": pixels,
        "sensor": sensor,
        "modulator": draw(st.sampled_from([*MODULATORS, *UNSETTLED, *(SETTLING * settles)])),
        "medium": dict(draw(st.sampled_from([*MEDIA, REACTING]))),
        "camera_bits": draw(st.sampled_from([1, 6, 8, 12, 16])),
        "modulator_levels": draw(st.sampled_from([2, 256])),
        "mean_electrons": draw(st.sampled_from([1.0, 200.0, 1e6])),
        "read_noise_electrons": draw(st.sampled_from([0.0, 7.0, 1e3])),
        "dark_electrons_per_s": draw(st.sampled_from([0.0, 1e3])),
        "full_scale_over_mean": draw(st.sampled_from([0.5, 10.0])),
        "phase_flicker_rad": draw(st.sampled_from([0.0, 0.2])),
        "dead_macropixel_fraction": draw(st.sampled_from([0.0, 0.5])),
        "stuck_pixel_fraction": draw(st.sampled_from([0.0, 0.5])),
        "shot_noise": draw(st.sampled_from(["poisson", "none"])),
    }
    if "kerr_rad" not in options["medium"]:
        options["unmodulated_fraction"] = draw(st.sampled_from([0.0, 0.1]))
    if options["medium"]["kind"] == "file":
        channels = INPUTS + (options["unmodulated_fraction"] > 0)
        options["medium"]["path"] = matrix_file(PIXELS, channels)
    return options


@st.composite
def rigs(draw: st.DrawFn) -> dict[str, Any]:
    """Options of any rig."""
    options = draw(still_rigs(settles=True))
    if "kerr_rad" not in options["medium"]:
        options["drift"] = draw(st.sampled_from(["static", *DRIFTS]))
    return options
