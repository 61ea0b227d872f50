"""The pieces of work behind a figure, each kept in a file once it is done.

A piece is named by its content (what is computed, from what, by which code), so
a killed reproduction goes on where it stopped and a changed one starts afresh.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from twin.errors import DataError, DeviceUnavailable, PibTwinError
from twin.files import digest, write_atomic
from validation.console import console
from validation.studies.codeversion import version_of
from validation.studies.workers import Pool


@dataclass(frozen=True)
class Part:
    """One piece of work: `work(**arguments)` gives its data.

    name: unique in a figure, fit for a file name. work: a function at the top
    of a module, for another process must find it. arguments: JSON's types; all
    that the result depends on besides the code.
    """

    name: str
    work: Callable[..., xr.Dataset]
    arguments: Mapping[str, Any]

    def seal(self) -> str:
        """Names the result by what is computed, from what, and by which code."""
        told = json.dumps(dict(self.arguments), sort_keys=True, allow_nan=False)
        code = version_of(self.work.__module__)
        return digest(f"{self.work.__qualname__}\n{told}\n{code}".encode())[:16]

    def file(self, folder: Path) -> Path:
        """Where the result is kept."""
        return folder / f"{self.name}-{self.seal()}.nc"


def compute(
    parts: Sequence[Part], folder: Path, jobs: int = 2, quiet: bool = False
) -> dict[str, xr.Dataset]:
    """The data of every part by name; only what is missing in `folder` is computed.

    Raises the error of a part that failed, once the others are done and kept.
    """
    # Asked once: code that is edited meanwhile must not move the files.
    files = {part.name: part.file(folder) for part in parts}
    missing = [part for part in parts if kept(files[part.name]) is None]
    if missing:
        _computed(missing, files, min(jobs, len(missing)), quiet)
    return {name: _there(name, path) for name, path in files.items()}


def _there(name: str, path: Path) -> xr.Dataset:
    found = kept(path)
    if found is None:
        raise DataError(f"{name}: {path} was not written whole. Give the same command again.")
    return found


def kept(path: Path) -> xr.Dataset | None:
    """The data of a part that was done before, None if there is none or it is torn."""
    if not path.is_file():
        return None
    try:
        return xr.load_dataset(path, engine="h5netcdf")
    except (OSError, ValueError, KeyError):
        return None


def _computed(parts: Sequence[Part], files: Mapping[str, Path], jobs: int, quiet: bool) -> None:
    failed: list[tuple[Part, BaseException]] = []
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    with Pool(jobs) as pool, Progress(*columns, console=console, disable=quiet) as shown:
        task = shown.add_task("parts", total=len(parts))
        running: dict[Future[None], Part] = {
            pool.submit(_keep, part, str(files[part.name])): part for part in parts
        }
        for future in as_completed(running):
            error = future.exception()
            if error is not None:
                failed.append((running[future], error))
            shown.update(task, advance=1, description=f"{running[future].name} done")
    if failed:
        part, error = failed[0]
        raise _told(part, error, len(failed))


def _keep(part: Part, path: str) -> None:
    """In a worker: compute a part and keep it."""
    import torch

    torch.set_num_threads(1)
    found = part.work(**part.arguments)
    write_atomic(Path(path), bytes(found.to_netcdf(engine="h5netcdf")))


def _told(part: Part, error: BaseException, count: int) -> BaseException:
    if isinstance(error, BrokenProcessPool):
        return DeviceUnavailable(
            f"{part.name}: its process died (out of memory, or killed). What was finished is "
            "kept: give the same command again."
        )
    others = f" ({count - 1} more parts failed)" if count > 1 else ""
    if isinstance(error, PibTwinError):
        return type(error)(f"{part.name}: {error}{others}")
    return error if isinstance(error, MemoryError) else DataError(
        f"{part.name}: {type(error).__name__}: {error}{others}."
    )  # fmt: skip
