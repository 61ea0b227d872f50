"""PhyLL and what contrastive methods share: labels in images, pairs, budget, judge."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pib.network import Network
from pib.unit import DigitalLayerUnit, IsomorphicUnit, Record
from substrates.ideal import Ideal, IdealConfig
from twin.errors import ConfigError
from twin.fence import Fence
from twin.key import Key
from validation.baselines.budget import Budget, CappedLedger
from validation.baselines.contrast import (
    BesideDrive,
    Goodness,
    Layer,
    Written,
    embedded,
    pair_gradient,
    wrong_labels,
)
from validation.baselines.method import Learnt, Method, Task
from validation.baselines.phyll import METHOD, PhysicalLocalLearning, cosine_goodness
from validation.config import parse_config
from validation.experiment import Tensors, build_network

SEEDS = st.integers(0, 2**32 - 1)
RIG = (
    '\n[[unit]]\nbackend = "optics"\nkind = "broken-isomorphism"\noutputs = {n}\n'
    "epochs = 1\noptions = {{ pixels = 24 }}\n"
)
CHIP = '\n[[unit]]\nbackend = "memristor"\noutputs = {n}\nepochs = 1\n'
IDEAL = '\n[[unit]]\nbackend = "ideal"\noutputs = {n}\nepochs = 1\n'
NETWORKS = {
    "rig": RIG.format(n=10),
    "chip": CHIP.format(n=10),
    "masked chip": CHIP.format(n=10) + "mask_constant = true\n",
    "ideal": IDEAL.format(n=10),
    "rig and chip": RIG.format(n=10) + CHIP.format(n=8),
    "rigs without skip": "\n[network]\nskip = false\n" + RIG.format(n=10) + RIG.format(n=8),
}
PIXELS, CLASSES, COUNT = 16, 3, 40


def blobs(seed: int, count: int = COUNT) -> tuple[Tensor, Tensor]:
    """Three blots in images of 4 x 4, noisy."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    images = 0.2 * torch.rand(count, PIXELS, generator=generator)
    for row, label in enumerate(labels.tolist()):
        images[row, 4 + 4 * label : 8 + 4 * label] += 0.7
    return images, labels


def task(
    network: str,
    *,
    seed: int = 1,
    ceiling: int | None = None,
    compare: str = "",
    count: int = COUNT,
) -> Task:
    head = f"[training]\nrange_every = 3\nwarm_up = 2\n[compare]\nbatch = 10\n{compare}\n"
    config = parse_config(head + NETWORKS[network], "test")
    ledger, key = CappedLedger(ceiling), Key(seed)
    data = Tensors(
        train=blobs(seed, count), validation=blobs(seed + 1), test=blobs(seed + 2),
        shape=(4, 4), classes=CLASSES,
    )  # fmt: skip
    return Task(
        config=config, network=build_network(config, PIXELS, key=key, ledger=ledger), data=data,
        key=key, budget=Budget(ledger, ceiling),
    )  # fmt: skip


def judged(job: Task, learnt: Learnt) -> float:
    assert learnt.judge is not None
    images, labels = job.data.test
    found = learnt.judge(images, key=Key(9), phase="inference")
    return float((found == labels).double().mean())


# ---- labels in images -----------------------------------------------------------


@given(seed=SEEDS, classes=st.integers(2, 10), more=st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_a_label_can_be_read_back_from_an_image_whose_other_pixels_are_untouched(
    seed: int, classes: int, more: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(12, classes + more, generator=generator)
    before = images.clone()
    labels = torch.randint(0, classes, (12,), generator=generator)
    shown = embedded(images, labels, classes)
    assert torch.equal(shown[:, :classes].argmax(1), labels)
    assert torch.equal(shown[:, :classes].sum(1), torch.ones(12))
    assert torch.equal(shown[:, classes:], images[:, classes:])
    assert torch.equal(images, before)


def test_an_image_as_small_as_the_number_of_labels_is_refused() -> None:
    with pytest.raises(ConfigError, match="no room"):
        embedded(torch.rand(2, 3), torch.tensor([0, 1]), 3)


def test_wrong_labels_are_wrong_and_equally_likely() -> None:
    """9000 draws over three others: five standard errors are 0.025."""
    labels = torch.full((9000,), 2)
    wrong = wrong_labels(labels, 4, Key(3))
    assert not (wrong == 2).any()
    shares = wrong.bincount(minlength=4) / 9000
    assert (shares[[0, 1, 3]] - 1 / 3).abs().max() < 0.025


# ---- gradients ------------------------------------------------------------------


def numerical(loss, parameter: Tensor, step: float = 1e-6) -> Tensor:  # type: ignore[no-untyped-def]
    """d loss() / d parameter by central differences, entry by entry."""
    found, flat = torch.zeros_like(parameter), parameter.view(-1)
    for i in range(len(flat)):
        start = float(flat[i])
        flat[i] = start + step
        above = loss()
        flat[i] = start - step
        found.view(-1)[i] = (above - loss()) / (2 * step)
        flat[i] = start
    return found


def worst(layer: Layer, unit: object, record_of, goodness: Goodness) -> float:  # type: ignore[no-untyped-def]
    """Largest error of the analytic gradient of a batch, relative to its largest entry."""

    def parts() -> tuple[float, dict[str, Tensor]]:
        record = record_of()
        seen, y = layer.seen(unit, record), layer.y(unit, record)  # type: ignore[arg-type]
        return pair_gradient(goodness, seen, y)

    _, analytic = parts()
    errors = []
    for name, parameter in layer.parameters.items():
        truth = numerical(lambda: parts()[0], parameter)
        errors.append(float((analytic[name] - truth).abs().max() / truth.abs().max()))
    return max(errors)


def doubled(layer: Layer, key: Key) -> None:
    generator = key.torch()
    for name, parameter in layer.parameters.items():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        layer.parameters[name] = parameter.double() + 0.1 * noise


def gradient_error_behind_fixed_physics(seed: int, goodness: Goodness, beside: bool) -> float:
    fence = Fence(Ideal(IdealConfig(inputs=6, outputs=7)), name="rig")
    unit = DigitalLayerUnit(fence, outputs=5, key=Key(seed))
    layer = BesideDrive(unit, Key(seed).child("layer"), beside=beside)
    doubled(layer, Key(seed).child("noise"))
    generator = Key(seed).child("drive").torch()
    drive = torch.rand(8, 6, generator=generator, dtype=torch.float64)
    record = Record(drive=drive, values=torch.randn(8, 7, generator=generator, dtype=torch.float64))
    return worst(layer, unit, lambda: record, goodness)


def gradient_error_of_a_written_unit(seed: int, goodness: Goodness) -> float:
    """The device measures the exact product of the present weights."""
    fence = Fence(Ideal(IdealConfig(inputs=6, outputs=5)), name="chip")
    unit = IsomorphicUnit(fence, key=Key(seed))
    layer = Written(unit)
    doubled(layer, Key(seed).child("noise"))
    drive = torch.rand(8, 6, generator=Key(seed).child("drive").torch(), dtype=torch.float64)
    plain = Record(drive=drive, values=torch.ones(8, 5, dtype=torch.float64))
    gain = unit.pre_activation(plain) - unit.parameters["bias"]

    def measured() -> Record:
        return Record(drive=drive, values=drive @ unit.parameters["weight"] / gain)

    return worst(layer, unit, measured, goodness)


@given(seed=SEEDS, theta=st.floats(0.5, 10))
@settings(max_examples=5, deadline=None)
def test_the_gradient_of_phyll_is_that_of_its_loss(seed: int, theta: float) -> None:
    goodness = cosine_goodness(5, theta, Key(seed).child("xi"))
    goodness = type(goodness)(goodness.xi.double(), theta)
    assert gradient_error_behind_fixed_physics(seed, goodness, True) < 1e-5
    assert gradient_error_behind_fixed_physics(seed, goodness, False) < 1e-5
    assert gradient_error_of_a_written_unit(seed, goodness) < 1e-5


@given(seed=SEEDS, size=st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_the_goodness_of_phyll_knows_directions_only(seed: int, size: float) -> None:
    goodness = cosine_goodness(9, 4.0, Key(seed))
    y = torch.randn(6, 9, generator=Key(seed).child("y").torch())
    found = goodness.value(y)
    assert found.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(goodness.value(size * y), found, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(goodness.value(y.abs()), found)


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_what_phyll_passes_on_keeps_the_order_and_fits_the_drive(seed: int) -> None:
    goodness = cosine_goodness(9, 4.0, Key(seed))
    y = 2 * torch.randn(1, 9, generator=Key(seed).child("y").torch()).sort().values
    passed = goodness.passed_on(y, float(y.square().mean().sqrt()))
    assert ((passed >= 0) & (passed <= 1)).all()
    apart = y.diff(dim=1) > 1e-3
    assert (passed.diff(dim=1)[apart] > 0).all()


# ---- the budget and the judge --------------------------------------------------------


@given(
    network=st.sampled_from(sorted(NETWORKS)), ceiling=st.integers(130, 700),
    inner=st.sampled_from([1, 3]), every=st.integers(1, 7),
)  # fmt: skip
@settings(max_examples=12, deadline=None)
def test_the_ceiling_is_never_crossed_and_nearly_reached(
    network: str, ceiling: int, inner: int, every: int
) -> None:
    job = task(network, ceiling=ceiling)
    training = job.config.training.model_copy(update={"range_every": every})
    job = type(job)(**vars(job) | {"config": job.config.model_copy(update={"training": training})})
    try:
        PhysicalLocalLearning(inner_steps=inner).train(job)
    except ConfigError:
        assert ceiling < 260  # two units ranged twice and a step of both
        return
    units, spent = len(job.network.units), job.allowance.spent
    assert ceiling - 20 * units - 2 * 40 * units - 40 < spent <= ceiling


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_an_answer_costs_a_pass_per_label_and_unit_in_its_own_phase(network: str) -> None:
    job = task(network, ceiling=600)
    learnt = METHOD.train(job)
    ledger = job.network.units[0].fence.ledger
    assert isinstance(ledger, CappedLedger)
    ledger.ceiling = None
    before = ledger.total().passes
    assert learnt.judge is not None
    learnt.judge(job.data.test[0][:7], key=Key(5), phase="asked")
    for unit in job.network.units:
        assert ledger.total(unit.name, "asked").passes == 7 * CLASSES
    assert ledger.total().passes - before == 7 * CLASSES * len(job.network.units)


def test_an_image_costs_two_passes_per_unit_and_epoch() -> None:
    job = task("rigs without skip")
    METHOD.train(job)
    epochs = 2  # of both units together
    for unit in job.network.units:
        assert unit.fence.ledger.total(unit.name).passes == epochs * 2 * COUNT


@pytest.mark.parametrize("network", ["rig", "chip", "rig and chip"])
def test_phyll_learns_three_blots(network: str) -> None:
    """40 test images: guessing 1/3 of them right has a standard error of 0.075."""
    found = trained(METHOD, network)
    assert found > 1 / 3 + 5 * 0.075


def trained(method: Method, network: str) -> float:
    job = task(network, ceiling=6000, compare="rate = 0.01\ndropout = 0.0")
    learnt = method.train(job)
    ledger = job.network.units[0].fence.ledger
    assert isinstance(ledger, CappedLedger)
    ledger.ceiling = None
    return judged(job, learnt)


def test_the_same_key_gives_the_same_network_to_the_bit() -> None:
    one, two = (METHOD.train(task("rig and chip", ceiling=600)) for _ in range(2))
    assert one.notes == two.notes
    images = blobs(5)[0]
    for learnt in (one, two):
        network: Network = learnt.judge.network  # type: ignore[union-attr]
        network.units[0].fence.ledger.ceiling = None  # type: ignore[attr-defined]
    scores = [
        learnt.judge.scores(images, key=Key(1), phase="inference")  # type: ignore[union-attr]
        for learnt in (one, two)
    ]
    assert torch.equal(*scores)
