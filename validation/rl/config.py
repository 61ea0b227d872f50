"""Configuration of a reinforced agent: TOML into frozen, checked models."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pib.reinforcement.agent import Recipe
from pib.reinforcement.bottleneck import Bottleneck, Relevance
from pib.reinforcement.training import Schedule
from twin.config import build, parse_toml, read_text
from twin.errors import ConfigError, UnknownName, nearest

FOLDER = "presets/rl"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class UnitTable(_Table):
    """A physical unit with fixed physics and a digital layer of `outputs`
    features. options: the backend's own."""

    backend: str = "optics"
    outputs: Annotated[int, Field(ge=2)] = 64
    options: dict[str, Any] = Field(default_factory=dict)


class LossTable(_Table):
    """Local loss: temporal difference + information_weight x PIB. relevance: what
    stands for Y; input_weight: of I(X;Z) in it; see pib.reinforcement."""

    information_weight: Annotated[float, Field(ge=0, le=100)] = 0.05
    relevance: Literal["adv", "tq", "next"] = "adv"
    input_weight: Annotated[float, Field(ge=0, le=10)] = 0.2
    alpha: Annotated[float, Field(ge=0.3, le=10)] = 2.0
    sigma: Annotated[float, Field(gt=0, le=100)] = 1.0
    follow: Annotated[float, Field(gt=0, le=1)] = 0.01


class ScheduleTable(_Table):
    """See pib.reinforcement.training.Schedule. freeze, stop_when_solved: whether
    the environment's thresholds are used."""

    steps: Annotated[int, Field(ge=1)] = 70_000
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.99
    n_step: Annotated[int, Field(ge=1, le=100)] = 3
    batch: Annotated[int, Field(ge=4, le=4096)] = 64
    rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    rate_end: Annotated[float, Field(ge=0, le=1)] = 1e-4
    rate_steps: Annotated[int, Field(ge=1)] | None = None
    update_every: Annotated[int, Field(ge=1)] = 2
    warm_up: Annotated[int, Field(ge=10)] = 500
    replay: Annotated[int, Field(ge=1000)] = 50_000
    epsilon_end: Annotated[float, Field(ge=0, le=1)] = 0.02
    epsilon_steps: Annotated[int, Field(ge=1)] = 2_500
    freeze: bool = True
    stop_when_solved: bool = True


class AgentConfig(_Table):
    """Everything a reinforced run depends on besides environment and seed."""

    about: str = ""
    loss: LossTable = LossTable()
    schedule: ScheduleTable = ScheduleTable()
    unit: Annotated[tuple[UnitTable, ...], Field(min_length=1)]

    def recipe(self) -> Recipe:
        """The settings of the local losses."""
        table = self.loss.model_dump()
        weight, follow = table.pop("information_weight"), table.pop("follow")
        bottleneck = Bottleneck(**(table | {"relevance": Relevance(table["relevance"])}))
        return Recipe(information_weight=weight, bottleneck=bottleneck, follow=follow)

    def plan(self, freeze_at: float | None, solved_at: float | None) -> Schedule:
        """The schedule with an environment's thresholds, as far as they are used."""
        table = self.schedule.model_dump()
        freeze, stop = table.pop("freeze"), table.pop("stop_when_solved")
        return Schedule(
            **table,
            freeze_at=freeze_at if freeze else None,
            solved_at=solved_at if stop else None,
        )

    def changed(self, **tables: dict[str, Any]) -> AgentConfig:
        """The same with other values, e.g. changed(schedule={"steps": 100})."""
        told = self.model_dump()
        for name, values in tables.items():
            told[name] = told[name] | values
        return build(AgentConfig, told, "changed configuration")


def presets() -> list[str]:
    """Names of the shipped presets of agents."""
    folder = resources.files("validation") / FOLDER
    return sorted(p.name[: -len(".toml")] for p in folder.iterdir() if p.name.endswith(".toml"))


def load_agent(preset_or_path: str) -> AgentConfig:
    """A shipped preset by name, or a TOML file by path.

    Raises UnknownName with the nearest preset, ConfigError for bad contents.
    """
    path = Path(preset_or_path)
    if path.suffix == ".toml" or path.is_file():
        if not path.is_file():
            raise ConfigError(f"no configuration file {path}. Give a preset or a TOML file.")
        return _parsed(read_text(path), str(path))
    if preset_or_path not in presets():
        hint = nearest(preset_or_path, presets())
        raise UnknownName(f"no agent preset or file is called {preset_or_path!r}. {hint}")
    source = resources.files("validation") / FOLDER / f"{preset_or_path}.toml"
    return _parsed(source.read_text(), preset_or_path)


def _parsed(text: str, where: str) -> AgentConfig:
    return build(AgentConfig, parse_toml(text, where), where)
