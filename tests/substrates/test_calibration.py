"""Calibration finds what was planted in the converters, on any chip in V and S."""

import pytest
import torch

from substrates.ideal import make as make_ideal
from substrates.memristor.calibration import calibrate_columns
from substrates.memristor.crossbar import Crossbar, make
from twin.errors import DriveError, ReadingError, Unsupported
from twin.fence import Fence
from twin.key import Key


def chip(**options: object) -> tuple[Crossbar, torch.Tensor]:
    """A ranged chip with random weights, and what it holds."""
    made = make(key=Key(5), **{"inputs": 48, "outputs": 30, "adc_bits": 12, **options})
    w = torch.rand((48, 30), generator=Key(6).torch()) * 2 - 1
    achieved = made.program(w, key=Key(7)).achieved["weights"]
    made.set_range(torch.rand((400, 48), generator=Key(8).torch()), key=Key(9))
    return made, achieved


def planted(made: Crossbar) -> tuple[torch.Tensor, torch.Tensor]:
    errors = made.parts.converters.errors(made._dials, torch.device("cpu"))
    port = made.capabilities.readings[0]
    assert errors.factor is not None and errors.offset is not None
    return errors.factor, errors.offset * port.step * made._ratio


@pytest.mark.parametrize("rows", [48, 16])
def test_planted_gains_and_offsets_are_found_within_their_standard_errors(rows):
    made, w = chip(adc_gain_spread=0.05, adc_offset_lsb=20.0, array_rows=rows)
    gain, offset = planted(made)
    tiles = made.layout.tiling.rows
    fit = calibrate_columns(made, w, key=Key(1), samples=2000, groups=tiles)
    z = (fit.gain - gain) / fit.gain_error
    # 30 or 90 converters: none further off than five standard errors, and the
    # errors are neither boasting nor hiding (chi square within five sigma).
    assert z.abs().max() < 5
    assert abs(z.square().mean() - 1) < 5 * (2 / z.numel()) ** 0.5
    summed = offset.view(len(tiles), -1).sum(0)
    assert ((fit.offset - summed) / fit.offset_error).abs().max() < 5
    assert fit.gain_error.max() < 0.01


def test_a_corrected_reading_is_that_of_ideal_converters():
    made, w = chip(adc_gain_spread=0.05, adc_offset_lsb=20.0, read_noise=0.0)
    fit = calibrate_columns(made, w, key=Key(1), samples=4000)
    x = torch.rand((50, 48), generator=Key(2).torch()) * 0.7
    values = Fence(made, name="chip").forward(x, key=Key(3)).values.double()
    scale = 0.2 * 18e-6 / made.capabilities.readings[0].full_scale
    ideal = made.capabilities.drives[0].on_grid(x).double() @ w.double() * scale
    before, after = (values - ideal).std(), (fit.corrected(values) - ideal).std()
    assert after < before / 5


def test_a_wrong_belief_about_the_weights_shows_as_gain():
    made, w = chip(read_noise=0.0)
    fit = calibrate_columns(made, w * 0.5, key=Key(1))
    assert torch.allclose(fit.gain, torch.full_like(fit.gain, 2.0), rtol=0.01)


def test_what_cannot_be_calibrated_is_refused():
    made, w = chip()
    with pytest.raises(DriveError, match="shape"):
        calibrate_columns(made, w.T, key=Key(1))
    with pytest.raises(DriveError, match="at least 8"):
        calibrate_columns(made, w, key=Key(1), samples=5)
    narrow, held = chip(adc_full_scale_a=1e-7)
    narrow.restore(narrow.snapshot())
    narrow._ratio.fill_(1.0)
    with pytest.raises(ReadingError, match="set_range"):
        calibrate_columns(narrow, held, key=Key(1))
    ideal = make_ideal(key=Key(0), inputs=48, outputs=30)
    with pytest.raises(Unsupported, match="volts and siemens"):
        calibrate_columns(ideal, w, key=Key(1))


def test_tiles_of_different_gain_cannot_be_corrected_afterwards():
    made, w = chip(array_rows=16)
    fit = calibrate_columns(made, w, key=Key(1), groups=made.layout.tiling.rows)
    with pytest.raises(ReadingError, match="row tiles"):
        fit.corrected(torch.zeros(30))
