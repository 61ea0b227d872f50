"""A network of devices that are twins: what trains in the computer instead of the real one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from pib.network import Network
from pib.rule import rectified
from pib.sampling import draw
from pib.unit import DigitalLayerUnit, IsomorphicUnit, Unit
from twin.errors import ConfigError
from twin.fence import Fence
from twin.key import Key
from twin.ledger import Cost, Ledger
from validation.baselines.joint import CHUNK, standardise
from validation.baselines.method import Task, Twins
from validation.baselines.twins import DeviceTwin
from validation.config import UnitTable

SOME = 500
"""Images by which a deployed unit is ranged and standardised on its device."""

FEWEST = 8


def twin_network(task: Task, twins: Twins) -> Network:
    """The task's network with every device replaced by its twin, on a ledger of its own.

    The units begin with the weights that those of the task have now.
    """
    ledger, units = Ledger(), []
    for index, (unit, table) in enumerate(zip(task.network.units, task.config.unit, strict=True)):
        twin: DeviceTwin = twins(index)  # type: ignore[assignment]
        fence = Fence(twin.backend(_dials(unit)), name=unit.name, ledger=ledger)
        units.append(_unit(unit, table, fence, task.key.child("weights", index)))
    real = task.network
    return Network(units, skip=real.skip, scales=list(real.scales), copies=real.copies)


def twin_task(task: Task, network: Network, twins: Twins) -> Task:
    """The same task on the twins: without a ceiling, passes through them are none."""
    return replace(task, network=network, twins=twins, budget=None, upstream=None)


def _dials(unit: Unit) -> Mapping[str, Any]:
    """Where the dials of a simulated optical device stand; nothing of others."""
    if not (unit.fixed_physics and unit.fence.capabilities.restorable):
        return {}
    return unit.fence.snapshot().values


def _unit(real: Unit, table: UnitTable, fence: Fence, key: Key) -> Unit:
    made: Unit
    if real.fixed_physics:
        made = DigitalLayerUnit(fence, outputs=real.width, key=key)
    else:
        made = IsomorphicUnit(
            fence, key=key, clip_rms=table.clip_rms, window_sigmas=table.window_sigmas
        )
    for name, parameter in made.parameters.items():
        parameter.copy_(real.parameters[name])
    return made


# ---- onto the devices --------------------------------------------------------


def deploy(task: Task, trained: Network) -> list[Tensor]:
    """Write what the twins learnt onto the real devices, range and standardise there.

    Each unit costs up to SOME passes for each thing measured (as many as a ceiling
    allows). Links keep the scales of the twins, which the weights behind them expect.
    """
    network, images, key = task.network, task.data.train[0], task.key.child("deploy")
    rows = draw(len(images), _affordable(task), key.child("some"))
    network.scales = list(trained.scales)
    features: list[Tensor] = []
    for index, (unit, source) in enumerate(zip(network.units, trained.units, strict=True)):
        for name, parameter in unit.parameters.items():
            parameter.copy_(source.parameters[name])
        drive = network.drive(index, images[rows], features[-1] if features else None)
        unit.deploy(key.child("write", index))
        if not isinstance(unit, DigitalLayerUnit):
            unit.calibrate(drive, key=key.child("range", index))
            if index + 1 == len(network.units):
                break
        record = unit.capture(drive, key=key.child("standardise", index))
        if isinstance(unit, DigitalLayerUnit):
            standardise(unit, record.values, share=1.0)
        features.append(rectified(unit.pre_activation(record)))
    return features


def measure(task: Task) -> list[Tensor]:
    """All units' features of all training images on the real devices.

    Empty where the ceiling leaves too few passes.
    """
    images, network = task.data.train[0], task.network
    left = task.allowance.left
    if left is not None and left < len(images) * len(network.units):
        return []
    return network.features(
        images, key=task.key.child("deploy", "measure"), phase="capture", chunk=CHUNK
    )


def count_digital(task: Task, trained: Network) -> None:
    """Put the computer's work on the real ledger, the twins' own arithmetic included:
    a multiply-add per drive and reading value of a pass, four where the field is complex."""
    ledger = trained.units[0].fence.ledger
    work = ledger.total().digital_operations
    for unit in trained.units:
        (inputs,), (outputs,) = unit.fence.drive_port.shape, unit.fence.reading_port.shape
        each = inputs * outputs * (4 if unit.fixed_physics else 1)
        work += ledger.total(unit.name).passes * each
    fence = task.network.units[0].fence
    fence.ledger.add(fence.name, "train", Cost(digital_operations=work))


def _affordable(task: Task) -> int:
    """Images for ranging and standardising: SOME, or what the ceiling allows."""
    count, left = min(SOME, len(task.data.train[0])), task.allowance.left
    if left is None:
        return count
    rounds = sum(_rounds(task, index) for index in range(len(task.network.units)))
    if left < FEWEST * rounds:
        raise ConfigError(
            f"standardising {len(task.network.units)} deployed units takes {FEWEST * rounds} "
            f"passes or more, but {left} are left. Raise compare.passes_per_image."
        )
    return min(count, left // rounds)


def _rounds(task: Task, index: int) -> int:
    """How often a unit's images go through its device in `deploy`."""
    unit, table = task.network.units[index], task.config.unit[index]
    if unit.fixed_physics:
        return 1
    capture = index + 1 < len(task.network.units)
    return int(unit.fence.capabilities.rangeable) + int(table.mask_constant) + int(capture)
