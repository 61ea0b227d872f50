"""What augmentation keeps: range, shape, content; and that a key decides it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pib.augment import Augment
from twin.errors import ConfigError
from twin.key import Key

seeds = st.integers(0, 2**32)
augments = st.builds(
    Augment, shift_px=st.integers(0, 2), noise=st.floats(0, 0.5), dropout=st.floats(0, 0.9)
)


def images(seed: int, n: int, rows: int = 6, columns: int = 5) -> torch.Tensor:
    return torch.rand((n, rows * columns), generator=Key(seed).torch())


@given(seed=seeds, n=st.integers(1, 6), augment=augments)
def test_range_and_shape_stay_and_the_originals_too(seed: int, n: int, augment: Augment) -> None:
    before = images(seed, n)
    kept = before.clone()
    after = augment(before, (6, 5), Key(seed))
    assert after.shape == before.shape and after.dtype == torch.float32
    assert after.min() >= 0 and after.max() <= 1
    assert torch.equal(before, kept)


@given(seed=seeds, n=st.integers(1, 6), augment=augments)
def test_what_comes_out_is_a_function_of_the_key(seed: int, n: int, augment: Augment) -> None:
    one, again = (augment(images(seed, n), (6, 5), Key(seed)) for _ in range(2))
    assert torch.equal(one, again)


@given(seed=seeds, n=st.integers(1, 6), s=st.integers(1, 2), rows=st.integers(3, 8))
def test_a_shift_moves_the_content_and_can_be_taken_back(
    seed: int, n: int, s: int, rows: int
) -> None:
    """Content inside a black frame as wide as the largest shift is never lost."""
    inner = 0.1 + 0.9 * torch.rand((n, rows, 4), generator=Key(seed).torch())
    framed = torch.nn.functional.pad(inner, (s, s, s, s))
    shape = tuple(framed.shape[1:])
    shifted = Augment(shift_px=s)(framed.flatten(1), shape, Key(seed)).view(n, *shape)
    for before, after in zip(framed, shifted, strict=True):
        ways = [(y, x) for y in range(-s, s + 1) for x in range(-s, s + 1)]
        assert sum(torch.equal(torch.roll(after, way, (0, 1)), before) for way in ways) == 1


def test_every_shift_occurs_about_equally_often() -> None:
    """9,000 images, 9 shifts: each share 1/9 within five standard errors."""
    n = 9000
    dots = torch.zeros((n, 9))
    dots[:, 4] = 1
    where = Augment(shift_px=1)(dots, (3, 3), Key(2)).argmax(1)
    share = torch.bincount(where, minlength=9).double() / n
    assert float((share - 1 / 9).abs().max()) < 5 * (1 / 9 * 8 / 9 / n) ** 0.5


def test_dropout_blackens_its_share_of_pixels_and_leaves_the_rest() -> None:
    """100,000 pixels at probability 0.3, five standard errors."""
    before = torch.full((100, 1000), 0.5)
    after = Augment(dropout=0.3)(before, (1, 1000), Key(5))
    assert set(after.unique().tolist()) == {0.0, 0.5}
    assert float((after == 0).double().mean()) == pytest.approx(0.3, abs=5 * (0.21 / 1e5) ** 0.5)


def test_noise_has_its_stated_spread() -> None:
    """100,000 mid-grey pixels, far from the clip: standard error sigma / sqrt(2 n)."""
    before = torch.full((100, 1000), 0.5)
    change = Augment(noise=0.05)(before, (1, 1000), Key(6)) - before
    assert float(change.std()) == pytest.approx(0.05, abs=5 * 0.05 / (2e5) ** 0.5)
    assert float(change.mean()) == pytest.approx(0, abs=5 * 0.05 / 1e5**0.5)


def test_no_augmentation_is_no_copy() -> None:
    before = images(0, 3)
    assert Augment().is_off
    assert Augment()(before, (6, 5), Key(0)) is before


@pytest.mark.parametrize("bad", [{"shift_px": -1}, {"noise": -0.1}, {"dropout": 1.0}])
def test_settings_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        Augment(**bad)  # type: ignore[arg-type]


def test_shifting_what_is_no_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="rows, columns"):
        Augment(shift_px=1)(images(0, 2), (30,), Key(0))


warps = st.builds(
    Augment,
    shift_px=st.integers(0, 2),
    rotate_degrees=st.floats(0, 45),
    zoom=st.floats(0, 0.5),
    shear=st.floats(0, 0.5),
)


@given(seed=seeds, n=st.integers(1, 6), augment=warps)
def test_a_warp_keeps_range_shape_and_originals_and_is_its_keys(
    seed: int, n: int, augment: Augment
) -> None:
    before = images(seed, n)
    kept = before.clone()
    after, again = (augment(before, (6, 5), Key(seed)) for _ in range(2))
    assert after.shape == before.shape and after.min() >= 0 and after.max() <= 1
    assert torch.equal(before, kept) and torch.equal(after, again)


def spots(n: int, row: int, column: int, size: int = 21) -> torch.Tensor:
    """n pictures of one small Gaussian spot about (row, column), in pixels."""
    r, c = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    spot = torch.exp(-((r - row) ** 2 + (c - column) ** 2) / 4.0)
    return spot.flatten().repeat(n, 1)


def centres(pictures: torch.Tensor, size: int = 21) -> torch.Tensor:
    """Where the spots are, (n, 2), in pixels from the middle: (row, column)."""
    pictures = pictures.view(-1, size, size)
    total = pictures.sum((1, 2))
    along = torch.arange(size) - (size - 1) / 2
    row = (pictures.sum(2) * along).sum(1) / total
    return torch.stack([row, (pictures.sum(1) * along).sum(1) / total], 1)


def test_a_turn_moves_a_spot_along_a_circle_of_at_most_its_angle() -> None:
    """400 turns of up to 30 degrees of a spot 6 pixels above the middle."""
    where = centres(Augment(rotate_degrees=30.0)(spots(400, 4, 10), (21, 21), Key(1)))
    radius = where.norm(dim=1)
    angle = torch.atan2(where[:, 1], -where[:, 0]).rad2deg()
    assert torch.allclose(radius, torch.full_like(radius, 6.0), atol=0.1)
    assert 25 < angle.max() < 30.5 and -30.5 < angle.min() < -25
    assert abs(angle.mean()) < 5 * 30 / 3**0.5 / 400**0.5


def test_a_zoom_moves_a_spot_in_and_out_by_its_share() -> None:
    where = centres(Augment(zoom=0.3)(spots(400, 5, 10), (21, 21), Key(2)))
    assert torch.allclose(where[:, 1], torch.zeros(400), atol=0.1)
    share = -where[:, 0] / 5
    assert 1.2 < share.max() < 1.32 and 0.68 < share.min() < 0.8


def test_a_shear_moves_a_spot_sideways_by_its_height() -> None:
    where = centres(Augment(shear=0.3)(spots(400, 5, 10), (21, 21), Key(3)))
    assert torch.allclose(where[:, 0], torch.full((400,), -5.0), atol=0.1)
    assert 1.2 < where[:, 1].abs().max() < 1.6


def test_a_shift_of_a_warp_is_of_any_fraction_up_to_its_pixels() -> None:
    where = centres(Augment(shift_px=2, zoom=1e-6)(spots(400, 10, 10), (21, 21), Key(4)))
    assert 1.8 < where.abs().max() < 2.05
    whole = (where - where.round()).abs() < 0.02
    assert whole.float().mean() < 0.2


def test_a_picture_wider_than_high_is_turned_without_being_squeezed() -> None:
    """A spot 6 pixels beside the middle of a 21 x 31 picture stays 6 pixels away."""
    r, c = torch.meshgrid(torch.arange(21), torch.arange(31), indexing="ij")
    spot = torch.exp(-((r - 10) ** 2 + (c - 21) ** 2) / 4.0).flatten().repeat(50, 1)
    turned = Augment(rotate_degrees=40.0)(spot, (21, 31), Key(1)).view(50, 21, 31)
    total = turned.sum((1, 2))
    row = (turned.sum(2) * (torch.arange(21) - 10.0)).sum(1) / total
    column = (turned.sum(1) * (torch.arange(31) - 15.0)).sum(1) / total
    radius = (row**2 + column**2).sqrt()
    assert torch.allclose(radius, torch.full_like(radius, 6.0), atol=0.15)
    assert row.abs().max() > 3


@pytest.mark.parametrize("bad", [{"rotate_degrees": -1.0}, {"zoom": 1.0}, {"shear": -0.1}])
def test_a_warp_out_of_range_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="augment"):
        Augment(**bad)  # type: ignore[arg-type]


def test_a_warp_needs_a_picture() -> None:
    with pytest.raises(ConfigError, match="rows, columns"):
        Augment(zoom=0.1)(images(0, 2), (30,), Key(0))
