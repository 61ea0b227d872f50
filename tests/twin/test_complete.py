"""Four methods make a driver; the rest of the contract is added."""

from __future__ import annotations

import pytest
import torch

from substrates.ideal import Ideal, IdealConfig
from tests.planted import Healthy
from twin.backend import Backend, Capabilities, Dial, MinimalBackend, Port, Reading, Snapshot
from twin.complete import OPTIONAL, complete
from twin.errors import DialError, UnknownName, Unsupported
from twin.key import Key


class Lamp:
    """The shortest driver: brightness in, brightness out."""

    def __init__(self, **declared: object) -> None:
        self.closed = 0
        port = Port(name="light", shape=(2,))
        self.capabilities = Capabilities(
            device_id="lamp",
            drives=(port,),
            readings=(port,),
            **declared,  # type: ignore[arg-type]
        )

    def program(self, setting: object, *, key: Key) -> object:
        raise Unsupported("lamp: there is nothing to program.")

    def forward(
        self, drive: torch.Tensor, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        return Reading(codes=drive if shots is None else drive.expand(shots, *drive.shape))

    def close(self) -> None:
        self.closed += 1


def test_a_four_method_driver_is_a_full_backend() -> None:
    lamp = Lamp()
    assert isinstance(lamp, MinimalBackend)
    assert not isinstance(lamp, Backend)
    assert isinstance(complete(lamp), Backend)


def test_a_full_backend_is_left_as_it_is() -> None:
    chip = Healthy(Key(0))
    assert complete(chip) is chip


def test_what_the_driver_has_is_passed_through() -> None:
    drive = torch.full((3, 2), 0.5)
    reading = complete(Lamp()).forward(drive, key=Key(0), shots=4)
    assert reading.codes.shape == (4, 3, 2)
    assert complete(Ideal(IdealConfig())).capabilities.programmable


def test_what_the_driver_lacks_is_refused_by_name() -> None:
    lamp = complete(Lamp())
    with pytest.raises(Unsupported, match="lamp has no adjustable range"):
        lamp.set_range(torch.zeros(1, 2), key=Key(0))
    with pytest.raises(Unsupported, match="cannot save its state"):
        lamp.snapshot()
    with pytest.raises(Unsupported, match="use Replayed"):
        lamp.restore(Snapshot("lamp", {}, {}))
    with pytest.raises(UnknownName, match="no dial"):
        lamp.adjust("colour", 0.5, key=Key(0))


def test_a_declared_dial_that_cannot_be_turned_is_an_error_about_the_dial() -> None:
    dial = Dial(name="colour", unit="1", low=0, high=1, ideal=0, default=0, severe=1)
    with pytest.raises(DialError, match="declares the dial but cannot turn it"):
        complete(Lamp(dials=(dial,))).adjust("colour", 0.5, key=Key(0))


def test_a_virtual_clock_without_a_wait_is_refused() -> None:
    with pytest.raises(Unsupported, match="virtual clock but no wait"):
        complete(Lamp(clock="virtual")).wait(1.0)


def test_a_wall_clock_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("twin.complete.time.sleep", slept.append)
    complete(Lamp()).wait(1.5)
    assert slept == [1.5]


def test_closing_reaches_the_driver_once() -> None:
    lamp = Lamp()
    whole = complete(lamp)
    whole.close()
    whole.close()
    assert lamp.closed == 1


@pytest.mark.parametrize("member", OPTIONAL)
def test_a_driver_with_one_more_member_keeps_it(member: str) -> None:
    class Richer(Lamp):
        pass

    called: list[str] = []
    setattr(Richer, member, lambda self, *args, **kwargs: called.append(member))
    dial = Dial(name="colour", unit="1", low=0, high=1, ideal=0, default=0, severe=1)
    whole = complete(Richer(dials=(dial,)))
    arguments = {
        "set_range": (torch.zeros(1, 2),),
        "adjust": ("colour", 0.5),
        "wait": (1.0,),
        "snapshot": (),
        "restore": (Snapshot("lamp", {}, {}),),
    }[member]
    keyed = {"key": Key(0)} if member in ("set_range", "adjust") else {}
    getattr(whole, member)(*arguments, **keyed)
    assert called == [member]
