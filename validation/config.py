"""A run's configuration: TOML into frozen, checked models.

Unknown keys are refused with the nearest name; a unit's `options` are checked
by its own backend, whose names carry their SI units.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from pib.target import Target
from twin.config import SECRET, build, holds_secret, parse_toml, read_text
from twin.errors import ConfigError, UnknownName, nearest


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataTable(_Table):
    """name: digits, mnist, fashion-mnist or FILE.npz. limit: training images
    used, drawn evenly over the classes (all if absent)."""

    name: str = "digits"
    limit: Annotated[int, Field(ge=20)] | None = None


class AugmentTable(_Table):
    """shift_px: random whole-pixel shifts. rotate_degrees, zoom, shear: largest turn,
    relative change of size and shear. noise: added to pixels in [0, 1]. dropout:
    probability that a pixel is shown black."""

    shift_px: Annotated[int, Field(ge=0, le=4)] = 0
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    zoom: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    shear: Annotated[float, Field(ge=0, le=1)] = 0.0
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class ObjectiveTable(_Table):
    """The loss -I(Y;Z) + beta I(X;Z). sigma is in units of the r.m.s. distance
    of a feature from the batch mean; it shrinks to sigma_end in training."""

    alpha: Annotated[float, Field(ge=0.3, le=10)] = 0.5
    beta: Annotated[float, Field(ge=0, le=10)] = 0.0
    sigma: Annotated[float, Field(gt=0, le=100)] = 1.4
    sigma_end: Annotated[float, Field(gt=0, le=100)] | None = None
    sigma_input: Annotated[float, Field(gt=0, le=100)] = 1.4


class UnsupervisedTable(_Table):
    """Targets without labels, see pib.unsupervised: a batch is `instances` images in
    `views` versions. nearest: neighbours to draw versions from. clusters: k-means
    pseudo-labels. alpha, beta, sigma are the objective's."""

    target: Target = Target.INSTANCES
    instances: Annotated[int, Field(ge=2, le=2000)] = 32
    views: Annotated[int, Field(ge=2, le=64)] = 8
    nearest: Annotated[int, Field(ge=1, le=1000)] = 10
    clusters: Annotated[int, Field(ge=2, le=2000)] = 100


class NetworkTable(_Table):
    """skip: later units also see the image. hard_examples: their batches are
    weighted by what the units before them get wrong, with hard_offset added.
    readout: what the classifier sees. shared_clock: devices age while others
    work."""

    skip: bool = True
    shared_clock: bool = True
    hard_examples: bool = True
    hard_offset: Annotated[float, Field(gt=0, le=10)] = 0.1
    readout: Literal["all", "last"] = "all"


class TrainingTable(_Table):
    """batch: images, equal shares per class. warm_up: steps. range_every:
    steps between rangings of the converters."""

    batch: Annotated[int, Field(ge=4, le=5000)] = 250
    warm_up: Annotated[int, Field(ge=1)] = 50
    range_every: Annotated[int, Field(ge=1)] = 50


class UnitTable(_Table):
    """One unit.

    outputs: its features. steps: instead of epochs. batch: instead of
    training.batch. recapture: see pib.train. options: the backend's own
    configuration. Isomorphic units: clip_rms: weights are written in units of this
    many r.m.s. values; window_sigmas: instead, in one window for good, of so many
    standard deviations of the first weights; mask_constant: columns whose reading
    never changes are found and zeroed; program_every: steps between writes;
    write_threshold, write_step: see pib.writes.
    Broken-isomorphism units: record_dropout: on the readings the digital layer
    learns from; feature_copies: how often the features before it fill the
    modulator.
    twin, twin_options: the simulated stand-in that `--simulated` puts in place of
    backend and options.
    """

    backend: str = "memristor"
    twin: str = ""
    twin_options: dict[str, Any] = Field(default_factory=dict)
    kind: Literal["isomorphic", "broken-isomorphism"] = "isomorphic"
    outputs: Annotated[int, Field(ge=2)] = 128
    epochs: Annotated[int, Field(ge=1)] = 10
    steps: Annotated[int, Field(ge=1)] | None = None
    rate: Annotated[float, Field(gt=0, le=1)] = 5e-3
    batch: Annotated[int, Field(ge=4, le=5000)] | None = None
    recapture: Literal["never", "epoch", "batch"] = "batch"
    record_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip_rms: Annotated[float, Field(gt=0)] = 4.0
    window_sigmas: Annotated[float, Field(gt=0)] | None = None
    program_every: Annotated[int, Field(ge=1)] = 1
    write_threshold: Annotated[float, Field(ge=0, lt=2)] = 0.0
    write_step: Annotated[float, Field(gt=0, le=1)] | None = None
    mask_constant: bool = False
    feature_copies: Annotated[int, Field(ge=1, le=16)] = 1
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, given: Any) -> Any:
        """A configuration is copied into every run folder."""
        if isinstance(given, dict):
            tables = (given.get("options"), given.get("twin_options"))
            names = {str(n).lower() for t in tables if isinstance(t, dict) for n in t}
            places = (str(given.get("backend", "")), str(given.get("twin", "")))
            if any(map(holds_secret, places)) or names & {"token", "password", "secret"}:
                raise PydanticCustomError(
                    SECRET,
                    "a configuration holds no token and no password (not quoted here). Put it "
                    'into an environment variable and name that: token_env = "VARIABLE"',
                )
        return given


class ReadoutTable(_Table):
    """The linear classifier on the measured features."""

    epochs: Annotated[int, Field(ge=1)] = 8
    rate: Annotated[float, Field(gt=0, le=1)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5


class ReferencesTable(_Table):
    """Learning rates of the rivals. Rates get as many trials as PIB's
    (`pib-twin tune`); PIB's own loss settings had further trials (docs/results.md).
    converged_epochs: a second, long backpropagation run, none if absent."""

    backprop_rate: Annotated[float, Field(gt=0, le=1)] = 3e-3
    local_cross_entropy_rate: Annotated[float, Field(gt=0, le=1)] = 3e-3
    converged_epochs: Annotated[int, Field(ge=1)] | None = None


class CompareTable(_Table):
    """How methods are compared: set by the axes and trials of a comparison.

    passes_per_image: ceiling of physical passes per training image before the
    test, all units together, everything counted; none if absent. rate, batch,
    dropout (on the readings a digital layer learns from): of the method that is
    trained, tuned for each. twin: of the methods that look into one: known up to
    twin_error (of its own r.m.s. size), unknown (another device's), or fitted
    from twin_probes passes. units: instead of those listed, the last one repeated
    as often as needed. held_out_class: neither trained nor validated with. strange:
    also judge how well strange images are told from known ones. adapt_passes: per
    training image, warm start, after the dials turned for the test. speckle_correlation: of
    every optical medium between training and test.
    """

    passes_per_image: Annotated[float, Field(gt=0)] | None = None
    rate: Annotated[float, Field(gt=0, le=1)] = 3e-3
    batch: Annotated[int, Field(ge=4, le=5000)] = 250
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    twin: Literal["known", "unknown", "fitted"] = "known"
    twin_error: Annotated[float, Field(ge=0, le=10)] = 0.0
    twin_probes: Annotated[int, Field(ge=1)] = 4000
    units: Annotated[int, Field(ge=1, le=8)] | None = None
    held_out_class: Annotated[int, Field(ge=0)] | None = None
    strange: bool = False
    adapt_passes: Annotated[float, Field(gt=0)] | None = None
    speckle_correlation: Annotated[float, Field(gt=0, le=1)] = 1.0


class QuickTable(_Table):
    """What --quick changes: fewer images and epochs (or steps), and its own bound."""

    limit: Annotated[int, Field(ge=20)] | None = None
    epochs: Annotated[int, Field(ge=1)] = 2
    steps: Annotated[int, Field(ge=1)] | None = None
    accuracy_bound: Annotated[float, Field(ge=0, le=1)] | None = None


class RunConfig(_Table):
    """Everything a training run depends on besides its seed."""

    about: str = ""
    data: DataTable = DataTable()
    augment: AugmentTable = AugmentTable()
    objective: ObjectiveTable = ObjectiveTable()
    unsupervised: UnsupervisedTable | None = None
    network: NetworkTable = NetworkTable()
    training: TrainingTable = TrainingTable()
    unit: Annotated[tuple[UnitTable, ...], Field(min_length=1)]
    readout: ReadoutTable = ReadoutTable()
    references: ReferencesTable = ReferencesTable()
    compare: CompareTable = CompareTable()
    quick: QuickTable = QuickTable()
    bounds: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Figure name to bound, e.g. accuracy = ">= 0.982": per data set for means
    over seeds, "folds" for means over folds, "single" for one run."""

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        for index, unit in enumerate(self.unit):
            if unit.kind == "isomorphic" and unit.record_dropout:
                raise ValueError(f"unit.{index}.record_dropout is for broken-isomorphism units")
            if unit.kind == "isomorphic" and unit.feature_copies > 1:
                raise ValueError(f"unit.{index}.feature_copies is for broken-isomorphism units")
            chip = (unit.program_every, unit.write_threshold, unit.write_step, unit.window_sigmas)
            if unit.kind != "isomorphic" and chip != (1, 0.0, None, None):
                raise ValueError(
                    f"unit.{index}: program_every, write_threshold, write_step and "
                    "window_sigmas are for isomorphic units"
                )
        if self.unsupervised is not None:
            self._consistent_without_labels(self.unsupervised)
        return self

    def _consistent_without_labels(self, table: UnsupervisedTable) -> None:
        if self.network.hard_examples:
            raise ValueError("network.hard_examples looks at labels; set it to false")
        if self.objective.sigma_end is not None:
            raise ValueError("objective.sigma_end is for training with labels; leave it out")
        same_image = table.target in (Target.INSTANCES, Target.TWO_VIEWS)
        if same_image and self.augment == AugmentTable():
            raise ValueError(
                f"unsupervised.target = {str(table.target)!r} without augmentation shows views "
                "that differ by read noise only; give [augment], or target = 'neighbours'"
            )
        shown = table.instances * table.views
        for index, unit in enumerate(self.unit):
            if table.target is not Target.CLUSTERS and unit.batch is not None:
                raise ValueError(
                    f"unit.{index}.batch is not used by target {str(table.target)!r}, whose "
                    "batch is instances x views; set those, and leave it out"
                )
            for batch in (shown, unit.batch or shown):
                if table.target is Target.CLUSTERS and table.clusters > batch:
                    raise ValueError(
                        f"unit.{index}: a batch of {batch} cannot hold every one of "
                        f"{table.clusters} clusters; lower unsupervised.clusters, or raise "
                        "instances x views and unit.batch"
                    )


def simulated(config: RunConfig) -> RunConfig:
    """The same network with every unit on its twin instead of its device.

    Raises ConfigError naming the units that have none.
    """
    missing = [f"unit {i} ({u.backend})" for i, u in enumerate(config.unit, 1) if not u.twin]
    if missing:
        raise ConfigError(
            f'--simulated: no twin is named for {", ".join(missing)}. Give each unit twin = "NAME" '
            "(and twin_options), a simulated backend; see `pib-twin backends`."
        )
    units = tuple(
        u.model_copy(update={"backend": u.twin, "options": u.twin_options}) for u in config.unit
    )
    return config.model_copy(update={"unit": units})


def presets() -> list[str]:
    """Names of the shipped presets."""
    folder = resources.files("validation") / "presets"
    return sorted(
        p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")
    )


def preset_text(name: str) -> str:
    """The TOML of a shipped preset, to be read and copied. UnknownName with the nearest."""
    if name not in presets():
        raise UnknownName(f"no preset is called {name!r}. {nearest(name, presets())}")
    return (resources.files("validation") / "presets" / f"{name}.toml").read_text()


def load_config(preset_or_path: str) -> RunConfig:
    """A shipped preset by name, or a TOML file by path.

    Raises UnknownName with the nearest preset, ConfigError for bad contents.
    """
    path = Path(preset_or_path)
    if path.suffix == ".toml" or path.exists():
        if not path.is_file():
            raise ConfigError(
                f"no configuration file {path}. Give a TOML file or a preset; "
                "`pib-twin presets` lists them, `pib-twin presets NAME` prints one to start from."
            )
        return parse_config(read_text(path), str(path))
    if preset_or_path not in presets():
        hint = nearest(preset_or_path, presets())
        raise UnknownName(f"no preset or file is called {preset_or_path!r}. {hint}")
    return parse_config(preset_text(preset_or_path), preset_or_path)


def parse_config(text: str, where: str) -> RunConfig:
    """A configuration from TOML text; `where` names it in errors."""
    return build(RunConfig, parse_toml(text, where), where)


def parse_config_json(text: str, where: str) -> RunConfig:
    """A configuration as a run folder keeps it."""
    try:
        return build(RunConfig, json.loads(text), where)
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where}: not valid JSON: {error}.") from None
