"""An slmsuite SLM and camera behind the contract, against slmsuite's own simulated devices."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from substrates.adapters.slmsuite import BRIGHTEST, SlmsuiteRig, layout, make
from twin.errors import ConfigError, DeviceUnavailable, ReadingError, Unsupported
from twin.fence import Fence
from twin.key import Key
from validation import conformance

KEY = Key(3)


def test_the_adapter_keeps_the_contract() -> None:
    outcomes = conformance.run_checks(lambda: make(key=Key(0), inputs=16, pixels=64))
    assert [o for o in outcomes if o.status == "failed"] == []
    assert sum(o.status == "passed" for o in outcomes) >= 20


@given(inputs=st.integers(1, 400), height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_every_input_has_a_block_of_its_own_or_the_size_is_refused(
    inputs: int, height: int, width: int
) -> None:
    try:
        (rows, columns), (tall, wide) = layout(inputs, (height, width))
    except ConfigError:
        fits = [r for r in range(1, inputs + 1) if inputs % r == 0]
        assert all(r > height or inputs // r > width for r in fits)
        return
    assert rows * columns == inputs
    assert 1 <= tall * rows <= height and 1 <= wide * columns <= width


@dataclass
class Slm:
    """Keeps what it was shown."""

    shape: tuple[int, int] = (8, 8)
    name: str = "slm"
    bitresolution: int = 256
    phase_scaling: float = 1.0
    shown: list[Any] = field(default_factory=list)
    closed: int = 0

    def set_phase(self, phase: Any, settle: bool) -> None:
        self.shown.append(None if phase is None else np.array(phase))

    def close(self) -> None:
        self.closed += 1


@dataclass
class Camera:
    """Sees the mean phase of each quarter of the SLM, in proportion to the exposure."""

    slm: Slm
    name: str = "camera"
    bitresolution: int = 256
    exposure_s: float = 0.01
    shape: tuple[int, int] = (4, 4)
    fault: Exception | None = None
    dtype: str = "uint8"
    closed: int = 0

    def get_image(self, timeout_s: float) -> np.ndarray:
        if self.fault is not None:
            raise self.fault
        phase = self.slm.shown[-1]
        light = phase.reshape(4, 2, 4, 2).mean((1, 3)) * 40 * self.exposure_s / 0.01
        return np.clip(np.rint(light), 0, 255).astype(self.dtype)

    def set_exposure(self, seconds: float) -> None:
        self.exposure_s = seconds

    def get_exposure(self) -> float:
        return self.exposure_s

    def close(self) -> None:
        self.closed += 1


def rig(**changes: Any) -> tuple[SlmsuiteRig, Slm, Camera]:
    slm = Slm()
    camera = Camera(slm, **changes)
    return SlmsuiteRig(slm, camera, inputs=16), slm, camera


def test_an_input_of_one_is_half_a_turn_in_its_own_block() -> None:
    device, slm, _ = rig()
    drive = torch.zeros(1, 16)
    drive[0, 6] = 1.0
    device.forward(drive, key=KEY)
    expected = np.zeros((8, 8))
    expected[2:4, 4:6] = math.pi
    np.testing.assert_allclose(slm.shown[-1], expected)


def test_counts_are_those_of_the_camera_and_shots_are_measured_each() -> None:
    device, slm, _ = rig()
    got = device.forward(torch.full((3, 16), 0.5), key=KEY, shots=2)
    assert got.codes.shape == (2, 3, 16) and got.codes.dtype == torch.int32
    assert (got.codes == round(math.pi / 2 * 40)).all()
    assert len(slm.shown) == 3


def test_ranging_changes_the_exposure_but_not_what_a_value_means() -> None:
    device, _, camera = rig()
    fence = Fence(device, name="rig")
    drive = torch.rand((5, 16), generator=Key(1).torch())
    before = fence.forward(drive, key=KEY).values
    fence.set_range(drive, key=KEY)
    after = fence.forward(drive, key=KEY)
    assert camera.exposure_s != 0.01
    peak = float(after.values.max() / after.ratio)
    assert abs(peak - BRIGHTEST) < 0.03
    # Half a code of either exposure.
    torch.testing.assert_close(after.values, before, atol=1.5 / 255, rtol=0)
    assert fence.ledger.total().ranging_passes >= 5


def test_too_bright_a_frame_is_ranged_down() -> None:
    device, _, camera = rig(exposure_s=0.2)
    device.set_range(torch.ones(2, 16), key=KEY)
    assert float(device.forward(torch.ones(2, 16), key=KEY).codes.max()) < 255
    assert camera.exposure_s < 0.2


@pytest.mark.parametrize("error", [TimeoutError("late"), RuntimeError("bus"), OSError("gone")])
def test_a_frame_that_does_not_come_may_be_asked_for_again(error: Exception) -> None:
    device, _, camera = rig()
    camera.fault = error
    with pytest.raises(DeviceUnavailable, match="no frame"):
        device.forward(torch.zeros(1, 16), key=KEY)


def test_averaged_frames_are_refused() -> None:
    device, _, _ = rig(dtype="float32")
    with pytest.raises(ReadingError, match="counts"):
        device.forward(torch.zeros(1, 16), key=KEY)


def test_closing_leaves_a_flat_phase_and_releases_both_devices_once() -> None:
    device, slm, camera = rig()
    device.close()
    device.close()
    assert slm.shown == [None] and (slm.closed, camera.closed) == (1, 1)


def test_what_does_not_fit_is_refused() -> None:
    slm = Slm()
    with pytest.raises(ConfigError, match="outside"):
        SlmsuiteRig(slm, Camera(slm), inputs=16, region=(0, 0, 5, 4))
    with pytest.raises(ConfigError, match="do not fit"):
        SlmsuiteRig(slm, Camera(slm), inputs=67)
    with pytest.raises(ConfigError, match="square"):
        make(key=Key(0), inputs=16, pixels=60)
    device, _, _ = rig()
    with pytest.raises(Unsupported, match="nothing to program"):
        device.program(torch.zeros(1), key=KEY)


def test_the_simulated_pair_makes_speckle_and_another_plate_another_one() -> None:
    """256 pixels of 20 drives: contrast of exponential intensities is 1, its standard error
    at most 1.5 / sqrt(256 * 20 / 4) = 0.042 with a quarter of the pixels independent."""
    drive = torch.rand((20, 64), generator=Key(2).torch())
    one, other = (make(key=Key(n), inputs=64, read_noise=0.0) for n in (1, 2))
    first, second = (d.forward(drive, key=KEY).codes.double() for d in (one, other))
    assert abs(float(first.std() / first.mean()) - 1) < 5 * 0.042
    correlation = torch.corrcoef(torch.stack([first.ravel(), second.ravel()]))[0, 1]
    # Plates are independent; drives share them, so that 256 numbers count.
    assert abs(float(correlation)) < 5 / math.sqrt(256)
    again = make(key=Key(1), inputs=64, read_noise=0.0).forward(drive, key=KEY).codes.double()
    assert torch.equal(first, again)


def test_a_network_of_slmsuite_devices_learns_digits_by_pib() -> None:
    """360 test images, of which guessing finds 10 +- 1.6 %; measured: 64 %."""
    from validation import datasets
    from validation.config import RunConfig
    from validation.experiment import (
        build_network,
        build_plans,
        build_trainer,
        fit_readout,
        seen_by_readout,
        tensors,
    )

    unit = {
        "backend": "slmsuite", "kind": "broken-isomorphism", "outputs": 24, "epochs": 4,
        "recapture": "never", "options": {"pixels": 144},
    }  # fmt: skip
    switches = {"skip": False, "hard_examples": False, "shared_clock": False}
    config = RunConfig.model_validate(
        {"data": {"name": "digits"}, "network": switches, "unit": [unit, unit]}
    )
    data = tensors(datasets.load("digits", limit=400))
    network = build_network(config, 64, key=Key(0))
    try:
        trainer = build_trainer(network, data, build_plans(config), key=Key(0).child("train"))
        trainer.RECORDS_PER_UNIT = trainer.PROBES_PER_UNIT = 0
        while not trainer.finished:
            trainer.advance()
        seen = seen_by_readout(config, trainer.measured)
        readout = fit_readout(config, seen, data.train[1], 10, key=Key(1))
        features = network.features(data.test[0], key=Key(2))
        accuracy = readout.accuracy(seen_by_readout(config, features), data.test[1])
    finally:
        network.close()
    assert accuracy > 0.5
