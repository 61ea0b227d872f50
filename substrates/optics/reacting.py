"""Light taken through a multislice medium sample by sample: for one that reacts to it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from substrates.optics.screens import MultisliceTable
from substrates.optics.slices import FIELDS_AT_ONCE, Ends, Slices
from twin.errors import ConfigError
from twin.key import Key


class ReactingMedium:
    """A multislice medium walked through by each sample: for one that reacts.

    In each slice the phase grows by kerr_rad |field|^2 (mean |field|^2 = 1), a
    Kerr medium's law. Needs normalisation = "energy": the scale of a field
    has a meaning here. steady: see Ends. Costs slices + 1 propagations per sample.
    """

    static = True

    def __init__(
        self,
        table: MultisliceTable,
        channels: int,
        pixels: int,
        key: Key,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.complex64,
        screens_rad: Tensor | None = None,
        steady: bool = False,
    ) -> None:
        require_energy(table, "ReactingMedium")
        self._slices = Slices(table, key, dtype, device, screens_rad)
        self._ends = Ends(table, channels, pixels, device, steady)
        self._dtype = dtype

    def transmit(self, light: Tensor, clock_s: float, frame_s: float) -> Tensor:  # noqa: ARG002
        return in_parts(light, self._few)

    def _few(self, light: Tensor) -> Tensor:
        field = self._slices.through(self._ends.shown(light.to(self._dtype)))
        return self._ends.seen(field)


def in_parts(light: Tensor, few: Callable[[Tensor], Tensor]) -> Tensor:
    """`few` on FIELDS_AT_ONCE rows of `light` at a time, rows in order.

    Equal rows at the end, as a rig fills up a block with, are walked once.
    """
    differs = (light != light[-1]).any(1).nonzero()
    needed = int(differs[-1]) + 2 if len(differs) else 1
    out = torch.cat([few(part) for part in light[:needed].split(FIELDS_AT_ONCE)])
    return torch.cat([out, out[-1:].expand(len(light) - needed, -1)])


def require_energy(table: MultisliceTable, who: str) -> None:
    """ConfigError unless the table's fields have the energy-true scale."""
    if table.normalisation != "energy":
        raise ConfigError(
            f"medium: {who} needs normalisation = 'energy', got {table.normalisation!r}: without "
            "a matrix there is no mean |t|^2 to scale by. Set normalisation = 'energy'."
        )
