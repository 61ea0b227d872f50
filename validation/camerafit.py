"""`pib-twin fit-camera`: a user's own frames become a camera preset, with a check.

Reads a folder of frames named by kind and exposure, or a recording; writes
camera.toml, maps.npz, photon-transfer.png and summary.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from substrates.optics.camerafit import CameraFit, fitted
from substrates.optics.camerapreset import Predicted, document, maps_file, predicted
from substrates.optics.frameset import FrameSet
from twin.files import write_atomic
from twin.key import Key
from validation.camerapicture import picture
from validation.console import console
from validation.devicepicture import png
from validation.summary import Figure, Summary

SIGNIFICANT = 5.0
"""Predictive standard deviations within which every statistic of the frames must lie."""

LABELS = {
    "gain": "gain K",
    "read_noise": "dark noise sigma_d",
    "offset": "offset",
    "dark_current": "dark current",
    "prnu": "PRNU",
    "dsnu": "DSNU",
    "read_noise_spread": "read noise, ln spread",
}


def main(
    folder: Path, out: Path | None, command: str, bits: int | None = None, seed: int = 0
) -> Summary:
    """Fit the frames in `folder`, print the table, write to `out` (default: NAME-camera here).

    bits: of the camera; by default the fewest usual ones that hold the codes.
    Raises DataError where the frames do not suffice; nothing is written then.
    """
    found = FrameSet.read(folder, bits)
    fit = fitted(found)
    check = predicted(fit, Key(seed).child("fit-camera"))
    summary = Summary(command, figures(fit, check, seed), extra=_extra(fit, check, folder))
    target = Path(f"{folder.resolve().name}-camera") if out is None else out
    maps = target / "maps.npz"
    text = document(fit, f"fitted to the frames in {folder.name}, not published", str(maps))
    write_atomic(maps, maps_file(fit))
    write_atomic(target / "camera.toml", text.encode())
    write_atomic(target / "photon-transfer.png", png(picture(fit, check)))
    summary.write(target)
    console.print(summary.table())
    console.print(f"[dim]{len(found.levels)} exposures, {found.bits} bits; wrote[/dim]")
    for file in ("camera.toml", "maps.npz", "photon-transfer.png", "summary.json"):
        console.print(f"[dim]  {target / file}[/dim]")
    return summary


def figures(fit: CameraFit, check: Predicted, seed: int) -> list[Figure]:
    """Every estimate with its error, then the pixels left out and the predictive check."""
    n = len(fit.moments.good_pixels)
    rows = [
        Figure(LABELS[e.name], e.value, e.unit, n=n, standard_error=e.standard_error)
        for e in fit.estimates.values()
    ]
    if fit.full_well_electrons is not None:
        rows.append(Figure("full well", fit.full_well_electrons, "electron"))
    rows += [
        Figure(f"{name} pixels", count, "1", n=fit.moments.pixels)
        for name, count in fit.moments.counts.items()
    ]
    worst = float(np.abs(check.distance).max())
    bound = f"<= {SIGNIFICANT:g}"
    rows.append(
        Figure("largest predictive misfit", worst, "s.d.", bound, len(check.names), seeds=[seed])
    )
    return rows


def _extra(fit: CameraFit, check: Predicted, folder: Path) -> dict[str, Any]:
    frames, m = fit.frames, fit.moments
    return {
        "frames": str(folder),
        "shape": frames.shape,
        "bits": frames.bits,
        "step_of_codes": frames.step,
        "justification": "left" if frames.step > 1 else "right",
        "errors": "jackknife over 40 groups of pixels; 95 % intervals with Student's t",
        "light": "flat" if "prnu" in fit.estimates else f"patterned (contrast {m.contrast:.2f})",
        "intervals": {e.name: [e.low, e.high] for e in fit.estimates.values()},
        "left_out": [str(x) for x, used in zip(frames.levels, m.used, strict=True) if not used],
        "levels": [
            {
                "light": level.lit, "exposure_s": level.exposure_s, "frames": len(level.codes),
                "mean_dn": mean, "variance_dn2": variance, "used": bool(used),
            }
            for level, mean, variance, used in zip(
                frames.levels, m.level_mean.tolist(), m.level_variance.tolist(), m.used, strict=True
            )
        ],
        "predictive": dict(zip(check.names, check.distance.tolist(), strict=True)),
    }  # fmt: skip
