"""All cells of one chip: what was written into them and what became of it.

Conductances are tensors of the encoding's shape, for pairs (2, inputs,
outputs), in siemens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from scipy import special
from torch import Tensor

from substrates.memristor import ages, device, wear
from substrates.memristor.ages import Elapsed, History, Limits, Moment
from substrates.memristor.config import CrossbarConfig
from substrates.memristor.counter import uniforms
from substrates.memristor.encoding import Encoding
from substrates.memristor.faults import Faults
from substrates.memristor.rtn import Traps
from substrates.memristor.seconds import Seconds, at_least, log_ratio
from substrates.memristor.technology import Endurance, Rtn, Technology
from substrates.memristor.writing import Plan, Writer
from twin.key import Key

NEAR_THE_END = 0.9
"""Share of its law's time after which a verified write pulses a cell in any case: it
could not be read much longer otherwise, however well it sits."""


class Cells:
    """The conductances of one chip; `key` is the chip's own.

    A pulse restarts a cell's trajectory. Its random slope belongs to the chip and the
    number of the write, so that no reading and no split of a wait can change it.
    targets, programmed: of each cell's last pulse, siemens. history: None where the
    last write pulsed all cells.
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
        self.writer = Writer(config, encoding, technology, faults)
        # As made, every cell is reset to the bottom of the window.
        self.programmed = torch.full(encoding.shape, config.g_min_siemens, device=self._device)
        self.targets = self.programmed
        self.history: History | None = None
        self.writes = 0
        self.pulses = 0.0
        self._slopes: Tensor | None = None
        self._traps: tuple[tuple[float, float], list[Traps]] | None = None
        self._lifetimes: Tensor | None = None

    # ---- writing -----------------------------------------------------------

    def plan(self, weights: Tensor, now: Moment, dials: Mapping[str, float], key: Key) -> Plan:
        """What writing signed weights in [-1, 1] into the cells as they are now will do."""
        return self.writer.plan(weights, self, now, dials, key)

    def commit(self, plan: Plan, elapsed: Elapsed) -> None:
        """Carry out a plan; elapsed: from the last write to the end of this one."""
        history = ages.after_write(self.history, plan.pulsed, elapsed, self.writes)
        pulses = self.pulses + plan.pulses
        self.restore(plan.targets, plan.programmed, self.writes + 1, pulses, history)

    def restore(
        self,
        targets: Tensor,
        programmed: Tensor,
        writes: int,
        pulses: float,
        history: History | None = None,
    ) -> None:
        """Put back conductances (as programmed, faults aside), counts and history."""
        self.targets, self.programmed = targets, programmed
        self.writes, self.pulses, self.history = writes, pulses, history
        self._slopes = None

    def unmovable(self, dials: Mapping[str, float]) -> Tensor | None:
        """Cells that no pulse moves, bool, on the CPU; None if there are none."""
        fixed = self._faults.stuck_cells(dials)
        stuck = None if fixed is None else fixed[0]
        if self._technology is None or self._technology.endurance is None:
            return stuck
        worn = self._worn_out(self._technology.endurance).cpu()
        return worn if stuck is None else worn | stuck

    def check_sigma(self, targets: Tensor, dials: Mapping[str, float]) -> Tensor:
        """Sigma of a verifying read of cells just pulsed, siemens."""
        variance = self._variance_at(targets, 0.0, dials)
        return torch.zeros_like(targets) if variance is None else variance.sqrt()

    def settling_normals(self) -> Tensor:
        """N(0, 1) per cell for what happens between the next write and the look of its
        technology's table at it; on the CPU."""
        return self._addressed(self.writes + 1)[1]

    def near_the_end(self, now: Moment) -> Tensor | None:
        """Cells that their law will soon say nothing of, bool, on the CPU; None without a law."""
        law = None if self._technology is None else self._technology.relaxation
        if law is None:
            return None
        old = torch.as_tensor(ages.law_age(self.history, now)) > NEAR_THE_END * law.last_s
        return old.expand(self._encoding.shape)

    def limits(self, dials: Mapping[str, float]) -> Limits:
        """How far time may go with cells as they are."""
        oldest_s = 0.0 if self.history is None else self.history.oldest_s
        return Limits(oldest_s, min((t.longest_s for t in self.traps(dials)), default=math.inf))

    # ---- what became of them -------------------------------------------------

    def conductances(self, now: Moment, dials: Mapping[str, float]) -> Tensor:
        """Conductances with all that became of them, siemens; not to be changed."""
        g = self.at_rest(now, dials)
        for traps in self.traps(dials):
            g = traps.apply(g, now.clock_s)
        return g

    def at_rest(self, now: Moment, dials: Mapping[str, float]) -> Tensor:
        """The same without telegraph noise: relaxation, wear and faults."""
        g = self._relaxed(now, dials)
        technology = self._technology
        if technology is not None and technology.disturb is not None:
            g = wear.disturbed(g, ages.reads_since(self.history, now), technology.disturb)
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
        """Variance of each cell's conductance in one shot, siemens^2; None for 0.

        1/f noise goes by the clock, whatever the temperature did to the relaxation.
        """
        return self._variance_at(g, ages.real_age(self.history, now), dials)

    def _variance_at(self, g: Tensor, age_s: Seconds, dials: Mapping[str, float]) -> Tensor | None:
        level, scale = dials["read_noise"], dials.get("read_noise_scale", 0.0)
        technology, spread = self._technology, self._config.read_noise_spread
        total = None
        if level > 0:
            total = torch.square(g).mul_(level**2)
            if spread > 0:
                total.mul_(torch.exp(2 * (spread * self._levels() - spread**2)))
        if technology is not None and technology.read_noise is not None and scale > 0:
            own = technology.read_sigma(g, age_s, self._levels()).mul_(scale).square_()
            total = own if total is None else total.add_(own)
        return total

    def _worn_out(self, table: Endurance) -> Tensor:
        """Cells that no write moves any more, bool. Every write of the chip counts as a
        cycle of every cell, an upper bound where a verified write leaves cells alone."""
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
        age_s = ages.law_age(self.history, now)
        log_t = log_ratio(at_least(age_s, device.T0_S), device.T0_S, g)
        mean, spread = dials["relaxation_mean"], dials["relaxation_spread"]
        ageing = isinstance(log_t, Tensor) or log_t > 0
        if ageing and (mean > 0 or spread > 0):
            own = self._own_slopes() if slopes is None else slopes
            g = device.relaxed(g, own, log_t, mean * window, spread * window)
        scale = dials.get("relaxation_scale", 0.0)
        if technology is not None and technology.relaxation is not None and scale > 0:
            own = self._own_slopes() if slopes is None else slopes
            # A write may start from cells older than the law.
            last_s = technology.relaxation.last_s
            age_s = age_s.clamp(max=last_s) if isinstance(age_s, Tensor) else min(age_s, last_s)
            after = technology.relaxed(g, self.targets, own, age_s)
            g = after if scale == 1 else (g + (after - g) * scale).clamp_(min=0)
        return g

    def _dial_rtn(self, share: float) -> Rtn | None:
        if share == 0:
            return None
        # A trap faster than a read is averaged away.
        fastest_s = max(1e-5, self._config.read_time_s)
        return Rtn(
            active_fraction=share,
            amplitude=self._config.rtn_amplitude,
            amplitude_spread_ln=0.5,
            fastest_s=fastest_s,
            slowest_s=max(10.0, fastest_s),
            source="assumed",
        )

    def _own_slopes(self) -> Tensor:
        if self._slopes is None:
            if self._config.write_mode == "outcome":
                # Cells that skip writes keep one slope for good: cheap, and their own.
                last = self.writes if self._config.write_unchanged else 0
                self._slopes = self._chip_normals("relax", last)
            else:
                number = self.writes if self.history is None else self.history.number.numpy()
                self._slopes = self._addressed(number)[0].to(self._device)
        return self._slopes

    def _addressed(self, number: int | np.ndarray) -> tuple[Tensor, Tensor]:
        """Two N(0, 1) of each cell for its write of this number, on the CPU: how it will
        relax, and how it settles. By address, since cells were pulsed by different writes."""
        shape = self._encoding.shape
        cells = np.arange(math.prod(shape)).reshape(shape)
        pair = uniforms(self._key.child("relax"), cells, number, 0)
        relax, settle = (torch.from_numpy(special.ndtri(u)).float() for u in pair)
        return relax, settle

    def _levels(self) -> Tensor:
        return self._chip_normals("noise level")

    def _chip_normals(self, *path: str | int) -> Tensor:
        # On the CPU, so that a chip ages alike wherever it is computed.
        generator = self._key.child(*path).torch()
        return torch.randn(self._encoding.shape, generator=generator).to(self._device)
