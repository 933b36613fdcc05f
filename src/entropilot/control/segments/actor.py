"""Define the policy that is trained: an MLP with standardised inputs, a tanh mean, and a fixed spread."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from entropilot.control.segments.policies import NumpyPolicy

# log N(a; m, ½) = −(m − a)² + const: CPL's −‖m − a‖² is this Gaussian without its normaliser.
STD = math.sqrt(0.5)


class Actor(nn.Module):
    """m(s) = tanh(MLP((s − shift)/scale)), log π(a|s) = −‖m(s) − a‖².

    With `bf16` the hidden layers are multiplied in bfloat16; inputs, the last layer and all weights stay float32.
    """

    def __init__(
        self, state: int, action: int, hidden: tuple[int, ...] = (256, 256), bf16: bool = False
    ) -> None:
        super().__init__()
        sizes = [state, *hidden]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.head = nn.Linear(sizes[-1], action)
        self.bf16 = bf16
        self.register_buffer("shift", torch.zeros(state))
        self.register_buffer("scale", torch.ones(state))
        self.shift: Tensor
        self.scale: Tensor

    def standardise_by(self, states: Tensor) -> None:
        """Take shift and scale from states, (…, state); a component that never moves keeps the scale 1."""
        flat = states.reshape(-1, states.shape[-1])
        spread = flat.std(0)
        self.shift.copy_(flat.mean(0))
        self.scale.copy_(torch.where(spread > 1e-6, spread, 1.0))

    def standardise(self, states: Tensor) -> Tensor:
        """Return (s − shift)/scale, once for a data set."""
        return (states - self.shift) / self.scale

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the mean, (…, action), of states that are standardised already."""
        x = inputs
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            for layer in self.hidden:
                x = torch.relu(layer(x))
        return torch.tanh(self.head(x.float()))

    def to_numpy(self, name: str = "policy") -> NumpyPolicy:
        """Return the deterministic policy for workers."""
        layers = [*self.hidden, self.head]
        return NumpyPolicy(
            [layer.weight.detach().numpy().copy() for layer in layers],
            [layer.bias.detach().numpy().copy() for layer in layers],
            self.shift.numpy().astype(np.float32).copy(),
            self.scale.numpy().astype(np.float32).copy(),
            0.0,
            name,
        )


def action_logp(mean: Tensor, actions: Tensor) -> Tensor:
    """Return −‖m − a‖², (b, t): log N(a; m, ½I) without its normaliser, CPL's convention."""
    return -(mean - actions).square().sum(-1)
