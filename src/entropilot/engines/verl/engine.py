"""verl's FSDP engine, with tokens chosen over the optimiser mini-batch before its micro-batches are trained."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id, get_device_name, get_vendor
from verl.workers.engine import EngineRegistry, FSDPEngineWithLMHead
from verl.workers.utils.padding import no_padding_2_padding, response_to_nested

from entropilot.engines.verl.choosing import CHOICE, Choice, MiniBatch, choose
from entropilot.engines.verl.settings import method_of, with_clip
from entropilot.errors import UserError
from entropilot.methods.token_method import Method

SELECTED = "entropilot_selected"  # a field of the mini-batch, which verl cuts together with its own
_FIELDS = ("response_mask", "old_log_probs", "advantages")


class ChoosingEngine(FSDPEngineWithLMHead):
    """`FSDPEngineWithLMHead` that chooses tokens for entropilot's losses; with any other loss it is bit-equal to it.

    The choice is made at the old log-probs (scope `rollout`), which costs no pass, or at those of the current policy
    (scope `update`), which costs one without gradients.
    """

    _scored_at: int | None = None  # version of the weights at the last pass without gradients since an update

    def forward_backward_batch(
        self, data: TensorDict, loss_function: Callable, forward_only: bool = False
    ) -> Any:
        if forward_only:
            self._scored_at = self._version()
            return super().forward_backward_batch(data, loss_function, forward_only)
        fresh, self._scored_at = self._scored_at == self._version(), None
        config = getattr(loss_function, "keywords", {}).get("config")  # a partial of verl's ppo_loss
        method = None if config is None else method_of(config)
        if method is None:
            return super().forward_backward_batch(data, loss_function, forward_only)
        _refuse_single_update(method, fresh, data)
        self._fresh = fresh
        selected, metrics = self._choose(data, with_clip(config, method))
        mask = data["response_mask"]
        data[SELECTED] = response_to_nested(selected, mask) if mask.is_nested else selected
        try:
            output = super().forward_backward_batch(data, loss_function, forward_only)
        finally:
            del data[SELECTED]
        output["metrics"].update({f"actor/{name}": [value] for name, value in metrics.items()})
        return output

    def forward_step(self, micro_batch: TensorDict, loss_function: Callable, forward_only: bool) -> Any:
        if SELECTED not in micro_batch.keys():  # noqa: SIM118  a TensorDict has no other test for a key
            return super().forward_step(micro_batch, loss_function, forward_only)
        selected = micro_batch.select(SELECTED).to_padded_tensor()[SELECTED]
        token = CHOICE.set(Choice(selected.to(get_device_id()).bool(), self._fresh))
        try:
            return super().forward_step(micro_batch, loss_function, forward_only)
        finally:
            CHOICE.reset(token)

    def _choose(self, data: TensorDict, method: Method) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the chosen tokens of this rank's mini-batch, as whole numbers on its device, and what to log."""
        fields = data.select(*_FIELDS).to_padded_tensor()
        mask, old_logp, advantages = (fields[name].to(get_device_id()) for name in _FIELDS)
        logp = old_logp
        if method.scope == "update":
            logp = self._current_logp(data)[:, : mask.shape[1]].to(old_logp)
        groups = tu.get(data, "uid")
        part = MiniBatch(old_logp, logp, advantages, mask, None if groups is None else list(groups))
        selected, metrics = choose(part, method, self._updates(), self.get_data_parallel_group())
        return selected.to(fields["response_mask"]), metrics

    def _current_logp(self, data: TensorDict) -> torch.Tensor:
        """Return log π_θ(a_t) of the mini-batch at the current weights, nats, (b, t): one pass without gradients."""
        training = self.module.training
        self.module.eval()  # no dropout, and so no random numbers are used up
        try:
            with torch.no_grad():
                output = super().forward_backward_batch(data, None, forward_only=True)
        finally:
            self.module.train(training)
        return no_padding_2_padding(output["model_output"]["log_probs"], data)

    def _version(self) -> int:
        """Return a number that changes whenever the weights are written in place, as optimisers and loading do."""
        return sum(parameter._version for parameter in self.module.parameters())

    def _updates(self) -> int:
        """Return how many updates the optimiser has made; a resumed run goes on counting, and all ranks agree."""
        steps = [state["step"] for state in self.optimizer.state.values() if "step" in state]
        return int(steps[0]) if steps else 0


def _refuse_single_update(method: Method, fresh: bool, data: TensorDict) -> None:
    """Refuse a method that acts on stale log-probs where a rollout has a single update.

    Raises:
        UserError: the first update after scoring is the rollout's last.
    """
    if method.needs_stale_logp and fresh and tu.get(data, "update_lr_scheduler", False):
        raise UserError(
            f"{type(method).__name__} needs stale log-probs: with one update per rollout the log-ratio is always 0. Set "
            "actor_rollout_ref.actor.ppo_mini_batch_size to at most half of data.train_batch_size, or "
            "actor_rollout_ref.actor.ppo_epochs to 2 or more."
        )


def register() -> None:
    """Register the engine for verl's strategies fsdp and fsdp2 on this machine's device and vendor.

    verl looks a vendor's engine up before the device's own, so that its class stays as it is for other vendors.
    """
    EngineRegistry.register(
        model_type="language_model",
        backend=["fsdp", "fsdp2"],
        device=os.environ.get("VERL_ENGINE_DEVICE") or get_device_name(),
        vendor=os.environ.get("VERL_ENGINE_VENDOR") or get_vendor(),
    )(ChoosingEngine)
