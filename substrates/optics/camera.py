"""Cameras: from intensity to integer frames.

Intensity is in units of its mean over media; charges are in electrons.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from substrates.noise import poisson, standard_normal
from substrates.optics.config import RigConfig
from substrates.optics.pixelmaps import PixelMaps, binned, cornered, moved, region_rank
from substrates.optics.point import EXPOSURE_RATIOS, OperatingPoint
from substrates.optics.sensor import dark_factor, missing_skew
from twin.errors import ConfigError, DeviceUnavailable
from twin.key import Key

GAUSSIAN_FLOOR_ELECTRONS = 100.0
"""Mean signal below which Gaussian shot noise is refused. It has the mean and
variance of Poisson noise but no skewness (see sensor.missing_skew)."""

MAX_CLIPPED = 0.02
"""Clipping above which auto-exposure does not trust the mean of a frame
(speckle with its full scale at four times the mean)."""

FRAMES_THAT_TELL = 8
"""From so many different frames on, a pixel that never moved is taken as stuck."""

FULL_WELL_SIGMAS = 3.0
"""Read noises below the full well from which a code counts as saturated."""

CONTAINER_BITS = 16
"""Of a code of more than 8 bits; others travel in 8."""


class Camera:
    """A sensor after the linear model of EMVA 1288, with patterns and faults.

    electrons = Poisson(quantum efficiency * light * response + dark current)
    + N(0, read noise) + dark offset, at most the full well;
    code = clip(round(gain * electrons + black level), 0, top).
    With a black level of less than about four read noises dim pixels are
    clipped at zero and carry a positive bias. Not modelled: non-linearity,
    column noise, blooming, correlation between frames.
    """

    def __init__(self, config: RigConfig, key: Key, device: torch.device | str = "cpu") -> None:
        self._config = config
        self.sensor = config.sensor
        self.top = 2**config.camera_bits - 1
        self.dtype = torch.uint8 if config.camera_bits <= 8 else torch.int32
        container = 8 if config.camera_bits <= 8 else CONTAINER_BITS
        left = self.sensor.justification == "left"
        self.step = 2 ** (container - config.camera_bits) if left else 1
        """Between neighbouring codes of a frame."""
        if self.sensor.offset_dn >= self.top:
            raise ConfigError(
                f"camera: sensor.offset_dn = {self.sensor.offset_dn:g} is not below the highest "
                f"code {self.top} of {config.camera_bits} bits. Lower it."
            )
        self.sensor_pixels = self.sensor.sensor_pixels(config.pixels)
        """Pixels the light falls on: the width of the intensity."""
        self._maps = PixelMaps.of(self.sensor, self.sensor_pixels, key.child("maps"), device)
        self._rank = torch.rand(config.pixels, generator=key.child("stuck").torch()).to(device)
        self._blinded = region_rank(
            config.pixels, self.sensor.read_shape, key.child("saturated")
        ).to(device)
        codes = torch.randint(
            self.top + 1, (config.pixels,), generator=key.child("stuck code").torch()
        )
        self._stuck = codes.mul(self.step).to(self.dtype).to(device)
        self.require_bright(OperatingPoint.of(config))

    @property
    def end(self) -> int:
        """The highest code of a frame; a port of the frames has end + 1 levels."""
        return self.top * self.step

    def signal_electrons(self, at: OperatingPoint) -> float:
        """Charge per code of the mean light at the exposure in force, without dark current."""
        return self._nominal_electrons(at) * at.exposure_ratio

    def _nominal_electrons(self, at: OperatingPoint) -> float:
        return self.sensor.quantum_efficiency * at.mean_electrons * self.sensor.binning**2

    def gain(self, at: OperatingPoint) -> float:
        """EMVA's K: codes of the right-justified scale per electron."""
        if self.sensor.gain_dn_per_electron is not None:
            return self.sensor.gain_dn_per_electron
        range_electrons = self._config.full_scale_over_mean * self._nominal_electrons(at)
        return (self.top - self.sensor.offset_dn) / range_electrons

    def full_scale_electrons(self, at: OperatingPoint) -> float:
        """Charge from black level to the highest code.

        Follows the photon level unless sensor.gain_dn_per_electron fixes it.
        """
        return (self.top - self.sensor.offset_dn) / self.gain(at)

    def mean_charge(self, intensity: Tensor, at: OperatingPoint) -> Tensor:
        """Expected electrons of light and dark current.

        intensity: (batch, sensor pixels). Returns a fresh (batch, pixels read).
        """
        table, maps = self.sensor, self._maps
        if at.shift_rows_px or at.shift_columns_px:
            picture = intensity.unflatten(-1, self._require_shape())
            intensity = moved(picture, at.shift_rows_px, at.shift_columns_px).flatten(-2)
        scale = table.quantum_efficiency * at.mean_electrons * at.exposure_ratio
        scale *= at.shutter
        response = maps.response
        if at.dead_pixel_fraction > 0:
            alive = (maps.dead >= at.dead_pixel_fraction).to(torch.float32)
            response = alive if response is None else alive * response
        charge = intensity.mul(scale if response is None else response * scale)
        charge.add_(self._dark_charge(at))
        return charge if table.read_shape is None else binned(charge, table)

    def _require_shape(self) -> tuple[int, int]:
        if self.sensor.read_shape is None:
            raise ConfigError(
                "camera: a shifted picture needs a sensor with rows and columns, got sensor.shape "
                "= (0, 0). Give sensor.shape."
            )
        return self.sensor.shape

    def dark_electrons_per_s(self, at: OperatingPoint) -> float:
        """Dark current of an ordinary pixel at the temperature in force."""
        table = self.sensor
        factor = dark_factor(at.temperature_c, table.reference_temperature_c, table.dark_doubling_c)
        return self._config.dark_electrons_per_s * factor

    def _dark_charge(self, at: OperatingPoint) -> Tensor | float:
        """Electrons of dark current of each sensor pixel in one exposure."""
        common = self.dark_electrons_per_s(at) * self._config.exposure_s * at.exposure_ratio
        hot = at.hot_pixel_fraction
        ratio = self._maps.dark_ratio
        if hot > 0:
            excess = (self._maps.hot < hot) * (self.sensor.hot_pixel_ratio - 1) + 1
            ratio = excess if ratio is None else ratio * excess
        return common if ratio is None else ratio * common

    def require_delivered(
        self,
        at: OperatingPoint,
        key: Key,
        first_sample: int,
        batch: int,
        clock_s: float,
        frame_s: float,
    ) -> None:
        """DeviceUnavailable if one of the frames from device time `clock_s` on is lost.

        Drawn from the call's key and the time, so that the same call made again
        later (the time that the frames took has passed) is a new try.
        """
        probability = at.lost_frame_probability
        if probability == 0:
            return
        for block in key.child("lost").blocks(first_sample, batch):
            begin_s = clock_s + (block.start - block.offset) * frame_s
            stream = block.key.child(round(begin_s * 1e6))
            rows = slice(block.offset, block.offset + block.stop - block.start)
            lost = torch.rand(rows.stop, generator=stream.torch())[rows] < probability
            if bool(lost.any()):
                sample = first_sample + block.start + int(lost.nonzero()[0])
                raise DeviceUnavailable(
                    f"camera: the frame of sample {sample} was lost ({int(lost.sum())} of "
                    f"{len(lost)} around it; probability {probability:g} each). "
                    "Make the call again, or send smaller batches."
                )

    def frames(self, intensity: Tensor, at: OperatingPoint, key: Key, first_sample: int) -> Tensor:
        """Integer codes (batch, pixels read) of the intensity (batch, sensor pixels)."""
        charge = self._charge(self.mean_charge(intensity, at), at, key, first_sample)
        if self.sensor.full_well_electrons is not None:
            charge.clamp_(max=self.sensor.full_well_electrons * self.sensor.binning**2)
        gain = self.gain(at)
        levels = charge.mul_(gain)
        if self.sensor.offset_dn or self._maps.dsnu_electrons is not None:
            levels.add_(self._bias_dn(gain))
        levels.round_().clamp_(0, self.top)
        # By way of int16: torch turns floats into bytes one at a time.
        codes = (levels.to(torch.int16) if self.top < 256 else levels).to(self.dtype)
        if self.step > 1:
            codes.mul_(self.step)
        return self._with_faults(codes, at)

    def _bias_dn(self, gain: float) -> Tensor | float:
        """Black level of the pixels read."""
        dsnu = self._maps.dsnu_electrons
        if dsnu is None:
            return self.sensor.offset_dn
        if self.sensor.read_shape is not None:
            dsnu = binned(dsnu, self.sensor)
        return dsnu * gain + self.sensor.offset_dn

    def _with_faults(self, codes: Tensor, at: OperatingPoint) -> Tensor:
        blinded = at.saturated_fraction
        if blinded > 0:
            codes.masked_fill_(self._blinded < blinded, self.end)
        if at.stuck_pixel_fraction > 0:
            codes = torch.where(self._rank < at.stuck_pixel_fraction, self._stuck, codes)
        return codes

    def saturation_code(self, at: OperatingPoint) -> int:
        """Code from which on a pixel is saturated: the highest, or that of the full well."""
        well = self.sensor.full_well_electrons
        if well is None:
            return self.end
        low = well * self.sensor.binning**2 - FULL_WELL_SIGMAS * at.read_noise_electrons
        full = int(self.gain(at) * low + self.sensor.offset_dn)
        return min(self.top, max(full, 1)) * self.step

    def clipped(self, codes: Tensor, at: OperatingPoint | None = None) -> float:
        """Fraction of the codes that are saturated; without `at` only at the highest code."""
        level = self.end if at is None else self.saturation_code(at)
        # numpy compares bytes ten times as fast as torch.
        return np.count_nonzero(codes.cpu().numpy() >= level) / codes.numel()

    def better_exposure(self, codes: Tensor, at: OperatingPoint) -> tuple[float, bool]:
        """Exposure ratio that puts the mean of `codes` (batch, pixels) where it should be.

        That is the range above black level over full_scale_over_mean. And
        whether these frames were good enough to tell: few of them clipped, the
        mean not below one code. Pixels that showed one code inside the range in
        all frames are left out: stuck ones would drag the exposure.
        """
        still = (codes == codes[0]).all(0) & (codes[0] > 0) & (codes[0] < self.end)
        # Few frames, or equal ones, cannot tell a stuck pixel from a quiet one.
        tell = len(codes) >= FRAMES_THAT_TELL and int(still.sum()) < 0.9 * codes.shape[1]
        live = codes[:, ~still] if tell else codes
        black = self.sensor.offset_dn
        wanted = self._usable_dn(at) / self._config.full_scale_over_mean
        mean = live.to(torch.float64).mean().item() / self.step - black
        ratio = at.exposure_ratio * wanted / max(mean, wanted / 100)
        ratio = min(max(ratio, EXPOSURE_RATIOS[0]), EXPOSURE_RATIOS[1])
        return ratio, self.clipped(live, at) <= MAX_CLIPPED and mean >= min(1.0, wanted / 2)

    def _usable_dn(self, at: OperatingPoint) -> float:
        """Codes from black level to the highest, or to the full well if that is lower."""
        span = self.top - self.sensor.offset_dn
        well = self.sensor.full_well_electrons
        return span if well is None else min(span, self.gain(at) * well * self.sensor.binning**2)

    def _charge(self, mean: Tensor, at: OperatingPoint, key: Key, first_sample: int) -> Tensor:
        """Electrons read, in the memory of `mean` or fresh."""
        law, sigma = self._config.shot_noise, self._read_noise(at)
        if law == "poisson":
            mean = poisson(key.child("photons"), first_sample, mean)
        if law != "gaussian" and isinstance(sigma, float) and sigma == 0:
            return mean
        batch, pixels = mean.shape
        normal = standard_normal(
            key.child("read"), first_sample, batch, (pixels,), device=mean.device
        )
        if law == "gaussian":
            # Two independent normals are one: shot and read noise share a draw.
            return mean.addcmul_(normal, (mean + sigma**2).sqrt_())
        if isinstance(sigma, float):
            return mean.add_(normal, alpha=sigma)
        return mean.addcmul_(normal, sigma)

    def _read_noise(self, at: OperatingPoint) -> Tensor | float:
        """R.m.s. electrons of one reading: one number, or one of each pixel read."""
        ratio = self._maps.read_noise_ratio
        if ratio is None:
            return at.read_noise_electrons
        if self.sensor.read_shape is not None:
            ratio = cornered(ratio, self.sensor)
        return ratio * at.read_noise_electrons

    def gaussian_skew(self, at: OperatingPoint) -> float:
        """Skewness that shot_noise = "gaussian" would lack at the mean signal."""
        return missing_skew(self.signal_electrons(at), at.read_noise_electrons)

    def require_bright(self, at: OperatingPoint) -> None:
        """Refuse Gaussian shot noise where it is no approximation. ConfigError."""
        electrons = self.signal_electrons(at)
        if self._config.shot_noise == "gaussian" and electrons < GAUSSIAN_FLOOR_ELECTRONS:
            raise ConfigError(
                f"camera: shot_noise = 'gaussian' needs a mean of {GAUSSIAN_FLOOR_ELECTRONS:g} "
                f"electrons or more, got {electrons:g} (its skewness would be off by "
                f"{self.gaussian_skew(at):.2g}). Use shot_noise = 'poisson' or more light."
            )
