"""`pib-twin budget`: the speckle correlation of an optical rig before it is built."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from substrates.optics.budget import Budget, budget
from substrates.optics.conditions import conditions_of
from substrates.optics.presets import PRESETS, configured
from twin.errors import ConfigError, UnknownName, nearest
from validation import config as configs
from validation.console import console
from validation.datasets import NAMES
from validation.evaluation import backend_options
from validation.summary import Figure, Summary

PIXELS = {"digits": 64, "mnist": 784, "fashion-mnist": 784}
"""Length of an image of the data sets that are known by name."""

Rigs = Mapping[str, Mapping[str, Any]]


def main(
    options: Sequence[str], after: float, out: Path | None, command: str, name: str = "industrial"
) -> Summary:
    """Print the budget of each optical rig of `name`; write summary.json to `out` if given.

    name: a rig ("industrial", "scmos", ...), or a training preset or CONFIG.toml with
    optical units. options: NAME=VALUE texts, of the rig's configuration; a table's
    entry as TABLE.NAME=VALUE. after: device seconds between the two frames.
    """
    if not (math.isfinite(after) and after >= 0):
        raise ConfigError(f"--after must be finite and >= 0 s, got {after}.")
    rigs = rigs_of(name, backend_options(options))
    budgets = {
        rig: budget(conditions_of(configured(chosen), after_s=after))
        for rig, chosen in rigs.items()
    }
    summary = Summary(command)
    for rig, found in budgets.items():
        for figure in figures(found, "" if len(rigs) == 1 else f"{rig}: "):
            summary.add(figure)
    facts = {
        rig: {"options": rigs[rig], "holds": found.holds, "factors": rows(found)}
        for rig, found in budgets.items()
    }
    summary.extra = {"after_seconds": after, "name": name, "rigs": facts}
    console.print(table(f"{name}: error budget, frames {after:g} s apart", budgets))
    if out is not None:
        summary.write(out)
    return summary


def rigs_of(name: str, options: Mapping[str, Any]) -> Rigs:
    """Options of every optical rig of a rig preset, training preset or TOML file.

    Raises UnknownName, or ConfigError where there is no optical unit.
    """
    if name in PRESETS or name == "optics":
        start = {} if name == "optics" else {"preset": name}
        return {name: start | dict(options)}
    known = [*PRESETS, *configs.presets()]
    if name not in known and not name.endswith(".toml"):
        raise UnknownName(f"no rig, preset or file is called {name!r}. {nearest(name, known)}")
    found = dict(_units(configs.load_config(name), options))
    if not found:
        raise ConfigError(f"{name} has no optical unit. Rigs: {', '.join(PRESETS)}.")
    return found


def _units(config: configs.RunConfig, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The optical units of a training, with the inputs that its data set gives them."""
    before = 0
    for index, unit in enumerate(config.unit):
        if unit.backend == "optics":
            own: dict[str, Any] = {**unit.options, **options}
            if "inputs" not in own:
                own["inputs"] = _inputs(config, index, before)
            yield f"unit {index + 1}", own
        before = unit.outputs


def _inputs(config: configs.RunConfig, index: int, before: int) -> int:
    features = before * config.unit[index].feature_copies
    if index > 0 and not config.network.skip:
        return features
    if config.data.name not in PIXELS:
        raise ConfigError(
            f"budget: the images of {config.data.name!r} (known: {', '.join(NAMES)}) are not "
            "opened here. Say how many macropixels: --option inputs=N."
        )
    return features + PIXELS[config.data.name]


def figures(found: Budget, head: str = "") -> Iterator[Figure]:
    """Every factor and their product."""
    for factor in found.factors:
        yield Figure(head + factor.name, factor.value)
    yield Figure(f"{head}predicted correlation", found.correlation)


def rows(found: Budget) -> list[dict[str, Any]]:
    """The factors as plain facts: name, value, law, source, valid, holds."""
    return [asdict(factor) for factor in found.factors]


def table(title: str, budgets: Mapping[str, Budget]) -> Table:
    """Factors with a value per rig, law, source and validity; last their product."""
    shown = Table(title=title, title_justify="left", box=None, padding=(0, 1), pad_edge=False)
    shown.add_column("factor", overflow="fold", min_width=12)
    # A number that is cut short is wrong: let the texts give way.
    for rig in budgets:
        shown.add_column("value" if len(budgets) == 1 else rig, justify="right", no_wrap=True)
    for name in ("law", "source", "valid for"):
        shown.add_column(name, overflow="fold")
    for same in zip(*(found.factors for found in budgets.values()), strict=True):
        holds, first = all(factor.holds for factor in same), same[0]
        # Escaped: a law in square brackets is no markup.
        texts = [first.law, first.source, ("" if holds else "NOT HERE: ") + first.valid]
        style = "" if holds else "bold red"
        if any(f is b.worst and f.value < 1 for f, b in zip(same, budgets.values(), strict=True)):
            style = style or "yellow"
        shown.add_row(
            first.name, *(f"{factor.value:.6f}" for factor in same), *map(escape, texts),
            style=style,
        )  # fmt: skip
    totals = [f"{found.correlation:.6f}" for found in budgets.values()]
    valid = all(found.holds for found in budgets.values())
    verdict = "" if valid else "a factor is outside its validity"
    shown.add_row("predicted correlation", *totals, "product", "", verdict, style="bold")
    return shown
