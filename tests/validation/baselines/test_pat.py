"""Physics-aware training: with a perfect twin it is backpropagation, with none it gets none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pib.unit import DigitalLayerUnit
from tests.validation.baselines.tiny import IDEAL, RIG, config, counted, in_ledger, task
from twin.backend import Port
from twin.key import Key
from validation.baselines import registry
from validation.baselines.backward import gain_of, setting_of
from validation.baselines.chain import ChainRule, ThroughTwin
from validation.baselines.dfa import METHOD as DFA
from validation.baselines.joint import JointTraining, Passed, softmax_error
from validation.baselines.method import Method, Task
from validation.baselines.pat import METHOD
from validation.baselines.twinnet import twin_network, twin_task
from validation.baselines.twins import twins_for
from validation.studies.compare.work import _task

BRIGHT = RIG.replace("pixels = 12", 'pixels = 12, preset = "ideal"')
NETWORKS = {
    "optics": (BRIGHT.format(n=6), BRIGHT.format(n=5)),
    "written": (IDEAL.format(n=6), IDEAL.format(n=5)),
    "hybrid": (BRIGHT.format(n=6), IDEAL.format(n=5)),
}


def looking(given: Task) -> Task:
    """The same task with the twins that its configuration says."""
    return replace(given, twins=twins_for(given.config, given.network, given.key))


def rounded(port: Port, values: Tensor) -> Tensor:
    """On the converter's grid, with the slope of what was not rounded."""
    return values + (port.on_grid(values.detach()) - values.detach())


def logits_of(training: JointTraining, rows: Tensor, leaves: dict[str, Tensor]) -> Tensor:
    """The network as one differentiable function of its parameters: twins for devices,
    the standardisation and links that the training has now."""
    network, twins = training.network, training.task.twins
    assert twins is not None
    images = training.images[rows]
    before, features = None, []
    for index, unit in enumerate(network.units):
        drive = images
        if before is not None:
            drive = (before / network.scales[index - 1]).clamp(0, 1)
            drive = torch.cat([drive, images], 1) if network.skip else drive
        drive = rounded(unit.fence.drive_port, drive)
        weight, bias = leaves[f"{unit.name}.weight"], leaves[f"{unit.name}.bias"]
        constants = unit.constants()
        if isinstance(unit, DigitalLayerUnit):
            values = rounded(unit.fence.reading_port, twins(index).predict(drive))
            values = (values - constants["mean"]) / constants["scale"]
            before = torch.relu(values @ weight + bias)
        else:
            values = twins(index).predict(drive, weight / constants["scale"])
            before = torch.relu(values * constants["scale"] * gain_of(unit) + bias)
        features.append(before)
    return torch.cat(features, 1) @ leaves["head.weight"] + leaves["head.bias"]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("skip", [True, False])
def test_with_a_perfect_twin_the_gradients_are_those_of_backpropagation(
    network: str, skip: bool
) -> None:
    """Through the twins by autograd, end to end, converters' rounding passed straight on."""
    given = looking(task(config(*NETWORKS[network], skip=skip)))
    training = JointTraining(given, ChainRule(ThroughTwin()))
    training._begin()
    rows = torch.arange(30)
    passed: Passed = training.forward(rows, Key(1))
    logits = torch.cat(list(passed.features), 1) @ training.head["weight"] + training.head["bias"]
    error = softmax_error(logits, training.labels[rows])
    wanted = training.credit.at_features(passed, error, training.head["weight"], Key(2))
    found = training.gradients(passed, wanted, error)

    leaves = {n: t.clone().requires_grad_(True) for n, t in training._tensors().items()}
    with torch.enable_grad():
        answer = logits_of(training, rows, leaves)
        loss = torch.nn.functional.cross_entropy(answer, training.labels[rows])
    exact = torch.autograd.grad(loss, list(leaves.values()))
    assert torch.allclose(answer, logits, atol=1e-4)
    for (name, _), true in zip(leaves.items(), exact, strict=True):
        assert float((found[name] - true).norm()) <= 1e-4 * float(true.norm()), name


@pytest.mark.parametrize("network", ["optics", "written"])
def test_with_a_perfect_twin_and_no_noise_it_goes_where_the_computer_goes(network: str) -> None:
    """30 training steps; optical readings are equal but for float32 products, chips' in full."""
    given = looking(task(config(*NETWORKS[network])))
    assert given.twins is not None
    inside = twin_network(given, given.twins)
    for one in (given, twin_task(given, inside, given.twins)):
        JointTraining(one, ChainRule(ThroughTwin())).run()
    theirs = inside.parameters()
    for name, tensor in given.network.parameters().items():
        assert float((tensor - theirs[name]).norm()) < 1e-3 * float(tensor.norm())
    assert in_ledger(given) == counted(given) > 0


def test_a_wrong_twin_changes_the_first_unit_alone_until_the_drives_differ() -> None:
    """The last unit's credit needs no twin."""
    found = []
    for error in (0.0, 1.0):
        given = looking(task(config(*NETWORKS["optics"], twin_error=error)))
        training = JointTraining(given, ChainRule(ThroughTwin()))
        training._begin()
        passed = training.forward(torch.arange(30), Key(1))
        error_at = torch.ones((30, 3)) / 30
        found.append(training.credit.at_features(passed, error_at, training.head["weight"], Key(2)))
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.allclose(found[0][0], found[1][0], rtol=0.1)


def test_it_learns_within_its_ceiling_and_fitted_probes_count() -> None:
    table = config(*NETWORKS["optics"], twin='"fitted"', twin_probes=100)
    given = looking(task(table, n=60, ceiling=60 * 40))
    learnt = METHOD.train(given)
    assert counted(given) == in_ledger(given) <= 60 * 40
    assert given.network.units[0].fence.ledger.total(phase="twin").passes == 300
    images, labels = given.data.test
    given.network.units[0].fence.ledger.ceiling = None  # type: ignore[attr-defined]
    features = torch.cat(given.network.features(images, key=Key(8)), 1)
    assert learnt.head is not None
    assert learnt.head.accuracy(features, labels) > 0.6


@pytest.mark.parametrize("name", registry.WHERE)
def test_a_method_that_does_not_declare_a_twin_gets_none(name: str) -> None:
    method: Any = registry.method(name)
    given = task(config(*NETWORKS["optics"]))
    made = _task(method, given.config, given.network, given.data, given.key)
    assert (made.twins is not None) == method.needs_twin
    assert method.needs_twin == (name in ("pat", "backprop", "backprop-retrained"))


def test_the_setting_that_a_twin_sees_is_the_one_that_was_written() -> None:
    given = task(config(*NETWORKS["written"]))
    unit = given.network.units[0]
    unit.deploy(Key(1))
    assert torch.equal(setting_of(unit), unit._written)  # type: ignore[arg-type, attr-defined]


def test_the_work_of_the_twin_going_backwards_is_counted() -> None:
    """Twice inputs x readings multiply-adds for each sample of a step, times four for complex
    fields; all else is the same as in feedback alignment with as many steps."""

    def worked(method: Method) -> tuple[int, float]:
        made = looking(task(config(RIG.format(n=6), RIG.format(n=5)), ceiling=500))
        steps = method.train(made).notes["training_steps"]
        return made.network.units[0].fence.ledger.total().digital_operations, steps

    (with_twin, steps), (without, same) = worked(METHOD), worked(DFA)
    second = task(config(RIG.format(n=6), RIG.format(n=5))).network.units[1].fence
    each = 8 * second.drive_port.shape[0] * second.reading_port.shape[0]
    assert steps == same and with_twin - without == each * 15 * steps
