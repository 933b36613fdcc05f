"""Name the columns of a log in the rows of a run, and say what is known of each."""

from __future__ import annotations

POLICY, TRAIN = "entropy/policy_T1", "entropy/train_token_mean"
ACCURACY, HELD_OUT, REWARD = "validation/accuracy", "validation/reward", "reward/mean"
UNKNOWN_ENTROPY = "how it was measured is not known to the reader; taken as a mean per token, in nats"
UNKNOWN = "what it measures is not known to the reader beyond its name"
