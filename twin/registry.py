"""From a name to a backend, through one entry-point group.

Our own substrates use the same door as everybody: a distribution declares

    [project.entry-points."pib_twin.backends"]
    my-rig = "my_package.driver:make"

where ``make(*, key, **options)`` returns a backend. Three prefixes wrap:
``replay:FOLDER`` answers from a recording, ``faulty+NAME`` makes the backend
NAME fail now and then (option ``fault_rate``, a probability per call),
``broken+NAME`` adds fault dials that it lacks (option ``code_weight``, see
``twin.broken``).
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from twin.backend import MinimalBackend
from twin.broken import Broken
from twin.errors import ConfigError, UnknownName, nearest
from twin.key import Key
from twin.recording import Recording
from twin.wrap import Faulty, Replayed

GROUP = "pib_twin.backends"


def names() -> list[str]:
    """Names of all installed backends."""
    return sorted(_installed())


def open_backend(name: str, *, key: Key, **options: Any) -> MinimalBackend:
    """Make the backend called `name`.

    key: fixes everything that is drawn once (device-to-device spread, the
    medium). options: the backend's own configuration, checked by itself.
    Raises UnknownName with the nearest name, ConfigError for bad options.
    """
    if name.startswith("replay:"):
        if options:
            raise ConfigError(f"{name}: a recording takes no options, got {sorted(options)}.")
        return Replayed(Recording.load(name.removeprefix("replay:")))
    if name.startswith("faulty+"):
        rate = float(options.pop("fault_rate", 0.01))
        inner = open_backend(name.removeprefix("faulty+"), key=key, **options)
        return Faulty(inner, key.child("faulty"), rate=rate)
    if name.startswith("broken+"):
        weight = options.pop("code_weight", 1)
        inner = open_backend(name.removeprefix("broken+"), key=key, **options)
        return Broken(inner, code_weight=weight)
    installed = _installed()
    if name not in installed:
        raise UnknownName(f"no backend is called {name!r}. {nearest(name, installed)}")
    try:
        make = installed[name].load()
    except ImportError as error:
        raise ConfigError(
            f"backend {name!r} is installed but cannot be imported: {error}. Install what it needs."
        ) from error
    return make(key=key, **options)


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
