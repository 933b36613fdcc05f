"""Label by the critic of a Stable-Baselines3 SAC checkpoint (`sac`), read without unpickling, and by CPL's score."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from entropilot.control.segments.types import Segments
from entropilot.errors import UserError

Layer = tuple[np.ndarray, np.ndarray]  # weight (out, in), bias (out,)

_LARGEST = 256 * 2**20  # bytes of policy.pth; two hidden layers of 256 need 1.5 MB
_LARGEST_TEXT = 16 * 2**20
_WIDEST, _MOST = 8192, 1000  # units of a layer, tensors
_ROWS = 4096  # of states and sampled actions at once
_LOG_STD = (-20.0, 2.0)  # sb3 clamps so before the squash
_SQUASH_EPSILON = 1e-6  # sb3's in log(1 − a²)


def _mlp(layers: list[Layer], x: np.ndarray, last: bool = True) -> np.ndarray:
    for i, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias
        if not (last and i == len(layers) - 1):
            x = np.maximum(x, 0.0)
    return x


@dataclass(frozen=True)
class Critic:
    """Hold a soft actor-critic: MLPs with ReLU, π a Gaussian squashed by tanh into [−1, 1], all in float64.

    Attributes:
        hidden: the actor's hidden layers; mean, log_std: its heads.
        critics: the layers of each Q(s, a), which reads states and actions side by side.
    """

    hidden: list[Layer]
    mean: Layer
    log_std: Layer
    critics: list[list[Layer]]

    @property
    def sizes(self) -> tuple[int, int]:
        """Numbers of a state and of an action."""
        return (self.hidden or [self.mean])[0][0].shape[1], len(self.mean[1])

    def gaussian(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and log std before the squash, (n, action) each."""
        x = _mlp(self.hidden, states, last=False)
        return _mlp([self.mean], x), np.clip(_mlp([self.log_std], x), *_LOG_STD)

    def q(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return every critic's Q(s, a), (critics, n); actions in [−1, 1]."""
        both = np.concatenate([states, actions], -1)
        return np.stack([_mlp(layers, both)[:, 0] for layers in self.critics])

    def value(
        self,
        states: np.ndarray,
        samples: int = 64,
        seed: int = 0,
        ensemble: Literal["mean", "min"] = "mean",
        alpha: float = 0.0,
    ) -> np.ndarray:
        """Return V(s) = E_{a~π}[Q(s, a) − α log π(a|s)] by sampling, (n,), from states (n, state).

        Args:
            samples: actions a state; their normal draws come from one generator, state by state.
            ensemble: Q is the mean of the critics, which CPL's script takes, or the least, which SAC learns from.
            alpha: SAC's temperature. CPL's label holds no entropy, so 0.

        Raises:
            UserError: states of another size, or the value overflows.
        """
        if states.shape[1:] != self.sizes[:1]:
            raise UserError(
                f"The critic reads states of {self.sizes[0]} numbers, these have {states.shape[-1]}; "
                "train SAC on the states that control collect stores."
            )
        rng = np.random.default_rng(seed)
        at_once, found = max(1, _ROWS // samples), [np.zeros(0)]
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
            for at in range(0, len(states), at_once):
                part = states[at : at + at_once]
                mean, log_std = (x[:, None] for x in self.gaussian(part))
                noise = rng.standard_normal((len(part), samples, self.sizes[1]))
                actions = np.tanh(mean + np.exp(log_std) * noise)
                q = self.q(np.repeat(part, samples, 0), actions.reshape(-1, self.sizes[1]))
                value = (q.min(0) if ensemble == "min" else q.mean(0)).reshape(len(part), samples)
                if alpha:
                    logp = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
                    value = value - alpha * (logp - np.log(1 - actions**2 + _SQUASH_EPSILON)).sum(-1)
                found.append(value.mean(1))
        value = np.concatenate(found)
        if not np.isfinite(value).all():
            raise UserError("The critic's values are not finite; its weights or the states are too large.")
        return value


def critic_scores(
    segments: Segments,
    critic: Critic,
    samples: int = 64,
    seed: int = 0,
    ensemble: Literal["mean", "min"] = "mean",
    reward_scale: float = 1.0,
) -> np.ndarray:
    """Return Σ_{t<T−1} r_t + V(s_{T−1}) − V(s_0) a segment, (n,), as CPL's public code labels (its `rl_sum`).

    The sum is not discounted, though V is: so it is there. Rewards are those stored times `reward_scale`, which has to
    bring them to the scale that the critic learned: 0.1 if it was trained on reward/10.

    Raises:
        UserError: the critic is of other sizes than the segments, or the scale is not positive.
    """
    if not 0 < reward_scale < np.inf:
        raise UserError(f"The reward scale is {reward_scale}; give a positive number, such as 0.1.")
    if segments.actions.shape[-1] != critic.sizes[1]:
        raise UserError(
            f"The critic's policy has {critic.sizes[1]} actions, the segments have {segments.actions.shape[-1]}; "
            "give a critic of this task."
        )
    n, steps = segments.rewards.shape
    last = segments.lengths - 1
    before = np.arange(steps) < last[:, None]
    ends = np.concatenate([segments.states[:, 0], segments.states[np.arange(n), last]])
    first, final = critic.value(ends, samples, seed, ensemble).reshape(2, n)
    return reward_scale * np.where(before, segments.rewards, 0.0).sum(1, dtype=np.float64) + final - first


def load_critic(path: str | Path) -> Critic:
    """Read what Stable-Baselines3's `SAC.save` wrote, with MLPs and ReLU, which are its defaults.

    Nothing is unpickled: the weights come from policy.pth by torch's weights-only reader, layer sizes from their shapes,
    the name of the activation from the text in `data`.

    Raises:
        UserError: it can't be read, is no such file, or holds another policy.
    """
    try:
        state = _read(Path(path))
    except UserError as error:
        raise UserError(f"{path} {error}") from error
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UserError(f"{path} can't be read ({error.strerror}); give what SAC.save wrote.") from error
    except (
        Exception
    ) as error:  # torn and hostile files make zipfile, zlib, json and torch raise a dozen kinds
        raise UserError(f"{path} is no model that SAC.save wrote, or a torn one.") from error
    return _critic(state, path)


def _read(path: Path) -> dict[str, np.ndarray]:
    import torch

    with zipfile.ZipFile(path) as file:
        names = file.namelist()
        if "policy.pth" not in names:
            raise UserError("holds no SAC model: policy.pth is missing; give what SAC.save wrote.")
        for name, most in (("policy.pth", _LARGEST), ("data", _LARGEST_TEXT)):
            if name in names and file.getinfo(name).file_size > most:
                raise UserError(f"holds a {name} of more than {most // 2**20} MB; SAC's is smaller.")
        content, text = file.read("policy.pth"), file.read("data") if "data" in names else b"{}"
    activation = str((json.loads(text).get("policy_kwargs") or {}).get("activation_fn", "ReLU"))
    if activation.rstrip("'>").rpartition(".")[2] != "ReLU":
        raise UserError(f"has the activation {activation[:80]}; only ReLU, sb3's default, is read.")
    with zipfile.ZipFile(io.BytesIO(content)) as inner:  # torch's older format is no zip, and unbounded
        if sum(member.file_size for member in inner.infolist()) > _LARGEST:
            raise UserError(f"holds weights of more than {_LARGEST // 2**20} MB; SAC's are smaller.")
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    kept = {name: value for name, value in state.items() if name.startswith(("actor.", "critic."))}
    # Views can claim any size over a storage of a few bytes.
    if len(kept) > _MOST or sum(value.numel() for value in kept.values()) > _LARGEST // 4:
        raise UserError("claims more weights than fit into it; give what SAC.save wrote.")
    found = {name: value.detach().to(torch.float64).numpy() for name, value in kept.items()}
    for name, value in found.items():
        if not np.isfinite(value).all():
            raise UserError(f"has NaN or infinite weights in {name[:80]}; take an earlier checkpoint.")
    return found


def _critic(state: dict[str, np.ndarray], path: str | Path) -> Critic:
    if "actor.log_std" in state:
        raise UserError(f"{path} explores by state-dependent noise; train SAC with use_sde=False.")
    if any("features_extractor" in name for name in state):
        raise UserError(
            f"{path} has a features extractor, such as a CNN; train SAC with MlpPolicy on states."
        )
    no = f"{path} holds no SAC with plain MLPs:"

    def layer(name: str, inputs: int | None) -> Layer:
        try:
            weight, bias = state.pop(f"{name}.weight"), state.pop(f"{name}.bias")
        except KeyError as error:
            raise UserError(f"{no} {error.args[0]} is missing.") from None
        fits = weight.ndim == 2 and bias.shape == weight.shape[:1] and inputs in (None, weight.shape[1])
        if not fits or not weight.size or max(weight.shape) > _WIDEST:
            raise UserError(f"{no} {name} has shapes {weight.shape} and {bias.shape}.")
        return weight, bias

    def mlp(prefix: str, inputs: int | None) -> list[Layer]:
        layers: list[Layer] = []
        while f"{prefix}.{2 * len(layers)}.weight" in state:  # activations lie between
            layers.append(layer(f"{prefix}.{2 * len(layers)}", len(layers[-1][1]) if layers else inputs))
        return layers

    hidden = mlp("actor.latent_pi", None)
    width = len(hidden[-1][1]) if hidden else None
    mean = layer("actor.mu", width)
    log_std = layer("actor.log_std", mean[0].shape[1])
    both = (hidden or [mean])[0][0].shape[1] + len(mean[1])
    critics: list[list[Layer]] = []
    while layers := mlp(f"critic.qf{len(critics)}", both):
        critics.append(layers)
    if not critics or state:
        what = f"{min(state)[:80]} is not part of one" if state else "critic.qf0 is missing"
        raise UserError(f"{no} {what}; train SAC with MlpPolicy as it is.")
    if len(log_std[1]) != len(mean[1]) or any(len(layers[-1][1]) != 1 for layers in critics):
        raise UserError(f"{no} its last layers have other sizes than the actions, or than one Q.")
    return Critic(hidden, mean, log_std, critics)
