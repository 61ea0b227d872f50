"""What a recording holds, in a few lines for a person."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from twin.calls import Call
from twin.errors import DataError
from twin.recording import Recording


def describe(path: str | Path) -> list[tuple[str, str]]:
    """(what, value) pairs: device, calls, whether closed, duration, cost, damage.

    Reads every block once. A damaged block is told in the last line; a folder
    that is no recording, or whose blocks do not follow each other, raises DataError.
    """
    recording = Recording.load(path, verify=False)
    kinds: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    passes, seconds, joules = 0, 0.0, 0.0
    first = last = None
    damage = "all as recorded"
    try:
        for call in recording.calls:
            kinds[call.kind] += 1
            if call.error is not None:
                errors[call.error[0]] += 1
            passes, seconds, joules = (
                passes + call.passes, seconds + call.device_seconds, joules + call.joules
            )  # fmt: skip
            first, last = first or call, call
    except DataError as error:
        damage = str(error)
    return [
        ("device", recording.device_id),
        ("begun", _date(recording.created_unix_s)),
        ("closed", "yes" if recording.closed else "no (whole up to the call under way)"),
        ("calls", f"{len(recording.calls)}{_counted(kinds)}"),
        ("errors", f"{errors.total()}{_counted(errors)}"),
        ("duration", _duration(first, last)),
        ("cost", f"{passes} passes, {seconds:.6g} s of the device, {joules:.6g} J"),
        ("software", ", ".join(f"{n} {v}" for n, v in recording.versions.items()) or "not told"),
        ("digests", damage),
    ]


def _counted(counts: Counter[str]) -> str:
    told = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return f" ({told})" if told else ""


def _date(unix_s: float | None) -> str:
    if unix_s is None:
        return "not told"
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds")


def _duration(first: Call | None, last: Call | None) -> str:
    if first is None or last is None or first.timing is None or last.timing is None:
        return "not told"
    return f"{last.timing.ended_monotonic_s - first.timing.began_monotonic_s:.3f} s"
