"""A small healthy chip, and one broken variant of it for each planted fault.

The healthy chip is stateful, noisy, drifting, rangeable and restorable, with
number and map dials. Each variant overrides the one step its fault sits in;
PLANTED names the check that is meant to find it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from substrates.noise import standard_normal
from twin.backend import (
    Capabilities,
    Dial,
    Port,
    Ranged,
    Reading,
    Snapshot,
    Values,
    Written,
    single,
)
from twin.errors import DeviceUnavailable, DialError, SnapshotError
from twin.key import Key

INPUTS, OUTPUTS = 6, 4
SPAN_V = 4.0
WALK_GRID_S = 1.0
PASS_S = 1e-5


def dials() -> tuple[Dial, ...]:
    return (
        Dial(name="read_noise", unit="V", low=0, high=1, ideal=0, default=0.06, severe=0.2),
        Dial(name="drift", unit="1", low=0, high=0.2, ideal=0, default=0.02, severe=0.1),
        Dial(name="walk", unit="V", low=0, high=1, ideal=0, default=0.02, severe=0.2),
        Dial(name="write_error", unit="1", low=0, high=0.5, ideal=0, default=0.02, severe=0.2),
        Dial(
            name="stuck",
            unit="1",
            low=0,
            high=1,
            ideal=0,
            default=0,
            severe=1,
            shape=(OUTPUTS,),
            about="columns that always give their highest code",
        ),
    )


class Healthy:
    """y = x (W age^-nu) + walk + noise, in codes of 1/32 V or plain volts."""

    coded: ClassVar[bool] = True

    def __init__(self, key: Key) -> None:
        self.key = key
        self.nu = torch.rand((INPUTS, OUTPUTS), generator=key.child("nu").torch())
        self.weights = torch.zeros(INPUTS, OUTPUTS)
        self.written_s = 0.0
        self.clock_s = 0.0
        self.ratio = 1.0
        self.version = 0
        self.dials: dict[str, float] = {d.name: d.default for d in dials() if not d.shape}
        self.stuck = torch.zeros(OUTPUTS)
        self.capabilities = self.describe()

    def describe(self) -> Capabilities:
        out = (
            Port(
                name="out",
                shape=(OUTPUTS,),
                low=-SPAN_V,
                high=SPAN_V,
                levels=257,
                dtype="int32",
                unit="V",
            )
            if self.coded
            else Port(name="out", shape=(OUTPUTS,), low=-SPAN_V, high=SPAN_V, unit="V")
        )
        return Capabilities(
            device_id=f"planted-{self.key.seed}",
            drives=(Port(name="in", shape=(INPUTS,), unit="V"),),
            settings=(
                Port(name="weights", shape=(INPUTS, OUTPUTS), low=-1.0, full_scale=1e-4, unit="S"),
            ),
            readings=(out, Port(name="supply", shape=(), low=0.0, high=20.0, unit="A")),
            dials=dials(),
            seedable=True,
            restorable=True,
            rangeable=True,
            max_batch=256,
            clock="virtual",
        )

    # ---- the steps that faults override ----------------------------------

    def noise(self, key: Key, first: int, batch: int, shots: int | None) -> Tensor:
        return standard_normal(key.child("read"), first, batch, (OUTPUTS,), shots)

    def effective(self) -> Tensor:
        age_s = max(0.0, self.clock_s - self.written_s)
        return self.weights * (1 + age_s) ** (-self.dials["drift"] * self.nu)

    def walk(self) -> Tensor:
        grid = int(self.clock_s // WALK_GRID_S)
        drawn = torch.randn(OUTPUTS, generator=self.key.child("walk", grid).torch())
        return self.dials["walk"] * drawn

    def clipped(self, volts: Tensor) -> Tensor:
        limit = SPAN_V * self.ratio
        return volts.clamp(-limit, limit)

    def encoded(self, volts: Tensor) -> Tensor:
        if not self.coded:
            return (self.clipped(volts) / self.ratio).to(torch.float32)
        step = self.capabilities.readings[0].step * self.ratio
        return (self.clipped(volts) / step).round().to(torch.int32)

    def spend(self, seconds: float) -> None:
        self.clock_s += seconds

    def store(self, weights: Tensor) -> Tensor:
        return weights.clone()

    def keep_map(self, value: Tensor) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float32).clone()

    # ---- the contract ------------------------------------------------------

    def program(self, setting: Values, *, key: Key) -> Written:
        wanted = self.store(single(setting, self.capabilities.settings[0]))
        if self.dials["write_error"]:
            error = torch.randn(wanted.shape, generator=key.child("write").torch())
            wanted.add_(self.dials["write_error"] * error)
        self.weights = wanted
        self.spend(1e-3)
        self.written_s = self.clock_s
        self.version += 1
        return Written(
            state_version=self.version,
            cells=self.weights.numel(),
            device_seconds=1e-3,
            joules=1e-9,
            achieved={"weights": self.weights.clone()},
        )

    def volts(self, x: Tensor, key: Key, first: int, shots: int | None) -> Tensor:
        clean = x @ self.effective() + self.walk()
        return clean + self.dials["read_noise"] * self.noise(key, first, len(x), shots)

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        x = single(drive, self.capabilities.drives[0])
        volts = self.volts(x, key, first_sample, shots)
        codes = self.encoded(volts)
        top = self.capabilities.readings[0].code_high
        codes = torch.where(self.stuck > 0.5, torch.full_like(codes, top), codes)
        seconds = PASS_S * len(x) * (shots or 1)
        self.spend(seconds)
        supply = x.sum(-1)
        return Reading(
            codes=codes,
            ratio=self.ratio,
            saturated=float((codes.abs() >= top).double().mean()),
            state_version=self.version,
            device_seconds=seconds,
            joules=1e-9 * len(x),
            clock_s=self.clock_s,
            extra={"supply": supply if shots is None else supply.expand(shots, -1).clone()},
        )

    def set_range(self, drive: Values, *, key: Key) -> Ranged:
        x = single(drive, self.capabilities.drives[0])
        peak = float(self.volts(x, key.child("range"), 0, None).abs().max())
        self.ratio = min(4.0, max(0.05, 1.1 * peak / SPAN_V))
        self.version += 1
        seconds = PASS_S * len(x)
        self.spend(seconds)
        return Ranged(
            state_version=self.version, ratio=self.ratio, passes=len(x), device_seconds=seconds
        )

    def adjust(self, dial: str, value: Any, *, key: Key) -> int:
        if self.capabilities.dial(dial).shape:
            self.stuck = self.keep_map(value)
        else:
            self.dials[dial] = float(value)
        self.version += 1
        return self.version

    def wait(self, seconds: float) -> None:
        if seconds < 0:
            raise DialError(f"planted: a wait must be >= 0 s, got {seconds}.")
        self.spend(seconds)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            self.capabilities.device_id,
            {"weights": self.weights.clone(), "stuck": self.stuck.clone()},
            {
                "clock_s": self.clock_s,
                "written_s": self.written_s,
                "ratio": self.ratio,
                "version": self.version,
                **self.dials,
            },
        )

    def restore(self, snapshot: Snapshot) -> None:
        own = Healthy.snapshot(self)
        if (
            snapshot.device_id != own.device_id
            or set(snapshot.arrays) != set(own.arrays)
            or set(snapshot.values) != set(own.values)
        ):
            raise SnapshotError("planted: not a complete snapshot of this device.")
        values = snapshot.values
        self.weights = snapshot.arrays["weights"].clone()
        self.stuck = snapshot.arrays["stuck"].clone()
        self.clock_s, self.written_s = float(values["clock_s"]), float(values["written_s"])
        self.ratio, self.version = float(values["ratio"]), int(values["version"])
        self.dials = {name: float(values[name]) for name in self.dials}

    def close(self) -> None:
        """Nothing to make safe."""


class HealthyFloat(Healthy):
    """The same chip with a reading of plain floats."""

    coded = False


# ---- one class for each fault -------------------------------------------


class GlobalRandomSource(Healthy):
    def noise(self, key: Key, first: int, batch: int, shots: int | None) -> Tensor:
        return torch.randn((batch, OUTPUTS) if shots is None else (shots, batch, OUTPUTS))


class ReseedsGlobally(Healthy):
    def noise(self, key: Key, first: int, batch: int, shots: int | None) -> Tensor:
        torch.manual_seed(key.entropy())
        return torch.randn((batch, OUTPUTS) if shots is None else (shots, batch, OUTPUTS))


class PrivateGenerator(Healthy):
    """Its own generator runs on from call to call and is in no snapshot."""

    def __init__(self, key: Key) -> None:
        super().__init__(key)
        self.stream = key.child("stream").torch()

    def noise(self, key: Key, first: int, batch: int, shots: int | None) -> Tensor:
        shape = (batch, OUTPUTS) if shots is None else (shots, batch, OUTPUTS)
        return torch.randn(shape, generator=self.stream)


class RangeFromTheBatch(Healthy):
    def encoded(self, volts: Tensor) -> Tensor:
        return super().encoded(volts / volts.abs().max().clamp(min=1e-3) * SPAN_V)


class ChangedInput(Healthy):
    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        single(drive, self.capabilities.drives[0]).mul_(255).round_().div_(255)
        return super().forward(drive, key=key, first_sample=first_sample, shots=shots)


class SharedSnapshot(Healthy):
    def snapshot(self) -> Snapshot:
        return replace(super().snapshot(), arrays={"weights": self.weights, "stuck": self.stuck})


class SharedRestore(Healthy):
    def restore(self, snapshot: Snapshot) -> None:
        super().restore(snapshot)
        self.weights = snapshot.arrays["weights"]


class ForgottenClock(Healthy):
    """Restoring leaves the clock where it is."""

    def restore(self, snapshot: Snapshot) -> None:
        now_s = self.clock_s
        super().restore(snapshot)
        self.clock_s = now_s


class StandingClock(Healthy):
    """Passes take time, but the clock does not hear of it."""

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        before_s = self.clock_s
        reading = super().forward(drive, key=key, first_sample=first_sample, shots=shots)
        self.clock_s = before_s
        return replace(reading, clock_s=before_s)


class OutOfRange(Healthy):
    def clipped(self, volts: Tensor) -> Tensor:
        return volts


class UndeclaredReadDisturb(Healthy):
    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        reading = super().forward(drive, key=key, first_sample=first_sample, shots=shots)
        self.weights = self.weights * 0.995
        return reading


class SharedSetting(Healthy):
    def __init__(self, key: Key) -> None:
        super().__init__(key)
        self.dials["write_error"] = 0.0  # so that no error is written into the caller's tensor

    def store(self, weights: Tensor) -> Tensor:
        return weights


class SharedMap(Healthy):
    def keep_map(self, value: Tensor) -> Tensor:
        return value


class SqueezedBatch(Healthy):
    def encoded(self, volts: Tensor) -> Tensor:
        return super().encoded(volts).squeeze()


class IgnoredKey(Healthy):
    def noise(self, key: Key, first: int, batch: int, shots: int | None) -> Tensor:
        return super().noise(self.key, first, batch, shots)


class NanOnSaturation(HealthyFloat):
    def clipped(self, volts: Tensor) -> Tensor:
        limit = SPAN_V * self.ratio
        return torch.where(volts.abs() > limit, torch.full_like(volts, float("nan")), volts)


class LeakedGraph(HealthyFloat):
    def effective(self) -> Tensor:
        return torch.nn.Parameter(super().effective())


class RangingInsideForward(Healthy):
    def volts(self, x: Tensor, key: Key, first: int, shots: int | None) -> Tensor:
        volts = super().volts(x, key, first, shots)
        self.ratio = max(self.ratio, 2 * float(volts.abs().max()) / SPAN_V)
        return volts


class WaitDependsOnItsSplit(Healthy):
    """Every wait relaxes the weights anew from its own beginning."""

    def wait(self, seconds: float) -> None:
        super().wait(seconds)
        self.weights = self.weights * (1 + seconds) ** -0.05


class WaitDrawsPerCall(Healthy):
    """Each wait takes one random step, however long it is."""

    def wait(self, seconds: float) -> None:
        super().wait(seconds)
        step = torch.randn(
            self.weights.shape, generator=self.key.child("step", repr(self.clock_s)).torch()
        )
        self.weights = self.weights + 0.2 * step * (seconds > 0)


class DialMissingFromTheSnapshot(Healthy):
    def snapshot(self) -> Snapshot:
        kept = super().snapshot()
        return replace(kept, values={n: v for n, v in kept.values.items() if n != "drift"})

    def restore(self, snapshot: Snapshot) -> None:
        # The dial keeps whatever value it has now.
        drift = {"drift": self.dials["drift"]}
        super().restore(replace(snapshot, values={**snapshot.values, **drift}))


class ReorderedBatch(Healthy):
    """Rows come back sorted by how bright they are."""

    def volts(self, x: Tensor, key: Key, first: int, shots: int | None) -> Tensor:
        return super().volts(x[x.sum(1).argsort()], key, first, shots)


class StaleReading(Healthy):
    """Answers with the frame before, if it has the right size."""

    last: Reading | None = None

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        fresh = super().forward(drive, key=key, first_sample=first_sample, shots=shots)
        stale, self.last = self.last, fresh
        if stale is None or stale.codes.shape != fresh.codes.shape:
            return fresh
        return replace(fresh, codes=stale.codes)


class WrongDtype(Healthy):
    def encoded(self, volts: Tensor) -> Tensor:
        return super().encoded(volts).to(torch.int64)


class WrongUnit(Healthy):
    """A full scale in millivolts, called so."""

    def describe(self) -> Capabilities:
        right = super().describe()
        drive = replace(right.drives[0], full_scale=1000.0, unit="mV")
        return replace(right, drives=(drive,))


class UndecodedLevels(Healthy):
    """A port of integer codes that does not say how many."""

    def describe(self) -> Capabilities:
        right = super().describe()
        return replace(right, drives=(replace(right.drives[0], dtype="int32", levels=None),))


class WritesAndDeniesIt(Healthy):
    """Every third write is made, its answer lost, and the loss told as "did not act"."""

    writes = 0

    def program(self, setting: Values, *, key: Key) -> Written:
        written = super().program(setting, key=key)
        self.writes += 1
        if self.writes % 3 == 0:
            raise DeviceUnavailable("planted: no answer. Try again.")
        return written


class AchievedInSiemens(Healthy):
    def program(self, setting: Values, *, key: Key) -> Written:
        written = super().program(setting, key=key)
        return replace(written, achieved={"weights": self.weights * 1e-4})


class DefaultDtypeChanged(Healthy):
    def volts(self, x: Tensor, key: Key, first: int, shots: int | None) -> Tensor:
        torch.set_default_dtype(torch.float64)
        return super().volts(x, key, first, shots)


class GradSwitchedOff(Healthy):
    def __init__(self, key: Key) -> None:
        super().__init__(key)
        torch.set_grad_enabled(not torch.is_grad_enabled())


class ClosesOnce(Healthy):
    closed = False

    def close(self) -> None:
        if self.closed:
            raise RuntimeError("the port is not open")
        self.closed = True


class MissingPort(Healthy):
    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        reading = super().forward(drive, key=key, first_sample=first_sample, shots=shots)
        return replace(reading, extra={})


class SameNoiseEveryShot(Healthy):
    def noise(self, key: Key, first: int, batch: int, shots: int | None) -> Tensor:
        once = super().noise(key, first, batch, None)
        return once if shots is None else once.expand(shots, -1, -1)


class SampleNumberIgnored(Healthy):
    def noise(self, key: Key, first: int, batch: int, shots: int | None) -> Tensor:
        return super().noise(key, 0, batch, shots)


class SharedBetweenDevices(Healthy):
    """State in the class: two devices are one."""

    common: ClassVar[dict[str, Tensor]] = {}

    def store(self, weights: Tensor) -> Tensor:
        self.common["weights"] = weights.clone()
        return weights.clone()

    def effective(self) -> Tensor:
        return self.common.get("weights", self.weights)


class SpreadDrawnAnew(Healthy):
    """Device-to-device spread from a counter instead of the key."""

    made: ClassVar[list[int]] = [0]

    def __init__(self, key: Key) -> None:
        super().__init__(key)
        self.made[0] += 1
        anew = key.child("nu", self.made[0]).torch()
        self.nu = torch.rand((INPUTS, OUTPUTS), generator=anew)


class RangeNotTold(Healthy):
    """Codes follow the range in force, ratio does not."""

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        reading = super().forward(drive, key=key, first_sample=first_sample, shots=shots)
        return replace(reading, ratio=1.0)


class VersionForgotten(Healthy):
    def program(self, setting: Values, *, key: Key) -> Written:
        written = super().program(setting, key=key)
        self.version -= 1
        return replace(written, state_version=self.version)


class AnySnapshotTaken(Healthy):
    def restore(self, snapshot: Snapshot) -> None:
        super().restore(replace(snapshot, device_id=self.capabilities.device_id))


class Disconnected(Healthy):
    def effective(self) -> Tensor:
        return torch.zeros(INPUTS, OUTPUTS)


@dataclass(frozen=True)
class Fault:
    """A planted fault: the broken backend and the check meant to find it."""

    backend: Callable[[Key], Any]
    check: str


PLANTED: Mapping[str, Fault] = {
    "global random source": Fault(GlobalRandomSource, "no-global-generator-is-used"),
    "global generator seeded": Fault(ReseedsGlobally, "no-global-generator-is-used"),
    "private generator runs on": Fault(PrivateGenerator, "the-same-call-gives-the-same-reading"),
    "range taken from the batch": Fault(
        RangeFromTheBatch, "a-sample-reads-the-same-in-any-company"
    ),
    "changed input": Fault(ChangedInput, "inputs-are-left-as-they-were"),
    "shared snapshot": Fault(SharedSnapshot, "a-snapshot-shares-nothing"),
    "shared restore": Fault(SharedRestore, "a-snapshot-shares-nothing"),
    "forgotten clock": Fault(ForgottenClock, "the-clock-is-in-the-snapshot"),
    "standing clock": Fault(StandingClock, "the-clock-counts-every-pass"),
    "reading out of range": Fault(OutOfRange, "readings-stay-inside-their-port"),
    "undeclared read disturb": Fault(
        UndeclaredReadDisturb, "a-pass-disturbs-no-more-than-its-clock"
    ),
    "shared setting": Fault(SharedSetting, "the-setting-is-copied"),
    "shared fault map": Fault(SharedMap, "a-dial-map-is-copied"),
    "squeezed batch": Fault(SqueezedBatch, "a-batch-of-one-keeps-its-axis"),
    "ignored key": Fault(IgnoredKey, "the-key-decides-the-noise"),
    "NaN on saturation": Fault(NanOnSaturation, "saturation-is-an-end-code-never-nan"),
    "leaked graph": Fault(LeakedGraph, "no-reading-carries-a-graph"),
    "ranging inside forward": Fault(RangingInsideForward, "ranging-happens-only-when-asked"),
    "wait depends on its split": Fault(WaitDependsOnItsSplit, "splitting-a-wait-changes-nothing"),
    "wait draws once per call": Fault(WaitDrawsPerCall, "splitting-a-wait-changes-nothing"),
    "dial missing from the snapshot": Fault(
        DialMissingFromTheSnapshot, "dials-are-in-the-snapshot"
    ),
    "reordered batch": Fault(ReorderedBatch, "the-order-of-the-batch-is-kept"),
    "stale reading": Fault(StaleReading, "a-reading-answers-its-own-drive"),
    "wrong dtype": Fault(WrongDtype, "a-reading-has-the-form-of-its-ports"),
    "duplicated writes on retry": Fault(WritesAndDeniesIt, "what-did-not-act-may-be-tried-again"),
    "wrong unit in a port": Fault(WrongUnit, "capabilities-are-complete-and-consistent"),
    "codes without levels": Fault(UndecodedLevels, "capabilities-are-complete-and-consistent"),
    "achieved in siemens": Fault(AchievedInSiemens, "what-was-written-is-told-on-the-ports-scale"),
    "default dtype changed": Fault(DefaultDtypeChanged, "the-process-is-left-as-it-was"),
    "gradients switched": Fault(GradSwitchedOff, "the-process-is-left-as-it-was"),
    "close not idempotent": Fault(ClosesOnce, "closing-twice-is-harmless"),
    "declared port missing": Fault(MissingPort, "a-reading-has-the-form-of-its-ports"),
    "same noise in every shot": Fault(
        SameNoiseEveryShot, "noise-is-fresh-for-every-sample-and-shot"
    ),
    "sample number ignored": Fault(SampleNumberIgnored, "the-sample-number-names-the-noise"),
    "state shared between devices": Fault(SharedBetweenDevices, "two-devices-share-nothing"),
    "spread drawn anew": Fault(SpreadDrawnAnew, "equal-devices-give-equal-readings"),
    "range not told": Fault(RangeNotTold, "ranging-rescales-no-feature"),
    "version not counted": Fault(VersionForgotten, "the-state-version-counts-writes"),
    "any snapshot taken": Fault(AnySnapshotTaken, "a-foreign-snapshot-is-refused"),
    "disconnected": Fault(Disconnected, "different-drives-read-differently"),
}
