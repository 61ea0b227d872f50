"""`pib-twin certify NAME`: is a backend's speckle what a scattering medium gives?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import typer
from rich.table import Table

from twin.fence import Fence
from twin.key import Key
from twin.registry import open_backend
from validation.certify.certificate import SIGMAS, Certificate
from validation.certify.suite import Report, Scale, certified
from validation.console import console
from validation.evaluation import backend_options
from validation.summary import Summary, digits


def main(
    name: str,
    options: Sequence[str],
    seed: int,
    quick: bool,
    out: Path | None,
    command: str,
    *,
    patterns: int = 1,
    dark: float = 0.0,
    watch_s: float = 60.0,
) -> Summary:
    """Measure the backend called `name`, print the table, write to `out` if given.

    options: NAME=VALUE texts for the backend. patterns: independent speckle
    patterns that add up (2: unpolarised). dark: what a dark pixel reads, in
    units of full scale. watch_s: seconds over which frame 0 is looked at again;
    a device with a wall clock really waits. Exit code 1 if a certificate fails,
    after everything is written.
    """
    chosen = backend_options(options)
    fence = Fence(open_backend(name, key=Key(seed), **chosen), name=name)
    scale = Scale.quick(watch_s) if quick else Scale(watch_s=watch_s)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        key = Key(seed).child("certify")
        report = certified(fence, key, scale, patterns=patterns, dark=dark)
    finally:
        torch.set_num_threads(threads)
        fence.close()
    console.print(table(f"{name}: certificates", report))
    summary = summarised(report, command, seed)
    summary.extra |= {"backend": name, "options": chosen, "quick": quick}
    if out is not None:
        summary.extra["pictures"] = _pictures(out, name, report)
        summary.write(out)
    console.print(verdict(summary))
    if not summary.holds:
        raise typer.Exit(1)
    return summary


def table(title: str, report: Report) -> Table:
    """All certificates as a rich table."""
    caption = f"bounds: a tolerance, or {SIGMAS:g} standard errors where those are more"
    shown = Table(title=title, caption=caption, box=None, padding=(0, 1), pad_edge=False)
    shown.title_justify = shown.caption_justify = "left"
    shown.add_column("certificate", overflow="fold", min_width=20)
    for name in ("estimate", "± s.e.", "from", "to", "n", ""):
        # A number that is cut short is wrong: let the names give way.
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("law", overflow="fold")
    for outcome in report.outcomes:
        if isinstance(outcome, Certificate):
            style = "green" if outcome.passes else "bold red"
            shown.add_row(*cells(outcome), style=style)
        else:
            shown.add_row(outcome.name, *[""] * 5, "skip", outcome.why, style="dim")
    return shown


def cells(certificate: Certificate) -> list[str]:
    """One row of the table."""
    sides = ("" if x is None else digits(x) for x in (certificate.low, certificate.high))
    return [
        certificate.name,
        digits(certificate.value),
        f"{certificate.standard_error:.1e}",
        *sides,
        str(certificate.n),
        "pass" if certificate.passes else "FAIL",
        certificate.law,
    ]


def summarised(report: Report, command: str, seed: int) -> Summary:
    """A figure per certificate; laws, skipped ones and curves beside them."""
    made = [o for o in report.outcomes if isinstance(o, Certificate)]
    summary = Summary(command)
    for certificate in made:
        summary.add(certificate.figure(seed))
    summary.extra = {
        "laws": {c.name: c.law for c in made},
        "skipped": {o.name: o.why for o in report.outcomes if not isinstance(o, Certificate)},
        "correlation_with_frame_0": report.drift,
        "memory": report.memory,
        **report.facts,
    }
    return summary


def verdict(summary: Summary) -> str:
    """One line: how many certificates hold, which do not."""
    count, failed = len(summary.figures), summary.failed
    text = f"{count - len(failed)} of {count} certificates hold"
    return text + (f"; failed: {', '.join(failed)}" if failed else "")


def _pictures(out: Path, name: str, report: Report) -> list[str]:
    from validation.certify import pictures

    return [path.name for path in pictures.written(out, name, report)]
