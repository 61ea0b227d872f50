"""`pib-twin probe` and `pib-twin calibrate`: from a device to a file that a twin is made of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from substrates.memristor.twinmodel import ChipSheet, CrossbarTwin
from substrates.memristor.twinmodel import twin as chip_twin
from substrates.optics.twinmodel import RigTwin
from substrates.optics.twinmodel import twin as rig_twin
from twin.backend import Capabilities, Reading
from twin.calibrate import OTHER_STATE, calibrate
from twin.calibration import Calibration
from twin.config import build
from twin.errors import DataError, UnknownName, nearest
from twin.heldout import HeldOut
from twin.key import Key
from twin.probing import probe
from twin.recording import Recording
from twin.registry import open_backend
from twin.twinbackend import CalibratedTwin
from twin.twinmodel import TwinModel

Kind = Literal["memristor", "optics"]
KINDS: tuple[Kind, ...] = ("memristor", "optics")
SHOWN = 12
POOR = 1.5
MOST_SATURATED = 0.01


def model_of(
    kind: str, capabilities: Capabilities, sheet: Mapping[str, Any] | None = None
) -> TwinModel:
    """The twin model of that kind. sheet: fields of ChipSheet, for a chip.

    UnknownName for a kind there is none of, Unsupported for a device that does not fit.
    """
    if kind == "memristor":
        return CrossbarTwin(capabilities, build(ChipSheet, dict(sheet or {}), "sheet"))
    if kind == "optics":
        if sheet:
            raise DataError(f"an optical twin takes no data sheet, got {sorted(sheet)}.")
        return RigTwin(capabilities)
    raise UnknownName(f"no twin is called {kind!r}. {nearest(kind, KINDS)}")


def probe_to(
    name: str, out: Path, *, passes: int, seed: int, options: Mapping[str, Any], kind: str | None
) -> Recording:
    """Open the backend `name`, probe it, close it, and save the recording at `out`.

    kind: of the twin it is for; by default a chip if the device can be programmed.
    Raises Unsupported for a device of which there is no twin model, before any pass.
    """
    if out.exists():
        raise DataError(f"{out} exists already. Give the recording another name.")
    backend = open_backend(name, key=Key(seed), **dict(options))
    try:
        own: Kind = "memristor" if backend.capabilities.programmable else "optics"
        if kind is not None and kind not in KINDS:
            raise UnknownName(f"no twin is called {kind!r}. {nearest(kind, KINDS)}")
        wanted: Kind = "memristor" if (kind or own) == "memristor" else "optics"
        model_of(wanted, backend.capabilities)
        recording = probe(backend, passes=passes, key=Key(seed).child("probe"), twin_kind=wanted)
    finally:
        backend.close()
    recording.save(out)
    return recording


def probed(recording: Recording) -> str:
    """What a probe saw of the converters' range, for a person; empty if all is well."""
    readings = [c.answer for c in recording.calls if isinstance(c.answer, Reading)]
    passes = [c.passes for c in recording.calls if isinstance(c.answer, Reading)]
    share = sum(r.saturated * n for r, n in zip(readings, passes, strict=True)) / sum(passes)
    if share <= MOST_SATURATED:
        return ""
    ratio = torch.as_tensor(readings[-1].ratio, dtype=torch.float64)
    return (
        f"{share:.1%} of the readings stood at an end of the converters' range, which is "
        f"{float(ratio.min()):.2g} to {float(ratio.max()):.2g} of the nominal one: somebody ranged "
        "this device on weaker drives. The twin will be poor. Open the device anew, or range it "
        "on full drives, and probe again."
    )


def calibrate_to(
    recording: Path,
    out: Path,
    *,
    kind: str,
    seed: int = 0,
    sheet: Mapping[str, Any] | None = None,
) -> Calibration:
    """Fit a twin of `kind` to the recording and write the calibration `out`."""
    if out.exists():
        raise DataError(f"{out} exists already. Give the calibration another name.")
    loaded = Recording.load(recording)
    made = calibrate(model_of(kind, loaded.capabilities, sheet), loaded, key=Key(seed))
    made.save(out)
    return made


def twin_of(
    calibration: Path, *, device_id: str | None = None, sheet: Mapping[str, Any] | None = None
) -> CalibratedTwin:
    """The simulated device of a calibration file."""
    made = Calibration.load(calibration, device_id=device_id)
    if made.kind == "memristor":
        return chip_twin(made, sheet)
    return rig_twin(made, sheet)


def report(made: Calibration) -> str:
    """A page for a person: score, numbers with intervals, what is open, what is broken."""
    score = made.held_out
    lines = [
        f"{made.kind} twin of {made.device_id}, fitted to {made.fitted_passes} passes",
        f"held out: {score.passes} passes, r.m.s. error {score.rms_error:.4g} of full scale, "
        f"standardised {score.standardised:.3f}",
        _noise(score),
        f"fidelity: {_fidelity(score)}",
        *_poor(score),
        *_left_out(made),
        "",
    ]
    lines += [_row(made, p.name, p.unit) for p in made.parameters]
    lines += ["", "not identifiable:"] if made.estimates.unidentified else []
    lines += [f"  {direction}" for direction in made.estimates.unidentified[:SHOWN]]
    more = len(made.estimates.unidentified) - SHOWN
    lines += [f"  and {more} more"] if more > 0 else []
    lines += [
        f"{what}: {len(where)}" + (f", first {list(where[:SHOWN])}" if where else "")
        for what, where in made.estimates.flags.items()
    ]
    return "\n".join(lines)


def _noise(score: HeldOut) -> str:
    if score.noise_ratio is None or score.misfit is None:
        return "noise of the device: not seen"
    return (
        f"noise of the device {score.rms_noise:.4g}, predicted variance {score.noise_ratio:.3f} "
        f"times that; error beyond noise {score.misfit:.4g}"
    )


def _poor(score: HeldOut) -> list[str]:
    if score.fidelity is None or score.fidelity <= POOR:
        return []
    return [
        f"THIS TWIN IS POOR: a good one is below {POOR}. Look at what is left out and not "
        "identifiable below, at saturated readings, and at the number of passes."
    ]


def _fidelity(score: HeldOut) -> str:
    if score.rms_noise is None:
        return "not known, no drive was repeated"
    if score.fidelity is None:
        return "not known, all repeats were equal to the last code"
    error = " +- ?" if score.fidelity_error is None else f" +- {score.fidelity_error:.3f}"
    over = "" if score.repeats == "shots" else ", what changed between calls counts as noise"
    return (
        f"{score.fidelity:.3f}{error} over {score.drives} repeated drives{over} (1 is as close "
        "as the device is to itself)"
    )


def _left_out(made: Calibration) -> list[str]:
    return [
        f"{what}, left out: {count}"
        for what, count in made.recorded.items()
        if what == OTHER_STATE and count != "0"
    ]


def _row(made: Calibration, name: str, unit: str) -> str:
    value = made.values[name]
    low, high = made.interval(name)
    shown = "" if unit == "1" else f" {unit}"
    if value.ndim:
        spread = f"mean {value.mean():.4g}, from {value.min():.4g} to {value.max():.4g}{shown}"
        error = made.estimates.errors.get(name)
        known = error is not None and bool(np.isfinite(error).any())
        typical = (
            f", typical error {np.nanmedian(error):.2g}" if known and error is not None else ""
        )
        return f"{name} {list(value.shape)}: {spread}{typical}"
    if not math.isfinite(float(low)):
        return f"{name} = {float(value):.4g}{shown} (not measured)"
    return f"{name} = {float(value):.4g}{shown}, 95 % from {float(low):.4g} to {float(high):.4g}"


def as_json(made: Calibration) -> str:
    """Score, scalar parameters with intervals, open directions and flags, as JSON text."""
    scalars = {}
    for p in made.parameters:
        if p.shape:
            continue
        ends = [float(end) for end in made.interval(p.name)]
        interval = ends if all(map(math.isfinite, ends)) else None
        value = float(made.values[p.name])
        scalars[p.name] = {"value": value, "unit": p.unit, "interval_95": interval}
    score = made.held_out
    content = {
        "device_id": made.device_id,
        "kind": made.kind,
        "fitted_passes": made.fitted_passes,
        "held_out": {name: getattr(score, name) for name in score.__dataclass_fields__},
        "parameters": scalars,
        "unidentified": [str(direction) for direction in made.estimates.unidentified],
        "flags": {name: list(where) for name, where in made.estimates.flags.items()},
    }
    return json.dumps(content, allow_nan=False, indent=1)
