"""Name what a run's rows hold: every metric once, with its unit and definition.

The header of a run, the probe, entropy minimisation and the page take the names from here. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

ENTROPY = "entropy/policy_T1"
ACCURACY = "validation/accuracy"
REWARD = "reward/mean"

# name: (unit, definition). A star stands for the shares and quadrants of entropilot.maths.covariance.
METRICS: dict[str, tuple[str, str]] = {
    "rollout": (
        "count",
        "rollouts before this one, so the first is 0; in the row of a rollout's first update",
    ),
    "entropy/policy_T1": (
        "nats",
        "policy entropy, arXiv:2505.22617 Eq. 5: before the first update of a rollout, all its rows, full vocabulary, "
        "T = 1, per-sequence token mean, then mean over sequences",
    ),
    "entropy/train_token_mean": (
        "nats",
        "full-vocabulary entropy at the training temperature, during the update, mean over its tokens",
    ),
    "validation/accuracy": (
        "share",
        "mean reward on held-out problems, measured before the rollout of the same row, or after the last update",
    ),
    "validation/length": ("tokens", "mean length of the validation completions, end token included"),
    "validation/truncated": ("share", "validation completions that reached the length limit"),
    "validation/samples": ("count", "validation completions"),
    "reward/mean": ("reward", "mean reward of the rollout's completions that were scored"),
    "reward/std": ("reward", "standard deviation of the same"),
    "covariance/mean": (
        "nats",
        "mean over the eligible tokens of (log π − mean)(A − mean), arXiv:2505.22617 Eq. 10, at the rollout's policy; "
        "first-order ΔH is −η times it",
    ),
    "covariance/left_out": (
        "count",
        "tokens of the rollout that are left out of covariance and choice, because their log-prob is infinite or NaN",
    ),
    "covariance/positive_share": ("share", "rollouts so far on which covariance/mean is positive"),
    "covariance/top_*": ("nats", "mean covariance of the top share of the eligible tokens (Table 1)"),
    "covariance/quadrant_*": (
        "nats",
        "Σ of the covariance over a quadrant of probability × advantage / eligible tokens; first-order ΔH of the "
        "quadrant is −η times it; the four add up to covariance/mean",
    ),
    "chosen/tokens": (
        "count",
        "tokens that the method chose: over the rollout, or summed over the update's passes",
    ),
    "chosen/eligible": ("count", "tokens that it could choose from"),
    "chosen/net_share": (
        "share",
        "Σ covariance of the chosen / Σ of all eligible tokens; above 1 is possible",
    ),
    "chosen/positive_share": ("share", "Σ covariance of the chosen / Σ of the positive ones"),
    "answer/masked": ("share", "tokens of the rollout's completions whose gradient the answer mask stops"),
    "answer/unlocated": (
        "share",
        "completions of the rollout with an answer whose place in the text was not found; nothing of them is masked",
    ),
    "adapted/*": (
        "as the setting",
        "settings that methods change from rollout to rollout, as they hold for this one, and what they counted: "
        "entropy_target (nats), strength and integral (logarithms) of entropy_target, start (nats); weight_up, "
        "weight_down and on of STARE; band_low and band_high (nats), sign, left_out (completions) of Entrocraft; zeta, "
        "target (nats), clamped (tokens) of REPO",
    ),
    "seconds/teacher": ("s", "sampling the teacher's votes of the rollout, on the first process"),
    "teacher/megabytes": ("MiB", "weights of the teacher, on each process"),
    "penalty": ("loss", "mean over the update's tokens of the method's extra loss"),
    "log_ratio/mean": ("nats", "mean of |log π_θ − log π_old| over the update's tokens"),
    "log_ratio/median": ("nats", "median of the same"),
    "log_ratio/p99": ("nats", "99th percentile of the same"),
    "clip/low": ("share", "tokens with ratio < 1 − ε_low and A < 0; 0 where there is no clip"),
    "clip/high": ("share", "tokens with ratio > 1 + ε_high and A > 0"),
    "completion/length": ("tokens", "mean completion length of the rollout"),
    "completion/longest": ("tokens", "longest completion of the rollout"),
    "completion/truncated": ("share", "completions of the rollout without an end token"),
    "groups/all_right": (
        "share",
        "groups whose rewards are all the highest that this rollout saw, and equal",
    ),
    "semantic/entropy": (
        "nats",
        "mean over the rollout's groups of H = -sum p ln p, p the shares of a group's answers that mean the same "
        "(arXiv:2504.05812); a missing answer is a meaning of its own",
    ),
    "semantic/entropy_groups": ("nats", "the same of every group"),
    "semantic/clusters": ("count", "mean number of meanings in a group"),
    "semantic/majority_share": ("share", "mean share of a group's largest cluster"),
    "semantic/margin": (
        "share",
        "mean over the groups of p1 - p2, the shares of the two largest clusters of answers",
    ),
    "semantic/flip_rate": (
        "share",
        "how often the majority answer of a prompt differed from that of its visit before, by the judge: mean of its last "
        "five visits, then mean over the rollout's prompts that were visited before",
    ),
    "semantic/flip_rate_groups": ("share", "the same of every group; null at a prompt's first visit"),
    "semantic/filtered": (
        "share",
        "groups left out of training: by the threshold on their semantic entropy, or not yet or not used by TraPO",
    ),
    "semantic/unanswered": ("share", "completions of the rollout from which no answer was extracted"),
    "semantic/unlabelled": ("count", "unlabelled prompts of the rollout that are past their warm-up (TraPO)"),
    "semantic/used": ("count", "those of them that are trained on"),
    "semantic/label_accuracy": (
        "share",
        "for reporting only: completions whose answer agrees with the label, where the data has one",
    ),
    "semantic/majority_accuracy": (
        "share",
        "for reporting only: groups whose majority answer (the first among equals) agrees with the label",
    ),
    "groups/all_wrong": ("share", "groups whose rewards are all equal and lower than that"),
    "law/ceiling": (
        "of R",
        "-a + b of R = -a*exp(H) + b, fitted to all rollouts so far; R is validation/accuracy, or reward/mean where "
        "nothing is validated; from the fifth measurement on",
    ),
    "law/ceiling_low": ("of R", "lower end of its 95 % interval, which knows that steps are autocorrelated"),
    "law/ceiling_high": ("of R", "upper end of the same"),
    "law/r2": ("share", "variance of R that the law explains"),
    "law/spent": ("share", "(exp H_0 - exp H_t) / (exp H_0 - 1), from the smoothed policy entropy"),
    "law/alarm": ("text", "said once, when 90 % is spent or entropy is below a tenth of its start"),
    "dynamics/covariance_pg": (
        "nats",
        "mean over prompts of Cov(log π(y|x), π(y|x)·A) over a prompt's responses, log π(y|x) the mean log-prob of the "
        "response's tokens, π(y|x) its exponential (arXiv:2505.22617, Theorem 1 and Fig. 8)",
    ),
    "dynamics/covariance_npg": ("nats", "the same of Cov(log π(y|x), A) (Theorem 2)"),
    "dynamics/by_accuracy": (
        "share, count, nats, nats",
        "[accuracy, prompts, covariance_pg, covariance_npg] for every accuracy that a group of the rollout had",
    ),
    "dynamics/entropy_before": (
        "nats",
        "policy entropy (Eq. 5, T = 1) on completions that were fixed before the first update, before this update",
    ),
    "dynamics/entropy_after": ("nats", "the same after this update"),
    "stop/reason": ("text", "said once, when a reward without labels has nothing more to teach (probe.stop)"),
    "findings/told": (
        "text by name",
        "what `entropilot diagnose` finds wrong with the run so far; each finding is said once (probe.on_finding)",
    ),
    "learning_rate": ("1", "learning rate of the update"),
    "seconds/rollout": ("s", "generating, scoring, and the old log-probs"),
    "seconds/validation": ("s", "held-out accuracy"),
    "seconds/probe": ("s", "what the probe itself took on the rollout"),
    "seconds/update": ("s", "forward passes and losses of the update"),
    "seconds/step": ("s", "the whole optimiser step, with all of the above"),
}

# What a row holds beyond these where entropy is minimised.
ENTROPY_MIN: dict[str, tuple[str, str]] = {
    "entropy_min/loss": (
        "nats",
        "full-vocabulary entropy at the training temperature as it was minimised: mean over all counted tokens of the "
        "update; with official_mask the mean over micro-batches of their token means",
    ),
    "entropy_min/tokens": ("count", "tokens that the loss counted, over all micro-batches and ranks"),
}

# What our trainers hand to the log of their engine, and a record of entropilot does not hold.
ENGINE_LOGS: dict[str, tuple[str, str]] = {
    "ppl/labelled_tokens": ("share", "PPLTrainer: tokens of the batch whose author's log-prob is known"),
    "ppl/kl": ("nats", "PPLTrainer: mean of log π_b − log π_θ over those tokens, π_b their author"),
    "semantic/lost": ("count", "in verl: samples that verl lost; each counts as one without an answer"),
    "label/score_mean": (
        "reward",
        "in verl: mean of verl's own score of the training samples; used for nothing",
    ),
    "actor/chosen/tokens": (
        "count",
        "in verl: tokens that the method chose over the update's mini-batch, of all ranks; verl logs the mean over the "
        "updates of a step, here and below",
    ),
    "actor/chosen/eligible": ("count", "in verl: tokens that it could choose from"),
    "actor/covariance/mean": ("nats", "in verl: covariance/mean over the update's mini-batch, of all ranks"),
    "actor/adapted/*": (
        "as the setting",
        "in verl: what a method that rewrites advantages counted in a micro-batch: clamped (tokens) of REPO",
    ),
}

# The columns of `control train`: rows of its runs hold these in place of METRICS.
CONTROL: dict[str, tuple[str, str]] = {
    "loss": (
        "nats",
        "of the last batch. Phase bc: ‖m(s) − a‖², that is minus log π(a|s) up to a constant, mean over states",
    ),
    "phase": ("name", "bc while all segments are imitated, preference after that"),
    "ranked_right": ("share", "of the last batch's pairs, whose preferred segment scores higher"),
    "success": ("share", "of evaluation episodes that are solved at any step; the policy acts by its mean"),
    "episodes": ("episodes", "how many were evaluated"),
    "seconds": ("s", "since this session of the run began, evaluation included"),
}

# The columns of a token sample, a file `tokens/step_000010.parquet`: one row per completion.
TOKEN_COLUMNS: dict[str, tuple[str, str]] = {
    "step": ("count", "optimiser step before which the completions were sampled"),
    "prompt": ("text", "as the model read it, special tokens included"),
    "prompt_id": ("text", "the same for equal prompts, in every sample"),
    "role": (
        "text",
        "held_out: a fixed prompt that every sample completes; training: of the rollout, or fixed and trained on",
    ),
    "completion": ("text", "what the model wrote"),
    "truncated": ("true or false", "the completion has no end token"),
    "reward": ("reward", "of the completion; null where nothing scored it"),
    "tokens": ("texts", "of the completion, one by one"),
    "logp": ("nats, per token", "log-prob of the sampled token at the training temperature"),
    "entropy": ("nats, per token", "of the whole vocabulary at that place, at the training temperature"),
    "advantage": ("per token", "as the loss sees it; null outside of the rollout"),
    "covariance": ("nats, per token", "(log π − mean)(A − mean); null outside of the rollout"),
    "drift": (
        "nats, per token",
        "log-prob after the rollout's last update − before its first; null outside of it",
    ),
    "chosen": ("true or false, per token", "the method acts on this token"),
    "cluster": ("number", "cluster of the answer; with several group rewards `cluster/REWARD`"),
    "answer": ("text", "the extracted answer, null for none; with several group rewards `answer/REWARD`"),
}

SEMANTIC = "semantic/"


def semantic_name(metric: str, reward: str | None) -> str:
    """Return the name of a metric of a group reward: `semantic/entropy`, or `semantic/REWARD/entropy` among several.

    Args:
        metric: as in `METRICS`, with its prefix `semantic/`.
        reward: the name of the reward where the run has several group rewards, else None.
    """
    return metric if reward is None else f"{SEMANTIC}{reward}/{metric.removeprefix(SEMANTIC)}"


def described(table: Mapping[str, tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Return a table of metrics as it stands in a run's header."""
    return {name: {"unit": unit, "definition": text} for name, (unit, text) in table.items()}


def definitions(group_rewards: Iterable[str] = ()) -> dict[str, dict[str, str]]:
    """Return unit and definition of every metric by name, as they stand in a run's header.

    Args:
        group_rewards: the names of the run's group rewards, which name its columns where there are several.
    """
    several, table = list(group_rewards), dict(METRICS)
    if len(several) > 1:
        semantic = {name: table.pop(name) for name in METRICS if name.startswith(SEMANTIC)}
        table |= {
            semantic_name(name, reward): (unit, f"of the reward {reward}: {text}")
            for reward in several
            for name, (unit, text) in semantic.items()
        }
    return described(table)
