"""One rank of tests/trajectory/test_two_ranks.py: trains a few cases on recorded completions and saves what it saw.

    RANK=0 WORLD_SIZE=2 ... python two_ranks_worker.py FOLDER

The test itself calls `train` with one process and twice the batch; the shuffle is then the one by which an update
holds the rows that it holds on two ranks.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parents[1] / "engines" / "trl"))

from trl_helpers import Gradients, Recorded, Spied, chosen_of, make_trainer, parameters, problems, score

from entropilot.answers.judges import Function
from entropilot.methods import SCRL, AnswerMask, ClipCov, KLCov, TraPO
from entropilot.methods.empo import EMPO
from entropilot.methods.entrocraft import Entrocraft
from entropilot.methods.entropy_target import EntropyTarget
from entropilot.methods.qae import QAE
from entropilot.methods.repo import REPO
from entropilot.methods.stare import STARE
from entropilot.methods.w_reinforce import WReinforce
from entropilot.recording.probe import Probe, Validation
from entropilot.rewards.groups import GroupReward
from entropilot.rewards.trajectories import TrajectoryReward

ROWS, PARTS = 6, 2  # completions per rank and pass; passes per rollout
# 12 rows per rank and groups of 8: the middle group is torn over the ranks.
SETTINGS = {"num_generations": 8, "steps_per_generation": PARTS, "max_steps": 6, "num_iterations": 2}
SGD = {"optim": "sgd", "learning_rate": 0.1}
WINDOW = {"fraction": 0.04, "cov_low": 0.1, "cov_high": 6.0}

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "KL-Cov over the rollout": (KLCov(fraction=0.04), {"loss_type": "dapo"}),
    "Clip-Cov over the rollout": (ClipCov(**WINDOW), {"loss_type": "grpo", "gradient_accumulation_steps": 2}),
    "restrain over the rollout": (KLCov(restrain=3.0), {"loss_type": "luspo", "learning_rate": 0.01}),
    "KL-Cov over the update": (
        KLCov(fraction=0.04, scope="update"),
        {"loss_type": "grpo", "gradient_accumulation_steps": 2},
    ),
    "Clip-Cov over the update": (ClipCov(**WINDOW, scope="update"), {"loss_type": "cispo"}),
    "entropy on target through STARE": (
        (EntropyTarget(target="1.1×start"), STARE(fraction=0.2)),
        {"loss_type": "dapo"},
    ),
    "REPO with STARE": ((REPO(zeta=0.05), STARE(target=9.0, adaptive=True)), {"loss_type": "grpo"}),
    "QAE with Clip-Cov": (
        (QAE(), ClipCov(**WINDOW)),
        {"loss_type": "grpo", "gradient_accumulation_steps": 2},
    ),
    "W-REINFORCE with Clip-Cov": ((WReinforce(), ClipCov(**WINDOW)), {"loss_type": "dapo"}),
    "Entrocraft with KL-Cov": ((Entrocraft(low=1.0, high=2.0), KLCov(fraction=0.04)), {"loss_type": "dapo"}),
    # The reward of a group needs all of it, and one group lies across the ranks.
    "EMPO": (KLCov(fraction=0.04), {"loss_type": "grpo"}),
    # Which characters are the answer is found on each rank; and all three prompts come in every rollout, so that
    # majorities are compared with those of the last visit, which may have been another rank's.
    "answer mask": (AnswerMask(), {"loss_type": "grpo"}),
    # Negatives go by the mean token entropy of each completion, which its own rank measures.
    "SCRL": (KLCov(fraction=0.04), {"loss_type": "grpo"}),
    # The choice goes over the unlabelled prompts of all ranks, and every rank remembers all trajectories.
    "TraPO": (KLCov(fraction=0.04), {"loss_type": "grpo", "max_steps": 16}),
}


def as_on_two_ranks(batch: dict[str, Any]) -> dict[str, Any]:
    """Order a rollout so that part k is rank 0's part k and then rank 1's."""
    order = torch.arange(2 * PARTS * ROWS).view(2, PARTS, ROWS).transpose(0, 1).flatten()
    return {name: x[order] if x.ndim else x for name, x in batch.items()}


def meaning() -> GroupReward:
    """Completions of a length mean the same, modulo 3; groups of three meanings of equal rank are left out."""
    rule = EMPO(threshold="window", high=1.05)
    return GroupReward(rule, judge="exact", extract=lambda text: str(len(text) % 3), name="empo")


def endings() -> GroupReward:
    """Completions that end in a letter of the same kind mean the same; that letter is the answer's first character."""
    return GroupReward(EMPO(), judge=Function(kind_of_letter), extract=lambda text: text[-2:], name="empo")


def kind_of_letter(one: str, other: str, question: str | None) -> bool:
    return ord(one[0]) % 3 == ord(other[0]) % 3


def selective() -> GroupReward:
    """Completions of a length mean the same, modulo 4, so that small shares are among them."""
    rule = SCRL(mode="continuous", tau_pos=0.3, tau_marg=0.1, tau_low=0.3, entropy_coef=2.0)
    return GroupReward(rule, judge="exact", extract=lambda text: str(len(text) % 4), name="scrl")


def few_labels() -> TrajectoryReward:
    rule = TraPO(warm_up=1, share=0.3, threshold=0.5)
    return TrajectoryReward(rule, judge="exact", extract=lambda text: str(len(text) % 3), name="trapo")


VISITS = ("answer mask", "TraPO")


def train(name: str, out: Path, world: int) -> dict[str, Any]:
    method, settings = CASES[name]
    rows: list[dict[str, Any]] = []
    # Every rank scores what the main one writes; a rank that did not would leave it waiting.
    probe = Probe(folder=out, tokens_every=1, on_row=lambda step, row: rows.append({"step": step} | row))
    held_out = [{"prompt": text, "score": float(text == "7+7=")} for text in ("1+2=", "30+4=", "7+7=")]
    # Greedy, and a score that is recorded with the problem: the copy that evens out the ranks must not count.
    probe.validation = Validation(rows=held_out, reward=score, every=2, temperature=0.0, max_new_tokens=4)
    gradients = Gradients()
    rewards = {"EMPO": meaning, "answer mask": endings, "SCRL": selective, "TraPO": few_labels}
    dataset = problems(3 if name in VISITS else 32)
    if name == "TraPO":
        dataset = dataset.add_column("answer", ["1", None, None])
    trainer = make_trainer(
        out,
        cls=Spied,
        # These rewards turned around make the net covariance positive, without which `restrain` chooses nothing.
        recorded=Recorded(20, group=8, scale=-1.0 if "restrain" in name else 1.0),
        dataset=dataset,
        method=method,
        reward=rewards[name]() if name in rewards else None,
        observer=probe,
        callbacks=[gradients, probe],
        settings=SETTINGS
        | SGD
        | settings
        | {"per_device_train_batch_size": ROWS * 2 // world, "ddp_timeout": 60},
    )
    trainer.train()
    widths = [seen["completion_ids"].shape[1] for seen in trainer.passes]
    return {
        "chosen": chosen_of(trainer.passes),
        "updates": gradients.updates,
        "weights": parameters(trainer),
        "rows": rows,
        "widths": widths,
    }


if __name__ == "__main__":
    from trl.trainer import grpo_trainer

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    grpo_trainer.shuffle_sequence_dict = lambda batch: batch
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]
    seen = {name: train(name, folder / f"rank{rank}", 2) for name in CASES}
    torch.save(seen, folder / f"rank{rank}.pt")
