"""Telegraph noise on a crossbar: traps in device time."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from substrates.memristor.presets import IDEAL
from tests.substrates.crossbars import (
    codes,
    drive,
    turn,
    written,
)

EVERYDAY = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
SMALL = {"inputs": 10, "outputs": 6, "array_rows": 10}


def flickering(seed: int = 1, **more: object):
    options = {**IDEAL, **SMALL, "rtn_active_fraction": 0.5, "rtn_amplitude": 0.2, **more}
    return written(seed, **options)


def test_shots_differ_by_the_states_of_traps_and_by_nothing_else():
    chip = flickering()
    x, start_s = drive(chip, 3), chip.snapshot().values["clock_s"]
    seen = codes(chip, x, shots=50)
    (traps,) = chip.parts.cells.traps(chip._dials)
    times = start_s + torch.arange(50).double() * 3e-6
    states = traps.history(times)
    assert 1 < len(states.unique(dim=0)) <= 50
    for shot in range(50):
        g = traps.apply(chip.parts.cells.programmed, float(times[shot])).double()
        wanted = (x.double() @ (g[0] - g[1])) * 0.2 / code_amperes_of(chip)
        assert (seen[shot] - wanted).abs().max() <= 0.51


def code_amperes_of(chip) -> torch.Tensor:
    """As code_amperes, without a pass, which would move the clock."""
    port = chip.capabilities.readings[0]
    return chip.snapshot().arrays["ratio"].double() * port.step * port.full_scale


@EVERYDAY
@given(seed=seeds, waits=st.lists(st.floats(0, 1e3), min_size=1, max_size=4))
def test_traps_know_the_time_and_not_what_was_asked(seed, waits):
    quiet, busy = flickering(), flickering()
    x, saved = drive(quiet, 2), busy.snapshot()
    for seconds in waits:
        quiet.wait(seconds)
    for seconds in waits:
        busy.wait(seconds)
        here = busy.snapshot()
        codes(busy, x, seed=seed, shots=3)
        busy.conductances()
        busy.restore(here)
    assert torch.equal(codes(quiet, x), codes(busy, x))
    busy.restore(saved)
    for seconds in waits:
        busy.wait(seconds)
    quiet.restore(busy.snapshot())
    assert torch.equal(codes(quiet, x, shots=4), codes(busy, x, shots=4))


def test_shots_in_one_call_are_those_of_single_calls():
    together, single = flickering(), flickering()
    x = drive(together, 2)
    seen = codes(together, x, shots=20)
    apart = torch.stack([codes(single, x) for _ in range(20)])
    # Sums of the clock differ in rounding; the grid of traps takes that away.
    assert torch.equal(seen, apart)


def test_turning_telegraph_noise_off_heals_every_cell():
    chip = flickering()
    assert (chip.conductances() < chip.parts.cells.programmed).any()
    turn(chip, rtn_active_fraction=0.0)
    assert torch.equal(chip.conductances(), chip.parts.cells.programmed)


@EVERYDAY
@given(seed=seeds, a=st.floats(0, 1), b=st.floats(0, 1))
def test_more_active_cells_contain_the_fewer(seed, a, b):
    chip = written(seed, **IDEAL, **SMALL, rtn_amplitude=0.2)
    few, many = sorted((a, b))
    less = turn(chip, rtn_active_fraction=few).conductances()
    more = turn(chip, rtn_active_fraction=many).conductances()
    assert (more <= less).all()
    assert ((less == chip.parts.cells.programmed) | (more == less)).all()
