"""From a name or a URI to a backend, through one entry-point group.

Our own substrates use the same door as everybody: a distribution declares

    [project.entry-points."pib_twin.backends"]
    my-rig = "my_package.driver:make"

where ``make(*, key, **options)`` returns a backend. Beside names there are

``replay:FOLDER``       answers from a recording (options ``mode``, ``max_distance``)
``twin:FILE``           a simulated device with the parameters of a calibration
``http(s)://HOST/UNIT`` a backend behind a network (options of ``twin.remote.client.connect``;
                        ``token_env`` names the environment variable that holds the token)
``faulty+NAME``         makes NAME fail now and then (``fault_rate``, a probability per call)
``broken+NAME``         adds fault dials that NAME lacks (``code_weight``, see ``twin.broken``)
``slow+NAME``           makes every call to NAME take longer (``delay_s``, wall seconds)
``recorded+NAME``       keeps every call in the folder ``record_to``

Prefixes may stand before each other and before a URI.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from twin.backend import Capabilities, MinimalBackend, Port
from twin.broken import Broken
from twin.calibration import Calibration
from twin.config import holds_secret
from twin.errors import ConfigError, UnknownName, nearest
from twin.key import Key
from twin.recording import Recording
from twin.slow import Slow
from twin.wrap import Faulty, Recorded, Replayed

GROUP = "pib_twin.backends"
TWINS = "pib_twin.twins"
"""By kind of calibration: ``make(*, key, calibration, **options)``, calibration its path."""
Options = dict[str, Any]
SIZES: tuple[str, ...] = ("inputs", "outputs")


def names() -> list[str]:
    """Names of all installed backends."""
    return sorted(_installed())


def open_backend(name: str, *, key: Key, **options: Any) -> MinimalBackend:
    """Make the backend called `name`.

    key: fixes everything that is drawn once (device-to-device spread, the
    medium). options: the backend's own configuration, checked by itself. Of a URI
    the options ``inputs`` and ``outputs`` are not passed on but compared with the
    ports of what is there. Raises UnknownName with the nearest name, ConfigError
    for bad options or sizes that do not fit.
    """
    if holds_secret(name):
        # It is not quoted: what stands before the @ may be a password.
        raise ConfigError(
            "a URI holds no user and no password, so no '@'. Name the environment "
            'variable of the token, as option token_env = "VARIABLE".'
        )
    for prefix, wrap in WRAPS.items():
        if name.startswith(prefix):
            return wrap(name.removeprefix(prefix), key, options)
    for prefix, open_uri in URIS.items():
        if name.startswith(prefix):
            wanted = {n: int(options.pop(n)) for n in SIZES if n in options}
            return _of_size(open_uri(name, key, options), name, wanted)
    installed = _installed()
    if name not in installed:
        raise UnknownName(f"no backend is called {name!r}. {_meant(name, installed)}")
    try:
        make = installed[name].load()
    except ImportError as error:
        raise ConfigError(
            f"backend {name!r} is installed but cannot be imported: {error}. Install what it needs."
        ) from error
    return make(key=key, **options)


def _meant(name: str, installed: Mapping[str, EntryPoint]) -> str:
    path = Path(name)
    if path.is_file():
        return f"It is a file; a calibration is the backend twin:{name}."
    if path.is_dir():
        return f"It is a folder; a recording is the backend replay:{name}."
    return (
        f"{nearest(name, installed)} A driver of your own gets its name from the package that "
        "is installed with it (pip install FOLDER; docs/driver.md)."
    )


def is_uri(name: str) -> bool:
    """Whether this is a place rather than the name of an installed backend."""
    return name.startswith(tuple(URIS))


def one_of_a_kind(name: str, capabilities: Capabilities | None = None) -> bool:
    """Whether what is open under this name must not be opened once more beside itself.

    So is whatever is recorded, replayed or elsewhere, and a real device (not seedable).
    """
    real = capabilities is not None and not capabilities.seedable
    return real or any(part in name for part in ("recorded+", "replay:", "http://", "https://"))


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


# ---- prefixes ---------------------------------------------------------------------


def _faulty(name: str, key: Key, options: Options) -> MinimalBackend:
    rate = float(options.pop("fault_rate", 0.01))
    return Faulty(open_backend(name, key=key, **options), key.child("faulty"), rate=rate)


def _broken(name: str, key: Key, options: Options) -> MinimalBackend:
    weight = options.pop("code_weight", 1)
    return Broken(open_backend(name, key=key, **options), code_weight=weight)


def _slow(name: str, key: Key, options: Options) -> MinimalBackend:
    delay_s = options.pop("delay_s", 0.1)
    return Slow(open_backend(name, key=key, **options), delay_s=delay_s)


def _recorded(name: str, key: Key, options: Options) -> MinimalBackend:
    folder = options.pop("record_to", None)
    if folder is None:
        raise ConfigError(f"recorded+{name}: say where to, as option record_to = 'FOLDER'.")
    return Recorded(open_backend(name, key=key, **options), to=Path(folder))


WRAPS: Mapping[str, Callable[[str, Key, Options], MinimalBackend]] = {
    "faulty+": _faulty, "broken+": _broken, "slow+": _slow, "recorded+": _recorded,
}  # fmt: skip


# ---- URIs -------------------------------------------------------------------------


def _replay(uri: str, key: Key, options: Options) -> MinimalBackend:  # noqa: ARG001
    _known(uri, options, ("mode", "max_distance"))
    return Replayed(Recording.load(uri.removeprefix("replay:")), **options)


def _remote(uri: str, key: Key, options: Options) -> MinimalBackend:  # noqa: ARG001
    # Here: most runs need no network, and its modules take time to import.
    from twin.remote.client import connect
    from twin.remote.secret import Secret

    known = ("token_env", "ca", "certificate", "private_key", "deadline_s", "optimistic")
    _known(uri, options, known)
    variable = options.pop("token_env", None)
    if variable is not None and variable not in os.environ:
        raise ConfigError(
            f"{uri}: the environment variable {variable!r} (token_env) is not set. Put the token "
            "of the server there."
        )
    # Never bound to a name as text: a traceback with variables would show it.
    token = None if variable is None else Secret(os.environ[variable])
    return connect(uri, token=token, **options)


def _calibrated(uri: str, key: Key, options: Options) -> MinimalBackend:
    path = uri.removeprefix("twin:")
    kind = Calibration.load(path).kind
    known = {point.name: point for point in entry_points(group=TWINS)}
    if kind not in known:
        raise UnknownName(f"{uri}: no twin is called {kind!r}. {nearest(kind, known)}")
    try:
        return known[kind].load()(key=key, calibration=path, **options)
    except TypeError as error:
        raise ConfigError(f"{uri}: {error}. What a twin is like stands in its file.") from None


URIS: Mapping[str, Callable[[str, Key, Options], MinimalBackend]] = {
    "replay:": _replay, "twin:": _calibrated, "http://": _remote, "https://": _remote,
}  # fmt: skip


def _known(uri: str, options: Options, known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            raise ConfigError(
                f"{uri}: no option {name!r}; what is behind a URI is configured where it runs. "
                f"{nearest(name, known)}"
            )


def _of_size(backend: MinimalBackend, uri: str, wanted: Mapping[str, int]) -> MinimalBackend:
    """The backend if its first ports have the wanted lengths; closed and refused otherwise."""
    ports: Mapping[str, Port] = {
        "inputs": backend.capabilities.drives[0],
        "outputs": backend.capabilities.readings[0],
    }
    for name, length in wanted.items():
        if ports[name].shape != (length,):
            backend.close()
            raise ConfigError(
                f"{uri}: its {name} have shape {ports[name].shape}, the network wants ({length},). "
                "Change the unit, or point it at another device."
            )
    return backend
