"""`pib-twin bench remote`: round trips through the remote door beside a bare echo.

A drive of 256x784 float32 to a server in another process, with every check on,
in turn with an echo of the same bytes over a bare socket; and a two-unit
training on remote units beside the same in this process.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from pib.network import Network
from pib.unit import IsomorphicUnit, Unit
from twin.backend import Capabilities, MinimalBackend, Reading, Values, Written, single
from twin.errors import ConfigError, DeviceUnavailable
from twin.fence import Fence
from twin.key import Key
from twin.registry import open_backend
from twin.remote.client import connect
from twin.remote.server import Server, run
from validation import datasets
from validation.config import RunConfig, load_config
from validation.experiment import Tensors, build_plans, build_trainer, tensors
from validation.serving import devices
from validation.summary import Figure

BATCH, INPUTS, OUTPUTS = 256, 784, 32
PRESET, ROUNDS = "memristor-fashion", 3
ECHO = (
    "import socket, sys\n"
    "s = socket.create_server(('127.0.0.1', 0))\n"
    "print(s.getsockname()[1], flush=True)\n"
    "c, _ = s.accept()\n"
    "c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)\n"
    "b = bytearray(int(sys.argv[1]))\n"
    "while True:\n"
    "    v, n = memoryview(b), 0\n"
    "    while n < len(b):\n"
    "        k = c.recv_into(v[n:])\n"
    "        if not k: sys.exit()\n"
    "        n += k\n"
    "    c.sendall(b)\n"
)
Tls = dict[str, Path]


def figures(seconds: float, data_dir: Path | None = None) -> tuple[list[Figure], dict[str, Any]]:
    """Medians of round trips and the ratio of training times.

    Mutual TLS uses certificates made for the moment.
    """
    rows = _round_trips(seconds, None)
    with tempfile.TemporaryDirectory() as folder:
        rows += _round_trips(seconds, certificates(Path(folder)))
    rows.append(_training(2_500 if seconds < 1 else 5_000, data_dir))
    return rows, {"bytes": 4 * BATCH * INPUTS, "cores": os.cpu_count() or 0}


def certificates(folder: Path) -> Tls:
    """One certificate for both sides, its key, and who signed it, as PEM files in `folder`.

    Raises ConfigError without trustme (extra `test`).
    """
    try:
        import trustme
    except ImportError as error:
        raise ConfigError(
            f"bench remote makes its certificates with trustme ({error}): pip install trustme."
        ) from None
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files = {name: folder / f"{name}.pem" for name in ("certificate", "private_key", "ca")}
    issued.cert_chain_pems[0].write_to_path(str(files["certificate"]))
    issued.private_key_pem.write_to_path(str(files["private_key"]))
    authority.cert_pem.write_to_path(str(files["ca"]))
    return files


def _round_trips(seconds: float, tls: Tls | None) -> list[Figure]:
    label, bound = ("plain", "< 5") if tls is None else ("mutual_tls", "< 8")
    drive = torch.rand((BATCH, INPUTS), generator=Key(1).torch())
    files: dict[str, Any] = dict(tls or {})
    with ExitStack() as stack:
        url = stack.enter_context(_served(tls))
        remote = connect(f"{url}/echo", **files)
        stack.callback(remote.close)
        echo = stack.enter_context(_echo(4 * BATCH * INPUTS))
        ours, bare = _in_turn(lambda n: remote.forward(drive, key=Key(n)), echo, seconds)
    return [
        Figure(f"round_trip_p50_{label}", 1e3 * statistics.median(ours), "ms", bound, n=len(ours)),
        Figure(f"bare_echo_p50_beside_{label}", 1e3 * statistics.median(bare), "ms", n=len(bare)),
    ]


def _in_turn(
    ours: Callable[[int], object], theirs: Callable[[], object], seconds: float
) -> tuple[list[float], list[float]]:
    mine: list[float] = []
    other: list[float] = []
    begun = time.perf_counter()
    while len(mine) < 30 or time.perf_counter() - begun < seconds:
        at = time.perf_counter()
        ours(len(mine))
        between = time.perf_counter()
        theirs()
        mine.append(between - at)
        other.append(time.perf_counter() - between)
    return mine[5:], other[5:]  # the first ones open connections


def _training(images: int, data_dir: Path | None) -> Figure:
    config = load_config(PRESET)
    data = tensors(datasets.load("fashion-mnist", data_dir=data_dir, limit=images))
    times: dict[str, list[float]] = {"far": [], "near": []}
    for _ in range(ROUNDS):
        near = list(devices(config, INPUTS, Key(0)).values())
        times["near"].append(_trained(config, data, near))
        with _served(None, PRESET) as url:
            far: list[MinimalBackend] = [
                connect(f"{url}/unit-{n}") for n in range(1, len(config.unit) + 1)
            ]
            times["far"].append(_trained(config, data, far))
            for remote in far:
                remote.close()
    ratio = statistics.median(a / b for a, b in zip(times["far"], times["near"], strict=True))
    return Figure("remote_training_ratio", ratio, "x", "<= 2", n=ROUNDS)


def _trained(config: RunConfig, data: Tensors, devices: list[MinimalBackend]) -> float:
    """Seconds of one epoch of PIB of each unit, on given devices."""
    units: list[Unit] = [
        IsomorphicUnit(Fence(device, name=f"unit {n}"), key=Key(n))
        for n, device in enumerate(devices, 1)
    ]
    copies = [table.feature_copies for table in config.unit]
    network = Network(units, skip=config.network.skip, copies=copies)
    tables = tuple(t.model_copy(update={"epochs": 1}) for t in config.unit)
    plans = build_plans(config.model_copy(update={"unit": tables}))
    trainer = build_trainer(network, data, plans, key=Key(0))
    begun = time.perf_counter()
    while not trainer.finished:
        trainer.advance()
    return time.perf_counter() - begun


def child(kind: str, certificate: str = "", private_key: str = "", ca: str = "") -> None:
    """What the other process does: serve until it is told to stop."""
    torch.set_num_threads(1)

    def make() -> dict[str, MinimalBackend]:
        if kind == "echo":
            ideal = open_backend("ideal", key=Key(1), inputs=INPUTS, outputs=INPUTS)
            return {"echo": Echo(ideal.capabilities)}
        return devices(load_config(kind), INPUTS, Key(0))

    def announce(server: Server) -> None:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()

    tls = {"certificate": certificate, "private_key": private_key, "client_ca": ca}
    run(make, announce, **{name: value for name, value in tls.items() if value})


class Echo:
    """A device that gives back what it is driven with: no physics in the figure."""

    def __init__(self, capabilities: Capabilities) -> None:
        self.capabilities = capabilities

    def program(self, setting: Values, *, key: Key) -> Written:  # noqa: ARG002
        return Written(state_version=0)

    def forward(
        self,
        drive: Values,
        *,
        key: Key,  # noqa: ARG002
        first_sample: int = 0,  # noqa: ARG002
        shots: int | None = None,  # noqa: ARG002
    ) -> Reading:
        return Reading(codes=single(drive, self.capabilities.drives[0]))

    def close(self) -> None:
        """Nothing to make safe."""


@contextmanager
def _served(tls: Tls | None, kind: str = "echo") -> Iterator[str]:
    """The URL of a server in another process."""
    names = ("certificate", "private_key", "ca")
    files = [] if tls is None else [str(tls[name]) for name in names]
    code = "import sys; from validation.bench.remote import child; child(*sys.argv[1:])"
    command = [sys.executable, "-c", code, kind, *files]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise DeviceUnavailable("bench remote: the server did not start.")
            yield url
        finally:
            process.terminate()


@contextmanager
def _echo(size: int) -> Iterator[Callable[[], object]]:
    """An exchange of `size` bytes with a bare echo in another process."""
    command = [sys.executable, "-c", ECHO, str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            content = bytearray(size)

            def exchange() -> None:
                sock.sendall(content)
                view, got = memoryview(content), 0
                while got < size:
                    got += sock.recv_into(view[got:])

            yield exchange
