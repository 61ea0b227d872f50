"""Pictures of the optical twin, from its own laws."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from substrates.optics.drift import PRESETS
from substrates.optics.media import make_medium
from substrates.optics.medium import MatrixMedium, gaussian_matrix
from substrates.optics.mediumtable import GrainsTable
from substrates.optics.modulator import LevelModulator, phase_light
from twin.key import Key
from validation.certify.pictures import singular_values as spectrum_figure
from validation.certify.pictures import speckle as speckle_figure
from validation.certify.pictures import tail as tail_figure
from validation.figures import COLOURS, axes
from validation.physics import randommatrix
from validation.physics.law import Effort
from validation.physics.optics_camera import (
    BLACK_DN,
    GAIN,
    LIGHTS,
    READ_ELECTRONS,
    Bench,
    speckle,
)
from validation.physics.optics_modulator import Bench as ModulatorBench
from validation.physics.optics_modulator import sinc
from validation.physics.optics_time import moving
from validation.physics.pictures import printed

SIDE = 64


def written(folder: Path, key: Key) -> list[Path]:
    """All pictures as PNG files in `folder`."""
    makers = {
        "speckle.png": grains,
        "tail.png": tail,
        "singular_values.png": singular_values,
        "levels.png": levels,
        "drift.png": drift,
        "photon_transfer.png": photon_transfer,
        "noise.png": noise,
    }

    def drawn(name: str) -> Path:
        own = key.child(name)
        return printed(folder / name, lambda: makers[name](own))

    return [drawn(name) for name in makers]


def grains(key: Key) -> Figure:
    """One frame with four pixels to a grain."""
    table = GrainsTable(pixels_per_grain=4.0, camera_rows=SIDE)
    medium = make_medium(table, 4, SIDE * SIDE, key)
    assert isinstance(medium, MatrixMedium)
    frame = medium.matrix.sum(1).abs().square().view(SIDE, SIDE)
    return speckle_figure(frame.double().numpy(), "Speckle, 4 pixels per grain")


def tail(key: Key) -> Figure:
    """Intensities behind an i.i.d. medium."""
    seen = speckle(200_000, key)[0].double()
    return tail_figure((seen / seen.mean()).numpy(), 1, "i.i.d. medium: intensities")


def singular_values(key: Key) -> Figure:
    """Of a Gaussian matrix of 144 x 966."""
    values = randommatrix.singular_values(gaussian_matrix(144, 966, key).numpy())
    return spectrum_figure(values, 144 / 966, "i.i.d. medium, 144 x 966")


def levels(key: Key) -> Figure:
    """Speckle correlation over the number of phase levels."""
    bench = ModulatorBench(Effort(key, quick=True))
    counts = (2, 3, 4, 6, 8, 12, 16, 32)
    found = []
    for count in counts:
        shown = phase_light(2 * math.pi * torch.arange(count, dtype=torch.float64) / count)
        cells = count * bench.drive - 0.5
        wanted = torch.polar(torch.ones_like(cells), cells * (2 * math.pi / count))
        modulator = LevelModulator(shown, wanted.shape[1], key)
        found.append(bench.pearson(wanted, modulator.light(cells / (count - 1))).value)
    figure, ax = axes(4.6, 3.1)
    fine = np.geomspace(2, 32, 100)
    ax.plot(fine, [sinc(1 / n) ** 2 for n in fine], color=COLOURS[0], label="sinc^2(1 / L)")
    ax.plot(counts, found, "o", color=COLOURS[1], markersize=4, label="measured")
    ax.set(title="Phase levels on a turn", xlabel="levels L", ylabel="speckle correlation")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.legend(loc="lower right")
    return figure


def drift(key: Key) -> Figure:
    """Speckle correlation over time of the named drifts."""
    figure, ax = axes(4.6, 3.1)
    times = np.geomspace(1e-2, 1e5, 29)
    names = [name for name, table in PRESETS.items() if not table.static]
    for colour, name in zip(COLOURS, names, strict=False):
        medium = moving(4_000, PRESETS[name], key.child(name))
        start = _intensity(medium.matrix_at(0.0))
        found = [float(np.corrcoef(start, _intensity(medium.matrix_at(t)))[0, 1]) for t in times]
        law = [medium.correlation(0.0, t) ** 2 for t in times]
        ax.plot(times, law, color=colour, label=name)
        ax.plot(times, found, "o", color=colour, markersize=3)
    ax.set(title="Drift: lines law, dots measured", xlabel="time / s", xscale="log")
    ax.set(ylabel="speckle correlation")
    ax.xaxis.set_major_formatter(lambda value, _: f"1e{round(math.log10(value))}")
    ax.legend(loc="lower left")
    return figure


def photon_transfer(key: Key) -> Figure:
    """Variance over mean of the codes, from pairs of frames."""
    n = 20_000
    sensor = {"gain_dn_per_electron": GAIN, "offset_dn": BLACK_DN}
    bench = Bench(key, n, camera_bits=12, mean_electrons=10_000.0, sensor=sensor)
    means, variances = [], []
    for light in (0.0, 0.001, 0.003, 0.01, *LIGHTS):
        flat = torch.full((1, n), light)
        first, second = (bench.codes(flat, f"{light} {i}") for i in range(2))
        means.append((first + second).mean().item() / 2 - BLACK_DN)
        variances.append((first - second).var().item() / 2)
    figure, ax = axes(4.6, 3.1)
    fine = np.geomspace(1, 2_000, 100)
    dark = (GAIN * READ_ELECTRONS) ** 2 + 1 / 12
    label = f"K mean + {dark:.2f} DN^2, K = {GAIN:g}"
    ax.plot(fine, GAIN * fine + dark, color=COLOURS[0], label=label)
    ax.plot(means[1:], variances[1:], "o", color=COLOURS[1], markersize=4, label="measured")
    ax.set(title="Photon transfer", xlabel="mean above black / DN", ylabel="variance / DN^2")
    ax.set(xscale="log", yscale="log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.legend(loc="upper left")
    return figure


def noise(key: Key) -> Figure:
    """Speckle correlation over the light level."""
    seen, sigma = speckle(1 << 15, key), 2.4
    counts = np.geomspace(3, 3_000, 13)
    found = []
    for electrons in counts:
        bench = Bench(
            key.child(round(1000 * electrons)),
            seen.shape[1],
            mean_electrons=float(electrons),
            read_noise_electrons=sigma,
            camera_bits=16,
            full_scale_over_mean=20.0,
            sensor={"offset_dn": 10_000.0},
        )
        pair = np.stack([seen.double().numpy().ravel(), bench.codes(seen, "shot").numpy().ravel()])
        found.append(float(np.corrcoef(pair)[0, 1]))
    figure, ax = axes(4.6, 3.1)
    fine = np.geomspace(3, 3_000, 100)
    law = (1 + 1 / fine + (sigma / fine) ** 2) ** -0.5
    ax.plot(fine, law, color=COLOURS[0], label="[1 + 1/N + (s/N)^2]^(-1/2), s = 2.4 e")
    ax.plot(counts, found, "o", color=COLOURS[1], markersize=4, label="measured")
    ax.set(title="Shot and read noise", xlabel="mean signal N / electrons", xscale="log")
    ax.set(ylabel="speckle correlation")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.legend(loc="lower right")
    return figure


def _intensity(matrix: torch.Tensor) -> np.ndarray:
    return matrix.sum(1).abs().square().double().numpy()
