"""Technologies as files: TOML with curves from CSV beside it, and back.

Plain dictionaries in and out; what they mean is checked by their dataclasses.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twin.config import parse_toml, read_text
from twin.errors import ConfigError


def read_table(path: Path) -> dict[str, Any]:
    """The content of a TOML file, every points_csv replaced by its points."""
    return _with_points(parse_toml(read_text(path), str(path)), path.parent)


def _with_points(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_with_points(v, folder) for v in value]
    if not isinstance(value, dict):
        return value
    table = {k: _with_points(v, folder) for k, v in value.items()}
    if "points_csv" in table:
        if "points" in table:
            raise ConfigError(
                f"{folder}: a curve has both points and points_csv; keep one of them."
            )
        table["points"] = read_points(folder / str(table.pop("points_csv")))
    return table


def read_points(path: Path) -> list[tuple[float, float]]:
    """(conductance, value) of a CSV file: a header line, then two numbers a line.

    Raises ConfigError naming file and line of a missing or non-finite number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read the points of a curve: {error}.") from None
    rows = csv.reader(io.StringIO(text))
    header = next(rows, None)
    if not header or header[0].strip() != "conductance_siemens":
        raise ConfigError(
            f"{path}: the first line must be 'conductance_siemens,value', got {header}."
        )
    return [_point(path, rows.line_num, row) for row in rows if row]


def _point(path: Path, line: int, row: list[str]) -> tuple[float, float]:
    try:
        g, value = (float(field) for field in row)
    except ValueError:
        g = value = math.nan
    if not (math.isfinite(g) and math.isfinite(value)):
        raise ConfigError(
            f"{path}, line {line}: two finite numbers expected, got {','.join(row)!r}. "
            f"Measure the missing one or remove the line."
        )
    return g, value


def to_toml(technology: Any) -> str:
    """A technology (any frozen dataclass of tables) as TOML that load reads back."""
    return "\n".join(_lines(dataclasses.asdict(technology), ())) + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    """Plain keys first, then sub-tables, as TOML wants them."""
    kept = {k: v for k, v in table.items() if v is not None and v != ()}
    lines = [f"{k} = {_value(v)}" for k, v in kept.items() if not _is_nested(v)]
    for key, value in kept.items():
        here = (*path, key)
        if isinstance(value, Mapping):
            lines += ["", f"[{'.'.join(here)}]", *_lines(value, here)]
        elif _is_nested(value):
            for entry in value:
                lines += ["", f"[[{'.'.join(here)}]]", *_lines(entry, here)]
    return lines


def _is_nested(value: Any) -> bool:
    several = isinstance(value, tuple | list) and bool(value) and isinstance(value[0], Mapping)
    return isinstance(value, Mapping) or several


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON strings are TOML basic strings, but for the lone DEL character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return repr(value)
