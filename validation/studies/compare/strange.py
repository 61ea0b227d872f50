"""How well strange images are told from known ones, by scores fixed beforehand.

Score and layer are chosen on validation images against blends of two of them: no set
that is reported takes part in the choice. Beside every method: counting dark
pixels, which needs no network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from pib.network import Network
from pib.sampling import draw
from twin.key import Key
from validation import datasets
from validation.baselines.method import Learnt
from validation.config import RunConfig
from validation.experiment import Tensors
from validation.studies.compare.classifiers import ALL, OWN, Classifiers, views

MOST = 2000
"""Images of each set."""

REFERENCE = 2000
"""Training images that densities are made of."""

WIDTHS = (0.35, 1.4)
"""Of the information potential's kernel, in r.m.s. distances from the mean."""

FAR: Mapping[str, str] = {"fashion-mnist": "mnist", "mnist": "fashion-mnist", "digits": ""}
"""The far set of a data set."""

Score = Callable[[Tensor], Tensor]


def told_apart(
    config: RunConfig, network: Network, data: Tensors, classifiers: Classifiers,
    learnt: Learnt, key: Key, folder: str | None,
) -> dict[str, float]:  # fmt: skip
    """AUROC and FPR95 of each strange set by the chosen score, and by dark pixels.

    Known images are tests of the classes trained with. FPR95: the share of strange
    images taken for known where 95 % of the known ones are.
    """
    sets = strange_sets(config, data, folder)
    figures: dict[str, float] = {}
    for name, images in sets.items():
        figures |= _compared(f"dark_pixels_{name}", dark(_some(data.test[0], key)), dark(images))
    if not learnt.measured:
        return figures
    here = key.child("strange")
    scores = _scores(learnt.measured, data, classifiers, here)

    def measured(images: Tensor, name: str) -> dict[str, Tensor]:
        seen = views(network.features(images, key=here.child(name), phase="strange"))
        return {label: score(seen[view]) for (view, label), score in scores.items()}

    validation = _some(data.validation[0], here)
    inside = measured(validation, "validation")
    blends = measured(blended(validation, here), "blends")
    chosen = max(inside, key=lambda label: auroc(inside[label], blends[label]))
    figures["strange_score"] = float(sorted(inside).index(chosen))
    known = measured(_some(data.test[0], here), "known")
    for name, images in sets.items():
        outside = measured(images, name)
        figures |= _compared(name, known[chosen], outside[chosen])
        figures[f"auroc_energy_{name}"] = auroc(known["energy"], outside["energy"])
    return figures


def strange_sets(config: RunConfig, data: Tensors, folder: str | None) -> dict[str, Tensor]:
    """Far: another data set. Near: turned by a quarter, inverted, the class held out."""
    name, held_out = config.data.name, config.compare.held_out_class
    whole = datasets.load(name, data_dir=folder, limit=config.data.limit)
    tests, labels = torch.as_tensor(whole.test_x), torch.as_tensor(whole.test_y)
    some = _some(data.test[0], Key(0).child("turned"))
    turned = some.view(-1, *data.shape).rot90(1, (1, 2)).reshape(len(some), -1)
    sets = {"turned": turned, "inverted": 1 - some}
    if held_out is not None:
        sets["held_out_class"] = tests[labels == held_out][:MOST]
    far = FAR.get(name)
    if far:
        other = torch.as_tensor(datasets.load(far, data_dir=folder).test_x)
        sets["far"] = _some(other, Key(0).child("far"))
    return sets


def blended(images: Tensor, key: Key) -> Tensor:
    """Halfway between two images: what is strange for the choice of a score."""
    order = torch.randperm(len(images), generator=key.child("blend").torch())
    return (images + images[order]) / 2


def dark(images: Tensor) -> Tensor:
    """Minus the share of black pixels: clothes are brighter than digits."""
    return -(images == 0).to(torch.float32).mean(1)


def auroc(known: Tensor, strange: Tensor) -> float:
    """Area under the ROC curve: chance that a known image scores above a strange one."""
    # Here: importing it sets variables of the process's environment.
    from sklearn.metrics import roc_auc_score

    truth, scores = _joined(known, strange)
    return float(roc_auc_score(truth, scores))


def _compared(name: str, known: Tensor, strange: Tensor) -> dict[str, float]:
    from sklearn.metrics import roc_curve

    truth, scores = _joined(known, strange)
    false, true, _ = roc_curve(truth, scores)
    return {
        f"auroc_{name}": auroc(known, strange),
        f"fpr95_{name}": float(false[np.argmax(true >= 0.95)]),
    }


def _joined(known: Tensor, strange: Tensor) -> tuple[np.ndarray, np.ndarray]:
    truth = np.r_[np.ones(len(known)), np.zeros(len(strange))]
    return truth, torch.cat([known, strange]).to(torch.float64).numpy()


def _some(images: Tensor, key: Key) -> Tensor:
    return images[draw(len(images), MOST, key.child("some", len(images)))]


# ---- scores: higher is more like what was trained with ----------------------------


def _scores(
    measured: list[Tensor], data: Tensors, classifiers: Classifiers, key: Key
) -> dict[tuple[str, str], Score]:
    """By (view, label). Densities of every single unit and all together."""
    labels = data.train[1]
    found: dict[tuple[str, str], Score] = {}
    readout = classifiers.readouts.get(ALL) or next(iter(classifiers.readouts.values()))
    view = ALL if ALL in classifiers.readouts else "unit 1"
    found[view, "energy"] = lambda z: readout.logits(z).logsumexp(1)
    found[view, "max-softmax"] = lambda z: readout.logits(z).softmax(1).amax(1)
    for name, seen in views(measured).items():
        if name == OWN or (len(measured) == 1 and name == ALL):
            continue
        found[name, f"mahalanobis {name}"] = mahalanobis(seen, labels)
        rows = draw(len(seen), REFERENCE, key.child("reference"))
        for width in WIDTHS:
            label = f"information potential {width:g} {name}"
            found[name, label] = information_potential(seen[rows], width)
    return found


def mahalanobis(features: Tensor, labels: Tensor) -> Score:
    """Minus the squared distance to the nearest class mean, in the shared covariance.

    Lee et al., NeurIPS 2018, arXiv 1807.03888, eq. 2.
    """
    classes = torch.unique(labels)
    means = torch.stack([features[labels == c].mean(0) for c in classes])
    centred = features - means[torch.searchsorted(classes, labels)]
    covariance = (centred.T @ centred).to(torch.float64) / len(features)
    width = len(covariance)
    ridge = 1e-3 * covariance.diagonal().mean() + 1e-12
    factor = torch.linalg.cholesky(covariance + ridge * torch.eye(width, dtype=torch.float64))

    def score(z: Tensor) -> Tensor:
        distances = []
        for mean in means:
            white = torch.linalg.solve_triangular(
                factor, (z - mean).to(torch.float64).T, upper=False
            )
            distances.append(white.square().sum(0))
        return -torch.stack(distances).amin(0)

    return score


def information_potential(features: Tensor, width: float) -> Score:
    """Logarithm of the mean Gaussian kernel to training features: what a sample adds
    to the quadratic Renyi entropy that PIB's loss is made of.

    Principe, Information Theoretic Learning (2010), ch. 2. Features are centred and
    scaled to mean |z|^2 = 1 as in the loss, width is its sigma.
    """
    mean = features.mean(0)
    scale = (features - mean).square().sum(1).mean().clamp_min(1e-12).sqrt()
    known = (features - mean) / scale

    def score(z: Tensor) -> Tensor:
        distances = torch.cdist((z - mean) / scale, known).square()
        return (-distances / (2 * width**2)).logsumexp(1)

    return score
