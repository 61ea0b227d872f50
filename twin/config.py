"""From a table (TOML, keyword arguments) to a validated frozen dataclass.

pydantic does the checking; this turns its findings into one ConfigError that
names the file's key, what was expected, what came, and the nearest known name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from twin.errors import ConfigError, nearest

Config = TypeVar("Config")

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""For pydantic dataclasses: unknown keys and non-finite numbers are errors."""


def build(kind: type[Config], options: Mapping[str, Any], where: str) -> Config:
    """An instance of the pydantic dataclass or model `kind` from `options`.

    where: what to call this table in errors, e.g. "unit.0.backend".
    Raises ConfigError listing every offending key.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(options))
    except ValidationError as error:
        lines = [_line(kind, finding, where) for finding in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _line(kind: type, finding: Any, where: str) -> str:
    path = ".".join([where, *map(str, finding["loc"])])
    if finding["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        name = str(finding["loc"][-1])
        known = field_names(kind) if len(finding["loc"]) == 1 else []
        return f"{path}: unknown key. {nearest(name, known) if known else 'Remove it.'}"
    return f"{path}: {finding['msg']}, got {finding['input']!r}."


def field_names(kind: type) -> list[str]:
    """Names of the fields of a dataclass or pydantic model."""
    if dataclasses.is_dataclass(kind):
        return [f.name for f in dataclasses.fields(kind)]
    return list(getattr(kind, "model_fields", {}))
