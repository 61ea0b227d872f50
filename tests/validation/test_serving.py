"""`pib-twin serve`: a network trains on served devices as on its own, and signals close them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from twin.errors import ConfigError
from twin.key import Key
from twin.recording import Recording
from twin.registry import open_backend
from validation.config import load_config
from validation.serving import Request, devices, main

UNITS = """
[network]
skip = false
hard_examples = false
shared_clock = false

[[unit]]
backend = "recorded+memristor"
outputs = 6
options = {{ record_to = "{folder}/one" }}

[[unit]]
backend = "recorded+ideal"
outputs = 3
options = {{ record_to = "{folder}/two", noise_v = 0.1 }}
"""
COMMAND = "import sys; sys.argv[0] = 'pib-twin'; from validation.cli import main; main()"


def network(folder: Path) -> str:
    path = folder / "network.toml"
    path.write_text(UNITS.format(folder=folder))
    return str(path)


@contextmanager
def served(folder: Path, *words: str, **more: str) -> Iterator[tuple[subprocess.Popen[str], list]]:
    """The command in a process of its own, and where it says that units are."""
    asked = ["serve", network(folder), "--port", "0", "--pixels", "8", *words]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *asked], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **more},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(3)]
        yield process, [line.split(": ")[1] for line in lines[:2]]
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_server_and_closes_every_device_once(
    tmp_path: Path, number: signal.Signals
) -> None:
    with served(tmp_path) as (process, (first, second)):
        # The same units made here, with the same seed.
        text = (tmp_path / "network.toml").read_text().replace(f"{tmp_path}/", f"{tmp_path}/near-")
        (tmp_path / "near.toml").write_text(text)
        near = devices(load_config(str(tmp_path / "near.toml")), 8, Key(0))
        for url, device in zip((first, second), near.values(), strict=True):
            far = open_backend(url, key=Key(0), inputs=device.capabilities.drives[0].shape[0])
            drive = torch.full((4, *device.capabilities.drives[0].shape), 0.5)
            expected = device.forward(drive, key=Key(3)).codes
            assert torch.equal(far.forward(drive, key=Key(3)).codes, expected)
            far.close()
        process.send_signal(number)
        assert process.wait(20) == 0
    for name in ("one", "two"):
        # The closing file of a recording is written by close() and refuses a second one.
        assert Recording.load(tmp_path / name).closed


def test_a_token_is_asked_for_and_is_shown_nowhere(tmp_path: Path) -> None:
    canary = "canary-6c1f2f3c"
    with served(tmp_path, "--token-env", "CANARY", CANARY=canary) as (process, (first, _)):
        with pytest.raises(Exception, match="token") as refused:
            open_backend(first, key=Key(0)).forward(torch.zeros(1, 8), key=Key(1))
        assert canary not in str(refused.value)
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert canary not in process.stdout.read()
    assert all(canary not in path.read_text("latin1") for path in tmp_path.rglob("*.json"))


def test_another_address_without_tls_is_refused_and_devices_are_closed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="TLS"):
        main(Request(config=network(tmp_path), host="0.0.0.0", port=0, pixels=8))
    assert Recording.load(tmp_path / "one").closed and Recording.load(tmp_path / "two").closed


def test_devices_made_before_one_that_cannot_be_made_are_closed(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    with pytest.raises(Exception, match="exists already"):
        devices(load_config(network(tmp_path)), 8, Key(0))
    assert Recording.load(tmp_path / "one").closed


def test_a_token_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="NOT_SET"):
        main(Request(config=network(tmp_path), token_env="NOT_SET", pixels=8))
