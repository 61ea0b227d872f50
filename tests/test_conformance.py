"""The conformance suite passes what is sound and finds what is broken.

No statistics here that could fail by chance: all checks use fixed keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planted import PLANTED, Healthy, HealthyFloat
from tests.resistor import Resistor, closed_form
from twin.backend import MinimalBackend
from twin.errors import DeviceUnavailable
from twin.fence import Fence
from twin.key import Key
from twin.recording import Recording
from twin.registry import open_backend
from twin.wrap import Faulty, Recorded, Replayed
from validation.conformance import CHECKS, Outcome, failed, figures, name, report, run_checks

Make = Callable[[], MinimalBackend]


def named(backend: str, **options: Any) -> Make:
    return lambda: open_backend(backend, key=Key(5), **options)


SOUND: dict[str, Make] = {
    "healthy": lambda: Healthy(Key(3)),
    "healthy-float": lambda: HealthyFloat(Key(4)),
    "ideal": named("ideal"),
    "ideal-noisy": named("ideal", noise_v=0.1),
    "resistor": Resistor,
    "memristor": named("memristor", inputs=12, outputs=6, array_rows=8),
    "memristor-faulty": named("memristor", inputs=9, outputs=5, stuck_column_fraction=0.4),
    "optics": named("optics", inputs=16, pixels=24),
    "recorded": lambda: Recorded(Healthy(Key(3))),
    "faulty-never": lambda: Faulty(Healthy(Key(3)), Key(1)),
}


def broken(outcomes: list[Outcome]) -> dict[str, str]:
    return {o.check: o.reason for o in failed(outcomes)}


@pytest.mark.parametrize("backend", SOUND)
def test_a_sound_backend_passes_every_check(backend: str) -> None:
    outcomes = run_checks(SOUND[backend])
    assert broken(outcomes) == {}
    assert len(outcomes) == len(CHECKS)


@pytest.mark.parametrize("stuck", [0.0, 0.4])
def test_one_device_that_others_use_is_checked_and_left_as_it_was_found(stuck: float) -> None:
    """Ranged on weak drives, as after a training: behind a URI there is one device only."""
    sizes = {"inputs": 12, "outputs": 6, "array_rows": 8}
    chip = open_backend("memristor", key=Key(5), stuck_column_fraction=stuck, **sizes)
    chip.program(torch.full((12, 6), 0.3), key=Key(1))
    fence = Fence(chip, name="chip")
    fence.set_range(torch.full((4, 12), 0.1), key=Key(2))
    fence.adjust("read_noise", 0.05, key=Key(3))
    found = fence.snapshot()
    chip.close = lambda: None  # type: ignore[method-assign]  # a client only hangs up

    outcomes = {o.check: o for o in run_checks(lambda: chip, only=True)}
    assert {o.check: o.reason for o in failed(list(outcomes.values()))} == {}
    assert outcomes["two-devices-share-nothing"].status == "not_applicable"
    left = fence.snapshot()
    assert left.values == found.values
    assert all(torch.equal(left.arrays[n], found.arrays[n]) for n in found.arrays)


def test_a_full_backend_has_no_check_left_out() -> None:
    left_out = [o.check for o in run_checks(SOUND["healthy"]) if o.status != "passed"]
    # It never fails, so that there is nothing to be tried again.
    assert left_out == ["what-did-not-act-may-be-tried-again"]


def test_a_device_that_fails_before_it_acts_may_be_tried_again() -> None:
    make = lambda: Faulty(Healthy(Key(3)), Key(1), at={2: "unavailable", 9: "unavailable"})  # noqa: E731
    outcomes = {o.check: o.status for o in run_checks(make)}
    assert outcomes["what-did-not-act-may-be-tried-again"] == "passed"


@pytest.mark.parametrize("backend", ["healthy", "ideal-noisy", "memristor", "optics"])
def test_a_replay_of_a_checked_device_passes_the_same_checks(backend: str) -> None:
    made: list[Recorded] = []

    def recorded() -> Recorded:
        made.append(Recorded(SOUND[backend]()))
        return made[-1]

    first = run_checks(recorded)
    recordings: Iterator[Recording] = iter([device.recording for device in made])
    again = run_checks(lambda: Replayed(next(recordings)))
    assert broken(again) == {}
    assert [(o.check, o.status) for o in again] == [(o.check, o.status) for o in first]


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found_by_the_check_meant_for_it(fault: str) -> None:
    planted = PLANTED[fault]
    check = next(c for c in CHECKS if name(c) == planted.check)
    (outcome,) = run_checks(lambda: planted.backend(Key(3)), checks=[check])
    assert outcome.status == "failed"
    assert outcome.reason


def test_every_check_has_a_name_of_its_own_and_says_what_must_hold() -> None:
    assert len({name(check) for check in CHECKS}) == len(CHECKS) >= 20
    assert all(check.__doc__ and check.__doc__.endswith(".") for check in CHECKS)


def test_a_driver_that_raises_fails_instead_of_stopping_the_suite() -> None:
    def dead() -> MinimalBackend:
        return Faulty(Healthy(Key(3)), Key(1), rate=1.0)

    found = broken(run_checks(dead))
    assert len(found) > 20
    assert all("did not act" in reason for reason in found.values() if "Unavail" in reason)


def test_a_spent_budget_is_told_and_never_counted_as_passed() -> None:
    outcomes = run_checks(SOUND["ideal"], budget_seconds=-1.0)
    assert {o.status for o in outcomes} == {"not_applicable"}
    assert all("budget" in o.reason for o in outcomes)
    assert not next(f for f in figures(outcomes) if f["name"] == "checks_passed")["holds"]


def test_the_report_shows_a_reason_for_all_that_did_not_pass() -> None:
    outcomes = run_checks(SOUND["ideal"])
    for check, status, text in report(outcomes):
        assert check
        assert status in ("passed", "failed", "not applicable")
        assert text


def test_figures_hold_for_a_sound_device_and_not_for_a_broken_one() -> None:
    sound = figures(run_checks(SOUND["ideal"]))
    ill = figures(run_checks(lambda: PLANTED["wrong dtype"].backend(Key(3))))
    assert all(f["holds"] for f in sound if f["bound"])
    assert not ill[0]["holds"]
    keys = {"name", "value", "unit", "bound", "holds", "n", "standard_error", "seeds"}
    assert all(set(f) == keys for f in sound + ill)


def test_a_check_that_spoils_the_process_does_not_spoil_the_next() -> None:
    before = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_rng_state()
    for fault in ("default dtype changed", "gradients switched", "global generator seeded"):
        run_checks(lambda fault=fault: PLANTED[fault].backend(Key(3)), checks=CHECKS[:3])
    after = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def drawn(seed: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    draw = Key(seed).torch()
    g = 0.1 + 0.9 * torch.rand(3, generator=draw)
    drive = {
        "source": torch.rand((5, 1), generator=draw),
        "nudge": 0.2 * torch.rand((5, 2), generator=draw) - 0.1,
    }
    return g, drive


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_a_resistor_network_settles_where_kirchhoff_says(seed: int) -> None:
    g, drive = drawn(seed)
    fence = Fence(Resistor(), name="resistor")
    fence.program(g, key=Key(0))
    measured = fence.forward(drive, key=Key(1))
    exact = closed_form(g, drive["source"].double(), drive["nudge"].double())
    level = fence.reading_port.step
    torch.testing.assert_close(measured.values.double(), exact, atol=0.6 * level, rtol=0)
    supply = g[0].double() * (drive["source"].double() - exact[:, :1])
    torch.testing.assert_close(measured.extra["supply"].double(), supply, atol=1e-5, rtol=0)


def test_continuing_from_the_last_equilibrium_settles_sooner_and_ends_the_same() -> None:
    g, drive = drawn(7)
    readings = []
    for goes_on in (0.0, 1.0):
        device = Resistor()
        device.program(g, key=Key(0))
        device.adjust("continue", goes_on, key=Key(0))
        device.forward(drive, key=Key(1))
        nudged = {**drive, "nudge": drive["nudge"] + 1e-3}
        readings.append(device.forward(nudged, key=Key(1)))
    assert (readings[0].codes - readings[1].codes).abs().max() <= 1
    assert readings[1].device_seconds < readings[0].device_seconds


def test_a_device_that_never_answers_is_reported_as_unavailable() -> None:
    device = Faulty(Healthy(Key(3)), Key(1), rate=1.0)
    with pytest.raises(DeviceUnavailable, match="call 1"):
        device.forward(torch.zeros(1, 6), key=Key(0))
