"""Backends that Hypothesis builds: one arithmetic, several kinds of graph around it.

All of them compute with the same numpy function, so that two that differ in
machinery only return numbers that are equal to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from twin.backend import Capabilities, Port, Reading, Values, Written, single
from twin.key import Key

Machinery = Literal["numpy", "graph", "poisoned", "leaking"]
MACHINERIES: tuple[Machinery, ...] = ("numpy", "graph", "poisoned", "leaking")
LIMIT = 50.0


@dataclass(frozen=True, kw_only=True)
class Physics:
    """What a generated backend computes: curve(gain x W + noise), within +-LIMIT.

    disturb: the gain falls by this fraction with every sample that passed, so
    the backend has a state. noise: r.m.s. of what the key draws per sample.
    programmable: else W is fixed, drawn from seed, and `outputs` wide.
    """

    inputs: int
    outputs: int
    curve: Literal["linear", "tanh", "square"]
    gain: float
    disturb: float
    noise: float
    seed: int
    programmable: bool = True

    def answer(self, x: np.ndarray, weights: np.ndarray, passed: int, noise: np.ndarray) -> Any:
        """(batch, outputs) float32 for a drive (batch, inputs)."""
        gain = np.float32(self.gain / (1 + self.disturb * passed))
        a = gain * (x @ weights) + noise
        bent = {"linear": a, "tanh": np.tanh(a), "square": a * np.abs(a)}[self.curve]
        return bent.clip(-LIMIT, LIMIT).astype(np.float32)

    def slope(self, x: np.ndarray, weights: np.ndarray, passed: int) -> Any:
        """d answer / d (x W), (batch, outputs), noise aside."""
        gain = np.float32(self.gain / (1 + self.disturb * passed))
        a = gain * (x @ weights)
        bent = {"linear": np.ones_like(a), "tanh": 1 - np.tanh(a) ** 2, "square": 2 * np.abs(a)}
        return (gain * bent[self.curve]).astype(np.float32)


def physics(**fixed: Any) -> st.SearchStrategy[Physics]:
    """Any backend; `fixed` pins some of its properties."""
    drawn: dict[str, st.SearchStrategy[Any]] = {
        "inputs": st.integers(3, 8),
        "outputs": st.integers(2, 6),
        "curve": st.sampled_from(["linear", "tanh", "square"]),
        "gain": st.floats(0.25, 2, width=32),
        "disturb": st.sampled_from([0.0, 1e-3]),
        "noise": st.sampled_from([0.0, 0.05]),
        "seed": st.integers(0, 2**32),
        "programmable": st.booleans(),
    }
    return st.builds(Physics, **(drawn | {name: st.just(value) for name, value in fixed.items()}))


class Made:
    """A backend of some physics and machinery; notes what it saw of the process."""

    def __init__(self, law: Physics, machinery: Machinery) -> None:
        self.law, self.machinery = law, machinery
        shape = (law.inputs, law.outputs)
        weights = torch.randn(shape, generator=Key(law.seed).torch())
        self.weights = weights.requires_grad_(machinery != "numpy")
        self.settings: list[Tensor] = []
        self.grad_modes: list[bool] = []
        self.passed = self._version = 0
        self._leaks: list[Tensor] = []
        settings = (Port(name="w", shape=shape, low=-1.0),) if law.programmable else ()
        self.capabilities = Capabilities(
            # The same for all machineries: nobody may tell them apart by name.
            device_id=f"made-{law.seed}",
            drives=(Port(name="in", shape=(law.inputs,)),),
            settings=settings,
            readings=(Port(name="out", shape=(law.outputs,), low=-LIMIT, high=LIMIT),),
            seedable=True,
            deterministic=law.noise == 0,
        )

    def program(self, setting: Values, *, key: Key) -> Written:
        self.grad_modes.append(torch.is_grad_enabled())
        self._version += 1
        value = single(setting, self.capabilities.settings[0])
        self.settings.append(value.detach().clone())
        self.weights = value.detach().clone().requires_grad_(self.machinery != "numpy")
        return Written(state_version=self._version, cells=value.numel())

    def forward(
        self, drive: Values, *, key: Key, first_sample: int = 0, shots: int | None = None
    ) -> Reading:
        self.grad_modes.append(torch.is_grad_enabled())
        x = single(drive, self.capabilities.drives[0])
        noise = self._noise(key, first_sample, len(x))
        if self.machinery == "numpy":
            y = torch.from_numpy(
                self.law.answer(x.numpy(), self.weights.numpy(), self.passed, noise)
            )
        else:
            y = self._with_graph(x, noise)
        self.passed += len(x)
        return Reading(codes=y, state_version=self._version)

    def close(self) -> None:
        """Nothing to make safe."""

    def _with_graph(self, x: Tensor, noise: np.ndarray) -> Tensor:
        kind = _Poisoned if self.machinery == "poisoned" else _Product
        with torch.enable_grad():
            if self.machinery == "leaking":
                # Also what came in: whoever uses it later would carry a graph.
                x.requires_grad_(True)
                self._leaks.append(x)
            y = kind.apply(x, self.weights, self.law, self.passed, noise)
        if self.machinery == "leaking":
            self._leaks.append(y)
        return y

    def _noise(self, key: Key, first_sample: int, batch: int) -> np.ndarray:
        shape = (batch, self.law.outputs)
        if self.law.noise == 0:
            return np.zeros(shape, np.float32)
        streams = [key.child("sample", first_sample + b).numpy() for b in range(batch)]
        draws = [stream.standard_normal(self.law.outputs) for stream in streams]
        return (self.law.noise * np.stack(draws)).astype(np.float32)


class _Product(torch.autograd.Function):
    """The numpy arithmetic with a true gradient of drive and setting."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, law: Physics, passed: int, noise: np.ndarray
    ) -> Tensor:
        x, weights = x.detach(), weights.detach()
        ctx.save_for_backward(x, weights)
        ctx.law, ctx.passed = law, passed
        return torch.from_numpy(law.answer(x.numpy(), weights.numpy(), passed, noise))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weights = ctx.saved_tensors
        slope = ctx.law.slope(x.detach().numpy(), weights.detach().numpy(), ctx.passed)
        delta = gradients[0] * torch.from_numpy(slope)
        return delta @ weights.T, x.T @ delta, None, None, None


class Poison(RuntimeError):
    """Somebody asked the physics for a gradient."""


class _Poisoned(_Product):
    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise Poison("the gradient of a physical backend was asked for")
