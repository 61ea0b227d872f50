"""What a rig declares: its identity, ports and dials."""

from __future__ import annotations

import dataclasses
import hashlib

from substrates.optics.config import RigConfig
from substrates.optics.modulator import TOP_RAD
from substrates.optics.point import dials
from twin.backend import Capabilities, Port
from twin.key import Key


def capabilities(config: RigConfig, key: Key, levels: int, top_code: int) -> Capabilities:
    """What a rig of this configuration, made with this key, is able to do.

    levels: of the modulator. top_code: highest code of a frame.
    """
    # Where it is simulated does not make it another device.
    physics = dataclasses.replace(config, compute_device="cpu")
    made_from = hashlib.blake2b(f"{physics!r} {key.entropy()}".encode(), digest_size=4).hexdigest()
    phase = config.modulator.kind != "dmd"
    return Capabilities(
        device_id=f"optics-{config.inputs}x{config.pixels}-{made_from}",
        drives=(
            Port(
                name="phases" if phase else "mirrors",
                shape=(config.inputs,),
                levels=levels,
                full_scale=TOP_RAD if phase else 1.0,
                unit="rad" if phase else "1",
            ),
        ),
        readings=(
            Port(
                name="frame",
                shape=(config.pixels,),
                levels=top_code + 1,
                dtype="uint8" if config.camera_bits <= 8 else "int32",
                full_scale=config.full_scale_over_mean * config.mean_electrons,
                unit="electron",
            ),
        ),
        dials=dials(config),
        seedable=True,
        restorable=True,
        rangeable=True,
        clock="virtual",
    )
