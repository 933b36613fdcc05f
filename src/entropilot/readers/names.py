"""What the columns of a log are called in the rows of a run, and what is said of one that nobody knows."""

from __future__ import annotations

POLICY, TRAIN = "entropy/policy_T1", "entropy/train_token_mean"
ACCURACY, HELD_OUT, REWARD = "validation/accuracy", "validation/reward", "reward/mean"
UNKNOWN_ENTROPY = "how it was measured is not known to the reader; taken as a mean per token, in nats"
UNKNOWN = "what it measures is not known to the reader beyond its name"
