"""Every non-ideality of a network's devices, from what the devices declare.

What is not swept stays as the network has it: electrons of read noise mean
something only beside the light that is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from twin.backend import Dial
from twin.errors import ConfigError
from validation.config import RunConfig
from validation.studies.points import WHENS
from validation.studies.severity import NonIdeality, Scale

SCALES: Mapping[str, Scale] = {"mean_electrons": "photons", "exposure_ratio": "log"}
"""Dials whose effect does not grow with their value."""

EVENTS = ("swapped",)
"""Dials that happen or not."""

WAIT = "test.wait_s"
DAY_S = 86400.0
AGEING: Mapping[str, float] = {
    "relaxation_mean": DAY_S,
    "relaxation_spread": DAY_S,
    "relaxation_scale": DAY_S,
    "temperature_k": DAY_S,
}
"""Dials that act while the device rests, and for how long it then does before the test."""

WRITING = {"programming_error": ("unit.options.programming_error",), "programming_scale": ()}
"""Dials that act on the next write, and what has the weights written anew."""

WIRES = ("word_ohm", "bit_ohm")
WIRES_HELD, WRITES_HELD = "unit.options.wire_refresh", 20
"""In the loop, wires are solved exactly after so many writes; what is reported is
measured through exact wires (see validation.exactwires)."""

LEFT_OUT: Mapping[str, str] = {
    "wire_refresh": "how often the simulation solves the wires, no property of a chip",
    "lost_frame_probability": "a lost frame is asked for again: it costs time, not accuracy",
}
"""Dials that are not swept, and why."""


REST = NonIdeality(
    name="rest_before_test", paths=(WAIT,), unit="s", zero=0, severe=DAY_S, delivered=0,
    scale="time", kind="option", about="time between training and test, in which cells relax; "
    "severe: a day, as the relaxation dials assume",
)  # fmt: skip


@dataclass(frozen=True)
class Inventory:
    """swept: every non-ideality of a network. left_out: (name, reason) of the rest."""

    swept: tuple[NonIdeality, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    def named(self, names: Iterable[str]) -> Inventory:
        """Only those of the given names, in this order; ConfigError for others."""
        known = {one.name: one for one in self.swept}
        wanted = list(names)
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise ConfigError(
                f"no non-ideality {', '.join(map(repr, unknown))} in this network. "
                f"Known: {', '.join(known)}."
            )
        return Inventory(tuple(known[name] for name in wanted), self.left_out)


def inventory(config: RunConfig, pixels: int) -> Inventory:
    """Every non-ideality of the network's devices: what they declare, and options.

    pixels: of an image. Opens the devices once; passes nothing through them.
    """
    from twin.key import Key
    from validation.experiment import build_network
    from validation.studies.nonidealoptions import of_options

    network = build_network(config, pixels, key=Key(0))
    try:
        declared = [unit.fence.capabilities.dials for unit in network.units]
    finally:
        network.close()
    swept, left_out = _of_dials(declared)
    if any(one.always for one in swept):
        swept.append(REST)
    known = {one.name for one in swept} | {name for name, _ in left_out}
    more, refused = of_options(config, known)
    return Inventory((*swept, *more), (*left_out, *refused))


def _of_dials(
    declared: Sequence[Sequence[Dial]],
) -> tuple[list[NonIdeality], list[tuple[str, str]]]:
    grouped: dict[str, dict[int, Dial]] = {}
    for unit, dials in enumerate(declared):
        for dial in dials:
            grouped.setdefault(dial.name, {})[unit] = dial
    swept, left_out = [], []
    for name, of_units in grouped.items():
        reason = _left_out(next(iter(of_units.values())))
        if reason:
            left_out.append((name, reason))
        else:
            swept += list(_named(name, of_units))
    return swept, left_out


def _left_out(dial: Dial) -> str:
    """Why a dial is not swept; "" if it is."""
    if dial.name in LEFT_OUT:
        return LEFT_OUT[dial.name]
    if dial.shape:
        return "a map of single elements; fractions are swept in its place"
    if dial.read_only:
        return "cannot be turned on this device"
    return "has no severe value of its own" if dial.ideal == dial.severe else ""


def _named(name: str, dials: Mapping[int, Dial]) -> Iterator[NonIdeality]:
    """One non-ideality for all units, or one for each where they mean different things."""
    meanings = {(d.unit, d.ideal, d.severe) for d in dials.values()}
    if len(meanings) == 1:
        defaults = {d.default for d in dials.values()}
        yield _of_dial(name, f"dial.{name}", next(iter(dials.values())), defaults)
        return
    for unit, dial in dials.items():
        yield _of_dial(
            f"{name} of unit {unit + 1}", f"unit.{unit}.dial.{name}", dial, {dial.default}
        )


def _of_dial(name: str, path: str, dial: Dial, defaults: set[float]) -> NonIdeality:
    scale: Scale = "event" if dial.name in EVENTS else SCALES.get(dial.name, "linear")
    rewritten = WRITING.get(dial.name)
    rest_s = AGEING.get(dial.name)
    return NonIdeality(
        name=name,
        paths=(path,),
        test_paths=rewritten or (),
        whens=("training",) if rewritten == () else WHENS,
        always=((WAIT, rest_s),) if rest_s else (),
        in_loop=((WIRES_HELD, WRITES_HELD),) if dial.name in WIRES else (),
        unit=dial.unit,
        zero=dial.ideal,
        severe=dial.severe,
        scale=scale,
        delivered=defaults.pop() if len(defaults) == 1 else None,
        about=dial.about,
    )
