"""Named chips, and how options, a preset and a technology make a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from substrates.memristor import technology as technologies
from substrates.memristor.config import CrossbarConfig
from substrates.memristor.floor import MAX_VOLTS
from substrates.memristor.technology import Nonlinearity, Technology
from twin.config import build
from twin.errors import ConfigError, UnknownName, nearest

IDEAL: Mapping[str, object] = MappingProxyType(
    {
        "programming_error": 0.0,
        "read_noise": 0.0,
        "relaxation_mean": 0.0,
        "relaxation_spread": 0.0,
        "dac_bits": 16,
        "adc_bits": 16,
    }
)
"""Options of a crossbar without imperfections but 16-bit converters."""

PLAIN = ("programming_error", "read_noise", "relaxation_mean", "relaxation_spread")
"""Laws that a technology replaces; options of these names come on top of it."""

PRESETS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        # The defaults of CrossbarConfig, each with its own source.
        "default": {},
        "ideal": IDEAL,
        # Wan et al., Nature 608, 504 (2022): 256 x 256 1T1R of HfOx, 1 to 40 uS; 4-bit
        # inputs, bit-serial; 8-bit outputs are assumed, wires left ideal.
        "neurram-like": {
            "technology": "neurram-hfox",
            "array_rows": 256,
            "array_cols": 128,
            "dac_bits": 4,
            "dac_phases": 4,
            "adc_bits": 8,
            "read_voltage_v": 0.5,
            "thermal_floor": 1.0,
        },
        # The A111 2T2R chip's public simulator: 320 x 128 pairs, 18 uS, 10 mV per input
        # code in two 4-bit phases, 9-bit signed converters of 0.25 uA per code (its
        # default, x 256); 2.2 % of the cells never verified in its write log; 2 % write
        # spread is assumed.
        "a111-like": {
            "array_rows": 320,
            "array_cols": 128,
            "g_min_siemens": 0.0,
            "g_max_siemens": 18e-6,
            "levels": 8,
            "dac_bits": 8,
            "dac_phases": 2,
            "read_voltage_v": 0.15,
            "adc_bits": 9,
            "adc_full_scale_a": 64e-6,
            "stuck_cell_fraction": 0.022,
            "thermal_floor": 1.0,
        },
        # Falcone et al. 2025, arXiv 2502.04524: CMO/HfOx, 8 to 90 uS, 64 x 64 arrays, reads
        # of 1 us; 2 % acceptance. Converters are assumed.
        "cmo-hfox": {
            "technology": "cmo-hfox-2",
            "array_rows": 64,
            "array_cols": 64,
            "thermal_floor": 1.0,
        },
        # Nandakumar et al. 2019 for write, drift and 1/f noise; 256 x 256 arrays and
        # 8-bit converters as IBM's HERMES (assumed for this combination).
        "pcm": {
            "technology": "pcm-nandakumar",
            "array_rows": 256,
            "array_cols": 128,
            "thermal_floor": 1.0,
        },
    }
)
"""Starting points for CrossbarConfig: what differs from its defaults."""


def configured(options: Mapping[str, Any]) -> tuple[CrossbarConfig, Technology | None]:
    """Configuration and technology from `options`, over options["preset"] if given.

    A technology sets the window and the write pulses unless they are given, and
    switches the plain laws of cells off unless they are given.
    Raises UnknownName for a preset, ConfigError for any other key or value.
    """
    own = dict(options)
    preset = own.pop("preset", "default")
    if preset not in PRESETS:
        raise UnknownName(
            f"memristor.preset: no preset {preset!r}. {nearest(str(preset), PRESETS)}"
        )
    merged: dict[str, Any] = {**PRESETS[preset], **own}
    technology = None
    if merged.get("technology") is not None:
        technology = technologies.load(merged["technology"])
        merged = {**_implied(technology), **merged}
    config = build(CrossbarConfig, merged, "memristor")
    if config.thermal_floor > 0 and config.fano > 0 and config.read_voltage_v > MAX_VOLTS:
        raise ConfigError(
            f"memristor.fano: shot noise is known up to {MAX_VOLTS:g} V, read_voltage_v is "
            f"{config.read_voltage_v:g} V; lower it, or set fano or thermal_floor to 0."
        )
    if technology is not None:
        _fits(config, technology)
    return config, technology


def curve(config: CrossbarConfig, technology: Technology | None) -> Nonlinearity | None:
    """The I-V curve of the cells, None if linear; ConfigError where it cannot be had."""
    own = None if technology is None else technology.nonlinearity
    if config.linear_cells:
        if config.cubic_per_v2 > 0:
            raise ConfigError(
                "memristor.linear_cells: true, but cubic_per_v2 gives the cells an I-V curve; "
                "leave one of them out."
            )
        return None
    if config.cubic_per_v2 > 0:
        if own is not None:
            raise ConfigError(
                f"memristor.cubic_per_v2: {config.technology!r} has an I-V curve of its own; "
                "leave cubic_per_v2 out."
            )
        own = Nonlinearity(
            cubic_per_v2=config.cubic_per_v2, v_max=config.read_voltage_v, source="the options"
        )
    lines = (config.word_ohm, config.bit_ohm, config.driver_ohm, config.sense_ohm)
    if own is not None and (config.series_ohm > 0 or any(lines)):
        raise ConfigError(
            "memristor: cells with a curved I-V behind wires or access transistors need a solve "
            "for every sample, which is not offered; set series_ohm, word_ohm, bit_ohm, "
            "driver_ohm and sense_ohm to 0, or linear_cells to true."
        )
    if own is not None and config.read_voltage_v > own.v_max:
        raise ConfigError(
            f"memristor.read_voltage_v: {config.read_voltage_v:g} V is beyond the I-V curve of "
            f"{config.technology!r}, which holds to {own.v_max:g} V; lower it."
        )
    return own


def _implied(technology: Technology) -> dict[str, Any]:
    return {
        **dict.fromkeys(PLAIN, 0.0),
        "g_min_siemens": technology.g_min_siemens,
        "g_max_siemens": technology.g_max_siemens,
        "write_pulse_s": technology.pulse_s,
        "write_pulse_joules": technology.pulse_joules,
    }


def _fits(config: CrossbarConfig, technology: Technology) -> None:
    low, high = technology.low_siemens, technology.high_siemens
    if config.g_min_siemens < low or config.g_max_siemens > high:
        raise ConfigError(
            f"memristor: the window {config.g_min_siemens:g} to {config.g_max_siemens:g} S leaves "
            f"the range of {technology.name!r}, {low:g} to {high:g} S; narrow the window."
        )
    if technology.endurance is not None and not config.write_unchanged:
        raise ConfigError(
            f"memristor.write_unchanged: false, but {technology.name!r} has an endurance law, "
            "which counts the writes of the whole chip: cells that are left alone would wear "
            "out too. Leave write_unchanged out, or give a technology without [endurance]."
        )
    table = config.programming_table
    if table is not None:
        known = [p.name for p in technology.programming]
        if table not in known:
            raise UnknownName(f"memristor.programming_table: no {table!r}. {nearest(table, known)}")
        law = technology.relaxation
        if table != known[0] and law is not None and law.kind == "tables":
            raise ConfigError(
                f"memristor.programming_table: {table!r} is what {technology.name!r} relaxes to "
                f"from {known[0]!r}; leave it out and wait, or use another technology."
            )
