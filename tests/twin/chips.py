"""Hidden devices with known truth, for the tests of calibration."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from substrates.memristor.crossbar import Crossbar
from substrates.memristor.crossbar import make as make_chip
from substrates.memristor.twinmodel import CrossbarTwin
from substrates.optics.medium import GaussianMedium
from substrates.optics.rig import OpticalRig
from substrates.optics.rig import make as make_rig
from substrates.optics.twinmodel import RigTwin
from twin.backend import MinimalBackend
from twin.calibrate import calibrate
from twin.calibration import Calibration
from twin.key import Key
from twin.probing import probe
from twin.twinmodel import Floats

CHIP: dict[str, Any] = {
    "inputs": 12,
    "outputs": 8,
    "adc_bits": 12,
    "adc_gain_spread": 0.05,
    "adc_offset_lsb": 4.0,
    "adc_noise_lsb": 6.0,
    "relaxation_spread": 0.003,
}
RIG: dict[str, Any] = {
    "inputs": 6,
    "pixels": 12,
    "mean_electrons": 2500.0,
    "camera_bits": 12,
    "sensor": {"offset_dn": 20.0},
}


def chip(seed: int, **options: Any) -> Crossbar:
    return make_chip(key=Key(seed), **{**CHIP, **options})


def rig(seed: int, **options: Any) -> OpticalRig:
    return make_rig(key=Key(seed), **{**RIG, **options})


def fitted_chip(device: Crossbar, passes: int = 1500, seed: int = 5) -> Calibration:
    recording = probe(device, passes=passes, key=Key(seed), twin_kind="memristor")
    return calibrate(CrossbarTwin(device.capabilities), recording, key=Key(seed))


def fitted_rig(device: OpticalRig, passes: int = 1000, seed: int = 5) -> Calibration:
    recording = probe(device, passes=passes, key=Key(seed), twin_kind="optics")
    return calibrate(RigTwin(device.capabilities), recording, key=Key(seed))


def chip_truth(device: Crossbar) -> dict[str, Floats]:
    """The parameters of a chip as it stands, in the units of its twin."""
    found = device.parts.converters.errors(device._dials, torch.device("cpu"))
    step, config = device.capabilities.readings[0].step, device.config
    assert found.factor is not None and found.offset is not None
    gain, cells = found.factor[0].double().numpy(), device.conductances().double()
    weights = (cells[0] - cells[1]).numpy() / config.window_siemens
    return {
        "held_weights": weights * gain,
        "column_gain": gain,
        "column_offset": found.offset[0].double().numpy() * step,
        "read_noise": _number(config.read_noise),
        "additive_noise": _number(math.sqrt(config.adc_noise_lsb**2 + 1 / 12) * step),
        "write_error": _number(config.programming_error),
        "drift_spread": _number(config.relaxation_spread),
        # Relaxation shifts both cells of a pair alike.
        "drift_exponent": _number(0.0),
    }


def rig_truth(device: OpticalRig, seed: int) -> dict[str, Floats]:
    """The parameters of a rig of `seed`."""
    config, port = device._config, device.capabilities.readings[0]
    top, black = 2**config.camera_bits - 1, config.sensor.offset_dn
    electron = (top - black) / top / port.full_scale
    matrix = GaussianMedium(config.inputs, config.pixels, Key(seed).child("medium")).matrix
    rows = torch.nn.functional.pad(matrix, (0, 1)).to(torch.complex128).numpy()
    rows = rows * math.sqrt(config.mean_electrons * electron)
    at = (rows @ RigTwin(device.capabilities).mean_light)[:, None]
    rows = rows * at.conj() / abs(at)
    return {
        "transmission": torch.stack([torch.from_numpy(p) for p in (rows.real, rows.imag)]).numpy(),
        "read_noise": _number(config.read_noise_electrons * electron),
        "per_electron": _number(electron),
        "decorrelation_hz": _number(0.0),
        "black_level": _number(black / top + config.dark_electrons_per_s * 0.01 * electron),
    }


def _number(value: float) -> Floats:
    return torch.tensor(value, dtype=torch.float64).numpy()


def readings(backend: MinimalBackend, drive: Tensor, seed: int) -> Tensor:
    reading = backend.forward(drive, key=Key(seed))
    return backend.capabilities.readings[0].decode(reading.codes, reading.ratio).double()


def fidelity(twin: MinimalBackend, device: MinimalBackend, drive: Tensor) -> float:
    """RMS(twin shot - device shot) / RMS(device shot - device repeat)."""
    one, again, twins = (
        readings(b, drive, seed) for b, seed in ((device, 901), (device, 902), (twin, 903))
    )
    return float((twins - one).square().mean().sqrt() / (again - one).square().mean().sqrt())


def fresh_drives(device: MinimalBackend, count: int = 300, seed: int = 77) -> Tensor:
    port = device.capabilities.drives[0]
    return port.on_grid(torch.rand((count, *port.shape), generator=Key(seed).torch()))
