"""Gaussian policies in numpy, for workers that need no torch: an MLP with standardised inputs and a tanh mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from entropilot.control.files import read_npz
from entropilot.errors import UserError


@dataclass
class NumpyPolicy:
    """π(a|s) = N(m(s), std²), m an MLP with ReLU and a tanh at the end; the environment clips what is sampled.

    Attributes:
        weights, biases: of each layer; weights are (out, in), as torch has them.
        shift, scale: of the inputs, (state,): x = (s − shift)/scale.
        std: of every action, a number; 0 acts by the mean.
    """

    weights: list[np.ndarray]
    biases: list[np.ndarray]
    shift: np.ndarray
    scale: np.ndarray
    std: float = 0.0
    name: str = "policy"

    def mean(self, state: np.ndarray) -> np.ndarray:
        """Return m(s), (…, action), float32."""
        x = ((state - self.shift) / self.scale).astype(np.float32)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = np.maximum(x @ weight.T + bias, 0.0)
        return np.tanh(x @ self.weights[-1].T + self.biases[-1])

    def with_std(self, std: float) -> NumpyPolicy:
        """Return the same policy with another spread."""
        return NumpyPolicy(self.weights, self.biases, self.shift, self.scale, std, self.name)

    def save(self, path: Path) -> None:
        """Write an npz file."""
        layers = {f"weight_{i}": w for i, w in enumerate(self.weights)}
        layers |= {f"bias_{i}": b for i, b in enumerate(self.biases)}
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:  # a name without .npz is kept as it is
            np.savez(
                file, shift=self.shift, scale=self.scale, std=self.std, name=np.array(self.name), **layers
            )


def load_policy(path: str | Path) -> NumpyPolicy:
    """Read what `NumpyPolicy.save` wrote.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    read = read_npz(path, "policy", ("shift", "scale", "std", "name", "weight_0", "bias_0"))
    layers = range(sum(key.startswith("weight_") for key in read))
    weights, biases = ([read.get(f"{kind}_{i}") for i in layers] for kind in ("weight", "bias"))
    sizes = [read["shift"].shape, *[np.shape(bias) for bias in biases]]
    if [np.shape(weight) for weight in weights] != [
        (*b, *a) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
    ]:
        raise UserError(f"{path} holds no policy: its layers do not fit together.")
    return NumpyPolicy(
        weights,  # type: ignore[arg-type]  # just checked
        biases,  # type: ignore[arg-type]
        read["shift"],
        read["scale"],
        float(read["std"]),
        str(read["name"]),
    )
