"""Laws of the camera: photon transfer, saturation, shot and read noise, dark current."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from substrates.optics.camera import GAUSSIAN_FLOOR_ELECTRONS, Camera
from substrates.optics.config import RigConfig
from substrates.optics.medium import gaussian_matrix
from substrates.optics.point import OperatingPoint
from substrates.optics.sensor import SensorTable, dark_factor
from twin.errors import ConfigError
from twin.key import Key
from validation.physics import estimates
from validation.physics.estimates import Estimate
from validation.physics.law import Check, Effort, Outcome, held, sampled
from validation.physics.resolved import resolved

READ_ELECTRONS, GAIN, BLACK_DN = 6.83, 0.1, 20.0
LINEAR = "EMVA 1288, release 4.0 Linear"
LIGHTS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 1.8)
"""Illuminations of the photon-transfer line, of the mean charge."""


class Bench:
    """One camera of 12 or more bits in front of a light of known intensity."""

    def __init__(self, key: Key, pixels: int, **options: Any) -> None:
        sensor = SensorTable(**options.pop("sensor", {}))
        plain = {"read_noise_electrons": READ_ELECTRONS, "dark_electrons_per_s": 0.0}
        self.config = RigConfig(pixels=pixels, sensor=sensor, **{**plain, **options})
        self.at = OperatingPoint.of(self.config)
        self.camera = Camera(self.config, key.child("camera"))
        self._key = key

    def electrons(self, intensity: Tensor, shot: str) -> Tensor:
        """Charge (batch, pixels), float64, that the codes stand for, without black level."""
        codes = self.codes(intensity, shot)
        return (codes - self.camera.sensor.offset_dn) / self.camera.gain(self.at)

    def codes(self, intensity: Tensor, shot: str) -> Tensor:
        """Frames (batch, pixels), float64, in codes."""
        return self.camera.frames(intensity, self.at, self._key.child(shot), 0).double()


def photon_transfer(effort: Effort) -> Iterator[Outcome]:
    """Variance over mean, from pairs of frames: slope K, dark variance K^2 sigma^2 + 1/12."""
    n = effort.n(200_000, 100_000)
    bench = Bench(
        effort.key,
        n,
        camera_bits=12,
        mean_electrons=10_000.0,
        sensor={"gain_dn_per_electron": GAIN, "offset_dn": BLACK_DN},
    )
    points = [_transfer(bench, light, n) for light in (0.0, *LIGHTS)]
    slope, intercept = _line(points)
    found = Estimate(slope.value, slope.standard_error, n * len(points))
    yield resolved("photon transfer, slope", found, GAIN, 0.01 * GAIN, LINEAR, "DN/e")
    law = (GAIN * READ_ELECTRONS) ** 2 + 1 / 12
    yield resolved("photon transfer, dark variance", intercept, law, 0.05 * law, LINEAR, "DN^2")
    black = bench.codes(torch.zeros(1, n), "black")
    found = estimates.mean(black)
    yield resolved("black level", found, BLACK_DN, 0.02, LINEAR, "DN")


def saturation(effort: Effort) -> Iterator[Outcome]:
    """Full scale at four means: a fraction exp(-4) of a speckle pattern is at the end."""
    n = effort.n(1 << 20, 1 << 19)
    seen = speckle(n, effort.key.child("medium"))
    for electrons in (1_000.0, 10_000.0):
        options = {"full_scale_over_mean": 4.0, "mean_electrons": electrons}
        bench = Bench(effort.key, n, **options)
        codes = bench.codes(seen, "shot")
        law = math.exp(-4.0)
        found = estimates.fraction(int((codes == bench.camera.end).sum()), n, law)
        name = f"saturated at full scale = 4 means, {electrons:g} e"
        yield resolved(name, found, law, 0.1 * law, "exp(-FS / mean)")
        told = bench.camera.clipped(codes, bench.at)
        yield Check(
            name=f"saturated fraction reported, {electrons:g} e",
            measured=told,
            expected=found.value,
            tolerance=1e-9,
            source="counted codes",
            n=n,
        )


def noise(effort: Effort) -> Iterator[Outcome]:
    """Noisy against true pattern: Pearson [1 + 1/N + sigma^2 / N^2]^(-1/2)."""
    n, sigma = effort.n(1 << 19, 1 << 18), 2.4
    seen = speckle(n, effort.key.child("medium"))
    for electrons in (10.0, 100.0, 1000.0):
        bench = Bench(
            effort.key,
            n,
            mean_electrons=electrons,
            read_noise_electrons=sigma,
            camera_bits=16,
            full_scale_over_mean=20.0,
            # Without a black level dark pixels would be cut at zero.
            sensor={"offset_dn": 10_000.0},
        )
        found = estimates.correlation(seen, bench.codes(seen, "shot"))
        law = (1 + 1 / electrons + (sigma / electrons) ** 2) ** -0.5
        name = f"noise at {electrons:g} e, Pearson"
        yield resolved(name, found, law, max(2e-4, 0.04 / electrons), "shot and read noise")


def shot_laws(effort: Effort) -> Iterator[Outcome]:
    """Poisson and Gaussian frames: the same mean and variance; only one has a skewness."""
    n, electrons = effort.n(1 << 20, 1 << 18), 150.0
    power = electrons + READ_ELECTRONS**2
    skews = {"poisson": electrons / power**1.5, "gaussian": 0.0}
    for law, skew in skews.items():
        bench = Bench(
            effort.key.child(law),
            n,
            shot_noise=law,
            mean_electrons=electrons,
            camera_bits=16,
            sensor={"gain_dn_per_electron": 50.0, "offset_dn": 10_000.0},
        )
        x = bench.electrons(torch.ones(1, n), "shot").flatten()
        source = f"{law} of {electrons:g} e, read noise {READ_ELECTRONS:g} e"
        found = estimates.mean(x)
        yield resolved(f"{law} frames, mean", found, electrons, 0.001 * electrons, source, "e")
        found = estimates.variance(x)
        yield resolved(f"{law} frames, variance", found, power, 0.02 * power, source, "e^2")
        yield resolved(f"{law} frames, skewness", skewness(x), skew, 0.03, source)
    refused = _refused(effort.key, GAUSSIAN_FLOOR_ELECTRONS * 0.99)
    floor = f"Gaussian frames refused below {GAUSSIAN_FLOOR_ELECTRONS:g} e"
    yield held(floor, refused, "skewness above 0.1")


def dark_current(effort: Effort) -> Iterator[Outcome]:
    """Dark charge per exposure; 8 degrees warmer, twice as much."""
    n = effort.n(200_000, 100_000)
    for celsius, factor in ((25.0, 1.0), (33.0, 2.0)):
        bench = Bench(
            effort.key.child(int(celsius)),
            n,
            camera_bits=16,
            dark_electrons_per_s=5_000.0,
            sensor={"temperature_c": celsius, "gain_dn_per_electron": 10.0, "offset_dn": 1000.0},
        )
        expected = 5_000.0 * bench.config.exposure_s * factor
        found = estimates.mean(bench.electrons(torch.zeros(1, n), "shot"))
        yield sampled(f"dark charge at {celsius:g} deg C", found, expected, "I t 2^(dT / 8)", "e")
        yield Check(
            name=f"dark factor at {celsius:g} deg C",
            measured=dark_factor(celsius, 25.0, 8.0),
            expected=factor,
            tolerance=1e-12,
            source="2^(dT / 8)",
        )


def speckle(n: int, key: Key) -> Tensor:
    """One frame (1, n) of intensities behind an i.i.d. medium, mean 1 over media."""
    return gaussian_matrix(n, 4, key).sum(1).abs().square()[None]


def skewness(x: Tensor) -> Estimate:
    """Third standardised moment, with its influence function's error."""
    z = (x - x.mean()) / x.std()
    value = z.pow(3).mean().item()
    influence = z.pow(3) - 3 * z - 1.5 * value * z.square()
    return Estimate(value, influence.std().item() / math.sqrt(len(x)), len(x))


def _transfer(bench: Bench, light: float, n: int) -> tuple[Estimate, Estimate]:
    """Mean and variance of the codes at one illumination, from a pair of frames."""
    flat = torch.full((1, n), light)
    first, second = (bench.codes(flat, f"{light} {i}") for i in range(2))
    # Differences are free of fixed patterns.
    return estimates.mean((first + second) / 2), estimates.variance(first - second, 0.0).times(0.5)


def _line(points: list[tuple[Estimate, Estimate]]) -> tuple[Estimate, Estimate]:
    """Slope and value at the first point (dark), weighted least squares."""
    x = np.array([mean.value - points[0][0].value for mean, _ in points])
    y = np.array([variance.value for _, variance in points])
    weight = np.array([variance.standard_error for _, variance in points]) ** -2.0
    design = np.stack([x, np.ones_like(x)], 1)
    covariance = np.linalg.inv(design.T @ (weight[:, None] * design))
    slope, at_zero = covariance @ design.T @ (weight * y)
    errors = np.sqrt(np.diag(covariance))
    n = points[0][1].n
    return Estimate(float(slope), float(errors[0]), n), Estimate(
        float(at_zero), float(errors[1]), n
    )


def _refused(key: Key, electrons: float) -> bool:
    try:
        Bench(key, 4, shot_noise="gaussian", mean_electrons=electrons)
    except ConfigError:
        return True
    return False
