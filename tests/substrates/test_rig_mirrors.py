"""Light without an imaginary part takes a real product: the same frames as the complex one."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from substrates.optics.medium import MatrixMedium, Medium, gaussian_matrix
from substrates.optics.presets import configured
from substrates.optics.rig import OpticalRig
from tests.substrates.rigs import INPUTS, NOISELESS, PIXELS, SEEDS, uniform, within_one_level
from twin.key import Key

SHARP: dict[str, Any] = {
    **NOISELESS, "inputs": INPUTS, "pixels": PIXELS, "camera_bits": 16,
    "full_scale_over_mean": 30.0,
}  # fmt: skip


class Opaque:
    """A medium that hides its matrix, so that the rig takes the complex way."""

    static = True

    def __init__(self, medium: MatrixMedium) -> None:
        self._medium = medium

    def transmit(self, light: torch.Tensor, clock_s: float, frame_s: float) -> torch.Tensor:
        return self._medium.transmit(light, clock_s, frame_s)


@given(
    seed=SEEDS, patterns=st.integers(1, 3), batch=st.integers(1, 70),
    table=st.sampled_from(
        [{}, {"stuck_fraction": 0.3}, {"binarise": "area", "pixels_per_side": 4}]
    ),
    steady=st.sampled_from([0.0, 0.2]), dead=st.sampled_from([0.0, 0.4]),
    shots=st.sampled_from([None, 2]),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_the_real_product_of_mirrors_is_the_complex_one(
    seed: int, patterns: int, batch: int, table: dict[str, Any], steady: float, dead: float,
    shots: int | None,
) -> None:  # fmt: skip
    config = configured(
        {
            **SHARP, "modulator": {"kind": "dmd", **table}, "unmodulated_fraction": steady,
            "dead_macropixel_fraction": dead,
        }
    )  # fmt: skip
    parts = [gaussian_matrix(PIXELS, INPUTS + (steady > 0), Key(n)) for n in range(patterns)]
    medium = MatrixMedium(torch.stack(parts) if patterns > 1 else parts[0])
    ways: list[Medium] = [medium, Opaque(medium)]
    real, whole = (
        OpticalRig(config, Key(seed), way).forward(uniform(seed, batch), key=Key(0), shots=shots)
        for way in ways
    )
    assert within_one_level(real.codes, whole.codes)
    assert real.codes.max() > 0
