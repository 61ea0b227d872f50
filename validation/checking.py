"""`pib-twin check`: does a backend keep the contract?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.table import Table

from twin.backend import MinimalBackend
from twin.key import Key
from twin.registry import open_backend
from validation import conformance
from validation.console import console
from validation.evaluation import backend_options
from validation.summary import Figure, Summary


def main(
    name: str,
    options: Sequence[str],
    seed: int,
    budget_seconds: float | None,
    out: Path | None,
    command: str,
) -> Summary:
    """Run every check on the backend called `name`; exit code 1 on a failure."""
    chosen = backend_options(options)

    def make() -> MinimalBackend:
        return open_backend(name, key=Key(seed), **chosen)

    make().close()  # a misspelt name or option is an error, not 44 failures
    outcomes = conformance.run_checks(make, budget_seconds=budget_seconds)
    table = Table(title=f"{name}: conformance", title_justify="left")
    for column in ("check", "outcome", "why"):
        table.add_column(column)
    styles = {"passed": "green", "failed": "bold red"}
    for outcome in outcomes:
        style = styles.get(outcome.status, "dim")
        table.add_row(outcome.check, outcome.status, outcome.reason, style=style)
    console.print(table)
    summary = Summary(command)
    for row in conformance.figures(outcomes):
        row.pop("holds")  # computed from value and bound
        summary.add(Figure(**{**row, "seeds": [seed]}))
    summary.extra = {
        "backend": name,
        "options": chosen,
        "outcomes": [[o.check, o.status, o.reason] for o in outcomes],
    }
    if out is not None:
        summary.write(out)
    totals = [f for f in summary.figures if not f.name.startswith("check/")]
    console.print(Summary(command, totals).table())
    if any(o.status == "failed" for o in outcomes):
        raise typer.Exit(1)
    return summary
