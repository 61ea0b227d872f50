"""What a site is told to do, as a file that its process reads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pib.plan import Plan
from twin.errors import DataError
from validation.config import RunConfig, parse_config_json
from validation.experiment import build_plans
from validation.sites.publication import Code

Role = Literal["upstream", "downstream"]
ROLES: tuple[Role, Role] = ("upstream", "downstream")
ORDER = "order.json"
CHECKPOINT = "checkpoint"
PROGRESS = "progress.json"


@dataclass(frozen=True, kw_only=True)
class Order:
    """One site's work. All sites of a run share everything but the role.

    config: the network's, as JSON. folder: of the whole run; data: with IDX
    files. publications: how often the upstream site publishes all its features,
    beside once at its first step (ours: 3, 12 and 48 gave equal accuracy on
    Fashion-MNIST within the error of one seed, so few; bytes grow in proportion). code: of a
    publication. silence: an alarm, not a limit: after so many times the expected
    interval without news, in its own steps, the downstream site says one line
    and goes on with what it has (it never waits). keep: publications kept, None
    for all. checkpoint_s: seconds between checkpoints.
    """

    role: Role
    config: str
    seed: int
    folder: Path
    data: Path | None = None
    publications: int = 6
    code: Code = "uint8"
    silence: float = 3.0
    keep: int | None = 2
    checkpoint_s: float = 5.0

    @property
    def index(self) -> int:
        """Of the site's unit."""
        return ROLES.index(self.role)

    @property
    def own(self) -> Path:
        """Where this site keeps its checkpoint, progress and log."""
        return self.folder / self.role

    @property
    def post(self) -> Path:
        """Where the upstream site publishes."""
        return self.folder / "post"

    def run_config(self) -> RunConfig:
        return parse_config_json(self.config, f"{self.folder}")

    def plan(self) -> Plan:
        """How this site's unit is trained.

        Ours: the downstream site stores what was published (it cannot measure
        the unit before it anew) and weighs its examples itself, since what it
        weighs them by changes.
        """
        config = self.run_config()
        plan = build_plans(config)[self.index]
        return replace(plan, recapture="never", hard_offset=None) if self.index else plan

    def text(self) -> str:
        """As JSON, with sorted names."""
        plain = asdict(self)
        plain |= {n: None if plain[n] is None else str(plain[n]) for n in ("folder", "data")}
        return json.dumps(plain, indent=1, sort_keys=True)


def read(path: Path) -> Order:
    """The order in the file; DataError if it is none."""
    try:
        plain = json.loads(path.read_bytes())
        plain |= {n: None if plain[n] is None else Path(plain[n]) for n in ("folder", "data")}
        return Order(**plain)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not an order for a site: {error}.") from None
