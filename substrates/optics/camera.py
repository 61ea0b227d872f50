"""Cameras: from intensity to integer frames.

Intensity is in units of its mean over media; charges are in electrons.
"""

from __future__ import annotations

import torch
from torch import Tensor

from substrates.noise import poisson, standard_normal
from substrates.optics.presets import EXPOSURE_RATIOS, OperatingPoint, RigConfig
from twin.errors import ConfigError
from twin.key import Key

GAUSSIAN_FLOOR_ELECTRONS = 100.0
"""Mean signal below which Gaussian shot noise is refused. It has the mean and
variance of Poisson noise but no skewness (1 / sqrt(electrons))."""

MAX_CLIPPED = 0.02
"""Clipping above which auto-exposure does not trust the mean of a frame
(speckle with its full scale at four times the mean)."""

FRAMES_THAT_TELL = 8
"""From so many different frames on, a pixel that never moved is taken as stuck."""


class Camera:
    """Photon noise, dark current, read noise, full well, quantisation, stuck pixels.

    code = clip(round((Poisson(mean) + N(0, read noise)) / full scale * top), 0, top),
    the linear model of EMVA 1288 without black level: the codes of a dark
    pixel are clipped at zero. Valid where the mean signal exceeds the read
    noise; dimmer frames carry a positive bias.
    """

    def __init__(self, config: RigConfig, key: Key, device: torch.device | str = "cpu") -> None:
        self._config = config
        self.top = 2**config.camera_bits - 1
        self.dtype = torch.uint8 if config.camera_bits <= 8 else torch.int32
        self._rank = torch.rand(config.pixels, generator=key.child("stuck").torch()).to(device)
        codes = torch.randint(
            self.top + 1, (config.pixels,), generator=key.child("stuck code").torch()
        )
        self._stuck = codes.to(self.dtype).to(device)
        self.require_bright(OperatingPoint.of(config))

    def full_scale_electrons(self, at: OperatingPoint) -> float:
        """Charge of the highest code: the gain is matched to the photon level."""
        return self._config.full_scale_over_mean * at.mean_electrons

    def mean_charge(self, intensity: Tensor, at: OperatingPoint) -> Tensor:
        """Expected electrons, shape of `intensity`: light and dark current."""
        dark = self._config.dark_electrons_per_s * self._config.exposure_s * at.exposure_ratio
        return intensity.mul(at.mean_electrons * at.exposure_ratio).add_(dark)

    def frames(self, intensity: Tensor, at: OperatingPoint, key: Key, first_sample: int) -> Tensor:
        """Integer codes (batch, pixels) of the intensity (batch, pixels)."""
        charge = self._charge(self.mean_charge(intensity, at), at, key, first_sample)
        levels = charge.mul_(self.top / self.full_scale_electrons(at)).round_().clamp_(0, self.top)
        codes = levels.to(self.dtype)
        if at.stuck_pixel_fraction > 0:
            codes = torch.where(self._rank < at.stuck_pixel_fraction, self._stuck, codes)
        return codes

    def clipped(self, codes: Tensor) -> float:
        """Fraction of the codes that are at full scale."""
        return (codes == self.top).sum().item() / codes.numel()

    def better_exposure(self, codes: Tensor, at: OperatingPoint) -> tuple[float, bool]:
        """Exposure ratio that puts the mean of `codes` (batch, pixels) where it should be.

        And whether these frames were good enough to tell: few of them clipped,
        the mean not below one code. Pixels that showed one code inside the
        range in all frames are left out: stuck ones would drag the exposure.
        """
        still = (codes == codes[0]).all(0) & (codes[0] > 0) & (codes[0] < self.top)
        # Few frames, or equal ones, cannot tell a stuck pixel from a quiet one.
        tell = len(codes) >= FRAMES_THAT_TELL and int(still.sum()) < 0.9 * codes.shape[1]
        live = codes[:, ~still] if tell else codes
        wanted = self.top / self._config.full_scale_over_mean
        mean = live.to(torch.float64).mean().item()
        ratio = at.exposure_ratio * wanted / max(mean, wanted / 100)
        ratio = min(max(ratio, EXPOSURE_RATIOS[0]), EXPOSURE_RATIOS[1])
        return ratio, self.clipped(live) <= MAX_CLIPPED and mean >= min(1.0, wanted / 2)

    def _charge(self, mean: Tensor, at: OperatingPoint, key: Key, first_sample: int) -> Tensor:
        """Electrons read; a fresh tensor of the shape of `mean`."""
        law, sigma = self._config.shot_noise, at.read_noise_electrons
        if law == "poisson":
            mean = poisson(key.child("photons"), first_sample, mean)
        if law != "gaussian" and sigma == 0:
            return mean
        batch, pixels = mean.shape
        normal = standard_normal(
            key.child("read"), first_sample, batch, (pixels,), device=mean.device
        )
        if law == "gaussian":
            # Two independent normals are one: shot and read noise share a draw.
            return normal.mul_((mean + sigma**2).sqrt_()).add_(mean)
        return mean.add_(normal, alpha=sigma)

    def require_bright(self, at: OperatingPoint) -> None:
        """Refuse Gaussian shot noise where it is no approximation. ConfigError."""
        electrons = at.mean_electrons * at.exposure_ratio
        if self._config.shot_noise == "gaussian" and electrons < GAUSSIAN_FLOOR_ELECTRONS:
            raise ConfigError(
                f"camera: shot_noise = 'gaussian' needs a mean of {GAUSSIAN_FLOOR_ELECTRONS:g} "
                f"electrons or more, got {electrons:g}. Use shot_noise = 'poisson' or more light."
            )
