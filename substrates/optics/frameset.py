"""Frames of a camera at several exposures, dark and lit, as checked integers.

From arrays, from a folder of .npy or .tif files, or from a recording. Codes
are right-justified here; exposures in seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import DataError
from twin.recording import Recording

DEPTHS = (8, 10, 12, 14, 16)
PATTERN = re.compile(r"(dark|bright)_([0-9.]+(?:[eE][-+]?[0-9]+)?)s(?:_.*)?\.(npy|tiff?)")
NAMING = "dark_0.01s_1.npy or bright_0.02s_2.tif (kind, exposure in seconds, any number)"
FEWEST = 2
"""Frames of one exposure: a pair tells noise from pattern."""


@dataclass(frozen=True)
class Level:
    """Frames of one exposure; codes: (frames, pixels) integers of `bits` bits."""

    lit: bool
    exposure_s: float
    codes: NDArray[np.int32]

    def __str__(self) -> str:
        return f"{'bright' if self.lit else 'dark'} {self.exposure_s:g} s"


@dataclass(frozen=True)
class FrameSet:
    """All levels, dark ones first, each kind by exposure.

    shape: of a frame. step: between neighbouring codes as delivered (16 for 12
    bits left-justified in 16); the codes of the levels are divided by it.
    """

    levels: tuple[Level, ...]
    shape: tuple[int, ...]
    bits: int
    step: int

    @property
    def top(self) -> int:
        return 2**self.bits - 1

    @classmethod
    def of(
        cls, stacks: Iterable[tuple[bool, float, NDArray[Any]]], bits: int | None = None
    ) -> FrameSet:
        """From (lit, exposure_s, frames (n, *shape)) of each exposure. DataError if unfit.

        bits: of the camera; by default the fewest usual ones that hold the codes.
        """
        made = [_level(*stack) for stack in stacks]
        if not made:
            raise DataError("camera frames: none given. Take dark and bright frames.")
        shapes = {tuple(stack.shape[1:]) for _, stack in made}
        if len(shapes) > 1:
            raise DataError(
                f"camera frames: their shapes differ ({', '.join(map(str, sorted(shapes)))}). "
                "Use one region and binning for all frames."
            )
        step = _step(stack for _, stack in made)
        levels = [
            Level(lit, exposure_s, (stack // step).astype(np.int32).reshape(len(stack), -1))
            for (lit, exposure_s), stack in made
        ]
        levels.sort(key=lambda level: (level.lit, level.exposure_s))
        return cls(tuple(levels), shapes.pop(), _bits(levels, bits, step), step)

    @classmethod
    def read(cls, folder: Path, bits: int | None = None) -> FrameSet:
        """From the files of a folder, named by kind and exposure, or from a recording.

        A file holds one frame (rows, columns), or a stack (frames, rows, columns).
        """
        if (folder / "recording.json").exists():
            return cls.of(recorded(Recording.load(folder)), bits)
        stacks: dict[tuple[bool, float], list[NDArray[Any]]] = {}
        for path in _files(folder):
            match = PATTERN.fullmatch(path.name)
            if match is None:
                raise DataError(f"{path}: unknown name. Expected e.g. {NAMING}.")
            frames = _read(path)
            stacks.setdefault((match[1] == "bright", _exposure(path, match[2])), []).append(frames)
        return cls.of(((*key, _joined(folder, parts)) for key, parts in stacks.items()), bits)


def recorded(
    recording: Recording, exposure_s: float = 1.0
) -> list[tuple[bool, float, NDArray[Any]]]:
    """Stacks from the calls of a recorded camera.

    Every row of a forward call with two shots or more is one level, frames
    (shots, pixels). Its exposure is exposure_s / ratio of the reading; with
    exposure_s = 1 the time unit is the nominal exposure. It is dark where the
    dial "shutter" was last turned to 0.
    """
    stacks, lit = [], True
    for call in recording.calls:
        if call.error is not None:
            continue
        if call.kind == "adjust" and call.inputs.get("dial") == "shutter":
            lit = float(call.inputs["value"]) > 0
        elif call.kind == "forward" and (call.inputs.get("shots") or 1) >= FEWEST:
            codes = np.asarray(call.answer.codes)
            seconds = exposure_s / float(call.answer.ratio)
            stacks += [(lit, seconds, codes[:, row]) for row in range(codes.shape[1])]
    if not stacks:
        raise DataError(
            f"recording of {recording.device_id}: no forward call with shots = {FEWEST} or more. "
            "Record repeated frames at several exposures, with the dial 'shutter' at 0 and at 1."
        )
    return stacks


def _files(folder: Path) -> list[Path]:
    endings = (".npy", ".tif", ".tiff")
    found = []
    if folder.is_dir():
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in endings)
    if not found:
        raise DataError(
            f"{folder}: expected a folder of .npy or .tif frames named e.g. {NAMING}; got none."
        )
    return found


def _exposure(path: Path, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(
            f"{path}: {text!r} is no exposure in seconds. Expected e.g. {NAMING}."
        ) from None


def _read(path: Path) -> NDArray[Any]:
    """The frames of one file, (frames, rows, columns) or (frames, pixels)."""
    try:
        found = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _tif(path)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as frames ({error}). Save it again.") from None
    if not isinstance(found, np.ndarray) or found.ndim not in (1, 2, 3):
        shape = getattr(found, "shape", "several arrays")
        raise DataError(
            f"{path}: expected a frame (rows, columns) or a stack of them, got {shape}. "
            "Save one plane, without colour."
        )
    return found if found.ndim == 3 else found[None]


def _tif(path: Path) -> NDArray[Any]:
    from PIL import Image, ImageSequence

    with Image.open(path) as image:
        frames = [np.array(frame) for frame in ImageSequence.Iterator(image)]
    if frames[0].ndim != 2:
        raise ValueError(f"colour image of shape {frames[0].shape}, expected one plane")
    return np.stack(frames)


def _joined(folder: Path, parts: list[NDArray[Any]]) -> NDArray[Any]:
    try:
        return np.concatenate(parts)
    except ValueError as error:
        raise DataError(f"{folder}: frames of one exposure differ in shape ({error}).") from None


def _level(
    lit: bool, exposure_s: float, frames: NDArray[Any]
) -> tuple[tuple[bool, float], NDArray[Any]]:
    """Checked frames (n, *shape) as non-negative integers."""
    frames = np.asarray(frames)
    name = f"camera frames, {'bright' if lit else 'dark'} {exposure_s:g} s"
    if not (np.isfinite(exposure_s) and exposure_s >= 0):
        raise DataError(f"{name}: the exposure must be finite and not negative, in seconds.")
    if frames.ndim < 2 or len(frames) < FEWEST:
        count = len(frames) if frames.ndim > 1 else 1
        raise DataError(
            f"{name}: {count} frame, needs {FEWEST} or more of the same exposure. Take a pair."
        )
    if frames.dtype.kind == "f":
        if not np.isfinite(frames).all():
            raise DataError(f"{name}: NaN or infinite values. Save the camera's own integers.")
        if (frames != np.round(frames)).any():
            raise DataError(
                f"{name}: values between integers. Save raw codes, without averaging or flat-field "
                "correction."
            )
    elif frames.dtype.kind not in "iu":
        raise DataError(f"{name}: expected integer codes, got {frames.dtype}.")
    if frames.min() < 0 or frames.max() > 65535:
        raise DataError(
            f"{name}: codes span {frames.min():g} to {frames.max():g}, expected 0 to 65535 (16 "
            "bits). Subtract no background."
        )
    return (bool(lit), float(exposure_s)), frames.astype(np.int32)


def _step(stacks: Iterable[NDArray[Any]]) -> int:
    """Distance of the codes: 1, or the power of two of left-justified data."""
    seen = np.zeros(65536, bool)
    for stack in stacks:
        seen[np.unique(stack)] = True
    codes = np.flatnonzero(seen)
    step = int(np.gcd.reduce(np.diff(codes))) if len(codes) > 2 else 1
    if step == 1:
        return 1
    first = int(codes[0]) % step
    if step & (step - 1) or first:
        raise DataError(
            f"camera frames: all codes are {first} + a multiple of {step}. Left-justified codes "
            "come in steps of 2, 4, 16...; other steps are a scaling in software. Save raw codes."
        )
    return step


def _bits(levels: Iterable[Level], bits: int | None, step: int) -> int:
    highest = max(int(level.codes.max()) for level in levels)
    if bits is None and step > 1:
        # Left-justified codes end at the top of their container of 8 or 16 bits.
        return (8 if highest * step < 256 else 16) - step.bit_length() + 1
    if bits is None:
        return next(b for b in DEPTHS if highest < 2**b)
    if not 1 <= bits <= 16 or highest >= 2**bits:
        raise DataError(f"camera frames: code {highest} does not fit {bits} bits. Give 1 to 16.")
    return bits


def split(found: FrameSet) -> Mapping[bool, list[int]]:
    """Numbers of the dark (False) and of the bright levels (True)."""
    return {
        kind: [j for j, level in enumerate(found.levels) if level.lit == kind]
        for kind in (False, True)
    }
