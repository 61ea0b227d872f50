"""Units in a row: what each is driven with, and what the whole keeps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pib.network import Network
from tests.pib import tiny
from twin.errors import CheckpointError, ConfigError
from twin.key import Key

seeds = st.integers(0, 2**32)
SEVERAL = settings(max_examples=15, deadline=None)
CHAINS = [("ideal", "ideal"), ("memristor", "memristor"), ("optics", "memristor")]


def ready(names: tuple[str, ...], skip: bool = True) -> Network:
    """Written, ranged and linked, as after training."""
    network = tiny.network(names, skip)
    x, _ = tiny.images(24)
    before = None
    for i, unit in enumerate(network.units):
        unit.deploy(Key(2).child("write", i))
        unit.calibrate(network.drive(i, x, before), key=Key(2).child("range", i))
        before = network.features(x, key=Key(2).child("link", i), until=i + 1)[-1]
        network.calibrate_link(i, before)
    return network


@SEVERAL
@given(seed=seeds, skip=st.booleans(), scale=st.floats(1e-3, 1e3), size=st.floats(0, 1e4))
def test_every_drive_lies_between_zero_and_one(
    seed: int, skip: bool, scale: float, size: float
) -> None:
    network = tiny.network(("ideal", "ideal"), skip)
    network.scales[0] = scale
    x, _ = tiny.images(5, seed)
    z = size * torch.rand((5, tiny.WIDTH), generator=Key(seed).torch())
    drive = network.drive(1, x, z)
    assert drive.min() >= 0 and drive.max() <= 1
    assert drive.shape == (5, tiny.WIDTH + (tiny.PIXELS if skip else 0))
    if skip:
        assert torch.equal(drive[:, tiny.WIDTH :], x)
    torch.testing.assert_close(drive[:, : tiny.WIDTH], (z / scale).clamp(max=1))
    assert torch.equal(network.drive(0, x, None), x)


@pytest.mark.parametrize("names", CHAINS)
def test_the_chunks_images_are_sent_in_change_no_feature(names: tuple[str, ...]) -> None:
    """Chunks of whole noise blocks; products of parts differ by rounding, which
    moves a converter by one code now and then."""
    x, _ = tiny.images(192)
    found = [ready(names).features(x, key=Key(3), chunk=chunk) for chunk in (64, 2048)]
    for a, b in zip(*found, strict=True):
        assert a.shape == b.shape == (192, tiny.WIDTH)
        # A device's clock runs on within a pass, which ages the memristor by 1e-6.
        assert float((a - b).abs().max()) <= 0.02 * float(b.max())


@SEVERAL
@given(seed=seeds, quantile=st.floats(0.5, 0.999))
def test_the_link_lets_its_quantile_be_a_full_drive(seed: int, quantile: float) -> None:
    network = tiny.network(("ideal", "ideal"))
    z = torch.randn((50, tiny.WIDTH), generator=Key(seed).torch()).clamp_min(0)
    network.calibrate_link(0, z, quantile)
    live = z[z > 0]
    share = float((live <= network.scales[0]).double().mean())
    assert abs(share - quantile) <= 1 / len(live) + 1e-6


def test_a_unit_whose_features_are_all_off_is_still_linked() -> None:
    network = tiny.network(("ideal", "ideal"))
    network.calibrate_link(0, torch.zeros(4, tiny.WIDTH))
    assert network.scales[0] == 1.0


@pytest.mark.parametrize("names", CHAINS)
def test_a_saved_state_brings_another_network_to_the_same_numbers(names: tuple[str, ...]) -> None:
    network, other = ready(names), tiny.network(names)
    with torch.no_grad():
        for parameter in network.parameters().values():
            parameter.add_(0.1)
    other.load(network.state())
    assert tiny.same_tensors(network.state(), other.state())
    saved = network.state()
    next(iter(network.parameters().values())).zero_()
    assert not tiny.same_tensors(saved, network.state()), "a state must be a copy"


def test_the_state_of_another_network_is_refused_and_changes_nothing() -> None:
    network = ready(("memristor",))
    before = network.state()
    foreign = dict(ready(("memristor", "memristor")).state())
    foreign["parameter.unit 1.bias"] = torch.ones(1)  # would broadcast
    with pytest.raises(CheckpointError, match="of another network"):
        network.load(foreign)
    del foreign["parameter.unit 1.bias"]
    with pytest.raises(CheckpointError, match="nothing"):
        network.load(foreign)
    assert tiny.same_tensors(before, network.state())


def test_a_network_without_units_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one unit"):
        Network([])


def test_closing_reaches_every_device_also_when_one_fails() -> None:
    network = tiny.network(("ideal", "ideal"))
    closed: list[str] = []

    def failing() -> None:
        closed.append("first")
        raise OSError("cable")

    network.units[0].fence.close = failing  # type: ignore[method-assign]
    network.units[1].fence.close = lambda: closed.append("second")  # type: ignore[method-assign]
    with pytest.raises(OSError, match="cable"):
        network.close()
    assert closed == ["first", "second"]
