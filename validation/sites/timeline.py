"""What two sites did, on one clock: losses, staleness, messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pib import checkpoint
from validation.sites.order import CHECKPOINT, ROLES, Order, Role
from validation.sites.run import EVENTS

Array = NDArray[np.float64]


def timeline(orders: Mapping[Role, Order]) -> xr.Dataset:
    """The records of both sites, times in seconds since the first step of either.

    Staleness at a downstream step is how many steps (and publications) the
    upstream site had made by that moment, beyond those of the features in use;
    NaN before the first publication came, 0 where a killed upstream site has yet
    to repeat the step that the features are of. The sites' wall clocks are
    compared: one machine's here. attrs: events, what was said and traffic, as JSON.
    """
    found = {role: checkpoint.load(orders[role].own / CHECKPOINT) for role in ROLES}
    steps = {role: found[role].arrays["record.steps"].numpy() for role in ROLES}
    published = found["upstream"].arrays["record.published"].numpy()
    events = json.loads((orders["upstream"].folder / EVENTS).read_bytes())
    zero_s = min(float(rows[0, 0]) for rows in steps.values())
    for event in events:
        event["time_s"] -= zero_s
    data = xr.Dataset(attrs={"events": json.dumps(events)})
    for role in ROLES:
        dim, rows = f"{role}_step", steps[role]
        data[f"{role}_time"] = (dim, rows[:, 0] - zero_s, {"units": "s"})
        data[f"{role}_loss"] = (dim, rows[:, 1], {"units": "bit"})
        data[f"{role}_door"] = (dim, rows[:, 4], {"units": "s"})
        noted = found[role].arrays["record.noted"].numpy()
        data[f"{role}_noted_step"] = (f"{role}_note", noted[:, 0], {"units": "1"})
        data[f"{role}_i_yz"] = (f"{role}_note", noted[:, 2], {"units": "bit"})
        data.attrs[f"traffic_{role}"] = found[role].text["traffic"]
        data.attrs[f"said_{role}"] = found[role].text["said"]
    for column, name, unit in ((1, "step", "1"), (2, "time", "s"), (3, "bytes", "byte")):
        values = published[:, column] - (zero_s if name == "time" else 0.0)
        data[f"published_{name}"] = ("publication", values, {"units": unit})
    stale = _staleness(steps["upstream"], steps["downstream"], published)
    for name, values in stale.items():
        data[name] = ("downstream_step", values, {"units": "1"})
    return data


def _staleness(upstream: Array, downstream: Array, published: Array) -> dict[str, Array]:
    at, used, seen = downstream[:, 0], downstream[:, 2], downstream[:, 3]
    done = np.searchsorted(upstream[:, 0], at, side="right")
    out = np.searchsorted(published[:, 2], at, side="right")
    latest = np.where(out > 0, published[np.maximum(out, 1) - 1, 0], 0.0)
    have = used > 0
    return {
        "version": used,
        "staleness_steps": np.where(have, np.maximum(done - seen, 0), np.nan),
        "staleness_publications": np.where(have, np.maximum(latest - used, 0), np.nan),
    }


def facts(data: xr.Dataset) -> dict[str, Any]:
    """The ledger of messages, and what tells whether anybody waited, in plain numbers.

    door_seconds_max: the longest that a site spent at the door in one step.
    steps_while_the_other_was_away: steps of the surviving site while a killed
    one was away, None if none was killed. steps_upstream: of the upstream
    site's training.
    """
    traffic = {role: json.loads(data.attrs[f"traffic_{role}"]) for role in ROLES}
    stale = data["staleness_steps"].to_numpy()
    stale = stale[~np.isnan(stale)]
    late = data["staleness_publications"].to_numpy()
    late = late[~np.isnan(late)]
    return {
        "publications": traffic["upstream"]["published"],
        "bytes_published": traffic["upstream"]["bytes_out"],
        "files_read": traffic["downstream"]["read"],
        "bytes_read": traffic["downstream"]["bytes_in"],
        "looks": traffic["downstream"]["looks"],
        "refused": traffic["downstream"]["refused"],
        "door_seconds_max": float(max(data[f"{role}_door"].max() for role in ROLES)),
        "steps_while_the_other_was_away": survived(data),
        "steps_upstream": data.sizes["upstream_step"],
        "seconds_publishing": traffic["upstream"]["seconds"],
        "seconds_reading": traffic["downstream"]["seconds"],
        "steps_on_the_stand_in": int((data["version"] == 0).sum()),
        "steps_on_final_features": int(
            (data["version"] == data["version"].max()).sum() if _complete(data) else 0
        ),
        "staleness_steps_mean": float(stale.mean()) if len(stale) else None,
        "staleness_steps_max": float(stale.max()) if len(stale) else None,
        "staleness_publications_max": float(late.max()) if len(late) else None,
        "silences_said": len(json.loads(data.attrs["said_downstream"])),
        "overlap": overlap(data),
    }


def _complete(data: xr.Dataset) -> bool:
    """Whether the downstream site got to see the last publication."""
    # Versions count from 1 without gaps.
    return int(data["version"].max()) == data.sizes["publication"]


def away(data: xr.Dataset, role: str) -> list[tuple[float, float]]:
    """From each kill of a site to its first step after it, seconds."""
    times = data[f"{role}_time"].to_numpy()
    found = []
    for event in json.loads(data.attrs["events"]):
        if event["event"] == "killed" and event["site"] == role:
            later = times[times > event["time_s"]]
            found.append((event["time_s"], float(later[0]) if len(later) else event["time_s"]))
    return found


def survived(data: xr.Dataset) -> int | None:
    """Steps that a site made while the other one was killed and away, None without a kill."""
    counts = []
    for role, other in (ROLES, ROLES[::-1]):
        times = data[f"{other}_time"].to_numpy()
        counts += [int(((times > a) & (times < b)).sum()) for a, b in away(data, role)]
    return sum(counts) if counts else None


def overlap(data: xr.Dataset) -> float:
    """Share of the downstream site's steps made while upstream was still training."""
    ended = float(data["upstream_time"].max())
    return float((data["downstream_time"] < ended).mean())
