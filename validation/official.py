"""Where the published IDX files lie: folders first, then a verified download.

Imports numpy at once and pooch only when something has to be fetched.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twin.errors import DataError
from validation import idx

ENVIRONMENT = "PIB_TWIN_DATA"
DEBIAN = {"fashion-mnist": Path("/usr/share/dataset-fashion-mnist")}
"""Folder of Debian's package dataset-fashion-mnist."""

FILES = {
    "train_x": ("train-images-idx3-ubyte", 3),
    "train_y": ("train-labels-idx1-ubyte", 1),
    "test_x": ("t10k-images-idx3-ubyte", 3),
    "test_y": ("t10k-labels-idx1-ubyte", 1),
}
"""Our name -> (file name without .gz, number of axes)."""

LENGTHS = {"train": 60_000, "test": 10_000}

URLS = {
    "mnist": (
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        "https://ossci-datasets.s3.amazonaws.com/mnist",
    ),
    "fashion-mnist": (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
    ),
}

# Of the values, not of the .gz: archives of the same file differ between
# mirrors and distributions (name and time in the gzip header).
SHA256: Mapping[str, Mapping[str, str]] = {
    "mnist": {
        "train_x": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "train_y": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        "test_x": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "test_y": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    },
    "fashion-mnist": {
        "train_x": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        "train_y": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
        "test_x": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        "test_y": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    },
}
"""SHA-256 of the bytes behind the IDX header of each published file."""


class Raw(NamedTuple):
    """Images (n, h, w) and labels (n,), uint8, and where they came from."""

    train_x: NDArray[np.uint8]
    train_y: NDArray[np.uint8]
    test_x: NDArray[np.uint8]
    test_y: NDArray[np.uint8]
    source: str


def read(name: str, data_dir: Path | str | None = None) -> Raw:
    """The data set `name` from the first place that holds all four files.

    Places: `data_dir`, the folder in PIB_TWIN_DATA, Debian's package, then a
    download into the user's cache. Files of the published length must be the
    published ones, value for value; other lengths are taken as the user's own
    and `source` says so. A damaged file is an error, never skipped.
    """
    looked: list[str] = []
    for folder, why in _folders(name, data_dir):
        paths = {part: _find(folder, stem) for part, (stem, _) in FILES.items()}
        found = {part: path for part, path in paths.items() if path is not None}
        if len(found) == len(FILES):
            return _load(name, found, f"{folder}")
        lacks = "no such folder" if not folder.is_dir() else _lacks(found)
        looked.append(f"{folder} ({why}: {lacks})")
    return _load(name, _download(name, looked), "download")


def _folders(name: str, data_dir: Path | str | None) -> Iterator[tuple[Path, str]]:
    """Candidate folders, with the reason for each."""
    given = [(data_dir, "--data"), (os.environ.get(ENVIRONMENT), ENVIRONMENT)]
    for root, why in given:
        if root:
            root = Path(root).expanduser()
            yield root / name, why
            yield root, why
    if name in DEBIAN:
        yield DEBIAN[name], "Debian's dataset-fashion-mnist"


def _find(folder: Path, stem: str) -> Path | None:
    candidates = (folder / f"{stem}.gz", folder / stem)
    return next((path for path in candidates if path.is_file()), None)


def _lacks(found: Mapping[str, Path]) -> str:
    missing = [stem for part, (stem, _) in FILES.items() if part not in found]
    return "holds none of the files" if not found else f"lacks {', '.join(missing)}"


def _load(name: str, paths: Mapping[str, Path], source: str) -> Raw:
    arrays = {part: idx.read(paths[part], FILES[part][1]) for part in FILES}
    published = all(_published(name, part, paths[part], arrays[part]) for part in FILES)
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_x"], arrays[f"{split}_y"]
        if len(images) != len(labels):
            raise DataError(
                f"{paths[f'{split}_y']}: {len(labels)} labels for {len(images)} images. "
                "Fetch both files again."
            )
        if labels.max() > 9:
            raise DataError(f"{paths[f'{split}_y']}: label {labels.max()}, expected 0 to 9.")
    if arrays["train_x"].shape[1:] != arrays["test_x"].shape[1:]:
        raise DataError(f"{paths['test_x']}: images of another size than {paths['train_x']}.")
    return Raw(**arrays, source=source if published else f"{source} (not the published files)")


def _published(name: str, part: str, path: Path, values: NDArray[np.uint8]) -> bool:
    """Whether these are the published values; an impostor of equal length raises."""
    if len(values) != LENGTHS[part.split("_")[0]]:
        return False
    digest = hashlib.sha256(values.data).hexdigest()
    if digest == SHA256[name][part]:
        return True
    other = next((n for n, sums in SHA256.items() if sums[part] == digest), None)
    raise DataError(
        f"{path}: expected the {name} file with SHA-256 {SHA256[name][part][:16]}... of its "
        f"values, got {f'the one of {other}' if other else digest[:16] + '...'}. "
        "Fetch the file again, or pass your own data as FILE.npz."
    )


def _download(name: str, looked: list[str]) -> dict[str, Path]:
    """All four files in the user's cache, each verified before it is used."""
    import pooch

    # pooch reports to stderr through its own logger; our errors say it all.
    pooch.get_logger().setLevel("WARNING")
    cache = Path(pooch.os_cache("pib-twin")) / name
    paths = {}
    for part, (stem, axes) in FILES.items():
        failures = []
        for base in URLS[name]:
            try:
                paths[part] = _fetched(name, part, f"{base}/{stem}.gz", cache, axes)
                break
            except (OSError, ValueError) as error:
                failures.append(f"{base} ({_short(error)})")
        else:
            raise DataError(_nowhere(name, [*looked, f"{cache} (cache)", *failures])) from None
    return paths


def _fetched(name: str, part: str, url: str, cache: Path, axes: int) -> Path:
    """One verified file; a bad one leaves the cache so that a retry can work."""
    import pooch

    path = Path(pooch.retrieve(url, known_hash=None, fname=url.rsplit("/", 1)[1], path=cache))
    try:
        if _published(name, part, path, idx.read(path, axes)):
            return path
        raise DataError(f"{path}: another number of values than published.")
    except DataError:
        path.unlink(missing_ok=True)
        raise


def _short(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    # Ours are worth reading to the end; a network library's are not.
    longest = 400 if isinstance(error, DataError) else 120
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _nowhere(name: str, places: list[str]) -> str:
    listed = "\n".join(f"  - {place}" for place in places)
    names = ", ".join(f"{stem}.gz" for stem, _ in FILES.values())
    return (
        f"{name}: expected its four files ({names}), found them nowhere. Looked at:\n{listed}\n"
        f"Put them into a folder and pass --data DIR or set {ENVIRONMENT}=DIR "
        f"(DIR/{name}/ or DIR/ itself), or use the bundled data set 'digits'."
    )
