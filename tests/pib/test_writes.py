"""Writing sparingly: what reaches the chip, when, and that stopping changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pib import checkpoint
from pib.train import Trainer
from pib.unit import IsomorphicUnit
from pib.writes import Writes
from tests.pib import tiny
from twin.backend import MinimalBackend
from twin.errors import ConfigError, ReadingError
from twin.faulty import Faulty
from twin.key import Key

seeds = st.integers(0, 2**32)
rules = st.builds(
    Writes,
    every=st.integers(1, 5),
    threshold=st.sampled_from([0.0, 0.02, 0.2]),
    step=st.sampled_from([None, 0.05, 0.3]),
)


def settings_of(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.rand((2, 5, 4), generator=Key(seed).torch()) * 2 - 1
    return draw[0], draw[1]


@given(seed=seeds, threshold=st.floats(0, 1))
def test_exactly_the_cells_beyond_the_threshold_are_rewritten(seed: int, threshold: float) -> None:
    target, written = settings_of(seed)
    after = Writes(threshold=threshold).towards(target, written)
    beyond = (target - written).abs() > threshold
    assert torch.equal(after, torch.where(beyond, target, written))


@given(seed=seeds, step=st.floats(0.01, 1), threshold=st.floats(0, 0.5))
def test_a_sign_update_moves_by_its_step_towards_the_target_or_not_at_all(
    seed: int, step: float, threshold: float
) -> None:
    target, written = settings_of(seed)
    after = Writes(step=step, threshold=threshold).towards(target, written)
    assert float(after.abs().max()) <= 1
    moved = after != written
    inside = moved & (after.abs() < 1)
    assert torch.allclose((after - written).abs()[inside], torch.tensor(step), atol=1e-6)
    closer = (target - after).abs() <= (target - written).abs() + 1e-6
    assert bool(closer.all())


@given(rule=rules, steps=st.integers(1, 12))
def test_the_last_step_writes_and_the_last_write_is_known(rule: Writes, steps: int) -> None:
    last = 0
    for step in range(steps):
        assert rule.last_write(step, steps) == last
        if rule.due(step, steps):
            last = step + 1
    assert last == steps == rule.last_write(steps, steps)


def trainer(rule: Writes, names: tuple[str, ...] = ("memristor",), **wrap: Any) -> Trainer:
    return tiny.trainer(names, lambda: tiny.plan(writes=rule, epochs=3, range_every=3), **wrap)


@settings(max_examples=20, deadline=None)
@given(
    rule=rules,
    names=st.sampled_from([("ideal",), ("memristor", "ideal"), ("ideal", "memristor")]),
    stop=st.integers(1, 11),
)
def test_going_on_repeats_the_uninterrupted_training_however_seldom_it_writes(
    tmp_path_factory: pytest.TempPathFactory, rule: Writes, names: tuple[str, ...], stop: int
) -> None:
    """Also on a device that cannot be restored, and must be told its setting again."""
    whole, part, again = (trainer(rule, names) for _ in range(3))
    whole.run()
    folder = tmp_path_factory.mktemp("run")
    for _ in range(min(stop, 6 * len(names) - 1)):
        part.advance()
    checkpoint.save_training(folder, part, {})
    checkpoint.load_training(folder, again)
    again.run()
    assert tiny.same_tensors(whole.network.state(), again.network.state())
    assert all(torch.equal(a, b) for a, b in zip(whole.measured, again.measured, strict=True))
    assert whole.history.dump() == again.history.dump()


@pytest.mark.parametrize(("every", "writes"), [(1, 7), (2, 4), (4, 3), (9, 2)])
def test_the_ledger_counts_the_writes_that_were_made(every: int, writes: int) -> None:
    """Six steps: one write at the start, one every so many, one at the end."""
    run = trainer(Writes(every=every))
    run.run()
    assert run.network.units[0].fence.ledger.total(phase="train").writes == writes


class Told:
    """A chip that notes what it is told to hold."""

    def __init__(self, backend: MinimalBackend) -> None:
        self.inner, self.capabilities = backend, backend.capabilities
        self.settings: list[torch.Tensor] = []

    def program(self, setting: Any, *, key: Key) -> Any:
        self.settings.append(setting.clone())
        return self.inner.program(setting, key=key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.mark.parametrize("rule", [Writes(threshold=0.1), Writes(step=0.04)])
def test_a_chip_is_told_again_what_its_unchanged_cells_hold(rule: Writes) -> None:
    chips: list[Told] = []

    def noting(backend: MinimalBackend) -> MinimalBackend:
        chips.append(Told(backend))
        return chips[-1]

    trainer(rule, wrap=noting).run()
    pairs = zip(chips[0].settings, chips[0].settings[1:], strict=False)
    changes = [(b - a)[a != b].abs() for a, b in pairs]
    moved = torch.cat(changes)
    cells = chips[0].settings[0].numel() * len(changes)
    assert 0 < len(moved) < cells
    if rule.step is None:
        assert float(moved.min()) > rule.threshold
    else:
        assert float(moved.max()) <= rule.step + 1e-6


@pytest.mark.parametrize("rule", [Writes(every=3), Writes(threshold=0.1), Writes(step=0.04)])
def test_a_failed_step_of_a_sparing_training_teaches_what_it_would_have(rule: Writes) -> None:
    """On a device without noise, whose range is set at the ends only."""

    def run(at: dict[int, str]) -> tuple[Trainer, int]:
        found = tiny.trainer(
            ("memristor",),
            lambda: tiny.plan(writes=rule, epochs=3, range_every=99),
            wrap=lambda b: Faulty(b, Key(3), at=at),
        )
        device, failures = found.network.units[0].fence, 0
        for dial in ("programming_error", "read_noise", "relaxation_mean", "relaxation_spread"):
            device.adjust(dial, 0.0, key=Key(0))
        while not found.finished:
            try:
                found.advance()
            except ReadingError:
                failures += 1
        return found, failures

    (whole, none), (hit, some) = run({}), run({7: "batch", 9: "batch", 12: "range"})
    assert none == 0 and some > 0
    assert tiny.same_tensors(whole.network.state(), hit.network.state())


def test_a_fixed_window_holds_the_weights_and_never_moves() -> None:
    fence = tiny.network(("ideal",)).units[0].fence
    unit = IsomorphicUnit(fence, key=Key(1), window_sigmas=2.0)
    unit.deploy(Key(0))
    scale = unit.constants()["scale"]
    edge = 2.0 * (2.0 / tiny.PIXELS) ** 0.5
    assert torch.allclose(scale, torch.full_like(scale, edge))
    unit.parameters["weight"] *= 10
    unit.deploy(Key(0))
    assert float(unit.parameters["weight"].abs().max()) == pytest.approx(edge)
    assert torch.equal(unit.constants()["scale"], scale)


@pytest.mark.parametrize("bad", [{"every": 0}, {"threshold": -0.1}, {"step": 0.0}, {"step": 2.0}])
def test_ways_to_write_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="writes"):
        Writes(**bad)


def test_a_unit_that_writes_nothing_cannot_write_less() -> None:
    with pytest.raises(ConfigError, match="live in the computer"):
        trainer(Writes(every=2), ("optics",))
