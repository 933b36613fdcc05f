"""PPL and CPL for language models on TRL: data, padding, logging and checkpoints are `DPOTrainer`'s, the loss is ours.

A completion is a segment, its tokens are the actions. TRL's own loss gets weight 0; a wrapper around the model reads the
log-probs of TRL's one forward pass and puts Σ log π_θ − S where TRL looks for the reference's log-probs, so that
everything it logs as a reward is α·S. No reference model is made and none is run.
"""

from __future__ import annotations

from copy import copy
from typing import Any, cast

import torch
from torch import Tensor
from trl import DPOConfig, DPOTrainer

from entropilot.engines.trl.preference_data import AUTHOR, AuthorCollator, attach_authors, number_rows
from entropilot.errors import UserError
from entropilot.methods.cpl import CPL
from entropilot.methods.ppl import PPL, sampled_label

# Settings of DPO's loss or of its reference model, at TRL's defaults; with another value they would do nothing here.
DPO_ONLY: dict[str, Any] = {
    "loss_type": ["sigmoid"],
    "loss_weights": None,
    "ld_alpha": None,
    "f_divergence_type": "reverse_kl",
    "label_smoothing": 0.0,
    "use_weighting": False,
    "precompute_ref_log_probs": False,
    "sync_ref_model": False,
}
TRL_BETA = 0.1
PAPERS = {
    PPL: {"title": "Policy-labeled Preference Learning", "id": "2505.06273"},
    CPL: {
        "title": "Contrastive Preference Learning: Learning from Human Feedback without RL",
        "id": "2310.13639",
    },
}


class PPLTrainer(DPOTrainer):
    """TRL's `DPOTrainer` with the loss of PPL (arXiv:2505.06273) or CPL (arXiv:2310.13639), and without a reference.

        S(ζ; π_b) = Σ_u { log π_θ(a_u|s_u) − w_u·(log π_b(a_u|s_u) − log π_θ(a_u|s_u)) }

    over the tokens u of a completion ζ that π_b wrote: PPL's score with the one-sample KL. A row whose author is unknown
    takes the Dirac label, log π_b = 0 at the tokens that it holds: S = Σ_u (1 + w_u)·log π_θ. So does an end token that
    the author gave no log-prob for.

    Two completions differ in length, so nothing that is free of θ cancels between them. The Dirac label's constant,
    infinite for a true Dirac, is left out, which is a choice and no limit. The author's Σ_u w_u·log π_b stays
    (`constant="drop"` leaves it out): it shifts the logit, in favour of the side that is longer or less likely to its
    author. And S itself falls with length, so that with λ < 1 a pair of long completions starts further from won.

    Args:
        model: as `DPOTrainer`.
        args: as `DPOTrainer`; not changed. `beta` is not used, the method has its α.
        method: `PPL(...)`, the default, or `CPL(...)`, which reads no authors.
        **kwargs: as `DPOTrainer`, without `ref_model`. Data sets may have the columns chosen_logp and rejected_logp
            (lists of nats, one per token), or RePO's chosen_logprob_with_token and rejected_logprob_with_token
            ({"tokens": [...], "logprobs": [...]}); a row that holds None in both takes the Dirac label. See
            `entropilot.engines.trl.preference_data.attach_authors` for the lengths that fit.

    Logged under TRL's names: rewards are α·S, their accuracy and margin without λ, the loss with it. Also
    ppl/labelled_tokens, the share of completion tokens with an author's log-prob, and ppl/kl, the mean of
    log π_b − log π_θ over them, nats.

    Raises:
        UserError: settings of DPO's loss, a reference model, images, or log-probs that do not fit their completion.
    """

    _tag_names = ["trl", "ppl"]

    def __init__(
        self, model: Any, args: DPOConfig | None = None, *, method: PPL | CPL | None = None, **kwargs: Any
    ) -> None:
        self.method = PPL() if method is None else method
        args = DPOConfig() if args is None else copy(args)
        check_settings(self.method, args, kwargs)
        self._name, self._paper = type(self.method).__name__, PAPERS[type(self.method)]
        # With it TRL makes no reference model (FSDP excepted: there it loads one, which is freed again) and expects the
        # reference's log-probs in the batch.
        args.precompute_ref_log_probs = True
        super().__init__(model=model, args=args, **kwargs)
        self.beta, self.loss_weights = self.method.alpha, [0.0]
        self.data_collator = AuthorCollator(self.data_collator)
        # Outside of `compute_loss` there is nothing precomputed that `evaluate` could miss in a new data set.
        self.precompute_ref_logps = False

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        if isinstance(self.method, CPL):
            return super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        dataset = super()._prepare_dataset(number_rows(dataset), processing_class, args, dataset_name)
        return attach_authors(dataset, self._tokenizer, dataset_name)

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns = cast(list[str], self._signature_columns)
        columns += [name for name in AUTHOR if name not in columns]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss of the batch's pairs, plus TRL's balance loss of mixtures of experts."""
        inputs = dict(inputs)
        author, mask = inputs.pop("author_logp", None), inputs["completion_mask"][:, 1:].bool()
        author = None if author is None else author[:, 1:]
        kept: list[tuple[Tensor, Tensor]] = []

        def scoring(**kwargs: Any) -> Any:
            output = model(**kwargs)
            if kwargs.get("fused_lm_head"):
                # Prompt-learning PEFT puts virtual tokens first, as TRL says.
                logp = output.log_probs[:, -mask.shape[1] :]
                scores = completion_scores(self.method, logp, mask, author)
                kept.append((logp.detach(), scores))
                offset = logp.detach().sum(1) - scores.detach()
                inputs["ref_chosen_logps"], inputs["ref_rejected_logps"] = offset.chunk(2)
            return output

        self.precompute_ref_logps = True
        try:
            rest = super().compute_loss(scoring, inputs, return_outputs, num_items_in_batch)
        finally:
            self.precompute_ref_logps = False
        ((logp, scores),) = kept
        chosen, rejected = scores.chunk(2)
        loss = self.method.loss(chosen, rejected, torch.ones_like(chosen)).mean()
        if isinstance(self.method, PPL):
            self._log_labels(logp, mask, author)
        return (rest[0] + loss, rest[1]) if return_outputs else rest + loss

    def _log_labels(self, logp: Tensor, mask: Tensor, author: Tensor | None) -> None:
        """Log the share of labelled tokens and the one-sample KL over them, of all ranks."""
        known = torch.zeros_like(mask) if author is None else mask & ~author.isnan()
        kl = 0.0 if author is None else torch.where(known, author - logp, 0.0).sum()
        sums = torch.stack([known.sum().float(), mask.sum().float(), torch.as_tensor(kl).to(logp).float()])
        labelled, tokens, kl = self.accelerator.reduce(sums, reduction="sum").tolist()
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["ppl/labelled_tokens"].append(labelled / max(1.0, tokens))
        if labelled:
            metrics["ppl/kl"].append(kl / labelled)


def completion_scores(method: PPL | CPL, logp: Tensor, mask: Tensor, author: Tensor | None = None) -> Tensor:
    """Return S(ζ; π_b) of every completion, (b,), nats.

    Args:
        method: with its own α, λ and weights.
        logp: log π_θ of the tokens, (b, t), anywhere in the row; gradients flow through it.
        mask: true at a completion's tokens.
        author: log π_b of them, NaN where unknown; None knows none. CPL does not read it.
    """
    # The methods want a segment's steps first: the prompt goes, completions move to the left in their order.
    order = torch.argsort(mask.int(), dim=1, descending=True, stable=True)[:, : int(mask.sum(1).max())]
    logp, mask = logp.gather(1, order), mask.gather(1, order)
    if isinstance(method, CPL):
        return method.score(logp, mask)
    # log π_b = 0 is the Dirac label, −log π_θ.
    known = torch.zeros_like(logp) if author is None else author.gather(1, order).nan_to_num(nan=0.0)
    return method.score(logp, sampled_label(known, logp, method.constant), mask)


def check_settings(method: Any, args: DPOConfig, others: dict[str, Any]) -> None:
    """Refuse what would have no effect or can't work, before a model is loaded.

    Raises:
        UserError: another method, a setting of DPO's loss, a reference model, images.
    """
    if not isinstance(method, (PPL, CPL)):
        raise UserError(
            f"method={method!r} is no loss of segments; give PPL(...) or CPL(...) of entropilot.methods."
        )
    if isinstance(method, CPL) and method.against_reference:
        raise UserError(
            "PPLTrainer keeps no reference model, with which CPL-KL and DPO on segments compare; give CPL(...), or take "
            "TRL's DPOTrainer."
        )
    for name, default in DPO_ONLY.items():
        if (value := getattr(args, name)) != default:
            raise UserError(
                f"{name}={value!r} is a setting of DPO's loss or reference, and PPLTrainer has neither; "
                f"leave it at {default!r}."
            )
    if args.beta not in (TRL_BETA, method.alpha):
        kind = type(method).__name__
        raise UserError(
            f"beta={args.beta:g} is DPO's; {kind} has its own factor, so set method={kind}(alpha={args.beta:g})."
        )
    if args.truncation_mode != "keep_start":
        raise UserError(
            f"truncation_mode={args.truncation_mode!r} cuts a segment at its beginning, where its weights start; leave "
            "it at 'keep_start'."
        )
    if others.get("ref_model") is not None:
        raise UserError(f"{type(method).__name__} has no reference model; remove ref_model.")
    data = others.get("train_dataset")
    if data is not None and {"image", "images"} & set(next(iter(data), {})):
        raise UserError("PPLTrainer does not align log-probs with images; give data of text alone.")
