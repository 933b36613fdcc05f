"""Frameworks without a form of their own: their columns, in tables, W&B exports, TensorBoard and printed dicts."""

from __future__ import annotations

from entropilot.readers.names import ACCURACY, HELD_OUT, REWARD, TRAIN
from entropilot.readers.reader import Reader, known

_DURING = "entropy of the response tokens during the update; by its name alone, the log does not define it"

PRIME_RL = Reader(
    "prime-rl",
    columns=(
        *known("entropy", TRAIN, "nats", (2, "entropy(?:/all)?/mean", f"prime-rl's or ms-swift's {_DURING}")),
        *known(
            "performance",
            REWARD,
            "reward",
            (3, "reward/all/mean", "prime-rl's mean reward over the rollouts of a step"),
            reward=True,
        ),
        *known(
            "performance",
            HELD_OUT,
            "reward",
            (
                1,
                r"eval/(?P<set>.+)/avg@\d{1,6}",
                "prime-rl's evaluation: mean reward over N samples per problem of one set",
            ),
        ),
    ),
    log_entropy="prime-rl logs `entropy/all/mean`",
)

SWIFT = Reader(
    "ms-swift",
    steps=(("global_step/max_steps",), ("train/global_step/max_steps",)),
    log_entropy="ms-swift logs `entropy/mean` with --log_entropy true",
)

EASYR1 = Reader(
    "easyr1",
    columns=(
        *known(
            "performance",
            ACCURACY,
            "share",
            (1, "val/accuracy_reward", "EasyR1's validation: mean of its accuracy reward"),
        ),
        *known(
            "performance", HELD_OUT, "reward", (2, "val/reward_score", "EasyR1's validation: mean reward")
        ),
    ),
    log_entropy="EasyR1 logs `actor/entropy_loss`",
)

SKYRL = Reader(
    "skyrl",
    steps=(("trainer/global_step",),),
    columns=(
        *known("entropy", TRAIN, "nats", (2, "policy/policy_entropy", f"SkyRL's {_DURING}")),
        *known(
            "performance",
            HELD_OUT,
            "reward",
            (1, "eval/all/avg_score", "SkyRL's evaluation: mean score over all sets"),
            (2, "eval/(?P<set>.+)/avg_score", "SkyRL's evaluation: mean score of one set"),
        ),
        *known(
            "performance",
            REWARD,
            "reward",
            (3, "reward/avg_raw_reward", "SkyRL's mean reward over the rollouts of a step"),
            reward=True,
        ),
    ),
    log_entropy="SkyRL logs `policy/policy_entropy`",
)

TINKER = Reader(
    "tinker",
    steps=(("progress/batch",),),
    columns=(
        *known(
            "entropy",
            TRAIN,
            "nats",
            (
                2,
                "optim/entropy",
                "Tinker's `optim/entropy`: mean of −log π of the sampled tokens, an estimate of the entropy",
            ),
        ),
        *known(
            "performance",
            ACCURACY,
            "share",
            (1, "test/env/all/correct", "Tinker's evaluation: share of correct answers"),
        ),
        *known(
            "performance",
            HELD_OUT,
            "reward",
            (2, "test/env/all/reward/total", "Tinker's evaluation: mean reward of an episode"),
        ),
        *known(
            "performance",
            REWARD,
            "reward",
            (3, "env/all/reward/total", "Tinker's mean reward of an episode"),
            reward=True,
        ),
    ),
    log_entropy="the Tinker cookbook logs `optim/entropy`",
)

NEMO_RL = Reader(
    "nemo-rl",
    columns=(
        *known(
            "entropy",
            TRAIN,
            "nats",
            (
                2,
                "train/approx_entropy",
                "NeMo-RL's `approx_entropy`: estimated from the sampled tokens' log-probs with importance weights",
            ),
        ),
    ),
    log_entropy="NeMo-RL logs `train/approx_entropy`",
)

AREAL = Reader(
    "areal",
    columns=(
        *known(
            "entropy",
            TRAIN,
            "nats",
            (2, "(?:ppo|grpo)_actor/(?:update/)?entropy/avg", f"AReaL's {_DURING}"),
        ),
        *known(
            "performance",
            REWARD,
            "reward",
            (
                3,
                "(?:ppo|grpo)_actor/(?:update/)?task_reward/avg",
                "AReaL's mean task reward over the rollouts of a step",
            ),
            reward=True,
        ),
        *known(
            "performance",
            HELD_OUT,
            "reward",
            (1, "eval-rollout/(?:task_)?reward(?:/avg)?", "AReaL's evaluation: mean reward"),
        ),
    ),
    log_entropy="AReaL logs `ppo_actor/update/entropy/avg`",
)

ROLL = Reader(
    "roll",
    steps=(("system/step",),),
    columns=(
        *known(
            "entropy",
            TRAIN,
            "nats",
            (2, "critic/entropy/mean", "ROLL's mean entropy of the response tokens of a rollout"),
        ),
        *known(
            "performance",
            ACCURACY,
            "share",
            (1, "val_correct/all/mean", "ROLL's validation: share of correct answers over all sets"),
            (2, "val_correct/(?P<set>.+)/mean", "ROLL's validation: share of correct answers of one set"),
        ),
    ),
    log_entropy="ROLL logs `critic/entropy/mean`",
)

BY_NAME = (PRIME_RL, SWIFT, EASYR1, SKYRL, TINKER, NEMO_RL, AREAL, ROLL)
