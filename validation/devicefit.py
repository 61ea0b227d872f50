"""`pib-twin fit-device`: a user's own readings become a device file, with a score.

Reads one CSV table; writes NAME.toml (loaded by technology.load), fit.png and
summary.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from substrates.memristor.fit.fitfile import document, line, technology
from substrates.memristor.fit.heldout import BAND, Mean, Outcome, fitted
from substrates.memristor.fit.measurements import COLUMNS, Measurements
from twin.errors import DataError, nearest
from twin.files import digest, write_atomic
from twin.key import Key
from validation.console import console
from validation.devicepicture import picture, png
from validation.summary import Figure, Summary

NUMBERS = COLUMNS[:3]
SIGNIFICANT = 5.0
"""Standard errors within which a check of the fit must hold."""

LARGEST_OFFSET = 0.5
"""Of the spread: mean distance from the target that the file, which has none, may hide."""

LARGEST_MISFIT = 1.5
"""Variance about the cells' trajectories over that of repeats."""


LARGEST_RATIO = 1.5
"""Of relative read noise between targets: more is a state dependence the file lacks."""


def main(path: Path, out: Path | None, command: str, seed: int = 0) -> Summary:
    """Fit `path`, print the table, write to `out` (default: NAME-device in this folder).

    seed: draws which cells are held out. Raises DataError where the readings do
    not suffice or contradict each other; nothing is written then.
    """
    content = _content(path)
    found = read(path)
    outcome = fitted(found, Key(seed).child("fit-device"))
    name = path.stem
    source = f"fitted to {path.name} (sha256 {digest(content)[:16]}), not published"
    made = technology(outcome.fit, name, source)
    summary = Summary(command, figures(outcome, found, seed), extra=_extra(outcome, found, path))
    folder = Path(f"{name}-device") if out is None else out
    text = document(outcome.fit, made, _notes(outcome))
    write_atomic(folder / f"{name}.toml", text.encode())
    write_atomic(folder / "fit.png", png(picture(outcome, found)))
    summary.write(folder)
    console.print(summary.table())
    console.print(f"[dim]{outcome.fit.kind} law, {len(found.target)} cells; wrote[/dim]")
    for file in (f"{name}.toml", "fit.png", "summary.json"):
        console.print(f"[dim]  {folder / file}[/dim]")
    return summary


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}). Expected a CSV file with the columns "
            f"{', '.join(COLUMNS)}."
        ) from None


def read(path: Path) -> Measurements:
    """The CSV file as checked measurements; cells may have any names."""
    try:
        # The header as data: pandas would rename a column that is there twice.
        rows = pd.read_csv(
            path, header=None, dtype=str, keep_default_na=False, skipinitialspace=True
        )
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(
            f"{path}: is no table with commas between columns ({error}). Expected the header "
            f"{','.join(COLUMNS)}."
        ) from None
    table = rows.iloc[1:].set_axis(rows.iloc[0].str.strip().to_list(), axis=1)
    _require_columns(path, list(table.columns))
    if bool((table["cell"].str.strip() == "").any()):
        row = int((table["cell"].str.strip() == "").to_numpy().argmax())
        raise DataError(f"{path}: data row {row + 1} has no cell. Name the cell of every reading.")
    time, target, g = (_numbers(path, table[name]) for name in NUMBERS)
    try:
        return Measurements.of(time, target, g, table["cell"].str.strip().to_numpy(str))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _require_columns(path: Path, got: list[str]) -> None:
    twice = sorted({name for name in got if got.count(name) > 1})
    unknown = [name for name in got if name not in COLUMNS]
    missing = [name for name in COLUMNS if name not in got]
    if twice:
        raise DataError(f"{path}: column {twice[0]!r} is there twice. Keep one.")
    if unknown:
        raise DataError(
            f"{path}: unknown column {unknown[0]!r}{_unit_hint(unknown[0])}. "
            f"{nearest(unknown[0], COLUMNS)} Rename it, or leave it out if it is something else."
        )
    if missing:
        raise DataError(
            f"{path}: column {missing[0]!r} is missing, expected {', '.join(COLUMNS)}; "
            f"got {', '.join(got)}."
        )


def _unit_hint(name: str) -> str:
    factors = {"_us": "1e-6", "_microsiemens": "1e-6", "_ms": "1e-3", "_ns": "1e-9"}
    for ending, factor in factors.items():
        if name.lower().endswith(ending):
            unit = "seconds" if name.lower().startswith("time") else "siemens"
            return f" (multiply by {factor} for {unit})"
    return ""


def _numbers(path: Path, column: pd.Series[str]) -> NDArray[np.float64]:
    """Floats; empty, 'nan' and the like become NaN, which the measurements refuse."""
    text = column.str.strip()
    numbers = pd.to_numeric(text, errors="coerce").to_numpy(np.float64)
    empty = text.str.lower().isin(["", "nan", "na", "n/a", "null", "none", "-"]).to_numpy(bool)
    bad = np.flatnonzero(np.isnan(numbers) & ~empty)
    if len(bad):
        raise DataError(
            f"{path}: {column.name}, data row {bad[0] + 1}: {column.iloc[bad[0]]!r} is no number. "
            "Expected plain numbers such as 2.34e-05, with a point and without a unit."
        )
    return numbers


def figures(outcome: Outcome, found: Measurements, seed: int) -> list[Figure]:
    """Every parameter with its error, then the held-out score and the checks of the fit."""
    fit, score = outcome.fit, outcome.score
    rows = [
        Figure(e.name, e.value, e.unit, n=fit.cells, standard_error=e.standard_error)
        for e in fit.estimates
    ]
    n = int(score.readings.sum())
    cells = len(score.readings)
    rows.append(_scored("held-out log likelihood", score.log_likelihood, n, seed, "nat/reading"))
    if outcome.rival is not None:
        kind, other = outcome.rival
        gain = score.gain(other)
        rows.append(_scored(f"held-out gain over {kind} law", gain, n, seed, "nat/reading"))
    for name, mean, expected, count in (
        ("held-out trajectory variance", score.trajectories, 1.0, cells),
        ("held-out read variance", score.reads, 1.0, n),
        (f"held-out cover of {BAND:.0%} band", score.coverage, BAND, n),
    ):
        half = SIGNIFICANT * mean.standard_error
        bound = f">= {max(expected - half, 0):.4g} and <= {expected + half:.4g}"
        rows.append(_scored(name, mean, count, seed, "1", bound))
    return [*rows, _offset(outcome, found), _misfit(outcome, found), _one_level(found)]


def _scored(
    name: str, mean: Mean, n: int, seed: int, unit: str, bound: str | None = None
) -> Figure:
    return Figure(name, mean.value, unit, bound, n, mean.standard_error, [seed])


def offsets(outcome: Outcome, found: Measurements) -> list[dict[str, float]]:
    """Of each target: mean first reading minus target, spread (S) and cells."""
    fit = outcome.fit
    start = float(fit.natural["start"][0]) if "start" in fit.natural else 0.0
    rows = []
    for level, sigma in zip(fit.levels, fit.natural["sigma"].tolist(), strict=True):
        mine = found.target == level
        off = float((found.conductance[mine, 0] - level).mean())
        spread = float(np.hypot(sigma, start)) * 1e-6
        rows.append({"target": level, "offset": off, "spread": spread, "cells": int(mine.sum())})
    return rows


def _offset(outcome: Outcome, found: Measurements) -> Figure:
    rows = offsets(outcome, found)
    worst = max(rows, key=lambda row: abs(row["offset"]) / max(row["spread"], 1e-30))
    value = abs(worst["offset"]) / max(worst["spread"], 1e-30)
    error = float(worst["cells"]) ** -0.5
    bound = f"<= {LARGEST_OFFSET + SIGNIFICANT * error:.4g}"
    return Figure("largest offset from target", value, "sigma", bound, int(worst["cells"]), error)


def _misfit(outcome: Outcome, found: Measurements) -> Figure:
    """Reads about the trajectories over repeats alone: 1 if cells keep to their trajectory."""
    squares, dof = repeats(found)
    level = outcome.fit.estimate("read_noise.level")
    inside = Mean.ratio(squares, dof)
    value = level.value**2 / inside.value
    own = 2 * level.standard_error / max(level.value, 1e-30)
    relative = float(np.hypot(own, inside.standard_error / inside.value))
    # On a logarithmic scale: a large misfit has a large error, which is no excuse.
    bound = f"<= {LARGEST_MISFIT * np.exp(SIGNIFICANT * relative):.4g}"
    n = int(dof.sum())
    return Figure("read variance over repeats'", value, "1", bound, n, value * relative)


def _one_level(found: Measurements) -> Figure:
    """Relative read noise of the noisiest target over the quietest; the file has one level."""
    rows = sorted(_by_state(found), key=lambda row: row["level"])
    low, high = rows[0], rows[-1]
    value = high["level"] / low["level"]
    first, second = (row["standard_error"] / row["level"] for row in (low, high))
    relative = float(np.hypot(first, second))
    bound = f"<= {LARGEST_RATIO * np.exp(SIGNIFICANT * relative):.4g}"
    return Figure("read noise, targets' ratio", value, "1", bound, len(rows), value * relative)


def repeats(found: Measurements) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Relative squares about the means of visits, and their degrees of freedom, per cell (C,)."""
    visit = found.visits
    squares, dof = np.zeros(len(found.target)), np.zeros(len(found.target))
    for number in range(int(visit.max()) + 1):
        here = found.taken & (visit == number)
        n = here.sum(1)
        mean = np.where(here, found.conductance, 0).sum(1) / np.maximum(n, 1)
        rest = np.where(here, found.conductance - mean[:, None], 0)
        squares += (rest**2).sum(1) / np.maximum(mean, 1e-30) ** 2
        dof += np.maximum(n - 1, 0)
    return squares, dof


def _by_state(found: Measurements) -> list[dict[str, float]]:
    squares, dof = repeats(found)
    rows = []
    for level in found.levels:
        mine = (found.target == level) & (dof > 0)
        if mine.any():
            mean = Mean.ratio(squares[mine], dof[mine])
            root = max(mean.value, 1e-30) ** 0.5
            error = mean.standard_error / (2 * root)
            rows.append({"target_siemens": level, "level": root, "standard_error": error})
    return rows


def _extra(outcome: Outcome, found: Measurements, path: Path) -> dict[str, Any]:
    fit = outcome.fit
    return {
        "measurements": str(path),
        "law": fit.kind,
        "errors": "analytic: observed information, delta method; of scores: over held-out cells",
        "estimates": [
            {"name": e.name, "value": e.value, "standard_error": e.standard_error,
             "unit": e.unit, "interval_95": e.interval}
            for e in fit.estimates
        ],
        "targets_before_smoothing": {
            name: {"value": c.raw, "standard_error": c.raw_errors, "p_value": c.p_value}
            for name, c in fit.curves.items()
        },
        "offsets_siemens": offsets(outcome, found),
        "relative_read_noise_by_target": _by_state(found),
        "held_out_cells": outcome.held_out.names,
        "parameters_behind_the_score": [line(e) for e in outcome.trial.estimates],
    }  # fmt: skip


def _notes(outcome: Outcome) -> tuple[str, ...]:
    score = outcome.score
    likelihood = score.log_likelihood
    notes = [
        f"Score on {len(score.readings)} held-out cells, of the same law fitted to the others:",
        f"  {likelihood.value:.4g} +- {likelihood.standard_error:.2g} nat per reading (per uS);",
        f"  {BAND:.0%} band holds {score.coverage.value:.1%} of the readings.",
    ]
    if outcome.rival is not None:
        gain = score.gain(outcome.rival[1])
        notes.append(
            f"  {gain.value:+.3g} +- {gain.standard_error:.2g} nat per reading against the "
            f"{outcome.rival[0]} law."
        )
    return (*notes, "")
