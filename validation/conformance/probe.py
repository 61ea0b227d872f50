"""What the checks share: fresh devices, fixed inputs, and comparing readings.

Every input comes from one fixed key, so that a check gives the same verdict
each time it is run on the same device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from twin.backend import Backend, Capabilities, MinimalBackend, Port, Reading, Snapshot, Values
from twin.complete import complete
from twin.errors import DeviceUnavailable
from twin.key import SAMPLE_BLOCK, Key

ROOT = Key(0, ("conformance",))
TRIES = 20
FLOAT_TOLERANCE = 1e-5
"""Of a continuous port's range: what float32 rounding may change."""
PAUSE_S = 97.3517
"""A wait long enough for slow physics, and on no round grid of device time."""


class CheckFailed(Exception):
    """The device breaks the contract; the text says how, and how to mend it."""


class NotApplicable(Exception):
    """The device declares that it does not offer what is checked."""


@dataclass
class Probe:
    """Makes devices for one check and closes them all afterwards.

    only: there is one device, and every `make` opens that one again.
    """

    make: Callable[[], MinimalBackend]
    only: bool = False
    made: list[Backend] = field(default_factory=list)

    def device(self) -> Backend:
        """A device as delivered."""
        self.made.append(complete(self.make()))
        return self.made[-1]

    def prepared(self) -> Backend:
        """A device with the standard setting written."""
        device = self.device()
        program(device)
        return device

    def close(self) -> None:
        for device in self.made:
            device.close()


def need(condition: bool, why_not: str) -> None:
    """Say that a check does not apply, unless `condition`."""
    if not condition:
        raise NotApplicable(why_not)


def require(condition: bool, expected: str) -> None:
    """Fail a check with `expected` (what was expected, what came, the remedy)."""
    if not condition:
        raise CheckFailed(expected)


def batch_of(capabilities: Capabilities, wanted: int) -> int:
    """`wanted` samples, or as many as one call takes."""
    limit = capabilities.max_batch
    return wanted if limit is None else min(wanted, limit)


def values(ports: tuple[Port, ...], lead: tuple[int, ...], key: Key, top: float = 1.0) -> Values:
    """Uniform values in the lowest fraction `top` of each port's range."""
    named = {}
    for port in ports:
        uniform = torch.rand((*lead, *port.shape), generator=key.child(port.name).torch())
        named[port.name] = port.low + (port.high - port.low) * top * uniform
    return named if len(named) > 1 else named[ports[0].name]


def flat(ports: tuple[Port, ...], lead: tuple[int, ...], share: float) -> Values:
    """Every value at `share` (0 to 1) of its port's range."""
    named = {p.name: torch.full((*lead, *p.shape), p.low + (p.high - p.low) * share) for p in ports}
    return named if len(named) > 1 else named[ports[0].name]


def drives(device: Backend, batch: int, name: str = "drive", top: float = 1.0) -> Values:
    """A batch of drives, different for each `name`."""
    return values(device.capabilities.drives, (batch,), ROOT.child(name), top)


def one_drive(device: Backend, batch: int) -> Values:
    """The same drive in every row, so that rows differ by noise only."""
    single = drives(device, 1)
    return each(single, lambda x: x.expand(batch, *x.shape[1:]).clone())


def setting(device: Backend, name: str = "setting") -> Values:
    return values(device.capabilities.settings, (), ROOT.child(name))


def program(device: Backend, name: str = "setting") -> None:
    """Write the setting called `name`, where there is one to write."""
    if device.capabilities.programmable:
        device.program(setting(device, name), key=ROOT.child("program", name))


def read(device: Backend, drive: Values, name: str = "read", **options: int) -> Reading:
    """One call; made again, like the fence does, where the device says it did not act."""
    for _ in range(TRIES - 1):
        try:
            return device.forward(drive, key=ROOT.child(name), **options)
        except DeviceUnavailable:
            continue
    return device.forward(drive, key=ROOT.child(name), **options)


def each(given: Values, change: Callable[[Tensor], Tensor]) -> Values:
    """`change` applied to the tensor, or to that of every port."""
    if isinstance(given, Mapping):
        return {name: change(value) for name, value in given.items()}
    return change(given)


def cut(given: Values, start: int, stop: int) -> Values:
    """Rows start to stop of every port."""
    return each(given, lambda x: x[start:stop])


def tensors(given: Values) -> list[Tensor]:
    return list(given.values()) if isinstance(given, Mapping) else [given]


def copied(snapshot: Snapshot) -> Snapshot:
    """A snapshot that shares nothing with the one given."""
    arrays = {name: value.clone() for name, value in snapshot.arrays.items()}
    return Snapshot(snapshot.device_id, arrays, dict(snapshot.values))


def ports_of(reading: Reading, capabilities: Capabilities) -> list[tuple[Port, Tensor]]:
    """Each declared reading port with its codes; CheckFailed if one is missing."""
    main, *others = capabilities.readings
    for port in others:
        require(
            port.name in reading.extra,
            f"the reading lacks the declared port {port.name!r} (it has {sorted(reading.extra)}). "
            "Return it in Reading.extra, or do not declare it.",
        )
    return [
        (main, torch.as_tensor(reading.codes)),
        *((p, torch.as_tensor(reading.extra[p.name])) for p in others),
    ]


def decoded(reading: Reading, capabilities: Capabilities) -> dict[str, Tensor]:
    """The values of each reading port on its nominal scale."""
    (main, codes), *others = ports_of(reading, capabilities)
    ratio = reading.ratio.detach() if isinstance(reading.ratio, Tensor) else reading.ratio
    return {main.name: main.decode(codes.detach(), ratio)} | {
        port.name: port.decode(extra.detach()) for port, extra in others
    }


def identical(a: Reading, b: Reading) -> bool:
    """Whether two readings are the same to the last bit, range included."""
    same_ratio = torch.equal(torch.as_tensor(a.ratio), torch.as_tensor(b.ratio))
    names = set(a.extra) | set(b.extra)
    pairs = [(a.codes, b.codes), *((a.extra.get(n), b.extra.get(n)) for n in names)]
    return same_ratio and all(torch.equal(torch.as_tensor(x), torch.as_tensor(y)) for x, y in pairs)


def resolution(port: Port, reading: Reading) -> float:
    """The smallest difference that counts on this port."""
    if not port.is_coded:
        return FLOAT_TOLERANCE * (port.high - port.low)
    # 1.01: decoding itself rounds in float32.
    return 1.01 * port.step * max(1.0, float(torch.as_tensor(reading.ratio).max()))


def spread(device: Backend, drive: Values) -> dict[str, Tensor]:
    """R.m.s. noise of one reading per element, from two keys; zeros if there is none."""
    pair = [decoded(read(device, drive, f"spread-{i}"), device.capabilities) for i in (0, 1)]
    result = {}
    for name, first in pair[0].items():
        squares = (first - pair[1][name]).double().square() / 2
        # The overall level is mixed in: from few rows an element's own is too rough.
        result[name] = (squares.mean(0) + squares.mean() / max(1, len(first)) ** 0.5).sqrt()
    return result


def unlike(
    a: Reading, b: Reading, capabilities: Capabilities, noise: Mapping[str, Tensor]
) -> str | None:
    """How two readings of the same drives differ by more than they may.

    Equal within one level in 99 % of the values is equal. Else the noise may
    have been drawn anew: then no more than twice its r.m.s. apart, and the
    means over the batch within five standard errors and one level.
    """
    first, second = decoded(a, capabilities), decoded(b, capabilities)
    for port in capabilities.readings:
        gap = (first[port.name] - second[port.name]).double()
        level = resolution(port, a)
        if float((gap.abs() > level).double().mean()) <= 0.01:
            continue
        rms = noise[port.name]
        apart = float(gap.square().mean().sqrt())
        bias = gap.mean(0).abs() - 5 * rms * (2 / max(1, len(gap))) ** 0.5 - level
        allowed = 2 * 2**0.5 * float(rms.square().mean().sqrt())
        if apart > allowed or bool((bias > 0).any()):
            return (
                f"port {port.name!r}: the readings are {apart:.3g} apart (r.m.s.), allowed are "
                f"one level ({level:.3g}) or the noise ({allowed:.3g})"
            )
    return None


def same_state_pair(
    probe: Probe,
    device: Backend,
    first: Callable[[Backend], Reading],
    second: Callable[[Backend], Reading],
) -> tuple[Reading, Reading]:
    """Readings of two courses of events that begin in the same state.

    By restoring the device, else on an equal device, else one after the other.
    """
    capabilities = device.capabilities
    if capabilities.restorable:
        start = device.snapshot()
        a = first(device)
        device.restore(start)
        return a, second(device)
    a = first(device)
    return a, second(probe.prepared() if capabilities.seedable and not probe.only else device)


WHOLE_BLOCKS = 2 * SAMPLE_BLOCK
