"""Answers for any drive, from what was recorded for the drive most like it.

The state in force is what was written, dialled, ranged and waited for, as far as
the calls tell it; device time and what passes do to a device play no part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from twin.backend import Port, Reading, Values
from twin.calls import Call
from twin.errors import DriveError, ReplayError
from twin.mismatch import neighbour
from twin.plain import differs, owned
from twin.recording import Recording
from twin.samples import Samples, by_port, samples_of
from twin.statetrack import Track

CHUNK = 4096
"""Recorded samples compared at a time: bounds the memory of one search."""


class Nearest:
    """The search behind ``Replayed(mode="nearest")``.

    Opening reads every call once. The samples of the state in force are held
    in memory (drives and codes), those of others are not.
    """

    def __init__(self, recording: Recording, max_distance: float) -> None:
        self._recording = recording
        self._max_distance = max_distance
        self.last_distance: Tensor | None = None
        self._track = Track(recording.capabilities)
        self._answers: dict[tuple[str, str], int] = {}
        self._passes: dict[str, list[int]] = {}
        self._by_kind: dict[str, list[int]] = {}
        self._index()
        self._track = Track(recording.capabilities, self._track.snapshots)
        self._table: tuple[str, Table] | None = None

    def _index(self) -> None:
        for number, call in enumerate(self._recording.calls):
            self._track.follow(call)
            state = self._track.name
            if call.kind == "forward":
                if call.error is None:
                    self._passes.setdefault(state, []).append(number)
                continue
            self._by_kind.setdefault(call.kind, []).append(number)
            if call.error is None:
                self._answers.setdefault((call.kind, state), number)

    def act(self, kind: str, inputs: Mapping[str, Any]) -> Any:
        """The answer to any call but forward; ReplayError if it was not recorded."""
        track = self._track.copy()
        track.follow(Call(kind, inputs))
        number = self._answers.get((kind, track.name))
        if number is None:
            raise ReplayError(
                f"{self._where}: this {kind} was not recorded in the state in force "
                f"({self._track.told}). {self._hint(kind, inputs)} Record it, or repeat what was."
            )
        self._track = track
        return owned(self._recording.calls[number].answer)

    def forward(self, drive: Values, shots: int | None) -> Reading:
        """The recorded reading of the nearest drive, sample by sample."""
        table = self._table_in_force()
        wanted = _flat(owned(by_port(drive, self._ports)), self._ports)
        usable = table.shots >= (shots or 1)
        if not bool(usable.any()):
            raise ReplayError(
                f"{self._where}: no pass with {shots or 1} shots or more was recorded in the state "
                f"in force ({self._track.told}). Record one, or repeat what was."
            )
        rows, distance = table.nearest(wanted, usable)
        worst = float(distance.max()) if len(distance) else 0.0
        if not worst <= self._max_distance:
            at = int(distance.argmax())
            raise ReplayError(
                f"{self._where}: sample {at} is {worst:.3g} (Euclidean, dimensionless) from the "
                f"nearest recorded drive (call {int(table.calls[rows[at]]) + 1}), more than "
                f"max_distance = {self._max_distance:g}. Record nearer drives, or allow more."
            )
        self.last_distance = distance
        return self._reading(table, rows.tolist(), shots)

    @property
    def _where(self) -> str:
        return f"nearest replay of {self._recording.device_id!r}"

    @property
    def _ports(self) -> tuple[Port, ...]:
        return self._recording.capabilities.drives

    def _hint(self, kind: str, inputs: Mapping[str, Any]) -> str:
        numbers = self._by_kind.get(kind, [])
        calls = ((n, replace(self._recording.calls[n], key=None)) for n in numbers)
        return neighbour(calls, 0, kind, None, inputs)

    def _table_in_force(self) -> Table:
        name = self._track.name
        if self._table is None or self._table[0] != name:
            if name not in self._passes:
                raise ReplayError(
                    f"{self._where}: no pass was recorded in the state in force "
                    f"({self._track.told}). Record one, or repeat what was."
                )
            table = Table.of(self._recording, self._passes[name], self._where)
            self._table = (name, table)
        return self._table[1]

    def _reading(self, table: Table, rows: list[int], shots: int | None) -> Reading:
        sources = [table.answers[int(table.calls[row])] for row in rows]
        if any(differs(s.ratio, sources[0].ratio) for s in sources):
            raise ReplayError(
                f"{self._where}: the nearest samples were read in different ranges, one reading "
                "has one. Record a ranging (set_range) between them, or ask for fewer samples."
            )
        codes = table.codes_of(rows, shots)
        main = self._recording.capabilities.readings[0].name
        any_source = sources[0] if sources else next(iter(table.answers.values()))
        return Reading(
            codes=codes.pop(main),
            ratio=owned(any_source.ratio),
            saturated=sum(s.saturated for s in sources) / max(1, len(sources)),
            state_version=any_source.state_version,
            device_seconds=sum(float(table.seconds[row]) for row in rows) * (shots or 1),
            joules=sum(float(table.joules[row]) for row in rows) * (shots or 1),
            clock_s=max((s.clock_s for s in sources), default=any_source.clock_s),
            extra=codes,
        )


def _flat(values: Mapping[str, Tensor], ports: Sequence[Port]) -> Tensor:
    """(batch, features) float64, the ports side by side."""
    if set(values) != {p.name for p in ports}:
        raise DriveError(
            f"nearest replay: expected drives {[p.name for p in ports]}, got {sorted(values)}."
        )
    for port in ports:
        if tuple(values[port.name].shape[1:]) != port.shape:
            raise DriveError(
                f"nearest replay: drive {port.name!r} must be (batch, *{port.shape}), "
                f"got {tuple(values[port.name].shape)}."
            )
    return torch.cat([values[p.name].double().flatten(1) for p in ports], 1)


@dataclass(frozen=True)
class Table:
    """All samples recorded in one state, N of them.

    drives: one (batch, features) per call, as recorded. calls, rows, shots:
    (N,), where each sample lies and how often it was read. seconds, joules: (N,), per shot.
    """

    drives: tuple[Tensor, ...]
    calls: Tensor
    rows: Tensor
    shots: Tensor
    seconds: Tensor
    joules: Tensor
    answers: Mapping[int, Reading]
    samples: Mapping[int, Samples]

    @classmethod
    def of(cls, recording: Recording, numbers: Sequence[int], where: str) -> Table:
        capabilities, found, answers = recording.capabilities, {}, {}
        for number in numbers:
            call = recording.calls[number]
            samples = samples_of(call, capabilities)
            if samples is not None and samples.batch:
                found[number], answers[number] = samples, call.answer
        if not found:
            raise ReplayError(
                f"{where}: no pass in the state in force was answered as its ports declare. "
                "Record one."
            )

        return cls(
            drives=tuple(
                torch.cat([s.drives[p.name].flatten(1) for p in capabilities.drives], 1)
                for s in found.values()
            ),
            calls=_repeated([(s.batch, n) for n, s in found.items()]).long(),
            rows=torch.cat([torch.arange(s.batch) for s in found.values()]),
            shots=_repeated([(s.batch, s.shots) for s in found.values()]).long(),
            seconds=_shared((s, answers[n].device_seconds) for n, s in found.items()),
            joules=_shared((s, answers[n].joules) for n, s in found.items()),
            answers=answers,
            samples=found,
        )

    def nearest(self, wanted: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
        """For each row of `wanted` (batch, features): the number of the nearest usable
        sample (the first of several), and its distance."""
        best = torch.full((len(wanted),), torch.inf, dtype=torch.float64)
        where = torch.zeros(len(wanted), dtype=torch.long)
        start = 0
        for drives in self.drives:
            for part in drives.split(CHUNK):
                stop = start + len(part)
                gaps = _distances(wanted, part.double())
                gaps[:, ~usable[start:stop]] = torch.inf
                least, row = gaps.min(1)
                nearer = least < best
                best = torch.where(nearer, least, best)
                where = torch.where(nearer, row + start, where)
                start = stop
        return where, best

    def codes_of(self, rows: list[int], shots: int | None) -> dict[str, Tensor]:
        """By port: (batch, *reading), or (shots, batch, *reading) where shots were asked for."""
        named: dict[str, Tensor] = {}
        for port, like in next(iter(self.samples.values())).codes.items():
            picked = [
                self.samples[int(self.calls[row])].codes[port][: shots or 1, int(self.rows[row])]
                for row in rows
            ]
            empty = like.new_empty((shots or 1, 0, *like.shape[2:]))
            codes = torch.stack(picked, 1) if picked else empty
            named[port] = codes[0].clone() if shots is None else codes
        return named


def _repeated(values: Iterable[tuple[int, float]]) -> Tensor:
    """float64, each value as often as said before it."""
    counts, repeated = zip(*values, strict=True)
    return torch.tensor(repeated, dtype=torch.float64).repeat_interleave(torch.tensor(counts))


def _shared(costs: Iterable[tuple[Samples, float]]) -> Tensor:
    """(N,): the cost of a call, in equal parts for each pass of it."""
    return _repeated((s.batch, cost / (s.batch * s.shots)) for s, cost in costs)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """(len(a), len(b)) Euclidean; exactly 0 where rows are equal."""
    # Differences, not |a|^2 + |b|^2 - 2 a b: that is not 0 for equal rows.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
