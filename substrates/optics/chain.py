"""From drives to intensities on the camera: modulator and medium together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from substrates.optics.config import RigConfig
from substrates.optics.drift import PRESETS, drifting
from substrates.optics.media import make_medium, swapped_medium
from substrates.optics.medium import MatrixMedium, Medium, summed_intensity, with_unmodulated
from substrates.optics.modulator import LevelModulator, flickered
from substrates.optics.point import OperatingPoint
from substrates.optics.slm import PhaseSlm
from twin.key import SAMPLE_BLOCK, Key


class Chain:
    """The passive part of one rig. pixels: on which light falls (a binning camera
    reads fewer). given: a medium in place of the configuration's, with
    its own way of changing in device time."""

    def __init__(
        self,
        config: RigConfig,
        modulator: LevelModulator | PhaseSlm,
        pixels: int,
        key: Key,
        given: Medium | None = None,
    ) -> None:
        self._config, self._modulator, self._pixels, self._key = config, modulator, pixels, key
        self._given = given is not None
        self._device = torch.empty(0, device=config.compute_device).device
        self._steady = config.unmodulated_fraction > 0
        self._channels = config.inputs + self._steady
        self._own = given or make_medium(
            config.medium,
            self._channels,
            pixels,
            key.child("medium"),
            self._device,
            steady=self._steady,
        )
        if given is None and not config.drift.static:
            drifting(self._own, config.drift, key)  # refuses what cannot drift at once
        self._moving: dict[int, Medium] = {}
        self._others: dict[int, Medium] = {0: self._own}
        self._stacked: tuple[Medium, Tensor] | None = None

    # ---- patterns ----------------------------------------------------------

    @property
    def pattern_shape(self) -> tuple[int, int]:
        """Of a modulator that settles: phases now and phases they approach, rad."""
        return (2, self._config.inputs)

    def in_order(
        self,
        drive: Tensor,
        shots: int,
        at: OperatingPoint,
        pattern: Tensor | None,
        frame_s: float,
    ) -> tuple[list[Tensor] | None, Tensor | None]:
        """Light of every frame, one (batch, inputs) per shot, in the order in which
        the frames are taken, and the pattern it ends with; None where a frame
        does not depend on the one before."""
        slm = self._modulator
        if not isinstance(slm, PhaseSlm) or not slm.settles:
            return None, None
        faults = (at.dead_macropixel_fraction, at.stuck_macropixel_fraction)
        lights, now = [], None if pattern is None else pattern[0]
        for _ in range(shots):
            light, now = slm.light_in_order(drive, now, frame_s, *faults)
            lights.append(light)
        assert now is not None
        return lights, torch.stack([now, slm.phases(drive[-1:], *faults)[0]])

    def rested(self, pattern: Tensor | None, seconds: float) -> Tensor | None:
        """The last pattern after a rest, on its way to what was sent."""
        if pattern is None or not isinstance(self._modulator, PhaseSlm):
            return pattern
        return torch.stack([self._modulator.relaxed(pattern[0], pattern[1], seconds), pattern[1]])

    # ---- intensities -------------------------------------------------------

    def intensities(
        self,
        source: Tensor | Sequence[Tensor],
        at: OperatingPoint,
        key: Key,
        *,
        first_sample: int,
        shots: int,
        clock_s: float,
        drift_s: float,
        frame_s: float,
        shot_s: float,
    ) -> Iterator[Tensor]:
        """|field|^2 of a part of one aligned block, (rows, pixels), shot by shot.

        source: drives (rows, inputs), or the light of each shot. clock_s: device
        time at the first sample of the first shot, drift_s: the medium's own;
        frame_s, shot_s: device seconds from sample to sample and shot to shot.
        """
        medium = self._medium(at, drift_s)
        if not self._given:
            clock_s, pace = drift_s, at.drift_scale
            frame_s, shot_s = frame_s * pace, shot_s * pace
        fixed = medium.static and at.phase_flicker_rad == 0
        rows = len(source) if isinstance(source, Tensor) else len(source[0])
        if (
            fixed
            and self._modulator.real
            and isinstance(source, Tensor)
            and isinstance(medium, MatrixMedium)
        ):
            real = self._real_intensity(_padded(source), at, medium)
            yield from self._repeated(real, rows, shots)
            return
        # Rows of a moving medium are moments: filling up a block would make it move on.
        whole = _padded if medium.static else _as_it_is
        light = self._shown(whole(source), at) if isinstance(source, Tensor) else None
        intensity = None
        for shot in range(shots):
            if intensity is None or not fixed or light is None:
                given = light if light is not None else whole(source[shot])
                noisy = flickered(
                    given,
                    at.phase_flicker_rad,
                    key.child("shot", shot, "flicker"),
                    first_sample,
                )
                when = clock_s + shot * shot_s
                intensity = summed_intensity(medium.transmit(self._mixed(noisy), when, frame_s))
            yield intensity[:rows]

    @staticmethod
    def _repeated(intensity: Tensor, rows: int, shots: int) -> Iterator[Tensor]:
        for _ in range(shots):
            yield intensity[:rows]

    def _medium(self, at: OperatingPoint, drift_s: float) -> Medium:
        """The medium in force: whose it is, and whether it has begun to move."""
        which = int(at.swapped >= 0.5)
        if which not in self._others:
            self._others[which] = swapped_medium(
                self._config.medium,
                self._channels,
                self._pixels,
                self._key.child("medium"),
                self._device,
                steady=self._steady,
            )
        still = self._others[which]
        if self._given or (drift_s == 0 and at.drift_scale == 0):
            return still
        if which not in self._moving:
            table = self._config.drift
            law = PRESETS["slow"] if table.static else table
            rows = self._config.sensor.shape[0] or 1
            self._moving[which] = drifting(still, law, self._key.child("drift", which), rows)
        return self._moving[which]

    def _shown(self, drive: Tensor, at: OperatingPoint) -> Tensor:
        return self._modulator.light(
            drive, at.dead_macropixel_fraction, at.stuck_macropixel_fraction
        )

    def _mixed(self, light: Tensor) -> Tensor:
        """`light` with what misses the modulator."""
        fraction = self._config.unmodulated_fraction
        return with_unmodulated(light, fraction) if fraction > 0 else light

    def _real_intensity(self, drive: Tensor, at: OperatingPoint, medium: MatrixMedium) -> Tensor:
        """The same for light without an imaginary part: one real product with
        [Re T, Im T], half the work of a complex one."""
        assert isinstance(self._modulator, LevelModulator)
        light = self._modulator.amplitude(
            drive, at.dead_macropixel_fraction, at.stuck_macropixel_fraction
        )
        if self._stacked is None or self._stacked[0] is not medium:
            flat = medium.matrix.flatten(0, -2)
            self._stacked = (medium, torch.cat([flat.real, flat.imag]).contiguous())
        field = self._mixed(light) @ self._stacked[1].t()
        half = field.shape[1] // 2
        power = field[:, :half].square().addcmul_(field[:, half:], field[:, half:])
        if medium.patterns == 1:
            return power
        return power.view(len(power), medium.patterns, -1).mean(1)


def _padded(values: Tensor) -> Tensor:
    """`values` (rows, inputs) with rows of zeros up to a whole block.

    A product of fewer rows rounds differently, and one different bit shifts
    the whole stream of a Poisson sampler.
    """
    if len(values) == SAMPLE_BLOCK:
        return values
    padded = values.new_zeros((SAMPLE_BLOCK, values.shape[1]))
    padded[: len(values)] = values
    return padded


def _as_it_is(values: Tensor) -> Tensor:
    return values
