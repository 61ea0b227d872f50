"""The swap: devices, recordings and twins of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from validation.commands.common import Data, Options, Out, Seed, friendly, say, typed

app = typer.Typer()


@app.command()
def recording(
    folder: Annotated[Path, typer.Argument(metavar="RECORDING", help="A recording's folder.")],
) -> None:
    """What a recording holds, and whether it is sound; exits with 1 if it is damaged."""
    with friendly():
        from twin.recordingtold import describe

        rows = describe(folder)
        for name, told in rows:
            say(f"{name:24} {told}")
    raise typer.Exit(0 if dict(rows)["digests"] == "all as recorded" else 1)


@app.command()
def probe(
    name: Annotated[str, typer.Argument(help="A backend's name or URI.")],
    out: Annotated[Path, typer.Argument(metavar="RECORDING", help="Folder, made anew.")],
    passes: Annotated[int, typer.Option(min=300, help="Exactly so many.")] = 20_000,
    twin: Annotated[str | None, typer.Option(help="memristor or optics; by the device.")] = None,
    option: Options = None,
    seed: Seed = 0,
) -> None:
    """Record what a calibration needs: drives, repeats, settings and waits, by design.

    A device that can be written is rewritten: what it held is lost.
    """
    with friendly():
        from validation import calibrating
        from validation.evaluation import backend_options

        options = backend_options(option or [])
        made = calibrating.probe_to(name, out, passes=passes, seed=seed, options=options, kind=twin)
        told = calibrating.probed(made)
        if told:
            say(told)
        kind = twin or ("memristor" if made.capabilities.programmable else "optics")
        say(f"wrote {out}; next: pib-twin calibrate {out} --twin {kind} --out FILE")


@app.command()
def calibrate(
    folder: Annotated[Path, typer.Argument(metavar="RECORDING", help="Of `pib-twin probe`.")],
    twin: Annotated[str, typer.Option(help="memristor or optics")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The calibration, made anew.")],
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of the device's data sheet.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Fit a twin to a recording; use it as backend `twin:FILE`."""
    with friendly():
        from validation import calibrating
        from validation.evaluation import backend_options

        sheet = backend_options(option or [])
        made = calibrating.calibrate_to(folder, out, kind=twin, seed=seed, sheet=sheet)
        say(calibrating.report(made))
        say(f"\nwrote {out}; use it as twin:{out}")


@app.command()
def serve(
    config: Annotated[str, typer.Argument(help="A preset or CONFIG.toml: units to serve.")],
    host: Annotated[str, typer.Option(help="Other than loopback: TLS and a secret.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8321,
    token_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Environment variable of the token.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM file of this server.")] = None,
    private_key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
    client_ca: Annotated[Path | None, typer.Option(help="PEM: who signs clients.")] = None,
    journal: Annotated[Path | None, typer.Option(help="Folder: survives a kill.")] = None,
    pixels: Annotated[int | None, typer.Option(min=1, help="Of an image.")] = None,
    seed: Seed = 0,
    data: Data = None,
) -> None:
    """Put the devices of a configuration on the network, for `http://HOST:PORT/unit-1`."""
    with friendly():
        from validation import serving

        serving.main(
            serving.Request(
                config=config, seed=seed, pixels=pixels, host=host, port=port,
                token_env=token_env, certificate=certificate, private_key=private_key,
                client_ca=client_ca, journal=journal, data=data,
            )
        )  # fmt: skip


@app.command()
def fidelity(
    twin: Annotated[str, typer.Argument(help="A backend's name or URI: the twin.")],
    device: Annotated[str, typer.Argument(help="A backend's name or URI: the device.")],
    option: Options = None,
    twin_option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of the twin alone.")
    ] = None,
    drives: Annotated[int, typer.Option(min=2)] = 64,
    repeats: Annotated[int, typer.Option(min=2, help="Readings of each drive.")] = 16,
    task: Annotated[bool, typer.Option("--task", help="Train on the twin, too.")] = False,
    as_it_stands: Annotated[
        bool, typer.Option("--as-it-stands", help="Write nothing: compare what both hold.")
    ] = False,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """How close a twin is, in units of the device's own repeatability (1 is as close as can be)."""
    with friendly():
        from validation import fidelity as comparing

        comparing.main(
            twin, device, option or [], seed, out, typed(), twin_options=twin_option or [],
            drives=drives, repeats=repeats, task=task, as_it_stands=as_it_stands,
        )  # fmt: skip
