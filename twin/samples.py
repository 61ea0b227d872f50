"""The samples of a recorded forward call, row by row and shot by shot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from twin.backend import Capabilities, Port, Reading
from twin.calls import Call


@dataclass(frozen=True)
class Samples:
    """What went in and came out of one forward call, by port.

    drives: (batch, *drive port). codes: (shots, batch, *reading port), with one
    shot where none were asked for.
    """

    drives: Mapping[str, Tensor]
    codes: Mapping[str, Tensor]

    @property
    def batch(self) -> int:
        return len(next(iter(self.drives.values())))

    @property
    def shots(self) -> int:
        return len(next(iter(self.codes.values())))


def samples_of(call: Call, capabilities: Capabilities) -> Samples | None:
    """The samples of `call`; None if it is no forward call that was answered as declared."""
    if call.kind != "forward" or not isinstance(call.answer, Reading):
        return None
    given = by_port(call.inputs.get("drive"), capabilities.drives)
    if not _shaped(given, capabilities.drives, 1):
        return None
    main, *others = capabilities.readings
    codes = {main.name: call.answer.codes}
    codes |= {p.name: call.answer.extra[p.name] for p in others if p.name in call.answer.extra}
    if call.inputs.get("shots") is None:
        codes = {name: c[None] for name, c in codes.items() if isinstance(c, Tensor)}
    if not _shaped(codes, capabilities.readings, 2):
        return None
    found = Samples(given, codes)
    lead = (int(call.inputs.get("shots") or 1), found.batch)
    whole = all(tuple(c.shape[:2]) == lead for c in codes.values())
    return found if whole and len({len(d) for d in given.values()}) == 1 else None


def by_port(values: Any, ports: Sequence[Port]) -> dict[str, Tensor]:
    """Values by port name: a bare tensor is meant for the first port."""
    if isinstance(values, Tensor) and ports:
        return {ports[0].name: values}
    return dict(values) if isinstance(values, Mapping) else {}


def _shaped(values: Mapping[str, Any], ports: Sequence[Port], leading: int) -> bool:
    """Whether there is a tensor for each port and no other, of its shape behind `leading` axes."""
    return (
        bool(ports)
        and set(values) == {p.name for p in ports}
        and all(
            isinstance(values[p.name], Tensor)
            and values[p.name].ndim == leading + len(p.shape)
            and tuple(values[p.name].shape[leading:]) == p.shape
            for p in ports
        )
    )
