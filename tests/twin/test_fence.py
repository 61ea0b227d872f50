"""The fence: what is wrong is refused by name, and no gradient passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.planted import INPUTS, OUTPUTS, Healthy, HealthyFloat, LeakedGraph
from twin.backend import Capabilities, Port, Ranged, Reading, Values, Written, single
from twin.errors import (
    ConfigError,
    DeviceUnavailable,
    DialError,
    DriveError,
    OutcomeUnknown,
    ProcessStateError,
    ReadingError,
    SettingError,
    UnknownName,
    Unsupported,
)
from twin.fence import Fence
from twin.key import SAMPLE_BLOCK, Key
from twin.wrap import Faulty


def fenced(backend: Any = None, **options: Any) -> Fence:
    return Fence(backend or Healthy(Key(3)), name="chip", **options)


def drive(batch: int = 5, seed: int = 0) -> Tensor:
    return torch.rand((batch, INPUTS), generator=Key(seed).torch())


def weights(seed: int = 0) -> Tensor:
    return 2 * torch.rand((INPUTS, OUTPUTS), generator=Key(seed).torch()) - 1


class Scripted(HealthyFloat):
    """Does to each reading what it was told; keeps what reached it."""

    def __init__(self, change: Callable[[Reading], Reading] = lambda r: r) -> None:
        super().__init__(Key(3))
        self.change = change
        self.drives: list[Values] = []
        self.settings: list[Values] = []
        self.keys: list[Key] = []
        self.grad_modes: list[bool] = []
        self.firsts: list[int] = []

    def program(self, setting: Values, *, key: Key) -> Written:
        self.settings.append(setting)
        self.keys.append(key)
        self.grad_modes.append(torch.is_grad_enabled())
        return super().program(setting, key=key)

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        self.drives.append(drive)
        self.keys.append(key)
        self.firsts.append(first_sample)
        self.grad_modes.append(torch.is_grad_enabled())
        reading = super().forward(drive, key=key, first_sample=first_sample, shots=shots)
        return self.change(reading)


# ---- what goes in ----------------------------------------------------------

BAD_DRIVES: dict[str, tuple[Any, str]] = {
    "one feature too few": (torch.zeros(2, INPUTS - 1), "shape"),
    "no batch axis": (torch.zeros(INPUTS), "shape"),
    "an axis too many": (torch.zeros(1, 2, INPUTS), "shape"),
    "an empty batch": (torch.zeros(0, INPUTS), "empty batch"),
    "NaN": (torch.full((1, INPUTS), float("nan")), r"NaN or infinite value at index \[0, 0\]"),
    "infinite": (torch.full((1, INPUTS), float("inf")), "NaN or infinite"),
    "too large": (torch.full((1, INPUTS), 1.5), "the port takes 0 to 1"),
    "too small": (torch.full((1, INPUTS), -0.5), "the port takes 0 to 1"),
    "integers": (torch.zeros(1, INPUTS, dtype=torch.int64), "tensor of floats"),
    "a list": ([[0.0] * INPUTS], "tensor of floats, got list"),
}


@pytest.mark.parametrize("kind", BAD_DRIVES)
def test_a_bad_drive_is_refused_before_it_reaches_the_backend(kind: str) -> None:
    bad, message = BAD_DRIVES[kind]
    backend = Scripted()
    fence = fenced(backend)
    with pytest.raises(DriveError, match=message) as caught:
        fence.forward(bad, key=Key(0))
    assert "chip" in str(caught.value)
    assert backend.drives == []
    assert fence.ledger.total().passes == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(OUTPUTS, INPUTS), "Transpose"),
        (torch.full((INPUTS, OUTPUTS), float("nan")), "NaN"),
        (torch.full((INPUTS, OUTPUTS), 2.0), "-1 to 1"),
        (torch.zeros(INPUTS, OUTPUTS, dtype=torch.int32), "floats"),
    ],
)
def test_a_bad_setting_is_refused_before_it_reaches_the_backend(bad: Tensor, message: str) -> None:
    backend = Scripted()
    with pytest.raises(SettingError, match=message):
        fenced(backend).program(bad, key=Key(0))
    assert backend.settings == []


def test_unknown_and_missing_ports_are_named() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'in'"):
        fenced().forward({"inn": drive()}, key=Key(0))
    with pytest.raises(DriveError, match="lacks the port"):
        fenced().forward({}, key=Key(0))


@pytest.mark.parametrize("options", [{"shots": 0}, {"first_sample": -1}])
def test_shots_and_sample_numbers_must_make_sense(options: dict[str, int]) -> None:
    with pytest.raises(DriveError, match=next(iter(options))):
        fenced().forward(drive(), key=Key(0), **options)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_wait_must_be_finite_and_forward(seconds: float) -> None:
    with pytest.raises(DialError, match="finite and >= 0"):
        fenced().wait(seconds)


@pytest.mark.parametrize(
    ("dial", "value", "error"),
    [
        ("drif", 0.1, UnknownName),
        ("drift", 0.3, DialError),
        ("drift", float("nan"), DialError),
        ("drift", torch.zeros(2), DialError),
        ("stuck", 0.0, DialError),
        ("stuck", torch.full((OUTPUTS,), 2.0), DialError),
    ],
)
def test_a_dial_is_turned_within_its_range_only(
    dial: str, value: Any, error: type[Exception]
) -> None:
    backend = Healthy(Key(3))
    before = backend.snapshot()
    with pytest.raises(error, match=dial):
        fenced(backend).adjust(dial, value, key=Key(0))
    assert backend.snapshot().values == before.values


def test_a_read_only_dial_refuses() -> None:
    backend = Healthy(Key(3))
    dials = tuple(replace(d, read_only=True) for d in backend.capabilities.dials)
    backend.capabilities = replace(backend.capabilities, dials=dials)
    with pytest.raises(DialError, match="read-only"):
        fenced(backend).adjust("drift", 0.1, key=Key(0))


def test_what_the_device_cannot_do_is_refused() -> None:
    backend = Healthy(Key(3))
    able = backend.capabilities
    backend.capabilities = replace(able, restorable=False, rangeable=False, settings=())
    fence = fenced(backend)
    for act in (
        fence.snapshot,
        lambda: fence.restore(backend.snapshot()),
        lambda: fence.set_range(drive(), key=Key(0)),
        lambda: fence.program(weights(), key=Key(0)),
    ):
        with pytest.raises(Unsupported, match="chip"):
            act()


# ---- what comes out --------------------------------------------------------

BAD_READINGS: dict[str, tuple[Callable[[Reading], Reading], str]] = {
    "squeezed": (lambda r: replace(r, codes=r.codes[0]), "has shape"),
    "one row missing": (lambda r: replace(r, codes=r.codes[1:]), "has shape"),
    "one axis more": (lambda r: replace(r, codes=r.codes[..., None]), "has shape"),
    "another dtype": (lambda r: replace(r, codes=r.codes.double()), "has dtype"),
    "NaN": (lambda r: replace(r, codes=r.codes * float("nan")), "never as NaN"),
    "infinite": (lambda r: replace(r, codes=r.codes + float("inf")), "NaN or infinite"),
    "a NaN range": (lambda r: replace(r, ratio=float("nan")), "range of 'out' holds a NaN"),
    "a NaN cost": (lambda r: replace(r, joules=float("nan")), "Report 0.0 where unknown"),
    "above its port": (lambda r: replace(r, codes=r.codes + 10), "outside its port"),
    "below its port": (lambda r: replace(r, codes=r.codes - 10), "outside its port"),
    "a port missing": (lambda r: replace(r, extra={}), "lacks the declared port 'supply'"),
    "a bad extra port": (
        lambda r: replace(r, extra={"supply": r.extra["supply"] * float("nan")}),
        "'supply' holds a NaN",
    ),
}


@pytest.mark.parametrize("kind", BAD_READINGS)
def test_a_bad_reading_is_refused_and_not_counted(kind: str) -> None:
    change, message = BAD_READINGS[kind]
    fence = fenced(Scripted(change))
    with pytest.raises(ReadingError, match=message) as caught:
        fence.forward(drive(), key=Key(0))
    assert "chip" in str(caught.value)
    assert fence.ledger.total().passes == 0


@pytest.mark.parametrize("fault", ["nan", "range", "shape", "dtype", "batch"])
@pytest.mark.parametrize("kind", [Healthy, HealthyFloat])
def test_a_faulty_device_is_caught_in_the_very_call(kind: type[Healthy], fault: str) -> None:
    fence = fenced(Faulty(kind(Key(3)), Key(0), at={2: fault}))
    fence.forward(drive(), key=Key(0))
    with pytest.raises(ReadingError, match="chip"):
        fence.forward(drive(), key=Key(0))
    fence.forward(drive(), key=Key(0))
    assert fence.ledger.total().calls == 2


def test_an_achieved_setting_must_be_finite() -> None:
    class Lost(Healthy):
        def program(self, setting: Values, *, key: Key) -> Written:
            nothing = {"weights": torch.full((INPUTS, OUTPUTS), float("nan"))}
            return replace(super().program(setting, key=key), achieved=nothing)

    with pytest.raises(ReadingError, match="achieved 'weights'"):
        fenced(Lost(Key(3))).program(weights(), key=Key(0))


@given(seed=st.integers(0, 2**32), batch=st.integers(1, 9), ratio=st.floats(0.1, 4.0))
@settings(max_examples=30, deadline=None)
def test_codes_are_decoded_on_the_nominal_scale(seed: int, batch: int, ratio: float) -> None:
    backend = Healthy(Key(seed))
    backend.ratio = ratio
    backend.program(weights(seed), key=Key(0))
    start = backend.snapshot()
    reading = backend.forward(drive(batch, seed), key=Key(1))
    backend.restore(start)
    values = fenced(backend).forward(drive(batch, seed), key=Key(1)).values
    port = backend.capabilities.readings[0]
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, reading.codes * (port.step * ratio), check_dtype=False)


# ---- gradients and memory --------------------------------------------------


def test_gradients_are_off_inside_and_none_comes_out() -> None:
    scripted = Scripted()
    for backend in (scripted, LeakedGraph(Key(3))):
        fence = fenced(backend)
        x = drive().requires_grad_()
        w = weights().requires_grad_()
        with torch.enable_grad():
            written = fence.program(w, key=Key(0))
            measured = fence.forward(x, key=Key(1))
        assert not any(a.requires_grad for a in written.achieved.values())
        assert not measured.values.requires_grad
        assert not any(e.requires_grad for e in measured.extra.values())
    assert scripted.grad_modes == [False, False]
    reached = (*scripted.settings, *scripted.drives)
    assert not any(isinstance(given, Tensor) and given.requires_grad for given in reached)


def test_a_backend_that_leaks_on_purpose_leaks_nothing() -> None:
    def leak(reading: Reading) -> Reading:
        with torch.enable_grad():
            one = torch.ones((), requires_grad=True)
            extra = {"supply": reading.extra["supply"] * one}
            return replace(reading, codes=reading.codes * one, ratio=one * 1.0, extra=extra)

    backend = Scripted(leak)
    measured = fenced(backend).forward(drive(), key=Key(0))
    assert not measured.values.requires_grad
    assert not measured.extra["supply"].requires_grad
    assert backend.grad_modes == [False]


def test_a_reading_can_become_a_leaf() -> None:
    values = fenced().forward(drive(), key=Key(0)).values
    values.requires_grad_()
    values.square().sum().backward()
    assert values.grad is not None


def test_a_backend_gets_copies_and_cannot_reach_the_callers_tensors() -> None:
    class Vandal(Scripted):
        def forward(self, drive: Values, **options: Any) -> Reading:
            reading = super().forward(drive, **options)
            assert isinstance(drive, Tensor)
            drive.fill_(7.0)
            return reading

        def program(self, setting: Values, *, key: Key) -> Written:
            written = super().program(setting, key=key)
            assert isinstance(setting, Tensor)
            setting.fill_(7.0)
            return written

    fence, x, w = fenced(Vandal()), drive(), weights()
    x_before, w_before = x.clone(), w.clone()
    fence.program(w, key=Key(0))
    fence.forward(x, key=Key(0))
    fence.set_range(x, key=Key(0))
    assert torch.equal(x, x_before)
    assert torch.equal(w, w_before)


def test_a_driver_may_reuse_its_buffer() -> None:
    buffer = torch.zeros(5, OUTPUTS)

    def reused(reading: Reading) -> Reading:
        return replace(reading, codes=buffer.copy_(reading.codes))

    fence = fenced(Scripted(reused))
    first = fence.forward(drive(), key=Key(0)).values
    kept = first.clone()
    fence.forward(drive(seed=1), key=Key(1))
    assert torch.equal(first, kept)


@pytest.mark.parametrize("where", ["dtype", "threads"])
def test_a_change_of_the_process_is_undone_and_reported(where: str) -> None:
    def meddle(reading: Reading) -> Reading:
        if where == "dtype":
            torch.set_default_dtype(torch.float64)
        else:
            torch.set_num_threads(torch.get_num_threads() + 1)
        return reading

    before = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    with pytest.raises(ProcessStateError, match="chip"):
        fenced(Scripted(meddle)).forward(drive(), key=Key(0))
    assert before == (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled())


def test_a_backend_that_switches_gradients_on_switches_them_for_itself_only() -> None:
    def meddle(reading: Reading) -> Reading:
        torch.set_grad_enabled(True)
        return reading

    with torch.no_grad():
        fenced(Scripted(meddle)).forward(drive(), key=Key(0))
        assert not torch.is_grad_enabled()


# ---- retries ---------------------------------------------------------------


def test_a_device_that_did_not_act_is_asked_again_under_the_same_call_id() -> None:
    class Busy(Scripted):
        refusals = 2

        def forward(self, drive: Values, *, key: Key, **options: Any) -> Reading:
            if self.refusals:
                self.refusals -= 1
                self.keys.append(key)
                raise DeviceUnavailable("busy")
            return super().forward(drive, key=key, **options)

    backend = Busy()
    fence = fenced(backend, run_id="run")
    fence.forward(drive(), key=Key(0))
    fence.forward(drive(), key=Key(0))
    assert [key.call_id for key in backend.keys] == ["run-1"] * 3 + ["run-2"]
    assert fence.ledger.total().passes == 10


def test_a_device_that_never_acts_is_given_up_after_the_retries() -> None:
    device = Faulty(Healthy(Key(3)), Key(0), rate=1.0)
    with pytest.raises(DeviceUnavailable, match="call 4"):
        fenced(device, retries=3).forward(drive(), key=Key(0))
    assert device.calls == 4


def test_a_driver_that_spoils_its_input_and_refuses_gets_the_right_one_again() -> None:
    class Spoiler(Scripted):
        calls = 0

        def spoil(self, given: Values) -> None:
            assert isinstance(given, Tensor)
            self.calls += 1
            if self.calls % 2:
                given.zero_()
                raise DeviceUnavailable("busy")

        def program(self, setting: Values, *, key: Key) -> Written:
            self.spoil(setting)
            return super().program(setting, key=key)

        def forward(self, drive: Values, *, key: Key, **options: Any) -> Reading:
            self.spoil(drive)
            return super().forward(drive, key=key, **options)

    backend = Spoiler()
    fence = fenced(backend)
    fence.program(weights(), key=Key(0))
    fence.forward(drive(), key=Key(0))
    for got, sent in ((backend.settings, weights()), (backend.drives, drive())):
        assert isinstance(got[0], Tensor)
        assert torch.equal(got[0], sent)


def test_an_unknown_outcome_is_never_tried_again() -> None:
    device = Faulty(Healthy(Key(3)), Key(0), at={1: "unknown"})
    fence = fenced(device)
    with pytest.raises(OutcomeUnknown, match="call 1"):
        fence.program(weights(), key=Key(0))
    assert device.calls == 1
    assert fence.ledger.total().writes == 0


def test_a_retried_call_gives_the_reading_of_an_untroubled_one() -> None:
    calm = fenced().forward(drive(), key=Key(5)).values
    rough = fenced(Faulty(Healthy(Key(3)), Key(0), at={1: "unavailable", 2: "unavailable"}))
    assert torch.equal(rough.forward(drive(), key=Key(5)).values, calm)


# ---- chunks and costs ------------------------------------------------------


def limited(limit: int) -> Scripted:
    backend = Scripted()
    backend.capabilities = replace(backend.capabilities, max_batch=limit)
    for dial in ("walk", "drift"):
        backend.adjust(dial, 0.0, key=Key(0))
    backend.program(weights(), key=Key(0))
    return backend


@given(
    limit=st.integers(1, 200),
    batch=st.integers(1, 300),
    first=st.integers(0, 200),
)
@settings(max_examples=60, deadline=None)
def test_chunks_cover_the_batch_in_order_within_the_limit(
    limit: int, batch: int, first: int
) -> None:
    backend = limited(limit)
    x = drive(batch)
    fenced(backend).forward(x, key=Key(1), first_sample=first)
    seen = [chunk for chunk in backend.drives if isinstance(chunk, Tensor)]
    assert torch.equal(torch.cat(seen), x)
    assert max(len(chunk) for chunk in seen) <= limit
    starts = [first + sum(len(c) for c in seen[:n]) for n in range(len(seen))]
    assert backend.firsts == starts
    if limit >= SAMPLE_BLOCK:
        assert batch <= limit or all(start % SAMPLE_BLOCK == 0 for start in starts[1:])


@given(
    limit=st.integers(SAMPLE_BLOCK, 200), batch=st.integers(65, 260), shots=st.sampled_from([0, 2])
)
@settings(max_examples=20, deadline=None)
def test_the_size_of_chunks_changes_no_reading(limit: int, batch: int, shots: int) -> None:
    x, asked = drive(batch), shots or None
    whole = fenced(limited(1000)).forward(x, key=Key(1), shots=asked)
    parts = fenced(limited(limit)).forward(x, key=Key(1), shots=asked)
    torch.testing.assert_close(parts.values, whole.values, atol=1e-5, rtol=0)
    torch.testing.assert_close(parts.extra["supply"], whole.extra["supply"], atol=1e-5, rtol=0)
    assert parts.saturated == pytest.approx(whole.saturated)


@given(batch=st.integers(1, 300), shots=st.sampled_from([None, 1, 3]))
@settings(max_examples=20, deadline=None)
def test_every_pass_write_and_second_is_counted(batch: int, shots: int | None) -> None:
    fence = fenced()
    fence.program(weights(), key=Key(0))
    fence.forward(drive(batch), key=Key(1), shots=shots, phase="capture")
    fence.set_range(drive(8), key=Key(2))
    total = fence.ledger.total("chip")
    assert total.passes == fence.ledger.total(phase="capture").passes == batch * (shots or 1)
    assert (total.writes, total.cells, total.ranging_passes) == (1, INPUTS * OUTPUTS, 8)
    assert total.device_seconds == pytest.approx(1e-3 + 1e-5 * (batch * (shots or 1) + 8))


def test_the_device_is_closed_once() -> None:
    class Counting(Healthy):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    backend = Counting(Key(3))
    fence = fenced(backend)
    fence.close()
    fence.close()
    assert backend.closed == 1


def test_waits_snapshots_and_dials_pass_through() -> None:
    backend = Healthy(Key(3))
    fence = fenced(backend)
    start = fence.snapshot()
    fence.wait(5.0)
    fence.adjust("stuck", torch.ones(OUTPUTS), key=Key(0))
    fence.adjust("drift", 0.1, key=Key(0))
    assert (backend.clock_s, backend.dials["drift"]) == (5.0, 0.1)
    fence.restore(start)
    assert (backend.clock_s, backend.dials["drift"]) == (0.0, 0.02)
    assert backend.stuck.sum() == 0


def test_ports_of_different_batch_sizes_are_refused() -> None:
    class Two(Healthy):
        def describe(self) -> Capabilities:
            second = Port(name="bias", shape=(1,))
            return replace(super().describe(), drives=(*super().describe().drives, second))

    with pytest.raises(DriveError, match="different batch sizes"):
        fenced(Two(Key(3))).forward({"in": drive(3), "bias": torch.zeros(2, 1)}, key=Key(0))


def test_a_port_of_codes_off_its_own_grid_is_refused() -> None:
    """-1 to 1 with 256 levels has no code for zero: every value would be off."""
    with pytest.raises(ConfigError, match="whole number"):
        Port(name="out", shape=(2,), low=-1.0, levels=256, dtype="int32")
    with pytest.raises(ConfigError, match="levels"):
        Port(name="out", shape=(2,), dtype="uint8")
    signed = Port(name="out", shape=(2,), low=-1.0, high=127 / 128, levels=256, dtype="int32")
    assert (signed.code_low, signed.code_high) == (-128, 127)


def test_a_device_ranges_on_no_more_samples_than_it_takes_at_once() -> None:
    class Small(Healthy):
        def describe(self) -> Capabilities:
            return replace(super().describe(), max_batch=3)

        def set_range(self, drive: Values, *, key: Key) -> Ranged:
            assert len(single(drive, self.capabilities.drives[0])) <= 3
            return super().set_range(drive, key=key)

    ranged = fenced(Small(Key(3))).set_range(torch.full((9, INPUTS), 0.5), key=Key(0))
    assert ranged.passes <= 3
