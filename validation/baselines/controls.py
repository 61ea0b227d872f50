"""Digital controls: the same rules without any physics, against published figures.

Plain dense networks in the computer; images (n, pixels) in [0, 1], labels (n,). Each
function returns the test error after the epochs asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from pib.rule import outer_product, rectified, warmed_cosine
from pib.unit import he_layer
from twin.key import Key
from validation.baselines.contrast import embedded, pair_gradient, wrong_labels
from validation.baselines.dfa import angle
from validation.baselines.forward_forward import SquareGoodness, length_normalised
from validation.baselines.joint import softmax_error

Labelled = tuple[Tensor, Tensor]
Layers = list[dict[str, Tensor]]
CHUNK = 1000


def forward_forward_digital(
    images: Tensor, labels: Tensor, test: Labelled, *, key: Key, epochs: int,
    classes: int = 10, widths: Sequence[int] = (500, 500), batch: int = 100,
    rate: float = 3e-3, threshold: float = 1.0, hard: bool = False,
    by_goodness: bool = False, report: Sequence[int] = (),
) -> dict[int, float]:  # fmt: skip
    """Forward-forward on a dense network; test error by epoch, of the last and those in `report`.

    hard: wrong labels are drawn where the network's goodness is large, as in the paper,
    else uniformly. An answer is that of a softmax head on all layers but the first, which
    sees a neutral label and is trained along (Hinton, section 3.3); by_goodness: the label
    of the most goodness in these layers.
    """
    net = Contrasted(images.shape[1], widths, classes, threshold, rate, key.child("start"))
    found = {}
    for epoch, now, steps, rows in _batches(len(images), batch, epochs, key):
        here = key.child("step", now)
        x, own = images[rows], labels[rows]
        wrong = net.hard_labels(x, own, here) if hard else wrong_labels(own, classes, here)
        shown = torch.cat([embedded(x, own, classes), embedded(x, wrong, classes)])
        now_rate = warmed_cosine(now, steps, rate, 1)
        net.learn(shown, now_rate)
        net.learn_head(x, own, now_rate)
        if (now + 1) * epochs % steps == 0 and (epoch + 1 in report or epoch + 1 == epochs):
            found[epoch + 1] = 1 - accuracy(net.scores if by_goodness else net.logits, test)
    return found


class Contrasted:
    """Dense rectified layers that learn by forward-forward, each alone, with Adam."""

    def __init__(
        self, pixels: int, widths: Sequence[int], classes: int, threshold: float, rate: float,
        key: Key,
    ) -> None:  # fmt: skip
        self.classes = classes
        self.layers = dense([pixels, *widths], key)
        self.goodness = [SquareGoodness(threshold)] * len(widths)
        seen = sum(widths[1:]) or widths[0]
        self.head = {"weight": torch.zeros(seen, classes), "bias": torch.zeros(classes)}
        self._optimisers = [
            torch.optim.Adam(list(layer.values()), lr=rate, fused=True)
            for layer in (*self.layers, self.head)
        ]

    def learn(self, shown: Tensor, rate: float) -> None:
        """One step of every layer on positives, then their negatives (2n, pixels)."""
        h = length_normalised(shown)
        for layer, goodness, optimiser in zip(
            self.layers, self.goodness, self._optimisers[:-1], strict=True
        ):
            y = torch.addmm(layer["bias"], h, layer["weight"])
            _, gradients = pair_gradient(goodness, h, y)
            step(layer, gradients, optimiser, rate)
            h = length_normalised(y)

    def learn_head(self, images: Tensor, labels: Tensor, rate: float) -> None:
        """One step of the softmax head; the layers stay."""
        seen = self._neutral(images)
        error = softmax_error(torch.addmm(self.head["bias"], seen, self.head["weight"]), labels)
        gradients = {"weight": seen.T @ error, "bias": error.sum(0)}
        step(self.head, gradients, self._optimisers[-1], rate)

    def logits(self, images: Tensor) -> Tensor:
        """The softmax head's answer, (n, classes)."""
        return torch.addmm(self.head["bias"], self._neutral(images), self.head["weight"])

    def _neutral(self, images: Tensor) -> Tensor:
        """Directions of all layers but the first, all labels shown alike."""
        h = images.clone()
        h[:, : self.classes] = 1 / self.classes
        h, found = length_normalised(h), []
        for layer in self.layers:
            h = length_normalised(torch.addmm(layer["bias"], h, layer["weight"]))
            found.append(h)
        return torch.cat(found[1:] or found, 1)

    def scores(self, images: Tensor) -> Tensor:
        """Goodness of every label (n, classes), all layers but the first if there are more."""
        return torch.stack([torch.stack(g).sum(0) for g in self._by_label(images)], 1)

    def hard_labels(self, images: Tensor, labels: Tensor, key: Key) -> Tensor:
        """Wrong labels that the first layer finds good, drawn by the softmax of its goodness."""
        first, goodness = self.layers[0], self.goodness[0]
        shown = length_normalised(embedded(images, labels, self.classes))
        label_px = shown[:, : self.classes].sum(1, keepdim=True)
        shown[:, : self.classes] = 0.0
        y = torch.addmm(first["bias"], shown, first["weight"])
        # One product for all labels: a label adds one row of the weights.
        scores = torch.stack(
            [goodness.value(y + label_px * first["weight"][c]) for c in range(self.classes)], 1
        )
        scores[torch.arange(len(labels)), labels] = -torch.inf
        return torch.multinomial(scores.softmax(1), 1, generator=key.torch())[:, 0]

    def _by_label(self, images: Tensor) -> Iterator[list[Tensor]]:
        for label in range(self.classes):
            h = embedded(images, torch.full((len(images),), label), self.classes)
            h = length_normalised(h)
            found = []
            for layer, goodness in zip(self.layers, self.goodness, strict=True):
                y = torch.addmm(layer["bias"], h, layer["weight"])
                found.append(goodness.value(y))
                h = length_normalised(y)
            yield found[1:] or found


def bp_digital(
    images: Tensor, labels: Tensor, test: Labelled, *, key: Key, epochs: int,
    classes: int = 10, widths: Sequence[int] = (400, 400), batch: int = 100, rate: float = 1e-3,
    report: Sequence[int] = (),
) -> dict[int, float]:  # fmt: skip
    """Backpropagation of a dense rectified network with Adam; test error by epoch."""
    return _supervised(
        images, labels, test, None, key, epochs, classes, widths, batch, rate, report
    )


def dfa_digital(
    images: Tensor, labels: Tensor, test: Labelled, *, key: Key, epochs: int,
    classes: int = 10, widths: Sequence[int] = (400, 400), batch: int = 100, rate: float = 1e-3,
    report: Sequence[int] = (), angles: list[float] | None = None,
) -> dict[int, float]:  # fmt: skip
    """The same with direct feedback alignment: one Gaussian matrix for all hidden layers.

    angles: gets the angle, degrees, of each hidden layer's step to the true gradient, on
    the last batch.
    """
    shape = (max(widths), classes)
    shared = torch.randn(shape, generator=key.child("feedback").torch()) * max(widths) ** -0.5
    return _supervised(
        images, labels, test, shared, key, epochs, classes, widths, batch, rate, report, angles
    )


def _supervised(
    images: Tensor, labels: Tensor, test: Labelled, feedback: Tensor | None, key: Key, epochs: int,
    classes: int, widths: Sequence[int], batch: int, rate: float, report: Sequence[int],
    angles: list[float] | None = None,
) -> dict[int, float]:  # fmt: skip
    layers = dense([images.shape[1], *widths, classes], key.child("start"))
    optimisers = [torch.optim.Adam(list(layer.values()), lr=rate, fused=True) for layer in layers]
    found = {}
    for epoch, now, steps, rows in _batches(len(images), batch, epochs, key):
        gradients = dense_gradients(layers, images[rows], labels[rows], feedback)
        for layer, own, optimiser in zip(layers, gradients, optimisers, strict=True):
            step(layer, own, optimiser, warmed_cosine(now, steps, rate, 1))
        if (now + 1) * epochs % steps == 0 and (epoch + 1 in report or epoch + 1 == epochs):
            found[epoch + 1] = 1 - accuracy(lambda x: forward(layers, x)[-1], test)
    if angles is not None:
        true = dense_gradients(layers, images[rows], labels[rows], None)
        pairs = zip(gradients[:-1], true[:-1], strict=True)
        angles += [angle(ours["weight"], exact["weight"]) for ours, exact in pairs]
    return found


def dense_gradients(
    layers: Layers, images: Tensor, labels: Tensor, feedback: Tensor | None
) -> Layers:
    """Of the mean cross-entropy by every layer. feedback: (widest, classes) sends the error
    to the hidden layers, by its first rows; None for the true gradient."""
    pre = forward(layers, images)
    inputs = [images, *map(rectified, pre[:-1])]
    error = softmax_error(pre[-1], labels)
    found = [{"weight": inputs[-1].T @ error, "bias": error.sum(0)}]
    delta = error
    for index in reversed(range(len(layers) - 1)):
        if feedback is None:
            at_feature = delta @ layers[index + 1]["weight"].T
        else:
            at_feature = error @ feedback[: pre[index].shape[1]].T
        delta = at_feature * (pre[index] > 0)
        found.append(outer_product(inputs[index], pre[index], at_feature))
    return found[::-1]


def forward(layers: Layers, images: Tensor) -> list[Tensor]:
    """Pre-activations of all layers."""
    pre, h = [], images
    for layer in layers:
        pre.append(torch.addmm(layer["bias"], h, layer["weight"]))
        h = rectified(pre[-1])
    return pre


def dense(sizes: Sequence[int], key: Key) -> Layers:
    pairs = pairwise(sizes)
    return [he_layer(a, b, key.child(i)) for i, (a, b) in enumerate(pairs)]


def step(
    layer: dict[str, Tensor], gradients: dict[str, Tensor], optimiser: torch.optim.Adam, rate: float
) -> None:
    for name, parameter in layer.items():
        parameter.grad = gradients[name]
    optimiser.param_groups[0]["lr"] = rate
    optimiser.step()


def accuracy(scores: Callable[[Tensor], Tensor], test: Labelled) -> float:
    """Fraction of right answers by the largest score."""
    images, labels = test
    parts = images.split(CHUNK)
    answers = torch.cat([scores(part).argmax(1) for part in parts])
    return float((answers == labels).double().mean())


def _batches(
    count: int, batch: int, epochs: int, key: Key
) -> Iterator[tuple[int, int, int, Tensor]]:
    """Epoch, step, number of steps, rows."""
    per_epoch = count // batch
    for epoch in range(epochs):
        order = torch.randperm(count, generator=key.child("epoch", epoch).torch())
        for which in range(per_epoch):
            rows = order[which * batch : (which + 1) * batch]
            yield epoch, epoch * per_epoch + which, epochs * per_epoch, rows
