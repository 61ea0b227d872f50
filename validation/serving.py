"""`pib-twin serve CONFIG`: the devices of a configuration behind the remote door."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from twin.backend import MinimalBackend
from twin.errors import ConfigError
from twin.key import Key
from validation import datasets
from validation.config import RunConfig, load_config
from validation.console import console
from validation.experiment import open_device, unit_inputs

if TYPE_CHECKING:
    from twin.remote.server import Server


@dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of the command. pixels: of an image, None for those of the data set.

    token_env: the environment variable that holds the token.
    """

    config: str
    seed: int = 0
    pixels: int | None = None
    host: str = "127.0.0.1"
    port: int = 8321
    token_env: str | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    client_ca: Path | None = None
    journal: Path | None = None
    data: Path | None = None


def main(request: Request) -> None:
    """Serve until SIGINT or SIGTERM; every device is closed once, whatever happens."""
    try:
        # Here: it needs the extra `remote`.
        from twin.remote.server import run
    except ImportError as error:
        raise ConfigError(
            f"serve needs a server that is not installed ({error}). pip install 'pib-twin[remote]'."
        ) from None
    config = load_config(request.config)
    pixels = request.pixels or _pixels(config, request.data)
    run(
        lambda: devices(config, pixels, Key(request.seed)), _announce,
        host=request.host, port=request.port, token=_token(request.token_env),
        certificate=request.certificate, private_key=request.private_key,
        client_ca=request.client_ca, journal=request.journal,
    )  # fmt: skip


def devices(config: RunConfig, pixels: int, key: Key) -> dict[str, MinimalBackend]:
    """The device of every unit by name, "unit-1" first, as a run with this key makes them.

    If one cannot be made, those made before are closed.
    """
    made: dict[str, MinimalBackend] = {}
    try:
        for index, inputs in enumerate(unit_inputs(config, pixels)):
            made[f"unit-{index + 1}"] = open_device(config.unit[index], index, inputs, key)
    except BaseException:
        for device in made.values():
            device.close()
        raise
    return made


def _pixels(config: RunConfig, data: Path | None) -> int:
    return int(datasets.load(config.data.name, data_dir=data, limit=1000).train_x.shape[1])


def _token(variable: str | None) -> str | None:
    if variable is None:
        return None
    token = os.environ.get(variable)
    if not token:
        raise ConfigError(f"the environment variable {variable!r} (--token-env) is not set.")
    return token


def _announce(server: Server) -> None:
    for name, url in server.units.items():
        console.print(f"{name}: {url}", markup=False, highlight=False, soft_wrap=True)
    console.print("serving; Ctrl-C stops and closes every device")
