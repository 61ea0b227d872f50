"""The training methods that a study can name.

Importing this module imports no method, and so no torch: the code behind a result
is that of its own method (see `points.Point.key`).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from twin.errors import UnknownName, nearest

if TYPE_CHECKING:
    from validation.baselines.method import Method

WHERE: Mapping[str, str] = {
    "pib": "greedy:PIB",
    "lce": "greedy:LCE",
    "backprop": "insilico:OWN_HEAD",
    "backprop-retrained": "insilico:RETRAINED",
    "readout": "untrained:METHOD",
    "pat": "pat:METHOD",
    "dfa": "dfa:METHOD",
    "phyll": "phyll:METHOD",
    "forward-forward": "forward_forward:METHOD",
    "elm": "elm:METHOD",
    "parameter-shift": "shift:METHOD",
    "spsa": "spsa:METHOD",
}
"""Module of this package and name in it."""

STUDIED = ("pib", "backprop", "backprop-retrained", "lce", "readout")
"""Those that need no twin, no budget and no physics to answer: for studies of devices."""


def module_of(name: str) -> str:
    """The dotted name of the module behind a method; UnknownName if there is none."""
    if name not in WHERE:
        raise UnknownName(f"no training method {name!r}. {nearest(name, WHERE)}")
    return f"{__package__}.{WHERE[name].split(':')[0]}"


def method(name: str) -> Method:
    """A method by name; UnknownName with the nearest one."""
    found: Method = getattr(import_module(module_of(name)), WHERE[name].split(":")[1])
    return found
