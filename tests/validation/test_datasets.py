"""Data sets: found, verified, split by class; damage is named, never read past."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from twin.errors import ConfigError, DataError, UnknownName
from validation import datasets, idx, official, splits

REAL = os.environ.get("PIB_TWIN_DATA")
real_data = pytest.mark.skipif(not REAL, reason="PIB_TWIN_DATA names no folder with IDX files")


def idx_bytes(array: NDArray[Any], kind: int = 0x08) -> bytes:
    header = bytes([0, 0, kind, array.ndim])
    return header + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def images(n: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, 5, 4), dtype=np.uint8)


def small_set(folder: Path, *, packed: bool = True, train: int = 200, test: int = 50) -> Path:
    """A folder with the four files of a set of ten classes, 5 x 4 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"train": train, "test": test}
    for part, (stem, axes) in official.FILES.items():
        n = sizes[part.split("_")[0]]
        array = images(n) if axes == 3 else (np.arange(n) % 10).astype(np.uint8)
        content = idx_bytes(array)
        path = folder / (f"{stem}.gz" if packed else stem)
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No folder of this machine, no cache and no network."""
    import pooch

    def offline(*args: Any, **kwargs: Any) -> str:
        raise ConnectionError("no network here\nsecond line")

    monkeypatch.delenv(official.ENVIRONMENT, raising=False)
    monkeypatch.setattr(official, "DEBIAN", {"fashion-mnist": tmp_path / "debian"})
    monkeypatch.setattr(pooch, "retrieve", offline)


# --- IDX files


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_gives_back_what_was_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"images{suffix}"
    content = idx_bytes(images(7))
    path.write_bytes(gzip.compress(content) if suffix else content)
    np.testing.assert_array_equal(idx.read(path, 3), images(7))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_shortened_or_lengthened_idx_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    packed = data.draw(st.booleans())
    content = idx_bytes(images(3))
    content = gzip.compress(content) if packed else content
    cut = data.draw(st.integers(0, len(content) - 1))
    tail = data.draw(st.binary(min_size=1, max_size=8).filter(lambda b: any(b)))
    path = tmp_path_factory.mktemp("idx") / ("x.gz" if packed else "x")
    for damaged in (content[:cut], content + tail):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"x(\.gz)?: damaged"):
            idx.read(path, 3)


@settings(max_examples=80, deadline=None)
@given(where=st.integers(0, 10_000), flip=st.integers(1, 255), packed=st.booleans())
def test_a_flipped_byte_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, where: int, flip: int, packed: bool
) -> None:
    content = bytearray(idx_bytes(images(3)))
    content = bytearray(gzip.compress(bytes(content))) if packed else content
    # A plain file has no check sum: only its header can be judged.
    content[where % (len(content) if packed else 16)] ^= flip
    path = tmp_path_factory.mktemp("idx") / ("x.gz" if packed else "x")
    path.write_bytes(content)
    try:
        values = idx.read(path, 3)
    except DataError:
        return
    assert packed
    np.testing.assert_array_equal(values, images(3))


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (idx_bytes(images(2).astype(">i4"), 0x0C), "int32"),
        (idx_bytes(np.zeros(4, np.uint8)), "3 axes"),
        (b"\x89PNG and so on", "magic"),
        (idx_bytes(np.zeros((0, 5, 4), np.uint8)), "at least one"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "values for the shape"),
    ],
)
def test_an_idx_error_names_the_finding(tmp_path: Path, content: bytes, finding: str) -> None:
    for name, stored in (("x", content), ("x.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(stored)
        with pytest.raises(DataError, match=finding):
            idx.read(tmp_path / name, 3)


def test_a_missing_idx_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        idx.read(tmp_path / "none", 3)


# --- where the files are


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("by", ["argument", "environment", "debian"])
def test_files_are_found_wherever_they_may_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool, nested: bool, by: str
) -> None:
    folder = tmp_path / "data"
    small_set(folder / "fashion-mnist" if nested and by != "debian" else folder, packed=packed)
    if by == "environment":
        monkeypatch.setenv(official.ENVIRONMENT, str(folder))
    if by == "debian":
        monkeypatch.setattr(official, "DEBIAN", {"fashion-mnist": folder})
    found = datasets.load("fashion-mnist", data_dir=folder if by == "argument" else None)
    assert (len(found.train_y), len(found.validation_y), len(found.test_y)) == (180, 20, 50)
    assert found.image_shape == (5, 4) and found.classes[9] == "Ankle boot"
    np.testing.assert_array_equal(found.test_x, images(50).reshape(50, 20) / np.float32(255))
    assert "not the published files" in found.source


def test_one_error_names_every_place_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_set(tmp_path / "part" / "mnist")
    (tmp_path / "part" / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    monkeypatch.setenv(official.ENVIRONMENT, str(tmp_path / "elsewhere"))
    with pytest.raises(DataError) as caught:
        datasets.load("mnist", data_dir=tmp_path / "part")
    text = str(caught.value)
    for place in ("part/mnist", "elsewhere", "cache", *official.URLS["mnist"], "--data DIR"):
        assert place in text
    assert "lacks t10k-labels" in text and "no network here" in text
    assert "second line" not in text


def test_a_damaged_file_is_an_error_even_if_another_place_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = small_set(tmp_path / "broken") / "train-images-idx3-ubyte.gz"
    broken.write_bytes(broken.read_bytes()[:-20])
    monkeypatch.setenv(official.ENVIRONMENT, str(small_set(tmp_path / "whole")))
    with pytest.raises(DataError, match="broken/train-images"):
        datasets.load("mnist", data_dir=tmp_path / "broken")


def test_labels_that_do_not_fit_their_images_are_refused(tmp_path: Path) -> None:
    folder = small_set(tmp_path)
    labels = folder / "train-labels-idx1-ubyte.gz"
    for values, finding in ((np.zeros(199), "199 labels"), (np.full(200, 11), "label 11")):
        labels.write_bytes(gzip.compress(idx_bytes(values.astype(np.uint8))))
        with pytest.raises(DataError, match=finding):
            datasets.load("mnist", data_dir=folder)


def test_files_of_published_length_must_be_the_published_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(official, "LENGTHS", {"train": 200, "test": 50})
    folder = small_set(tmp_path)
    with pytest.raises(DataError, match="SHA-256"):
        datasets.load("mnist", data_dir=folder)
    arrays = {p: idx.read(folder / f"{s}.gz", a) for p, (s, a) in official.FILES.items()}
    sums = {part: hashlib.sha256(values.data).hexdigest() for part, values in arrays.items()}
    monkeypatch.setattr(
        official, "SHA256", {"mnist": official.SHA256["mnist"], "fashion-mnist": sums}
    )
    with pytest.raises(DataError, match="the one of fashion-mnist"):
        datasets.load("mnist", data_dir=folder)
    assert datasets.load("fashion-mnist", data_dir=folder).source == str(folder)


def test_a_bad_download_is_refused_and_leaves_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pooch

    mirror = small_set(tmp_path / "mirror")

    def fetch(url: str, known_hash: None, fname: str, path: Path) -> str:
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes((mirror / fname).read_bytes())
        return str(path / fname)

    monkeypatch.setattr(pooch, "retrieve", fetch)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    with pytest.raises(DataError, match="another number of values"):
        datasets.load("mnist")
    assert not list((tmp_path / "cache").rglob("*.gz"))
    monkeypatch.setattr(official, "LENGTHS", {"train": 200, "test": 50})
    arrays = {p: idx.read(mirror / f"{s}.gz", a) for p, (s, a) in official.FILES.items()}
    sums = {part: hashlib.sha256(values.data).hexdigest() for part, values in arrays.items()}
    monkeypatch.setattr(official, "SHA256", {"mnist": sums})
    assert datasets.load("mnist").source == "download"


# --- splits


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(3, 40), min_size=2, max_size=12),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**32),
)
def test_a_stratified_draw_has_the_class_shares_of_the_whole(
    counts: list[int], share: float, seed: int
) -> None:
    y = np.repeat(np.arange(len(counts)), counts)
    size = round(len(counts) + share * (len(y) - 2 * len(counts)))
    drawn, rest = splits.draw(y, size, splits.generator(seed), leave=1, what="x")
    assert len(drawn) == size
    np.testing.assert_array_equal(np.sort(np.concatenate([drawn, rest])), np.arange(len(y)))
    got, left = np.bincount(y[drawn]), np.bincount(y[rest], minlength=len(counts))
    assert got.min() >= 1 and left.min() >= 1
    ideal = np.array(counts) * size / len(y)
    # The floor and ceiling of every class cost the others less than a sample each.
    assert np.abs(got - ideal).max() <= len(counts)
    if ideal.min() >= 1 and (np.array(counts) - ideal).min() >= 1:
        assert np.abs(got - ideal).max() < 1


def test_digits_are_whole_disjoint_and_in_range() -> None:
    found = datasets.load("digits")
    assert [len(y) for y in (found.train_y, found.validation_y, found.test_y)] == [1294, 143, 360]
    x = np.concatenate([found.train_x, found.validation_x, found.test_x])
    assert x.dtype == np.float32 and x.min() == 0 and x.max() == 1
    assert np.bincount(found.test_y).min() >= 34
    from sklearn.datasets import load_digits

    assert sorted(map(bytes, x)) == sorted(map(bytes, (load_digits().data / 16).astype(np.float32)))


def test_the_seed_moves_validation_but_never_the_test_set() -> None:
    a, again, b = (datasets.load("digits", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.validation_x, again.validation_x)
    np.testing.assert_array_equal(a.test_x, b.test_x)
    assert not np.array_equal(a.validation_x, b.validation_x)


def test_a_limit_takes_from_train_only_and_keeps_the_classes_balanced() -> None:
    whole, part = datasets.load("digits"), datasets.load("digits", limit=200)
    np.testing.assert_array_equal(whole.validation_x, part.validation_x)
    assert len(part.train_y) == 200 and np.ptp(np.bincount(part.train_y)) <= 2
    assert len(datasets.load("digits", validation=0).train_y) == 1437
    for limit, finding in ((1295, "exceeds"), (9, "smallest class")):
        with pytest.raises(DataError, match=finding):
            datasets.load("digits", limit=limit)


def test_five_folds_test_every_image_once_with_all_classes_in_each() -> None:
    parts = datasets.folds("digits", 5, seed=3)
    assert sum(len(part.test_y) for part in parts) == 1797
    assert len({bytes(row) for part in parts for row in part.test_x}) == 1797
    for part in parts:
        assert np.ptp(np.bincount(part.test_y)) <= 3
        assert len(part.train_y) + len(part.validation_y) + len(part.test_y) == 1797
    with pytest.raises(ConfigError, match="k between 2"):
        datasets.folds("digits", 1)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'fashion-mnist'"):
        datasets.load("fashon-mnist")


def test_naming_data_sets_needs_no_torch() -> None:
    code = "import sys, validation.datasets; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@real_data
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_official_sets_are_genuine_and_load_fast(name: str) -> None:
    start = time.perf_counter()
    found = datasets.load(name, data_dir=REAL)
    seconds = time.perf_counter() - start
    assert [len(y) for y in (found.train_y, found.validation_y, found.test_y)] == [
        55000,
        5000,
        10000,
    ]
    assert "not the published" not in found.source
    assert np.bincount(found.test_y).sum() == 10000 and found.image_shape == (28, 28)
    # 1.5 s is the aim on an idle machine; ten times that is a defect anywhere.
    assert seconds < 15


# --- the user's own file


def own(folder: Path, **arrays: Any) -> Path:
    usual = {"x": np.linspace(0, 1, 90).reshape(30, 3), "y": np.arange(30) % 3}
    usual.update(arrays)
    path = folder / "mine.npz"
    np.savez(path, **{k: np.asarray(v) for k, v in usual.items() if v is not None})
    return path


def test_own_data_are_split_and_named_by_their_labels(tmp_path: Path) -> None:
    found = datasets.load(own(tmp_path, y=np.array(["b", "a", "c"] * 10)))
    assert found.classes == ("a", "b", "c") and found.name == "mine"
    assert [len(y) for y in (found.train_y, found.validation_y, found.test_y)] == [21, 3, 6]
    assert found.image_shape == (1, 3) and not found.is_image


def test_own_bytes_are_divided_by_255_and_images_keep_their_shape(tmp_path: Path) -> None:
    x = images(30)
    path = own(
        tmp_path, x=x, x_test=x[:4], y_test=[0, 1, 2, 0], class_names=["red", "green", "blue"]
    )
    found = datasets.load(path)
    np.testing.assert_array_equal(found.test_x, x[:4].reshape(4, 20).astype(np.float32) / 255)
    assert found.image_shape == (5, 4) and found.classes == ("red", "green", "blue")


def test_labels_of_any_integers_become_positions(tmp_path: Path) -> None:
    found = datasets.load(own(tmp_path, y=np.array([-5, 10, 200] * 10)))
    assert found.classes == ("-5", "10", "200") and set(found.train_y) == {0, 1, 2}


@pytest.mark.parametrize(
    ("arrays", "finding"),
    [
        ({"x": None}, "'x' is missing"),
        ({"x_tset": np.zeros(3)}, "Did you mean 'x_test'"),
        ({"x": np.linspace(-1, 1, 90).reshape(30, 3)}, r"within \[0, 1\] or uint8"),
        ({"x": np.full((30, 3), np.nan)}, "NaN"),
        ({"x": np.zeros((30, 3), complex)}, "complex"),
        ({"x": np.zeros((30, 2, 2, 3))}, "average the channels"),
        ({"x": np.zeros((30, 0))}, "empty axis"),
        ({"x": np.zeros(30)}, "expected"),
        ({"x": np.zeros((29, 3))}, "29 samples"),
        ({"y": np.eye(3)[np.arange(30) % 3]}, "argmax"),
        ({"y": np.zeros(30, int)}, "two or more"),
        ({"y": np.r_[np.zeros(28, int), 1, 1]}, "class '1' has 2 samples"),
        ({"class_names": ["a", "b"]}, "class_names has 2"),
        ({"class_names": ["a", "b", "b"]}, "different strings"),
        ({"class_names": ["a", "b", "c", "d"]}, "class 'd' has 0 samples"),
        ({"x_test": np.zeros((2, 3))}, "both x_test and y_test"),
        ({"x_test": np.zeros((2, 4)), "y_test": [0, 1]}, "Make them alike"),
        ({"x_test": np.full((2, 3), 7), "y_test": [0, 1]}, "same way"),
        ({"x_test": np.zeros((2, 3)), "y_test": [0, 8]}, "not among"),
        ({"x_test": np.zeros((2, 3)), "y_test": [0, 1, 2]}, "3 labels"),
        ({"x": np.array([[None] * 3] * 30)}, "no Python objects"),
    ],
)
def test_own_data_that_cannot_be_used_say_why(
    tmp_path: Path, arrays: dict[str, Any], finding: str
) -> None:
    path = own(tmp_path, **arrays)
    with pytest.raises(DataError, match=finding) as caught:
        datasets.load(path)
    assert "mine.npz" in str(caught.value)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    with pytest.raises(DataError, match="no such file"):
        datasets.load(path)
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(DataError, match="one bare array"):
        datasets.load(path)


@settings(max_examples=60, deadline=None)
@given(where=st.integers(0, 100_000), flip=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_archive_never_raises_anything_but_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, where: int, flip: int, cut: bool
) -> None:
    path = own(tmp_path_factory.mktemp("npz"))
    content = bytearray(path.read_bytes())
    place = where % len(content)
    content[place] ^= flip
    path.write_bytes(content[:place] if cut else content)
    try:
        found = datasets.load(path)
    except DataError:
        return
    assert not cut and len(found.train_y) == 21
