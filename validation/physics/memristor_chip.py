"""Laws seen through a whole chip: what its readings say of cells, noise and wires."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from substrates.converter import half_span, on_grid
from substrates.memristor import device
from substrates.memristor.crossbar import Crossbar, make
from substrates.memristor.nodal import nodal_oracle
from substrates.memristor.wires import Wires
from twin.key import Key
from validation.physics import estimates, published
from validation.physics.law import Check, Effort, Outcome, sampled

ROWS, COLUMNS, BITS = 64, 4, 8
SHOTS = 4
LEVEL = 0.02
FULL_SCALE_A = 1e-6
"""Fine enough that the floor of a few cells is many codes wide."""

HOUR_S = 3600.0
WAITS_S = (0.25, 10.5, 900.125)
QUIET = {
    "programming_error": 0.0,
    "relaxation_mean": 0.0,
    "relaxation_spread": 0.0,
    "read_noise": 0.0,
    "adc_bits": 16,
}


def column_noise(effort: Effort) -> Iterator[Outcome]:
    """A column's noise from its exact variance, beside every cell drawn."""
    n, key = effort.n(40_000, 8_000), effort.key
    chip, drive = _programmed(key, ROWS, COLUMNS, dac_bits=BITS, read_noise=LEVEL)
    fast = column_currents(chip, drive, key.child("fast"), n)
    volts = on_grid(drive, BITS) * chip.config.read_voltage_v
    cells = chip.conductances()
    generator = key.child("slow").torch()
    slow = device.per_cell_currents(volts.expand(n // 2, -1), cells, LEVEL, generator)
    gap, bound = estimates.largest_gap(fast[..., 0], slow[:, 0])
    yield Check(
        name="column noise against cells: KS",
        measured=gap,
        expected=0.0,
        tolerance=bound,
        source="two samples, one law",
        n=n + n // 2,
    )
    law = float((volts.square() @ (cells.square().sum(0) * LEVEL**2))[0, 0]) * 1e12
    for name, currents in (("exact", fast), ("per cell", slow)):
        found = estimates.variance(currents[..., 0]).times(1e12)
        yield sampled(f"column noise variance, {name}", found, law, "sum V^2 sigma^2", "uA^2")
    apart = {
        "columns": (fast[..., 0], fast[..., 1]),
        "shots": (fast[:-1, :, 0], fast[1:, :, 0]),
        "samples": (fast[:, :-1, 0], fast[:, 1:, 0]),
    }
    for name, (one, other) in apart.items():
        found = estimates.correlation(one, other)
        yield sampled(f"column noise, correlation of two {name}", found, 0.0, "independent")


def column_floor(effort: Effort) -> Iterator[Outcome]:
    """Thermal and shot noise of a column's reading, in both limits."""
    n = effort.n(80_000, 16_000)
    # All weights 0: the current of each pair is noise alone.
    options = {"thermal_floor": 1.0, "fano": 1.0, "adc_full_scale_a": FULL_SCALE_A}
    for name, level, volts in (("thermal", 0.0, 0.2), ("shot", 1.0, 0.5)):
        chip, _ = _programmed(
            effort.key, 8, 2, weights=0.0, **options, read_voltage_v=volts, temperature_k=300.0
        )
        drive = torch.full((1, 8), level)
        found = column_currents(chip, drive, effort.key.child(name), n)
        g = float(chip.conductances()[:, :, 0].double().sum())
        hertz = 1 / (2 * chip.config.read_time_s)
        if level == 0:
            law = 4 * 1.380649e-23 * 300.0 * g * hertz
        else:
            x = 1.602176634e-19 * volts / (2 * 1.380649e-23 * 300.0)
            law = 2 * 1.602176634e-19 * g * volts / math.tanh(x) * hertz
        step = FULL_SCALE_A / half_span(16)
        variance = estimates.variance(found[..., 0]).times(1e18)
        law = (law + step**2 / 12) * 1e18
        text = "4kTG B" if level == 0 else "2qI B"
        yield sampled(f"column floor, {name} limit", variance, law, text, "nA^2")


def cell_histogram(effort: Effort) -> Iterator[Outcome]:
    """Shots of one 23.4 uS cell through the chip: mean and spread of its histogram."""
    n = effort.n(80_000, 16_000)
    # PCM: its window begins at 0 S, so the other cell of the pair adds nothing.
    # At 10 mV its curved I-V is straight to 1e-4.
    chip = make(
        key=effort.key,
        inputs=1,
        outputs=1,
        technology="pcm-nandakumar",
        adc_bits=16,
        read_voltage_v=0.01,
        adc_full_scale_a=0.5 * FULL_SCALE_A,
    )
    for dial in ("programming_scale", "relaxation_scale"):
        chip.adjust(dial, 0.0, key=effort.key)
    window = chip.config.g_max_siemens
    chip.program(torch.full((1, 1), 23.4e-6 / window), key=effort.key.child("write"))
    chip.wait(HOUR_S)
    currents = column_currents(chip, torch.ones(1, 1), effort.key.child("read"), n)
    siemens = currents[..., 0] / chip.config.read_voltage_v * 1e6
    name = "23.4 uS cell of a PCM chip, 1 h"
    found, source = estimates.mean(siemens), published.SOURCE["pcm-nandakumar"]
    yield sampled(f"{name}, mean of its shots", found, 23.4, "as programmed", "uS")
    law = published.pcm_read_noise(23.4, HOUR_S)
    found = estimates.standard_deviation(siemens)
    yield sampled(f"{name}, spread of its shots", found, law, source, "uS")


def split_wait(effort: Effort) -> Iterator[Outcome]:
    """Waiting in parts, with reads in between, is waiting as long at once."""
    chips = [make(key=effort.key, inputs=32, outputs=16, technology="cmo-hfox-2") for _ in range(2)]
    weights = torch.rand((32, 16), generator=effort.key.child("weights").torch()) * 2 - 1
    for chip in chips:
        chip.program(weights, key=effort.key.child("write"))
    before = chips[0].conductances().clone()
    for seconds in WAITS_S:
        chips[0].wait(seconds)
        chips[0].conductances()
    chips[1].wait(sum(WAITS_S))
    apart = (chips[0].conductances() - chips[1].conductances()).abs().max()
    yield Check(
        name="a wait in three parts or at once",
        measured=float(apart) * 1e6,
        expected=0.0,
        # A chip's age is a grid in ln t; a rounding of the sum may cross one step.
        tolerance=device.LOG_STEP,
        source="one trajectory per cell",
        unit="uS",
        n=before.numel(),
    )
    lost = estimates.mean((chips[1].conductances() - before).double() * 1e6)
    law = -published.CMO_LOSS * math.log(sum(WAITS_S))
    # Telegraph noise differs between the two moments: it widens, but has no mean.
    source = published.SOURCE["cmo-hfox-2"]
    yield sampled("mean loss of a chip's cells", lost, law, source, "uS")


def chip_wires(effort: Effort) -> Iterator[Outcome]:
    """A chip's readings behind its wires, against a solve of every node."""
    chip, drive = _programmed(
        effort.key, 16, 6, word_ohm=5.0, bit_ohm=3.0, driver_ohm=50.0, dac_bits=BITS
    )
    wires = Wires(word_ohm=5.0, bit_ohm=3.0, driver_ohm=50.0)
    cells = chip.conductances().double()
    lines = torch.stack([cells[0], cells[1]], dim=2).reshape(16, 12)
    volts = on_grid(drive, BITS).double() * chip.config.read_voltage_v
    oracle = nodal_oracle(lines, volts, wires).currents
    found = column_currents(chip, drive, effort.key.child("read"), SHOTS)
    step = chip.capabilities.readings[0].full_scale / half_span(16)
    yield Check(
        name="IR drop in a chip's readings, largest error",
        measured=float((found[0, 0] - (oracle[0, 0::2] - oracle[0, 1::2])).abs().max()) / step,
        expected=0.0,
        tolerance=0.6,
        source="Kirchhoff at every node",
        unit="LSB",
        n=6,
    )


def column_currents(chip: Crossbar, drive: Tensor, key: Key, n: int) -> Tensor:
    """Column currents of one drive (1, inputs), amperes, float64, (SHOTS, n / SHOTS, outputs).

    Repeats are shots of equal samples, so that both have to be independent.
    """
    reading = chip.forward(drive.expand(n // SHOTS, -1), key=key, shots=SHOTS)
    step = chip.capabilities.readings[0].full_scale * torch.as_tensor(reading.ratio).double()
    return reading.codes.double() * step / half_span(chip.config.adc_bits)


def _programmed(
    key: Key, rows: int, columns: int, weights: float | None = None, **options: object
) -> tuple[Crossbar, Tensor]:
    """A chip with nothing on but `options`, written, and one drive (1, rows).

    weights: of all pairs; None: random ones.
    """
    chip = make(key=key.child("chip"), inputs=rows, outputs=columns, **{**QUIET, **options})
    if weights is None:
        setting = torch.rand((rows, columns), generator=key.child("weights").torch()) * 2 - 1
    else:
        setting = torch.full((rows, columns), weights)
    chip.program(setting, key=key.child("program"))
    return chip, torch.rand((1, rows), generator=key.child("drive").torch())
