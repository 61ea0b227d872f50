"""Pieces of a figure: kept once, computed again only when torn or asked otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import xarray as xr

from twin.errors import ConfigError, DataError, DeviceUnavailable
from validation.reproduce.parts import Part, compute


def squared(value: float, log: str) -> xr.Dataset:
    with Path(log).open("a") as stream:
        stream.write(f"{value}\n")
    return xr.Dataset({"square": value * value})


def failing(kind: str) -> xr.Dataset:
    if kind == "killed":
        os._exit(9)
    raise ConfigError("the rate is too high") if kind == "typed" else ValueError("boom")


def parts(log: Path, *values: float) -> list[Part]:
    return [Part(f"of-{v:g}", squared, {"value": v, "log": str(log)}) for v in values]


def test_a_part_is_computed_once_and_a_torn_one_again(tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "parts"
    asked = parts(log, 2.0, 3.0)
    found = compute(asked, folder, 1, quiet=True)
    assert {n: float(d["square"]) for n, d in found.items()} == {"of-2": 4.0, "of-3": 9.0}
    compute(asked, folder, 1, quiet=True)
    assert len(log.read_text().split()) == 2
    torn = asked[0].file(folder)
    torn.write_bytes(torn.read_bytes()[:200])
    assert float(compute(asked, folder, 1, quiet=True)["of-2"]["square"]) == 4.0
    assert log.read_text().split() == ["2.0", "3.0", "2.0"]


def test_another_argument_or_another_function_is_another_part(tmp_path: Path) -> None:
    one, other = parts(tmp_path / "log", 2.0, 3.0)
    assert one.seal() != other.seal()
    assert one.seal() != Part(one.name, failing, one.arguments).seal()
    assert one.seal() == Part("named otherwise", squared, one.arguments).seal()


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("typed", ConfigError, "bad: the rate is too high"),
        ("other", DataError, "bad: ValueError: boom"),
        ("killed", DeviceUnavailable, "the same command again"),
    ],
)
def test_a_failing_part_is_named_and_the_others_are_kept(
    tmp_path: Path, kind: str, error: type[Exception], said: str
) -> None:
    log, folder = tmp_path / "log", tmp_path / "parts"
    good = parts(log, 2.0)
    with pytest.raises(error, match=said):
        compute([*good, Part("bad", failing, {"kind": kind})], folder, 1, quiet=True)
    compute(good, folder, 1, quiet=True)
    assert log.read_text().split() == ["2.0"]
