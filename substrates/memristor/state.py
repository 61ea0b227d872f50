"""The state of a crossbar as plain data: what its snapshots hold, and which are its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from substrates.memristor import ages
from substrates.memristor.ages import History
from substrates.memristor.fold import Parts
from twin.backend import Snapshot
from twin.errors import SnapshotError

MAP = "map "
HELD = ("held_siemens", "solved_siemens")


def taken(parts: Parts, ratio: Tensor) -> dict[str, Tensor]:
    """Conductances, ranges, wires and maps, copied to the CPU."""
    cells, wiring = parts.cells, parts.wiring
    held = () if wiring.held is None else zip(HELD, wiring.held, strict=True)
    arrays = {
        "programmed_siemens": cells.programmed,
        "target_siemens": cells.targets,
        "ratio": ratio,
        **dict(held),
        **({} if cells.history is None else cells.history.arrays()),
        **{f"{MAP}{name}": value for name, value in parts.faults.maps.items()},
    }
    return {name: value.to("cpu", copy=True) for name, value in arrays.items()}


def put_back(parts: Parts, arrays: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Bring cells, wires and maps into the state of a snapshot; arrays: to be kept."""
    parts.cells.restore(
        arrays["target_siemens"],
        arrays["programmed_siemens"],
        int(values["writes"]),
        float(values["pulses_per_cell"]),
        History.of(arrays),
    )
    held, solved = (arrays.get(name) for name in HELD)
    parts.wiring.held = None if held is None or solved is None else (held, solved)
    parts.faults.maps = {
        name.removeprefix(MAP): value.cpu()
        for name, value in arrays.items()
        if name.startswith(MAP)
    }


def require_own(given: Snapshot, own: Snapshot, parts: Parts, maps: Mapping[str, Any]) -> None:
    """SnapshotError unless `given` is of the chip that `own` is of, and complete.

    maps: shapes of the chip's fault maps by dial.
    """
    if given.device_id != own.device_id:
        raise SnapshotError(
            f"{own.device_id}: the snapshot is of {given.device_id!r}. "
            "Build this crossbar with the same options and key."
        )
    cells = parts.encoding.shape
    together = [HELD, ages.ARRAYS]
    may_have = {f"{MAP}{name}": shape for name, shape in maps.items()}
    may_have |= {name: cells for group in together for name in group}
    must_have = {n: tuple(a.shape) for n, a in own.arrays.items() if n not in may_have}
    shapes = {name: tuple(a.shape) for name, a in given.arrays.items()}
    wrong = [n for n, shape in must_have.items() if shapes.get(n) != shape]
    wrong += [n for n, shape in shapes.items() if {**may_have, **must_have}.get(n) != shape]
    for group in together:
        lacking = [name for name in group if name not in shapes]
        wrong += lacking if len(lacking) < len(group) else []
    wrong += sorted(set(own.values) - set(given.values))
    if wrong:
        names = ", ".join(dict.fromkeys(wrong))
        raise SnapshotError(
            f"{own.device_id}: the snapshot lacks, or has in another shape: {names}."
        )
