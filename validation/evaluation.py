"""`pib-twin evaluate`: a trained network measured again, later or elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pib import checkpoint
from pib.network import Network
from pib.readout import Readout
from pib.sampling import draw
from twin.errors import CheckpointError, ConfigError
from twin.key import Key
from validation import datasets
from validation.config import RunConfig, load_config, parse_config_json, simulated
from validation.console import console
from validation.experiment import build_network, seen_by_readout, tensors
from validation.job import CONFIG
from validation.summary import Figure, Summary, binomial_error, read


@dataclass(frozen=True)
class Trained:
    """A run folder opened again: its network stands as before its test images."""

    config: RunConfig
    seed: int
    network: Network
    readout: Readout
    dataset: str


@dataclass(frozen=True)
class Place:
    """Where a trained network is measured; as it ran unless one of these is given.

    backend: every unit on this one, with the same inputs, outputs and options. on: units
    on the backends of this configuration (a preset or a file). simulated: on their twins.
    """

    backend: str | None = None
    on: str | None = None
    simulated: bool = False

    def __post_init__(self) -> None:
        if self.backend is not None and (self.on is not None or self.simulated):
            raise ConfigError("--backend puts every unit in one place; leave out --on, --simulated")

    @property
    def elsewhere(self) -> bool:
        return self.backend is not None or self.on is not None or self.simulated

    def __str__(self) -> str:
        if not self.elsewhere:
            return "the devices of the run"
        told = self.backend or self.on or "the run's configuration"
        return f"twins of {told}" if self.simulated else told

    def applied(self, config: RunConfig) -> RunConfig:
        """The run's configuration with its units in this place."""
        if self.backend is not None:
            return _elsewhere(config, self.backend)
        if self.on is not None:
            config = _on(config, load_config(self.on), self.on)
        return simulated(config) if self.simulated else config


AS_RUN = Place()


def open_run(folder: Path, place: Place = AS_RUN) -> Trained:
    """The trained network of a run folder.

    place: elsewhere it is to be written and ranged afresh by :func:`redeploy`.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{folder}: not a run folder (no {CONFIG}).")
    config = parse_config_json(path.read_text(), str(path))
    summary = read(folder)
    seed = int(summary.extra["seed"])
    loaded = checkpoint.load(folder / "network")
    config = place.applied(config)
    pixels = int(summary.extra["network"][0]["inputs"])
    network = build_network(config, pixels, key=Key(seed))
    try:
        network.load(_under(loaded.arrays, "network."))
        readout = Readout(**_under(loaded.arrays, "readout."))
        if not place.elsewhere:
            checkpoint.restore_devices(network, loaded)
    except BaseException as error:
        network.close()
        if isinstance(error, KeyError | TypeError):
            raise CheckpointError(f"{folder}: the saved network is incomplete: {error}.") from None
        raise
    name = str(summary.extra["dataset"]["name"])
    return Trained(config, seed, network, readout, name)


def redeploy(network: Network, images: Tensor, key: Key) -> None:
    """Write every unit's weights onto its device and range it on `images`."""
    before = None
    for index, unit in enumerate(network.units):
        unit.deploy(key.child("write", index), phase="evaluate")
        unit.calibrate(
            network.drive(index, images, before), key=key.child("range", index), phase="evaluate"
        )
        before = network.features(images, key=key.child("link", index), until=index + 1)[-1]


def main(
    folder: Path,
    place: Place,
    after: float,
    dials: Sequence[str],
    dataset: str | None,
    data_dir: Path | None,
    out: Path | None,
    command: str,
) -> Summary:
    """Print and save the accuracy now, beside the one the run ended with."""
    trained = open_run(folder, place)
    network, key = trained.network, Key(trained.seed).child("evaluate")
    try:
        devices = [u.fence.capabilities.device_id for u in network.units]
        name = dataset or _own_dataset(folder, trained)
        data = tensors(datasets.load(name, data_dir=data_dir))
        if place.elsewhere or any(not u.fence.capabilities.restorable for u in network.units):
            some = draw(len(data.train[0]), 500, key.child("some"))
            redeploy(network, data.train[0][some], key)
        for unit in network.units:
            unit.fence.wait(after)
            for dial, value in parsed_options(dials).items():
                unit.fence.adjust(dial, value, key=key.child("dial", dial))
        # The run's own key: unless something was changed, its very readings.
        features = network.features(data.test[0], key=Key(trained.seed).child("test"))
        accuracy = trained.readout.accuracy(seen_by_readout(trained.config, features), data.test[1])
    finally:
        network.close()
    n = len(data.test[1])
    summary = Summary(
        command,
        [
            Figure(
                "accuracy",
                accuracy,
                n=n,
                standard_error=binomial_error(accuracy, n),
                seeds=[trained.seed],
            ),
            *[
                Figure(f"{f.name}_at_the_end_of_the_run", f.value, n=f.n, seeds=f.seeds,
                       standard_error=f.standard_error)
                for f in read(folder).figures
                if f.name == "accuracy"
            ],
        ],
    )  # fmt: skip
    summary.extra = {"after_seconds": after, "dials": list(dials), "backend": str(place)}
    into = out or folder / "evaluation"
    summary.write(into)
    console.print(f"measured on {place}: {', '.join(devices)}", markup=False, soft_wrap=True)
    console.print(summary.table())
    console.print(f"results in {into}", markup=False)
    return summary


def _own_dataset(folder: Path, trained: Trained) -> str:
    """The data set a run was made with; a fold of one is refused."""
    if " fold " in trained.dataset:
        raise ConfigError(
            f"{folder}: was trained on {trained.dataset!r}. The test images of "
            f"{trained.config.data.name!r} may be among that fold's training images; "
            f"if you want them all the same, pass --dataset {trained.config.data.name}."
        )
    return trained.config.data.name


def parsed_options(pairs: Sequence[str]) -> dict[str, float | int | str]:
    """NAME=VALUE texts as a mapping; numbers where they read as numbers."""
    found: dict[str, float | int | str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"expected NAME=VALUE, got {pair!r}.")
        found[name] = _number(text)
    return found


def backend_options(pairs: Sequence[str]) -> dict[str, Any]:
    """The same for a backend: an entry of a table as TABLE.NAME=VALUE."""
    found: dict[str, Any] = {}
    for name, value in parsed_options(pairs).items():
        *tables, last = name.split(".")
        here = found
        for part in tables:
            here = here.setdefault(part, {})
            if not isinstance(here, dict):
                raise ConfigError(f"option {name!r}: {part!r} is given as a value too.")
        here[last] = {"true": True, "false": False}.get(str(value), value)
    return found


def _number(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _elsewhere(config: RunConfig, backend: str) -> RunConfig:
    units = tuple(
        u.model_copy(update={"backend": backend, "options": u.options if u.backend == backend
                             else {}})
        for u in config.unit
    )  # fmt: skip
    return config.model_copy(update={"unit": units})


def _on(config: RunConfig, other: RunConfig, name: str) -> RunConfig:
    """The same units on the devices (and twins) of another configuration."""
    if len(config.unit) != len(other.unit):
        raise ConfigError(
            f"--on {name}: it has {len(other.unit)} units, the run has {len(config.unit)}. Give a "
            "configuration with one device for each."
        )
    where = ("backend", "options", "twin", "twin_options")
    units = tuple(
        mine.model_copy(update={field: getattr(theirs, field) for field in where})
        for mine, theirs in zip(config.unit, other.unit, strict=True)
    )
    return config.model_copy(update={"unit": units})


def _under(entries: Mapping[str, Tensor], head: str) -> dict[str, Tensor]:
    return {n[len(head) :]: v for n, v in entries.items() if n.startswith(head)}
