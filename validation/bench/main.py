"""`pib-twin bench WHAT`: speed as ratios within one run, never a bare time."""

from __future__ import annotations

from pathlib import Path

import torch

from twin.errors import UnknownName, nearest
from validation.bench import entropy, memristor, optics, studies, train
from validation.console import console
from validation.summary import Summary

KNOWN = ("entropy", "train", "memristor", "optics", "studies", "remote")


def main(what: str, out: Path | None, quick: bool, data: Path | None, command: str) -> Summary:
    """Measure, print the table, write summary.json to `out` if given."""
    if what not in KNOWN:
        raise UnknownName(f"no benchmark is called {what!r}. {nearest(what, KNOWN)}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if what == "entropy":
            rows, extra = entropy.figures(0.5 if quick else 3.0)
        elif what == "memristor":
            rows, extra = memristor.figures(0.5 if quick else 3.0)
        elif what == "studies":
            rows, extra = studies.figures(0.5 if quick else 3.0)
        elif what == "remote":
            # Here: it needs the extra `remote`.
            from validation.bench import remote

            rows, extra = remote.figures(0.5 if quick else 3.0, data)
        elif what == "optics":
            rows, extra = optics.figures(0.5 if quick else 3.0)
        else:
            rows, extra = train.figures(data, quick)
        summary = Summary(command, rows, extra=extra)
    finally:
        torch.set_num_threads(threads)
    console.print(summary.table())
    for name, value in extra.items():
        console.print(f"[dim]{name}: {value}[/dim]")
    if out is not None:
        summary.write(out)
    return summary
