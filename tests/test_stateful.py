"""Random operation sequences on devices, against what the contract promises.

A Hypothesis machine programs, reads, ranges, turns dials, waits, saves and
restores in any order. What must hold throughout: the same state, drive and key
give the same reading; restoring is exact; the clock only runs forward between
restores; the ledger has counted every pass.
"""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from torch import Tensor

from tests.planted import Healthy
from twin.backend import Snapshot
from twin.fence import Fence, Measured
from twin.key import Key
from twin.plain import differs
from twin.registry import open_backend
from twin.wrap import Recorded, Replayed

seeds = st.integers(0, 2**32)
batches = st.integers(1, 5)


def drawn(port: Any, lead: tuple[int, ...], seed: int) -> Tensor:
    uniform = torch.rand((*lead, *port.shape), generator=Key(seed).torch())
    return port.low + (port.high - port.low) * uniform


class Device(RuleBasedStateMachine):
    """Plays with one backend through the fence; subclasses say which."""

    saved = Bundle("saved")

    def make(self, key: Key) -> Any:
        raise NotImplementedError

    @initialize(seed=seeds)
    def open(self, seed: int) -> None:
        self.recorded = Recorded(self.make(Key(seed)))
        self.fence = Fence(self.recorded, name="unit", run_id="run")
        self.clock_s = 0.0
        self.passes = self.writes = self.ranging = 0

    def read(self, seed: int, batch: int, shots: int | None = None) -> Measured:
        x = drawn(self.fence.drive_port, (batch,), seed)
        self.passes += batch * (shots or 1)
        return self.fence.forward(x, key=Key(seed), shots=shots)

    def noted(self, measured: Measured) -> None:
        assert measured.clock_s >= self.clock_s
        assert 0 <= measured.saturated <= 1
        self.clock_s = measured.clock_s

    @rule(seed=seeds)
    def program(self, seed: int) -> None:
        if self.fence.capabilities.programmable:
            self.fence.program(drawn(self.fence.capabilities.settings[0], (), seed), key=Key(seed))
            self.writes += 1

    @rule(seed=seeds, batch=batches, shots=st.sampled_from([None, 1, 3]))
    def forward(self, seed: int, batch: int, shots: int | None) -> None:
        self.noted(self.read(seed, batch, shots))

    @rule(seed=seeds, batch=batches)
    def forward_twice_from_one_state(self, seed: int, batch: int) -> None:
        start = self.fence.snapshot()
        first = self.read(seed, batch)
        self.fence.restore(start)
        second = self.read(seed, batch)
        assert torch.equal(first.values, second.values)
        assert first.clock_s == second.clock_s
        self.noted(second)

    @rule(seed=seeds, batch=batches)
    def set_range(self, seed: int, batch: int) -> None:
        if self.fence.capabilities.rangeable:
            x = drawn(self.fence.drive_port, (batch,), seed)
            self.ranging += self.fence.set_range(x, key=Key(seed)).passes

    @rule(which=st.integers(0, 10**6), share=st.floats(0, 1), seed=seeds)
    def adjust(self, which: int, share: float, seed: int) -> None:
        dials = [d for d in self.fence.capabilities.dials if not d.read_only]
        dial = dials[which % len(dials)]
        if dial.shape:
            # Maps hold codes or switches: nothing between two of their values.
            value = torch.full(dial.shape, dial.severe if share > 0.5 else dial.ideal)
            self.fence.adjust(dial.name, value, key=Key(seed))
        else:
            between = dial.ideal + share * (dial.severe - dial.ideal)
            self.fence.adjust(dial.name, min(dial.high, max(dial.low, between)), key=Key(seed))

    @rule(seconds=st.floats(0, 1e5))
    def wait(self, seconds: float) -> None:
        self.fence.wait(seconds)

    @rule(total=st.floats(1e-3, 1e4), share=st.floats(0.01, 0.99), seed=seeds)
    def wait_in_two_parts(self, total: float, share: float, seed: int) -> None:
        start = self.fence.snapshot()
        self.fence.wait(total * share)
        self.fence.wait(total - total * share)
        clocks = [self.read(seed, 1).clock_s]
        self.fence.restore(start)
        self.fence.wait(total)
        clocks.append(self.read(seed, 1).clock_s)
        assert abs(clocks[0] - clocks[1]) <= 1e-9 * max(1.0, clocks[1])
        self.clock_s = clocks[1]

    @rule(target=saved, seed=seeds)
    def save(self, seed: int) -> tuple[Snapshot, int, Measured]:
        start = self.fence.snapshot()
        return start, seed, self.read(seed, 2)

    @rule(kept=saved)
    def restore(self, kept: tuple[Snapshot, int, Measured]) -> None:
        start, seed, before = kept
        self.fence.restore(start)
        after = self.read(seed, 2)
        assert torch.equal(after.values, before.values)
        assert (after.clock_s, after.state_version) == (before.clock_s, before.state_version)
        self.clock_s = after.clock_s

    @rule(kept=saved)
    def snapshot_is_what_was_restored(self, kept: tuple[Snapshot, int, Measured]) -> None:
        self.fence.restore(kept[0])
        assert not differs(kept[0], self.fence.snapshot())
        self.clock_s = 0.0

    @invariant()
    def ledger_has_counted_everything(self) -> None:
        if not hasattr(self, "fence"):
            return
        total = self.fence.ledger.total("unit")
        counted = (total.passes, total.writes, total.ranging_passes)
        assert counted == (self.passes, self.writes, self.ranging)

    def teardown(self) -> None:
        """What happened can be replayed, call by call."""
        if not hasattr(self, "recorded"):
            return
        recording = self.recorded.recording
        replayed = Replayed(recording)
        for call in recording.calls:
            keyed = {"key": call.key} if call.key else {}
            answer = getattr(replayed, call.kind)(**call.inputs, **keyed)
            assert not differs(answer, call.answer)
        assert replayed.remaining == 0
        self.fence.close()


class HealthyDevice(Device):
    def make(self, key: Key) -> Any:
        return Healthy(key)


class MemristorDevice(Device):
    def make(self, key: Key) -> Any:
        return open_backend("memristor", key=key, inputs=5, outputs=3, array_rows=4)


class OpticsDevice(Device):
    def make(self, key: Key) -> Any:
        return open_backend("optics", key=key, inputs=6, pixels=5)


PLAY = settings(max_examples=20, stateful_step_count=15, deadline=None)
TestHealthy = HealthyDevice.TestCase
TestHealthy.settings = PLAY
TestMemristor = MemristorDevice.TestCase
TestMemristor.settings = PLAY
TestOptics = OpticsDevice.TestCase
TestOptics.settings = PLAY
