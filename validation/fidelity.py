"""`pib-twin fidelity TWIN DEVICE`: a twin against its device, reading by reading and as
a place to train: the accuracy lost when a network trained on the twin runs on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from twin.backend import MinimalBackend, Port, Values
from twin.fence import Fence
from twin.fidelity import Fidelity, fidelity
from twin.key import Key
from twin.registry import is_uri, open_backend
from validation.console import console
from validation.evaluation import backend_options
from validation.summary import Figure, Summary
from validation.taskgap import Make, digits, gap_figures, task_gap

ERRORS = {
    "ratio": "ratio_error",
    "mean_error": "mean_error_error",
    "device_walk": "device_walk_error",
}
"""Figures of fidelity, and where each one's standard error is."""


def main(
    twin: str,
    device: str,
    options: Sequence[str],
    seed: int,
    out: Path | None,
    command: str,
    *,
    twin_options: Sequence[str] = (),
    drives: int = 64,
    repeats: int = 16,
    task: bool = False,
    as_it_stands: bool = False,
) -> Summary:
    """Compare two backends by name, print the table and write a summary.

    options: of the device, NAME=VALUE, and of a twin that is a backend's name; what is behind
    a URI has its own. twin_options: of the twin, over them. seed: the device is the one that
    `pib-twin probe` opens with it. task: also measure the task gap, on digits (the device
    needs 64 inputs; given if left out). as_it_stands: see `measured`; a simulated device that
    is opened by its name is as new, so what was probed is behind a URI (`pib-twin serve`).
    """
    shared = backend_options(options)
    shared = {"inputs": 64, **shared} if task else shared
    own = ({} if is_uri(twin) else shared) | backend_options(twin_options)

    ids: dict[str, str] = {}

    def make_device() -> MinimalBackend:
        opened = open_backend(device, key=Key(seed), **shared)
        ids["device"] = opened.capabilities.device_id
        return opened

    def make_twin() -> MinimalBackend:
        # Another key: a twin does not know what was drawn when its device was made.
        opened = open_backend(twin, key=Key(seed).child("twin"), **own)
        ids["twin"] = opened.capabilities.device_id
        return opened

    key = Key(seed).child("fidelity")
    found = measured(
        make_twin, make_device, key=key, drives=drives, repeats=repeats, as_it_stands=as_it_stands
    )
    summary = Summary(command, figures(found, seed))
    if task:
        gap = task_gap(make_twin, make_device, digits(seed), key=key.child("task"))
        for figure in gap_figures(gap, seed):
            summary.add(figure)
    summary.extra = {
        "twin": twin, "device": device, "options": shared, "twin_options": own, "ids": ids,
        "as_it_stands": as_it_stands,
    }  # fmt: skip
    console.print(f"{ids['twin']} against {ids['device']}; {_state(as_it_stands)}", markup=False)
    console.print(summary.table())
    if out is not None:
        summary.write(out)
    return summary


def _state(as_it_stands: bool) -> str:
    if as_it_stands:
        return "nothing was written or ranged"
    return (
        "what can be written was written and ranged anew, in both, so that errors of writing "
        "count (--as-it-stands compares what both hold)"
    )


def measured(
    make_twin: Make,
    make_device: Make,
    *,
    key: Key,
    drives: int = 64,
    repeats: int = 16,
    as_it_stands: bool = False,
) -> Fidelity:
    """Fidelity on random drives and, where there is one, a random setting.

    Both are ranged on the drives, where they can be, after the setting is written. Each
    write scatters on its own, in device and twin: that counts as infidelity here.
    as_it_stands: nothing is written or ranged; a calibrated twin holds what its device held.
    """
    twin, device = Fence(make_twin(), name="twin"), Fence(make_device(), name="device")
    try:
        shown = _random(device.capabilities.drives, key.child("drives"), (drives,))
        if device.capabilities.programmable and not as_it_stands:
            setting = _random(device.capabilities.settings, key.child("setting"), ())
            for fence in (twin, device):
                fence.program(setting, key=key.child("program", fence.name), phase="fidelity")
        for fence in (twin, device):
            if fence.capabilities.rangeable and not as_it_stands:
                fence.set_range(shown, key=key.child("range", fence.name), phase="fidelity")
        return fidelity(twin, device, shown, key=key, repeats=repeats)
    finally:
        _close(twin, device)


def figures(found: Fidelity, seed: int) -> list[Figure]:
    """The figures of a comparison for a summary."""
    rows = []
    for field in fields(found):
        if field.name == "mean_error_resolution" or field.name in ERRORS.values():
            continue
        error = ERRORS.get(field.name)
        rows.append(
            Figure(
                f"fidelity/{field.name}",
                getattr(found, field.name),
                "passes" if field.name.endswith("passes") else "1",
                n=found.drives * found.repeats,
                standard_error=None if error is None else getattr(found, error),
                seeds=[seed],
            )
        )
    return rows


def _random(ports: Sequence[Port], key: Key, lead: tuple[int, ...]) -> Values:
    """Uniform values over the range of each port."""
    values: dict[str, Any] = {}
    for port in ports:
        drawn = torch.rand((*lead, *port.shape), generator=key.child(port.name).torch())
        values[port.name] = port.on_grid(port.low + (port.high - port.low) * drawn)
    return values


def _close(*fences: Fence) -> None:
    """Close all, also when one fails to."""
    failures: list[Exception] = []
    for fence in fences:
        try:
            fence.close()
        except Exception as error:
            failures.append(error)
    if failures:
        raise failures[0]
