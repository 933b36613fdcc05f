"""One `GRPOTrainer` that takes any covariance method, through four seams of TRL and no copied body.

The seams (pinned by tests/contracts): reward callables; what `_generate_and_score_completions` returns; the
log-prob wrapper `_get_per_token_logps_and_entropies`; the public `compute_loss`.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from entropilot.engines.trl.checks import refuse_early_update_scope, refuse_on_policy, settle_clip
from entropilot.errors import UserError
from entropilot.maths.advantages import Estimator, estimate_advantages, groups_with_signal
from entropilot.maths.covariance import token_covariance
from entropilot.maths.tokens import TokenBatch, masked_mean, token_weights
from entropilot.methods import Method
from entropilot.recording.observer import MicroBatch, Observer, Rollout

# Extra columns of a rollout; TRL shuffles and splits them together with its own.
SELECTED, ELIGIBLE = "entropilot_selected", "entropilot_eligible"


class NonFiniteLossError(RuntimeError):
    """The loss is NaN or infinite; the message names the step and what was not finite."""


@dataclass
class _Pass:
    """What one `compute_loss` call hands to the log-prob wrapper, and gets back."""

    inputs: dict[str, Any]
    batch: TokenBatch | None = None
    selected: Tensor | None = None
    extra: Tensor | None = None


class EntropyGRPOTrainer(GRPOTrainer):
    """TRL's `GRPOTrainer` with a covariance method, another advantage estimator, and an observer.

    All other arguments, attributes and behaviour are `GRPOTrainer`'s; with `method=None`, the estimator "grpo"
    and no observer it is bit-equal to it.

    Args:
        *args: as `GRPOTrainer`.
        method: `KLCov(...)`, `ClipCov(...)` or None. The method's PPO clip is set unless `args.epsilon` or
            `args.epsilon_high` differ from TRL's defaults; the attribute `clip` says which won.
        advantage_estimator: "grpo" (TRL's own), "rloo", "reinforce++" or "reinforce++_baseline".
        observer: is shown every rollout and every training pass (see `entropilot.recording.probe.Probe`).
        **kwargs: as `GRPOTrainer`.

    Raises:
        UserError: settings under which the method cannot act as described.
    """

    def __init__(
        self,
        *args: Any,
        method: Method | None = None,
        advantage_estimator: Estimator = "grpo",
        observer: Observer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        refuse_on_policy(method, self.args)
        refuse_early_update_scope(method, self.args)
        if advantage_estimator != "grpo" and self.multi_objective_aggregation != "sum_then_normalize":
            raise UserError(
                f"advantage_estimator={advantage_estimator!r} needs one reward per completion; "
                "set multi_objective_aggregation to sum_then_normalize."
            )
        names = self.reward_func_names
        if len(set(names)) < len(names):
            raise UserError(
                f"Two reward functions share a name ({', '.join(names)}); give each its own __name__."
            )
        self.method, self.clip = settle_clip(method, self.args)
        if (
            self.clip["source"] == "method"
        ):  # TRL's own attributes carry the clip, the user's args stay untouched
            self.epsilon_low, self.epsilon_high = self.clip["low"], self.clip["high"]
        self.advantage_estimator, self.observer = advantage_estimator, observer
        self._scored: list[tuple[Tensor, Tensor | None]] | None = None
        self._pass: _Pass | None = None
        self._update_choice: dict[int, Tensor] = {}
        self._rollout_began_at = -1

    @property
    def _filtering(self) -> bool:
        return any(getattr(reward, "filters_groups", False) for reward in self.reward_funcs)

    @property
    def _watched(self) -> bool:
        return self.method is not None or self.observer is not None

    # --- seam: the log-prob wrapper -------------------------------------------------------------------------

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        scoring = self._scored is not None and not torch.is_grad_enabled()
        # The old-log-prob pass gives the policy entropy at no extra pass; a reference model has no entropy to give.
        if scoring and not self._scored and model is self.model:
            kwargs["compute_entropy"] = True
        result = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        if scoring and self._scored is not None:
            self._scored.append(result[:2])
        elif self._pass is not None and torch.is_grad_enabled():
            return (self._steer(self._pass, *result[:2]), *result[1:])
        return result

    def _steer(self, current: _Pass, logps: Tensor, entropies: Tensor | None) -> Tensor:
        """Return the log-probs with the gradient of chosen tokens stopped; leave the rest in the current pass."""
        inputs = current.inputs
        stale = inputs.get("old_per_token_logps")
        if stale is None or self.state.global_step == self._rollout_began_at:
            stale = logps.detach()  # first update of a rollout: rounding noise must not become a drift
        batch = current.batch = TokenBatch(
            old_logp=stale,
            logp=logps,
            advantages=inputs["advantages"],
            mask=_loss_mask(inputs),
            entropy=None if entropies is None else entropies.detach(),
        )
        if self.method is None:
            return logps
        if self.method.scope == "rollout":
            current.selected = inputs[SELECTED]
        elif self.method.scope == "update":
            current.selected = self._update_choice[self._step]
        else:
            candidates = replace(batch, mask=_eligible(inputs)).detach()
            part = self._step % self.current_gradient_accumulation_steps
            salt = (self.state.global_step, part, self.accelerator.process_index)
            current.selected = self._choose(candidates, *salt)
        steering = self.method.steer(batch, current.selected)
        current.extra = steering.extra
        return logps if steering.detach is None else torch.where(steering.detach, logps.detach(), logps)

    # --- seam: the rollout ----------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        estimated = self.advantage_estimator != "grpo"
        if not self.model.training or not (self._watched or estimated or self._filtering):
            return super()._generate_and_score_completions(inputs)
        if self.observer is not None:
            self.observer.before_rollout(self)
        began, self._scored = time.perf_counter(), []
        try:
            output = super()._generate_and_score_completions(inputs)
            scored = self._scored
        finally:
            self._scored = None
        seconds = time.perf_counter() - began
        self._rollout_began_at, self._update_choice = self.state.global_step, {}
        count = len(output["advantages"])
        first_row = self.accelerator.process_index * count
        rows = slice(first_row, first_row + count)
        rewards = self._gathered_rewards(count)
        if estimated:
            advantages = estimate_advantages(rewards, self.num_generations, self.advantage_estimator)
            output["advantages"] = advantages[rows].to(output["advantages"])
            self._logs["advantages"].extend(
                advantages.tolist()
            )  # in place of TRL's: the log holds one rollout
        if self._filtering:
            output["advantages"] = output["advantages"].masked_fill(rewards[rows].isnan(), 0.0)
        if not self._watched:
            return output
        output[ELIGIBLE] = groups_with_signal(rewards, self.num_generations)[rows]
        if self.method is not None and self.method.count_zero_groups:
            output[ELIGIBLE] = torch.ones_like(output[ELIGIBLE])
        over_rollout = self.method is not None and self.method.scope == "rollout"
        if over_rollout or self.observer is not None:
            logp, entropy = self._rollout_scores(output, scored)
            whole, eligible = self._gathered_batch(output, logp, logp, entropy)
            chosen = (
                self._choose(replace(whole, mask=eligible), self.state.global_step) if over_rollout else None
            )
            if chosen is not None:
                output[SELECTED] = chosen[rows, : logp.shape[1]]
            if self.observer is not None:
                seen = Rollout(whole, eligible, chosen, rewards, output, first_row, seconds)
                self.observer.on_rollout(self, seen)
        return output

    def _rollout_scores(self, output: dict[str, Any], scored: list[Any]) -> tuple[Tensor, Tensor]:
        """Return (logp, entropy) of this rank's rollout at its own policy, from TRL's pass where it ran one."""
        stale = output.get("old_per_token_logps")
        for logps, entropies in scored:
            if stale is not None and logps is stale and entropies is not None:
                return logps, entropies
        return self.score(output)

    def score(self, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return (logp, entropy) of completions at the current weights, nats, (b, t) each: one pass, no graph."""
        known = inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters
        forward = {name: value for name, value in inputs.items() if name in known}
        devices = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):  # adapters may have dropout
            logps, entropies, _ = super()._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
                torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
                inputs["completion_ids"].size(1),
                batch_size=self.args.per_device_train_batch_size,
                compute_entropy=True,
                **forward,
            )
        return logps, entropies

    @contextmanager
    def at_temperature(self, temperature: float) -> Iterator[None]:
        """Within this block, score at another temperature than the one that is trained at."""
        model = self.accelerator.unwrap_model(self.model)
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        fused, fp32 = model.forward, self.args.cast_lm_head_to_fp32
        add_fused_lm_head(model, temperature, cast_lm_head_to_fp32=fp32, outputs=("log_probs", "entropy"))
        try:
            yield
        finally:
            model.forward = fused

    def _gathered_rewards(self, rows: int) -> Tensor:
        """Return the weighted reward of every completion of all ranks, from TRL's log of the rollout just scored."""
        count = rows * self.accelerator.num_processes
        columns = [list(self._logs["rewards"][name])[-count:] for name in self.reward_func_names]
        per_function = torch.tensor(columns, dtype=torch.float32, device=self.accelerator.device).T
        total = (per_function * self.reward_weights.to(per_function.device)).nansum(1)
        unscored = per_function.isnan()
        # A reward that leaves out a group takes it out of training, whatever the other rewards say of it.
        filtering = [getattr(reward, "filters_groups", False) for reward in self.reward_funcs]
        left_out = unscored[:, filtering].any(1) if self._filtering else unscored.all(1)
        return total.masked_fill(unscored.all(1) | left_out, torch.nan)

    def _gathered_batch(
        self, inputs: dict[str, Any], logp: Tensor, old_logp: Tensor, entropy: Tensor
    ) -> tuple[TokenBatch, Tensor]:
        """Return the batch of all ranks, rank after rank as the sampler laid it out, and its eligible tokens."""
        # As numbers: accelerate pads a bool to int64, on the ranks that need padding only, and the gather breaks.
        parts = [logp, old_logp, entropy, _loss_mask(inputs).int(), _eligible(inputs).int()]
        advantages = inputs["advantages"]
        if self.accelerator.num_processes > 1:
            parts = [self.accelerator.gather(self.accelerator.pad_across_processes(x, dim=1)) for x in parts]
            advantages = self.accelerator.gather(advantages)
        logp, old_logp, entropy, mask, eligible = parts
        return TokenBatch(old_logp, logp, advantages, mask, entropy), eligible.bool()

    # --- choosing -------------------------------------------------------------------------------------------

    def _choose(self, candidates: TokenBatch, *salt: int) -> Tensor:
        """Let the method choose, on a generator that every rank and a resumed run seed alike; log how many."""
        seed = self.args.seed
        for number in salt:
            seed = (seed * 1_000_003 + number + 1) % 2**62
        generator = torch.Generator(device=candidates.logp.device).manual_seed(seed)
        selected = cast(Method, self.method).select(candidates, generator)
        if self.observer is None:  # an observer logs all of this, and more
            covariance = token_covariance(candidates.logp, candidates.advantages, candidates.mask)
            metrics = self._metrics["train"]
            metrics["chosen/tokens"].append(selected.sum().item())
            metrics["chosen/eligible"].append(candidates.mask.sum().item())
            metrics["covariance/mean"].append(masked_mean(covariance, candidates.mask).item())
        return selected

    def _choose_over_update(self) -> None:
        """Score the coming optimiser mini-batch of all ranks at the current weights, choose, keep each part's share."""
        steps = range(self._step, self._step + self.current_gradient_accumulation_steps)
        parts = [self._buffered_inputs[step % self.args.steps_per_generation] for step in steps]
        wholes = []
        for part in parts:
            logp, entropy = self.score(part)
            wholes.append(self._gathered_batch(part, logp, part.get("old_per_token_logps", logp), entropy))
        width = max(batch.logp.shape[1] for batch, _ in wholes)

        def stack(tensors: list[Tensor]) -> Tensor:
            return torch.cat([pad(x, (0, width - x.shape[1])) for x in tensors])

        candidates = TokenBatch(
            old_logp=stack([batch.old_logp for batch, _ in wholes]),
            logp=stack([batch.logp for batch, _ in wholes]),
            advantages=stack([batch.advantages for batch, _ in wholes]),
            mask=stack([eligible for _, eligible in wholes]),
        )
        chosen = self._choose(candidates, self.state.global_step)
        self._update_choice, first = {}, 0
        for step, part, (batch, _) in zip(steps, parts, wholes, strict=True):
            rows, width = part["completion_mask"].shape
            start = first + rows * self.accelerator.process_index
            self._update_choice[step] = chosen[start : start + rows, :width]
            first += len(batch.logp)

    # --- seam: the loss -------------------------------------------------------------------------------------

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Return TRL's loss, steered by the method in training; in evaluation it is TRL's own, untouched."""
        if not self.model.training or not self._watched:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if (
            self.method is not None
            and self.method.scope == "update"
            and self._step not in self._update_choice
        ):
            self._choose_over_update()
        began, current = time.perf_counter(), _Pass(inputs)
        self._pass = current
        try:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        finally:
            self._pass = None
        batch = cast(TokenBatch, current.batch)
        if current.extra is not None:
            loss = loss + (self.loss_weights(inputs, batch) * current.extra).sum()
        if not torch.isfinite(loss):
            raise NonFiniteLossError(self._why_not_finite(batch, current.extra))
        if self.observer is not None:
            extra = None if current.extra is None else current.extra.detach()
            seconds = time.perf_counter() - began
            seen = MicroBatch(batch.detach(), _eligible(inputs), current.selected, extra, seconds)
            self.observer.on_micro_batch(self, seen)
        return loss

    def loss_weights(self, inputs: dict[str, Any], batch: TokenBatch) -> Tensor:
        """Return w (b, t): the weight that TRL's loss gives to `per_token_loss[t]`, so that β weighs against A alike."""
        mask, accumulation = batch.mask, self.current_gradient_accumulation_steps
        dtype = batch.logp.dtype
        if self.loss_type in ("cispo", "dapo", "vespo"):
            tokens = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
            tokens = tokens * accumulation / self.args.steps_per_generation
            weights = token_weights(mask, "token_mean", tokens=tokens, dtype=dtype)
        else:
            reductions: dict[str, Any] = {
                "bnpo": "token_mean",
                "dr_grpo": "constant",
                "luspo": "sequence_sum",
            }
            reduction = reductions.get(self.loss_type, "sequence_mean")
            longest = self.max_completion_length
            weights = token_weights(mask, reduction, max_length=longest, dtype=dtype) / accumulation
        if self.off_policy_mask_threshold is not None:
            stale = inputs.get("old_per_token_logps", batch.logp.detach())
            sampler_logp = inputs.get("sampling_per_token_logps", stale)
            weights = weights * self.get_off_policy_mask(
                batch.advantages, batch.logp, sampler_logp, mask.int(), self.off_policy_mask_threshold
            )
        if self.top_entropy_quantile < 1.0:
            weights = weights * self.get_high_entropy_mask(
                batch.entropy, mask.int(), 1 - self.top_entropy_quantile
            )
        if self.use_vllm and self.vllm_importance_sampling_correction and self.loss_type != "vespo":
            weights = weights * inputs["importance_sampling_ratio"]
        return weights

    def _why_not_finite(self, batch: TokenBatch, extra: Tensor | None) -> str:
        suspects = {
            "the log-probs of the policy": batch.logp,
            "the log-probs of the rollout": batch.old_logp,
            "the advantages": batch.advantages,
            "the probability ratio (it overflowed)": (batch.logp - batch.old_logp).exp(),
            "the penalty of the method": extra,
        }
        found = [name for name, x in suspects.items() if x is not None and not x[batch.mask].isfinite().all()]
        return (
            f"The loss of step {self.state.global_step + 1} is not finite; what is not finite: "
            f"{' and '.join(found) or 'a term of the loss that is not per token'}. The run stopped there; its records "
            "are intact. Lower learning_rate or max_grad_norm, or restart from an earlier checkpoint."
        )


def _loss_mask(inputs: dict[str, Any]) -> Tensor:
    mask = inputs["completion_mask"]
    return (mask * inputs["tool_mask"] if "tool_mask" in inputs else mask).bool()


def _eligible(inputs: dict[str, Any]) -> Tensor:
    return _loss_mask(inputs) & inputs[ELIGIBLE].unsqueeze(1)
