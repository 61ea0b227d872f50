"""Data sets by name or from the user's own file, split and scaled to [0, 1].

Imports numpy; scikit-learn, pooch and torch are touched only when needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import ConfigError, DataError, UnknownName, nearest
from validation import npz, official, splits

UNION = "mnist+fashion-mnist"
NAMES = ("digits", "mnist", "fashion-mnist", UNION)
CLASSES = {
    "digits": tuple("0123456789"),
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
}  # fmt: skip
CLASSES[UNION] = CLASSES["mnist"] + CLASSES["fashion-mnist"]
DIGITS_TEST = 360
VALIDATION = 5000
"""Validation samples of the official sets; never more than a tenth of train."""


@dataclass(frozen=True)
class Dataset:
    """Samples in [0, 1] with integer labels, in three parts.

    x: (n, height * width) float32, y: (n,) int64 in 0..len(classes)-1. Every
    choice is made on validation (which may be empty); test is for the end.
    image_shape: (height, width); (1, features) for data that are no images.
    source: where the files came from.
    """

    name: str
    classes: tuple[str, ...]
    train_x: NDArray[np.float32]
    train_y: NDArray[np.int64]
    validation_x: NDArray[np.float32]
    validation_y: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]
    image_shape: tuple[int, int]
    source: str = ""

    @property
    def is_image(self) -> bool:
        """Whether neighbouring features are neighbouring pixels."""
        return self.image_shape[0] > 1

    def describe(self) -> dict[str, Any]:
        """Plain facts for a summary: name, sizes, classes, source."""
        return {
            "name": self.name,
            "train": len(self.train_y),
            "validation": len(self.validation_y),
            "test": len(self.test_y),
            "image_shape": list(self.image_shape),
            "classes": list(self.classes),
            "source": self.source,
        }


@dataclass(frozen=True)
class _Pool:
    """Everything known before the seeded splits; test is None until drawn.

    x: float32 in [0, 1], or bytes that are divided by 255 once they are split
    (a quarter of the memory to move). test_size: how much to draw for test.
    """

    name: str
    classes: tuple[str, ...]
    x: NDArray[Any]
    y: NDArray[np.int64]
    test_x: NDArray[Any] | None
    test_y: NDArray[np.int64] | None
    image_shape: tuple[int, int]
    source: str
    test_size: int = 0


def load(
    name_or_path: str | Path,
    *,
    data_dir: str | Path | None = None,
    seed: int = 0,
    validation: int | None = None,
    limit: int | None = None,
) -> Dataset:
    """A data set by name (`NAMES`) or from a path to FILE.npz.

    data_dir: where the IDX files of mnist and fashion-mnist may lie; their union
    has 20 classes.
    seed: draws validation and limit. A test set that has to be drawn (digits,
    and .npz without x_test) is the same for every seed.
    validation: size of the stratified validation draw from train; None means
    a tenth of train but at most 5,000, 0 means none.
    limit: keep a stratified subset of this many training samples.
    """
    pool = _with_test(_pool(name_or_path, data_dir))
    return _split(pool, seed, validation, limit)


def folds(
    name_or_path: str | Path,
    k: int = 5,
    seed: int = 0,
    *,
    data_dir: str | Path | None = None,
    validation: int | None = None,
) -> list[Dataset]:
    """k data sets whose stratified test parts cover all samples once.

    An official test set joins the samples before they are dealt. validation
    as in `load`, drawn from the k - 1 other parts.
    """
    pool = _pool(name_or_path, data_dir)
    x, y = pool.x, pool.y
    if pool.test_x is not None and pool.test_y is not None:
        x, y = np.concatenate([x, pool.test_x]), np.concatenate([y, pool.test_y])
    fewest = int(np.bincount(y).min())
    if not 2 <= k <= fewest:
        raise ConfigError(f"folds of {pool.name}: expected k between 2 and {fewest}, got {k}.")
    parts = splits.deal(y, k, splits.generator(seed, pool.name, "folds", k))
    return [
        _split(_fold(pool, x, y, part, f"{pool.name} fold {i + 1}/{k}"), seed, validation, None)
        for i, part in enumerate(parts)
    ]


def _fold(pool: _Pool, x: NDArray[Any], y: NDArray[Any], part: splits.Rows, name: str) -> _Pool:
    rest = np.setdiff1d(np.arange(len(y)), part, assume_unique=True)
    return replace(pool, name=name, x=x[rest], y=y[rest], test_x=x[part], test_y=y[part])


def _pool(name_or_path: str | Path, data_dir: str | Path | None) -> _Pool:
    name = str(name_or_path)
    if name == "digits":
        return _digits()
    if name == UNION:
        return _joined(*(_pool(part, data_dir) for part in UNION.split("+")))
    if name in official.URLS:
        raw = official.read(name, data_dir)
        height, width = raw.train_x.shape[1:]
        images = (_flat(raw.train_x), raw.train_y.astype(np.int64))
        tests = (_flat(raw.test_x), raw.test_y.astype(np.int64))
        return _Pool(name, CLASSES[name], *images, *tests, (height, width), raw.source)
    if name.endswith(".npz"):
        own = npz.read(Path(name).expanduser())
        parts = (own.x, own.y, own.x_test, own.y_test)
        size = max(len(own.y) // 5, len(own.classes))
        return _Pool(Path(name).stem, own.classes, *parts, own.image_shape, name, size)
    hint = nearest(name, NAMES)
    raise UnknownName(f"data set {name!r} is unknown. {hint} Or give a path ending in .npz.")


def _joined(one: _Pool, other: _Pool) -> _Pool:
    """Two official sets of equal image shape as one, the classes of the second last."""
    assert one.test_x is not None and one.test_y is not None
    assert other.test_x is not None and other.test_y is not None
    shift = len(one.classes)
    return replace(
        one,
        name=UNION,
        classes=one.classes + other.classes,
        x=np.concatenate([one.x, other.x]),
        y=np.concatenate([one.y, other.y + shift]),
        test_x=np.concatenate([one.test_x, other.test_x]),
        test_y=np.concatenate([one.test_y, other.test_y + shift]),
        source=f"{one.source}; {other.source}",
    )


def _digits() -> _Pool:
    """The 1,797 images of 8 x 8 pixels, 17 grey levels, bundled with scikit-learn."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = (bunch.data / 16.0).astype(np.float32)
    y = bunch.target.astype(np.int64)
    return _Pool("digits", CLASSES["digits"], x, y, None, None, (8, 8), "scikit-learn", DIGITS_TEST)


def _flat(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, height, width) -> (n, height * width)."""
    return images.reshape(len(images), -1)


def _unit(x: NDArray[Any]) -> NDArray[np.float32]:
    """Values in [0, 1]: bytes over 255, floats as they are."""
    if x.dtype != np.uint8:
        return x.astype(np.float32, copy=False)
    return np.divide(x, np.float32(255), dtype=np.float32)


def _with_test(pool: _Pool) -> _Pool:
    if pool.test_x is not None:
        return pool
    # Seed 0 whatever the run's seed: nothing tuned on one seed has seen the
    # test samples of another.
    rng = splits.generator(0, pool.name, "test")
    test, rest = splits.draw(pool.y, pool.test_size, rng, leave=2, what=f"{pool.name}: test set")
    x, y = pool.x, pool.y
    return replace(pool, x=x[rest], y=y[rest], test_x=x[test], test_y=y[test])


def _split(pool: _Pool, seed: int, validation: int | None, limit: int | None) -> Dataset:
    """Draw validation, then the training subset; the first ignores the second."""
    assert pool.test_x is not None and pool.test_y is not None
    if validation is None:
        validation = max(min(VALIDATION, len(pool.y) // 10), len(pool.classes))
    train, held = np.arange(len(pool.y)), np.arange(0)
    if validation != 0:
        rng = splits.generator(seed, pool.name, "validation")
        what = f"{pool.name}: validation set"
        held, train = splits.draw(pool.y, validation, rng, leave=1, what=what)
    if limit is not None and limit != len(train):
        if limit > len(train):
            raise DataError(
                f"{pool.name}: limit {limit} exceeds the {len(train)} training samples left "
                f"beside {len(held)} for validation. Lower limit or leave it out."
            )
        rng = splits.generator(seed, pool.name, "limit")
        what = f"{pool.name}: training subset"
        train = train[splits.draw(pool.y[train], limit, rng, leave=0, what=what)[0]]
    return Dataset(
        name=pool.name,
        classes=pool.classes,
        train_x=_unit(pool.x[train]),
        train_y=pool.y[train],
        validation_x=_unit(pool.x[held]),
        validation_y=pool.y[held],
        test_x=_unit(pool.test_x),
        test_y=pool.test_y,
        image_shape=pool.image_shape,
        source=pool.source,
    )
