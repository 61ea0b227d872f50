"""The memristor backend: volts in, codes of a signed current out.

Thin: the state of a chip, its clock and its costs. The physics is in the
neighbouring modules, as functions of SI quantities.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from substrates.converter import half_span, on_grid, signed_codes_, signed_range
from substrates.memristor import device, dials, ports
from substrates.memristor.array import Scratch, Tiling
from substrates.memristor.cells import Cells
from substrates.memristor.columns import Columns, chunks
from substrates.memristor.faults import Faults, StuckColumns
from substrates.memristor.presets import CrossbarConfig
from twin.backend import Port, Ranged, Reading, Snapshot, Values, Written, single
from twin.config import build
from twin.errors import DialError, DriveError, SettingError, SnapshotError
from twin.key import Key

FINEST_RANGE = 1 / 256
"""Smallest full scale / nominal, the span of a published 8-bit integrating
converter (128 uA to 0.5 uA). A column without current gets it."""


class Crossbar:
    """A 1T1R crossbar of differential pairs behind the backend contract.

    Drive 'voltages' (inputs,) in [0, 1] x read voltage, rounded to the DAC.
    Setting 'weights' (inputs, outputs) in [-1, 1] x window. Reading 'currents'
    (outputs,), int32: codes of the row tiles' converters added up.
    Valid for small read voltages (linear cells) and ideal wires.
    """

    def __init__(self, config: CrossbarConfig, key: Key) -> None:
        self.config = config
        self.tiling = Tiling.of(config.inputs, config.outputs, config.array_rows, config.array_cols)
        self.capabilities = ports.capabilities(config, self.tiling, key)
        self._torch_device = torch.device(config.compute_device)
        self._conversions = len(self.tiling.rows) * config.outputs  # of one sample
        self._faults = Faults(key.child("faults"), config.inputs, config.outputs, config.adc_bits)
        self._cells = Cells(config, self._faults, key)
        self._dials = {d.name: d.default for d in self.capabilities.dials if not d.shape}
        self._given_codes = torch.full((config.outputs,), float(self._faults.healthy_code))
        self._ratio = torch.ones(config.outputs, device=self._torch_device)
        self._clock_s = self._written_at_s = 0.0
        self._version = 0
        self._folded: Columns | None = None
        self._scratch = Scratch()
        self._stuck: StuckColumns | None = None

    # ---- the contract ----------------------------------------------------

    def program(self, setting: Values, *, key: Key) -> Written:
        """Write every cell by write-verify; restarts the relaxation of all cells."""
        config, port = self.config, self.capabilities.settings[0]
        weights = self._input(single(setting, port), port, SettingError)
        self._cells.write(weights, self._dials["programming_error"], key.child("program"))
        cells = 2 * weights.numel()
        seconds = cells * config.write_pulses * config.write_pulse_s
        self._clock_s += seconds
        self._written_at_s = self._clock_s
        self._changed()
        g = self._cells.conductances(0.0, self._dials)
        return Written(
            state_version=self._version,
            cells=cells,
            device_seconds=seconds,
            joules=cells * config.write_pulses * config.write_pulse_joules,
            # What verifying reads find, read noise aside.
            achieved={port.name: (g[0] - g[1]).div_(config.window_siemens)},
        )

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        """One pass. Independent read noise for each (sample, tile, column, shot).

        All samples see the array as it is when the pass starts. saturated
        counts conversions at an end of the range, before converter faults.
        """
        x, read = self._drive(drive), key.child("read")
        columns, stuck = self._columns(), self._stuck_columns()
        codes, at_end, array_joules = [], 0, 0.0
        for rows in chunks(len(x), first_sample, self._conversions):
            levels = on_grid(x[rows], self.config.dac_bits)
            array_joules += columns.joules(levels) * (shots or 1)
            each = []
            for lsb in columns.currents(levels, read, first_sample + rows.start, shots):
                at_end += signed_codes_(lsb, self.config.adc_bits)
                summed = lsb.sum(1).to(torch.int32)
                each.append(stuck.apply(summed, len(self.tiling.rows)) if stuck else summed)
            codes.append(torch.stack(each) if shots else each[0])
        conversions, seconds, converter_joules = self._spend(len(x) * (shots or 1))
        return Reading(
            codes=codes[0] if len(codes) == 1 else torch.cat(codes, dim=-2),
            ratio=self._ratio.clone(),
            saturated=at_end / conversions,
            state_version=self._version,
            device_seconds=seconds,
            joules=array_joules + converter_joules,
            clock_s=self._clock_s,
        )

    def set_range(self, drive: Values, *, key: Key) -> Ranged:
        """Fit each column's full scale to its largest currents on `drive`.

        One pass with read noise, all row tiles of a column together, as an
        auto-ranging converter sees them (not clipped). A column with a broken
        converter tells nothing and gets the median full scale of the others.
        """
        x, read = self._drive(drive), key.child("range")
        columns, array_joules = self._columns(), 0.0

        def signals() -> Iterator[Tensor]:
            nonlocal array_joules
            for rows in chunks(len(x), 0, self._conversions):
                levels = on_grid(x[rows], self.config.dac_bits)
                array_joules += columns.joules(levels)
                yield next(columns.currents(levels, read, rows.start, None)).flatten(0, 1)

        largest = signed_range(signals(), len(x) * len(self.tiling.rows))
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
        checked = dials.checked(self.capabilities.dial(dial), value, self.capabilities.device_id)
        if dial == dials.COLUMN_MAP:
            self._given_codes = checked.to("cpu", torch.float32, copy=True)
        else:
            self._dials[dial] = float(checked.item())
        self._stuck = None
        self._changed()
        return self._version

    def wait(self, seconds: float) -> None:
        """Let cells relax for `seconds`."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise DialError(
                f"{self.capabilities.device_id}: a wait must be finite and >= 0 s, got {seconds}."
            )
        self._clock_s += seconds

    def snapshot(self) -> Snapshot:
        """Conductances, ranges, dials, clock and write number; on the CPU."""
        arrays = {
            "programmed_siemens": self._cells.programmed,
            "ratio": self._ratio,
            "stuck_column_code": self._given_codes,
        }
        return Snapshot(
            self.capabilities.device_id,
            {name: value.to("cpu", copy=True) for name, value in arrays.items()},
            {
                "clock_s": self._clock_s,
                "written_at_s": self._written_at_s,
                "writes": self._cells.writes,
                "state_version": self._version,
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
        self._cells.restore(own["programmed_siemens"], int(values["writes"]))
        self._ratio = own["ratio"]
        self._given_codes = own["stuck_column_code"].cpu()
        self._clock_s = float(values["clock_s"])
        self._written_at_s = float(values["written_at_s"])
        self._version = int(values["state_version"])
        self._dials = {name: float(values[name]) for name in self._dials}
        self._folded = self._stuck = None

    def close(self) -> None:
        """Nothing to make safe: a simulated chip has no supply to switch off."""

    # ---- what it is made of ------------------------------------------------

    @property
    def age_s(self) -> float:
        """Seconds since the end of the last write (since it was made before one)."""
        return self._clock_s - self._written_at_s

    def conductances(self) -> Tensor:
        """Conductances now, (2, inputs, outputs) for G+ and G-, siemens."""
        return self._cells.conductances(device.log_age(self.age_s), self._dials).clone()

    def _columns(self) -> Columns:
        """The matrices of a pass at the present age, from store if still valid."""
        log_t = device.log_age(self.age_s)
        if self._folded is None or self._folded.log_age != log_t:
            g = self._cells.conductances(log_t, self._dials)
            full_scale_a = self.capabilities.readings[0].full_scale * self._ratio
            noise = self._dials["read_noise"]
            self._folded = Columns.of(
                g, full_scale_a, noise, log_t, self.tiling, self._scratch, self.config
            )
        return self._folded

    def _spend(self, passes: int) -> tuple[int, float, float]:
        """Advance the clock; returns conversions made, seconds, converters' joules."""
        conversions = passes * self._conversions
        seconds = passes * self.config.read_time_s
        self._clock_s += seconds
        per_conversion = self.config.adc_joules_per_step * 2.0**self.config.adc_bits
        return conversions, seconds, conversions * per_conversion

    def _stuck_columns(self) -> StuckColumns | None:
        """Columns with a broken converter, None if there are none."""
        if self._stuck is None:
            stuck, dead = (self._dials[f"{kind}_column_fraction"] for kind in ("stuck", "dead"))
            found = self._faults.columns(stuck, dead, self._given_codes)
            self._stuck = found.to(self._torch_device)
        return self._stuck if self._stuck.any else None

    def _without_broken(self, ratio: Tensor) -> Tensor:
        stuck = self._stuck_columns()
        if stuck is None or bool(stuck.mask.all()):
            return ratio
        return torch.where(stuck.mask, ratio[~stuck.mask].median(), ratio)

    def _changed(self) -> None:
        self._version += 1
        self._folded = None

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
        shapes = {name: a.shape for name, a in snapshot.arrays.items()}
        wrong = [name for name, a in own.arrays.items() if shapes.get(name) != a.shape]
        wrong += sorted(set(own.values) - set(snapshot.values))
        if wrong:
            raise SnapshotError(
                f"{own.device_id}: the snapshot lacks, or has in another shape: {', '.join(wrong)}."
            )


def make(*, key: Key, **options: object) -> Crossbar:
    """The backend's entry point: options are the fields of CrossbarConfig."""
    return Crossbar(build(CrossbarConfig, options, "memristor"), key)
