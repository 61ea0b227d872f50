"""Each method in its own right: the smallest honest experiment with a published or stated figure.

Forward-forward and feedback alignment without any physics, where others have published;
PhyLL beside a ridge classifier on the frames of one medium; a reservoir beside a linear
memory. `pib-twin methods` runs them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from twin.fence import Fence
from twin.key import Key
from twin.registry import open_backend
from validation import datasets
from validation.baselines import controls
from validation.baselines.reservoir import ReservoirRecipe, SequenceResult, run_reservoir
from validation.baselines.reservoirtasks import narma10
from validation.console import console
from validation.experiment import tensors
from validation.studies.compare.work import work
from validation.studies.points import COMPARISON, Point
from validation.studies.work import one_thread
from validation.summary import Figure, Summary, mean_and_error

CURVE = (4.0, 8.0, 16.0, 32.0, 64.0)
"""Physical passes per training image of PhyLL's learning curve."""

BRIGHT = {
    "mean_electrons": 1e6, "camera_bits": 16, "shot_noise": "gaussian", "modulator_levels": 4096,
}  # fmt: skip
"""A rig with little noise; its loop would forget otherwise."""

GAINS = (0.05, 0.1, 0.2)
"""Drive gains tried for the reservoir, on a sequence of their own."""


@dataclass(frozen=True)
class Size:
    """How much is computed. limit: training images, None for all."""

    seeds: Sequence[int]
    limit: int | None = None
    epochs: tuple[int, int] = (12, 8)
    images: int = 10_000
    curve: Sequence[float] = CURVE
    nodes: int = 200
    steps: int = 2000
    quick: bool = False
    dataset: str = "mnist"


QUICK = Size(
    seeds=(0,), limit=5000, epochs=(4, 4), images=1000, curve=CURVE[:2], nodes=40, steps=600,
    quick=True,
)  # fmt: skip


def main(out: Path | None, quick: bool, seeds: int, data: Path | None, command: str) -> Summary:
    """Run every experiment; the figures are printed and kept in `out`/summary.json.

    Bounds are put on the full runs only. Raises DataError without MNIST.
    """
    size = QUICK if quick else Size(seeds=range(seeds))
    out = out or Path("runs") / f"methods{'-quick' if quick else ''}"
    summary = Summary(command)
    parts: Sequence[Callable[[Size, Path | None], Iterator[Figure]]] = (
        forward_forward, feedback_alignment, reservoir, phyll,
    )  # fmt: skip
    for part in parts:
        console.print(f"{part.__name__.replace('_', ' ')} ...")
        with one_thread():
            for figure in part(size, data):
                summary.add(figure)
        summary.write(out)
    console.print(summary.table())
    if quick:
        console.print("QUICK: shows that it works, no figure to quote.")
    return summary


def forward_forward(size: Size, data: Path | None) -> Iterator[Figure]:
    """Test error of two dense layers of 500 on MNIST, answers by goodness."""
    mnist = tensors(datasets.load(size.dataset, data_dir=data, limit=size.limit))
    errors = []
    for seed in size.seeds:
        found = controls.forward_forward_digital(
            *mnist.train, mnist.test, key=Key(seed), epochs=size.epochs[0], hard=True,
            by_goodness=True,
        )  # fmt: skip
        errors.append(found[size.epochs[0]])
    yield _figure("forward-forward, dense 2 x 500, MNIST: test error", errors, size, "<= 0.03")


def feedback_alignment(size: Size, data: Path | None) -> Iterator[Figure]:
    """Test errors of two dense layers of 400 on MNIST, and the angle to the true gradient."""
    mnist = tensors(datasets.load(size.dataset, data_dir=data, limit=size.limit))
    epochs, rows, angles = size.epochs[1], [], []
    for seed in size.seeds:
        last: list[float] = []
        true = controls.bp_digital(*mnist.train, mnist.test, key=Key(seed), epochs=epochs)
        sent = controls.dfa_digital(
            *mnist.train, mnist.test, key=Key(seed), epochs=epochs, angles=last
        )
        rows.append((true[epochs], sent[epochs]))
        angles.append(last)
    true_errors, sent_errors = (list(column) for column in zip(*rows, strict=True))
    behind = [ours - theirs for theirs, ours in rows]
    yield _figure("backpropagation, dense 2 x 400, MNIST: test error", true_errors, size)
    yield _figure("feedback alignment, the same net: test error", sent_errors, size)
    yield _figure("feedback alignment minus backpropagation", behind, size, "<= 0.015")
    for layer, column in enumerate(zip(*angles, strict=True)):
        name = f"angle of layer {layer + 1} to its gradient"
        yield _figure(name, list(column), size, "< 90", unit="degree")


def phyll(size: Size, data: Path | None) -> Iterator[Figure]:
    """PhyLL at its published inner steps beside ridge, on the frames of one medium."""
    ridge = [_accuracy("elm", size.curve[-1], seed, size, data) for seed in size.seeds]
    yield _figure("ridge on untrained physics, MNIST: test accuracy", ridge, size)
    for passes in size.curve:
        found = [_accuracy("phyll", passes, seed, size, data) for seed in size.seeds]
        yield _figure(f"PhyLL, {passes:g} passes per image: test accuracy", found, size)
    ahead = [ours - theirs for ours, theirs in zip(found, ridge, strict=True)]
    yield _figure("PhyLL minus ridge, most passes", ahead, size)


def _accuracy(method: str, passes: float, seed: int, size: Size, data: Path | None) -> float:
    settings = (
        ("data.name", size.dataset),
        ("compare.units", 1),
        ("compare.passes_per_image", passes),
        ("compare.rate", 1e-3),
    )
    point = Point(
        base="compare-optics", method=method, seed=seed, settings=settings, quick=size.quick,
        limit=size.images, kind=COMPARISON, data=None if data is None else str(data),
    )  # fmt: skip
    return work(point)["accuracy"]


def reservoir(size: Size, data: Path | None) -> Iterator[Figure]:  # noqa: ARG001
    """NARMA-10 on a rig with little and with usual noise; gains are chosen on other inputs."""
    chosen: dict[str, list[SequenceResult]] = {"bright": [], "usual light": []}
    for seed in size.seeds:
        for light, options in (("bright", BRIGHT), ("usual light", {})):
            tried = {gain: _sequence(size, seed, "gain", options, gain) for gain in GAINS}
            best = min(tried, key=lambda gain: tried[gain].nrmse)
            chosen[light].append(_sequence(size, seed, "reported", options, best))
    linear = [one.linear for one in chosen["bright"]]
    yield _figure("linear memory of 50 steps, NARMA-10: NRMSE", linear, size)
    for light, found in chosen.items():
        yield _figure(f"reservoir, {light}: NRMSE", [one.nrmse for one in found], size)
    bright = [one.nrmse - one.linear for one in chosen["bright"]]
    yield _figure("reservoir, bright, minus linear memory", bright, size, "< 0")


def _sequence(
    size: Size, seed: int, what: str, options: dict[str, object], gain: float
) -> SequenceResult:
    key = Key(seed).child("reservoir")
    rig = open_backend("optics", key=key.child("rig"), inputs=size.nodes, pixels=size.nodes,
                       **options)  # fmt: skip
    fence = Fence(rig, name="rig")
    try:
        inputs, targets = narma10(size.steps, key.child(what))
        recipe = ReservoirRecipe(drive_gain=gain)
        return run_reservoir(fence, inputs, targets, key=key.child(what, "run"), recipe=recipe)
    finally:
        fence.close()


def _figure(
    name: str, values: Sequence[float], size: Size, bound: str | None = None, unit: str = "1"
) -> Figure:
    mean, error = mean_and_error(values)
    return Figure(
        name, mean, unit=unit, bound=None if size.quick else bound, n=len(values),
        standard_error=error, seeds=list(size.seeds),
    )  # fmt: skip
