"""Derivatives measured on a device by shifting its phases are those of the device."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pib.unit import DigitalLayerUnit
from tests.validation.baselines.tiny import IDEAL, RIG, STEADY, any_twins, config, counted, task
from twin.backend import Capabilities, Port, Reading
from twin.errors import Unsupported
from twin.fence import Fence
from twin.key import Key
from validation.baselines import shift
from validation.baselines.chain import ChainRule
from validation.baselines.joint import JointTraining
from validation.baselines.shift import METHOD, ThroughShift, shifted

INPUTS, PIXELS = 7, 5


class Interferometer:
    """|T exp(i pi drive)|^2 in float64, with Gaussian noise and perhaps few phases."""

    def __init__(self, noise: float = 0.0, levels: int | None = None) -> None:
        generator = Key(1).torch()
        shape = (INPUTS, PIXELS)
        self.matrix = torch.complex(
            *(torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(2))
        )
        self._noise = noise
        self.capabilities = Capabilities(
            device_id="interferometer", deterministic=noise == 0, seedable=True,
            drives=(Port(name="phases", shape=(INPUTS,), unit="rad", full_scale=math.pi,
                         levels=levels),),
            settings=(),
            readings=(Port(name="frame", shape=(PIXELS,), low=-1e3, high=1e3),),
        )  # fmt: skip

    def intensity(self, drive: Tensor) -> Tensor:
        light = torch.exp(1j * math.pi * drive.double())
        return (light @ self.matrix).abs().square()

    def program(self, setting: Any, *, key: Key) -> Any:
        raise NotImplementedError

    def forward(
        self, drive: Any, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        assert isinstance(drive, Tensor)
        values = self.intensity(drive)
        generator = key.child(first_sample).torch()
        noise = torch.randn(values.shape, dtype=torch.float64, generator=generator)
        return Reading(codes=(values + self._noise * noise).float(), state_version=0)

    def close(self) -> None:
        pass


def unit_of(device: Interferometer) -> DigitalLayerUnit:
    return DigitalLayerUnit(Fence(device, name="unit 2"), outputs=3, key=Key(0))


def slope(device: Interferometer, drive: Tensor, weights: Tensor) -> Tensor:
    """d (weights . reading) / d drive by autograd of the formula, (n, inputs)."""
    with torch.enable_grad():
        leaf = drive.double().requires_grad_(True)
        score = (device.intensity(leaf) * weights.double()).sum()
    return torch.autograd.grad(score, leaf)[0].float()


def batch(n: int, levels: int | None = None) -> tuple[Tensor, Tensor]:
    drive = torch.rand((n, INPUTS), generator=Key(2).torch())
    if levels is not None:
        drive = (drive * (levels - 1)).round() / (levels - 1)
    return drive, torch.randn((n, PIXELS), generator=Key(3).torch())


@pytest.mark.parametrize("levels", [None, 256, 4])
def test_without_noise_the_measured_slope_is_the_derivative(levels: int | None) -> None:
    """Also where the modulator has no phase of pi / 2, and at the ends of its range."""
    device = Interferometer(levels=levels)
    drive, weights = batch(6, levels)
    drive[0], drive[1] = 0.0, 1.0
    measured = shifted(unit_of(device), drive, weights, 4, Key(4))
    exact = slope(device, drive, weights)[:, :4]
    assert torch.allclose(measured, exact, rtol=1e-4, atol=1e-4 * float(exact.abs().max()))


def test_under_noise_it_is_right_on_average() -> None:
    """2,000 repeats of one drive, each slope's mean within five standard errors, and
    the errors small against the slopes."""
    device = Interferometer(noise=2.0)
    drive, weights = (t.repeat(2000, 1) for t in batch(1))
    measured = shifted(unit_of(device), drive, weights, INPUTS, Key(4))
    error = measured.std(0) / 2000**0.5
    exact = slope(device, drive[:1], weights[:1])[0]
    assert bool(((measured.mean(0) - exact).abs() < 5 * error).all())
    assert float(error.norm()) < 0.1 * float(exact.norm())


class FiniteDifference:
    """The derivative of a quiet rig by small steps of its modulator, averaged passes aside."""

    passes_per_input = 0

    def begin(self, task: Any) -> None:
        pass

    def at_drive(
        self, index: int, unit: Any, drive: Tensor, at_reading: Tensor, key: Key
    ) -> Tensor:
        found = torch.zeros_like(drive)
        for i in range(drive.shape[1]):
            ends = []
            for side in (1, -1):
                moved = drive.clone()
                moved[:, i] = (moved[:, i] + side * 0.04).clamp(0, 1)
                record = unit.capture(moved, key=key)
                ends.append(((record.values * at_reading).sum(1), record.drive[:, i]))
            (high, at_high), (low, at_low) = ends
            found[:, i] = (high - low) / (at_high - at_low)
        return found


def test_on_a_quiet_rig_it_agrees_with_small_steps_of_its_phases() -> None:
    """A rig with a 16-bit camera and no noise; inputs inside the modulator's range, where
    steps of 0.04 bend a cosine by (0.04 pi)^2 / 6 = 0.3 %."""
    made = task(config(STEADY.format(n=6), STEADY.format(n=5)), twins=any_twins)
    training = JointTraining(made, ChainRule(ThroughShift()))
    training._begin()
    passed = training.forward(torch.arange(15), Key(1))
    record, unit = passed.records[1], made.network.units[1]
    weights = torch.randn(record.values.shape, generator=Key(2).torch())
    through = ThroughShift()
    through.begin(made)
    spent = counted(made)
    measured = through.at_drive(1, unit, record.drive, weights, Key(3))
    assert counted(made) - spent == 3 * 6 * 15
    assert not measured[:, 6:].any()
    inside = ((record.drive > 0.05) & (record.drive < 0.95))[:, :6]
    steps = FiniteDifference().at_drive(1, unit, record.drive, weights, Key(4))
    error = (measured - steps)[:, :6][inside].norm()
    assert float(error) < 0.02 * float(steps[:, :6][inside].norm())


def test_how_many_patterns_go_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = task(config(STEADY.format(n=6), STEADY.format(n=5)))
    through, unit = ThroughShift(), made.network.units[1]
    through.begin(made)
    drive = torch.rand((7, 15), generator=Key(1).torch())
    weights = torch.randn((7, 12), generator=Key(2).torch())
    found = []
    for rows in (shift.ROWS, 40, 1):
        monkeypatch.setattr(shift, "ROWS", rows)
        found.append(through.at_drive(1, unit, drive, weights, Key(3)))
    assert torch.allclose(found[0], found[1], atol=1e-4)
    assert torch.allclose(found[0], found[2], atol=1e-4)


def test_a_drive_that_is_no_phase_is_refused() -> None:
    for second in (IDEAL, RIG.replace("pixels = 12", 'pixels = 12, modulator = "dmd"'), RIG):
        made = config(RIG.format(n=6), second.format(n=5))
        refused = METHOD.refusal(made)
        assert (refused is None) == (second is RIG)
        if refused is not None:
            assert "unit.1" in refused
            with pytest.raises(Unsupported, match="unit 2"):
                ThroughShift().begin(task(made))
    bent = RIG.replace("pixels = 12", "pixels = 12, modulator = {{ settling_s = 0.01 }}")
    assert "settling_s" in str(METHOD.refusal(config(RIG.format(n=6), bent.format(n=5))))
    assert METHOD.refusal(config(IDEAL.format(n=6))) is None
