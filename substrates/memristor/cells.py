"""All cells of one chip: what was written into them and what became of it.

Conductances are tensors of the encoding's shape, for pairs (2, inputs,
outputs), in siemens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from substrates.memristor import device, wear
from substrates.memristor.config import CrossbarConfig
from substrates.memristor.encoding import Encoding
from substrates.memristor.faults import Faults
from substrates.memristor.rtn import Traps
from substrates.memristor.tails import scattered
from substrates.memristor.technology import Endurance, Rtn, Technology
from substrates.memristor.verify import write_once, write_verify
from twin.key import Key


class Moment(NamedTuple):
    """When cells are looked at. aged_s: seconds since the write, counted at the
    temperature of the law. reads: since the write. clock_s: device time."""

    aged_s: float
    reads: int
    clock_s: float

    def same(self, other: Moment, any_clock: bool) -> bool:
        """Whether cells are alike then; any_clock: whatever the device time."""
        alike = self.aged_s == other.aged_s and self.reads == other.reads
        return alike and (any_clock or self.clock_s == other.clock_s)


@dataclass(frozen=True)
class WriteCost:
    """Cells written, seconds, joules, and cells given up by write-verify."""

    cells: int
    seconds: float
    joules: float
    failed: int


class Cells:
    """The conductances of one chip; `key` is the chip's own.

    A write restarts every cell's trajectory. Its random slope belongs to the
    chip and the number of the write, so that no reading and no split of a wait
    can change it.
    """

    def __init__(
        self,
        config: CrossbarConfig,
        encoding: Encoding,
        technology: Technology | None,
        faults: Faults,
        key: Key,
    ) -> None:
        self._config, self._encoding, self._technology = config, encoding, technology
        self._faults = faults
        self._key = key
        self._device = torch.device(config.compute_device)
        # As made, every cell is reset to the bottom of the window.
        self.programmed = torch.full(encoding.shape, config.g_min_siemens, device=self._device)
        self.targets = self.programmed
        self.writes = 0
        self.pulses = 0.0
        self._slopes: Tensor | None = None
        self._traps: tuple[tuple[float, float], list[Traps]] | None = None
        self._lifetimes: Tensor | None = None

    # ---- writing -----------------------------------------------------------

    def write(
        self, weights: Tensor, now: Moment, dials: Mapping[str, float], key: Key
    ) -> WriteCost:
        """Program signed weights in [-1, 1] into cells as they are now."""
        targets = self._encoding.targets(weights)
        config, count = self._config, targets.numel()
        pulses, failed = float(config.write_pulses), 0
        if config.write_mode == "outcome":
            after = self._outcome(targets, dials, key)
            never = self._faults.never_verify()
            failed = 0 if never is None else int(never.sum())
        else:
            after, pulses, failed = self._pulsed(targets, now, dials, key)
        self.restore(targets, after, self.writes + 1, self.pulses + pulses)
        total = count * pulses
        seconds, joules = total * config.write_pulse_s, total * config.write_pulse_joules
        return WriteCost(count, seconds, joules, failed)

    def restore(self, targets: Tensor, programmed: Tensor, writes: int, pulses: float) -> None:
        """Put back conductances (as programmed, faults aside) and the counts."""
        self.targets, self.programmed = targets, programmed
        self.writes, self.pulses = writes, pulses
        self._slopes = None

    def _outcome(self, targets: Tensor, dials: Mapping[str, float], key: Key) -> Tensor:
        """What write-verify is known to leave behind, state by state."""
        technology, scale = self._technology, dials.get("programming_scale", 0.0)
        plain = dials["programming_error"] * self._config.window_siemens
        never = self._faults.never_verify()
        if plain == 0 and scale == 0 and never is None:
            return targets
        normals = self._normals(key.torch(self._device))
        after = targets
        if technology is not None and scale > 0:
            sigma = technology.sigma(targets, self._config.programming_table) * scale
            after = scattered(targets, sigma, normals, technology.tails)
            # Two independent errors add up; the second needs its own numbers.
            normals = self._normals(key.child("plain").torch(self._device)) if plain else normals
        if plain > 0:
            after = device.written_(after, normals.clone(), plain)
        if never is not None:
            coarse = device.written_(targets, normals, self._pulse_sigma(targets))
            after = torch.where(never.to(self._device), coarse, after)
        return after

    def _pulsed(
        self, targets: Tensor, now: Moment, dials: Mapping[str, float], key: Key
    ) -> tuple[Tensor, float, int]:
        """Pulse by pulse: conductances, mean pulses per cell, cells given up."""
        config, generator = self._config, key.torch()
        # Telegraph noise comes on top of whatever is written; in here, cells that
        # are left as they are would keep it for good.
        targets, start = targets.cpu(), self._at_rest(now, dials).cpu()
        stuck = self._unmovable(dials)
        sigma = self._pulse_sigma(targets)
        if config.write_mode == "one-shot":
            done = write_once(targets, start, pulse_sigma=sigma, stuck=stuck, generator=generator)
            failed = 0
        else:
            done = write_verify(
                targets,
                start,
                pulse_sigma=sigma,
                tolerance=config.verify_tolerance * config.window_siemens,
                max_pulses=config.verify_max_pulses,
                never=self._faults.never_verify(),
                stuck=stuck,
                generator=generator,
            )
            failed = int((~done.verified).sum())
        mean = done.total_pulses / targets.numel()
        return done.conductances.to(self._device), mean, failed

    def _unmovable(self, dials: Mapping[str, float]) -> Tensor | None:
        """Cells that no pulse moves, bool, on the CPU; None if there are none."""
        fixed = self._faults.stuck_cells(dials)
        stuck = None if fixed is None else fixed[0]
        if self._technology is None or self._technology.endurance is None:
            return stuck
        worn = self._worn_out(self._technology.endurance).cpu()
        return worn if stuck is None else worn | stuck

    def _pulse_sigma(self, targets: Tensor) -> Tensor:
        curve = None if self._technology is None else self._technology.pulse_sigma
        if curve is None:
            return torch.full_like(targets, self._config.pulse_error * self._config.window_siemens)
        return curve(targets)

    # ---- what became of them -------------------------------------------------

    def conductances(self, now: Moment, dials: Mapping[str, float]) -> Tensor:
        """Conductances with all that became of them, siemens; not to be changed."""
        g = self._at_rest(now, dials)
        for traps in self.traps(dials):
            g = traps.apply(g, now.clock_s)
        return g

    def _at_rest(self, now: Moment, dials: Mapping[str, float]) -> Tensor:
        """The same without telegraph noise: relaxation, wear and faults."""
        g = self._relaxed(now, dials)
        technology = self._technology
        if technology is not None and technology.disturb is not None:
            g = wear.disturbed(g, now.reads, technology.disturb)
        if technology is not None and technology.endurance is not None:
            g = self._worn(g, technology.endurance)
        fixed = self._faults.stuck_cells(dials)
        if fixed is not None:
            mask, level = (t.to(self._device) for t in fixed)
            held = level * self._config.window_siemens + self._config.g_min_siemens
            g = torch.where(mask, held, g)
        return g

    def relaxed_alike(self, now: Moment, dials: Mapping[str, float]) -> Tensor:
        """Conductances, siemens, if every cell relaxed like the average of its kind:
        the mean of the law for what was programmed, wear, faults and traps aside."""
        return self._relaxed(now, dials, torch.zeros_like(self.programmed))

    def traps(self, dials: Mapping[str, float]) -> list[Traps]:
        """Telegraph noise in force: the technology's and the dial's."""
        turned = (dials["rtn_active_fraction"], dials.get("rtn_scale", 1.0))
        if self._traps is None or self._traps[0] != turned:
            share, scale = turned
            own = None if self._technology is None else self._technology.rtn
            if own is not None:
                step = min(1.0, own.amplitude * scale)
                own = replace(own, amplitude=step) if step > 0 else None
            tables = [("rtn", own), ("more rtn", self._dial_rtn(share))]
            found = [
                Traps.drawn(self._key.child(name), self._encoding.shape, table)
                for name, table in tables
                if table is not None
            ]
            self._traps = (turned, found)
        return self._traps[1]

    def read_variance(self, g: Tensor, now: Moment, dials: Mapping[str, float]) -> Tensor | None:
        """Variance of each cell's conductance in one shot, siemens^2; None for 0."""
        level, scale = dials["read_noise"], dials.get("read_noise_scale", 0.0)
        technology, spread = self._technology, self._config.read_noise_spread
        total = None
        if level > 0:
            total = torch.square(g).mul_(level**2)
            if spread > 0:
                total.mul_(torch.exp(2 * (spread * self._levels() - spread**2)))
        if technology is not None and technology.read_noise is not None and scale > 0:
            own = technology.read_sigma(g, now.aged_s, self._levels()).mul_(scale).square_()
            total = own if total is None else total.add_(own)
        return total

    def _worn_out(self, table: Endurance) -> Tensor:
        """Cells that no write moves any more, bool; a write in any mode is one cycle."""
        if self._lifetimes is None:
            self._lifetimes = wear.lifetimes(self._key, self._encoding.shape, table).to(
                self._device
            )
        return wear.worn_out(self._lifetimes, self.writes)

    def _worn(self, g: Tensor, table: Endurance) -> Tensor:
        broken = self._worn_out(table)
        return wear.stuck(g, broken, table, self._config.g_min_siemens, self._config.g_max_siemens)

    def _relaxed(
        self, now: Moment, dials: Mapping[str, float], slopes: Tensor | None = None
    ) -> Tensor:
        g, window, technology = self.programmed, self._config.window_siemens, self._technology
        log_t = math.log(max(now.aged_s, device.T0_S) / device.T0_S)
        mean, spread = dials["relaxation_mean"], dials["relaxation_spread"]
        if log_t > 0 and (mean > 0 or spread > 0):
            own = self._own_slopes() if slopes is None else slopes
            g = device.relaxed(g, own, log_t, mean * window, spread * window)
        scale = dials.get("relaxation_scale", 0.0)
        if technology is not None and technology.relaxation is not None and scale > 0:
            own = self._own_slopes() if slopes is None else slopes
            after = technology.relaxed(g, self.targets, own, now.aged_s)
            g = after if scale == 1 else (g + (after - g) * scale).clamp_(min=0)
        return g

    def _dial_rtn(self, share: float) -> Rtn | None:
        if share == 0:
            return None
        return Rtn(
            active_fraction=share,
            amplitude=self._config.rtn_amplitude,
            amplitude_spread_ln=0.5,
            # A trap faster than a read is averaged away.
            fastest_s=max(1e-5, self._config.read_time_s),
            slowest_s=10.0,
            source="assumed",
        )

    def _own_slopes(self) -> Tensor:
        if self._slopes is None:
            self._slopes = self._chip_normals("relax", self.writes)
        return self._slopes

    def _levels(self) -> Tensor:
        return self._chip_normals("noise level")

    def _chip_normals(self, *path: str | int) -> Tensor:
        # On the CPU, so that a chip ages alike wherever it is computed.
        generator = self._key.child(*path).torch()
        return torch.randn(self._encoding.shape, generator=generator).to(self._device)

    def _normals(self, generator: torch.Generator) -> Tensor:
        return torch.randn(self._encoding.shape, generator=generator, device=self._device)
