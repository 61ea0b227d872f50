"""The variants of unsupervised PIB. Needs no torch: configurations name them."""

from __future__ import annotations

from enum import StrEnum


class Target(StrEnum):
    """What a unit's features are to be informative of.

    INSTANCES: which image a view is of (kernel 1 for views of one image, else 0).
    TWO_VIEWS: the features of another view of the same image, Gram matrix against
    Gram matrix. NEIGHBOURS: as INSTANCES, with nearest neighbours for views.
    CLUSTERS: k-means pseudo-labels. INPUT: the image, I(X;Z) as large as may be.
    SPREAD: nothing; H(Z) as large as may be. A control: its loss falls, its
    features get worse than random ones.
    """

    INSTANCES = "instances"
    TWO_VIEWS = "two-views"
    NEIGHBOURS = "neighbours"
    CLUSTERS = "clusters"
    INPUT = "input"
    SPREAD = "spread"
