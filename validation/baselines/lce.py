"""Local cross-entropy: PIB's closest control, as an objective of the trainer.

The same greedy schedule, drives and physical passes; the information loss is
replaced by the cross-entropy of a linear softmax head on the unit's features,
trained along with the unit and thrown away afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pib.objective import START, Moment, Verdict
from twin.key import Key


class LocalCrossEntropy:
    """Mean cross-entropy, nats, of a throw-away head on scaled features.

    The features are divided by their r.m.s. value before the head, so that one
    head rate fits every unit; the head starts at zero and follows Adam at
    the unit's rate.
    """

    def __init__(self) -> None:
        self._layer: dict[str, Tensor] = {}
        self._optimiser: torch.optim.Adam | None = None

    def begin(self, width: int, classes: int, key: Key) -> None:
        self._layer = {"weight": torch.zeros(width, classes), "bias": torch.zeros(classes)}
        self._optimiser = torch.optim.Adam(list(self._layer.values()), fused=True)

    def verdict(
        self,
        features: Tensor,
        labels: Tensor,
        inputs: Tensor | None,
        moment: Moment = START,
    ) -> Verdict:
        """Loss and gradient for features (n, d); then one step of the head."""
        verdict, scaled, error = self._judged(features, labels)
        assert self._optimiser is not None
        self._layer["weight"].grad, self._layer["bias"].grad = scaled.T @ error, error.sum(0)
        self._optimiser.param_groups[0]["lr"] = moment.rate
        self._optimiser.step()
        return verdict

    def measure(self, features: Tensor, labels: Tensor, inputs: Tensor | None) -> Verdict:
        """Loss and gradient with the head as it is."""
        return self._judged(features, labels)[0]

    def _judged(self, features: Tensor, labels: Tensor) -> tuple[Verdict, Tensor, Tensor]:
        """The verdict, the scaled features, and d loss / d logits."""
        weight, bias = self._layer["weight"], self._layer["bias"]
        scale = features.square().mean().clamp_min(1e-12).sqrt()
        scaled = features / scale
        log_p = torch.addmm(bias, scaled, weight).log_softmax(1)
        loss = -float(log_p.gather(1, labels[:, None]).mean())
        error = log_p.exp()
        error[torch.arange(len(labels)), labels] -= 1.0
        error /= len(labels)
        at_scaled = error @ weight.T
        # The scale depends on the features too: remove the part along them.
        along = (at_scaled * scaled).sum() / scaled.numel()
        return Verdict(loss=loss, gradient=(at_scaled - scaled * along) / scale), scaled, error

    def state(self) -> dict[str, Tensor]:
        assert self._optimiser is not None
        state = {f"layer.{n}": t for n, t in self._layer.items()}
        for name, tensor in self._layer.items():
            state |= {f"adam.{name}.{n}": v for n, v in self._optimiser.state[tensor].items()}
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        assert self._optimiser is not None
        for name, tensor in self._layer.items():
            tensor.copy_(state[f"layer.{name}"])
            head = f"adam.{name}."
            moments = {n[len(head) :]: v.clone() for n, v in state.items() if n.startswith(head)}
            self._optimiser.state[tensor] = moments
