"""A network that loses, repeats, delays and reorders: the device acts once a request."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planted import INPUTS, Healthy
from tests.twin.remote.support import Counting, Lossy, local
from twin.errors import DeviceUnavailable
from twin.fence import Fence
from twin.key import Key
from twin.plain import differs

STEPS = st.lists(st.sampled_from(["forward", "program", "adjust", "late"]), min_size=1, max_size=8)


def one_schedule(seed: int, steps: list[str], rate: float) -> None:
    lossy = partial(Lossy, chance=random.Random(seed), rate=rate)
    device = Counting(Key(3))
    remote, _, network = local(device, lossy, deadline_s=20.0, patience_s=20.0)
    assert isinstance(network, Lossy)
    network.calm = False
    fence = Fence(remote, name="far", run_id=f"run{seed}", retries=20)
    twin = Fence(Healthy(Key(3)), name="near", run_id="near")
    for number, step in enumerate(steps):
        key = Key(seed).child(number)
        if step == "forward":
            drive = torch.rand((3, INPUTS), generator=key.torch())
            far, near = (f.forward(drive, key=key) for f in (fence, twin))
            assert torch.equal(far.values, near.values)
            assert far.clock_s == near.clock_s
        elif step == "program":
            setting = torch.rand((INPUTS, 4), generator=key.torch()) * 2 - 1
            written = [f.program({"weights": setting}, key=key) for f in (fence, twin)]
            assert not differs(written[0], written[1])
        elif step == "adjust":
            value = 0.1 * (number + 1)
            versions = [f.adjust("read_noise", value, key=key) for f in (fence, twin)]
            assert versions[0] == versions[1]
        else:
            network.deliver_late()
    network.deliver_late(everything=True)
    assert len(device.acted) == steps.count("forward")
    network.calm = True
    assert not differs(remote.snapshot(), twin.snapshot())


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), steps=STEPS, rate=st.sampled_from([0.3, 0.7, 0.95]))
def test_the_device_acts_once_for_each_request(seed: int, steps: list[str], rate: float) -> None:
    one_schedule(seed, steps, rate)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(seed=st.integers(0, 2**32), steps=STEPS, rate=st.floats(0.1, 0.95))
def test_the_device_acts_once_in_a_thousand_schedules(
    seed: int, steps: list[str], rate: float
) -> None:
    one_schedule(seed, steps, rate)


def test_a_network_that_loses_everything_ends_in_a_typed_error() -> None:
    class Dead(random.Random):
        def random(self) -> float:
            return 0.3

    device = Counting(Key(3))
    remote, _, network = local(device, partial(Lossy, chance=Dead(), rate=1.0), deadline_s=0.2)
    assert isinstance(network, Lossy)
    network.calm = False
    with pytest.raises(DeviceUnavailable, match="same call may be tried again"):
        remote.forward(torch.zeros(2, INPUTS), key=Key(1).for_call("a"))
