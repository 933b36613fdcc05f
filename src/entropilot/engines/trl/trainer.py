"""Train with any token method on TRL's `GRPOTrainer`, through its seams and without a copied body.

The seams (pinned by tests/contracts): reward callables and what `_calculate_rewards` returns of them; what
`_generate_and_score_completions` returns; the log-prob wrapper `_get_per_token_logps_and_entropies`; the public
`compute_loss` and `train`; `_save_checkpoint`.
"""

from __future__ import annotations

import inspect
import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from transformers import TrainerCallback
from trl import GRPOTrainer

from entropilot.engines.trl.acting import act_again, act_on_rollout
from entropilot.engines.trl.checkpoints import CheckpointingTrainer
from entropilot.engines.trl.checks import (
    announce_clip,
    refuse_early_update_scope,
    refuse_estimator,
    refuse_on_policy,
    refuse_rule,
    settle_clip,
)
from entropilot.engines.trl.choosing import choose_over_update, gathered, gathered_batch
from entropilot.engines.trl.columns import ELIGIBLE, SELECTED, eligible_mask, loss_mask, of_rows
from entropilot.engines.trl.scoring import at_temperature, dropout_of, mean_entropies, without_dropout
from entropilot.engines.trl.spans import describe_rows
from entropilot.engines.trl.tally import NonFiniteLossError as NonFiniteLossError
from entropilot.engines.trl.tally import Tally
from entropilot.engines.trl.teacher import teacher_of
from entropilot.engines.trl.view import TRLView
from entropilot.engines.trl.weights import loss_weights
from entropilot.maths.advantages import Estimator, estimate_advantages, groups_with_signal
from entropilot.maths.surrogate import is_ppo_clipped
from entropilot.maths.tokens import TokenBatch
from entropilot.methods import Method
from entropilot.methods.stack import Stack
from entropilot.recording.observer import MicroBatch, Observer, Rollout

logger = logging.getLogger("entropilot")


@dataclass
class _Pass:
    """What one `compute_loss` call hands to the log-prob wrapper, and gets back."""

    inputs: dict[str, Any]
    batch: TokenBatch | None = None
    selected: Tensor | None = None
    extra: Tensor | None = None


class EntropyGRPOTrainer(CheckpointingTrainer):
    """Train as TRL's `GRPOTrainer`, with methods that act together, another advantage estimator, and an observer.

    All other arguments, attributes and behaviour are `GRPOTrainer`'s; with `method=None`, the estimator "grpo"
    and no observer it is bit-equal to it.

    Args:
        *args: as `GRPOTrainer`.
        method: `KLCov(...)`, `ClipCov(...)`, the name of a method ("kl_cov", at the paper's settings), or None. The
            method's PPO clip is set unless `args.epsilon` or `args.epsilon_high` were written; the attribute `clip`
            says what is in force and who set it. A list combines an advantage method, a token method and a controller:
            `[QAE(), ClipCov()]`.
        advantage_estimator: "grpo" (TRL's own), "rloo", "reinforce++" or "reinforce++_baseline".
        observer: is shown every rollout and every training pass (see `entropilot.recording.probe.Probe`). One that is
            a `TrainerCallback` is registered as a callback, too.
        **kwargs: as `GRPOTrainer`.

    Attributes:
        method: the token method as it acts on the present rollout; None where there is none.
        stack: the methods as they were given.
        clip: "low", "high" and "source" of the PPO clip in force.
        view: what the observer is given (see `entropilot.engine_view.EngineView`).
        leave_asked: this process asks to end training after the update (see `entropilot.training.leave`).
        leaving: a process has asked; set on all processes at the end of the same update.

    Raises:
        UserError: settings under which the method cannot act as described.
    """

    def __init__(
        self,
        *args: Any,
        method: Any = None,
        advantage_estimator: Estimator = "grpo",
        observer: Observer | None = None,
        **kwargs: Any,
    ) -> None:
        stack = Stack.of(method)
        refuse_estimator(advantage_estimator)
        super().__init__(*args, **kwargs)
        refuse_on_policy(stack.token, self.args)
        refuse_early_update_scope(stack.token, self.args)
        refuse_rule(stack.advantage, advantage_estimator, self.args)
        refuse_estimator(advantage_estimator, self.multi_objective_aggregation)
        self.method, self.clip = settle_clip(stack.token, self.args)
        self.stack = replace(stack, token=self.method)
        if self.clip["source"] == "method":  # in TRL's own attributes; the user's args stay untouched
            self.epsilon_low, self.epsilon_high = self.clip["low"], self.clip["high"]
        self.advantage_estimator, self.observer = advantage_estimator, observer
        self.view = TRLView(self)
        if isinstance(observer, TrainerCallback):
            others = [callback for callback in self.callback_handler.callbacks if callback is not observer]
            # Before the trackers: what it measures at the end must reach them before they close.
            self.callback_handler.callbacks = [observer, *others]
        self.teacher = teacher_of(self, self.reward_funcs)
        if self.teacher is not None:
            self.add_callback(self.teacher)
        self._dropout = dropout_of(self.model)
        self._scored: list[tuple[Tensor, Tensor | None]] | None = None
        self._rewards = torch.empty(0)
        self._prompts: list[Any] = []
        self._completions: list[Any] = []
        self._pass: _Pass | None = None
        self._tally = Tally()
        self._update_choice: dict[int, Tensor] = {}
        self._rollout_began_at = -1
        self._left_out_said = False
        # The method is as it acts on the rollout that is being trained on.
        self._acting = not self.stack.adapts
        self.leave_asked = self.leaving = False
        if self.accelerator.is_main_process:
            self._announce()

    def _announce(self) -> None:
        """Say once, before the first step, what a reader of the script could not know."""
        announce_clip(self.method, self.clip)
        if self._dropout and self._watched:
            logger.warning(
                "The model has dropout (up to %g). entropilot chooses tokens and measures entropy without it, so that "
                "they do not depend on how a batch is cut; TRL trains with it and computes its log-ratios with it.",
                self._dropout,
            )

    @property
    def _filtering(self) -> bool:
        return any(getattr(reward, "filters_groups", False) for reward in self.reward_funcs)

    @property
    def _watched(self) -> bool:
        return self.stack.methods is not None or self.observer is not None

    # --- seam: the log-prob wrapper -------------------------------------------------------------------------

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        scoring = self._scored is not None and not torch.is_grad_enabled()
        # The old-log-prob pass gives the policy entropy at no extra pass; a reference model has no entropy to give.
        if scoring and not self._scored and model is self.model and not self._dropout:
            kwargs["compute_entropy"] = True
        result = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        if scoring and self._scored is not None:
            self._scored.append(result[:2])
        elif self._pass is not None and torch.is_grad_enabled():
            return (self._steer(self._pass, *result[:2]), *result[1:])
        return result

    def _steer(self, current: _Pass, logps: Tensor, entropies: Tensor | None) -> Tensor:
        """Return the log-probs with the method's effect on their gradient; leave the rest in the current pass."""
        inputs = current.inputs
        stale = inputs.get("old_per_token_logps")
        if stale is None or self.state.global_step == self._rollout_began_at:
            stale = logps.detach()  # first update of a rollout: rounding noise must not become a drift
        if not self._acting:  # resumed in the middle of a rollout
            act_again(self)
        batch = current.batch = TokenBatch(
            old_logp=stale,
            logp=logps,
            advantages=inputs["advantages"],
            mask=loss_mask(inputs),
            entropy=None if entropies is None else entropies.detach(),
            **of_rows(inputs),
        )
        if self.method is None:
            return logps
        if self.method.scope == "rollout":
            current.selected = inputs[SELECTED]
        elif self.method.scope == "update":
            current.selected = self._update_choice[self._step]
        else:
            clipped = self._clipped(batch)
            candidates = replace(batch, mask=eligible_mask(inputs), clipped=clipped).detach()
            part = self._step % self.current_gradient_accumulation_steps
            salt = (self.state.global_step, part, self.accelerator.process_index)
            current.selected = self._choose(candidates, *salt)
        steering = self.method.steer(batch, current.selected)
        current.extra = steering.extra
        return steering.applied(logps)

    # --- seam: the rollout ----------------------------------------------------------------------------------

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Tensor:
        """Keep prompts, completions and their rewards for all ranks, (n, functions); NaN where one gave None."""
        self._prompts, self._completions = prompts, completions
        if any(getattr(reward, "reads_entropy", False) for reward in self.reward_funcs):
            means = mean_entropies(self, prompts, completion_ids_list)
            # TRL hands every column of the rows to the rewards.
            inputs = [row | {"mean_entropy": mean} for row, mean in zip(inputs, means, strict=True)]
        if self.teacher is not None:
            votes = self.teacher.votes(prompts)
            inputs = [row | {"teacher_completions": texts} for row, texts in zip(inputs, votes, strict=True)]
        self._rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return self._rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        estimated = self.advantage_estimator != "grpo"
        if not self.model.training or not (self._watched or estimated or self._filtering):
            return super()._generate_and_score_completions(inputs)
        if self.observer is not None:
            self.observer.before_rollout(self.view)
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
        rewards = self._weighted_rewards()
        if estimated:
            advantages = estimate_advantages(rewards, self.num_generations, self.advantage_estimator)
            output["advantages"] = advantages[rows].to(output["advantages"])
            # In place of TRL's: the log holds one rollout.
            self._logs["advantages"].extend(advantages.tolist())
        scores = self._rollout_scores(output, scored) if self.stack.reads_rollout else None
        adapted = {} if scores is None else act_on_rollout(self, output, rewards, rows, *scores)
        if self._filtering:
            output["advantages"] = output["advantages"].masked_fill(rewards[rows].isnan(), 0.0)
        measured: dict[str, float] = {}
        if self.teacher is not None:
            measured = {"seconds/teacher": self.teacher.seconds, "teacher/megabytes": self.teacher.megabytes}
        if self.method is not None:
            measured |= describe_rows(self, output, rewards, rows, self._prompts, self._completions)
        if self.observer is None:  # an observer records them, and hands them to the trackers
            for name, value in measured.items():
                self._metrics["train"][name].append(value)
        if not self._watched:
            return output
        signal = groups_with_signal(self._gathered(output["advantages"]), self.num_generations)
        output[ELIGIBLE] = signal[rows]
        if self.method is not None and self.method.count_zero_groups:
            output[ELIGIBLE] = torch.ones_like(output[ELIGIBLE])
        over_rollout = self.method is not None and self.method.scope == "rollout"
        if over_rollout or self.observer is not None:
            logp, entropy = scores or self._rollout_scores(output, scored)
            whole, eligible = gathered_batch(self, output, logp, logp, entropy)
            chosen = None
            if over_rollout:
                candidates = replace(whole, mask=eligible, clipped=self._clipped(whole))
                chosen = self._choose(candidates, self.state.global_step)
                output[SELECTED] = chosen[rows, : logp.shape[1]]
            if self.observer is not None:
                measured |= adapted
                rollout = Rollout(whole, eligible, chosen, rewards, output, first_row, seconds, measured)
                self.observer.on_rollout(self.view, rollout)
        return output

    def _rollout_scores(self, output: dict[str, Any], scored: list[Any]) -> tuple[Tensor, Tensor]:
        """Return (logp, entropy) of this rank's rollout at its own policy, from TRL's pass where it ran one.

        With dropout TRL's pass is one draw of a random policy, and its rows depend on how they were cut into batches.
        """
        stale = output.get("old_per_token_logps")
        for logps, entropies in scored:
            if stale is not None and logps is stale and entropies is not None and not self._dropout:
                return logps, entropies
        return self.score(output)

    def score(self, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return (logp, entropy) of completions at the current weights, nats, (b, t) each: one pass, no graph."""
        known = inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters
        forward = {name: value for name, value in inputs.items() if name in known}
        devices = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        steady = without_dropout(self.model) if self._dropout else nullcontext()
        with torch.no_grad(), torch.random.fork_rng(devices=devices), steady:
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

    def at_temperature(self, temperature: float) -> AbstractContextManager[None]:
        """Within this block, score at another temperature than the one that is trained at."""
        return at_temperature(self, temperature)

    def _weighted_rewards(self) -> Tensor:
        """Return the weighted reward of every completion of the rollout just scored, of all ranks, (n,)."""
        per_function = self._rewards
        total = (per_function * self.reward_weights.to(per_function.device)).nansum(1)
        unscored = per_function.isnan()
        # A reward that leaves out a group takes it out of training, whatever the other rewards say of it.
        filtering = [getattr(reward, "filters_groups", False) for reward in self.reward_funcs]
        left_out = unscored[:, filtering].any(1) if self._filtering else unscored.all(1)
        return total.masked_fill(unscored.all(1) | left_out, torch.nan)

    def _gathered(self, values: Tensor) -> Tensor:
        """Return the rows of all ranks (see `entropilot.engines.trl.choosing.gathered`)."""
        return gathered(self.accelerator, values)

    # --- choosing -------------------------------------------------------------------------------------------

    def _choose(self, candidates: TokenBatch, *salt: int) -> Tensor:
        """Let the method choose, on a generator that every rank and a resumed run seed alike."""
        seed = self.args.seed
        for number in salt:
            seed = (seed * 1_000_003 + number + 1) % 2**62
        generator = torch.Generator(device=candidates.logp.device).manual_seed(seed)
        selected = cast(Method, self.method).select(candidates, generator)
        # An observer takes the covariance itself, and more.
        self._tally.add_choice(candidates, selected, covariance=self.observer is None)
        return selected

    def _clipped(self, batch: TokenBatch) -> Tensor:
        """Return where TRL's loss has clipped the ratio already, so that a token has no policy gradient."""
        low, high = self.clip["low"], self.clip["high"]  # None where the loss has no PPO clip
        return is_ppo_clipped(
            batch, low, high, level=self.importance_sampling_level, delta=getattr(self.args, "delta", None)
        )

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
            self._update_choice = choose_over_update(self)
        began, current = time.perf_counter(), _Pass(inputs)
        self._pass = current
        try:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        finally:
            self._pass = None
        batch = cast(TokenBatch, current.batch)
        if current.extra is not None:
            loss = loss + (loss_weights(self, inputs, batch) * current.extra).sum()
        self._tally.add_pass(loss, batch, current.extra)
        if self.observer is not None:
            extra = None if current.extra is None else current.extra.detach()
            seconds = time.perf_counter() - began
            seen = MicroBatch(batch.detach(), eligible_mask(inputs), current.selected, extra, seconds)
            self.observer.on_micro_batch(self.view, seen)
        if self.accelerator.sync_gradients:
            self._close_update()
        return loss

    def _close_update(self) -> None:
        """Look at the update before the optimiser takes its step: stop at a loss that is not finite, log the rest."""
        metrics = self._tally.close(self.state.global_step + 1, self.accelerator, self.leave_asked)
        self.leaving = metrics.pop("leave") != [0.0]
        left_out = max(metrics.pop("left_out"), default=0.0)
        if left_out and not self._left_out_said:
            self._left_out_said = True
            logger.warning(
                "Step %d: %d tokens have a log-prob that is not finite (the policy gives them no probability); they "
                "have no covariance and can't be chosen. This is said once.",
                self.state.global_step + 1,
                left_out,
            )
        if self.observer is None:  # an observer logs all of this, and more
            for name, values in metrics.items():
                if values:  # an empty list would be logged as a mean of nothing
                    self._metrics["train"][name].extend(values)
