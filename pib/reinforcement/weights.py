"""Parameters with their optimiser and slow copies, whole in a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pib.local import under
from twin.errors import CheckpointError, ObjectiveError

MAX_NORM = 10.0
"""Longer gradients are shortened to this, over all parameters together."""


class Weights:
    """What one learner owns. name: for errors.

    parameters: changed in place by :meth:`step` (Adam); targets: slow copies,
    by the same names, that :meth:`follow` moves.
    """

    def __init__(self, name: str, parameters: Mapping[str, Tensor]) -> None:
        self.name, self.parameters = name, dict(parameters)
        self.targets = {name: value.clone() for name, value in self.parameters.items()}
        self._optimiser = torch.optim.Adam(list(self.parameters.values()), fused=True)

    def step(self, gradients: Mapping[str, Tensor], rate: float) -> None:
        """One step down `gradients`; ObjectiveError, nothing changed, if not finite."""
        norm = math.hypot(*torch.stack([g.norm() for g in gradients.values()]).tolist())
        if not math.isfinite(norm):
            raise ObjectiveError(
                f"{self.name}: the gradient is not finite; the parameters are unchanged. "
                "Lower the rate or the weight of the information."
            )
        shorter = min(1.0, MAX_NORM / max(norm, 1e-12))
        for name, parameter in self.parameters.items():
            parameter.grad = gradients[name] * shorter
        self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.step()

    def follow(self, share: float) -> None:
        """Move the slow copies by `share` of their distance."""
        for name, target in self.targets.items():
            target.lerp_(self.parameters[name], share)

    def state(self) -> dict[str, Tensor]:
        """Parameters, slow copies and the optimiser's moments, cloned."""
        arrays = {f"parameter.{n}": t.clone() for n, t in self.parameters.items()}
        arrays |= {f"target.{n}": t.clone() for n, t in self.targets.items()}
        for name, parameter in self.parameters.items():
            moments = self._optimiser.state[parameter]
            arrays |= {f"adam.{name}.{n}": t.clone() for n, t in moments.items()}
        return arrays

    def load(self, arrays: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` gave; CheckpointError if of another learner."""
        for kind, own in (("parameter", self.parameters), ("target", self.targets)):
            for name, tensor in own.items():
                found = arrays.get(f"{kind}.{name}")
                if found is None or found.shape != tensor.shape:
                    raise CheckpointError(
                        f"{self.name}: {kind} {name} of shape {tuple(tensor.shape)} is not in the "
                        "checkpoint; it is of another agent."
                    )
                tensor.copy_(found)
        for name, parameter in self.parameters.items():
            # Empty before the first step, and then nothing must be there.
            self._optimiser.state[parameter] = under(arrays, f"adam.{name}.")
