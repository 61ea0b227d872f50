"""The runs behind `fig4c`: one after the other, at two sites, and with one site killed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import xarray as xr

from validation import datasets
from validation.config import parse_config_json
from validation.experiment import Tensors, tensors
from validation.sites.joint import Measured, joint, sequential
from validation.sites.order import ROLES, Order, Role
from validation.sites.run import Kill, claim, run
from validation.sites.timeline import timeline

KILL_AT = {"downstream": 0.5, "upstream": 0.25}
"""Share of its steps at which a site is killed. The upstream one takes longer: at half of
its steps the other has finished, and cannot show that it goes on."""


def in_sequence(config: str, seed: int, data: str | None) -> xr.Dataset:
    """Ordinary training: accuracies, and both units' losses against time."""
    parsed = parse_config_json(config, "fig4c")
    found = sequential(parsed, _loaded(config, data), seed)
    result = _accuracies(found)
    for role, rows in zip(ROLES, found.losses, strict=True):
        dim = f"{role}_step"
        result[f"{role}_time"] = (dim, [row[0] for row in rows], {"units": "s"})
        result[f"{role}_loss"] = (dim, [row[1] for row in rows], {"units": "bit"})
    return result


def at_two_sites(
    config: str, seed: int, data: str | None, kill: Role | None, away_s: float, publications: int
) -> xr.Dataset:
    """Two processes side by side; kill: which one is killed in the middle, if any.

    What is on disk between the two is in a temporary folder; a part that is
    interrupted begins anew.
    """
    with tempfile.TemporaryDirectory(prefix="pib-twin-sites-") as folder:
        orders = {
            role: Order(
                role=role, config=config, seed=seed, folder=Path(folder),
                data=None if data is None else Path(data), publications=publications,
            )
            for role in ROLES
        }  # fmt: skip
        claim(orders["upstream"], resume=False)
        run(orders, None if kill is None else Kill(kill, KILL_AT[kill], away_s))
        found = joint(orders, _loaded(config, data))
        return timeline(orders).merge(_accuracies(found), combine_attrs="no_conflicts")


def _loaded(config: str, data: str | None) -> Tensors:
    table = parse_config_json(config, "fig4c").data
    return tensors(datasets.load(table.name, data_dir=data, limit=table.limit))


def _accuracies(found: Measured) -> xr.Dataset:
    return xr.Dataset(
        {
            "accuracy": ((), found.accuracy, {"units": "1"}),
            "accuracy_alone": ("unit", found.alone, {"units": "1"}),
            "seconds": ((), found.seconds, {"units": "s"}),
        }
    )
