"""Weigh a method's extra loss as TRL weighs its own per-token loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from entropilot.maths.tokens import TokenBatch, token_weights

# TRL's remaining losses: grpo and sapo average over the tokens of a row, then over rows.
REDUCTIONS: dict[str, Any] = {"bnpo": "token_mean", "dr_grpo": "constant", "luspo": "sequence_sum"}


def loss_weights(trainer: Any, inputs: dict[str, Any], batch: TokenBatch) -> Tensor:
    """Return w (b, t), the weight that TRL's loss gives to `per_token_loss[t]`, so that β weighs against A alike."""
    mask, accumulation, dtype = batch.mask, trainer.current_gradient_accumulation_steps, batch.logp.dtype
    if trainer.loss_type in ("cispo", "dapo", "vespo"):
        tokens = inputs["num_items_in_batch"].clamp(min=1.0) / trainer.accelerator.num_processes
        tokens = tokens * accumulation / trainer.args.steps_per_generation
        weights = token_weights(mask, "token_mean", tokens=tokens, dtype=dtype)
    else:
        reduction = REDUCTIONS.get(trainer.loss_type, "sequence_mean")
        longest = trainer.max_completion_length
        weights = token_weights(mask, reduction, max_length=longest, dtype=dtype) / accumulation
    threshold = trainer.off_policy_mask_threshold
    if threshold is not None:
        stale = inputs.get("old_per_token_logps", batch.logp.detach())
        sampler_logp = inputs.get("sampling_per_token_logps", stale)
        weights = weights * trainer.get_off_policy_mask(
            batch.advantages, batch.logp, sampler_logp, mask.int(), threshold
        )
    quantile = trainer.top_entropy_quantile
    if quantile < 1.0:
        weights = weights * trainer.get_high_entropy_mask(batch.entropy, mask.int(), 1 - quantile)
    if trainer.use_vllm and trainer.vllm_importance_sampling_correction and trainer.loss_type != "vespo":
        weights = weights * inputs["importance_sampling_ratio"]
    return weights
