"""Axes that would change nothing, and dials that a network does not have: why.

Each rule says when a parameter matters; it need not hold in the base, one
value of another axis that makes it matter is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from validation.config import RunConfig

Options = Mapping[str, Any]
Rule = tuple[Callable[[Options], bool], str]


def _is(name: str, *values: object) -> Callable[[Options], bool]:
    return lambda options: options.get(name) in values


def _any_of(*names: str) -> Callable[[Options], bool]:
    return lambda options: any(options.get(name) for name in names)


LINES = ("word_ohm", "bit_ohm", "driver_ohm", "sense_ohm", "series_ohm")
WIRES: Rule = (_any_of("word_ohm", "bit_ohm"), "the wires are ideal; set word_ohm and bit_ohm")
SLICED: Rule = (_is("encoding", "sliced"), "encoding is not 'sliced'")
VERIFY: Rule = (_is("write_mode", "verify"), "write_mode is not 'verify'")
PULSED: Rule = (_is("write_mode", "verify", "one-shot"), "write_mode is 'outcome'")

MEMRISTOR: Mapping[str, Rule] = {
    "slices": SLICED,
    "slice_bits": SLICED,
    "verify_tolerance": VERIFY,
    "verify_max_pulses": VERIFY,
    "pulse_error": PULSED,
    "fano": (_any_of("thermal_floor"), "thermal_floor is 0"),
    "programming_table": (_any_of("technology"), "there is no technology"),
    "linear_cells": (_any_of("technology"), "cells without a technology are linear"),
    "wire_refresh": (_any_of(*LINES), "the wires are ideal; set word_ohm and bit_ohm"),
    "wire_drift": (_any_of(*LINES), "the wires are ideal; set word_ohm and bit_ohm"),
    "both_sides": WIRES,
    "sense_both_sides": WIRES,
    "pair_layout": WIRES,
    "rtn_amplitude": (_any_of("rtn_active_fraction"), "rtn_active_fraction is 0"),
    "read_noise_spread": (
        lambda options: bool(options.get("technology")) or options.get("read_noise", 1) != 0,
        "read_noise is 0",
    ),
}
"""Option of a crossbar: (does it matter with these options, else why not)."""

OPTIONS: Mapping[str, Mapping[str, Rule]] = {"memristor": MEMRISTOR}

RUN: Mapping[str, tuple[Callable[[RunConfig], bool], str]] = {
    "about": (lambda _: False, "it is only a text"),
    "bounds": (lambda _: False, "bounds are not looked at in a study"),
    "quick": (lambda _: False, "quick = true in the study chooses the table as a whole"),
    "network.hard_offset": (lambda c: c.network.hard_examples, "network.hard_examples is false"),
    "network.hard_examples": (lambda c: len(c.unit) > 1, "there is one unit"),
    "network.skip": (lambda c: len(c.unit) > 1, "there is one unit"),
    "network.shared_clock": (lambda c: len(c.unit) > 1, "there is one unit"),
    "network.readout": (lambda c: len(c.unit) > 1, "there is one unit"),
    "objective.sigma_input": (lambda c: c.objective.beta > 0, "objective.beta is 0"),
    "training.batch": (
        lambda c: any(u.batch is None for u in c.unit),
        "every unit has a batch of its own; vary unit.batch",
    ),
    "references.converged_epochs": (lambda _: False, "no method of a study reads it"),
}
"""Path (or its first part): (does it matter in this configuration, else why not)."""

METHODS_OF: Mapping[str, tuple[str, ...]] = {
    "objective": ("pib",),
    "references.backprop_rate": ("backprop", "backprop-retrained"),
    "references.local_cross_entropy_rate": ("lce",),
}

SCALES = ("programming_scale", "relaxation_scale", "read_noise_scale", "rtn_scale")


def of_no_effect(path: str, methods: Sequence[str], configurations: Sequence[RunConfig]) -> str:
    """Why an axis changes nothing; "" if it may."""
    for start, users in METHODS_OF.items():
        if _under(path, start) and not set(users) & set(methods):
            return f"it is read by {' and '.join(users)}, which the study does not name"
    for start, (matters, reason) in RUN.items():
        if _under(path, start) and not any(map(matters, configurations)):
            return reason
    return _option_of_no_effect(path.split("."), configurations)


def _option_of_no_effect(parts: Sequence[str], configurations: Sequence[RunConfig]) -> str:
    if "options" not in parts[1:3] or parts[0] != "unit":
        return ""
    at = parts.index("options")
    units = [
        unit
        for config in configurations
        for index, unit in enumerate(config.unit)
        if at == 1 or index == int(parts[1])
    ]
    reasons = []
    for unit in units:
        rule = OPTIONS.get(unit.backend.split("+")[-1], {}).get(".".join(parts[at + 1 :]))
        # A preset fills in what is not written here.
        if rule is None or "preset" in unit.options or rule[0](unit.options):
            return ""
        reasons.append(rule[1])
    return reasons[0] if reasons else ""


def why_no_dial(name: str, config: RunConfig) -> str:
    """Why devices of this kind can have the dial but these do not; "" if none can."""
    kinds = {unit.backend.split("+")[-1] for unit in config.unit}
    if "memristor" in kinds and name in SCALES:
        return "it scales the law of a technology, and no unit has one (unit.options.technology)"
    if "memristor" in kinds and name in ("word_ohm", "bit_ohm"):
        return "its cells have a curved I-V, which wires do not offer; set linear_cells = true"
    if "optics" in kinds and name == "drift_scale":
        return "a nonlinear medium has no matrix that could drift"
    return ""


def _under(path: str, start: str) -> bool:
    return path == start or path.startswith(f"{start}.")
