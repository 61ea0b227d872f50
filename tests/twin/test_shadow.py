"""A twin beside a device: seen from outside it is the device, and it stands in when asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pib.train import Trainer
from pib.unit import feature
from substrates.ideal import Ideal, IdealConfig
from tests.pib import tiny
from tests.planted import INPUTS, OUTPUTS, Healthy, HealthyFloat
from twin.backend import Backend, MinimalBackend, Reading, Snapshot, Written
from twin.errors import ConfigError, DeviceUnavailable, OutcomeUnknown, SnapshotError
from twin.fence import Fence
from twin.key import Key
from twin.plain import differs
from twin.shadow import Shadow
from twin.wrap import Faulty
from validation.conformance import run_checks


class Lab:
    """A device whose plug can be pulled; notes what reached it."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.plugged, self.calls, self.closed = backend, True, [], 0
        self.capabilities = backend.capabilities

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if not self.plugged:
                raise DeviceUnavailable("lab: pulled. Plug it in.")
            self.calls.append((name, args, options))
            return getattr(self.backend, name)(*args, **options)

        return call

    def close(self) -> None:
        self.closed += 1
        if not self.plugged:
            raise DeviceUnavailable("lab: pulled. Plug it in.")
        self.backend.close()


def drive(batch: int = 3, seed: int = 0) -> Tensor:
    return torch.rand((batch, INPUTS), generator=Key(seed).torch())


def weights(seed: int = 0) -> Tensor:
    return 2 * torch.rand((INPUTS, OUTPUTS), generator=Key(seed).torch()) - 1


def shadowed(**options: Any) -> tuple[Lab, Shadow]:
    lab = Lab(Healthy(Key(1)))
    return lab, Shadow(lab, Healthy(Key(2)), **{"on_loss": "twin", "try_every": 1, **options})


def play(device: Backend) -> list[Any]:
    answers: list[Any] = [
        device.program(weights(), key=Key(1)),
        device.forward(drive(), key=Key(2), first_sample=7, shots=2),
        device.adjust("drift", 0.1, key=Key(3)),
        device.set_range(drive(), key=Key(4)),
        device.wait(12.5),
        device.forward({"in": drive(1)}, key=Key(5)),
    ]
    kept = device.snapshot()
    answers.append(device.forward(drive(), key=Key(6)))
    device.restore(kept)
    return [*answers, device.forward(drive(), key=Key(6))]


def test_while_the_device_answers_every_answer_is_the_device_s() -> None:
    lab, shadow = shadowed()
    for own, seen in zip(play(Healthy(Key(1))), play(shadow), strict=True):
        assert not differs(own, seen)
    assert {entry.answered_by for entry in shadow.log} == {"device"}
    assert shadow.capabilities is lab.capabilities
    # The twin made the same calls.
    assert shadow.twin.ledger.total().passes == 3 * 2 + 1 + 3 + 3


def test_it_keeps_the_whole_contract() -> None:
    outcomes = run_checks(lambda: Shadow(Healthy(Key(1)), HealthyFloat(Key(2))))
    assert [(o.check, o.reason) for o in outcomes if o.status == "failed"] == []
    assert sum(o.status == "passed" for o in outcomes) > 20


@given(seed=st.integers(0, 2**32), bias=st.floats(0, 0.5))
def test_the_gap_is_the_rms_of_device_minus_twin(seed: int, bias: float) -> None:
    # Same law, same key: the noise is the same, so what is left is a known difference.
    config = IdealConfig(inputs=INPUTS, outputs=OUTPUTS, noise_v=0.1)

    class Off(Ideal):
        def program(self, setting: Any, *, key: Key) -> Written:
            return super().program((setting * (1 - bias)), key=key)

    shadow = Shadow(Ideal(config), Off(config))
    shadow.program(weights(seed), key=Key(0))
    shadow.forward(drive(5), key=Key(seed))
    expected = float((bias * (drive(5) @ weights(seed))).square().mean().sqrt())
    assert shadow.log[-1].gap == pytest.approx(expected, abs=1e-5)


def test_the_twin_answers_while_the_device_is_away_and_the_log_says_so() -> None:
    lab, shadow = shadowed(try_every=3)
    fence = Fence(shadow, name="unit")
    fence.program(weights(), key=Key(0))
    expected = Healthy(Key(2))
    expected.program(weights(), key=Key(0))
    for n in range(10):
        lab.plugged = not 2 <= n < 4
        measured = fence.forward(drive(), key=Key(n))
        own = expected.forward(drive(), key=Key(n))
        values = expected.capabilities.readings[0].decode(own.codes, own.ratio)
        assert torch.equal(measured.values, values) == (shadow.log[-1].answered_by == "twin")
    who = [(e.answered_by, e.event) for e in shadow.log if e.kind == "forward"]
    assert who == [
        *[("device", "")] * 2, ("twin", "lost"), *[("twin", "")] * 2, ("device", "back"),
        *[("device", "")] * 4,
    ]  # fmt: skip
    assert fence.ledger.total("unit").passes == 10 * 3


def test_on_its_return_the_device_is_brought_to_where_the_network_is() -> None:
    lab, shadow = shadowed()
    shadow.program(weights(1), key=Key(1))
    lab.plugged = False
    shadow.program(weights(2), key=Key(2))
    shadow.adjust("drift", 0.05, key=Key(3))
    shadow.wait(7.0)
    shadow.wait(5.0)
    shadow.set_range(drive(), key=Key(4))
    lab.plugged, lab.calls = True, []
    shadow.forward(drive(), key=Key(5).for_call("r-9"))
    assert [name for name, _, _ in lab.calls] == [
        "adjust", "wait", "program", "set_range", "forward",
    ]  # fmt: skip
    assert lab.calls[0][1] == ("drift", 0.05)
    assert lab.calls[1][1] == (12.0,)
    assert torch.equal(lab.calls[2][1][0], weights(2))
    assert lab.calls[2][2]["key"].call_id == "r-9-return-setting"
    assert shadow.log[-1].event == "back"
    lab.plugged = False
    shadow.forward(drive(), key=Key(6))
    lab.plugged, lab.calls = True, []
    shadow.forward(drive(), key=Key(7))
    # What was told once is not told again, but for the setting.
    assert [name for name, _, _ in lab.calls] == ["program", "forward"]


def test_a_device_that_fails_on_its_return_stays_away_and_loses_nothing() -> None:
    inner = Healthy(Key(1))
    # 1 program, 2-4 a forward lost; on return: 5 program is refused, 6 program passes.
    faulty = Faulty(inner, Key(0), at=dict.fromkeys((2, 3, 4, 5), "unavailable"))
    shadow = Shadow(faulty, Healthy(Key(2)), on_loss="twin", try_every=1)
    shadow.program(weights(), key=Key(0))
    for n in range(3):
        shadow.forward(drive(), key=Key(n))
    assert [(e.answered_by, e.event) for e in shadow.log][1:] == [
        ("twin", "lost"), ("twin", ""), ("device", "back"),
    ]  # fmt: skip


def test_a_hiccup_within_the_retries_is_no_loss() -> None:
    faulty = Faulty(Healthy(Key(1)), Key(0), at={2: "unavailable", 3: "unavailable"})
    shadow = Shadow(faulty, Healthy(Key(2)), on_loss="twin")
    shadow.program(weights(), key=Key(0))
    assert not differs(shadow.forward(drive(), key=Key(1)), _bare_reading())
    assert not shadow.away


def _bare_reading() -> Reading:
    bare = Healthy(Key(1))
    bare.program(weights(), key=Key(0))
    return bare.forward(drive(), key=Key(1))


def test_asked_to_raise_it_raises_and_goes_on_when_the_device_does() -> None:
    lab, shadow = shadowed(on_loss="raise")
    shadow.program(weights(), key=Key(0))
    lab.plugged = False
    with pytest.raises(DeviceUnavailable, match="pulled"):
        shadow.forward(drive(), key=Key(1))
    lab.plugged = True
    assert not differs(shadow.forward(drive(), key=Key(1)), _bare_reading())


def test_an_unknown_outcome_is_never_covered_up() -> None:
    faulty = Faulty(Healthy(Key(1)), Key(0), at={2: "unknown"})
    shadow = Shadow(faulty, Healthy(Key(2)), on_loss="twin")
    shadow.program(weights(), key=Key(0))
    with pytest.raises(OutcomeUnknown):
        shadow.forward(drive(), key=Key(1))


def test_versions_go_on_while_the_device_is_away() -> None:
    lab, shadow = shadowed()
    first = shadow.program(weights(1), key=Key(1)).state_version
    lab.plugged = False
    assert shadow.program(weights(2), key=Key(2)).state_version == first + 1
    assert shadow.forward(drive(), key=Key(3)).state_version == first + 1


def test_a_failing_twin_harms_no_device_but_is_noted() -> None:
    lab = Lab(Healthy(Key(1)))
    twin = Faulty(Healthy(Key(2)), Key(0), rate=1.0)
    shadow = Shadow(lab, twin, on_loss="twin")
    shadow.program(weights(), key=Key(0))
    assert not differs(shadow.forward(drive(), key=Key(1)), _bare_reading())
    assert shadow.log[-1].gap is None
    assert "planted" in shadow.log[-1].twin_error
    lab.plugged = False
    with pytest.raises(DeviceUnavailable, match="planted"):
        shadow.forward(drive(), key=Key(2))


def test_a_snapshot_needs_the_device_and_holds_the_twin() -> None:
    lab, shadow = shadowed()
    shadow.program(weights(), key=Key(0))
    kept, bare = shadow.snapshot(), Healthy(Key(1)).snapshot()
    shadow.program(weights(3), key=Key(1))
    shadow.restore(kept)
    lab.plugged = False
    stood_in = shadow.forward(drive(), key=Key(2))
    expected = Healthy(Key(2))
    expected.program(weights(), key=Key(0))
    assert torch.equal(stood_in.codes, expected.forward(drive(), key=Key(2)).codes)
    for act in (shadow.snapshot, lambda: shadow.restore(kept)):
        with pytest.raises(DeviceUnavailable, match="needs the device"):
            act()
    lab.plugged, lab.calls = True, []
    shadow.forward(drive(), key=Key(4))
    assert torch.equal(lab.calls[0][1][0]["weights"], weights())
    with pytest.raises(SnapshotError, match="twin"):
        shadow.restore(Snapshot(bare.device_id, bare.arrays, bare.values))


@pytest.mark.parametrize("plugged", [True, False])
def test_device_and_twin_are_closed_exactly_once(plugged: bool) -> None:
    lab, twin = Lab(Healthy(Key(1))), Lab(Healthy(Key(2)))
    shadow = Shadow(lab, twin, on_loss="twin")
    shadow.program(weights(), key=Key(0))
    lab.plugged = plugged
    shadow.forward(drive(), key=Key(1))
    if plugged:
        shadow.close()
    else:
        with pytest.raises(DeviceUnavailable):
            shadow.close()
    shadow.close()
    assert (lab.closed, twin.closed) == (1, 1)


def test_a_twin_with_other_ports_or_limits_is_refused() -> None:
    with pytest.raises(ConfigError, match="no twin of"):
        Shadow(Healthy(Key(1)), Ideal(IdealConfig(inputs=INPUTS, outputs=OUTPUTS)))
    with pytest.raises(ConfigError, match="on_loss"):
        Shadow(Healthy(Key(1)), Healthy(Key(2)), on_loss="hope")  # type: ignore[arg-type]


def test_a_float_twin_answers_in_the_codes_of_its_device() -> None:
    lab = Lab(Healthy(Key(1)))
    shadow = Shadow(lab, HealthyFloat(Key(1)), on_loss="twin")
    fence = Fence(shadow, name="unit")
    fence.program(weights(), key=Key(0))
    beside = fence.forward(drive(), key=Key(1))
    lab.plugged = False
    alone = fence.forward(drive(), key=Key(1))
    step = lab.capabilities.readings[0].step
    assert float((alone.values - beside.values).abs().max()) <= step
    assert set(alone.extra) == {"supply"}


# ---- training ---------------------------------------------------------------


def losses(outages: tuple[range, ...]) -> tuple[list[float], list[str], float]:
    """Loss of each of 60 steps, who answered, and the last loss on the device itself."""
    shadows: list[Shadow] = []
    labs: list[Lab] = []

    def wrap(device: MinimalBackend) -> MinimalBackend:
        wide = device.capabilities
        twin = Ideal(IdealConfig(inputs=wide.drives[0].shape[0], outputs=tiny.WIDTH, noise_v=0.05))
        labs.append(Lab(device))
        shadows.append(Shadow(labs[-1], _SameRange(twin, wide), on_loss="twin", try_every=1))
        return shadows[-1]

    trainer: Trainer = tiny.trainer(
        ("ideal",), lambda: tiny.plan(epochs=30, batch=12, rate=0.02), wrap=wrap
    )
    curve = []
    while not trainer.finished:
        labs[0].plugged = not any(len(curve) in outage for outage in outages)
        trainer.advance()
        assert trainer.last is not None
        curve.append(float(trainer.last.loss))
    x, _ = tiny.images(24)
    unit = trainer.network.units[0]
    z = feature(unit, unit.capture(x, key=Key(9)))
    return curve, [e.answered_by for e in shadows[0].log], float(z.mean())


class _SameRange:
    """A twin that declares the device's ports, whatever its noise."""

    def __init__(self, twin: Ideal, like: Any) -> None:
        self._twin, self.capabilities = twin, like

    def __getattr__(self, name: str) -> Any:
        return getattr(self._twin, name)

    program = property(lambda self: self._twin.program)
    forward = property(lambda self: self._twin.forward)
    close = property(lambda self: self._twin.close)


def test_a_swap_to_the_twin_and_back_keeps_the_loss_curve() -> None:
    # The twin has 2.5 times the device's noise; losses are in bits, of log2(3) = 1.58.
    undisturbed, all_device, mean = losses(())
    swapped, answered, swapped_mean = losses((range(15, 30),))
    assert set(all_device) == {"device"}
    assert {"device", "twin"} == set(answered) and answered[-1] == "device"
    assert undisturbed[:15] == swapped[:15]
    assert undisturbed[16:30] != swapped[16:30]
    assert np.abs(np.subtract(undisturbed, swapped)).max() < 0.1
    assert np.ptp(undisturbed) > 0.3  # it learns more than the tolerance
    assert swapped_mean == pytest.approx(mean, rel=0.1)


@settings(max_examples=4)
@given(start=st.integers(0, 40), length=st.integers(1, 15))
def test_training_gets_through_any_outage(start: int, length: int) -> None:
    curve, answered, _ = losses((range(start, start + length),))
    assert len(curve) == 60
    assert np.isfinite(curve).all()
    assert answered[-1] == "device"
