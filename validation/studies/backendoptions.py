"""What options a backend knows, asked of its own configuration class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from twin.config import field_names

PREFIXES = {"faulty+": "fault_rate", "broken+": "code_weight"}


def _memristor() -> Any:
    from substrates.memristor.config import CrossbarConfig

    return CrossbarConfig


def _optics() -> Any:
    from substrates.optics.config import RigConfig

    return RigConfig


def _ideal() -> Any:
    from substrates.ideal import IdealConfig

    return IdealConfig


CLASSES: Mapping[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "memristor": (_memristor, ("preset",)),
    "optics": (_optics, ("preset",)),
    "ideal": (_ideal, ()),
}


@lru_cache(maxsize=64)
def option_names(backend: str) -> frozenset[str] | None:
    """Names of the options of a backend; None where it has no class we know."""
    extra: list[str] = []
    while found := next((p for p in PREFIXES if backend.startswith(p)), None):
        extra.append(PREFIXES[found])
        backend = backend.removeprefix(found)
    if backend not in CLASSES:
        return None
    load, more = CLASSES[backend]
    return frozenset([*field_names(load()), *more, *extra])
