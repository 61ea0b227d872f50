"""From a table (TOML, keyword arguments) to a validated frozen dataclass.

pydantic does the checking; this turns its findings into one ConfigError that
names the file's key, what was expected, what came, and the nearest known name.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from twin.errors import ConfigError, nearest

Config = TypeVar("Config")

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""For pydantic dataclasses: unknown keys and non-finite numbers are errors."""

SECRET = "secret"
"""Type of a pydantic error (PydanticCustomError) whose value must not be shown."""

LONGEST = 200
"""Characters of an offending value that an error shows."""


def holds_secret(name: str) -> bool:
    """Whether a place on the network, well spelt or not, seems to name a user or password."""
    return "http" in name and "@" in name


def read_text(path: Path) -> str:
    """The text of a file in UTF-8; ConfigError if it is none or cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8: {error}.") from None


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """The tables in TOML text; `where` names it in errors."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # ValueError also for whole numbers of thousands of digits.
        raise ConfigError(f"{where}: not valid TOML: {error}.") from None


def build(kind: type[Config], options: Mapping[str, Any], where: str) -> Config:
    """An instance of the pydantic dataclass or model `kind` from `options`.

    where: what to call this table in errors, e.g. "unit.0.backend".
    Raises ConfigError listing every offending key.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(options))
    except ValidationError as error:
        found = error.errors()
        # Other findings quote the tables around it.
        found = [f for f in found if f["type"] == SECRET] or found
        lines = [_line(kind, finding, where) for finding in found]
        raise ConfigError("\n".join(lines)) from None


def _line(kind: type, finding: Any, where: str) -> str:
    path = ".".join([where, *map(str, finding["loc"])])
    if finding["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        *above, name = finding["loc"]
        known = field_names(_table_at(kind, above))
        return f"{path}: unknown key. {nearest(str(name), known) if known else 'Remove it.'}"
    if finding["type"] == SECRET:
        return f"{path}: {finding['msg']}."
    given = repr(finding["input"])
    given = given if len(given) <= LONGEST else f"{given[:LONGEST]}..."
    return f"{path}: {finding['msg']}, got {given}."


def _table_at(kind: Any, path: Sequence[str | int]) -> Any:
    """The type of the table that a path of keys and positions leads to."""
    for part in path:
        if isinstance(part, int):
            kind = next((a for a in get_args(kind) if a is not Ellipsis), None)
        else:
            fields = getattr(kind, "model_fields", None) or getattr(kind, "__pydantic_fields__", {})
            field = fields.get(part)
            kind = None if field is None else field.annotation
        if get_origin(kind) in (Union, UnionType):
            kind = next((a for a in get_args(kind) if a is not NoneType), None)
    return kind


def field_names(kind: Any) -> list[str]:
    """Names of the fields of a dataclass or pydantic model, else none."""
    if dataclasses.is_dataclass(kind):
        return [f.name for f in dataclasses.fields(kind)]
    return list(getattr(kind, "model_fields", {}))
