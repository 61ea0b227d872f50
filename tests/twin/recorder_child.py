"""Records passes without end, telling each that was answered, until it is killed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from tests.planted import Healthy
from tests.twin.tapes import drive
from twin.key import Key
from twin.wrap import Recorded


def record(folder: Path) -> None:
    torch.set_num_threads(1)
    device = Recorded(Healthy(Key(3)), to=folder)
    number = 0
    while True:
        device.forward(drive(8, seed=number), key=Key(number))
        number += 1
        os.write(1, f"{number}\n".encode())


if __name__ == "__main__":
    record(Path(sys.argv[1]))
