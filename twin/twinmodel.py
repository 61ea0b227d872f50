"""What a twin can be fitted as: named, bounded parameters and a law that predicts readings.

Substrates implement `TwinModel`; `twin.calibrate` knows nothing else of them.
Readings are in units of the port's nominal full scale, drives and settings in
those of their ports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from twin.backend import Capabilities
from twin.errors import ConfigError
from twin.key import Key
from twin.observations import Observations

Floats = npt.NDArray[np.float64]
Arrays = Mapping[str, Floats]

NORMAL_95 = 1.959963984540054
"""Half width of a 95 % interval of a normal law, in standard errors."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One quantity of a twin: its unit, bounds (both included) and shape, () for a number."""

    name: str
    unit: str
    low: float
    high: float
    shape: tuple[int, ...] = ()
    about: str = ""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(
                f"parameter {self.name!r}: expected low < high, got {self.low:g} and "
                f"{self.high:g} {self.unit}. Widen the bounds."
            )


class Direction(NamedTuple):
    """A combination of parameters that the recording cannot tell from zero change.

    weights: share of each parameter, by name, of a vector of length one in scaled
    parameters. why: in words.
    """

    weights: Mapping[str, float]
    why: str

    def __str__(self) -> str:
        parts = " ".join(f"{share:+.2f} {name}" for name, share in self.weights.items())
        return f"{parts}: {self.why}"


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """What a model found in a recording.

    values: every parameter of the model, by name. errors: standard errors of those
    that were measured, same shapes; NaN where an entry was not. covariance: of groups
    of scalar parameters that were fitted together, by the tuple of their names.
    unidentified: what the recording leaves open. flags: indices of what looks broken.
    """

    values: Arrays
    errors: Arrays
    covariance: Mapping[tuple[str, ...], Floats] = field(default_factory=dict)
    unidentified: tuple[Direction, ...] = ()
    flags: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Prediction(NamedTuple):
    """mean: (n, outputs). variance: of one shot about it, rounding to codes included."""

    mean: Floats
    variance: Floats


def same_ports(one: Capabilities, other: Capabilities) -> bool:
    """Whether drives, settings and the first reading agree in every field."""
    return (one.drives, one.settings, one.readings[:1]) == (
        other.drives, other.settings, other.readings[:1]
    )  # fmt: skip


class TwinModel(Protocol):
    """A law with named parameters, for one kind of device.

    kind: its name in files. capabilities: of the device it was made for, whose ports give
    its units. parameters: what is fitted. estimate: from readings to parameters, by the
    solvers of `twin.solving`. held: the state of the recorded device right after its last
    write, and held_age_s: seconds since then at which it was left (0 where nothing is
    written). written: the state after a setting is programmed. predict: what a state reads
    for drives (n, inputs), age_s seconds after the write.
    """

    @property
    def kind(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def parameters(self) -> tuple[Parameter, ...]: ...

    def estimate(self, seen: Observations, *, key: Key) -> Estimates: ...

    def held(self, values: Arrays) -> Arrays: ...

    def held_age_s(self, values: Arrays) -> float: ...

    def written(self, values: Arrays, setting: Floats, *, key: Key) -> Arrays: ...

    def predict(
        self, values: Arrays, drive: Floats, state: Arrays, age_s: Floats | float = 0.0
    ) -> Prediction: ...
