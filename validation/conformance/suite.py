"""The list of checks, how they are run, and what is reported.

The list is the definition of the contract. It is made of plain functions, so
that nobody can pass by overriding one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch

from twin.backend import MinimalBackend
from twin.complete import complete
from validation.conformance import ages, declares, draws, forms, keeps, leaves, reads, retries
from validation.conformance.probe import CheckFailed, NotApplicable, Probe

Check = Callable[[Probe], None]
Make = Callable[[], MinimalBackend]

CHECKS: tuple[Check, ...] = (
    declares.capabilities_are_complete_and_consistent,
    forms.a_reading_has_the_form_of_its_ports,
    forms.a_batch_of_one_keeps_its_axis,
    forms.readings_stay_inside_their_port,
    forms.saturation_is_an_end_code_never_nan,
    reads.no_reading_carries_a_graph,
    reads.inputs_are_left_as_they_were,
    reads.the_setting_is_copied,
    reads.different_drives_read_differently,
    reads.a_reading_answers_its_own_drive,
    reads.the_order_of_the_batch_is_kept,
    reads.a_sample_reads_the_same_in_any_company,
    reads.aligned_chunks_give_what_the_whole_gives,
    reads.a_named_port_means_the_same_as_a_bare_tensor,
    draws.no_global_generator_is_used,
    draws.the_same_call_gives_the_same_reading,
    draws.equal_devices_give_equal_readings,
    draws.two_devices_share_nothing,
    draws.the_key_decides_the_noise,
    draws.noise_is_fresh_for_every_sample_and_shot,
    draws.the_sample_number_names_the_noise,
    draws.writing_is_decided_by_the_key,
    keeps.a_snapshot_is_plain_data,
    keeps.a_snapshot_shares_nothing,
    keeps.restoring_brings_everything_back,
    keeps.the_clock_is_in_the_snapshot,
    keeps.dials_are_in_the_snapshot,
    keeps.every_dial_keeps_readings_sound,
    keeps.a_dial_map_is_copied,
    keeps.the_state_version_counts_writes,
    keeps.what_was_written_is_told_on_the_ports_scale,
    retries.what_did_not_act_may_be_tried_again,
    keeps.ranging_happens_only_when_asked,
    keeps.ranging_rescales_no_feature,
    ages.the_clock_counts_every_pass,
    ages.a_wait_of_no_time_changes_nothing,
    ages.splitting_a_wait_changes_nothing,
    ages.a_pass_disturbs_no_more_than_its_clock,
    declares.a_description_never_changes,
    declares.what_is_not_offered_is_refused,
    declares.a_foreign_snapshot_is_refused,
    leaves.the_process_is_left_as_it_was,
    leaves.closing_twice_is_harmless,
    forms.the_largest_batch_is_taken,
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one check found. reason: empty if it passed. seconds: it took."""

    check: str
    about: str
    status: Literal["passed", "failed", "not_applicable"]
    reason: str = ""
    seconds: float = 0.0


def run_checks(
    make_backend: Make,
    *,
    budget_seconds: float | None = None,
    checks: Sequence[Check] = CHECKS,
    only: bool = False,
) -> list[Outcome]:
    """Run every check against devices made by `make_backend`, in order.

    make_backend: gives a device as delivered; called once or a few times per
    check, and each device is closed afterwards. A simulated device must come
    not run and say so. only: `make_backend` opens one and the same device again and again,
    which others use too: where it can be restored it is as it was found before each check
    and in the end.
    """
    begun = time.monotonic()
    outcomes = []
    with _as_found(make_backend) if only else nullcontext(make_backend) as make:
        for check in checks:
            spent = time.monotonic() - begun
            if budget_seconds is not None and spent > budget_seconds:
                reason = f"not run: the budget of {budget_seconds:g} s was used up"
                outcomes.append(_outcome(check, "not_applicable", reason))
            else:
                outcomes.append(_judged(check, make, only))
    return outcomes


@contextmanager
def _as_found(open_device: Make) -> Iterator[Make]:
    """Opens the device as it is now, each time, and leaves it so."""
    device = complete(open_device())
    restorable = device.capabilities.restorable
    found = device.snapshot() if restorable else None
    device.close()

    def make() -> MinimalBackend:
        again = open_device()
        if found is not None:
            complete(again).restore(found)
        return again

    try:
        yield make
    finally:
        make().close()


def _judged(check: Check, make_backend: Make, only: bool) -> Outcome:
    probe, begun = Probe(make_backend, only), time.monotonic()
    status: Literal["passed", "failed", "not_applicable"] = "passed"
    reason = ""
    with leaves.preserved(), torch.no_grad():
        try:
            try:
                check(probe)
            finally:
                probe.close()
        except NotApplicable as error:
            status, reason = "not_applicable", str(error)
        except CheckFailed as error:
            status, reason = "failed", str(error)
        except Exception as error:
            # A driver may raise anything; the report must still be complete.
            status, reason = "failed", f"{type(error).__name__}: {error}"
    return _outcome(check, status, reason, time.monotonic() - begun)


def _outcome(
    check: Check,
    status: Literal["passed", "failed", "not_applicable"],
    reason: str,
    seconds: float = 0.0,
) -> Outcome:
    return Outcome(
        check=name(check),
        about=(check.__doc__ or "").strip(),
        status=status,
        reason=reason,
        seconds=seconds,
    )


def name(check: Check) -> str:
    """The identifier of a check: its function's name with dashes."""
    return check.__name__.replace("_", "-")


def failed(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that say the contract is broken."""
    return [outcome for outcome in outcomes if outcome.status == "failed"]


def report(outcomes: Sequence[Outcome]) -> list[tuple[str, str, str]]:
    """Rows (check, status, reason or what the check is about) for a table."""
    return [(o.check, o.status.replace("_", " "), o.reason or o.about) for o in outcomes]


def figures(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Figures for summary.json: totals, then 1 or 0 for every check that ran."""
    counts = {s: sum(o.status == s for o in outcomes) for s in ("passed", "not_applicable")}
    rows = [
        _figure("checks_failed", len(failed(outcomes)), "<= 0", not failed(outcomes)),
        _figure("checks_passed", counts["passed"], ">= 1", counts["passed"] >= 1),
        _figure("checks_not_applicable", counts["not_applicable"], None, None),
    ]
    for outcome in outcomes:
        if outcome.status != "not_applicable":
            good = outcome.status == "passed"
            rows.append(_figure(f"check/{outcome.check}", int(good), ">= 1", good))
    return rows


def _figure(label: str, value: int, bound: str | None, holds: bool | None) -> dict[str, Any]:
    return {
        "name": label,
        "value": value,
        "unit": "1",
        "bound": bound,
        "holds": holds,
        "n": 1,
        "standard_error": None,
        "seeds": [0],
    }
