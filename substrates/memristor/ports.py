"""What a crossbar declares: its identity, ports and nominal scales."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

from torch import Tensor

from substrates.converter import half_span
from substrates.memristor import dials
from substrates.memristor.config import CrossbarConfig
from substrates.memristor.encoding import Encoding
from substrates.memristor.layout import Layout
from substrates.memristor.technology import Nonlinearity, Technology
from twin.backend import Capabilities, Port
from twin.key import Key


def nominal_full_scale_a(config: CrossbarConfig, layout: Layout, encoding: Encoding) -> float:
    """Full scale of a tile's column before any ranging, amperes."""
    if config.adc_full_scale_a is not None:
        return config.adc_full_scale_a
    signal = config.read_voltage_v * config.window_siemens * encoding.full
    if layout.phases > 1:
        # A phase of few levels has more power than a continuous drive: 1/2 instead
        # of 1/3 of full voltage squared for single bits.
        levels = 2**layout.phase_bits
        signal *= math.sqrt((2 * levels - 1) / (2 * levels - 2))
    return signal * math.sqrt(layout.tiling.tallest)


def checked(
    values: Tensor, port: Port, error: type[Exception], where: str, batched: bool = False
) -> Tensor:
    """`values` themselves; `error` unless they have the port's shape."""
    lead = tuple(values.shape[:1]) if batched else ()
    if tuple(values.shape) != (*lead, *port.shape):
        raise error(
            f"{where}: {port.name!r} has shape {tuple(values.shape)}, "
            f"expected {'batch x ' if batched else ''}{port.shape}. "
            "Transpose it, or build the crossbar with other sizes."
        )
    return values


def capabilities(
    config: CrossbarConfig,
    technology: Technology | None,
    layout: Layout,
    encoding: Encoding,
    curve: Nonlinearity | None,
    key: Key,
) -> Capabilities:
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
        full_scale=config.window_siemens * encoding.full,
        unit="S",
    )
    serial = _serial(config, technology, key)
    return Capabilities(
        device_id=f"memristor-{config.inputs}x{config.outputs}-{serial}",
        drives=(drive,),
        settings=(setting,),
        readings=(_currents(config, layout, encoding),),
        dials=dials.declared(config, encoding, technology, curve),
        seedable=True,
        restorable=True,
        rangeable=True,
        read_disturb=technology is not None and technology.disturb is not None,
        clock="virtual",
    )


def _currents(config: CrossbarConfig, layout: Layout, encoding: Encoding) -> Port:
    """Sums of the banks' codes; the value 1.0 is one tile's full scale."""
    half, tiles = half_span(config.adc_bits), len(layout.tiling.rows)
    codes = tiles * layout.total_weight
    return Port(
        name="currents",
        shape=(config.outputs,),
        low=-float(tiles),
        high=tiles * (half - 1) / half,
        levels=codes * (2 * half - 1) + 1,
        dtype="int32",
        full_scale=nominal_full_scale_a(config, layout, encoding),
        unit="A",
    )


def _serial(config: CrossbarConfig, technology: Technology | None, key: Key) -> str:
    """Chips that differ in options or in their own key differ in serial number."""
    identity = repr((replace(config, compute_device="cpu"), technology, key.entropy()))
    return hashlib.blake2b(identity.encode(), digest_size=4).hexdigest()
