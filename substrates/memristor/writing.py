"""Planning a write: where the cells of a chip will be, and what that costs.

Nothing is changed here, so that a write can be refused. Conductances are tensors
of the encoding's shape, in siemens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from substrates.memristor import device
from substrates.memristor.ages import Moment
from substrates.memristor.config import CrossbarConfig
from substrates.memristor.encoding import Encoding
from substrates.memristor.faults import Faults
from substrates.memristor.tails import scattered
from substrates.memristor.technology import Technology
from substrates.memristor.verify import Verified, write_once, write_verify
from substrates.memristor.verifylaws import landed_sigma
from twin.key import Key

if TYPE_CHECKING:
    from substrates.memristor.cells import Cells

TOLERANCE = 0.02
"""Accepted distance from the target, fraction of the window, where neither the
options nor the technology say. Assumed."""


@dataclass(frozen=True)
class WriteCost:
    """Cells written, seconds, joules, and cells given up."""

    cells: int
    seconds: float
    joules: float
    failed: int


@dataclass(frozen=True)
class Plan:
    """What a write will leave: targets and conductances of each cell's last pulse.

    pulsed: cells that were pulsed, bool, on the CPU; None for all. pulses: mean per cell.
    """

    targets: Tensor
    programmed: Tensor
    pulsed: Tensor | None
    pulses: float
    cost: WriteCost


@dataclass(frozen=True)
class Writer:
    """How one chip is written."""

    config: CrossbarConfig
    encoding: Encoding
    technology: Technology | None
    faults: Faults

    def plan(
        self, weights: Tensor, cells: Cells, now: Moment, dials: Mapping[str, float], key: Key
    ) -> Plan:
        """Signed weights in [-1, 1] into cells as they are now."""
        targets = self.encoding.targets(weights)
        if self.config.write_mode != "outcome":
            return self._pulsed(targets, cells, now, dials, key)
        after = self._outcome(targets, dials, key)
        failed = self._left_behind(targets, cells, now, dials, self.faults.never_verify())
        config, changed, count = self.config, None, targets.numel()
        if not config.write_unchanged and cells.writes > 0:
            at = targets != cells.targets
            after = torch.where(at, after, cells.programmed)
            changed, count = at.cpu(), int(at.sum())
        total = count * float(config.write_pulses)
        cost = WriteCost(
            count, total * config.write_pulse_s, total * config.write_pulse_joules, failed
        )
        return Plan(targets, after, changed, total / targets.numel(), cost)

    def tolerance(self, targets: Tensor) -> Tensor:
        """Accepted distance from each target, siemens: the options' or the technology's."""
        given, window = self.config.verify_tolerance, self.config.window_siemens
        if given is None and self.technology is not None:
            relative = self.technology.table(self.config.programming_table).accept_relative
            if relative is not None:
                return targets * relative
        return torch.full_like(targets, (TOLERANCE if given is None else given) * window)

    def pulse_sigma(self, targets: Tensor, dials: Mapping[str, float]) -> Tensor:
        """Sigma of where a pulse lands, siemens."""
        curve = None if self.technology is None else self.technology.pulse_sigma
        scale = dials.get("programming_scale", 1.0)
        if curve is not None:
            return curve(targets) * scale
        return torch.full_like(
            targets, self.config.pulse_error * self.config.window_siemens * scale
        )

    # ---- outcome -----------------------------------------------------------------

    def _outcome(self, targets: Tensor, dials: Mapping[str, float], key: Key) -> Tensor:
        """What write-verify is known to leave behind, state by state."""
        technology, scale = self.technology, dials.get("programming_scale", 0.0)
        plain = dials["programming_error"] * self.config.window_siemens
        never = self.faults.never_verify()
        if plain == 0 and scale == 0 and never is None:
            return targets
        normals = _normals(targets, key)
        after = targets
        if technology is not None and scale > 0:
            sigma = technology.sigma(targets, self.config.programming_table) * scale
            after = scattered(targets, sigma, normals, technology.tails)
            # Two independent errors add up; the second needs its own numbers.
            normals = _normals(targets, key.child("plain")) if plain else normals
        if plain > 0:
            after = device.written_(after, normals.clone(), plain)
        if never is not None:
            coarse = device.written_(targets, normals, self.pulse_sigma(targets, dials))
            after = torch.where(never.to(targets.device), coarse, after)
        return after

    def _left_behind(
        self,
        targets: Tensor,
        cells: Cells,
        now: Moment,
        dials: Mapping[str, float],
        never: Tensor | None,
    ) -> int:
        """Cells that no check accepts, and those stuck out of tolerance of their target."""
        fixed = cells.unmovable(dials)
        if fixed is not None:
            off = (cells.at_rest(now, dials) - targets).abs() > self.tolerance(targets)
            fixed = fixed & off.cpu()
            never = fixed if never is None else never | fixed
        return 0 if never is None else int(never.sum())

    # ---- pulse by pulse ------------------------------------------------------------

    def _pulsed(
        self, targets: Tensor, cells: Cells, now: Moment, dials: Mapping[str, float], key: Key
    ) -> Plan:
        config, where = self.config, targets.device
        # Telegraph noise comes on top of whatever is written; in here, cells that
        # are left as they are would keep it for good.
        wanted, start = targets.cpu(), cells.at_rest(now, dials).cpu()
        stuck = cells.unmovable(dials)
        plain = dials["programming_error"] * config.window_siemens
        sigma = self.pulse_sigma(wanted, dials).square().add_(plain**2).sqrt_()
        if config.write_mode == "one-shot":
            done = write_once(wanted, start, pulse_sigma=sigma, stuck=stuck, generator=key.torch())
            landed, failed = sigma, self._left_behind(targets, cells, now, dials, None)
        else:
            noise, tolerance = cells.check_sigma(targets, dials).cpu(), self.tolerance(wanted)
            done = write_verify(
                wanted,
                start,
                pulse_sigma=sigma,
                tolerance=tolerance,
                max_pulses=config.verify_max_pulses,
                read_sigma=noise,
                never=self.faults.never_verify(),
                stuck=stuck,
                renew=cells.near_the_end(now),
                generator=key.torch(),
            )
            landed = torch.where(done.verified, landed_sigma(sigma, tolerance, noise), sigma)
            failed = int((~done.verified).sum())
        after = self._settled(wanted, done, landed, cells, dials)
        if stuck is not None:
            after = torch.where(stuck, done.conductances, after)
        pulsed = done.pulses > 0
        at = pulsed.to(where)
        return Plan(
            targets=torch.where(at, targets, cells.targets),
            programmed=torch.where(at, after.to(where), cells.programmed),
            pulsed=pulsed,
            pulses=done.total_pulses / targets.numel(),
            cost=self._cost(done, start, failed),
        )

    def _settled(
        self,
        targets: Tensor,
        done: Verified,
        landed: Tensor,
        cells: Cells,
        dials: Mapping[str, float],
    ) -> Tensor:
        """Cells as the technology's table finds them, which looks some time after the
        last pulse: what it sees beyond the spread they landed with came in between."""
        technology = self.technology
        if technology is None:
            return done.conductances
        table = technology.table(self.config.programming_table)
        if table.after_s == 0:
            return done.conductances
        sigma = table.sigma(targets) * dials.get("programming_scale", 1.0)
        more = (sigma.square() - landed.square()).clamp_(min=0).sqrt_()
        return scattered(done.conductances, more, cells.settling_normals(), technology.tails)

    def _cost(self, done: Verified, start: Tensor, failed: int) -> WriteCost:
        """A pulse's figures include its check; the first check of each cell is a read."""
        config = self.config
        first_joules = 0.0
        if done.checked:
            per_siemens = config.read_voltage_v**2 * config.read_time_s
            first_joules = float(start.sum(dtype=torch.float64)) * per_siemens / start.numel()
        cost = done.cost(
            pulse_s=config.write_pulse_s,
            pulse_joules=config.write_pulse_joules,
            first_check_s=config.read_time_s,
            first_check_joules=first_joules,
        )
        return WriteCost(start.numel(), cost.seconds, cost.joules, failed)


def _normals(like: Tensor, key: Key) -> Tensor:
    return torch.randn(like.shape, generator=key.torch(like.device), device=like.device)
