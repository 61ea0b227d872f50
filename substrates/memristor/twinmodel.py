"""A crossbar as a twin model: what a calibration fits to readings of a chip.

A reading is offset_c + sum_i x_i W_ic / unit, in units of the nominal full scale;
unit is what the ports' scales make of a drive and a setting of 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from substrates.memristor.twincells import BOTH, cells_held, cells_written, noise_power
from substrates.memristor.twinestimate import ChipFit
from twin.backend import Capabilities
from twin.calibration import Calibration
from twin.config import STRICT, build
from twin.errors import DataError, Unsupported
from twin.key import Key
from twin.observations import Observations
from twin.twinbackend import CalibratedTwin
from twin.twinmodel import Arrays, Estimates, Floats, Parameter, Prediction

KIND = "memristor"
FIRST_S = 1.0
"""Age from which relaxation counts; a younger cell is taken to have this age."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ChipSheet:
    """What a data sheet says and readings cannot tell."""

    floor: Annotated[float, Field(ge=0, le=10)] = 2.0 / 18.0
    """Lowest conductance over the window; scales read_noise. The default is the chip
    of CrossbarConfig (2 to 20 uS)."""


class CrossbarTwin:
    """Weights, column gains and offsets, read noise, write error, drift and faults.

    Holds for a chip of one converter range per column, linear cells, pairs W = G+ - G- that
    share no reference (encoding "pair"), and lines whose resistance is small beside the
    cells'. Only pairs are known, in units of the setting times the column's gain. Of another
    encoding, or with resistive lines, the held state is right and its noise in sum, but
    read_noise is not that of a cell, and what is written anew is off: `estimates.unidentified`
    says so where the recording shows it.
    """

    kind = KIND

    def __init__(self, capabilities: Capabilities, sheet: ChipSheet | None = None) -> None:
        """Raises Unsupported for a device that is not written as one matrix."""
        settings, drives = capabilities.settings, capabilities.drives
        if len(settings) != 1 or len(settings[0].shape) != 2 or len(drives[0].shape) != 1:
            raise Unsupported(
                f"{capabilities.device_id}: a crossbar twin needs a setting (inputs, outputs) and "
                "drives (inputs,). Use another kind of twin."
            )
        self.capabilities = capabilities
        self.sheet = sheet or ChipSheet()
        self.inputs, self.outputs = settings[0].shape
        reading = capabilities.readings[0]
        self.unit = reading.full_scale / (drives[0].full_scale * settings[0].full_scale)
        self.limit = max(abs(reading.low), abs(reading.high))
        self._parameters = _parameters(self.inputs, self.outputs, self.limit)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return self._parameters

    def estimate(self, seen: Observations, *, key: Key) -> Estimates:  # noqa: ARG002
        """All parameters from readings of several writes; see `twinestimate`."""
        if seen.drive.shape[1] != self.inputs or seen.value.shape[1] != self.outputs:
            raise DataError(
                f"expected readings of {self.inputs} x {self.outputs}, got "
                f"{seen.drive.shape[1]} x {seen.value.shape[1]}. Use that device's recording."
            )
        return ChipFit(seen, self.unit, self.sheet.floor).estimates()

    def held(self, values: Arrays) -> Arrays:
        """The state right after the last write, drift taken out."""
        return {"weights": values["held_weights"], "drift": values["held_drift"]}

    def held_age_s(self, values: Arrays) -> float:
        """Seconds from the last write to the last reading that was fitted."""
        return float(values["held_age_s"])

    def written(self, values: Arrays, setting: Floats, *, key: Key) -> Arrays:
        """The setting with the chip's stuck cells, gains, write error and drift."""
        wanted = cells_written(setting, values["cell_fault"], values["cell_level"])
        stream = key.numpy()
        error = stream.standard_normal(wanted.shape) * (np.sqrt(2) * values["write_error"])
        drift = stream.standard_normal(wanted.shape) * (np.sqrt(2) * values["drift_spread"])
        # Of a pair with one stuck cell the other one still moves, and scatters.
        error = np.where(values["cell_fault"] == BOTH, 0.0, error)
        gain = values["column_gain"]
        return {"weights": (wanted + error) * gain, "drift": drift * gain}

    def predict(
        self, values: Arrays, drive: Floats, state: Arrays, age_s: Floats | float = 0.0
    ) -> Prediction:
        """Mean and variance of readings (n, outputs) of drives (n, inputs)."""
        age = np.broadcast_to(np.asarray(age_s, np.float64), (len(drive),))
        ln = np.log(np.maximum(age, FIRST_S) / FIRST_S)[:, None]
        kept = np.exp(-values["drift_exponent"] * ln)
        mean = drive @ state["weights"] * kept
        if np.any(state["drift"]) and np.any(ln):
            mean = mean + (drive @ state["drift"]) * ln
        mean = mean / self.unit + values["column_offset"]
        variance = values["additive_noise"] ** 2 + values["read_noise"] ** 2 * self._power(
            values, drive, state["weights"], kept
        )
        stuck = values["column_stuck"] > 0
        return Prediction(
            np.where(stuck, values["column_level"], mean),
            np.where(stuck, values["column_noise"] ** 2, variance),
        )

    def _power(self, values: Arrays, drive: Floats, weights: Floats, kept: Floats) -> Floats:
        gain = values["column_gain"]
        cells = cells_held(weights / gain, values["cell_fault"], values["cell_level"])
        drifted = None if (kept == 1).all() else kept
        return noise_power(drive, cells, gain, floor=self.sheet.floor, unit=self.unit, kept=drifted)


def _parameters(inputs: int, outputs: int, limit: float) -> tuple[Parameter, ...]:
    cells, columns = (inputs, outputs), (outputs,)

    def made(
        name: str, unit: str, low: float, high: float, shape: tuple[int, ...], about: str
    ) -> Parameter:
        return Parameter(name=name, unit=unit, low=low, high=high, shape=shape, about=about)

    return (
        made("held_weights", "1", -1e3, 1e3, cells, "what it was written to, times gains"),
        made("held_age_s", "s", 0, 1e12, (), "since that write, when it was left"),
        made("held_drift", "1", -10, 10, cells, "drift of what it holds, per ln(t / 1 s)"),
        made("column_gain", "1", 0.01, 100, columns, "reading over that of nominal scales"),
        made("column_offset", "full scale", -limit, limit, columns, "reading of no drive"),
        made("read_noise", "1", 0, 1, (), "sigma_G / G of a cell, shot to shot"),
        made("additive_noise", "full scale", 0, 1, (), "of a conversion, rounding included"),
        made("write_error", "window", 0, 1, (), "sigma of a written cell"),
        made("drift_exponent", "1", -0.5, 1, (), "W(t) = W (t / 1 s) ^ -exponent"),
        made("drift_spread", "window", 0, 0.2, (), "broadening of a cell per ln(t / 1 s)"),
        made("cell_fault", "1", 0, 3, cells, "1: G+ is stuck, 2: G- is, 3: both"),
        made("cell_level", "window", -1, 2, cells, "where it is stuck; of 3, G+ - G-"),
        made("column_stuck", "1", 0, 1, columns, "1: it does not follow its drive"),
        made(
            "column_level", "full scale", -limit, limit, columns, "mean reading of a stuck column"
        ),
        made("column_noise", "full scale", 0, 2 * limit, columns, "its sigma; 0: always one code"),
    )


def twin(
    calibration: Calibration, sheet: ChipSheet | Mapping[str, object] | None = None
) -> CalibratedTwin:
    """A simulated chip with the parameters of a calibration."""
    given = sheet if isinstance(sheet, ChipSheet) else build(ChipSheet, sheet or {}, "sheet")
    return CalibratedTwin(calibration, CrossbarTwin(calibration.capabilities, given))


def make(
    *,
    key: Key,  # noqa: ARG001
    calibration: str,
    device_id: str | None = None,
    **sheet: object,
) -> CalibratedTwin:
    """Entry point: the chip of a calibration file. device_id: refuse any other's; the
    rest are the fields of ChipSheet. Nothing is drawn when it is made."""
    return twin(Calibration.load(calibration, device_id=device_id), sheet)
