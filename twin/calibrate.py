"""Fit a twin model to a recording of a device, and hold a part back to judge it.

Knows devices only through `twin.twinmodel.TwinModel`: one door for chip and medium.
"""

from __future__ import annotations

import numpy as np

from twin.backend import Capabilities, Port
from twin.calibration import Calibration
from twin.errors import DataError
from twin.heldout import score
from twin.keptback import kept_back, last_state
from twin.key import Key
from twin.observations import Observations, observations
from twin.recording import Recording
from twin.twinmodel import TwinModel, same_ports

HELD_OUT_SHARE = 0.15
"""Of the different drives; all their repeats go with them."""

OTHER_STATE = "passes with other dials or ranges"


def calibrate(
    model: TwinModel, recording: Recording, *, key: Key, held_out: float = HELD_OUT_SHARE
) -> Calibration:
    """Parameters of `model` from a recording, scored on a part that is not fitted.

    key: draws which drives are held out. held_out: their share, in [0.02, 0.5]. Only
    readings with range and dials (the shutter aside) as at the end are looked at.
    Raises DataError where the recording is too short, or fits no such twin.
    """
    if not 0.02 <= held_out <= 0.5:
        raise DataError(f"held_out must be a share from 0.02 to 0.5, got {held_out:g}.")
    _require_ports(model.capabilities, recording.capabilities)
    whole = observations(recording)
    seen = whole.rows(whole.standing())
    kept = kept_back(seen, held_out, key.child("held out"))
    fitted = seen.rows(~kept)
    estimates = model.estimate(fitted, key=key.child("fit"))
    return Calibration(
        device_id=recording.capabilities.device_id,
        kind=model.kind,
        capabilities=recording.capabilities,
        parameters=model.parameters,
        estimates=estimates,
        held_out=score(model, estimates, seen.rows(kept & last_state(seen))),
        step=seen.step,
        seconds_per_pass=_seconds_per_pass(seen),
        fitted_passes=len(fitted),
        recorded=_told(whole, seen),
    )


def _told(whole: Observations, seen: Observations) -> dict[str, str]:
    return {
        "passes": str(len(whole)),
        "writes": str(len(whole.settings)),
        OTHER_STATE: str(len(whole) - len(seen)),
    }


def _require_ports(model: Capabilities, recorded: Capabilities) -> None:
    """DataError unless the model was made for ports like those of the recording."""
    if same_ports(model, recorded):
        return
    expected, got = (
        "; ".join(map(_words, (*c.drives, *c.settings, *c.readings[:1]))) for c in (model, recorded)
    )
    raise DataError(
        f"{recorded.device_id}: the model expects the ports {expected}; got a recording of {got}. "
        "Make the model from the recording's capabilities."
    )


def _words(port: Port) -> str:
    levels = "" if port.levels is None else f" in {port.levels} levels"
    return (
        f"{port.name!r} {list(port.shape)} from {port.low:g} to {port.high:g}{levels} times "
        f"{port.full_scale:g} {port.unit}"
    )


def _seconds_per_pass(seen: Observations) -> float:
    gaps = np.diff(seen.clock_s)
    return max(0.0, float(np.median(gaps))) if len(gaps) else 0.0
