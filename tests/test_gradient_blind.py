"""Training never needs, takes or notices a gradient of a backend.

The five properties over generated backends, and trainers that cheat: each is
caught by the property meant for it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pib.network import Network
from pib.objective import InformationBottleneck
from pib.rule import outer_product
from pib.train import Plan, Trainer, TrainingData
from pib.unit import DigitalLayerUnit, IsomorphicUnit, Record, Unit
from tests.backends import MACHINERIES, Machinery, Made, Physics, Poison, physics
from twin.fence import Fence, Measured
from twin.key import Key
from twin.wrap import Recorded, Replayed

MakeFence = Callable[..., Fence]
seeds = st.integers(0, 2**32)


class Watched(Fence):
    """A fence that keeps what it hands out, and is a witness of the first property."""

    def __init__(self, backend: Any, **named: Any) -> None:
        super().__init__(backend, **named)
        self.raw = backend
        self.measured: list[Measured] = []

    def forward(self, *given: Any, **named: Any) -> Measured:
        return self.witnessed(super().forward(*given, **named))

    def witnessed(self, measured: Measured) -> Measured:
        for values in (measured.values, *measured.extra.values()):
            assert not values.requires_grad, "a reading requires grad"
            assert values.grad_fn is None, "a reading has a graph"
        self.measured.append(measured)
        return measured


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a training left: parameters after each step, settings as written,
    everything measured, grad modes inside the backends."""

    steps: list[dict[str, Tensor]]
    settings: list[Tensor]
    measured: list[Measured]
    grad_modes: list[bool]


def two_laws(law: Physics) -> list[Physics]:
    """A second unit behind `law`, driven by its feature and the image."""
    width = law.outputs
    return [law, replace(law, inputs=law.inputs + width, seed=law.seed + 1, programmable=True)]


def units_of(
    backends: list[Any],
    laws: list[Physics],
    isomorphic: type[IsomorphicUnit] = IsomorphicUnit,
    fence: MakeFence = Watched,
) -> list[Unit]:
    units: list[Unit] = []
    for index, (backend, law) in enumerate(zip(backends, laws, strict=True)):
        door = fence(backend, name=f"unit {index + 1}", run_id="r")
        key = Key(law.seed).child("weights")
        if law.programmable:
            units.append(isomorphic(door, key=key))
        else:
            units.append(DigitalLayerUnit(door, outputs=law.outputs, key=key))
    return units


def trainer_of(units: list[Unit], law: Physics, seed: int) -> Trainer:
    draw = Key(seed).child("data").torch()
    labels = torch.arange(24) % 3
    images = torch.rand((24, law.inputs), generator=draw) * 0.5
    images[:, :3] += 0.5 * torch.nn.functional.one_hot(labels, 3)
    data = TrainingData(
        images=images, labels=labels, shape=(1, law.inputs), probe_images=images[:6],
        probe_labels=labels[:6],
    )  # fmt: skip
    plan = Plan(
        objective=InformationBottleneck(alpha=2), epochs=2, batch=12, warm_up=1, rate=0.05,
        range_every=2,
    )  # fmt: skip
    return Trainer(Network(units), [plan] * len(units), data, key=Key(seed))


def trained(backends: list[Any], law: Physics, seed: int, **kind: Any) -> Outcome:
    """Train two units on these backends and tell what happened."""
    units = units_of(backends, two_laws(law), **kind)
    trainer = trainer_of(units, law, seed)
    steps: list[dict[str, Tensor]] = []
    trainer.run(lambda t: steps.append({n: p.clone() for n, p in t.network.parameters().items()}))
    made = [b for b in backends if isinstance(b, Made)]
    return Outcome(
        steps=steps,
        settings=[s for b in made for s in b.settings],
        measured=[m for u in units for m in getattr(u.fence, "measured", [])],
        grad_modes=[mode for b in made for mode in b.grad_modes],
    )


def of(machinery: Machinery, law: Physics) -> list[Any]:
    return [Made(each, machinery) for each in two_laws(law)]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def flat(steps: list[dict[str, Tensor]]) -> list[Tensor]:
    return [tensor for step in steps for tensor in step.values()]


# ---- the properties, as functions that a cheat can be held against --------


def check_no_reading_requires_grad(law: Physics, seed: int, **kind: Any) -> None:
    for machinery in MACHINERIES:
        outcome = trained(of(machinery, law), law, seed, **kind)
        assert outcome.measured
        # Nor later: a backend may turn on what it still holds.
        assert not any(m.values.requires_grad for m in outcome.measured)
        assert not any(t.requires_grad for t in flat(outcome.steps))


def check_a_poisoned_backend_trains(law: Physics, seed: int, **kind: Any) -> None:
    assert trained(of("poisoned", law), law, seed, **kind).steps


def check_same_numbers_same_learning(law: Physics, seed: int, **kind: Any) -> None:
    plain = trained(of("numpy", law), law, seed, **kind)
    assert plain.settings
    for machinery in MACHINERIES[1:]:
        other = trained(of(machinery, law), law, seed, **kind)
        assert same(plain.settings, other.settings), machinery
        assert same(flat(plain.steps), flat(other.steps)), machinery


def check_gradients_are_off_inside(law: Physics, seed: int, **kind: Any) -> None:
    for machinery in MACHINERIES:
        assert not any(trained(of(machinery, law), law, seed, **kind).grad_modes)


SEVERAL = settings(max_examples=12, deadline=None)


@SEVERAL
@given(law=physics(), seed=seeds)
def test_no_reading_ever_requires_grad_even_of_a_backend_that_leaks(
    law: Physics, seed: int
) -> None:
    check_no_reading_requires_grad(law, seed)


@SEVERAL
@given(law=physics(), seed=seeds)
def test_a_backend_whose_backward_raises_trains(law: Physics, seed: int) -> None:
    check_a_poisoned_backend_trains(law, seed)


@SEVERAL
@given(law=physics(), seed=seeds)
def test_the_same_numbers_teach_the_same_whatever_made_them(law: Physics, seed: int) -> None:
    check_same_numbers_same_learning(law, seed)


@SEVERAL
@given(law=physics(), seed=seeds, machinery=st.sampled_from(MACHINERIES))
def test_a_replayed_recording_teaches_what_its_backend_taught(
    law: Physics, seed: int, machinery: Machinery
) -> None:
    recorded = [Recorded(backend) for backend in of(machinery, law)]
    first = trained(recorded, law, seed)
    again = trained([Replayed(r.recording) for r in recorded], law, seed)
    assert first.steps
    assert same(flat(first.steps), flat(again.steps))


@SEVERAL
@given(law=physics(), seed=seeds)
def test_gradients_are_off_inside_a_backend(law: Physics, seed: int) -> None:
    check_gradients_are_off_inside(law, seed)


def process_state() -> dict[str, Any]:
    return {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "torch generator": torch.get_rng_state().tolist(),
        "numpy generator": repr(np.random.get_state()),  # noqa: NPY002
        "python generator": random.getstate(),
        "numpy errors": np.geterr(),
    }


@SEVERAL
@given(law=physics(), seed=seeds, machinery=st.sampled_from(MACHINERIES), grad=st.booleans())
def test_the_process_after_every_step_is_as_before(
    law: Physics, seed: int, machinery: Machinery, grad: bool
) -> None:
    units = units_of(of(machinery, law), two_laws(law))
    trainer = trainer_of(units, law, seed)
    with torch.set_grad_enabled(grad):
        before = process_state()
        while not trainer.finished:
            trainer.advance()
            assert process_state() == before


# ---- trainers that cheat, and the properties that catch them ---------------

BENT = Physics(inputs=5, outputs=4, curve="tanh", gain=1.5, disturb=0.0, noise=0.0, seed=11)


class Polite(IsomorphicUnit):
    """Asks the backend for its true gradient; takes the local rule if refused."""

    asks = 0
    takes = 0

    def gradients(
        self, record: Record, pre_activation: Tensor, gradient: Tensor
    ) -> dict[str, Tensor]:
        local = outer_product(record.drive, pre_activation, gradient)
        device = self.fence.raw  # type: ignore[attr-defined]
        Polite.asks += 1
        try:
            with torch.enable_grad():
                codes = device.forward(record.drive.clone(), key=Key(0)).codes
            delta = gradient * (pre_activation > 0)
            (true,) = torch.autograd.grad(codes, device.weights, delta)
        except RuntimeError:
            return local
        Polite.takes += 1
        return {**local, "weight": true}


class Secretive(Polite):
    """The same, hiding from a backend that asks whether gradients are on."""

    def gradients(
        self, record: Record, pre_activation: Tensor, gradient: Tensor
    ) -> dict[str, Tensor]:
        device = self.fence.raw  # type: ignore[attr-defined]
        seen = len(device.grad_modes)
        found = super().gradients(record, pre_activation, gradient)
        del device.grad_modes[seen:]
        return found


class Rude(IsomorphicUnit):
    """Uses the backend's gradient and nothing else."""

    def gradients(
        self, record: Record, pre_activation: Tensor, gradient: Tensor
    ) -> dict[str, Tensor]:
        device = self.fence.raw  # type: ignore[attr-defined]
        with torch.enable_grad():
            codes = device.forward(record.drive.clone(), key=Key(0)).codes
        (true,) = torch.autograd.grad(codes, device.weights, gradient * (pre_activation > 0))
        return {"weight": true, "bias": gradient.sum(0)}


class Leaky(Watched):
    """A fence that forgets to cut the graph."""

    def forward(self, *given: Any, **named: Any) -> Measured:
        named.pop("phase", None)
        with torch.enable_grad():
            reading = self.raw.forward(*given, **named)
        values = self.capabilities.readings[0].decode(reading.codes, reading.ratio)
        return self.witnessed(
            Measured(values=values, saturated=0.0, state_version=0, clock_s=0.0, extra={})
        )


def test_a_polite_cheat_is_caught_by_same_numbers_same_learning() -> None:
    Polite.asks = Polite.takes = 0
    with pytest.raises(AssertionError, match="graph"):
        check_same_numbers_same_learning(BENT, 3, isomorphic=Polite)
    # It did cheat where it could, and fell back where it could not.
    assert 0 < Polite.takes < Polite.asks


def test_poison_alone_misses_the_polite_cheat() -> None:
    check_a_poisoned_backend_trains(BENT, 3, isomorphic=Polite)


def test_a_polite_cheat_is_caught_with_gradients_on_inside_the_backend() -> None:
    with pytest.raises(AssertionError):
        check_gradients_are_off_inside(BENT, 3, isomorphic=Polite)


def test_a_cheat_that_hides_its_grad_mode_is_still_caught_by_what_it_learns() -> None:
    check_gradients_are_off_inside(BENT, 3, isomorphic=Secretive)
    with pytest.raises(AssertionError, match="graph"):
        check_same_numbers_same_learning(BENT, 3, isomorphic=Secretive)


def test_a_rude_cheat_is_caught_by_poison() -> None:
    with pytest.raises(Poison):
        check_a_poisoned_backend_trains(BENT, 3, isomorphic=Rude)


def test_a_cheat_that_calls_the_device_behind_the_fence_cannot_be_replayed() -> None:
    law = replace(BENT, disturb=1e-2)
    plain = trained(of("numpy", law), law, 3)
    assert not same(plain.settings, trained(of("numpy", law), law, 3, isomorphic=Polite).settings)


def test_a_fence_that_leaks_a_graph_is_caught_by_the_first_property() -> None:
    with pytest.raises(AssertionError, match="requires grad"):
        check_no_reading_requires_grad(BENT, 3, fence=Leaky)


@pytest.mark.parametrize("machinery", MACHINERIES)
def test_generated_backends_differ_in_their_graph_and_not_in_their_numbers(
    machinery: Machinery,
) -> None:
    drive = torch.rand((4, BENT.inputs), generator=Key(1).torch())
    made, plain = Made(BENT, machinery), Made(BENT, "numpy")
    codes = made.forward(drive.clone(), key=Key(0)).codes
    assert torch.equal(codes.detach(), plain.forward(drive, key=Key(0)).codes)
    assert codes.requires_grad is (machinery != "numpy")


def test_the_graph_of_a_generated_backend_carries_its_true_gradient() -> None:
    """So that a cheat has something to gain: checked by finite differences."""
    made = Made(BENT, "graph")
    drive = torch.rand((4, BENT.inputs), generator=Key(1).torch())
    with torch.enable_grad():
        (found,) = torch.autograd.grad(made.forward(drive, key=Key(0)).codes.sum(), made.weights)
    weights, step = made.weights.detach().double().numpy(), 1e-5
    x = drive.double().numpy()
    for i, j in np.ndindex(weights.shape):
        ends = []
        for sign in (1, -1):
            moved = weights.copy()
            moved[i, j] += sign * step
            # float32 answers would drown a difference of 1e-5.
            ends.append(np.tanh(np.float64(BENT.gain) * (x @ moved)).sum())
        assert found[i, j].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-5)
