"""Fit a twin model to a recording of a device, and hold a part back to judge it.

Knows devices only through `twin.twinmodel.TwinModel`: one door for chip and medium.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from twin.calibration import Calibration, HeldOut
from twin.errors import DataError
from twin.key import Key
from twin.observations import Observations, observations
from twin.recording import Recording
from twin.twinmodel import Estimates, Floats, TwinModel

HELD_OUT_SHARE = 0.15
"""Of the different drives; all their repeats go with them."""


def calibrate(
    model: TwinModel, recording: Recording, *, key: Key, held_out: float = HELD_OUT_SHARE
) -> Calibration:
    """Parameters of `model` from a recording, scored on a part that is not fitted.

    key: draws which drives are held out. held_out: their share, in [0.02, 0.5].
    Raises DataError where the recording is too short, or fits no such twin.
    """
    if not 0.02 <= held_out <= 0.5:
        raise DataError(f"held_out must be a share from 0.02 to 0.5, got {held_out:g}.")
    seen = observations(recording)
    kept = _kept_back(seen, held_out, key.child("held out"))
    fitted = seen.rows(~kept)
    estimates = model.estimate(fitted, key=key.child("fit"))
    return Calibration(
        device_id=recording.capabilities.device_id,
        kind=model.kind,
        capabilities=recording.capabilities,
        parameters=model.parameters,
        estimates=estimates,
        held_out=score(model, estimates, seen.rows(kept & _final(seen))),
        step=seen.step,
        seconds_per_pass=_seconds_per_pass(seen),
        fitted_passes=len(fitted),
        recorded={"passes": str(len(seen)), "writes": str(len(seen.settings))},
    )


def score(model: TwinModel, found: Estimates, seen: Observations) -> HeldOut:
    """How a twin predicts passes in the state that the device was left in."""
    if not len(seen):
        raise DataError(
            "no drive in the device's last state was left to judge the twin by. Record more."
        )
    state = model.held(found.values)
    mean, variance = model.predict(found.values, seen.drive, state, seen.age_s)
    port = seen.capabilities.readings[0]
    mean = _clipped(mean, seen.step, port.code_low, port.code_high)
    error = (seen.value - mean).ravel()
    sure = variance.ravel() > 0
    noise2, shots2 = _repeats(seen, (seen.value - mean) ** 2 + variance)
    standard = error[sure] ** 2 / variance.ravel()[sure]
    return HeldOut(
        passes=len(seen),
        rms_error=float(np.sqrt((error**2).mean())),
        rms_noise=None if noise2 is None else float(np.sqrt(noise2)),
        standardised=float(np.sqrt(standard.mean())) if sure.any() else 0.0,
        fidelity=None if not noise2 else float(np.sqrt(shots2 / (2 * noise2))),
    )


def _clipped(mean: Floats, step: Floats, low: float, high: float) -> Floats:
    return np.clip(mean, low * step, high * step)


def _repeats(seen: Observations, shots2: Floats) -> tuple[float | None, float]:
    """Over readings of repeated drives: their variance, and the mean of `shots2`.

    None where nothing was repeated.
    """
    order = np.argsort(seen.group, kind="stable")
    same = np.diff(seen.group[order]) == 0
    if not same.any():
        return None, 0.0
    value = seen.value[order]
    noise2 = float(((value[1:] - value[:-1])[same] ** 2).mean() / 2)
    return noise2, float(shots2[order][1:][same].mean())


def _kept_back(seen: Observations, share: float, key: Key) -> npt.NDArray[np.bool_]:
    """Rows of the drives to hold out: a share of the repeated, and of the single ones."""
    count = np.bincount(seen.group)
    generator = key.numpy()
    chosen = np.zeros(len(count), bool)
    for kind in (count > 1, count == 1):
        where = np.flatnonzero(kind)
        # Of few repeats one is needed here, and the others there.
        take = round(share * len(where)) if len(where) != 2 else 1
        take = min(max(take, 1), len(where) - 1) if len(where) > 1 else 0
        chosen[generator.permutation(where)[:take]] = True
    return chosen[seen.group]


def _final(seen: Observations) -> npt.NDArray[np.bool_]:
    """Rows in the last write, with every dial as it was left."""
    final = seen.write == seen.write[-1]
    for value in seen.dials.values():
        final &= value == value[-1]
    return np.asarray(final, bool)


def _seconds_per_pass(seen: Observations) -> float:
    gaps = np.diff(seen.clock_s)
    return max(0.0, float(np.median(gaps))) if len(gaps) else 0.0
