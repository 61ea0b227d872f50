"""Any slmsuite SLM and camera as an optical backend (extra `slmsuite`).

slmsuite (https://slmsuite.readthedocs.io) drives SLMs and cameras of many makers. A
laboratory names its pair in a plug-in of a few lines (docs/slmsuite.md):

    def make(*, key, inputs):
        return SlmsuiteRig(Santec(...), ThorCam(...), inputs=inputs, region=(100, 100, 16, 16))

What goes in is a phase from 0 to pi per input (0 to 2 pi would show the two ends of the
range alike); what comes out are the camera's counts in a region of it.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twin.backend import Capabilities, Port, Ranged, Reading, Values, Written, single
from twin.errors import ConfigError, DeviceUnavailable, ReadingError, Unsupported
from twin.key import Key

RANGING_STEPS = 4
"""Exposures that `set_range` tries at most; each shows the whole drive once."""

BRIGHTEST = 0.9
"""Of the camera's full scale, aimed at by the brightest pixel of a ranging drive."""


class SlmsuiteRig:
    """An SLM that shows drives, and a camera that looks at what became of them.

    slm, camera: of slmsuite, opened and set up; they are this object's from now on.
    inputs: length of a drive; each input is a block of equal pixels, as square as can
    be, in row order. region: (top, left, height, width) of the camera, pixels; all of
    it if None. settle: wait for the SLM after each pattern. device_id: of the whole set-up.
    Raises ConfigError if inputs or region do not fit on the devices.
    """

    def __init__(
        self, slm: Any, camera: Any, *, inputs: int,
        region: tuple[int, int, int, int] | None = None, settle: bool = True,
        timeout_s: float = 1.0, device_id: str | None = None,
    ) -> None:  # fmt: skip
        self._slm, self._camera = slm, camera
        self._settle, self._timeout_s = settle, timeout_s
        self._grid, self._block = layout(inputs, slm.shape)
        self._region = _inside(region, camera.shape)
        self._nominal_s = self._exposure_s = float(camera.exposure_s)
        self._begun, self._version, self._closed = time.monotonic(), 0, False
        name = device_id or f"slmsuite {slm.name} + {camera.name}"
        self.capabilities = _capabilities(name, slm, camera, inputs, self._region)

    def program(self, setting: Values, *, key: Key) -> Written:  # noqa: ARG002
        raise Unsupported(
            f"{self.capabilities.device_id}: the optics is fixed, there is nothing to program. "
            'Use kind = "broken-isomorphism".'
        )

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None  # noqa: ARG002
    ) -> Reading:  # fmt: skip
        begun = time.monotonic()
        x = single(drive, self.capabilities.drives[0])
        frames = torch.stack([self._shown(row, shots or 1) for row in x], 1)
        top = self.capabilities.readings[0].code_high
        return Reading(
            codes=frames[0] if shots is None else frames,
            ratio=self._ratio,
            saturated=float((frames == top).double().mean()),
            state_version=self._version,
            device_seconds=time.monotonic() - begun,
            clock_s=time.monotonic() - self._begun,
        )

    def set_range(self, drive: Values, *, key: Key) -> Ranged:
        """Choose the exposure at which the brightest pixel of `drive` is at BRIGHTEST.

        Within the camera's own bounds (slmsuite refuses others). Each try shows the drive.
        """
        begun, x = time.monotonic(), single(drive, self.capabilities.drives[0])
        top, passes = self.capabilities.readings[0].code_high, 0
        for _ in range(RANGING_STEPS):
            peak = float(self.forward(x, key=key).codes.max())
            passes += len(x)
            # A clipped peak says only that it is too bright.
            factor = 0.25 if peak >= top else BRIGHTEST * top / max(peak, 1.0)
            if abs(math.log(factor)) < 0.05:
                break
            self._expose(self._exposure_s * min(factor, 16.0))
        self._version += 1
        return Ranged(
            state_version=self._version, ratio=self._ratio, passes=passes,
            device_seconds=time.monotonic() - begun,
        )  # fmt: skip

    def close(self) -> None:
        """A flat phase, then both devices are released; again does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            self._slm.set_phase(None, settle=False)
        finally:
            try:
                self._camera.close()
            finally:
                self._slm.close()

    # -- within -------------------------------------------------------------

    @property
    def _ratio(self) -> float:
        """A count stands for this much of the light that it stood for at first."""
        return self._nominal_s / self._exposure_s

    def _expose(self, seconds: float) -> None:
        bounds = getattr(self._camera, "exposure_bounds_s", None)
        if bounds is not None:
            seconds = min(max(seconds, bounds[0]), bounds[1])
        self._camera.set_exposure(seconds)
        self._exposure_s = float(self._camera.get_exposure())

    def _shown(self, row: Tensor, shots: int) -> Tensor:
        """One pattern on the SLM, then its frames (shots, pixels)."""
        blocks = row.double().numpy().reshape(self._grid) * math.pi
        phase = np.zeros(self._slm.shape)
        wide = np.kron(blocks, np.ones(self._block))
        phase[: wide.shape[0], : wide.shape[1]] = wide
        self._slm.set_phase(phase, settle=self._settle)
        return torch.stack([self._frame() for _ in range(shots)])

    def _frame(self) -> Tensor:
        top, left, height, width = self._region
        try:
            image = self._camera.get_image(timeout_s=self._timeout_s)
        except (TimeoutError, RuntimeError, OSError) as error:
            raise DeviceUnavailable(
                f"{self.capabilities.device_id}: no frame within {self._timeout_s} s "
                f"({type(error).__name__}: {error}). Check trigger and cable; it is tried again."
            ) from error
        shown = np.asarray(image)[top : top + height, left : left + width]
        if shown.dtype.kind not in "ui":
            raise ReadingError(
                f"{self.capabilities.device_id}: frames of {shown.dtype}; counts are needed. Set "
                "averaging and hdr of the camera to None."
            )
        return torch.from_numpy(shown.astype(np.int32).reshape(-1))


def layout(inputs: int, shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(rows, columns) of the inputs on an SLM, and (height, width) of each one's block.

    The most nearly square arrangement of exactly `inputs` blocks that fits. Raises
    ConfigError if there is none.
    """
    height, width = (int(n) for n in shape)
    fits = [
        (rows, inputs // rows)
        for rows in range(1, inputs + 1)
        if inputs % rows == 0 and rows <= height and inputs // rows <= width
    ]
    if not fits:
        raise ConfigError(
            f"{inputs} inputs do not fit on an SLM of {height} x {width} pixels as a rectangle. "
            "Use another number of inputs."
        )
    rows, columns = min(fits, key=lambda f: abs(math.log(f[0] * width / (f[1] * height))))
    return (rows, columns), (height // rows, width // columns)


def _inside(
    region: tuple[int, int, int, int] | None, shape: tuple[int, int]
) -> tuple[int, int, int, int]:
    height, width = (int(n) for n in shape)
    if region is None:
        return (0, 0, height, width)
    top, left, tall, wide = (int(n) for n in region)
    inside = min(top, left) >= 0 and min(tall, wide) > 0
    if not (inside and top + tall <= height and left + wide <= width):
        raise ConfigError(
            f"region (top, left, height, width) = {tuple(region)} px lies outside the camera's "
            f"{height} x {width} px."
        )
    return (top, left, tall, wide)


def _capabilities(
    name: str, slm: Any, camera: Any, inputs: int, region: tuple[int, int, int, int]
) -> Capabilities:
    # An SLM shows 2 pi / phase_scaling with all its levels; half a turn is used.
    levels = max(2, int(slm.bitresolution * float(slm.phase_scaling) / 2) + 1)
    phase = Port(name="phase", shape=(inputs,), levels=levels, full_scale=math.pi, unit="rad")
    counts = Port(
        name="frame", shape=(region[2] * region[3],), levels=int(camera.bitresolution),
        dtype="int32", high=1.0, full_scale=float(camera.bitresolution - 1), unit="count",
    )  # fmt: skip
    return Capabilities(device_id=name, drives=(phase,), readings=(counts,), rangeable=True)


def make(
    *, key: Key, inputs: int, slm_pixels: int = 64, pixels: int = 256,
    read_noise: float = 0.005, exposure_s: float = 1.0,
) -> SlmsuiteRig:  # fmt: skip
    """slmsuite's own simulated SLM and camera behind a random phase plate: no hardware.

    key: fixes the plate; noise runs on, as in life. slm_pixels: its side. pixels: of the
    frame, a square number, about the optical axis. read_noise: of full scale, r.m.s.
    Raises ConfigError without slmsuite, or for sizes that do not fit.
    """
    side = math.isqrt(pixels)
    if side * side != pixels or side > slm_pixels:
        raise ConfigError(
            f"slmsuite: pixels must be a square number up to {slm_pixels}^2, got {pixels}."
        )
    slm, camera = _simulated(key, slm_pixels, read_noise)
    _match(camera, exposure_s, slm_pixels)
    at = (slm_pixels - side) // 2
    return SlmsuiteRig(
        slm, camera, inputs=inputs, region=(at, at, side, side), settle=False,
        device_id=f"slmsuite-simulated-{key.entropy():x}",
    )  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """slmsuite logs every device that it opens, and warns of small ones and of missing GPUs."""
    logger = logging.getLogger("slmsuite")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _simulated(key: Key, side: int, read_noise: float) -> tuple[Any, Any]:
    try:
        with _quiet():
            from slmsuite.hardware.cameras.simulated import SimulatedCamera
            from slmsuite.hardware.slms.simulated import SimulatedSLM
    except ImportError as error:
        raise ConfigError(
            f"slmsuite is not installed ({error}). Install the extra: pip install "
            "'pib-twin[slmsuite]'."
        ) from error
    plate = 2 * math.pi * key.child("plate").numpy().random((side, side))
    # Its own noise model draws from numpy's global generator.
    own = key.child("noise").numpy()

    def read(full: np.ndarray) -> np.ndarray:
        return read_noise * full * own.standard_normal(full.shape)

    source = {"amplitude_sim": np.ones((side, side)), "phase_sim": plate}
    with _quiet():
        slm = SimulatedSLM((side, side), source=source)
        return slm, SimulatedCamera(slm, noise={"read": read}, bitdepth=8)


def _match(camera: Any, exposure_s: float, side: int) -> None:
    """A gain at which the mean count is an eighth of full scale: 1 in 3,000 pixels clips.

    Speckle intensities are exponential: P(I > 8 mean) = exp(-8).
    """
    camera.set_exposure(exposure_s)
    camera.gain = camera.bitresolution / 8 * side * side / exposure_s / _power(camera)


def _power(camera: Any) -> float:
    """Sum of a frame without noise at gain and exposure 1."""
    return float(np.sum(camera.render()))
