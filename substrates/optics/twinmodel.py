"""A scattering medium with a camera as a twin model: what a calibration fits to frames.

A reading is black + |sum_j t_j exp(i phase_j) + t_0|^2, in units of the nominal full
scale; t_0 is light that misses the modulator. Of each pixel's row (t, t_0) the phase
is free: no intensity depends on it. The row's field of the mean drive is made real.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from substrates.optics.twinestimate import RigFit
from twin.backend import Capabilities, Port
from twin.calibration import Calibration
from twin.errors import ConfigError, DataError, Unsupported
from twin.key import Key
from twin.observations import Observations
from twin.twinbackend import CalibratedTwin
from twin.twinmodel import Arrays, Estimates, Floats, Parameter, Prediction

KIND = "optics"
LEVELS = 257


class RigTwin:
    """Transmission matrix, black level, camera gain and noise, decorrelation, faults.

    Holds for a modulator whose macropixels show the phase that the drive port's scale
    says without flicker, one coherent pattern, one black level and gain for all pixels, and
    a medium and light that stand still while the probe lasts. Where a recording says
    otherwise the estimates name it and do not vouch for what rests on it.
    """

    kind = KIND

    def __init__(self, capabilities: Capabilities) -> None:
        """Raises Unsupported for a device that is written or has no vector of drives."""
        drive, reading = capabilities.drives[0], capabilities.readings[0]
        if capabilities.settings or len(drive.shape) != 1 or len(reading.shape) != 1:
            raise Unsupported(
                f"{capabilities.device_id}: an optical twin needs a fixed medium, drives (inputs,) "
                "and readings (pixels,). Use another kind of twin."
            )
        if drive.unit != "rad":
            raise Unsupported(
                f"{capabilities.device_id}: an optical twin needs drives that are phases in 'rad', "
                f"got {drive.unit!r}. Mirrors and amplitudes have no twin yet."
            )
        self.capabilities = capabilities
        self._drive = drive
        self.inputs, self.pixels = drive.shape[0], reading.shape[0]
        self._parameters = _parameters(self.inputs + 1, self.pixels, reading.high)

    @property
    def mean_light(self) -> np.ndarray:
        """Light (inputs + 1,) averaged over drives; its field is real in every row."""
        port = self._drive
        level = np.linspace(port.low, port.high, LEVELS)[:, None]
        return self.light(np.repeat(level, self.inputs, 1)).mean(0)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return self._parameters

    def light(self, drive: Floats) -> np.ndarray:
        """Field of each macropixel and of what misses them, (n, inputs + 1), complex128."""
        return light(drive, self._drive)

    def estimate(self, seen: Observations, *, key: Key) -> Estimates:
        """All parameters from frames of random drives; see `twinestimate`."""
        if seen.drive.shape[1] != self.inputs or seen.value.shape[1] != self.pixels:
            raise DataError(
                f"expected readings of {self.inputs} x {self.pixels}, got "
                f"{seen.drive.shape[1]} x {seen.value.shape[1]}. Use that device's recording."
            )
        return RigFit(seen, self.light(seen.drive), self.mean_light, key).estimates()

    def held(self, values: Arrays) -> Arrays:
        return {"transmission": values["transmission"]}

    def held_age_s(self, values: Arrays) -> float:  # noqa: ARG002
        """0: nothing was written."""
        return 0.0

    def written(self, values: Arrays, setting: Floats, *, key: Key) -> Arrays:  # noqa: ARG002
        raise Unsupported("a scattering medium cannot be programmed.")

    def predict(
        self,
        values: Arrays,
        drive: Floats,
        state: Arrays,
        age_s: Floats | float = 0.0,  # noqa: ARG002
    ) -> Prediction:
        """Mean and variance of frames (n, pixels) of drives (n, inputs)."""
        real, imaginary = state["transmission"]
        signal = np.abs(self.light(drive) @ (real + 1j * imaginary).T) ** 2
        mean = signal + values["black_level"]
        variance = values["read_noise"] ** 2 + values["per_electron"] * signal
        stuck = values["pixel_stuck"] > 0
        return Prediction(
            np.where(stuck, values["pixel_level"], mean),
            np.where(stuck, values["pixel_flicker"] ** 2, variance + values["code_step"] ** 2 / 12),
        )


def light(drive: Floats, port: Port) -> np.ndarray:
    """exp(i full_scale drive) of a port of phases in rad, and 1 for light that misses it."""
    field = np.exp(1j * port.full_scale * drive)
    return np.concatenate([field, np.ones((len(drive), 1))], 1)


def _parameters(channels: int, pixels: int, high: float) -> tuple[Parameter, ...]:
    columns = (pixels,)
    rows: tuple[tuple[str, str, float, float, tuple[int, ...], str], ...] = (
        ("transmission", "sqrt(full scale)", -1e3, 1e3, (2, pixels, channels),
         "real and imaginary part; each row up to its phase"),
        ("black_level", "full scale", -1.0, high, (), "reading without light"),
        ("read_noise", "full scale", 0.0, 1.0, (), "of a dark pixel, rounding aside"),
        ("per_electron", "full scale", 0.0, 1.0, (), "reading per electron: variance over signal"),
        ("decorrelation_hz", "Hz", 0.0, 1e6, (), "rate at which the field decorrelates, 1 / tau"),
        ("code_step", "full scale", 0.0, 1.0, (), "of one code, as recorded"),
        ("pixel_stuck", "1", 0.0, 1.0, columns, "1: no drive changes it"),
        ("pixel_level", "full scale", -1.0, max(high, 1.0) * 1e3, columns, "its mean, if stuck"),
        ("pixel_flicker", "full scale", 0.0, max(high, 1.0) * 1e3, columns,
         "its standard deviation, if stuck"),
    )  # fmt: skip
    return tuple(
        Parameter(name=n, unit=u, low=low, high=top, shape=shape, about=about)
        for n, u, low, top, shape, about in rows
    )


def twin(calibration: Calibration, sheet: Mapping[str, object] | None = None) -> CalibratedTwin:
    """A simulated rig with the parameters of a calibration. sheet: nothing is asked."""
    if sheet:
        raise ConfigError(f"an optical twin takes no options, got {sorted(sheet)}.")
    return CalibratedTwin(calibration, RigTwin(calibration.capabilities))


def make(*, key: Key, calibration: str, device_id: str | None = None) -> CalibratedTwin:  # noqa: ARG001
    """Entry point: the rig of a calibration file. device_id: refuse any other's.
    Nothing is drawn when it is made."""
    return twin(Calibration.load(calibration, device_id=device_id))
