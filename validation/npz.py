"""A user's own data from one FILE.npz, checked to the last array.

Reads x, y and optionally x_test, y_test, class_names. No pickle is ever
opened. Imports numpy only; values leave scaled to [0, 1] (dimensionless).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twin.errors import DataError, nearest

ARRAYS = ("x", "y", "x_test", "y_test", "class_names")
FEWEST_PER_CLASS = 3
"""One sample of each class for training, validation and test."""


class Arrays(NamedTuple):
    """x (n, h*w) float32 in [0, 1]; y (n,) in 0..classes-1; tests or None."""

    classes: tuple[str, ...]
    image_shape: tuple[int, int]
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    x_test: NDArray[np.float32] | None
    y_test: NDArray[np.int64] | None


def read(path: Path) -> Arrays:
    """The checked contents of the file at `path`; DataError names what is wrong."""
    found = _open(path)
    for name in found:
        if name not in ARRAYS:
            raise DataError(f"{path}: unknown array {name!r}. {nearest(name, ARRAYS)}")
    for name in ("x", "y"):
        if name not in found:
            raise DataError(f"{path}: array {name!r} is missing; it holds {sorted(found)}.")
    if ("x_test" in found) != ("y_test" in found):
        raise DataError(
            f"{path}: expected both x_test and y_test or neither. Save the missing one."
        )
    x, shape = _images(path, "x", found["x"])
    scale = _scale(path, found["x"])
    classes, y = _labels(path, found)
    _match(path, "x", x, "y", y)
    _enough(path, classes, y)
    x_test, y_test = None, None
    if "x_test" in found:
        x_test, test_shape = _images(path, "x_test", found["x_test"])
        if test_shape != shape:
            raise DataError(
                f"{path}: x_test has images {test_shape}, x has {shape}. Make them alike."
            )
        y_test = _codes(path, "y_test", found["y_test"], classes, "class_names" in found)
        _match(path, "x_test", x_test, "y_test", y_test)
        x_test = _scaled(path, "x_test", x_test, scale)
    return Arrays(classes, shape, _scaled(path, "x", x, scale), y, x_test, y_test)


def _open(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # Opened here, because np.load forgets to close what it cannot read.
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(
                    f"{path}: one bare array. Save it with np.savez(path, x=..., y=...)."
                )
            with archive:
                return {name: archive[name] for name in archive.files}
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Check the path.") from None
    except Exception as error:
        # Wide on purpose: a damaged archive raises half a dozen unrelated
        # types (zip, zlib, struct, tokenizer, memory) on its way in.
        raise DataError(
            f"{path}: not a readable .npz of plain arrays ({type(error).__name__}: {error}). "
            "Save numbers and strings, no Python objects, with np.savez(path, x=..., y=...)."
        ) from None


def _images(path: Path, name: str, x: NDArray[Any]) -> tuple[NDArray[Any], tuple[int, int]]:
    """Flat samples and their (height, width); features alone are (1, features)."""
    if x.dtype.kind not in "fiub":
        raise DataError(
            f"{path}: {name} has dtype {x.dtype}. Save real numbers (float32 or uint8)."
        )
    if x.ndim not in (2, 3) or 0 in x.shape:
        raise DataError(
            f"{path}: {name} has shape {x.shape}, expected (n, features) or (n, height, width) "
            "with no empty axis. Reshape it; for colour, average the channels."
        )
    if not np.isfinite(x).all():
        raise DataError(f"{path}: {name} holds NaN or infinity. Remove or fill those samples.")
    height, width = x.shape[1:] if x.ndim == 3 else (1, x.shape[1])
    return x.reshape(len(x), -1), (height, width)


def _scale(path: Path, x: NDArray[Any]) -> float:
    """The divisor: 1 for values within [0, 1], 255 for uint8, else an error."""
    low, high = float(x.min()), float(x.max())
    if low >= 0.0 and high <= 1.0:
        return 1.0
    if x.dtype == np.uint8:
        return 255.0
    raise DataError(
        f"{path}: x has dtype {x.dtype} and runs from {low:g} to {high:g}, expected values within "
        "[0, 1] or uint8 (divided by 255). Scale it yourself, e.g. (x - low) / (high - low)."
    )


def _scaled(path: Path, name: str, x: NDArray[Any], scale: float) -> NDArray[np.float32]:
    if scale != 1.0 and x.dtype != np.uint8:
        raise DataError(f"{path}: x is uint8 but {name} is {x.dtype}. Save both in one scale.")
    scaled = x.astype(np.float32) / np.float32(scale)
    if scaled.min() < 0.0 or scaled.max() > 1.0:
        raise DataError(
            f"{path}: {name} runs from {scaled.min():g} to {scaled.max():g} on the scale of x, "
            "expected [0, 1]. Scale both arrays in the same way."
        )
    return scaled


def _labels(
    path: Path, found: Mapping[str, NDArray[Any]]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names and codes of y; names default to the sorted labels themselves."""
    y = found["y"]
    named = "class_names" in found
    if named:
        names = found["class_names"]
        if names.ndim != 1 or names.dtype.kind not in "US" or len(np.unique(names)) != len(names):
            raise DataError(f"{path}: class_names must be a 1-D array of different strings.")
        classes = tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names.tolist())
    else:
        classes = tuple(str(value) for value in np.unique(_vector(path, "y", y)))
    return classes, _codes(path, "y", y, classes, named)


def _vector(path: Path, name: str, y: NDArray[Any]) -> NDArray[Any]:
    if y.ndim != 1 or y.dtype.kind not in "iubUS" or len(y) == 0:
        raise DataError(
            f"{path}: {name} has dtype {y.dtype} and shape {y.shape}, expected one integer or "
            "string per sample. Use y.astype(int), or y.argmax(1) for one-hot labels."
        )
    return y.astype(np.int64) if y.dtype.kind == "b" else y


def _codes(
    path: Path, name: str, y: NDArray[Any], classes: tuple[str, ...], named: bool
) -> NDArray[np.int64]:
    """Labels as 0..classes-1: indices into class_names, or positions in classes."""
    y = _vector(path, name, y)
    if named and y.dtype.kind in "iu":
        if y.min() < 0 or y.max() >= len(classes):
            raise DataError(
                f"{path}: {name} runs from {y.min()} to {y.max()}, but class_names has "
                f"{len(classes)} entries. Labels index class_names from 0."
            )
        return y.astype(np.int64)
    code = {label: i for i, label in enumerate(classes)}
    values, inverse = np.unique(y, return_inverse=True)
    unknown = [str(v) for v in values if str(v) not in code]
    if unknown:
        raise DataError(
            f"{path}: {name} has labels {unknown[:5]} that are not among {classes[:20]}."
        )
    return np.array([code[str(v)] for v in values], np.int64)[inverse]


def _match(path: Path, x_name: str, x: NDArray[Any], y_name: str, y: NDArray[Any]) -> None:
    if len(x) != len(y):
        raise DataError(f"{path}: {x_name} has {len(x)} samples, {y_name} has {len(y)} labels.")


def _enough(path: Path, classes: tuple[str, ...], y: NDArray[np.int64]) -> None:
    if len(classes) < 2:
        raise DataError(f"{path}: only the class {classes[0]!r}. Learning needs two or more.")
    counts = np.bincount(y, minlength=len(classes))
    poor = int(counts.argmin())
    if counts[poor] < FEWEST_PER_CLASS:
        raise DataError(
            f"{path}: class {classes[poor]!r} has {counts[poor]} samples, expected at least "
            f"{FEWEST_PER_CLASS}. Add samples or drop the class."
        )
