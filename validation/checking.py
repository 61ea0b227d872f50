"""`pib-twin check`: does a backend keep the contract?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.table import Table

from twin.backend import MinimalBackend
from twin.errors import Unsupported
from twin.key import Key
from twin.registry import one_of_a_kind, open_backend
from validation import conformance
from validation.console import console
from validation.evaluation import backend_options
from validation.summary import Figure, Summary


def _require_device(name: str) -> None:
    """A recording answers the calls it holds, not those of a check."""
    if "replay:" in name:
        raise Unsupported(
            f"{name} is a recording, which answers only the calls that it holds. Whether it is "
            f"sound is told by: pib-twin recording {name.partition('replay:')[2]}"
        )
    if "recorded+" in name:
        raise Unsupported(
            f"{name}: a check opens its device several times, and a recording is of one opening. "
            f"Check {name.replace('recorded+', '')} instead."
        )


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

    _require_device(name)
    probe = make()  # a misspelt name or option is an error, not 44 failures
    only = one_of_a_kind(name, probe.capabilities)
    probe.close()
    outcomes = conformance.run_checks(make, budget_seconds=budget_seconds, only=only)
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
