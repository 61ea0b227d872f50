"""How close a twin is to its device, in units of the device's own repeatability.

Everything here is numbers in, numbers out: readings decoded by the fence, in
units of the reading port's nominal full scale. Only the first reading port counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from twin.backend import MinimalBackend, Port, Values
from twin.checks import batch_of
from twin.errors import ConfigError, Unsupported
from twin.fence import Fence
from twin.key import Key

FEWEST_REPEATS = 4
"""Two halves of the device's own repeats, each with a spread."""


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """A twin against its device. D, T: shots of device and twin, R repeats of n drives.

    ratio: RMS(T - D) / RMS(D - D'), over all pairs of shots; 1 is as close as the
    device is to itself. Expectation: sqrt((var T + var D + b^2) / (2 var D)), b the
    twin's bias. ratio_error: its standard error (jackknife over drives).
    mean_error: RMS over drives and outputs of mean T - mean D, the noise left in the
    means subtracted: sqrt(max(0, mean[(mean T - mean D)^2 - (var T + var D) / R])), in
    units of full scale. mean_error_resolution: the bias that this could have missed.
    mean_error_error: standard error of mean_error; below the resolution, the resolution.
    repeatability: r.m.s. noise of one device shot, in the same units.
    device_walk: variance of the device's shots over half the mean square of successive
    differences (von Neumann's ratio): 1 for noise that is new in every repeat, and above
    it by more than a few device_walk_error (jackknife over drives) where the device
    moved meanwhile: then `ratio` is to a scatter that holds the motion, and too small.
    noise_distance: 1-Wasserstein distance between centred shots of twin and device, by
    halves of the repeats, summed over outputs and divided by the sum of the device's
    standard deviations; noise_distance_self: the same between two halves of the
    device's. Alike noise gives alike numbers; Gaussian noise of s times the width adds
    nearly |s - 1| sqrt(2 / pi). silent_outputs: where the device never scatters, left out.
    correlation: of the means over drives, each output centred; None if one is constant.
    """

    ratio: float
    ratio_error: float
    mean_error: float
    mean_error_resolution: float
    mean_error_error: float
    repeatability: float
    device_walk: float
    device_walk_error: float
    noise_distance: float
    noise_distance_self: float
    silent_outputs: int
    correlation: float | None
    drives: int
    repeats: int
    device_passes: int
    twin_passes: int


def fidelity(
    twin: MinimalBackend | Fence,
    device: MinimalBackend | Fence,
    drives: Values,
    *,
    key: Key,
    repeats: int = 16,
    setting: Values | None = None,
) -> Fidelity:
    """Send `drives` `repeats` times to both and compare what came back.

    drives: (n, *drive port), n >= 2; repeats >= 4. setting: programmed to both
    first; without it both are taken as they stand. Raises ConfigError if the two
    have other ports, Unsupported if the device does not scatter. Noise is taken as
    independent from repeat to repeat: slow drift counts as the device's own scatter, and
    shows in `device_walk`.
    """
    twin, device = _fenced(twin, "twin"), _fenced(device, "device")
    require_alike(twin, device)
    count = batch_of(drives)
    if repeats < FEWEST_REPEATS or count < 2:
        raise ConfigError(
            f"fidelity: needs >= {FEWEST_REPEATS} repeats of >= 2 drives, got {repeats} of {count}."
        )
    if device.capabilities.deterministic:
        raise _never_scatters(device.name)
    if setting is not None:
        for i, fence in enumerate((twin, device)):
            fence.program(setting, key=key.child(i, "program"), phase="fidelity")
    # Two streams: a twin that drew the device's own noise would look better than it is.
    shots = [_shots(fence, drives, repeats, key.child(i)) for i, fence in enumerate((twin, device))]
    return compare(*shots, where=device.name)


def compare(twin: Tensor, device: Tensor, *, where: str = "device") -> Fidelity:
    """The figures of shots (repeats, drives, *reading) of a twin and of its device.

    Raises ConfigError if their shapes differ, Unsupported if the device never scatters.
    """
    if twin.shape != device.shape or twin.ndim < 2 or min(twin.shape[:2]) < 2 or len(twin) < 4:
        raise ConfigError(
            f"fidelity: expected equal shapes (repeats >= 4, drives >= 2, *reading), got "
            f"{tuple(twin.shape)} of the twin and {tuple(device.shape)} of the device."
        )
    repeats, drives = device.shape[:2]
    t, d = (s.detach().double().reshape(repeats, drives, -1) for s in (twin, device))
    var_t, var_d = t.var(0).mean(1), d.var(0).mean(1)
    if not float(var_d.sum()) > 0:
        raise _never_scatters(where)
    # Averaged over all pairs (r, s) of shots, without forming them: unbiased.
    off = (t.mean(0) - d.mean(0)).square().mean(1)
    apart = off + (var_t + var_d) * (1 - 1 / repeats)
    bias = off - (var_t + var_d) / repeats
    ratio, ratio_error = _root_of_ratio(apart, 2 * var_d)
    root, root_error = _root_of_ratio(var_d, (d[1:] - d[:-1]).square().mean((0, 2)) / 2)
    mean_error, resolution, mean_error_error = _mean_error(bias)
    between, within, silent = _noise_distances(t, d)
    return Fidelity(
        ratio=ratio,
        ratio_error=ratio_error,
        mean_error=mean_error,
        mean_error_resolution=resolution,
        mean_error_error=mean_error_error,
        repeatability=math.sqrt(float(var_d.mean())),
        device_walk=root**2,
        device_walk_error=2 * root * root_error,
        noise_distance=between,
        noise_distance_self=within,
        silent_outputs=silent,
        correlation=_correlation(t.mean(0), d.mean(0)),
        drives=drives,
        repeats=repeats,
        device_passes=repeats * drives,
        twin_passes=repeats * drives,
    )


def require_alike(twin: Fence, device: Fence) -> None:
    """ConfigError unless drives, settings and readings mean the same on both."""
    for kind in ("drives", "settings", "readings"):
        theirs, ours = (
            [_meaning(p) for p in getattr(f.capabilities, kind)] for f in (twin, device)
        )
        if theirs != ours:
            raise ConfigError(
                f"{twin.name} is no twin of {device.name}: its {kind} (name, shape, full scale, "
                f"unit) are {theirs}, the device's {ours}. Make it with the device's sizes."
            )


def _meaning(port: Port) -> tuple[str, tuple[int, ...], float, str]:
    return port.name, port.shape, port.full_scale, port.unit


def _fenced(backend: MinimalBackend | Fence, name: str) -> Fence:
    return backend if isinstance(backend, Fence) else Fence(backend, name=name)


def _shots(fence: Fence, drives: Values, repeats: int, key: Key) -> Tensor:
    """(repeats, drives, *reading): whole sweeps, so that no drive is seen at one time only."""
    sweeps = (
        fence.forward(drives, key=key.child("repeat", r), phase="fidelity").values
        for r in range(repeats)
    )
    return torch.stack(list(sweeps))


def _never_scatters(where: str) -> Unsupported:
    return Unsupported(
        f"{where}: the device repeats itself exactly, so its repeatability is zero and a ratio "
        "to it has no meaning. Turn its noise on, resolve it (finer converter), or compare "
        "single readings by their difference."
    )


def _root_of_ratio(above: Tensor, below: Tensor) -> tuple[float, float]:
    """sqrt(sum above / sum below) over drives, and its jackknife standard error."""
    whole_a, whole_b, n = above.sum(), below.sum(), len(above)
    kept = ((whole_a - above) / (whole_b - below).clamp_min(torch.finfo(below.dtype).tiny)).sqrt()
    spread = (kept - kept.mean()).square().sum() * (n - 1) / n
    return math.sqrt(float(whole_a / whole_b)), math.sqrt(float(spread))


def _mean_error(bias2: Tensor) -> tuple[float, float, float]:
    """Root of the mean over drives, what it could have missed, and its standard error."""
    value = math.sqrt(max(0.0, float(bias2.mean())))
    error2 = float(bias2.std()) / math.sqrt(len(bias2))
    resolution = math.sqrt(error2)
    # d sqrt(x) = dx / (2 sqrt(x)), as long as x is above its own error.
    return value, resolution, error2 / (2 * value) if value > resolution else resolution


def _noise_distances(t: Tensor, d: Tensor) -> tuple[float, float, int]:
    """Twin to device, device to itself, and how many outputs never scatter.

    Halves of the repeats on both sides: the distance of two finite samples of one law
    is above zero, and only equal sizes make the two numbers comparable.
    """
    scale = d.var(0).mean(0).sqrt()
    heard = scale > 0
    half = len(d) // 2
    parts = [
        _centred(shots[rows][..., heard])
        for shots in (t, d)
        for rows in (slice(0, half), slice(half, 2 * half))
    ]
    t1, t2, d1, d2 = parts
    # Over the mean scale: over its own, an output that moved once outweighs all others.
    typical = float(scale[heard].mean())
    between = (_wasserstein(t1, d1) + _wasserstein(t2, d2)) / 2
    return between / typical, _wasserstein(d1, d2) / typical, int((~heard).sum())


def _centred(shots: Tensor) -> Tensor:
    """Shots about their own mean, (repeats * drives, outputs), at their full spread."""
    r = len(shots)
    return ((shots - shots.mean(0)) * math.sqrt(r / (r - 1))).flatten(0, 1)


def _wasserstein(a: Tensor, b: Tensor) -> float:
    """Mean over columns of the distance between two samples of one size."""
    return float((a.sort(0).values - b.sort(0).values).abs().mean())


def _correlation(a: Tensor, b: Tensor) -> float | None:
    a, b = a - a.mean(0), b - b.mean(0)
    size = math.sqrt(float(a.square().sum() * b.square().sum()))
    return float((a * b).sum()) / size if size > 0 else None
