"""What the devices of a run were in the end: measured on copies, kept, drawn.

A kind of device is a module of this package with the two functions of
:class:`Kind`, entered in KINDS under the name of its backend. Units of other
backends are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import xarray as xr

from pib.network import Network
from twin.key import Key
from validation import memristor_devices
from validation.config import RunConfig
from validation.experiment import open_device
from validation.figures import Drawing

PREFIX = "device_"


class Kind(Protocol):
    """What the report needs to know of one kind of device.

    measured: arrays of a device that may be used up, with "units" in their
    attributes; "facts", (fact, 2) texts, is the table of what it is.
    drawings: pictures of one unit from a dataset of those arrays.
    """

    def measured(self, chip: Any) -> dict[str, xr.DataArray]: ...

    def drawings(self, data: xr.Dataset, unit: str) -> list[Drawing]: ...


KINDS: Mapping[str, Kind] = {"memristor": memristor_devices}


def measured(config: RunConfig, network: Network, *, key: Key) -> xr.Dataset:
    """Arrays of all units' devices as they are now, named device_{unit}_{name}.

    key: of the run. Everything is done on copies, made anew from configuration
    and key and brought into the present state: no device of the run notices.
    """
    found: dict[str, xr.DataArray] = {}
    for index, (unit, table) in enumerate(zip(network.units, config.unit, strict=True)):
        kind = KINDS.get(table.backend)
        if kind is None:
            continue
        chip = open_device(table, index, unit.fence.drive_port.shape[0], key)
        chip.restore(unit.fence.snapshot())  # type: ignore[attr-defined]
        head = f"{PREFIX}{index + 1}_"
        for name, array in kind.measured(chip).items():
            found[head + name] = array.rename({d: f"{head}{d}" for d in array.dims})
        chip.close()
    return xr.Dataset(found)


def of_unit(history: xr.Dataset, number: int) -> xr.Dataset:
    """The arrays of unit `number` (from 1) as its kind named them; empty without."""
    head = f"{PREFIX}{number}_"
    own = history[[str(name) for name in history.data_vars if str(name).startswith(head)]]
    own = own.drop_vars([name for name in own.coords if not str(name).startswith(head)])
    names = [*own.variables, *(d for d in own.dims if d not in own.variables)]
    return own.rename({name: str(name).removeprefix(head) for name in names})


def recorded(
    history: xr.Dataset, units: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[int, Mapping[str, Any], xr.Dataset]]:
    """Number (from 1), description and arrays of each unit with a record."""
    for number, unit in enumerate(units, start=1):
        own = of_unit(history, number)
        if unit["backend"] in KINDS and own.data_vars:
            yield number, unit, own
