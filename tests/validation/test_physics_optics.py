"""The optical laws: kept by the twin, broken by every planted fault."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from substrates.optics import camera as camera_module
from substrates.optics import grains, medium, modulator, propagation
from substrates.optics.camera import Camera
from substrates.optics.drift import Drifting
from substrates.optics.driftclock import DriftClock
from substrates.optics.multislice import Slices
from twin.key import Key
from validation import summary
from validation.physics import main, optics
from validation.physics import optics_camera as imaging
from validation.physics import optics_chain as chain
from validation.physics import optics_modulator as modulating
from validation.physics import optics_pictures as pictures
from validation.physics import optics_speckle as speckle
from validation.physics import optics_time as moving
from validation.physics import optics_waves as waves
from validation.physics.estimates import Estimate
from validation.physics.law import Check, Effort, Law, Outcome, Skipped
from validation.physics.resolved import resolved


def quick_look(laws: Iterable[Law]) -> list[Outcome]:
    return main.looked_at(tuple(laws), Effort(Key(0).child("validate", "optics"), quick=True))


def broken(outcomes: Iterable[Outcome]) -> list[str]:
    return [o.name for o in outcomes if isinstance(o, Check) and not o.passes]


@pytest.fixture(scope="module")
def found() -> list[Outcome]:
    """Every law of the optical twin, quickly looked at."""
    return quick_look(optics.LAWS)


def test_the_optical_twin_keeps_all_its_laws(found: list[Outcome]) -> None:
    assert broken(found) == []
    assert len(found) > 90


def test_no_optical_law_is_left_out(found: list[Outcome]) -> None:
    # LightPipes is a dependency, so nothing may be skipped.
    assert [o.name for o in found if isinstance(o, Skipped)] == []


def test_every_optical_law_has_a_source_and_its_own_name(found: list[Outcome]) -> None:
    checks = [o for o in found if isinstance(o, Check)]
    assert all(check.source for check in checks)
    assert len(main.summarised(found, "c", 0).figures) == len(checks)


@pytest.mark.parametrize("sigmas", [4.9, 5.1])
def test_a_sample_that_cannot_resolve_its_bound_fails(sigmas: float) -> None:
    check = resolved("x", Estimate(1.0, 0.1 / sigmas, 10), 1.0, 0.1, "law")
    assert check.passes is (sigmas > 5)
    assert ("too small" in check.source) is (sigmas < 5)


# What a reference note measured with other programs.
@pytest.mark.parametrize(
    ("name", "value", "digit"),
    [
        ("4 levels on a turn, Pearson", 0.810, 0.005),
        ("8 levels on a turn, Pearson", 0.950, 0.003),
        ("16 levels on a turn, Pearson", 0.987, 0.003),
        ("drift to rho = 0.99, speckle", 0.980, 0.005),
        ("drift to rho = 0.9, speckle", 0.810, 0.01),
        ("noise at 10 e, Pearson", 0.932, 0.005),
        ("noise at 100 e, Pearson", 0.9947, 0.0005),
        ("saturated at full scale = 4 means, 1000 e", 0.018, 0.001),
        ("singular values of 144 x 966, KS distance", 0.009, 0.006),
    ],
)
def test_measured_values_are_those_that_others_found(
    found: list[Outcome], name: str, value: float, digit: float
) -> None:
    (check,) = [o for o in found if isinstance(o, Check) and o.name == name]
    assert check.measured == pytest.approx(value, abs=digit)


Plant = Callable[[pytest.MonkeyPatch], None]


def method(owner: object, name: str, change: Callable[..., object]) -> Plant:
    """A fault: change(original, *arguments) in place of a function."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = getattr(owner, name)
        patch.setattr(owner, name, lambda *a, **k: change(original, *a, **k))

    return plant


def larger(factor: float) -> Callable[..., object]:
    return lambda original, *a, **k: original(*a, **k) * factor


def uniform_imaginary(original: object, pixels: int, channels: int, key: Key) -> Tensor:
    generator = key.torch()
    real = torch.randn((pixels, channels), generator=generator)
    return torch.complex(real, torch.rand((pixels, channels), generator=generator)) / math.sqrt(
        channels * 4 / 3
    )


def uneven_channels(original: Callable[..., Tensor], *sizes: object) -> Tensor:
    matrix = original(*sizes)
    return matrix * torch.linspace(0.7, 1.3, matrix.shape[1])


def wandering(original: Callable[..., Tensor], self: Drifting, time_s: float) -> Tensor:
    """A medium whose state depends on how often it was looked at."""
    looks = self.__dict__.setdefault("looks", [])
    looks.append(time_s)
    return original(self, time_s) * (1 + 1e-6 * len(looks))


FAULTS: dict[str, tuple[Law, Plant, str]] = {
    "imaginary part uniform on [0, 1]": (
        speckle.gaussian_speckle,
        method(medium, "gaussian_matrix", uniform_imaginary),
        "speckle contrast, i.i.d.",
    ),
    "variance 2 / n, as of a known simulator": (
        speckle.gaussian_speckle,
        method(medium, "gaussian_matrix", larger(math.sqrt(2))),
        "speckle mean intensity, i.i.d.",
    ),
    "patterns that interfere": (
        speckle.patterns,
        method(
            speckle,
            "summed_intensity",
            lambda original, f: original(f.sum(1) / math.sqrt(f.shape[1])),
        ),
        "speckle contrast, 2 patterns",
    ),
    "channels of unequal strength": (
        speckle.singular_values,
        method(medium, "gaussian_matrix", uneven_channels),
        "singular values of 144 x 966, KS distance",
    ),
    "a mean field beside the speckle": (
        speckle.singular_values,
        method(medium, "gaussian_matrix", lambda original, *a: original(*a) + 0.01),
        "largest singular value of 144 x 966",
    ),
    "grains a fifth too wide": (
        speckle.grain_correlation,
        method(grains, "field_correlation", lambda original, d, g, k: original(d, 1.2 * g, k)),
        "grains, airy, correlation 2 pixels apart",
    ),
    "fewer grains than predicted": (
        speckle.grain_count,
        method(grains, "field_correlation", lambda original, d, g, k: original(d, 1.2 * g, k)),
        "grains, independent outputs of 48 pixels",
    ),
    "levels rounded down": (
        modulating.levels,
        method(
            modulator.LevelModulator,
            "encode",
            lambda original, self, d: (d * (self.levels - 1)).floor().clamp_(min=0).long(),
        ),
        "4 levels on a turn, Pearson",
    ),
    "pi left out of [0, pi]": (
        modulating.half_turn,
        method(modulator, "even_phases", lambda original, n: math.pi * torch.arange(n) / n),
        "2 levels on [0, pi], Pearson",
    ),
    "dead macropixels that are dark": (
        modulating.half_turn,
        method(
            modulator.LevelModulator,
            "light",
            lambda original, self, d, dead=0.0: original(self, d, dead) * (self._dead_rank >= dead),
        ),
        "30% dead macropixels, Pearson",
    ),
    "flicker a tenth too large": (
        modulating.flicker,
        method(modulating, "flickered", lambda original, x, s, k, n: original(x, 1.1 * s, k, n)),
        "flicker 0.3 rad, Pearson",
    ),
    "aliasing let through": (
        modulating.injective,
        method(modulating, "require_injective", lambda original, phases: None),
        "encoding on [0, 2 pi] refused",
    ),
    "a finite difference for the shift rule": (
        modulating.parameter_shift,
        method(
            modulating,
            "shift_derivative",
            lambda original, f, p, s: original(f, p, s) * math.sin(s) / s,
        ),
        "parameter shift of 0.3 rad, relative L2",
    ),
    "speckle time taken for field time": (
        moving.drift,
        method(DriftClock, "elapsed", larger(0.5)),
        "drift to rho = 0.9, speckle",
    ),
    "power lost while drifting": (
        moving.drift,
        method(
            Drifting,
            "matrix_at",
            lambda original, self, t: original(self, t) * (1.0 if t < 1000 else 0.98),
        ),
        "drift keeps the power",
    ),
    "a tenth too fast": (
        moving.presets,
        method(DriftClock, "elapsed", larger(1.1)),
        "slow, speckle after 600 s",
    ),
    "jumps that replace the field, not the power": (
        moving.jumps,
        method(DriftClock, "elapsed", larger(2.0)),
        "jump of 30%, speckle",
    ),
    "a medium that depends on who looked": (
        moving.absolute_time,
        method(Drifting, "matrix_at", wandering),
        "a wait in 200 parts or at once",
    ),
    "power fluctuating in place of field": (
        moving.laser,
        method(Drifting, "power", lambda original, self, t: original(self, t) ** 2),
        "laser power, r.m.s.",
    ),
    "gain 2 % too large": (
        imaging.photon_transfer,
        method(Camera, "gain", larger(1.02)),
        "photon transfer, slope",
    ),
    "read noise added twice": (
        imaging.photon_transfer,
        method(Camera, "_read_noise", larger(math.sqrt(2))),
        "photon transfer, dark variance",
    ),
    "light a twentieth too strong": (
        imaging.saturation,
        method(Camera, "mean_charge", larger(1.05)),
        "saturated at full scale = 4 means, 1000 e",
    ),
    "saturation counted by halves": (
        imaging.saturation,
        method(Camera, "clipped", larger(0.5)),
        "saturated fraction reported, 1000 e",
    ),
    "no photon noise": (
        imaging.noise,
        method(camera_module, "poisson", lambda original, key, first, mean: mean),
        "noise at 10 e, Pearson",
    ),
    "one electron a code, as of a known simulator": (
        imaging.noise,
        method(
            camera_module,
            "poisson",
            lambda original, key, first, mean: original(key, first, mean / 10) * 10,
        ),
        "noise at 100 e, Pearson",
    ),
    "a Gaussian in place of Poisson": (
        imaging.shot_laws,
        method(
            camera_module,
            "poisson",
            lambda original, key, first, mean: (
                mean + mean.sqrt() * torch.randn(mean.shape, generator=key.torch())
            ),
        ),
        "poisson frames, skewness",
    ),
    "Gaussian frames with the noise of the light alone": (
        imaging.shot_laws,
        method(
            camera_module,
            "standard_normal",
            lambda original, *a, **k: original(*a, **k) * math.sqrt(150.0 / (150.0 + 6.83**2)),
        ),
        "gaussian frames, variance",
    ),
    "dark current that doubles every 16 degrees": (
        imaging.dark_current,
        method(camera_module, "dark_factor", lambda original, *a: math.sqrt(original(*a))),
        "dark charge at 33 deg C",
    ),
    "free space a thousandth too long": (
        waves.fresnel,
        method(propagation, "transfer", lambda original, g, z, *a: original(g, 1.001 * z, *a)),
        "Fresnel 64 x 64, complex128, relative L2",
    ),
    "odd grids let through": (
        waves.fresnel,
        method(
            waves.lightpipes,
            "fresnel",
            lambda original, f, g, z: f if g.points % 2 else original(f, g, z),
        ),
        "odd grids refused for LightPipes",
    ),
    "screens one sample aside": (
        waves.multislice,
        method(Slices, "through", lambda original, self, f: original(self, f.roll(1, -1))),
        "multislice 64 x 64, complex64, relative L2",
    ),
    "a millionth of the light lost": (
        waves.energy,
        method(waves, "propagated", larger(1 - 1e-6)),
        "fresnel, energy after 50 mm - 1, complex64",
    ),
    "backwards taken for forwards": (
        waves.energy,
        method(
            waves,
            "propagated",
            lambda original, f, g, z, *a, **k: original(f, g, abs(z), *a, **k),
        ),
        "fresnel, z then -z, complex64, relative L2",
    ),
    "the sign of time": (
        waves.beams,
        method(waves, "propagated", lambda original, f, g, z, *a, **k: original(f, g, -z, *a, **k)),
        "Gaussian beam after 100 mm, relative L2",
    ),
    "steep light let through": (
        waves.beams,
        method(propagation, "require_valid", lambda original, *a: None),
        "paraxiality violation refused",
    ),
    "screens of too little phase": (
        waves.slab_speckle,
        method(
            waves,
            "transmission_matrix",
            lambda original, table, *a, **k: original(replace(table, phase_rms_rad=0.1), *a, **k),
        ),
        "multislice, speckle contrast",
    ),
    "a budget that forgets what it multiplies": (
        chain.error_budget,
        method(
            chain,
            "conditions_of",
            lambda original, config: replace(original(config), field_correlation=0.98),
        ),
        "error budget, industrial",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_optical_fault_breaks_its_law(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law_of_it, plant, breaks = FAULTS[name]
    plant(monkeypatch)
    assert breaks in broken(quick_look([law_of_it]))


def test_every_law_has_a_fault_that_breaks_it() -> None:
    assert {law for law, _, _ in FAULTS.values()} == set(optics.LAWS)


def test_every_optical_picture_is_written(tmp_path: Path) -> None:
    paths = pictures.written(tmp_path / "new", Key(0))
    assert len(paths) == 7
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_the_command_knows_optics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optics, "LAWS", (waves.energy,))
    monkeypatch.setattr(optics, "pictures", lambda out, effort: [])
    main.main("optics", tmp_path, True, 0, "pib-twin validate optics")
    assert len(summary.read(tmp_path).figures) == 5
