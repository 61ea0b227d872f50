"""A stated set of faults: seeded, savable, the same for a simulated and a real chip.

Cells are (planes, inputs, columns): for pairs (2, inputs, outputs), G+ then G-.
Levels are in units of the window, 0 at its bottom and 1 at its top.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from substrates.converter import half_span
from substrates.memristor import faultfile, faultscores
from substrates.memristor.faultarrays import (
    ARRAYS,
    CELLS,
    CONVERTERS,
    DEAD_CONVERTER,
    HEALTHY,
    STUCK_CONVERTER,
    STUCK_HIGH,
    STUCK_LEVEL,
    STUCK_LOW,
    all_fractions,
    bits,
    require,
    sizes,
)
from twin.backend import Capabilities
from twin.checks import dial_value
from twin.errors import ConfigError, DataError, DialError, Unsupported
from twin.key import Key

MISRANGE = 4.0
"""Drawn mis-ranged columns have a gain between 1 / MISRANGE and MISRANGE. Assumed."""
CLUSTER_CELLS = 3.0
"""Default radius of a cluster, cells. Assumed."""


class Adjustable(Protocol):
    """A backend, or a fence around one: whatever has dials."""

    @property
    def capabilities(self) -> Capabilities: ...

    def adjust(self, dial: str, value: Tensor, *, key: Key) -> int: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class FaultMap:
    """Which elements of one chip are broken, and how. Tensors on the CPU, copied.

    adc_bits: of the signed converters the codes are meant for.
    cell_kind: (planes, inputs, columns), int8. cell_level: the same, float32,
    where in the window [0, 1] a stuck cell sits; 0 for a healthy one.
    never_verifies: the same, bool, no write-verify accepts the cell.
    dead_row, dead_column: (inputs,), (outputs,), bool: an open word line, an
    open bit line that carries no current (its converter still works).
    converter_kind: (outputs,), int8. converter_code: int32, code of one tile
    where stuck, else 0. column_gain: float32, factor on a column's signal
    (nominal / actual full scale of its converter), 1 where well ranged.
    """

    adc_bits: int
    cell_kind: Tensor
    cell_level: Tensor
    never_verifies: Tensor
    dead_row: Tensor
    dead_column: Tensor
    converter_kind: Tensor
    converter_code: Tensor
    column_gain: Tensor

    def __post_init__(self) -> None:
        require(self.adc_bits, self.arrays())
        for name, array in self.arrays().items():
            object.__setattr__(self, name, array.detach().to("cpu", copy=True))
        self.cell_level.abs_()  # one zero only, or equal maps would have other digests

    @staticmethod
    def none(
        inputs: int, outputs: int, *, cells: tuple[int, ...] | None = None, adc_bits: int = 8
    ) -> FaultMap:
        """A chip without any fault; arguments as of :meth:`drawn`."""
        shapes = sizes(inputs, outputs, cells)
        parts = {name: torch.zeros(shapes[per], dtype=d) for name, (d, per, *_) in ARRAYS.items()}
        parts["column_gain"] += 1
        return FaultMap(adc_bits=adc_bits, **parts)

    @staticmethod
    def drawn(
        key: Key,
        inputs: int,
        outputs: int,
        *,
        cells: tuple[int, ...] | None = None,
        clustered: bool = False,
        cluster_cells: float = CLUSTER_CELLS,
        adc_bits: int = 8,
        **fractions: float,
    ) -> FaultMap:
        """Faults at these fractions of the cells, rows or columns; others have none.

        cells: their shape (planes, inputs, columns), as the backend's dials have
        it; (2, inputs, outputs) if None. fractions: of cells stuck_low,
        stuck_high, stuck_level (anywhere), never_verifies; dead_rows,
        dead_columns, misranged; of converters dead_converters,
        stuck_converters. The kinds of stuck cell exclude each other, and so do
        those of converters.

        One key gives nested maps: what is faulty at smaller fractions is faulty
        at larger ones, with the same level, code or gain, and of the same kind
        if the fractions of its group grow by one factor.
        clustered, cluster_cells: cells fail in blobs of about that radius (see
        `faultscores.clustered`). Levels and codes are uniform, gains log-uniform
        within MISRANGE of 1: assumed, as is that lines fail independently.
        """
        shapes, wanted = sizes(inputs, outputs, cells), all_fractions(fractions)
        if not (math.isfinite(cluster_cells) and 0 < cluster_cells <= 100):
            raise ConfigError(f"fault map: cluster_cells must be in (0, 100], got {cluster_cells}.")

        def uniform(what: str, per: str) -> Tensor:
            return faultscores.independent(key.child(what), *shapes[per])

        def cell_scores(what: str) -> Tensor:
            if clustered:
                return faultscores.clustered(key.child(what), shapes["cell"], cluster_cells)
            return uniform(what, "cell")

        stuck = tuple(wanted[n] for n in CELLS)
        kind = faultscores.kinds(cell_scores("stuck cell"), uniform("cell kind", "cell"), stuck)
        level = torch.where(kind == STUCK_LEVEL, uniform("level", "cell").float(), 0.0)
        broken = tuple(wanted[n] for n in CONVERTERS)
        scores, choices = (uniform(n, "column") for n in ("converter", "converter kind"))
        converter = faultscores.kinds(scores, choices, broken)
        span = 2 * half_span(bits(adc_bits))
        code = (uniform("code", "column") * span).floor() - span / 2
        gain = MISRANGE ** (2 * uniform("gain", "column") - 1)
        misranged = uniform("misranged", "column") < wanted["misranged"]
        return FaultMap(
            adc_bits=adc_bits,
            cell_kind=kind,
            cell_level=torch.where(kind == STUCK_HIGH, 1.0, level),
            never_verifies=cell_scores("never verifies") < wanted["never_verifies"],
            dead_row=uniform("dead row", "row") < wanted["dead_rows"],
            dead_column=uniform("dead column", "column") < wanted["dead_columns"],
            converter_kind=converter,
            converter_code=torch.where(converter == STUCK_CONVERTER, code, 0.0).int(),
            column_gain=torch.where(misranged, gain, 1.0).float(),
        )

    # ---- what is in it -------------------------------------------------------

    @property
    def inputs(self) -> int:
        return len(self.dead_row)

    @property
    def outputs(self) -> int:
        return len(self.dead_column)

    def arrays(self) -> dict[str, Tensor]:
        """The map's own tensors by name; not to be changed."""
        return {name: getattr(self, name) for name in ARRAYS}

    def faulty(self) -> dict[str, Tensor]:
        """Masks of faulty elements by the names of :meth:`drawn`'s fractions."""
        return {
            "stuck_low": self.cell_kind == STUCK_LOW,
            "stuck_high": self.cell_kind == STUCK_HIGH,
            "stuck_level": self.cell_kind == STUCK_LEVEL,
            "never_verifies": self.never_verifies.clone(),
            "dead_rows": self.dead_row.clone(),
            "dead_columns": self.dead_column.clone(),
            "dead_converters": self.converter_kind == DEAD_CONVERTER,
            "stuck_converters": self.converter_kind == STUCK_CONVERTER,
            "misranged": self.column_gain != 1,
        }

    def counts(self) -> dict[str, int]:
        """How many elements have each fault, by the names of the fractions."""
        return {name: int(mask.sum()) for name, mask in self.faulty().items()}

    def merge(self, other: FaultMap) -> FaultMap:
        """The faults of both; where both have one of the same sort, this map's."""
        mine, theirs = ((m.adc_bits, m.outputs, *m.cell_kind.shape) for m in (self, other))
        if mine != theirs:
            raise DialError(
                f"fault map: cannot merge (adc_bits, outputs, planes, inputs, columns) {mine} "
                f"with {theirs}. Draw both for the same chip."
            )
        own_cell, own_converter = self.cell_kind != HEALTHY, self.converter_kind != HEALTHY
        own = {
            "cell_kind": own_cell,
            "cell_level": own_cell,
            "converter_kind": own_converter,
            "converter_code": own_converter,
            "column_gain": self.column_gain != 1,
        }
        a, b = self.arrays(), other.arrays()
        parts = {n: torch.where(own[n], a[n], b[n]) if n in own else a[n] | b[n] for n in ARRAYS}
        return FaultMap(adc_bits=self.adc_bits, **parts)

    def digest(self) -> str:
        """SHA-256 of sizes and contents, in hexadecimal; equal for equal maps."""
        return hashlib.sha256(faultfile.canonical(self.adc_bits, self.arrays())).hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FaultMap):
            return NotImplemented
        return self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    # ---- on disk and on a chip -----------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the map to one .npz file, whole or not at all; replaces a file."""
        faultfile.write(Path(path), self.adc_bits, self.arrays())

    @staticmethod
    def load(path: str | Path) -> FaultMap:
        """The map that :meth:`save` wrote there; DataError otherwise. Runs no code."""
        adc_bits, parts = faultfile.read(Path(path), list(ARRAYS))
        try:
            return FaultMap(adc_bits=adc_bits, **parts)
        except (ConfigError, DialError) as error:
            raise DataError(f"{path}: {error}") from None

    def needed_dials(self) -> list[str]:
        """Names of the dials without which this map cannot be installed."""
        faulty = {
            "stuck_cell_level": self.cell_kind != HEALTHY,
            "never_verifies": self.never_verifies,
            "dead_row": self.dead_row,
            "dead_column": self.dead_column,
            "stuck_column_code": self.converter_kind != HEALTHY,
            "column_gain": self.column_gain != 1,
        }
        return [name for name, mask in faulty.items() if bool(mask.any())]

    def dial_values(self, healthy_code: float) -> dict[str, Tensor]:
        """The value of each dial for this map, float32.

        healthy_code: value of 'stuck_column_code' for a healthy column.
        """
        code = self.converter_code.float()
        return {
            "stuck_cell_level": torch.where(self.cell_kind == HEALTHY, -1.0, self.cell_level),
            "never_verifies": self.never_verifies.float(),
            "dead_row": self.dead_row.float(),
            "dead_column": self.dead_column.float(),
            "stuck_column_code": torch.where(self.converter_kind == HEALTHY, healthy_code, code),
            "column_gain": self.column_gain.clone(),
        }


def install(backend: Adjustable, fault_map: FaultMap, key: Key) -> int:
    """Give a backend the faults of `fault_map`; returns its state version.

    Works through declared dials alone, so on anything behind the contract, and
    on a fence. Turns every map dial the backend has, so a second map replaces
    the first; dials that are fractions of drawn faults stay as they are.
    Unsupported if the map needs a dial the backend lacks, DialError if a value
    does not fit; both before any dial is turned. If the device fails half way,
    install again.
    """
    capabilities = backend.capabilities
    where, dials = capabilities.device_id, {d.name: d for d in capabilities.dials}
    needed = fault_map.needed_dials()
    missing = [name for name in needed if name not in dials]
    if missing:
        raise Unsupported(
            f"{where}: the fault map needs the dial(s) {', '.join(missing)}, which this backend "
            f"does not declare (it has: {', '.join(dials) or 'none'}). Leave those faults out."
        )
    code = dials.get("stuck_column_code")
    turns = {
        name: dial_value(dials[name], value, where)
        for name, value in fault_map.dial_values(code.ideal if code else 0.0).items()
        if name in needed or (name in dials and not dials[name].read_only)
    }
    version = 0
    for name, value in turns.items():
        version = backend.adjust(name, value, key=key.child("install", name))
    return version
