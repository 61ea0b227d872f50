"""The command line. Importing this module must not import torch."""

from __future__ import annotations

import typer

from validation.commands import devices, paper, runs, studies, swap

app = typer.Typer(
    help="Train and study deep physical neural networks without backend gradients.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for group in (runs, devices, swap, studies, paper):
    app.add_typer(group.app)


def main() -> None:
    """Entry point of `pib-twin`."""
    app()
