"""The memristor backend: volts in, codes of a signed current out.

Thin: the state of a chip, its clock and its costs. The physics is in the
neighbouring modules, as functions of SI quantities.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from substrates.converter import half_span
from substrates.memristor import dials, ports, ranging, state
from substrates.memristor.ages import Moment
from substrates.memristor.clock import Clock
from substrates.memristor.columns import Columns, chunks
from substrates.memristor.config import CrossbarConfig
from substrates.memristor.faults import StuckColumns
from substrates.memristor.fold import Parts, folded
from substrates.memristor.presets import configured
from substrates.memristor.ranging import FINEST_RANGE
from substrates.memristor.technology import Technology
from twin.backend import Ranged, Reading, Snapshot, Values, Written, single
from twin.errors import DriveError, SettingError
from twin.key import Key

__all__ = ["FINEST_RANGE", "Crossbar", "make"]


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
        self.parts = parts = Parts.of(config, technology, key)
        self.layout = parts.layout
        self.capabilities = ports.capabilities(
            config, technology, parts.layout, parts.encoding, parts.curve, key
        )
        self._torch_device = torch.device(config.compute_device)
        self._conversions = parts.layout.banks * config.outputs  # of one sample
        self._dials = {d.name: d.default for d in self.capabilities.dials if not d.shape}
        self._clock = Clock.of(config, technology)
        self._clock.set_temperature(self._dials["temperature_k"])
        self._ratio = torch.ones(config.outputs, device=self._torch_device)
        self._version = 0
        self.given_up = 0
        """Cells that the last write gave up, or that cannot move to their target."""
        self._folded: Columns | None = None
        self._stuck: tuple[StuckColumns | None] | None = None

    # ---- the contract ----------------------------------------------------

    def program(self, setting: Values, *, key: Key) -> Written:
        """Write the setting; restarts the relaxation of the cells that are pulsed."""
        parts, port = self.parts, self.capabilities.settings[0]
        where = self.capabilities.device_id
        given = ports.checked(single(setting, port), port, SettingError, where)
        weights = given.detach().to(self._torch_device, torch.float32)
        plan = parts.cells.plan(weights, self._moment(), self._dials, key.child("program"))
        cost, limits = plan.cost, parts.cells.limits(self._dials)
        # Nothing has happened so far: from here on nothing is refused.
        self._clock.require_traps(cost.seconds, limits, where)
        parts.cells.commit(plan, self._clock.elapsed(cost.seconds))
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
            # What noiseless reads would find right after the write, telegraph noise
            # included; without the first seconds, which a law counts from later on.
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
        self._require(len(x) * (shots or 1))
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
        """Fit each column's full scale to its largest currents on `drive`, by one pass."""
        x = self._drive(drive)
        self._require(len(x))
        columns, stuck = self._columns(self._moment()), self._stuck_columns()
        largest, array_joules = ranging.largest(self.parts, columns, x, key.child("range"))
        ratio = largest * self._ratio / half_span(self.config.adc_bits)
        self._ratio = ranging.without_broken(ratio, stuck)
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
            # A trap may be too fast for the time this chip has lived.
            limits = self.parts.cells.limits(turned)
            self._clock.require_traps(0.0, limits, self.capabilities.device_id)
            self._clock.set_temperature(turned["temperature_k"])
            self._dials = turned
        self.parts.wiring.after_turn(dial)
        self._changed()
        return self._version

    def wait(self, seconds: float) -> None:
        """Let cells relax for `seconds`."""
        wiring, limits = self.parts.wiring, self.parts.cells.limits(self._dials)
        self._clock.wait(seconds, limits, self.capabilities.device_id)
        if wiring.held is not None:
            wiring.after_time(self.parts.conductances(self._moment(), self._dials))
            self._folded = None if wiring.held is None else self._folded

    def snapshot(self) -> Snapshot:
        """Conductances, ranges, dials, maps, clock and counts; on the CPU."""
        cells = self.parts.cells
        return Snapshot(
            self.capabilities.device_id,
            state.taken(self.parts, self._ratio),
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
        maps = {d.name: d.shape for d in self.capabilities.dials if d.shape}
        state.require_own(snapshot, self.snapshot(), self.parts, maps)
        values = snapshot.values
        own = {n: a.to(self._torch_device, copy=True) for n, a in snapshot.arrays.items()}
        state.put_back(self.parts, own, values)
        self._ratio = own["ratio"]
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

    def clipped_fraction(self) -> float:
        """Share of the cells at exactly 0 S: low states whose spread would take them below."""
        return float((self.conductances() == 0).double().mean())

    def remaining_s(self) -> float:
        """Seconds for which the chip may still be read or left, at this temperature."""
        return self._clock.remaining_s(self.parts.cells.limits(self._dials))

    def _moment(self) -> Moment:
        return self._clock.moment(self.parts.cells.history is not None)

    def _require(self, passes: int) -> None:
        """Refuse passes that would lead beyond what is known of the cells."""
        limits = self.parts.cells.limits(self._dials)
        self._clock.require(passes * self._sample_s, limits, self.capabilities.device_id)

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

    def _changed(self) -> None:
        self._version += 1
        self._folded = self._stuck = None

    def _drive(self, drive: Values) -> Tensor:
        port = self.capabilities.drives[0]
        where = self.capabilities.device_id
        values = ports.checked(single(drive, port), port, DriveError, where, batched=True)
        return values.detach().to(self._torch_device, torch.float32)


def make(*, key: Key, **options: object) -> Crossbar:
    """The backend's entry point: options are `preset` and the fields of CrossbarConfig."""
    config, technology = configured(options)
    return Crossbar(config, key, technology)
