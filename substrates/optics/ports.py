"""What a rig declares: its identity, ports and dials."""

from __future__ import annotations

import dataclasses
import hashlib

from substrates.optics.camera import Camera
from substrates.optics.config import RigConfig
from substrates.optics.modulator import TOP_RAD, LevelModulator
from substrates.optics.point import OperatingPoint, dials
from substrates.optics.slm import PhaseSlm
from twin.backend import Capabilities, Port
from twin.key import Key


def capabilities(
    config: RigConfig, key: Key, modulator: LevelModulator | PhaseSlm, camera: Camera
) -> Capabilities:
    """What a rig of this configuration, made with this key, is able to do."""
    # Where it is simulated does not make it another device.
    physics = dataclasses.replace(config, compute_device="cpu")
    made_from = hashlib.blake2b(f"{physics!r} {key.entropy()}".encode(), digest_size=4).hexdigest()
    table = config.modulator
    phase = table.kind != "dmd"
    # Mirrors that switch at another threshold than the middle have no even levels.
    uneven = not phase and table.binarise == "threshold" and table.threshold != 0.5
    return Capabilities(
        device_id=f"optics-{config.inputs}x{config.pixels}-{made_from}",
        drives=(
            Port(
                name="phases" if phase else "mirrors",
                shape=(config.inputs,),
                levels=None if uneven else modulator.levels,
                full_scale=TOP_RAD if phase else 1.0,
                unit="rad" if phase else "1",
            ),
        ),
        readings=(
            Port(
                name="frame",
                shape=(config.pixels,),
                levels=camera.end + 1,
                dtype="uint8" if config.camera_bits <= 8 else "int32",
                full_scale=camera.full_scale_electrons(OperatingPoint.of(config)),
                unit="electron",
            ),
        ),
        dials=dials(config),
        seedable=True,
        restorable=True,
        rangeable=True,
        # A modulator that settles shows a part of the frame before.
        read_disturb=modulator.settles,
        clock="virtual",
    )
