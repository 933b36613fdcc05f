"""Train the second phase: SFT on the winners, or CPL and PPL on pairs."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor

from entropilot.control.learning.phase import Data, Phase
from entropilot.control.learning.settings import TrainSettings
from entropilot.control.segments.actor import STD, Actor, action_logp
from entropilot.maths.gaussian import gaussian_logp
from entropilot.methods.cpl import CPL
from entropilot.methods.imitation import imitation_loss
from entropilot.methods.ppl import PPL, dirac_label, gaussian_label, sampled_label

Label = Literal["gaussian", "sampled", "dirac"]


class Winners(Phase):
    """SFT: imitate segments as often as they were preferred."""

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        data = self.data
        rows = torch.multinomial(data.wins, 2 * self.settings.batch, True, generator=self.generator)
        logp = action_logp(self.actor(data.inputs[rows]), data.actions[rows])
        return imitation_loss(logp, data.mask[rows]), {}


class Comparison(Phase):
    """Base of the methods that give each segment a score and explain the pairs by its differences."""

    def __init__(self, actor: Actor, data: Data, settings: TrainSettings, method: CPL | PPL) -> None:
        super().__init__(actor, data, settings)
        self.method = method

    @abstractmethod
    def score(self, rows: Tensor) -> Tensor:
        """Return the score S of segments, (b,)."""

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        data, batch = self.data, self.settings.batch
        pairs = torch.randint(len(data.first), (batch,), generator=self.generator)
        score_1, score_2 = self.score(torch.cat([data.first[pairs], data.second[pairs]])).split(batch)
        preferred = data.preferred[pairs]
        right = ((score_1 > score_2) == (preferred > 0.5)).float().mean()
        return self.method.loss(score_1, score_2, preferred).mean(), {"ranked_right": right.detach()}


class Contrastive(Comparison):
    """CPL, and with a reference (the clone) CPL-KL and DPO on segments."""

    def __init__(self, actor: Actor, data: Data, settings: TrainSettings, method: CPL) -> None:
        super().__init__(actor, data, settings, method)
        self.method: CPL = method
        self.reference: Tensor | None = None
        if method.against_reference:
            with torch.no_grad():
                self.reference = action_logp(actor(data.inputs), data.actions)

    def score(self, rows: Tensor) -> Tensor:
        logp = action_logp(self.actor(self.data.inputs[rows]), self.data.actions[rows])
        reference = None if self.reference is None else self.reference[rows]
        return self.method.score(logp, self.data.mask[rows], reference)

    def state(self) -> dict[str, Any]:
        return super().state() | {"reference": self.reference}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.reference = state["reference"]


class Regret(Comparison):
    """PPL, by what stands for the author's policy.

    Args:
        label: `gaussian` takes the KL to the author's mean and std, `sampled` its estimate from the one action taken,
            `dirac` the action itself, where the author is unknown.
    """

    def __init__(
        self, actor: Actor, data: Data, settings: TrainSettings, method: PPL, label: Label = "gaussian"
    ) -> None:
        super().__init__(actor, data, settings, method)
        self.method: PPL = method
        self.label = label
        self.weights = method.weights(data.mask, torch.float32)
        self.std = torch.full((data.actions.shape[-1],), STD)
        if label == "sampled":
            # log π_b(a) in the convention of `action_logp`, that is plus (d/2)·log π, (n, t).
            constant = 0.5 * data.actions.shape[-1] * math.log(math.pi)
            self.author_logp = gaussian_logp(data.actions, data.mean_b, data.std_b) + constant

    def score(self, rows: Tensor) -> Tensor:
        mean, mask = self.actor(self.data.inputs[rows]), self.data.mask[rows]
        logp = action_logp(mean, self.data.actions[rows])
        return self.method.score(logp, self._kl(rows, mean, logp), mask, self.weights[rows])

    def _kl(self, rows: Tensor, mean: Tensor, logp: Tensor) -> Tensor:
        data, constant = self.data, self.method.constant
        if self.label == "dirac":
            return dirac_label(logp)
        if self.label == "sampled":
            return sampled_label(self.author_logp[rows], logp, constant)
        kl = gaussian_label(data.mean_b[rows], data.std_b[rows], mean, self.std.expand_as(mean), constant)
        if constant == "drop":
            # −E_b[log π_θ] in the convention of `action_logp`, as the other labels and log π_θ itself are.
            kl = kl - 0.5 * mean.shape[-1] * math.log(math.pi)
        return kl
