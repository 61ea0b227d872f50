"""`pib-twin validate WHAT`: each law of a substrate against its closed form."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
import typer

from twin.errors import UnknownName, nearest
from twin.key import Key
from validation.console import console
from validation.physics.law import Check, Effort, Law, Outcome, run, table
from validation.summary import Summary

MODULES = {
    "memristor": "validation.physics.memristor",
    "optics": "validation.physics.optics",
}
"""Name: module with LAWS, a sequence of laws, and pictures(folder, effort)."""


def main(what: str, out: Path | None, quick: bool, seed: int, command: str) -> Summary:
    """Print the table of laws, write summary.json and pictures to `out` if given.

    Exit code 1 if a law is broken, after everything is written.
    """
    if what not in MODULES:
        raise UnknownName(f"no physics is called {what!r}. {nearest(what, MODULES)}")
    module = importlib.import_module(MODULES[what])
    effort = Effort(Key(seed).child("validate", what), quick)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        outcomes = looked_at(module.LAWS, effort)
        pictures = [] if out is None else module.pictures(out, effort)
    finally:
        torch.set_num_threads(threads)
    console.print(table(f"{what}: laws", outcomes, console.width))
    summary = summarised(outcomes, command, seed)
    summary.extra |= {"what": what, "quick": quick, "pictures": [path.name for path in pictures]}
    if out is not None:
        summary.write(out)
    console.print(verdict(summary))
    if not summary.holds:
        raise typer.Exit(1)
    return summary


def looked_at(laws: tuple[Law, ...], effort: Effort) -> list[Outcome]:
    """The outcomes of all laws; gradients play no part."""
    with torch.no_grad():
        return list(run(laws, effort))


def summarised(outcomes: list[Outcome], command: str, seed: int) -> Summary:
    """A figure per law; expected values, sources and skipped laws beside them."""
    summary = Summary(command)
    sources = {}
    for outcome in outcomes:
        if isinstance(outcome, Check):
            summary.add(outcome.figure(seed))
            sources[outcome.name] = {"expected": outcome.expected, "source": outcome.source}
    skipped = {o.name: o.why for o in outcomes if not isinstance(o, Check)}
    summary.extra = {"laws": sources, "skipped": skipped}
    return summary


def verdict(summary: Summary) -> str:
    """One line: how many laws are kept, which are not."""
    count, failed = len(summary.figures), summary.failed
    skipped = len(summary.extra["skipped"])
    text = f"{count - len(failed)} of {count} laws kept, {skipped} skipped"
    return text + (f"; broken: {', '.join(failed)}" if failed else "")
