"""What a crossbar is, in words and numbers, and which of its cells are sound."""

from __future__ import annotations

import torch
import xarray as xr
from torch import Tensor

from substrates.memristor.crossbar import Crossbar
from twin.backend import Dial

REFERENCE_SIEMENS = 23.4e-6
"""The state that other simulators quote their noise and drift at."""

BUILT_IN = (
    ("driver_ohm", "ohm"),
    ("sense_ohm", "ohm"),
    ("series_ohm", "ohm"),
    ("fano", "1"),
    ("cubic_per_v2", "1/V^2"),
)
"""Non-idealities without a dial."""


def reference(chip: Crossbar) -> tuple[float, str]:
    """The conductance that pictures of single cells are made near, siemens and words."""
    low, high = chip.config.g_min_siemens, chip.config.g_max_siemens
    if low <= REFERENCE_SIEMENS <= high:
        return REFERENCE_SIEMENS, f"{REFERENCE_SIEMENS * 1e6:g} uS"
    middle = (low + high) / 2
    return middle, f"mid-window, {middle * 1e6:.4g} uS"


def stuck(chip: Crossbar) -> Tensor:
    """Cells that no write moves, bool, on the CPU, of the shape of all cells."""
    fixed = chip.parts.faults.stuck_cells(chip._dials)
    if fixed is None:
        return torch.zeros(chip.parts.encoding.shape, dtype=torch.bool)
    return fixed[0].cpu()


def place(chip: Crossbar, cell: int) -> str:
    """Where the cell of a flat index sits, counted from 0."""
    encoding = chip.parts.encoding
    line, row, column = (int(i) for i in torch.unravel_index(torch.tensor(cell), encoding.shape))
    where = f"row {row}, column {column}"
    if encoding.kind == "offset":
        return where
    sign = f"G{'-' if line % 2 else '+'}"
    return f"{sign} of {where}" + (f", slice {line // 2}" if encoding.slices > 1 else "")


def relaxes(chip: Crossbar) -> bool:
    """Whether any cell moves at rest."""
    dials, technology = chip._dials, chip.technology
    if dials["relaxation_mean"] > 0 or dials["relaxation_spread"] > 0:
        return True
    own = technology is not None and technology.relaxation is not None
    return own and dials["relaxation_scale"] > 0


def table(chip: Crossbar) -> xr.DataArray:
    """What the chip is, (fact, 2): a name and a text each."""
    rows = [*_construction(chip), *_present(chip), *_imperfections(chip), *_broken(chip)]
    return xr.DataArray([list(row) for row in rows], dims=("fact", "text"))


def _construction(chip: Crossbar) -> list[tuple[str, str]]:
    config, technology, tiling = chip.config, chip.technology, chip.layout.tiling
    encodings = {
        "pair": "differential pairs",
        "offset": "one cell each beside a shared reference column",
        "sliced": f"{config.slices} slices of {config.slice_bits} bits, a pair each",
    }
    phases = "1 phase" if config.dac_phases == 1 else f"{config.dac_phases} phases"
    levels = "" if config.levels is None else f" in {config.levels} levels"
    return [
        ("technology", "plain laws" if technology is None else technology.name),
        ("cells", "plain laws of the options" if technology is None else technology.about),
        ("window", f"{config.g_min_siemens * 1e6:g} to {config.g_max_siemens * 1e6:g} uS{levels}"),
        ("encoding", encodings[config.encoding]),
        (
            "weights",
            f"{config.inputs} x {config.outputs} on {len(tiling.rows)} x {len(tiling.cols)} arrays "
            f"of at most {config.array_rows} x {config.array_cols}",
        ),
        ("drive", f"{config.dac_bits} bits in {phases}, {config.read_voltage_v:g} V at most"),
        ("converters", f"{config.adc_bits} bits, {chip.layout.converters} per column"),
        ("write mode", config.write_mode),
    ]


def _present(chip: Crossbar) -> list[tuple[str, str]]:
    rows = [
        ("writes", f"{chip.parts.cells.writes:,}"),
        ("age", f"{chip.age_s:.3g} s since the last write, {chip._clock.now_s:.3g} s in all"),
        ("cells at 0 S", f"{chip.clipped_fraction():.2%}"),
    ]
    wiring = chip.parts.wiring
    if not wiring.wires(chip._dials).ideal:
        rows.append(("wires", _wires(chip)))
    return rows


def _wires(chip: Crossbar) -> str:
    every = chip.config.wire_refresh
    if every == 1 or chip.parts.wiring.held is None:
        return "solved exactly"
    in_force = chip._dials["wire_refresh"]
    error = chip.parts.wiring.error(
        chip.parts.conductances(chip._moment(), chip._dials),
        {**chip._dials, "wire_refresh": float(every)},
    )
    text = f"in training solved exactly every {every} writes, r.m.s. error {100 * error:.2g} % "
    return text + ("at its end; exactly from then on" if in_force == 1 else "in the end")


def _imperfections(chip: Crossbar) -> list[tuple[str, str]]:
    rows = []
    for dial in chip.capabilities.dials:
        if dial.shape or dial.name == "wire_refresh" or chip._dials[dial.name] == dial.ideal:
            continue
        rows.append((_words(dial.name), _amount(chip._dials[dial.name], dial)))
    built_in = [(name, unit, getattr(chip.config, name)) for name, unit in BUILT_IN]
    rows += [(_words(n), f"{v:g}{_unit(u)}") for n, u, v in built_in if v > 0]
    curve = None if chip.technology is None else chip.technology.nonlinearity
    if chip.config.linear_cells and curve is not None:
        v = chip.config.read_voltage_v
        extra = curve.cubic_per_v2 * v**2 + curve.quintic_per_v4 * v**4
        rows.append(
            ("I-V", f"taken as linear; left out: {100 * extra:+.2g} % of the current at {v:g} V")
        )
    return rows


def _broken(chip: Crossbar) -> list[tuple[str, str]]:
    """How many elements the chip's faults and installed maps really hit."""
    faults, dials = chip.parts.faults, chip._dials
    cells, rows = stuck(chip), faults.rows(dials)
    columns = faults.columns(dials).mask
    trapped = torch.cat([torch.empty(0, dtype=torch.int64)] +
                        [t.cells for t in chip.parts.cells.traps(dials)]).unique()  # fmt: skip
    dead = 0 if rows is None else int((rows == 0).sum())
    counts = [
        ("cells with a trap", len(trapped), cells.numel()),
        ("stuck cells", int(cells.sum()), cells.numel()),
        ("dead rows", dead, chip.config.inputs),
        ("broken columns", int(columns.sum()), chip.config.outputs),
    ]
    found = [(name, f"{count:,} of {total:,}") for name, count, total in counts if count]
    return found + [("map installed", _words(name)) for name in sorted(faults.maps)]


def _amount(value: float, dial: Dial) -> str:
    # The rest of a dial's text is about its severe value, or names the technology.
    about = dial.about.split("; severe")[0].split(" (")[0]
    return f"{value:g}{_unit(dial.unit)}" + (f" ({about})" if about else "")


def _unit(unit: str) -> str:
    return "" if unit == "1" else f" {unit}"


def _words(name: str) -> str:
    return name.replace("_", " ")
