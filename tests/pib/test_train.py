"""Training repeats itself bit for bit, also after a stop, and fails without traces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pib import checkpoint
from pib.augment import Augment
from pib.history import History
from pib.network import Network
from pib.objective import InformationBottleneck, Objective
from pib.readout import train_readout
from pib.train import Plan, Trainer
from tests.pib import tiny
from twin.backend import MinimalBackend
from twin.errors import (
    CheckpointError,
    ConfigError,
    DeviceUnavailable,
    ObjectiveError,
    OutcomeUnknown,
    PibTwinError,
    ReadingError,
)
from twin.faulty import CALL_FAULTS, READING_FAULTS, Faulty
from twin.key import Key
from twin.ledger import Ledger
from validation.baselines.lce import LocalCrossEntropy

OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "alpha 2": lambda: InformationBottleneck(alpha=2),
    "alpha 0.5 with beta": lambda: InformationBottleneck(alpha=0.5, beta=0.1),
    "local cross-entropy": LocalCrossEntropy,
}
CHAINS = [
    ("ideal",),
    ("memristor",),
    ("optics",),
    ("memristor", "memristor"),
    ("optics", "memristor"),
    ("memristor", "optics"),
    ("ideal", "memristor"),
]


def everything(trainer: Trainer) -> dict[str, Tensor]:
    """All tensors of a finished training, readings on new images among them."""
    images, _ = tiny.images(9, seed=7)
    found = dict(trainer.network.state())
    found |= {f"measured.{i}": z for i, z in enumerate(trainer.measured)}
    features = trainer.network.features(images, key=Key(8))
    return found | {f"test.{i}": z for i, z in enumerate(features)}


def rows_of(trainer: Trainer, leave_out: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    rows = trainer.network.units[0].fence.ledger.rows()
    return [row for row in rows if row["phase"] not in leave_out]


@settings(max_examples=20, deadline=None)
@given(
    names=st.sampled_from(CHAINS),
    recapture=st.sampled_from(["never", "epoch", "batch"]),
    objective=st.sampled_from(sorted(OBJECTIVES)),
    skip=st.booleans(),
    hard=st.booleans(),
    augment=st.booleans(),
    stop=st.floats(0, 1),
    shots=st.integers(1, 2),
)
def test_going_on_from_any_step_repeats_the_uninterrupted_training(
    tmp_path_factory: pytest.TempPathFactory, names: tuple[str, ...], recapture: Any,
    objective: str, skip: bool, hard: bool, augment: bool, stop: float, shots: int,
) -> None:  # fmt: skip
    """Parameters, features, readings, history and ledger, to the last bit."""

    def plan() -> Plan:
        return tiny.plan(
            OBJECTIVES[objective](), recapture=recapture, hard_offset=0.1 if hard else None,
            augment=Augment(shift_px=1, noise=0.1) if augment else Augment(), record_dropout=0.2,
        )  # fmt: skip

    def fresh() -> Trainer:
        return tiny.trainer(names, plan, skip)

    whole = fresh()
    whole.run()
    total = sum(whole.steps_of(i) for i in range(len(names)))
    folder = tmp_path_factory.mktemp("run")
    part = fresh()
    stops = sorted({round(stop * total), round(stop * total * shots) % (total + 1)})
    done = 0
    for at in stops:
        while done < at:
            part.advance()
            done += 1
        checkpoint.save_training(folder, part, {"note": "kept"})
        part = fresh()
        notes = checkpoint.load_training(folder, part)
        assert notes["note"] == "kept"
        assert notes["threads"] == str(torch.get_num_threads())
    part.run()
    assert tiny.same_tensors(everything(whole), everything(part))
    assert whole.history.dump() == part.history.dump()
    # A device that cannot be restored is written again, which is told apart.
    assert rows_of(whole) == rows_of(part, leave_out=("resume",))
    assert ("resume" in {r["phase"] for r in rows_of(part)}) <= ("ideal" in names)


def test_a_trainer_in_use_can_go_back_to_a_checkpoint(tmp_path: Path) -> None:
    trainer = tiny.trainer(("memristor", "memristor"), lambda: tiny.plan(hard_offset=0.1))
    for _ in range(3):
        trainer.advance()
    checkpoint.save_training(tmp_path, trainer, {})
    trainer.run()
    expected = everything(trainer)
    checkpoint.load_training(tmp_path, trainer)
    trainer.run()
    assert tiny.same_tensors(expected, everything(trainer))


@settings(max_examples=8, deadline=None)
@given(names=st.sampled_from(CHAINS), seed=st.integers(0, 2**32))
def test_training_is_a_function_of_its_key(names: tuple[str, ...], seed: int) -> None:
    found = []
    for key in (seed, seed, seed + 1):
        trainer = tiny.trainer(names)
        trainer.key = Key(key)
        trainer.run()
        found.append(trainer.network.state())
    assert tiny.same_tensors(found[0], found[1])
    assert not tiny.same_tensors(found[0], found[2])


@dataclass(frozen=True)
class Moment:
    """Where a training stands between two steps."""

    step: tuple[int, int]
    parameters: dict[str, Tensor]
    history: str

    @staticmethod
    def of(trainer: Trainer) -> Moment:
        parameters = {n: p.clone() for n, p in trainer.network.parameters().items()}
        return Moment((trainer.unit_index, trainer.step), parameters, trainer.history.dump())

    def same(self, other: Moment) -> bool:
        alike = self.step == other.step and self.history == other.history
        return alike and tiny.same_tensors(self.parameters, other.parameters)


def until_error(trainer: Trainer) -> tuple[Exception | None, Moment]:
    """Train until something goes wrong; the error and the moment before that step."""
    while not trainer.finished:
        before = Moment.of(trainer)
        try:
            trainer.advance()
        except PibTwinError as error:
            return error, before
    return None, before


@settings(max_examples=25, deadline=None)
@given(
    names=st.sampled_from([("memristor",), ("optics",), ("ideal", "memristor")]),
    fault=st.sampled_from(READING_FAULTS),
    recapture=st.sampled_from(["never", "batch"]),
    at=st.integers(1, 40),
)
def test_a_spoilt_reading_is_named_and_leaves_the_parameters_unchanged(
    names: tuple[str, ...], fault: str, recapture: Any, at: int
) -> None:
    """At any call: of a batch, a ranging pass, a probe, or the last capture."""
    devices: list[Faulty] = []

    def spoilt(backend: MinimalBackend) -> MinimalBackend:
        devices.append(Faulty(backend, Key(3), at={at: fault} if not devices else {}))
        return devices[-1]

    trainer = tiny.trainer(names, lambda: tiny.plan(recapture=recapture), wrap=spoilt)
    error, before = until_error(trainer)
    if error is not None:
        assert isinstance(error, ReadingError)
        assert "unit 1" in str(error)
        after = Moment.of(trainer)
        # Only the capture after the last step may come when that step is done.
        last = (before.step[0], before.step[1] + 1)
        assert before.same(after) or (after.step == last and last[1] == trainer.steps_of(last[0]))
        # Whoever has mended the device goes on, and no step is lost or doubled.
        trainer.run()
        assert [len(u) for u in trainer.history.steps] == [4] * len(names)
    assert all(bool(torch.isfinite(p).all()) for p in trainer.network.parameters().values())


@pytest.mark.parametrize("fault", CALL_FAULTS)
@pytest.mark.parametrize("at", [1, 4, 5, 6, 7])
def test_a_lost_device_leaves_whole_steps_only(fault: str, at: int) -> None:
    """Three calls in a row fail, so that trying again does not help."""
    lost = dict.fromkeys(range(at, at + 3), fault)
    trainer = tiny.trainer(("memristor",), wrap=lambda b: Faulty(b, Key(3), at=lost))
    error, before = until_error(trainer)
    assert isinstance(error, DeviceUnavailable if fault == "unavailable" else OutcomeUnknown)
    assert before.same(Moment.of(trainer))


@pytest.mark.parametrize(
    "faults",
    [{3: "range", 7: "batch", 12: "shape"}, {5: "range"}, {12: "batch"}],
    ids=["three times", *["after a write"] * 2],
)
def test_a_step_that_failed_and_is_repeated_teaches_what_it_would_have(
    faults: dict[int, str],
) -> None:
    """On a device without noise; the ledger alone knows of the second attempt."""
    quiet = {"programming_error": 0.0, "read_noise": 0.0, "relaxation_mean": 0.0,
             "relaxation_spread": 0.0}  # fmt: skip

    def run(at: dict[int, str]) -> tuple[Trainer, int]:
        failures = 0
        trainer = tiny.trainer(("memristor",), wrap=lambda b: Faulty(b, Key(3), at=at))
        device = trainer.network.units[0].fence
        for dial, value in quiet.items():
            device.adjust(dial, value, key=Key(0))
        while not trainer.finished:
            try:
                trainer.advance()
            except ReadingError:
                failures += 1
        return trainer, failures

    whole, none = run({})
    hit, some = run(faults)
    assert none == 0 and some >= min(2, len(faults))
    assert tiny.same_tensors(whole.network.state(), hit.network.state())
    assert whole.history.dump() == hit.history.dump()


@pytest.mark.parametrize("names", [("memristor",), ("ideal",)])
@pytest.mark.parametrize("at", [7, 9])
def test_a_checkpoint_after_a_failed_step_goes_on_as_without_it(
    names: tuple[str, ...], at: int, tmp_path: Path
) -> None:
    """With noise: the device was written in the failed step, and is written back before
    the next one, in the process that failed and in one that resumed alike."""
    # Calls: a write and a ranging, then a batch and a write a step, a ranging every other.
    lost = dict.fromkeys(range(at, at + 3), "unavailable")
    hit = tiny.trainer(names, wrap=lambda b: Faulty(b, Key(3), at=lost))
    error, _ = until_error(hit)
    assert isinstance(error, DeviceUnavailable)
    checkpoint.save_training(tmp_path, hit, {})
    again = tiny.trainer(names, wrap=lambda b: Faulty(b, Key(3)))
    checkpoint.load_training(tmp_path, again)
    for trainer in (hit, again):
        trainer.run()
    assert tiny.same_tensors(everything(hit), everything(again))
    assert hit.history.dump() == again.history.dump()
    assert rows_of(hit) == rows_of(again)


def test_a_checkpoint_without_word_of_the_device_is_read_as_after_a_whole_step() -> None:
    part, again = tiny.trainer(("memristor",)), tiny.trainer(("memristor",))
    part.advance()
    arrays, text = part.state()
    assert text.pop("device_ahead") == "0"
    again.load(arrays, text)
    assert again.state()[1]["device_ahead"] == "0"


def test_units_with_ledgers_of_their_own_are_not_checkpointed(tmp_path: Path) -> None:
    """Their costs would be lost; training them is fine."""
    trainer = tiny.trainer(("ideal", "ideal"))
    trainer.network.units[1].fence.ledger = Ledger()
    trainer.advance()
    with pytest.raises(ConfigError, match="unit 2: another ledger than unit 1's"):
        checkpoint.save_training(tmp_path, trainer, {})
    trainer.run()


class Broken(InformationBottleneck):
    """An objective whose gradient is not a number."""

    def verdict(self, *given: Any, **named: Any) -> Any:
        verdict = super().verdict(*given, **named)
        verdict.gradient[0, 0] = float("nan")
        return verdict


def test_a_gradient_that_is_not_finite_is_refused_by_unit_and_step() -> None:
    trainer = tiny.trainer(("memristor",), lambda: tiny.plan(Broken(alpha=2)))
    before = Moment.of(trainer)
    with pytest.raises(ObjectiveError, match=r"unit 1: the gradient of \w+ is not finite at step"):
        trainer.run()
    assert before.same(Moment.of(trainer))


def test_a_trained_network_classifies_better_than_an_untrained_one() -> None:
    """960 images, fixed keys: the gain exceeds five standard errors of both."""
    n = 960
    x, y = tiny.images(n, seed=3)
    untrained, trained = (_accuracy(x, y, epochs, rate) for epochs, rate in ((1, 1e-9), (25, 0.02)))
    spread = sum(a * (1 - a) / n for a in (untrained, trained)) ** 0.5
    assert trained > untrained + 5 * spread


def _accuracy(x: Tensor, y: Tensor, epochs: int, rate: float) -> float:
    trainer = tiny.trainer(
        ("memristor", "memristor"),
        lambda: tiny.plan(InformationBottleneck(alpha=0.5), epochs=epochs, rate=rate),
    )
    measured = torch.cat(trainer.run(), 1)
    readout = train_readout(measured, trainer.data.labels, 3, key=Key(0))
    return readout.accuracy(torch.cat(trainer.network.features(x, key=Key(1)), 1), y)


def test_information_about_the_labels_grows_in_training() -> None:
    trainer = tiny.trainer(
        ("memristor",),
        lambda: tiny.plan(InformationBottleneck(alpha=1.01), epochs=25, rate=0.02),
    )
    trainer.run()
    bits = [row["i_yz"] for row in trainer.history.steps[0]]
    assert sum(bits[-5:]) / 5 > sum(bits[:5]) / 5 + 0.2


def test_the_ledger_counts_every_sample_that_passed() -> None:
    """Two epochs of two batches of 12, one write at the start and one a step."""
    trainer = tiny.trainer(("memristor",))
    trainer.run()
    ledger = trainer.network.units[0].fence.ledger
    assert ledger.total(phase="train").passes == 4 * 12
    assert ledger.total(phase="train").writes == 1 + 4
    assert ledger.total(phase="capture").passes == 24
    assert ledger.total(phase="train").digital_operations > 0


@pytest.mark.parametrize(
    ("recapture", "passes"), [("never", 24), ("epoch", 48), ("batch", 48 + 24)]
)
def test_stored_features_save_passes_of_fixed_physics(recapture: Any, passes: int) -> None:
    trainer = tiny.trainer(("optics",), lambda: tiny.plan(recapture=recapture))
    trainer.run()
    ledger = trainer.network.units[0].fence.ledger
    calibration = 24
    spent = ledger.total(phase="train").passes + ledger.total(phase="capture").passes
    assert spent == passes + calibration


def test_a_trainer_refuses_plans_for_another_network() -> None:
    network = tiny.network(("ideal", "ideal"))
    with pytest.raises(ConfigError, match="2 units need as many plans, got 1"):
        Trainer(network, [tiny.plan()], tiny.data(), key=Key(0))


@pytest.mark.parametrize(
    "bad", [{"epochs": 0}, {"batch": 1}, {"rate": 0.0}, {"range_every": 0}, {"record_dropout": 1.0}]
)
def test_a_plan_out_of_range_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="plan"):
        tiny.plan(**bad)


def test_the_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    trainer = tiny.trainer(("memristor", "memristor"))
    trainer.advance()
    checkpoint.save_training(tmp_path, trainer, {})
    other = tiny.trainer(("memristor", "memristor"), skip=False)
    before = Moment.of(other)
    with pytest.raises(CheckpointError, match="of another network"):
        checkpoint.load_training(tmp_path, other)
    assert before.same(Moment.of(other))


def test_history_survives_its_own_text() -> None:
    history = History(1)
    history.steps[0].append({"iteration": 1.0, "loss": float("nan")})
    history.weight_row(0, 1, torch.arange(6.0).view(2, 3), torch.ones(2, 3))
    again = History(1)
    again.load(history.dump())
    assert again.dump() == history.dump()
    assert again.steps[0][0]["loss"] != again.steps[0][0]["loss"]
    assert again.weights[0][0]["quantiles"][0] == 0.0
    assert again.weights[0][0]["quantiles"][-1] == 5.0


def test_the_network_a_trainer_holds_is_the_one_it_trains() -> None:
    network: Network = tiny.network(("ideal",))
    trainer = Trainer(network, [tiny.plan()], tiny.data(), key=Key(0))
    start = network.units[0].parameters["weight"].clone()
    trainer.run()
    assert not torch.equal(start, network.units[0].parameters["weight"])
    assert trainer.finished
