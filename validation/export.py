"""`pib-twin export`: what a trained network is made of, as one netCDF file.

Per unit: the trained weights and bias, the constants of its digital part, and
the device's own state (for a memristor: conductances of G+ and G- in siemens).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from torch import Tensor

from twin.files import replacing
from validation.evaluation import open_run

SI = {"_siemens": "S", "_s": "s", "_v": "V", "_a": "A"}


def export(folder: Path, out: Path | None = None) -> Path:
    """Write everything in `folder`'s network; returns the file's path."""
    trained = open_run(folder)
    path = out or folder / "network.nc"
    found: dict[str, xr.DataArray] = {}
    attributes: dict[str, str | float] = {"source": str(folder), "seed": trained.seed}
    for number, unit in enumerate(trained.network.units, start=1):
        head = f"unit_{number}"
        for name, parameter in {**unit.parameters, **unit.constants()}.items():
            found[f"{head}_{name}"] = _array(parameter, f"{head}_{name}")
        if unit.fence.capabilities.restorable:
            snapshot = unit.fence.snapshot()
            for name, array in snapshot.arrays.items():
                found[f"{head}_device_{name}"] = _array(array, f"{head}_device_{name}")
            attributes |= {f"{head}_device_{n}": _plain(v) for n, v in snapshot.values.items()}
        attributes[f"{head}_device_id"] = unit.fence.capabilities.device_id
        attributes[f"{head}_link_scale"] = trained.network.scales[number - 1]
    for name, value in trained.readout.state().items():
        found[f"readout_{name}"] = _array(value, f"readout_{name}")
    trained.network.close()
    with replacing(path) as temporary:
        xr.Dataset(found, attrs=attributes).to_netcdf(temporary, engine="h5netcdf")
    return path


def _array(value: Tensor, name: str) -> xr.DataArray:
    array = np.ascontiguousarray(value.numpy())
    unit = next((u for end, u in SI.items() if name.endswith(end)), "1")
    dims = [f"{name}_{axis}" for axis in range(array.ndim)]
    return xr.DataArray(array, dims=dims, attrs={"units": unit})


def _plain(value: float | int | str | bool) -> float | str:
    return value if isinstance(value, str) else float(value)
