"""A fit as a technology, and as the text of its device file."""

from __future__ import annotations

from typing import Any

from substrates.memristor.fit.fitting import Estimate, Fit, curve_table
from substrates.memristor.fit.trajectories import UNIT_SIEMENS
from substrates.memristor.tables import to_toml
from substrates.memristor.technology import (
    Curve,
    Programming,
    ReadNoise,
    Relaxation,
    Technology,
)

ASSUMED_TEMPERATURE_K = 300.0
ASSUMED_READ_S = 1e-6
ASSUMED_PULSE_S = 1e-6
ASSUMED_PULSE_JOULES = 1e-12
"""Nothing in the readings tells these; the file says so beside them."""

NOT_MEASURED = (
    "Not in the readings, assumed; set them to yours: read_time_s, relaxation.temperature_k, "
    "pulse_s, pulse_joules. Nothing is claimed of telegraph noise, I-V, endurance or disturb."
)


def technology(fit: Fit, name: str, source: str) -> Technology:
    """The fitted laws as a technology, valid between the lowest and highest target."""
    low, high = float(fit.levels[0]), float(fit.levels[-1])
    sigma = Curve(**curve_table(fit, "sigma", UNIT_SIEMENS))
    return Technology(
        name=name,
        about=f"fitted to {fit.readings} readings of {fit.cells} cells",
        source=source,
        g_min_siemens=low,
        g_max_siemens=high,
        low_siemens=low,
        high_siemens=high,
        programming=(Programming(name="fitted", after_s=fit.first_s, sigma=sigma, source=source),),
        relaxation=_relaxation(fit, source),
        read_noise=ReadNoise(
            kind="relative",
            level=fit.estimate("read_noise.level").value,
            spread_ln=fit.estimate("read_noise.spread_ln").value,
            read_time_s=min(ASSUMED_READ_S, fit.first_s),
            first_s=fit.first_s,
            source=source,
        ),
        pulse_s=ASSUMED_PULSE_S,
        pulse_joules=ASSUMED_PULSE_JOULES,
        write_source="assumed, not measured",
    )


def _relaxation(fit: Fit, source: str) -> Relaxation:
    common: dict[str, Any] = {
        "first_s": fit.first_s,
        "last_s": fit.last_s,
        "source": source,
        "temperature_k": ASSUMED_TEMPERATURE_K,
    }
    if fit.kind == "power":
        return Relaxation(
            kind="power",
            exponent=Curve(**curve_table(fit, "exponent", 1.0)),
            exponent_spread=Curve(**curve_table(fit, "exponent_spread", 1.0)),
            **common,
        )
    names = ("mean_siemens_per_ln", "spread_siemens_per_ln", "spread_siemens")
    common |= {name: fit.estimate(name).value for name in names}
    return Relaxation(kind="log", **common)


def document(fit: Fit, made: Technology, notes: tuple[str, ...] = ()) -> str:
    """TOML that technology.load reads, headed by comments with every standard error."""
    head = [
        f"{made.name}: {made.about}.",
        "Standard errors are analytic: the observed information of the likelihood over whole",
        "cells, and the delta method. In brackets: 95 % interval.",
        "",
        *(line(estimate) for estimate in fit.estimates),
        *(row for name, curve in fit.curves.items() for row in _coefficients(fit, name)),
        "",
        *notes,
        NOT_MEASURED,
    ]
    return "".join(f"# {row}".rstrip() + "\n" for row in head) + "\n" + to_toml(made)


def line(estimate: Estimate) -> str:
    """One estimate as a line of text."""
    low, high = estimate.interval
    unit = "" if estimate.unit == "1" else f" {estimate.unit}"
    return (
        f"{estimate.name} = {estimate.value:.4g} +- {estimate.standard_error:.2g}{unit} "
        f"[{low:.4g}, {high:.4g}]"
    )


def _coefficients(fit: Fit, name: str) -> list[str]:
    curve = fit.curves[name]
    scale = UNIT_SIEMENS if name == "sigma" else 1.0
    if curve.coefficients is None or curve.coefficient_errors is None:
        return [f"{name}: no polynomial up to degree 3 fits; the points stand for themselves"]
    return [
        f"{name} coefficients[{i}] = {c * scale:.4g} +- {e * scale:.2g}"
        for i, (c, e) in enumerate(zip(curve.coefficients, curve.coefficient_errors, strict=True))
    ]
