"""The driver of my rig: 64 lamps in, 128 photodiodes out."""

import time

import torch
from vendor_sdk import Bench

from twin.backend import Capabilities, Port, Reading, single
from twin.errors import ConfigError, Unsupported

LAMPS = Port(name="lamps", shape=(64,), levels=256, full_scale=0.02, unit="W")
DIODES = Port(name="diodes", shape=(128,), levels=4096, dtype="int32", full_scale=3.3, unit="V")
FRAME_S = 1e-3


class MyRig:
    def __init__(self, serial):
        self._bench, self._begun = Bench(serial), time.monotonic()
        self.capabilities = Capabilities(
            device_id=f"my-rig-{serial}", drives=(LAMPS,), readings=(DIODES,), max_batch=1024
        )

    def forward(self, drive, *, key, first_sample=0, shots=None):
        patterns = (single(drive, LAMPS) * 255).round().to(torch.uint8)
        frames = torch.stack([self._frames(patterns) for _ in range(shots or 1)])
        return Reading(
            codes=frames[0] if shots is None else frames,
            saturated=float((frames == DIODES.code_high).double().mean()),
            device_seconds=FRAME_S * frames.shape[0] * frames.shape[1],
            clock_s=time.monotonic() - self._begun,
        )

    def _frames(self, patterns):
        return torch.stack([self._frame(pattern.numpy()) for pattern in patterns])

    def _frame(self, pattern):
        self._bench.show(pattern)
        return torch.from_numpy(self._bench.grab().astype("int32"))

    def program(self, setting, *, key):
        raise Unsupported("my-rig: the diffuser is what it is; there is nothing to program.")

    def close(self):
        self._bench.laser_off()


def make(*, key, serial=1, inputs=64):
    if inputs != 64:
        raise ConfigError(f"my-rig has 64 lamps, the network wants {inputs}. Use other images.")
    return MyRig(serial)
