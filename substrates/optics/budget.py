"""The error budget: the speckle correlation of an optical rig before it is built.

Correlation means Pearson, over pixels, of a camera frame with the intensities of
a perfect rig behind the same medium, averaged over drives uniform in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from substrates.optics import budgetcamera as camera
from substrates.optics import budgetlight as light
from substrates.optics.conditions import Conditions
from substrates.optics.modulatortable import make_modulator
from substrates.optics.slm import Settling
from twin.errors import ConfigError
from twin.key import Key

FEWEST_ELECTRONS = 5.0
MOST_READ_NOISE = 0.3
"""Validity: electrons at mean intensity; read noise over the mean signal, and all
noise at full scale over full scale."""


@dataclass(frozen=True)
class Factor:
    """One defect. value: the Pearson that it alone would leave (given those above it).

    law: its closed form; source; valid: where it holds; holds: whether it does here.
    """

    name: str
    value: float
    law: str
    source: str
    valid: str
    holds: bool = True


@dataclass(frozen=True)
class Budget:
    """Factors in the order of the light, from the modulator to the code."""

    factors: tuple[Factor, ...]

    @property
    def correlation(self) -> float:
        """The predicted Pearson: the product of all factors."""
        return math.prod(factor.value for factor in self.factors)

    @property
    def holds(self) -> bool:
        """Whether every factor is inside its range of validity."""
        return all(factor.holds for factor in self.factors)

    @property
    def worst(self) -> Factor:
        """The defect that costs most."""
        return min(self.factors, key=lambda factor: factor.value)

    def factor(self, name: str) -> Factor:
        """The factor of that name; ConfigError if there is none."""
        for factor in self.factors:
            if factor.name == name:
                return factor
        known = ", ".join(f.name for f in self.factors)
        raise ConfigError(f"budget: no factor {name!r}. Known: {known}.")


def budget(conditions: Conditions) -> Budget:
    """The error budget of a rig under `conditions`.

    Where full scale follows the mean signal at twice it or more, more photons
    never lower the correlation. Below that noise may help: it dithers clipping; and
    so may dark charge that lifts dim pixels towards stuck ones.
    """
    return Budget((*_light(conditions), *_medium(conditions), *_camera(conditions)))


SIEGERT = "Siegert relation for circular Gaussian fields"
DERIVED = "derived here from the law of the intensities"


UNIFORM = "drives uniform in [0, 1], independent from input to input"


def _light(c: Conditions) -> list[Factor]:
    """Modulator: from the wanted light to that which is shown."""
    modulator = make_modulator(c.modulator, 1, Key(0))
    good = _overlap(c, modulator.shown)
    faulty = light.faulty_overlap(
        modulator.shown, good, c.dead_fraction, c.modulator.stuck_fraction
    )
    jitter, unsettled = light.flicker(c.flicker_rad), _unsettled(c)
    many = faulty.pearson * jitter * unsettled
    return [
        Factor(
            "levels",
            good.pearson,
            "|<conj(wanted) shown>|^2 / <|shown|^2> <|wanted|^2>, wanted = exp(i pi drive), or "
            "the drive for mirrors; sinc^2(1 / (2 (L - 1))) for L even phases on [0, pi]",
            SIEGERT,
            UNIFORM,
        ),
        Factor(
            "dead and stuck macropixels",
            faulty.pearson / good.pearson,
            "the same overlap, averaged over live, dead and stuck ones",
            SIEGERT,
            UNIFORM,
        ),
        Factor(
            "settling",
            unsettled,
            "[sinc(s / 2) prod_j sinc(s (1 - k) k^j / 2)]^2, s and k the shares of the old "
            "pattern left at the exposure and at the next pattern",
            SIEGERT,
            f"{UNIFORM} and from frame to frame; even phases",
        ),
        Factor(
            "flicker", jitter, "exp(-sigma^2)", SIEGERT, "Gaussian jitter, independent per input"
        ),
        Factor(
            "few inputs",
            light.few_inputs(many, c.inputs) / many,
            "[p + (1 - p) / inputs] / p, p = product of the factors above",
            "mean of the squared mean of n phasors",
            "light of constant modulus, else up to order 1 / inputs",
        ),
    ]


def _overlap(c: Conditions, shown: Tensor) -> light.Overlap:
    if c.modulator.kind != "dmd":
        return light.phase_overlap(shown)
    by_threshold = c.modulator.binarise == "threshold"
    return light.amplitude_overlap(shown, c.modulator.threshold if by_threshold else None)


def _unsettled(c: Conditions) -> float:
    settling = Settling(c.modulator.settling_s, c.modulator.settling_wait_s)
    return light.settling(settling.left(settling.wait_s), settling.left(c.frame_s))


def _medium(c: Conditions) -> list[Factor]:
    """Between modulator and camera."""
    return [
        Factor(
            "unmodulated light",
            1 - c.unmodulated_fraction,
            "1 - fraction of the power",
            SIEGERT,
            "against the pattern without it, through independent channels",
        ),
        Factor(
            "drift",
            light.drift(c.field_correlation),
            "rho^2",
            SIEGERT,
            "stationary Gaussian medium with field correlation rho",
        ),
    ]


@dataclass(frozen=True)
class _Noise:
    """Noise in units of the mean signal. step: of one code."""

    top: float
    step: float
    per_intensity: float
    reading: float
    constant: float

    @staticmethod
    def of(c: Conditions) -> _Noise:
        n = c.mean_electrons
        top = (c.full_scale_electrons - c.dark_electrons) / n
        if top <= 0:
            raise ConfigError(
                f"budget: dark charge ({c.dark_electrons:g} electrons) fills the full scale "
                f"({c.full_scale_electrons:g} electrons). Expose for a shorter time."
            )
        step = c.full_scale_electrons / (2**c.bits - 1 - c.black_codes) / n
        reading = math.hypot(c.read_noise_electrons, c.pixel_offset_electrons) / n
        dark = c.shot_noise * c.dark_electrons / n**2
        constant = reading**2 + step**2 / 12 + dark
        return _Noise(top, step, c.shot_noise / n, reading, constant)

    @property
    def moderate(self) -> bool:
        at_top = math.sqrt(self.per_intensity * self.top + self.constant)
        return self.step < 0.5 and at_top < MOST_READ_NOISE * self.top


def _camera(c: Conditions) -> list[Factor]:
    """From intensity to code."""
    own = _Noise.of(c)
    clipped = camera.Clipped(own.top, c.patterns)
    noise = camera.noise(clipped, own.per_intensity, own.constant)
    return [
        Factor(
            "clipping",
            clipped.pearson,
            "[1 - (1 + a) e^-a] / sqrt(1 - 2 a e^-a - e^-2a), a = full scale / mean, for one "
            "pattern",
            DERIVED,
            "fully developed speckle: gamma law of order `patterns`",
        ),
        Factor(
            "photons, reading and rounding",
            noise,
            "[1 + M (1/N + (sigma^2 + dark + dsnu^2 + step^2 / 12) / N^2)]^-1/2, M patterns, "
            "with the share of noise that full scale cuts",
            DERIVED,
            f"N >= {FEWEST_ELECTRONS:g} electrons, a step below half the mean, noise at full "
            f"scale below {MOST_READ_NOISE:g} of it",
            c.mean_electrons >= FEWEST_ELECTRONS and own.moderate,
        ),
        *_pixels(c, own, clipped, clipped.variance / noise**2),
    ]


def _pixels(c: Conditions, own: _Noise, clipped: camera.Clipped, variance: float) -> list[Factor]:
    """What is left after the noise. variance: of the noisy signal before its cut at zero."""
    floor = camera.Floor(0.0 if c.black_level or c.patterns > 1 else own.reading)
    variance *= floor.variance / (1 + floor.read_noise**2)
    uneven = camera.gain_spread(clipped, variance, c.pixel_gain_spread)
    # The cut also lifts the mean a little (s^2 / 4); stuck codes are not told.
    below = c.black_codes * own.step + c.dark_electrons / c.mean_electrons
    stuck = camera.stuck_pixels(
        c.stuck_pixel_fraction,
        2**c.bits,
        own.top + below,
        clipped.mean + below,
        variance / uneven**2,
    )
    return [
        Factor(
            "codes cut at zero",
            floor.gain,
            "about 1 + sqrt(2 / pi) (sigma / N)^3 / 3 for one pattern; more have no dark pixels",
            DERIVED,
            f"read noise below {MOST_READ_NOISE:g} of the mean signal",
            c.black_level or own.reading <= MOST_READ_NOISE,
        ),
        Factor(
            "gain of pixels",
            uneven,
            "[1 + (M + 1) prnu^2]^-1/2",
            DERIVED,
            "independent of the light; little clipping",
        ),
        Factor(
            "stuck pixels",
            stuck,
            "(1 - f) sqrt(v / mixed), mixed = (1 - f) v + f a^2 / 12 + f (1 - f) (mean - a / 2)^2",
            DERIVED,
            "codes uniform over the range",
        ),
    ]
