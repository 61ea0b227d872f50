"""What a crossbar declares: its identity, ports and nominal scales."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

from substrates.converter import half_span
from substrates.memristor import dials
from substrates.memristor.array import Tiling
from substrates.memristor.presets import CrossbarConfig
from twin.backend import Capabilities, Port
from twin.key import Key


def nominal_full_scale_a(config: CrossbarConfig, tiling: Tiling) -> float:
    """Full scale of a tile's column before any ranging, amperes."""
    if config.adc_full_scale_a is not None:
        return config.adc_full_scale_a
    return config.read_voltage_v * config.window_siemens * math.sqrt(tiling.tallest)


def capabilities(config: CrossbarConfig, tiling: Tiling, key: Key) -> Capabilities:
    """The declaration of the chip that `config` and `key` make."""
    drive = Port(
        name="voltages",
        shape=(config.inputs,),
        levels=2**config.dac_bits,
        full_scale=config.read_voltage_v,
        unit="V",
    )
    setting = Port(
        name="weights",
        shape=(config.inputs, config.outputs),
        low=-1.0,
        full_scale=config.window_siemens,
        unit="S",
    )
    return Capabilities(
        device_id=f"memristor-{config.inputs}x{config.outputs}-{_serial(config, key)}",
        drives=(drive,),
        settings=(setting,),
        readings=(_currents(config, tiling),),
        dials=dials.declared(config),
        seedable=True,
        restorable=True,
        rangeable=True,
        clock="virtual",
    )


def _currents(config: CrossbarConfig, tiling: Tiling) -> Port:
    """Sums of the row tiles' codes; the value 1.0 is one tile's full scale."""
    half, tiles = half_span(config.adc_bits), len(tiling.rows)
    return Port(
        name="currents",
        shape=(config.outputs,),
        low=-float(tiles),
        high=tiles * (half - 1) / half,
        levels=tiles * (2 * half - 1) + 1,
        dtype="int32",
        full_scale=nominal_full_scale_a(config, tiling),
        unit="A",
    )


def _serial(config: CrossbarConfig, key: Key) -> str:
    """Chips that differ in options or in their own key differ in serial number."""
    identity = repr((replace(config, compute_device="cpu"), key.entropy()))
    return hashlib.blake2b(identity.encode(), digest_size=4).hexdigest()
