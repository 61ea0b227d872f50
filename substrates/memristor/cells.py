"""All cells of one chip: what was written into them and what became of it.

Conductances are (2, inputs, outputs) tensors in siemens, G+ then G-.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from substrates.memristor import device
from substrates.memristor.faults import Faults
from substrates.memristor.presets import CrossbarConfig
from twin.key import Key


class Cells:
    """The conductances of one chip; `key` is the chip's own.

    A write restarts every cell's trajectory. Its random slope belongs to the
    chip and the number of the write, so that no reading and no split of a wait
    can change it.
    """

    def __init__(self, config: CrossbarConfig, faults: Faults, key: Key) -> None:
        self._config = config
        self._faults = faults
        self._key = key
        self._device = torch.device(config.compute_device)
        # As made, every cell is reset to the bottom of the window.
        shape = (2, config.inputs, config.outputs)
        self.programmed = torch.full(shape, config.g_min_siemens, device=self._device)
        self.writes = 0
        self._slopes: Tensor | None = None

    def write(self, weights: Tensor, error: float, key: Key) -> None:
        """Program signed weights in [-1, 1] with this error (fraction of the window)."""
        config = self._config
        targets = device.pair_targets(weights, config.g_min_siemens, config.g_max_siemens)
        if error > 0:
            generator = key.torch(self._device)
            normals = torch.randn(targets.shape, generator=generator, device=self._device)
            targets = device.written_(targets, normals, error * config.window_siemens)
        self.restore(targets, self.writes + 1)

    def restore(self, programmed: Tensor, writes: int) -> None:
        """Put back conductances (as programmed, faults aside) and write number."""
        self.programmed, self.writes = programmed, writes
        self._slopes = None

    def conductances(self, log_t: float, dials: Mapping[str, float]) -> Tensor:
        """Conductances at ln(age / t0) = log_t with faults, siemens; not to be changed."""
        g, window = self.programmed, self._config.window_siemens
        mean, spread = dials["relaxation_mean"], dials["relaxation_spread"]
        if log_t > 0 and (mean > 0 or spread > 0):
            g = device.relaxed(g, self._own_slopes(), log_t, mean * window, spread * window)
        if dials["stuck_cell_fraction"] > 0:
            drawn = self._faults.cells(dials["stuck_cell_fraction"])
            mask, level = (t.to(self._device) for t in drawn)
            g = torch.where(mask, level * window + self._config.g_min_siemens, g)
        return g

    def _own_slopes(self) -> Tensor:
        if self._slopes is None:
            # On the CPU, so that a chip ages alike wherever it is computed.
            generator = self._key.child("relax", self.writes).torch()
            self._slopes = torch.randn(self.programmed.shape, generator=generator).to(self._device)
        return self._slopes
