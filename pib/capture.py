"""What is measured of the whole training set, and what of it is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from pib.network import Network
from pib.rule import rectified
from pib.unit import Record
from twin.key import Key

Recapture = Literal["never", "epoch", "batch"]
CHUNK = 2048


class Captures:
    """Stored physics for the unit `index` of a network in training.

    images: (n, pixels). before: (n, width) measured features of the unit
    before it, None for the first. readings: (n, reading) of a unit with fixed
    physics, once captured. epoch: of the present store, -1 before the first.
    """

    def __init__(self, network: Network, index: int, images: Tensor, before: Tensor | None) -> None:
        self._network, self._index, self._images = network, index, images
        self.before = before
        self.readings: Tensor | None = None
        self.epoch = -1

    def drive(self, rows: Tensor | slice) -> Tensor:
        """The unit's drive for some training images, from stored features."""
        before = None if self.before is None else self.before[rows]
        return self._network.drive(self._index, self._images[rows], before)

    def refresh(self, recapture: Recapture, epoch: int, key: Key) -> None:
        """Make the store that of `epoch` (of the first one for "never"). epoch: or any
        other count of stores."""
        epoch = epoch if recapture == "epoch" else 0
        if self.epoch == epoch:
            return
        here = key.child("store", epoch)
        if epoch > 0 and self._index > 0:
            self.before = self._network.features(
                self._images, key=here.child("before"), until=self._index, phase="capture"
            )[-1]
        if self._network.units[self._index].fixed_physics:
            self.readings = torch.cat([r.values for r in self._captured(here)])
        self.epoch = epoch

    def record(self, rows: Tensor, key: Key) -> Record:
        """A batch from the store, or measured anew if the physics learns."""
        drive = self.drive(rows)
        if self.readings is not None:
            return Record(drive=drive, values=self.readings[rows])
        return self._network.units[self._index].capture(drive, key=key)

    def features(self, key: Key) -> Tensor:
        """The unit's features of all training images, (n, width)."""
        unit = self._network.units[self._index]
        if self.readings is None:
            records: Iterator[Record] = self._captured(key)
        else:
            records = (Record(drive=part, values=part) for part in self.readings.split(CHUNK))
        return torch.cat([rectified(unit.pre_activation(record)) for record in records])

    def _captured(self, key: Key) -> Iterator[Record]:
        unit = self._network.units[self._index]
        for start in range(0, len(self._images), CHUNK):
            rows = slice(start, start + CHUNK)
            yield unit.capture(self.drive(rows), key=key, first_sample=start, phase="capture")


def with_dropout(record: Record, mean: Tensor, probability: float, key: Key) -> Record:
    """Dropout on the readings a digital layer learns from.

    Dropped pixels show their mean (pixels,), the rest is stretched, so that
    the expected pre-activation stays.
    """
    keep = 1 - probability
    kept = torch.rand(record.values.shape, generator=key.torch()) < keep
    values = mean + (record.values - mean) * kept / keep
    return Record(drive=record.drive, values=values, saturated=record.saturated)
