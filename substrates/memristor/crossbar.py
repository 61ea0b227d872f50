"""The memristor backend: volts in, codes of a signed current out.

Thin: the state of a chip, its clock and its costs. The physics is in the
neighbouring modules, as functions of SI quantities.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from substrates.converter import half_span, signed_range
from substrates.memristor import dials, ports
from substrates.memristor.array import Scratch
from substrates.memristor.cells import Cells, Moment
from substrates.memristor.clock import Clock
from substrates.memristor.columns import Columns, chunks
from substrates.memristor.config import CrossbarConfig
from substrates.memristor.converters import Converters
from substrates.memristor.encoding import Encoding
from substrates.memristor.faults import Faults, StuckColumns
from substrates.memristor.fold import Parts, folded
from substrates.memristor.layout import Layout
from substrates.memristor.presets import configured, curve
from substrates.memristor.technology import Technology
from substrates.memristor.wiring import Wiring
from twin.backend import Port, Ranged, Reading, Snapshot, Values, Written, single
from twin.errors import DriveError, SettingError, SnapshotError
from twin.key import Key

FINEST_RANGE = 1 / 256
"""Smallest full scale / nominal, the span of a published 8-bit integrating
converter (128 uA to 0.5 uA). A column without current gets it."""


class Crossbar:
    """A 1T1R crossbar of signed weights behind the backend contract.

    Drive 'voltages' (inputs,) in [0, 1] x read voltage, rounded to the DAC.
    Setting 'weights' (inputs, outputs) in [-1, 1] x window. Reading 'currents'
    (outputs,), int32: codes of all conversions of a column added up.
    """

    def __init__(
        self, config: CrossbarConfig, key: Key, technology: Technology | None = None
    ) -> None:
        self.config, self.technology = config, technology
        encoding = Encoding.of(config)
        self.layout = layout = Layout.of(config, encoding)
        own_curve = curve(config, technology)
        self.capabilities = ports.capabilities(config, technology, layout, encoding, own_curve, key)
        self._torch_device = torch.device(config.compute_device)
        self._conversions = layout.banks * config.outputs  # of one sample
        faults = Faults(key.child("faults"), encoding, config.adc_bits)
        self.parts = Parts(
            config=config,
            encoding=encoding,
            layout=layout,
            cells=Cells(config, encoding, technology, faults, key),
            faults=faults,
            wiring=Wiring(config, layout, encoding),
            converters=Converters(key.child("converters"), layout.converters, config.outputs),
            curve=own_curve,
            scratch=Scratch(),
        )
        self._dials = {d.name: d.default for d in self.capabilities.dials if not d.shape}
        self._clock = Clock.of(config, technology)
        self._clock.set_temperature(self._dials["temperature_k"])
        self._ratio = torch.ones(config.outputs, device=self._torch_device)
        self._version = 0
        self.given_up = 0
        """Cells that the last write gave up."""
        self._folded: Columns | None = None
        self._stuck: tuple[StuckColumns | None] | None = None

    # ---- the contract ----------------------------------------------------

    def program(self, setting: Values, *, key: Key) -> Written:
        """Write every cell; restarts the relaxation of all cells."""
        parts, port = self.parts, self.capabilities.settings[0]
        weights = self._input(single(setting, port), port, SettingError)
        cost = parts.cells.write(weights, self._moment(), self._dials, key.child("program"))
        self._clock.wrote(cost.seconds)
        self._changed()
        now = self._moment()
        parts.wiring.after_write(
            parts.conductances(now, self._dials), self._dials, parts.cells.writes
        )
        self.given_up = cost.failed
        return Written(
            state_version=self._version,
            cells=cost.cells,
            device_seconds=cost.seconds,
            joules=cost.joules,
            # What verifying reads find, read noise aside.
            achieved={port.name: parts.encoding.decode(parts.cells.conductances(now, self._dials))},
        )

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        """One pass. Independent read noise for each (sample, conversion, shot).

        All samples of a shot see the array as it is when the pass starts; shots
        follow one another, so that telegraph noise is the only difference in
        the cells between them. saturated counts conversions at an end of the
        range, before converter faults.
        """
        x, read = self._drive(drive), key.child("read")
        stuck = self._stuck_columns()
        by_shot: list[list[Tensor]] = [[] for _ in range(shots or 1)]
        at_end, array_joules = 0, 0.0
        for columns, first, count in self._per_shot(len(x), shots):
            for rows in chunks(len(x), first_sample, self._conversions):
                levels = columns.driven(self.layout.phased(x[rows], self.parts.scratch))
                array_joules += columns.joules(levels) * count
                signals = columns.currents(
                    levels, read, first_sample + rows.start, count if shots else None, first
                )
                for shot, signal in enumerate(signals, first):
                    codes, ends = columns.convert_(signal)
                    at_end += ends
                    by_shot[shot].append(stuck.apply(codes, self._code_weight) if stuck else codes)
        conversions, seconds, converter_joules = self._spend(len(x) * (shots or 1))
        joined = [part[0] if len(part) == 1 else torch.cat(part) for part in by_shot]
        return Reading(
            codes=torch.stack(joined) if shots else joined[0],
            ratio=self._ratio.clone(),
            saturated=at_end / conversions,
            state_version=self._version,
            device_seconds=seconds,
            joules=array_joules + converter_joules,
            clock_s=self._clock.now_s,
        )

    def set_range(self, drive: Values, *, key: Key) -> Ranged:
        """Fit each column's full scale to its largest currents on `drive`.

        One pass with read noise, all conversions of a column together, as an
        auto-ranging converter sees them (not clipped). A column with a broken
        converter tells nothing and gets the median full scale of the others.
        """
        x, read = self._drive(drive), key.child("range")
        columns, array_joules = self._columns(self._moment()), 0.0

        def signals() -> Iterator[Tensor]:
            nonlocal array_joules
            for rows in chunks(len(x), 0, self._conversions):
                levels = columns.driven(self.layout.phased(x[rows], self.parts.scratch))
                array_joules += columns.joules(levels)
                yield next(columns.currents(levels, read, rows.start, None)).flatten(0, 1)

        largest = signed_range(signals(), len(x) * self.layout.banks)
        found = largest * self._ratio / half_span(self.config.adc_bits)
        self._ratio = self._without_broken(found.clamp(min=FINEST_RANGE))
        _, seconds, converter_joules = self._spend(len(x))
        self._changed()
        return Ranged(
            state_version=self._version,
            ratio=self._ratio.clone(),
            passes=len(x),
            device_seconds=seconds,
            joules=array_joules + converter_joules,
        )

    def adjust(self, dial: str, value: object, *, key: Key) -> int:  # noqa: ARG002
        """Turn a dial. Faults are the chip's own: the call's key changes nothing."""
        declared = self.capabilities.dial(dial)
        checked = dials.checked(declared, value, self.capabilities.device_id)
        if declared.shape:
            given = checked.to("cpu", torch.float32, copy=True)
            self.parts.faults.maps[dial] = given
            if bool((given == declared.ideal).all()):
                del self.parts.faults.maps[dial]
        else:
            turned = {**self._dials, dial: float(checked.item())}
            self._clock.set_temperature(turned["temperature_k"])
            self._dials = turned
            if dial in dials.WIRES:  # what is held is of other wires
                self.parts.wiring.held = None
        self._changed()
        return self._version

    def wait(self, seconds: float) -> None:
        """Let cells relax for `seconds`."""
        self._clock.wait(seconds, self.capabilities.device_id)

    def snapshot(self) -> Snapshot:
        """Conductances, ranges, dials, maps, clock and counts; on the CPU."""
        cells, wiring = self.parts.cells, self.parts.wiring
        arrays = {
            "programmed_siemens": cells.programmed,
            "target_siemens": cells.targets,
            "ratio": self._ratio,
            **({} if wiring.held is None else {"held_siemens": wiring.held}),
            **{f"map {name}": value for name, value in self.parts.faults.maps.items()},
        }
        return Snapshot(
            self.capabilities.device_id,
            {name: value.to("cpu", copy=True) for name, value in arrays.items()},
            {
                **self._clock.state(),
                "writes": cells.writes,
                "pulses_per_cell": cells.pulses,
                "state_version": self._version,
                "given_up": self.given_up,
                **self._dials,
            },
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Return to a state this very chip had; SnapshotError otherwise."""
        self._require_own(snapshot)
        values = snapshot.values
        own = {
            name: array.to(self._torch_device, copy=True) for name, array in snapshot.arrays.items()
        }
        self.parts.cells.restore(
            own["target_siemens"],
            own["programmed_siemens"],
            int(values["writes"]),
            float(values["pulses_per_cell"]),
        )
        self._ratio = own["ratio"]
        self.parts.wiring.held = own.get("held_siemens")
        maps = {n[len("map ") :]: a.cpu() for n, a in own.items() if n.startswith("map ")}
        self.parts.faults.maps = maps
        self._clock.restore(values)
        self._version, self.given_up = int(values["state_version"]), int(values["given_up"])
        self._dials = {name: float(values[name]) for name in self._dials}
        self._clock.set_temperature(self._dials["temperature_k"])
        self._folded = self._stuck = None

    def close(self) -> None:
        """Nothing to make safe: a simulated chip has no supply to switch off."""

    # ---- what it is made of ------------------------------------------------

    @property
    def age_s(self) -> float:
        """Seconds since the end of the last write (since it was made before one)."""
        return self._clock.age_s

    def conductances(self) -> Tensor:
        """Conductances of all cells now, siemens; for pairs (2, inputs, outputs)."""
        return self.parts.cells.conductances(self._moment(), self._dials).clone()

    def wire_error(self) -> float:
        """R.m.s. error of the matrix in force through the wires; 0 where it is exact."""
        return self.parts.wiring.error(
            self.parts.conductances(self._moment(), self._dials), self._dials
        )

    def _moment(self) -> Moment:
        return self._clock.moment()

    def _columns(self, now: Moment) -> Columns:
        """The matrices of a pass at this moment, from store if still valid."""
        held = self._folded
        # Telegraph noise moves with the device's clock, all else with its age.
        still = not self.parts.cells.traps(self._dials)
        if held is None or not held.moment.same(now, still):
            full_scale_a = self.capabilities.readings[0].full_scale * self._ratio
            held = self._folded = folded(self.parts, now, self._dials, full_scale_a)
        return held

    def _per_shot(self, batch: int, shots: int | None) -> Iterator[tuple[Columns, int, int]]:
        """Columns, first shot and shots for which they hold."""
        now = self._moment()
        if shots is None or not self.parts.cells.traps(self._dials):
            yield self._columns(now), 0, shots or 1
            return
        each = batch * self._sample_s
        for shot in range(shots):
            yield self._columns(now._replace(clock_s=now.clock_s + shot * each)), shot, 1

    @property
    def _sample_s(self) -> float:
        return self.config.read_time_s * self.layout.phases

    @property
    def _code_weight(self) -> int:
        """What one code of every converter of a column adds up to."""
        return len(self.layout.tiling.rows) * self.layout.total_weight

    def _spend(self, passes: int) -> tuple[int, float, float]:
        """Advance the clock; returns conversions made, seconds, converters' joules."""
        conversions = passes * self._conversions
        seconds = passes * self._sample_s
        self._clock.read(passes, seconds)
        per_conversion = self.config.adc_joules_per_step * 2.0**self.config.adc_bits
        return conversions, seconds, conversions * per_conversion

    def _stuck_columns(self) -> StuckColumns | None:
        """Columns with a broken converter, None if there are none."""
        if self._stuck is None:
            found = self.parts.faults.columns(self._dials).to(self._torch_device)
            self._stuck = (found if found.any else None,)
        return self._stuck[0]

    def _without_broken(self, ratio: Tensor) -> Tensor:
        stuck = self._stuck_columns()
        if stuck is None or bool(stuck.mask.all()):
            return ratio
        return torch.where(stuck.mask, ratio[~stuck.mask].median(), ratio)

    def _changed(self) -> None:
        self._version += 1
        self._folded = self._stuck = None

    def _drive(self, drive: Values) -> Tensor:
        port = self.capabilities.drives[0]
        return self._input(single(drive, port), port, DriveError, batched=True)

    def _input(
        self, values: Tensor, port: Port, error: type[Exception], batched: bool = False
    ) -> Tensor:
        lead = tuple(values.shape[:1]) if batched else ()
        if tuple(values.shape) != (*lead, *port.shape):
            raise error(
                f"{self.capabilities.device_id}: {port.name!r} has shape {tuple(values.shape)}, "
                f"expected {'batch x ' if batched else ''}{port.shape}. "
                "Transpose it, or build the crossbar with other sizes."
            )
        return values.detach().to(self._torch_device, torch.float32)

    def _require_own(self, snapshot: Snapshot) -> None:
        own = self.snapshot()
        if snapshot.device_id != own.device_id:
            raise SnapshotError(
                f"{own.device_id}: the snapshot is of {snapshot.device_id!r}. "
                "Build this crossbar with the same options and key."
            )
        maps = {f"map {d.name}": d.shape for d in self.capabilities.dials if d.shape}
        may_have = {**maps, "held_siemens": self.parts.encoding.shape}
        must_have = {n: tuple(a.shape) for n, a in own.arrays.items() if n not in may_have}
        shapes = {name: tuple(a.shape) for name, a in snapshot.arrays.items()}
        wrong = [n for n, shape in must_have.items() if shapes.get(n) != shape]
        wrong += [n for n, shape in shapes.items() if {**may_have, **must_have}.get(n) != shape]
        wrong += sorted(set(own.values) - set(snapshot.values))
        if wrong:
            names = ", ".join(dict.fromkeys(wrong))
            raise SnapshotError(
                f"{own.device_id}: the snapshot lacks, or has in another shape: {names}."
            )


def make(*, key: Key, **options: object) -> Crossbar:
    """The backend's entry point: options are `preset` and the fields of CrossbarConfig."""
    config, technology = configured(options)
    return Crossbar(config, key, technology)
