"""A small network of two sites for tests: digits, an optical unit, then a memristor unit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from validation import datasets
from validation.config import RunConfig, load_config
from validation.experiment import Tensors, tensors
from validation.sites.mailbox import FilePost, Post
from validation.sites.order import Order, Role
from validation.sites.site import Site

LIMIT, EPOCHS = 200, 3


def config(
    *, skip: bool = False, epochs: tuple[int, int] = (EPOCHS, EPOCHS), limit: int = LIMIT
) -> RunConfig:
    """hybrid-digits, smaller; 200 images in batches of 50 are 4 steps an epoch."""
    table = load_config("hybrid-digits").model_dump()
    table["data"]["limit"] = limit
    table["network"]["skip"] = skip
    table["training"] |= {"batch": 50, "warm_up": 5}
    table["unit"] = [dict(unit) for unit in table["unit"]]
    for unit, count in zip(table["unit"], epochs, strict=True):
        unit["epochs"] = count
    table["unit"][0] |= {"outputs": 16, "options": {"pixels": 64}}
    table["unit"][1] |= {"outputs": 12}
    return RunConfig(**table)


def data(limit: int = LIMIT) -> Tensors:
    return tensors(datasets.load("digits", limit=limit))


def order(folder: Path, role: Role, **changes: object) -> Order:
    made = Order(
        role=role, config=config().model_dump_json(), seed=7, folder=folder, publications=4,
        keep=None,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def site(made: Order, loaded: Tensors, door: Post | None = None) -> Site:
    return Site(made, loaded, door or FilePost(made.post, keep=made.keep))


def weights(made: Site) -> Tensor:
    """All that the site's unit has learnt, in one row."""
    return torch.cat([p.flatten() for p in made.local.unit.parameters.values()])


def finish(made: Site) -> Site:
    while not made.finished:
        made.advance()
    return made
