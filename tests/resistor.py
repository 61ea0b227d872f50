"""A resistor network of two nodes: a settling backend behind the same contract.

What a settling kind of device needs fits into named ports and dials: a second
drive port (a nudge force), a second reading port (supply current) and a dial
"continue from the last equilibrium". Nothing here is a new contract.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from twin.backend import Capabilities, Dial, Port, Reading, Snapshot, Values, Written, single
from twin.errors import DriveError, SnapshotError
from twin.key import Key

SWEEP_S = 1e-9
TOLERANCE_V = 1e-7
MAX_SWEEPS = 2000
UNIT_SIEMENS = 1e-3


class Resistor:
    """Source - g0 - a - g1 - b - g2 - ground, settled by relaxation.

    Drives: 'source' (1,) in [0, 1] V and 'nudge' (2,), currents into a and b in
    [-0.1, 0.1] mA. Setting 'conductances' (3,) in [0.1, 1] mS. Readings: 'nodes'
    (2,) in 4096 codes over [-1.5, 2.5] V, 'supply' (1,) the source current, mA.
    Node voltages follow from Kirchhoff's current law at a and b.
    """

    def __init__(self) -> None:
        self._g = torch.full((3,), 0.5, dtype=torch.float64)
        self._equilibrium = torch.zeros(0, 2, dtype=torch.float64)
        self._continue = 0.0
        self._clock_s = 0.0
        self._version = 0
        self.capabilities = Capabilities(
            device_id="two-node-resistor",
            drives=(
                Port(name="source", shape=(1,), unit="V"),
                Port(name="nudge", shape=(2,), low=-0.1, high=0.1, full_scale=1e-3, unit="A"),
            ),
            settings=(Port(name="conductances", shape=(3,), low=0.1, full_scale=1e-3, unit="S"),),
            readings=(
                Port(
                    name="nodes",
                    shape=(2,),
                    low=-1.5,
                    high=2.5,
                    levels=4097,
                    dtype="int32",
                    unit="V",
                ),
                Port(name="supply", shape=(1,), low=-3.0, high=3.0, full_scale=1e-3, unit="A"),
            ),
            dials=(
                Dial(
                    name="continue",
                    unit="1",
                    low=0,
                    high=1,
                    ideal=1,
                    default=0,
                    severe=0,
                    about="begin at the equilibrium of the pass before, sample by sample",
                ),
            ),
            deterministic=True,
            seedable=True,
            restorable=True,
            read_disturb=True,  # the equilibrium reached is state
            clock="virtual",
        )

    def program(self, setting: Values, *, key: Key) -> Written:
        self._g = single(setting, self.capabilities.settings[0]).to(torch.float64, copy=True)
        self._version += 1
        achieved = {"conductances": self._g.float()}
        return Written(state_version=self._version, cells=3, achieved=achieved)

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        if isinstance(drive, Tensor):
            raise DriveError("resistor: name the drive ports, source and nudge.")
        source, force = drive["source"].double(), drive["nudge"].double()
        nodes, sweeps = self._settled(source, force)
        self._equilibrium = nodes.clone()
        seconds = SWEEP_S * sweeps * (shots or 1)
        self._clock_s += seconds
        port = self.capabilities.readings[0]
        codes = (nodes / port.step).round().clamp(port.code_low, port.code_high).to(torch.int32)
        supply = (self._g[0] * (source - nodes[:, :1])).float()
        return Reading(
            codes=_repeated(codes, shots),
            state_version=self._version,
            device_seconds=seconds,
            joules=float((supply * source).sum()) * UNIT_SIEMENS * seconds,
            clock_s=self._clock_s,
            extra={"supply": _repeated(supply, shots)},
        )

    def _settled(self, source: Tensor, force: Tensor) -> tuple[Tensor, int]:
        """Node voltages after Gauss-Seidel sweeps, and how many it took."""
        g0, g1, g2 = self._g
        goes_on = self._continue > 0.5 and len(self._equilibrium) == len(source)
        nodes = self._equilibrium.clone() if goes_on else torch.zeros_like(force)
        for sweep in range(1, MAX_SWEEPS + 1):
            before = nodes.clone()
            nodes[:, 0] = (g0 * source[:, 0] + g1 * nodes[:, 1] + force[:, 0]) / (g0 + g1)
            nodes[:, 1] = (g1 * nodes[:, 0] + force[:, 1]) / (g1 + g2)
            if float((nodes - before).abs().max()) < TOLERANCE_V:
                return nodes, sweep
        raise AssertionError("a passive network settles")

    def adjust(self, dial: str, value: Any, *, key: Key) -> int:
        self.capabilities.dial(dial)
        self._continue = float(value)
        self._version += 1
        return self._version

    def wait(self, seconds: float) -> None:
        self._clock_s += seconds

    def snapshot(self) -> Snapshot:
        return Snapshot(
            self.capabilities.device_id,
            {"conductances": self._g.clone(), "equilibrium": self._equilibrium.clone()},
            {"continue": self._continue, "clock_s": self._clock_s, "version": self._version},
        )

    def restore(self, snapshot: Snapshot) -> None:
        own = self.snapshot()
        fits = set(snapshot.arrays) == set(own.arrays) and set(snapshot.values) == set(own.values)
        if snapshot.device_id != own.device_id or not fits:
            raise SnapshotError("resistor: not a complete snapshot of this network.")
        self._g = snapshot.arrays["conductances"].clone()
        self._equilibrium = snapshot.arrays["equilibrium"].clone()
        self._continue = float(snapshot.values["continue"])
        self._clock_s = float(snapshot.values["clock_s"])
        self._version = int(snapshot.values["version"])

    def close(self) -> None:
        """Nothing to make safe."""


def _repeated(codes: Tensor, shots: int | None) -> Tensor:
    return codes if shots is None else codes.expand(shots, *codes.shape).clone()


def closed_form(g: Tensor, source: Tensor, force: Tensor) -> Tensor:
    """Node voltages (batch, 2) by solving Kirchhoff's two equations at once."""
    g0, g1, g2 = g.double()
    matrix = torch.stack([torch.stack([g0 + g1, -g1]), torch.stack([-g1, g1 + g2])])
    right = torch.stack([g0 * source[:, 0] + force[:, 0], force[:, 1]], dim=1).double()
    return torch.linalg.solve(matrix, right.T).T
