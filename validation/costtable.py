"""A run's ledger as a table, and numbers as they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k"))


def amount(value: Any) -> str:
    """A number for reading: 12.3 M, 4,096, 3.2e-07; anything else as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            unit = 1e3 if prefix == "k" else size
            return f"{value / unit:.4g} {prefix}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def ledger(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Columns that are not zero throughout, rows as text, and a sum."""
    names = [name for name in (rows[0] if rows else {}) if name not in ("unit", "phase")]
    names = [name for name in names if any(row.get(name) for row in rows)]
    total = {name: sum(row.get(name) or 0 for row in rows) for name in names}
    body = [[row["unit"], row["phase"], *(amount(row.get(n)) for n in names)] for row in rows]
    return {
        "columns": ["unit", "phase", *(name.replace("_", " ") for name in names)],
        "rows": body,
        "total": ["all", "", *(amount(total[name]) for name in names)],
    }
