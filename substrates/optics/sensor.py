"""What can be chosen about a camera's sensor beyond light level and read noise.

The linear model of EMVA 1288 (release 4.0, Linear): electrons from photons,
dark current and its temperature, fixed patterns, full well, gain, black level,
geometry, faults. Charges in electrons, codes in DN, temperatures in deg C.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from twin.config import STRICT
from twin.errors import ConfigError

Fraction = Annotated[float, Field(ge=0, le=1)]
Justification = Literal["right", "left"]
MAX_BINNING = 64
MAX_SHIFT_PX = 64.0
TEMPERATURES_C = (-100.0, 100.0)
"""Where one doubling temperature is taken to describe the dark current (assumed)."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SensorTable:
    """A sensor as built. The defaults are a sensor without patterns, gain matched to the light."""

    quantum_efficiency: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Electrons per photon. Multiplies the light level, which below 1 is
    therefore the number of photons on a pixel (IMX174: 0.77 at 525 nm, vendor's
    EMVA 1288 data; sCMOS 0.80 to 0.95, assumed)."""

    gain_dn_per_electron: Annotated[float | None, Field(gt=0, le=1e4)] = None
    """EMVA's K. Absent: matched to the light, so that the highest code is
    full_scale_over_mean times the mean signal."""

    offset_dn: Annotated[float, Field(ge=0, le=65535)] = 0.0
    """Black level, codes of the right-justified scale. Below about four read
    noises the codes of dark pixels are clipped at zero."""

    full_well_electrons: Annotated[float | None, Field(gt=0, le=1e9)] = None
    """Charge at which a pixel is full; a binned one holds binning^2 as much
    (assumed). Absent: the code range is the only limit. IMX174: 32 700."""

    temperature_c: Annotated[float, Field(ge=TEMPERATURES_C[0], le=TEMPERATURES_C[1])] = 25.0
    """Temperature of the sensor."""

    reference_temperature_c: Annotated[float, Field(ge=TEMPERATURES_C[0], le=TEMPERATURES_C[1])] = (
        25.0
    )
    """Temperature at which dark_electrons_per_s holds (assumed)."""

    dark_doubling_c: Annotated[float, Field(gt=0, le=100)] = 8.0
    """Warming that doubles the dark current (default of the EMVA 1288 reference code)."""

    prnu: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Photo-response non-uniformity: r.m.s. relative spread of the pixels'
    response to light (0.001 to 0.01, assumed)."""

    dsnu_electrons: Annotated[float, Field(ge=0, le=1e5)] = 0.0
    """Dark-signal non-uniformity: r.m.s. spread of the pixels' black level,
    electrons (0.3 to 2, assumed)."""

    read_noise_spread: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Standard deviation of ln(read noise) between pixels; its r.m.s. over the
    body stays read_noise_electrons (0.1 to 0.4 in CMOS, assumed)."""

    read_noise_tail_fraction: Fraction = 0.0
    """Share of pixels with more read noise than the log-normal body (assumed)."""

    read_noise_tail_ratio: Annotated[float, Field(ge=0, le=1e3)] = 3.0
    """Mean excess of those pixels, in units of their own body value; exponential (assumed)."""

    hot_pixel_fraction: Fraction = 0.0
    """Share of pixels with hot_pixel_ratio times the dark current."""

    hot_pixel_ratio: Annotated[float, Field(ge=1, le=1e6)] = 100.0
    """Dark current of a hot pixel over the common one (assumed)."""

    dead_pixel_fraction: Fraction = 0.0
    """Share of pixels that do not respond to light."""

    saturated_fraction: Fraction = 0.0
    """Share of the read pixels, one connected region, blinded to the highest code."""

    lost_frame_probability: Fraction = 0.0
    """Probability that a frame does not arrive, each frame on its own."""

    shift_rows_px: Annotated[float, Field(ge=-MAX_SHIFT_PX, le=MAX_SHIFT_PX)] = 0.0
    """Misregistration: how far the picture has moved along the rows' number, in
    pixels of the sensor; bilinear between pixels, the edge continued."""

    shift_columns_px: Annotated[float, Field(ge=-MAX_SHIFT_PX, le=MAX_SHIFT_PX)] = 0.0
    """The same along the columns' number."""

    shape: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = (0, 0)
    """Rows and columns of the lit sensor; (0, 0) is a row of the pixels read,
    without geometry (no region, binning or shift)."""

    roi: tuple[
        Annotated[int, Field(ge=0)],
        Annotated[int, Field(ge=0)],
        Annotated[int, Field(ge=0)],
        Annotated[int, Field(ge=0)],
    ] = (0, 0, 0, 0)
    """Region of interest: first row, first column, rows, columns of the sensor;
    no rows and columns stand for the whole sensor."""

    binning: Annotated[int, Field(ge=1, le=MAX_BINNING)] = 1
    """binning x binning pixels are added as charge and read once."""

    justification: Justification = "right"
    """"left": the code fills its container from the top, e.g. 12 bits in 16 come
    in steps of 16."""

    maps: str = ""
    """A file of measured maps (.npz, see pixelmaps) instead of drawn ones."""

    def __post_init__(self) -> None:
        flat = 0 in self.shape
        if flat and self.shape != (0, 0):
            raise ConfigError(
                "sensor.shape: rows and columns must both be 1 or more, or both 0, got "
                f"{self.shape}."
            )
        if flat and (self.roi != (0, 0, 0, 0) or self.binning > 1 or self.shifted):
            raise ConfigError(
                "sensor: roi, binning and shift need a sensor with rows and columns, got shape = "
                "(0, 0). Give sensor.shape, e.g. [64, 64]."
            )
        if not flat:
            self._require_region()

    def _require_region(self) -> None:
        top, left, rows, columns = self.region
        if top + rows > self.shape[0] or left + columns > self.shape[1]:
            raise ConfigError(
                f"sensor.roi: rows {top} to {top + rows - 1}, columns {left} to "
                f"{left + columns - 1} leave the sensor of {self.shape[0]} x {self.shape[1]} "
                "pixels. Make it smaller."
            )
        if rows % self.binning or columns % self.binning or not rows or not columns:
            raise ConfigError(
                f"sensor.binning: a region of {rows} x {columns} pixels is not made of "
                f"{self.binning} x {self.binning} groups. Choose sizes that are multiples."
            )

    @property
    def shifted(self) -> bool:
        """Whether the picture is not where it should be."""
        return self.shift_rows_px != 0 or self.shift_columns_px != 0

    @property
    def region(self) -> tuple[int, int, int, int]:
        """First row, first column, rows and columns that are read."""
        return self.roi if self.roi[2] or self.roi[3] else (*self.roi[:2], *self._rest())

    def _rest(self) -> tuple[int, int]:
        return self.shape[0] - self.roi[0], self.shape[1] - self.roi[1]

    @property
    def read_shape(self) -> tuple[int, int] | None:
        """Rows and columns of a frame; None without geometry."""
        if self.shape == (0, 0):
            return None
        return self.region[2] // self.binning, self.region[3] // self.binning

    def sensor_pixels(self, read_pixels: int) -> int:
        """Pixels that light falls on, for frames of `read_pixels`. ConfigError if they disagree."""
        if self.read_shape is None:
            return read_pixels
        if math.prod(self.read_shape) != read_pixels:
            raise ConfigError(
                f"sensor: a region of {self.region[2]} x {self.region[3]} pixels binned by "
                f"{self.binning} gives {math.prod(self.read_shape)} codes, but pixels = "
                f"{read_pixels}. Set pixels = {math.prod(self.read_shape)}."
            )
        return math.prod(self.shape)


def dark_factor(temperature_c: float, reference_c: float, doubling_c: float) -> float:
    """Dark current at `temperature_c` over that at `reference_c`: 2 ^ (difference / doubling).

    One doubling temperature describes the depletion current only (assumed
    between -100 and 100 deg C).
    """
    return float(2.0 ** ((temperature_c - reference_c) / doubling_c))


def missing_skew(mean_electrons: float, read_noise_electrons: float = 0.0) -> float:
    """Skewness of Poisson plus normal noise, which a Gaussian law of equal variance lacks.

    mean / (mean + sigma^2)^(3/2); at most 0.1 from 100 electrons on. The
    distribution function is off by skewness / 15 at most (first Edgeworth term:
    skewness / 6 / sqrt(2 pi) at the mean).
    """
    return float(mean_electrons / (mean_electrons + read_noise_electrons**2) ** 1.5)


SENSORS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Vendor's EMVA 1288 data for efficiency and well; patterns are assumed.
        "imx174": {
            "quantum_efficiency": 0.77,
            "full_well_electrons": 32_700.0,
            "prnu": 0.01,
            "dsnu_electrons": 1.5,
        },
        # All but the read noise (RigConfig) is assumed.
        "scmos": {
            "quantum_efficiency": 0.85,
            "full_well_electrons": 30_000.0,
            "prnu": 0.003,
            "dsnu_electrons": 0.5,
            "read_noise_spread": 0.2,
            "read_noise_tail_fraction": 0.01,
        },
        # Defaults of the EMVA 1288 reference simulator.
        "emva1288": {"gain_dn_per_electron": 0.1, "full_well_electrons": 15_000.0},
    }
)
"""Named sensors: what differs from the defaults of SensorTable."""
