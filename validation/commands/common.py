"""What the commands share: options, and errors as one sentence.

Importing this module, like all of the command line, must not import torch.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from twin.errors import PibTwinError
from validation.signals import Terminated, terminable

Out = Annotated[Path | None, typer.Option(help="Folder for the results.")]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer images and epochs; says so.")]
Data = Annotated[Path | None, typer.Option("--data", help="Folder with IDX files.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes at the same time.")]
Seed = Annotated[int, typer.Option(min=0)]
Quiet = Annotated[bool, typer.Option("--quiet", help="Only the table.")]
Options = Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the backend.")]


def typed() -> str:
    """The command as typed."""
    return shlex.join(["pib-twin", *sys.argv[1:]])


def say(text: Any) -> None:
    """A line for a person."""
    typer.echo(text)


@contextmanager
def friendly() -> Iterator[None]:
    """Typed errors as one message; Ctrl-C as a sentence, exit code 130; SIGTERM 143."""
    try:
        with terminable():
            yield
    except PibTwinError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except Terminated:
        typer.echo("terminated", err=True)
        raise typer.Exit(143) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None
