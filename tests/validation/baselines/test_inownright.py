"""`pib-twin methods`: every method leaves its figures, and no bound is put on a quick run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from twin.key import Key
from validation.baselines import controls, inownright
from validation.baselines.inownright import QUICK

TINY = replace(
    QUICK, seeds=(0, 1), limit=300, epochs=(2, 2), images=200, curve=(8.0,), nodes=12, steps=200,
    dataset="digits",
)  # fmt: skip


def test_the_angle_of_a_step_to_the_gradient_is_below_a_right_angle() -> None:
    from tests.validation.baselines.test_phyll import CLASSES, blobs

    angles: list[float] = []
    images, labels = blobs(1, 600)
    controls.dfa_digital(
        images, labels, blobs(2, 100), key=Key(0), epochs=20, classes=CLASSES, widths=(60, 60),
        batch=20, angles=angles,
    )  # fmt: skip
    assert len(angles) == 2 and all(0 < angle < 90 for angle in angles)


@pytest.mark.parametrize("part", ["forward_forward", "feedback_alignment", "phyll", "reservoir"])
def test_each_experiment_gives_a_figure_for_all_seeds(part: str) -> None:
    found = list(getattr(inownright, part)(TINY, None))
    assert found and all(figure.n == 2 and figure.value is not None for figure in found)
    assert all(figure.bound is None for figure in found)
    again = list(getattr(inownright, part)(TINY, None))
    assert [f.value for f in again] == [f.value for f in found]
