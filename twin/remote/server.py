"""Serve devices over HTTP: addresses, TLS, tokens, and a safe end.

Loopback needs nothing. Any other address needs TLS and a token or client
certificates: a device is not left open to a network.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import signal
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from twin.backend import MinimalBackend
from twin.errors import ConfigError
from twin.remote.app import App
from twin.remote.device import Device
from twin.remote.journal import Journal
from twin.remote.secret import Secret, secret
from twin.remote.wire import Limits

if TYPE_CHECKING:
    from twin.remote.stream import HttpServer

THREADS = 32
"""Beside those that wait for a device."""
IDLE_S = 60
"""How long a connection may stay open without a request."""
CONNECTIONS = 256
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
SHORTEST_TOKEN = 16


class Server:
    """A running server. url: where it is; a unit is at url/NAME. close() ends it."""

    def __init__(self, http: HttpServer, devices: Mapping[str, Device], url: str) -> None:
        self._http = http
        self._devices = dict(devices)
        self.url = url
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=http.serve, name="http", daemon=True)
        self._thread.start()

    @property
    def units(self) -> dict[str, str]:
        """URLs of the served units by name."""
        return {name: f"{self.url}/{name}" for name in self._devices}

    def close(self) -> None:
        """Stop serving and close every device once; may be called again."""
        with self._closing:
            try:
                close_all(self._devices.values())
            finally:
                if self._thread.is_alive():
                    self._http.stop()
                    self._thread.join(10.0)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def serve(
    backends: Mapping[str, MinimalBackend],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | Secret | None = None,
    certificate: str | Path | None = None,
    private_key: str | Path | None = None,
    client_ca: str | Path | None = None,
    journal: str | Path | None = None,
    queue: int = 8,
    limits: Limits | None = None,
    deadline_s: float = 30.0,
) -> Server:
    """Serve `backends` by name, in threads of this process; returns at once.

    The server owns the backends from here on: if it cannot start, they are
    closed before the error is raised. host, port: where to listen, 0 for a free
    port. certificate, private_key, client_ca: PEM files; client_ca asks every
    client for a certificate. journal: folder for state and replies, one folder
    in it a unit. queue: calls that may wait for a device. deadline_s: of a call
    that names none.

    Raises ConfigError for an address that is not loopback without TLS and
    either a token or client_ca.
    """
    token = secret(token)
    remaining = dict(backends)
    devices: dict[str, Device] = {}
    try:
        _check_address(host, token, certificate, private_key, client_ca)
        _check_names(backends)
        for name, backend in backends.items():
            devices[name] = _device(name, backend, journal, queue)
            remaining.pop(name)
        app = App(devices, token=token, limits=limits, deadline_s=deadline_s)
        # Devices that are all busy must not keep out who asks whether the server lives.
        threads = THREADS + len(devices) * (1 + 2 * queue)
        http = _http(app, threads, host, port, certificate, private_key, client_ca)
    except BaseException:
        close_all([*devices.values(), *remaining.values()])
        raise
    shown, number = http.bind_addr[:2]
    scheme = "http" if certificate is None else "https"
    return Server(http, devices, f"{scheme}://{f'[{shown}]' if ':' in shown else shown}:{number}")


def close_all(devices: Iterable[Device | MinimalBackend]) -> None:
    """Close each; the first failure is raised after all were tried."""
    with contextlib.ExitStack() as stack:
        for device in devices:
            stack.callback(device.close)


def _device(name: str, backend: MinimalBackend, journal: str | Path | None, queue: int) -> Device:
    kept = None
    if journal is not None:
        kept = Journal(Path(journal) / name, backend.capabilities.device_id)
    try:
        return Device(name, backend, queue=queue, journal=kept)
    except BaseException:
        if kept is not None:
            kept.close()
        raise


def _check_names(backends: Mapping[str, MinimalBackend]) -> None:
    if not backends:
        raise ConfigError("serve: expected at least one unit, got none.")
    for name in backends:
        if not NAME.fullmatch(name):
            raise ConfigError(f"serve: unit name {name!r} must be letters, digits, - and _ only.")


def is_loopback(host: str) -> bool:
    """Whether an address reaches this machine only. A name never counts, save localhost."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_address(
    host: str,
    token: Secret | None,
    certificate: str | Path | None,
    private_key: str | Path | None,
    client_ca: str | Path | None,
) -> None:
    if (certificate is None) != (private_key is None):
        raise ConfigError("serve: TLS needs both certificate and private_key.")
    if client_ca is not None and certificate is None:
        raise ConfigError("serve: client_ca needs certificate and private_key of the server.")
    if os.environ.get("LISTEN_PID"):
        raise ConfigError(
            "serve: LISTEN_PID is set; a socket handed over by a service manager is refused, "
            "because its address cannot be checked. Unset it."
        )
    if is_loopback(host):
        return
    if certificate is None:
        raise ConfigError(
            f"serve: {host} is not a loopback address, and without TLS everybody on the way reads "
            "and changes what is sent. Give certificate and private_key (--certificate, "
            "--private-key) and a token or client_ca (--token-env, --client-ca), or use an SSH "
            "tunnel to a loopback address."
        )
    if token is None and client_ca is None:
        raise ConfigError(
            f"serve: {host} is not a loopback address, so anybody could drive the device. "
            "Give a token (--token-env), or client_ca (--client-ca) to ask clients for theirs."
        )
    if token is not None and client_ca is None and len(token) < SHORTEST_TOKEN:
        raise ConfigError(f"serve: a token has at least {SHORTEST_TOKEN} characters off loopback.")


def _http(
    app: App,
    threads: int,
    host: str,
    port: int,
    certificate: str | Path | None,
    private_key: str | Path | None,
    client_ca: str | Path | None,
) -> HttpServer:
    from twin.remote.stream import Adapter, HttpServer

    if not 0 <= port < 2**16:
        raise ConfigError(f"serve: a port is 0 to 65535, got {port}.")
    address = "127.0.0.1" if host == "localhost" else host
    http = HttpServer(
        (address, port), app, numthreads=threads, timeout=IDLE_S, request_queue_size=CONNECTIONS
    )
    http.server_name = "pib-twin"
    http.max_request_header_size = 2**15
    http.max_request_body_size = app.limits.body_bytes
    http.keep_alive_conn_limit = CONNECTIONS
    http.shutdown_timeout = 2
    http.expiration_interval = 0.1
    if certificate is not None:
        http.ssl_adapter = _adapter(Adapter, certificate, private_key, client_ca)
    try:
        http.prepare()
    except OSError as error:
        raise ConfigError(
            f"serve: cannot listen on {host}:{port} ({error}). Is another server there? Stop it, "
            "or give another port (--port)."
        ) from None
    return http


def _adapter(
    kind: Callable[..., object],
    certificate: str | Path,
    private_key: str | Path | None,
    client_ca: str | Path | None,
) -> object:
    try:
        adapter = kind(str(certificate), str(private_key))
        context: ssl.SSLContext = adapter.context  # type: ignore[attr-defined]
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if client_ca is not None:
            context.load_verify_locations(str(client_ca))
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:
        raise ConfigError(f"serve: certificate files cannot be used ({error}).") from None
    return adapter


# ---- until a signal -----------------------------------------------------------


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; the handlers of before come back."""
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve_forever(server: Server) -> None:
    """Serve until SIGINT or SIGTERM, then close every device; main thread only."""
    with stop_signals() as stopped, server:
        _wait(stopped)


def run(
    make: Callable[[], Mapping[str, MinimalBackend]],
    announce: Callable[[Server], None],
    **options: object,
) -> None:
    """Make devices, serve them until a signal, close them: no signal is missed in between.

    announce: called with the running server, to say where it is. options: of serve.
    """
    # So that no traceback with local variables shows it.
    options["token"] = secret(options.get("token"))  # type: ignore[arg-type]
    with stop_signals() as stopped:
        backends = make()
        if stopped.is_set():
            close_all(backends.values())
            return
        with serve(backends, **options) as server:  # type: ignore[arg-type]
            announce(server)
            _wait(stopped)


def _wait(stopped: threading.Event) -> None:
    # In turns: on some systems a wait without end is not interrupted by a signal.
    while not stopped.wait(1.0):
        pass
