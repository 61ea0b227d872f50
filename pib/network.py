"""Units in a row. Each passes plain numbers to the next, never a gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pib.unit import Record, Unit, feature
from twin.errors import CheckpointError, ConfigError
from twin.key import Key


@dataclass
class Network:
    """A chain of units with the scales between them.

    skip: a later unit is driven by [feature before it, image], else by the
    feature alone. scales: for each unit, the feature value that is sent as a
    full drive; set once the unit is trained (`calibrate_link`). copies: how
    often the features before it are repeated in each unit's drive: on a
    modulator, what fills few pixels beside a whole image is hardly seen.
    shared_clock: while one device works the others wait, and so age.
    """

    units: Sequence[Unit]
    skip: bool = True
    scales: list[float] = field(default_factory=list)
    copies: Sequence[int] = ()
    shared_clock: bool = False

    def __post_init__(self) -> None:
        if not self.units:
            raise ConfigError("a network needs at least one unit.")
        self.scales = self.scales or [1.0] * len(self.units)
        self.copies = self.copies or [1] * len(self.units)

    def drive(self, index: int, images: Tensor, before: Tensor | None) -> Tensor:
        """The drive of unit `index`, within [0, 1].

        images: (n, pixels) in [0, 1]; before: (n, width) features of the unit
        before it, None for the first.
        """
        if before is None or index == 0:
            return images
        scaled = (before / self.scales[index - 1]).clamp(0.0, 1.0)
        scaled = scaled.repeat(1, self.copies[index])
        return torch.cat([scaled, images], 1) if self.skip else scaled

    def chain(
        self,
        images: Tensor,
        *,
        key: Key,
        until: int | None = None,
        first_sample: int = 0,
        phase: str = "evaluate",
    ) -> Iterator[tuple[Record, Tensor]]:
        """Record and feature of each unit in turn, up to `until` (excluded)."""
        before = None
        for index, unit in enumerate(self.units[:until]):
            record = unit.capture(
                self.drive(index, images, before),
                key=key.child(unit.name),
                first_sample=first_sample,
                phase=phase,
            )
            before = feature(unit, record)
            yield record, before

    def features(
        self,
        images: Tensor,
        *,
        key: Key,
        until: int | None = None,
        phase: str = "evaluate",
        chunk: int = 2048,
    ) -> list[Tensor]:
        """All units' measured features, one (n, width) tensor each."""
        parts: list[list[Tensor]] = []
        for start in range(0, len(images), chunk):
            rows = images[start : start + chunk]
            steps = self.chain(rows, key=key, until=until, first_sample=start, phase=phase)
            parts.append([z for _, z in steps])
        return [torch.cat(column) for column in zip(*parts, strict=True)]

    def catch_up(self) -> None:
        """With a shared clock, let every device wait for what the others took.

        What each has worked and waited is in the ledger, so a resumed run goes
        on alike. Devices that keep wall-clock time age by themselves.
        """
        if not self.shared_clock:
            return
        costs = [unit.fence.ledger.total(unit.name) for unit in self.units]
        now_s = sum(cost.device_seconds for cost in costs)
        for unit, cost in zip(self.units, costs, strict=True):
            behind_s = now_s - cost.device_seconds - cost.waited_seconds
            if behind_s > 0 and unit.fence.capabilities.clock == "virtual":
                unit.fence.wait(behind_s)

    def calibrate_link(self, index: int, features: Tensor, quantile: float = 0.999) -> None:
        """Let the given quantile of a unit's features be a full drive."""
        some = features[features > 0]
        # kthvalue, not torch.quantile, which refuses more than 16 M elements.
        rank = max(1, int(quantile * some.numel()))
        full = float(some.kthvalue(rank).values) if some.numel() else 1.0
        self.scales[index] = full

    def parameters(self) -> dict[str, Tensor]:
        """Every trainable tensor, as "unit.name"."""
        return {f"{u.name}.{n}": p for u in self.units for n, p in u.parameters.items()}

    def state(self) -> dict[str, Tensor]:
        """Parameters and constants of all units and links, cloned."""
        state = {f"parameter.{n}": p.clone() for n, p in self.parameters().items()}
        for unit in self.units:
            state |= {f"constant.{unit.name}.{n}": c for n, c in unit.constants().items()}
        return state | {"scales": torch.tensor(self.scales, dtype=torch.float64)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put parameters and constants back (not what is on the devices).

        Raises CheckpointError, nothing changed, if the shapes are of another network.
        """
        for name, own in self.state().items():
            if name not in state or state[name].shape != own.shape:
                got = tuple(state[name].shape) if name in state else "nothing"
                raise CheckpointError(
                    f"network: {name} has shape {tuple(own.shape)}, the checkpoint has {got}; "
                    "it is of another network."
                )
        for unit in self.units:
            for name, parameter in unit.parameters.items():
                parameter.copy_(state[f"parameter.{unit.name}.{name}"])
            head = f"constant.{unit.name}."
            unit.load_constants({n[len(head) :]: c for n, c in state.items() if n.startswith(head)})
        self.scales = state["scales"].tolist()

    def close(self) -> None:
        """Leave every device safe, also when one of them fails to."""
        failures = []
        for unit in self.units:
            try:
                unit.fence.close()
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]
