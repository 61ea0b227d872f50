"""`pib-twin reproduce`: compute what is missing, draw, and say what matched."""

from __future__ import annotations

import io
import time
from importlib import import_module
from pathlib import Path
from typing import cast

from twin.errors import UnknownName, nearest
from twin.files import write_atomic
from validation.console import console
from validation.reproduce.figure import Drawing, Reproduction, Request
from validation.reproduce.parts import compute
from validation.studies import collect
from validation.studies.progress import duration
from validation.summary import Summary

FIGURES = ("fig2c", "fig2d", "fig3b", "fig4a", "fig4b", "fig4c", "writes")


def reproduction(name: str) -> Reproduction:
    """A figure by name; UnknownName with the nearest one."""
    if name not in FIGURES:
        raise UnknownName(f"no figure is called {name!r}. {nearest(name, FIGURES)}")
    return cast(Reproduction, import_module(f"validation.reproduce.{name}"))


def main(
    name: str, out: Path | None, request: Request, jobs: int, command: str, quiet: bool = False
) -> Summary:
    """Write NAME.png, NAME.nc and summary.json to `out`; returns the summary."""
    figure, begun = reproduction(name), time.monotonic()
    out = out or Path("runs") / (f"{name}-quick" if request.quick else name)
    found = compute(figure.parts(request), out / "parts", jobs, quiet)
    drawing = figure.drawn(found, request)
    summary = written(name, drawing, out, command)
    console.print(summary.table())
    console.print(drawing.verdict, markup=False)
    took = duration(time.monotonic() - begun)
    console.print(f"picture, data and figures in {out} ({took})")
    return summary


def written(name: str, drawing: Drawing, out: Path, command: str) -> Summary:
    """Write what came of it."""
    image = io.BytesIO()
    drawing.picture.savefig(image, format="png", dpi=150)
    write_atomic(out / f"{name}.png", image.getvalue())
    collect.save(drawing.data.assign_attrs(command=command), out / f"{name}.nc")
    summary = Summary(command, list(drawing.figures))
    summary.extra = {"verdict": drawing.verdict, **drawing.extra}
    summary.write(out)
    return summary
