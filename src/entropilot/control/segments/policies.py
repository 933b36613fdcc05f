"""Gaussian policies in numpy, for workers that need no torch: an MLP with standardised inputs and a tanh mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from entropilot.control.segments.npz import as_kind, read_npz
from entropilot.errors import UserError
from entropilot.files import written_whole


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
        """Write an npz file; an earlier one stays whole until this one is.

        Raises:
            UserError: it can't be written.
        """
        layers = {f"weight_{i}": w for i, w in enumerate(self.weights)}
        layers |= {f"bias_{i}": b for i, b in enumerate(self.biases)}
        with written_whole(path) as file:  # a name without .npz is kept as it is
            np.savez(
                file, shift=self.shift, scale=self.scale, std=self.std, name=np.array(self.name), **layers
            )


def load_policy(path: str | Path, sizes: tuple[int, int] | None = None) -> NumpyPolicy:
    """Read what `NumpyPolicy.save` wrote.

    Args:
        sizes: how many numbers the task's states and actions have.

    Raises:
        UserError: there is no such file, it holds something else, or a policy of other sizes.
    """
    read = read_npz(path, "policy", ("shift", "scale", "std", "name", "weight_0", "bias_0"))
    numbers = [key for key in read if key.startswith(("weight_", "bias_", "shift", "scale", "std"))]
    for key in numbers:
        as_kind(read[key], f"{key} of {path}", "float64")  # refused here; kept in the width it was saved in
    layers = range(sum(key.startswith("weight_") for key in read))
    weights, biases = ([read.get(f"{kind}_{i}") for i in layers] for kind in ("weight", "bias"))
    inputs = [read["shift"].shape, *[np.shape(bias) for bias in biases]]
    fits = [np.shape(weight) for weight in weights] == [
        (*b, *a) for a, b in zip(inputs[:-1], inputs[1:], strict=True)
    ]
    if not fits or any(len(shape) != 1 for shape in inputs) or read["scale"].shape != read["shift"].shape:
        raise UserError(f"{path} holds no policy: its layers do not fit together.")
    std = read["std"]
    finite = all(np.isfinite(read[key]).all() for key in numbers)
    if not finite or std.shape != () or std < 0 or not (read["scale"] > 0).all():
        raise UserError(
            f"{path} holds no policy: every number has to be finite, scale above 0, and std one number of at least 0."
        )
    found = (read["shift"].size, biases[-1].size)  # type: ignore[union-attr]  # just checked
    if sizes is not None and found != sizes:
        raise UserError(
            f"The policy {path} takes {found[0]} numbers and gives {found[1]}, the task has {sizes[0]} numbers a state and "
            f"{sizes[1]} an action; give a policy that was trained on it."
        )
    return NumpyPolicy(
        weights,  # type: ignore[arg-type]  # just checked
        biases,  # type: ignore[arg-type]
        read["shift"],
        read["scale"],
        float(std),
        str(read["name"]),
    )
