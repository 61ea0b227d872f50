"""Features of many dimensions drawn in two: PCA, or UMAP where it is installed.

Imports numpy and matplotlib; umap-learn (the extra `umap`) only when asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from twin.errors import Unsupported
from validation.figures import COLOURS, INK, MARKERS, PAPER, axes, short, styled

Method = Literal["pca", "umap"]
Plane = tuple[NDArray[np.float64], tuple[str, str]]


def embed(features: NDArray[Any], method: Method = "pca") -> Plane:
    """(n, width) features -> (n, 2) coordinates and the names of both axes."""
    if method == "umap":
        return _umap(features)
    z = np.asarray(features, np.float64)
    z = z - z.mean(axis=0)
    u, s, vt = np.linalg.svd(z, full_matrices=False)
    # The sign of a component is arbitrary: its largest loading is positive.
    signs = np.sign(vt[np.arange(len(vt)), np.abs(vt).argmax(axis=1)])
    points = np.zeros((len(z), 2))
    kept = min(2, len(s))
    points[:, :kept] = (u * s * signs)[:, :kept]
    total = float((s**2).sum()) or 1.0
    shares = [*(s[:kept] ** 2 / total), 0.0][:2]
    return points, (f"PC 1 ({100 * shares[0]:.0f} %)", f"PC 2 ({100 * shares[1]:.0f} %)")


@contextmanager
def threads_kept() -> Iterator[None]:
    """For libraries that raise the number of threads of all numerical work in the process.

    UMAP's compiled code does: on busy cores every later step of a training then
    waits for its second thread, forty times as long.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _umap(features: NDArray[Any]) -> Plane:
    try:
        with warnings.catch_warnings(), threads_kept():
            warnings.simplefilter("ignore")
            from umap import UMAP

            neighbours = max(2, min(15, len(features) - 1))
            reducer = UMAP(n_components=2, n_neighbors=neighbours, random_state=0)
            points = np.asarray(reducer.fit_transform(features), np.float64)
    except ImportError:
        raise Unsupported(
            "method 'umap' needs umap-learn. Install pib-twin[umap], or use method 'pca'."
        ) from None
    return points, ("UMAP 1", "UMAP 2")


@styled
def feature_map(
    features: NDArray[Any],
    labels: NDArray[Any],
    classes: Sequence[str],
    title: str,
    method: Method = "pca",
) -> Figure:
    """Features (n, width) in the plane; colour, shape and a label give the class."""
    labels = np.asarray(labels, np.float64)
    keep = np.isfinite(features).all(axis=1) & np.isfinite(labels)
    labels = labels[keep].astype(int)
    figure, ax = axes(4.3, 3.7)
    ax.set_title(title)
    ax.xaxis.set_major_locator(NullLocator())
    ax.yaxis.set_major_locator(NullLocator())
    if len(labels) < 2:
        ax.text(0.5, 0.5, "too few samples", ha="center", transform=ax.transAxes)
        return figure
    points, (across, up) = embed(features[keep], method)
    size = 14 if len(labels) <= 500 else 7
    for code in np.unique(labels):
        x, y = points[labels == code].T
        dots = ax.scatter(x, y, s=size, alpha=0.75, linewidths=0, **look(code))
        # A thousand vector dots are slow to scroll past; a picture is not.
        dots.set_rasterized(len(labels) > 300)
    ax.set(xlabel=across, ylabel=up)
    _name_classes(ax, points, labels, classes)
    return figure


def _name_classes(
    ax: Axes, points: NDArray[np.float64], labels: NDArray[np.int64], classes: Sequence[str]
) -> None:
    """Names at the medians of the classes; one that would cover another is left out."""
    box = {"boxstyle": "round,pad=0.15", "facecolor": PAPER, "alpha": 0.7, "linewidth": 0}
    span = np.maximum(np.ptp(points, axis=0), 1e-12)
    taken: list[tuple[float, float, int]] = []
    for code in np.unique(labels):
        x, y = np.median(points[labels == code], axis=0) / span
        name = short(classes[code], 14)
        # A letter is about 2 % of the width, a line 5 % of the height.
        if any(
            abs(x - u) < 0.01 * (len(name) + n) + 0.02 and abs(y - v) < 0.06 for u, v, n in taken
        ):
            continue
        taken.append((x, y, len(name)))
        ax.text(
            x * span[0], y * span[1], name, ha="center", va="center", fontsize=8,
            fontweight="bold", color=INK, bbox=box, zorder=5,
        )  # fmt: skip


def look(code: int) -> dict[str, Any]:
    """Colour and marker of class number `code`; 35 classes differ."""
    return {
        "color": COLOURS[code % len(COLOURS)],
        "marker": MARKERS[code // len(COLOURS) % len(MARKERS)],
    }


@styled
def legend(classes: Sequence[str]) -> Figure:
    """The colours and shapes of all classes in one strip."""
    columns = min(len(classes), 5 if max(map(len, classes)) > 3 else 10)
    rows = -(-len(classes) // columns)
    figure = Figure(figsize=(6.4, 0.06 + 0.24 * rows))
    figure.set_layout_engine("none")
    handles = [
        figure.add_subplot().scatter([], [], s=26, linewidths=0, label=short(name), **look(code))
        for code, name in enumerate(classes)
    ]
    for ax in figure.axes:
        ax.set_axis_off()
    figure.legend(
        handles=handles, ncols=columns, loc="center", borderpad=0, handletextpad=0.1,
        columnspacing=1.2,
    )  # fmt: skip
    return figure
