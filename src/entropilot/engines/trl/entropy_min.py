"""Entropy minimisation on TRL: sampling, padding, logging and checkpoints are `GRPOTrainer`'s, the loss is ours.

The reward is 0 for everybody, so TRL's own policy term is 0 with gradient 0; to it `compute_loss` adds the
entropy. A reference KL (`beta`) and the balance loss of mixtures of experts stay what they are.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import TrainerCallback
from trl import GRPOTrainer

from entropilot.engine_view import EngineView
from entropilot.engines.trl.adapter import Adapter
from entropilot.engines.trl.checks import settle_clip
from entropilot.engines.trl.columns import loss_mask
from entropilot.engines.trl.tally import NonFiniteLossError
from entropilot.engines.trl.trainer import EntropyGRPOTrainer
from entropilot.engines.trl.view import TRLView
from entropilot.errors import UserError
from entropilot.maths.tokens import masked_sum
from entropilot.methods.entropy_min import EntropyMin
from entropilot.metrics import ENTROPY_MIN, described
from entropilot.recording.observer import Rollout
from entropilot.recording.probe import Probe
from entropilot.records import read_run


def no_reward(completions: list[Any], **_: Any) -> list[float]:
    """Return the reward of a method that needs none: 0 for every completion."""
    return [0.0] * len(completions)


class _KeepsEntropy(GRPOTrainer):
    """Below `EntropyGRPOTrainer`, whose log-prob wrapper cuts the graph off: keeps the entropies that carry it."""

    minimise: EntropyMin
    _kept: list[Tensor] | None = None  # a list during `compute_loss` only

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        width = logits_to_keep
        if self._kept is not None and self.minimise.official_mask:
            # The fused head returns 0 where no label is, and no label follows the last token: append one column, and
            # let every row label the position behind its last token. No earlier position can see it.
            for name, value in kwargs.items():
                if isinstance(value, Tensor) and value.shape == input_ids.shape:
                    kwargs[name] = pad(value, (0, 1))
            tail = attention_mask[:, -width:]
            tail = torch.maximum(pad(tail, (0, 1)), pad(tail, (1, 0)))
            attention_mask = torch.cat([attention_mask[:, :-width], tail], dim=1)
            input_ids = pad(input_ids, (0, 1), value=self._tokenizer.pad_token_id)
            logits_to_keep += 1
        logps, entropies, aux_loss = super()._get_per_token_logps_and_entropies(
            model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
        )
        if self._kept is not None:
            self._kept.append(entropies)
            logps, entropies = logps[:, :width], entropies[:, :width]
        return logps, entropies, aux_loss


class EntropyMinTrainer(EntropyGRPOTrainer, _KeepsEntropy):
    """TRL's `GRPOTrainer` that lowers the entropy of what the model samples, from prompts alone.

    Args:
        *args: as `GRPOTrainer`; `args` best begins from `minimise.grpo_settings()`.
        minimise: the method; default: the paper's.
        observer: as `EntropyGRPOTrainer`; `EntropyMinProbe` writes the record.
        **kwargs: as `GRPOTrainer`. `reward_funcs` may be left out; where answers are known, what they return is
            recorded, never trained on.

    Attributes:
        entropies: the loss of every update so far, nats.
        last_update: the values of `entropilot.metrics.ENTROPY_MIN` of the last update, and "stop/reason" where training
            stopped after it.
        stopped: why training stopped early; None while it has not.

    Raises:
        UserError: settings that contradict the method.
    """

    def __init__(self, *args: Any, minimise: EntropyMin | None = None, **kwargs: Any) -> None:
        self.minimise = EntropyMin() if minimise is None else minimise
        self.rewards_known = kwargs.get("reward_funcs") is not None
        if not self.rewards_known:
            kwargs["reward_funcs"] = no_reward
        super().__init__(*args, **kwargs)
        check_settings(self.minimise, self.args, self.train_dataset)
        self.entropies: list[float] = []
        self.last_update: dict[str, Any] = {}
        self.stopped: str | None = None
        self._tokens: dict[int, Tensor] = {}
        self._sums = torch.zeros(3, device=self.accelerator.device)
        self.add_callback(_Stop(self))

    def describe(self) -> dict[str, Any]:
        """Return what a run's header says about the method."""
        official = self.minimise.official_mask
        return {
            **asdict(self.minimise),
            "mean": "tokens of a micro-batch, then micro-batches" if official else "tokens of the update",
            "counted": (
                "the distributions after each generated token that is not the end token (the released train.py)"
                if official
                else "the distributions that each generated token was drawn from, end token included"
            ),
            "updates_are": "optimizer updates of AdamW, not micro-batches",
        }

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        output["advantages"] = torch.zeros_like(output["advantages"])
        return output

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Return the entropy of this micro-batch in its share of the update; in evaluation, its token mean."""
        self._kept = kept = []
        try:
            rest = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        finally:
            self._kept = None
        (entropy,) = kept
        blank = (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id)
        counted = self.minimise.counted(
            inputs["completion_ids"], loss_mask(inputs), [token for token in blank if token is not None]
        )
        total, count = masked_sum(entropy.float(), counted)
        mean = total / count.clamp(min=1)
        if not self.model.training:
            return rest + mean
        if self.minimise.official_mask:
            loss = mean / self.current_gradient_accumulation_steps
        else:  # gradients are averaged over ranks, so each rank divides by its share of the tokens
            share = self._update_tokens() / self.accelerator.num_processes
            loss = total / share.clamp(min=1 / self.accelerator.num_processes)
        self._sums = self._sums + torch.stack([total.detach(), count, loss.detach()])
        if self.accelerator.sync_gradients:
            self._end_update()
        return rest + loss

    def _update_tokens(self) -> Tensor:
        """Return the tokens of all micro-batches and ranks of this update, counted at its first micro-batch."""
        if self._step not in self._tokens:
            steps = range(self._step, self._step + self.current_gradient_accumulation_steps)
            buffer = cast(list[dict[str, Any]], self._buffered_inputs)
            parts = [buffer[step % self.args.steps_per_generation] for step in steps]
            count = torch.stack([loss_mask(part).sum() for part in parts]).sum()
            self._tokens = dict.fromkeys(steps, self.accelerator.reduce(count, reduction="sum"))
        return self._tokens[self._step]

    def _end_update(self) -> None:
        """Add up the update over ranks, keep it for the record, and look whether it was enough."""
        total, tokens, losses = self.accelerator.reduce(self._sums, reduction="sum").tolist()
        self._sums = torch.zeros_like(self._sums)
        official = self.minimise.official_mask
        loss = losses / self.accelerator.num_processes if official else total / max(1.0, tokens)
        if not math.isfinite(losses):  # found before the optimiser takes its step, on every rank
            raise NonFiniteLossError(
                f"The entropy of step {self.state.global_step + 1} is not finite. The run stopped there; its records "
                "are intact. Lower learning_rate or max_grad_norm, or restart from an earlier checkpoint."
            )
        self.entropies.append(loss)
        self.last_update = {"entropy_min/loss": loss, "entropy_min/tokens": int(tokens)}
        self.stopped = self.minimise.stop_reason(self.entropies)
        if self.stopped is not None:
            self.last_update["stop/reason"] = self.stopped
        if self.observer is None:
            for name in ("entropy_min/loss", "entropy_min/tokens"):
                self._metrics["train"][name].append(self.last_update[name])


class EntropyMinProbe(Probe):
    """Record an `EntropyMinTrainer`: rows also hold `entropilot.metrics.ENTROPY_MIN`, and no reward where none is known."""

    def on_rollout(self, engine: EngineView, rollout: Rollout) -> None:
        """Take the rollout; a reward that is 0 by construction is no measurement."""
        known = _trainer_of(engine).rewards_known
        if not known:
            rollout = replace(rollout, rewards=torch.full_like(rollout.rewards, torch.nan))
        super().on_rollout(engine, rollout)
        if not known:  # nor is a covariance with it
            self._pending = {k: v for k, v in self._pending.items() if not k.startswith("covariance/")}

    def end_update(self, engine: EngineView, learning_rate: float) -> bool:
        """Put the update's loss and count into its row."""
        if self._passes:
            trainer = _trainer_of(engine)
            self._pending |= trainer.last_update
            if trainer.stopped is not None and self.on_alarm is not None:
                self.on_alarm(trainer.stopped)
        return super().end_update(engine, learning_rate)


def _trainer_of(engine: EngineView) -> EntropyMinTrainer:
    return cast(TRLView, engine).trainer


class _Stop(TrainerCallback):
    """Ends training after the update that gave a reason to; that update is done and recorded."""

    def __init__(self, trainer: EntropyMinTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.stopped is not None:
            control.should_training_stop = True


# The fields of the method that are settings of TRL, too.
_SHARED = {
    "learning_rate": "learning_rate",
    "updates": "max_steps",
    "top_p": "top_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_completion_length",
}


def refuse_contradictions(method_args: dict[str, Any], grpo: dict[str, Any]) -> None:
    """Refuse a recipe that gives the method and TRL different values of one setting.

    Raises:
        UserError: it does.
    """
    for field, key in _SHARED.items():
        if field in method_args and key in grpo and method_args[field] != grpo[key]:
            raise UserError(
                f"method_args.{field} = {method_args[field]} and grpo.{key} = {grpo[key]} are the same setting; give one "
                "of them."
            )


def settled(method: EntropyMin, args: Any) -> EntropyMin:
    """Return the method as it is trained: what `grpo` sets takes the place of the method's own settings."""
    return replace(method, **{field: getattr(args, key) for field, key in _SHARED.items()})


def check_settings(method: EntropyMin, args: Any, dataset: Any = None) -> None:
    """Refuse what can't work; `check` asks before anything is loaded, the trainer with its data once more.

    Raises:
        UserError: another temperature than the method's, an entropy term of TRL's own, an update that reaches into the
            next rollout, fewer prompts than a rollout takes.
    """
    if args.temperature != method.temperature:
        raise UserError(
            f"Entropy minimisation at T = {method.temperature:g} would sample at temperature = {args.temperature:g}; TRL's "
            f"fused head knows one temperature, so set temperature to {method.temperature:g}, or the method's to the other."
        )
    if args.entropy_coef or getattr(args, "use_adaptive_entropy", False):
        raise UserError(
            f"entropy_coef = {args.entropy_coef:g} adds TRL's own entropy term to a loss that is the entropy; "
            "set entropy_coef to 0 and use_adaptive_entropy to false."
        )
    accumulation, parts = args.gradient_accumulation_steps, args.steps_per_generation * args.num_iterations
    if not method.official_mask and parts % accumulation:
        raise UserError(
            "The mean over an update's tokens needs their number before the first backward pass, but with "
            f"gradient_accumulation_steps = {accumulation}, steps_per_generation = {args.steps_per_generation} and "
            f"num_iterations = {args.num_iterations} an update reaches into a rollout that is not sampled yet; set "
            f"steps_per_generation to a multiple of {accumulation}."
        )
    prompts = args.generation_batch_size // args.num_generations
    if (
        hasattr(dataset, "__len__") and len(dataset) < prompts
    ):  # TRL's sampler would end before the first step
        raise UserError(
            f"A rollout takes {prompts} different prompts, but there are {len(dataset)}; for one prompt set "
            f"num_generations to the whole batch, {args.generation_batch_size}."
        )


class EntropyMinAdapter(Adapter):
    """Run entropy minimisation on `EntropyMinTrainer`."""

    needs_reward = False
    stacks = False
    probe = EntropyMinProbe

    def grpo_settings(
        self, method: EntropyMin, written: dict[str, Any], grpo: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the batch, the sampling and the optimiser that the method stands for."""
        refuse_contradictions(written, grpo)
        return method.grpo_settings()

    def settle(self, method: EntropyMin, config: Any) -> tuple[EntropyMin, dict[str, Any]]:
        """Return the method with what `grpo` sets in place of its own settings; TRL's clip has no effect on it."""
        check_settings(method, config)
        return settled(method, config), settle_clip(None, config)[1]

    def notes(self, method: EntropyMin, config: Any, rows: int, processes: int) -> list[str]:
        """Say that several processes take several batches."""
        if processes <= 1:
            return []
        return [
            f"The settings of entropy minimisation are for one process: {processes} of them take {processes} times the "
            "samples an update; lower per_device_train_batch_size or gradient_accumulation_steps for the batch of one."
        ]

    def trainer(self, method: EntropyMin, estimator: Any, **settings: Any) -> EntropyMinTrainer:
        """Build the trainer; advantages are always 0 here, so the estimator has no effect."""
        return EntropyMinTrainer(minimise=method, **settings)

    def take_up(self, trainer: EntropyMinTrainer, folder: Path, step: int) -> None:
        """Give the early stop the losses of the past: it looks back."""
        past = read_run(folder).column("entropy_min/loss")
        trainer.entropies = [loss for at, loss in past if at <= step]
        trainer.stopped = trainer.minimise.stop_reason(trainer.entropies)

    def header(self, trainer: EntropyMinTrainer) -> dict[str, Any]:
        """Return the settings in force, and what the loss is the mean of."""
        return {"entropy_min": trainer.describe()}

    def metrics(self) -> dict[str, dict[str, str]]:
        """Return `entropilot.metrics.ENTROPY_MIN` as the header holds it."""
        return described(ENTROPY_MIN)


ADAPTER = EntropyMinAdapter()
