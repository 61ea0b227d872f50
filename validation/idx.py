"""Reading IDX files, the format of MNIST and its kin, plain or gzipped.

Imports numpy only. Bytes in, uint8 array out; a damaged file is refused with
the file's name and the finding, never read as far as it goes.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from twin.errors import DataError

DTYPES = {
    0x08: "uint8",
    0x09: "int8",
    0x0B: "int16",
    0x0C: "int32",
    0x0D: "float32",
    0x0E: "float64",
}
"""Type codes of the format. Images and labels use 0x08 only."""

DEFLATE_LIMIT = 1032
"""Deflate never shrinks more than this; a header promising more is damaged."""

REMEDY = "Fetch the file again."


def read(path: Path | str, dimensions: int) -> NDArray[np.uint8]:
    """The array of unsigned bytes in the IDX file at `path`.

    dimensions: how many axes it must have, 3 for images (n, height, width),
    1 for labels (n,). Files whose name ends in .gz are decompressed and their
    check sum is verified.

    Raises DataError for a missing file, bad magic number, another dtype or
    number of axes, fewer or more bytes than the header promises, and broken
    or truncated gzip.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as stream:
            shape = _header(path, stream, dimensions)
            count = math.prod(shape)
            if count > size * (DEFLATE_LIMIT if path.suffix == ".gz" else 1):
                raise _damaged(
                    path, f"{count} values for the shape {shape}", f"{size} bytes on disk"
                )
            # One byte more than promised: trailing bytes show up, and gzip
            # reads on to its check sum.
            payload = stream.read(count + 1)
    except DataError:
        raise
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, "a complete gzip stream", str(error)) from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}). Check the path."
        ) from None
    if len(payload) != count:
        got = "more" if len(payload) > count else f"only {len(payload)}"
        raise _damaged(path, f"{count} values for the shape {shape}", got)
    return np.frombuffer(payload, np.uint8).reshape(shape)


def _header(path: Path, stream: BinaryIO, dimensions: int) -> tuple[int, ...]:
    """The shape promised by the header, read from the start of `stream`."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES:
        raise _damaged(path, "an IDX file (magic number 00 00 type axes)", f"{magic.hex(' ')!r}")
    if magic[2] != 0x08:
        raise _damaged(
            path, "unsigned bytes (type 08)", f"{DTYPES[magic[2]]} (type {magic[2]:02x})"
        )
    if magic[3] != dimensions:
        raise _damaged(path, f"{dimensions} axes", f"{magic[3]}")
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise _damaged(path, f"a header of {4 + 4 * dimensions} bytes", f"{4 + len(sizes)}")
    shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
    if 0 in shape:
        raise _damaged(path, "at least one value along each axis", f"the shape {shape}")
    return shape


def _damaged(path: Path, expected: str, got: str) -> DataError:
    return DataError(f"{path}: damaged IDX file: expected {expected}, got {got}. {REMEDY}")
