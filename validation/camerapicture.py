"""A fitted camera as one figure: photon transfer, dark signal, patterns, check."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from scipy import stats

from substrates.optics.camerafit import CameraFit
from substrates.optics.camerapreset import Predicted
from validation.devicepicture import _STYLE, DATA, LAW, RARE


def picture(fit: CameraFit, check: Predicted) -> Figure:
    """Photon-transfer curve, dark signal, fixed patterns, predictive check."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.6, 7.0), layout="constrained")
        first, second, third, fourth = figure.subplots(2, 2).flat
        photon_transfer(first, fit)
        dark_signal(second, fit)
        patterns(third, fit)
        predictive(fourth, check)
    return figure


def photon_transfer(ax: Axes, fit: CameraFit) -> None:
    """Variance over mean above the black level, both logarithmic."""
    m, gain = fit.moments, fit.estimates["gain"]
    above = m.level_mean - fit.value("offset")
    # The mean of a fully masked level is that of its few pixels: show all of them.
    raw = m.mean.mean(1) - fit.value("offset")
    whole = m.variance.mean(1)
    bright = m.lit & m.used
    ax.loglog(above[bright], m.level_variance[bright], "o", color=DATA, ms=5, label="bright")
    lowest = above[bright].min()
    ax.loglog(
        np.maximum(above[~m.lit], lowest / 300), m.level_variance[~m.lit], "s", mfc="none",
        color=DATA, ms=5, label="dark (those at the black level drawn at the left edge)",
    )  # fmt: skip
    floor = gain.value**2 * fit.value("read_noise") ** 2 + 1 / 12
    out = m.lit & ~m.used
    if out.any():
        drawn = np.maximum(whole[out], 0.4 * floor)
        ax.loglog(raw[out], drawn, "x", color=RARE, label="saturated (at the lower edge: no noise)")
    x = np.geomspace(lowest / 300, max(raw.max(), above.max()), 200)
    ax.loglog(x, floor + gain.value * x, color=LAW, label="law")
    ax.loglog(x, np.full_like(x, floor), ":", color=LAW, lw=1, label="dark noise and rounding")
    ax.set(
        xlabel="mean above black level / DN", ylabel="temporal variance / DN²",
        title=f"Photon transfer: K = {gain.value:.4g} ± {gain.standard_error:.1g} DN/e⁻",
    )  # fmt: skip
    ax.set_ylim(bottom=0.3 * floor)
    ax.legend()


def dark_signal(ax: Axes, fit: CameraFit) -> None:
    """Mean of the dark frames over the exposure."""
    m, frames = fit.moments, fit.frames
    dark = ~m.lit
    error = np.sqrt(m.level_variance / m.frames / m.pixels_used)[dark]
    ax.errorbar(
        m.time[dark], m.level_mean[dark], error, fmt="s", mfc="none", color=DATA, ms=5,
        label="dark frames",
    )  # fmt: skip
    t = np.array([0.0, m.time[dark].max()])
    slope = fit.value("gain") * fit.value("dark_current")
    ax.plot(t, fit.value("offset") + slope * t, color=LAW, label="law")
    current = fit.estimates["dark_current"]
    ax.set(
        xlabel="exposure / s", ylabel="mean / DN",
        title=f"Dark current: {current.value:.3g} ± {current.standard_error:.1g} e⁻/s, "
        f"{frames.bits} bits",
    )  # fmt: skip
    ax.legend()


def patterns(ax: Axes, fit: CameraFit) -> None:
    """Normal quantiles of the maps as fitted, each over its own spread."""
    named = (
        ("dsnu_electrons", "dsnu", DATA, "black level (DSNU {:.3g} e⁻)"),
        ("response", "prnu", LAW, "response (PRNU {:.2%})"),
        ("read_noise_ratio", "read_noise_spread", RARE, "ln read noise (spread {:.2g})"),
    )
    good = fit.moments.good_pixels
    for name, parameter, colour, label in named:
        if name not in fit.maps:
            continue
        values = fit.maps[name][good]
        values = np.log(values) if name == "read_noise_ratio" else values
        spread = values.std()
        if spread <= 0:
            continue
        ordered = np.sort((values - values.mean()) / spread)
        normal = stats.norm.ppf((np.arange(len(ordered)) + 0.5) / len(ordered))
        keep = np.unique(np.linspace(0, len(ordered) - 1, 400).astype(int))
        keep = np.union1d(keep, np.r_[:30, len(ordered) - 30 : len(ordered)])
        text = label.format(fit.value(parameter))
        ax.plot(normal[keep], ordered[keep], ".", ms=4, color=colour, label=text)
    reach = np.array([-4.0, 4.0])
    ax.plot(reach, reach, color="#bbbbbb", lw=1.0, zorder=0, label="normal")
    left = ", ".join(f"{n} {name}" for name, n in fit.moments.counts.items())
    ax.set(
        xlabel="quantile of N(0, 1)", ylabel="pixel over spread",
        title=f"Patterns of {len(good)} pixels (without {left})",
    )  # fmt: skip
    ax.legend()


def predictive(ax: Axes, check: Predicted) -> None:
    """Every statistic of the frames against simulated ones, in their standard deviations."""
    spread = np.maximum(check.drawn.std(0, ddof=1), 1e-12)
    centred = (check.drawn - check.drawn.mean(0)) / spread
    rows = np.arange(len(check.names))
    for draw in centred:
        ax.plot(draw, rows, "|", color="#bbbbbb", ms=5)
    ax.plot(check.distance, rows, "o", color=DATA, ms=4.5)
    ax.yaxis.set_major_locator(FixedLocator(rows.tolist()))
    ax.set_yticklabels(check.names, fontsize=6.0 if len(rows) > 14 else 7.5)
    ax.invert_yaxis()
    reach = max(5.5, float(np.abs(check.distance).max()) * 1.1)
    for limit in (-5, 5):
        ax.axvline(limit, color=LAW, lw=1, ls="--")
    ax.set_xlim(-reach, reach)
    ax.set(
        xlabel="distance from prediction / s.d.", title="Frames (blue) and simulated ones (grey)"
    )
